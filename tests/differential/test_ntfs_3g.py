"""NTFS against ntfs-3g, over the options of mkntfs and trees made to be difficult; and against wimlib."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import struct
from pathlib import Path

import numpy as np
import pytest

from pseudomount.filesystem import FileType
from pseudomount.testing import MemoryDevice
from tests.support.browse import browse_tree
from tests.support.entries import assert_same
from tests.support.loop import run
from tests.support.ntfs import (
    ImageFile,
    content,
    find,
    fuse_tree,
    make_node,
    mkntfs,
    names,
    ntfs3g,
    open_ntfs,
    set_xattr,
)

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]

_FIELDS = ("type", "size", "sha256", "target", "nlink", "mtime_ns", "atime_ns", "ctime_ns", "ino", "rdev", "allocated")

_NAMES = [
    "n" * 255,
    "ü" * 255,
    "😀" * 127,
    "trailing dot.",
    "trailing space ",
    "con",
    "a:b".replace(":", "\uf03a"),
    "new\nline",
    "back\\slash",
    "Ünïcödé",
    "combining e\u0301",
    "\ud83d lone high",
    "lone low \ude00",
    "\ude00\ud83d wrong way round",
    "\U0010ffff",
    "\x01\x1f",
    ".hidden",
    "...",
]


def _write(top: Path, seed: int) -> None:
    chance = random.Random(seed)
    raw = os.fsencode(top)
    (top / "names").mkdir()
    for name in _NAMES:
        path = raw + b"/names/" + name.encode("utf-8", "surrogatepass")
        with open(path, "wb") as file:  # noqa: PTH123  (names are bytes)
            file.write(name.encode("utf-8", "surrogatepass"))
    (top / "many").mkdir()
    for i in range(300):
        (top / "many" / f"{chance.random():.17f}").write_bytes(chance.randbytes(i * 4))
    for gone in sorted((top / "many").iterdir())[::3]:
        gone.unlink()
    deep = top
    for level in range(30):
        deep /= f"level {level}"
        deep.mkdir()
    (deep / "file").write_bytes(b"deep")
    for i in range(50):
        os.link(deep / "file", top / f"hard link {i} to the file below, with a name that is long")
    with (top / "sparse").open("wb") as file:
        for at in (0, 1_000_003, 3_000_000):
            file.seek(at)
            file.write(b"data at %d" % at)
        file.truncate(4_000_000)
    (top / "hole").touch()
    os.truncate(top / "hole", 10_000_000)
    (top / "long link").symlink_to("x" * 1800)
    (top / "link").symlink_to("many")
    make_node(top / "fifo", stat.S_IFIFO | 0o644)
    make_node(top / "block", 0o60600, 259, 65_535)
    packed = top / "packed"
    packed.mkdir()
    set_xattr(packed, "system.ntfs_attrib_be", struct.pack(">I", 0x810))
    text = b"".join(b"%d %d\n" % (i, i * i) for i in range(12_000))
    for size in (1, 600, 4095, 4096, 4097, 9_000, 65_535, 65_536, 65_537, 70_000, len(text)):
        (packed / f"text {size}").write_bytes(text[:size])
    (packed / "noise").write_bytes(chance.randbytes(150_001))
    (packed / "mixed").write_bytes(chance.randbytes(66_000) + bytes(140_000) + text[:90_000] + chance.randbytes(9))
    with (packed / "later").open("wb") as file:
        file.write(text)
        file.seek(400_000)
        file.write(text)
    for i in range(200):
        os.utime(deep / "file", ns=(i, i))
    os.utime(top / "hole", ns=(-1_000_000_000 * 86_400 * 365 * 100, 32_503_680_000 * 1_000_000_000 // 4))


def _fragment(top: Path) -> None:
    """A file in some hundred pieces: its runs take several records."""
    (top / "pieces").mkdir()
    for i in range(500):
        (top / "pieces" / f"{i}").write_bytes(b"%03d" % i * 1500)
    with (top / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"f" * 65_536)
    for i in range(0, 500, 2):
        (top / "pieces" / f"{i}").unlink()
    with (top / "fragmented").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for i in range(4000):
            file.write(b"%04d" % i * 500)
    os.truncate(top / "filler", 10_000)


@pytest.mark.parametrize(
    ("options", "size", "pieces"),
    [
        (("-c", "512"), "16M", 100),
        (("-c", "1024"), "16M", 0),
        (("-c", "4096"), "16M", 100),
        (("-c", "65536"), "48M", 0),
        (("-c", "131072"), "64M", 0),
        (("-c", "2097152"), "700M", 0),
        (("-s", "256", "-c", "2048"), "16M", 0),
        (("-s", "1024", "-c", "1024"), "16M", 0),
        (("-s", "2048", "-c", "4096"), "16M", 0),
        (("-s", "4096", "-c", "4096"), "24M", 20),
        (("-s", "4096", "-c", "65536", "-I"), "48M", 0),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else None,
)
def test_trees(tmp_path: Path, options: tuple[str, ...], size: str, pieces: int) -> None:
    image = mkntfs(tmp_path / "n.img", size, *options)
    with ntfs3g(image, "rw,compression,streams_interface=none") as top:
        _write(top, len(options))
        if pieces:
            _fragment(top)
    with ntfs3g(image, "ro,streams_interface=none") as top:
        truth = fuse_tree(top)
    assert len(truth) > 300
    with ImageFile(image) as device:
        ntfs = open_ntfs(device)
        assert_same(truth, browse_tree(ntfs).entries, only=_FIELDS)
        assert not ntfs.findings
        if pieces:
            runs = ntfs.runs(np.array([find(ntfs, "fragmented")], np.uint64))
            assert len(runs) > pieces, "it is not fragmented, the test shows nothing"


def test_a_large_directory_and_its_deletions(tmp_path: Path) -> None:
    image = mkntfs(tmp_path / "large.img", "24M")
    with ntfs3g(image, "rw") as top:
        for i in range(5000):
            (top / f"an entry of a large directory {i * 7919 % 5000:05d}").touch()
    device = MemoryDevice(image.read_bytes())
    ntfs = open_ntfs(device)
    assert names(ntfs) == [f"an entry of a large directory {i:05d}" for i in range(5000)]
    links = ntfs.children(np.array([ntfs.root], np.uint64))
    rows = ntfs.rows(links.file)
    assert not rows.errors
    assert (rows.type == FileType.FILE).all()
    asked = [f"AN ENTRY OF A LARGE DIRECTORY {i:05d}".encode() for i in (0, 4999, 2500)]
    looked = ntfs.lookup(np.full(3, ntfs.root, np.uint64), asked)
    by_name = dict(zip(links.name, links.file.tolist(), strict=True))
    assert looked.file.tolist() == [by_name[name.lower().replace(b"an", b"an", 1)] for name in asked]
    with ntfs3g(image, "rw") as top:
        for i in range(5000):
            if i % 500:
                (top / f"an entry of a large directory {i:05d}").unlink()
    ntfs = open_ntfs(MemoryDevice(image.read_bytes()))
    assert names(ntfs) == [f"an entry of a large directory {i:05d}" for i in range(0, 5000, 500)]


def test_named_streams(tmp_path: Path) -> None:
    image = mkntfs(tmp_path / "s.img", "16M", "-c", "1024")
    chance = random.Random(3)
    wanted = {f"stream {i} ü😀": chance.randbytes(i * i * 50) for i in range(30)}
    with ntfs3g(image, "rw,streams_interface=windows") as top:
        (top / "dir").mkdir()
        for path in ("file", "dir"):
            for name, data in wanted.items():
                Path(f"{top / path}:{name}").write_bytes(data)
    with ntfs3g(image, "ro,streams_interface=windows") as top:
        truth = {name: Path(f"{top / 'file'}:{name}").read_bytes() for name in wanted}
    assert truth == wanted
    ntfs = open_ntfs(MemoryDevice(image.read_bytes()))
    for path in ("file", "dir"):
        file = find(ntfs, path)
        assert {stream.name: stream.size for stream in ntfs.streams(file)} == {k: len(v) for k, v in wanted.items()}
        assert {name: content(ntfs, path, name) for name in wanted} == wanted


@pytest.mark.tools("wimcapture", "wimapply")
def test_what_wimlib_writes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "folder" / "below").mkdir(parents=True)
    files = {"a": b"", "folder/b": b"text" * 9000, "folder/below/c": random.Random(1).randbytes(123_456)}
    for path, data in files.items():
        (source / path).write_bytes(data)
    os.link(source / "folder/b", source / "linked")
    (source / "to b").symlink_to("folder/b")
    (source / "to below").symlink_to("folder/below")
    run("wimcapture", "--quiet", source, tmp_path / "x.wim")
    image = mkntfs(tmp_path / "w.img", "16M")
    run("wimapply", "--quiet", tmp_path / "x.wim", "1", image)
    ntfs = open_ntfs(MemoryDevice(image.read_bytes()))
    assert names(ntfs) == ["a", "folder", "linked", "to b", "to below"]
    for path, data in files.items():
        assert content(ntfs, path) == data
    assert find(ntfs, "linked") == find(ntfs, "folder/b")
    targets = ntfs.readlink(np.array([find(ntfs, "to b"), find(ntfs, "to below")], np.uint64))
    assert not targets.errors
    assert targets.target.tolist() == [rb"folder\b", rb"folder\below"]
