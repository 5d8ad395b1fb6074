# ruff: noqa: PTH102, PTH118, PTH123, PTH211
"""Catalogues of 50,000 files against what the kernel and ntfs-3g say of each of them."""

from __future__ import annotations

import os
import random
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pseudomount import open_backup
from pseudomount.filesystem.names import unescape
from tests.support import loop
from tests.support.ntfs import mkntfs, ntfs3g

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the oracles are Linux's")

FILES = 50_000
_WORDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
}
_COLUMNS = ("inode", "type", "size", "allocated", "mode", "uid", "gid", "links", "modified", "changed", "accessed")
_TIMES = ("modified", "changed", "accessed")
#: `_COLUMNS` of a path.
Seen = dict[str, Any]


def _letters() -> list[str]:
    """Names of every kind of code point that both file systems take."""
    parts = ["a", "Z", "0", "ä", "ß", "Ж", "語", "𝄞", "e\u0301", " x", "x ", "x.", "..x", "\u200d", "\ue000", "\uffff"]
    parts += ["'", "&"]
    return [part * count for part in parts for count in (1, 3)]


def _grow(root: str, seed: int, *, stray: bool) -> None:
    """A tree of `FILES` files: hard links, holes, deep folders, odd and long names, links, times from 1902 to 2200."""
    rng = random.Random(seed)
    folders = [root]
    names = _letters()
    here = root
    for level in range(60):
        here = os.path.join(here, f"{names[level % len(names)]}{level}")
        os.mkdir(here)
        folders.append(here)
    for number in range(500):
        folder = os.path.join(rng.choice(folders[:200]), f"folder {number}")
        os.mkdir(folder)
        folders.append(folder)
    made: list[str] = []
    for number in range(FILES - len(folders)):
        name = f"{rng.choice(names)}{number}"
        if number % 500 == 0:
            name = (name + "n" * 255)[: 255 - len(name.encode()) + len(name)]
        folder = rng.choice(folders)
        path = os.path.join(folder, name)
        if made and number % 40 == 0:
            os.link(rng.choice(made), path)
            continue
        if number % 90 == 0:
            os.symlink(f"../{name}", path)
            continue
        with open(path, "wb") as file:
            if number % 7 == 0:
                file.write(bytes([number % 251 + 1]) * rng.randrange(1, 9000))
            elif number % 11 == 0:
                file.truncate(rng.randrange(1, 1 << 30))
        made.append(path)
        if number % 3 == 0:
            second = rng.randrange(-2_000_000_000, 7_000_000_000)
            os.utime(path, ns=(second * 10**9 + number * 100, (second + 5) * 10**9 + number * 300))
    if stray:
        for number in range(64):
            odd = os.path.join(os.fsencode(rng.choice(folders)), b"stray \xff\xfe %d \x80\\x41" % number)
            os.mkfifo(odd) if number % 2 else os.close(os.open(odd, os.O_CREAT | os.O_WRONLY))


def _walked(root: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    top = os.fsencode(root)
    yield b"/", os.lstat(top)
    todo = [top]
    while todo:
        for entry in os.scandir(todo.pop()):
            yield entry.path[len(top) :], entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)


def _truth(root: Path) -> dict[bytes, Seen]:
    return {
        path: {
            "inode": seen.st_ino,
            "type": _WORDS[stat.S_IFMT(seen.st_mode)],
            "size": None if stat.S_ISDIR(seen.st_mode) else seen.st_size,
            "allocated": seen.st_blocks * 512,
            "mode": seen.st_mode,
            "uid": seen.st_uid,
            "gid": seen.st_gid,
            "links": seen.st_nlink,
            "modified": seen.st_mtime_ns,
            "changed": seen.st_ctime_ns,
            "accessed": seen.st_atime_ns,
        }
        for path, seen in _walked(root)
    }


def _ours(image: Path) -> dict[bytes, Seen]:
    with open_backup(image) as backup:
        [volume] = backup.browsable()
        catalogue = volume.catalogue()
        encoding = volume.fs.name_encoding
        table = catalogue.arrow.select(_COLUMNS)
        for name in _TIMES:
            table = table.set_column(table.column_names.index(name), name, table[name].cast("int64"))
        paths = [encoding.encode(unescape(path, encoding)) for path in catalogue.paths().to_pylist()]
        assert not list(backup.findings)
        found: dict[bytes, Seen] = {}
        for path, row in zip(paths, table.to_pylist(), strict=True):
            assert path not in found
            found[path] = {**row, "size": None if row["type"] == "dir" else row["size"]}
        return found


@pytest.mark.loop
@pytest.mark.tools("mke2fs", "losetup", "mount")
@pytest.mark.parametrize("options", [(), ("-b", "1024", "-O", "^extents,^64bit")])
def test_ext4(options: tuple[str, ...], tmp_path: Path) -> None:
    image = loop.mkfs(tmp_path / "ext4.img", "ext4", "1G", "-N", "70000", *options)
    with loop.mounted(image, "rw") as top:
        _grow(str(top), 1, stray=True)
    with loop.mounted(image) as top:
        truth = _truth(top)
    ours = _ours(image)
    assert ours.keys() == truth.keys()
    assert len(truth) >= FILES
    wrong = {path: (ours[path], seen) for path, seen in truth.items() if ours[path] != seen}
    assert not wrong, list(wrong.items())[:5]


@pytest.mark.tools("mkntfs", "ntfs-3g")
@pytest.mark.loop
def test_ntfs(tmp_path: Path) -> None:
    image = tmp_path / "ntfs.img"
    mkntfs(image, "1G")
    with ntfs3g(image, "rw") as top:
        _grow(str(top), 2, stray=False)
        os.setxattr(os.path.join(top, "a0"), "user.a stream", b"of a folder")
    with ntfs3g(image, "ro") as top:
        truth = _truth(top)
    ours = _ours(image)
    assert ours.keys() == truth.keys()
    assert len(truth) >= FILES
    wrong = {}
    for path, seen in truth.items():
        mine = ours[path]
        # ntfs-3g makes up modes and owners, and how many links folders have; it cuts times before 1970 another way.
        alike = ("inode", "type", "size", *(() if seen["type"] == "dir" else ("links",)))
        same = all(mine[name] == seen[name] for name in alike)
        early = [name for name in _TIMES if seen[name] < 0]
        same &= all(abs(mine[name] - seen[name]) < 10**9 for name in early)
        same &= all(mine[name] == seen[name] for name in _TIMES if name not in early)
        if not same:
            wrong[path] = (mine, seen)
    assert not wrong, list(wrong.items())[:5]
