"""What the libraries get wrong, measured: each line here is one that our own parsers get right.

A defect that a new version of a library has mended fails here; then it goes from the list in `docs/dissect.md` too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pseudomount.errors import UnsupportedError
from pseudomount.filesystem import Parser
from pseudomount_dissect import DissectParser
from pseudomount_ext import ExtParser
from tests.parsers.dissect import images
from tests.support import loop, trees
from tests.support.browse import browse_tree, open_filesystem
from tests.support.entries import differences
from tests.support.fixtures import fixture_tree
from tests.support.loop import kernel_tree, mounted, run
from tests.support.ntfs import (
    ImageFile,
    content,
    find,
    link_point,
    mkntfs,
    names,
    ntfs3g,
    open_ntfs,
    reparse,
    set_xattr,
)

pytest.importorskip("dissect.extfs", reason="needs the extra: pip install 'pseudomount[dissect]'")


def _wrong(image: Path, parser: Parser, truth: dict[bytes, object], ignore: Sequence[str] = ()) -> list[str]:
    with ImageFile(image) as device:
        seen = browse_tree(open_filesystem(parser, device)).entries
        return differences(truth, seen, ignore=ignore)  # type: ignore[arg-type]


def _holes(root: Path) -> None:
    trees.holes(root, 4096, fallocate=False)


def _full_directory(root: Path) -> None:
    """A block of 1 KiB whose last entry has 12 bytes: 24 of "." and "..", one of 16, 82 of 12."""
    folder = root / "full"
    folder.mkdir()
    (folder / "sixteen").write_bytes(b"")
    for number in range(82):
        (folder / f"{number:03d}").hardlink_to(folder / "sixteen")


def _last_inode(root: Path) -> None:
    number = 0
    while True:
        try:
            (root / f"file {number}").write_bytes(b"")
        except OSError:
            return
        number += 1


def _fallocated(root: Path) -> None:
    run("fallocate", "-l", "40960", root / "middle")
    with (root / "middle").open("r+b") as file:
        file.seek(12_288)
        file.write(trees.noise(1, 4096))


#: name → kind, size, options, what fills it, and patterns: every difference fits one, and each is needed.
EXT: dict[str, tuple[str, str, tuple[str, ...], Callable[[Path], None], tuple[str, ...]]] = {
    "times before 1970 and from 2038": (
        "ext4",
        "16M",
        ("-I", "256", "-O", "^inline_data"),
        trees.times,
        (r"times/19\d\d .*: [ma]time_ns: -\d+ expected, \d+$", r"times/2.*: [ma]time_ns: \d+ expected, \d+$"),
    ),
    "ext2: files that are or end in holes": ("ext2", "16M", ("-b", "4096"), _holes, (r"holes/.*: sha256: ",)),
    "inline data": (
        "ext4",
        "16M",
        ("-I", "256", "-O", "inline_data"),
        trees.plain,
        (r".*: missing", r"(hard|level 0|acls): error ", r"size-(61|100|156): (error runs: .*inline data|sha256)"),
    ),
    "the last inode": ("ext2", "1M", ("-N", "16", "-I", "128"), _last_inode, (r"file \d+: missing \(file\)$",)),
    "a last entry of 12 bytes": (
        "ext2",
        "1M",
        ("-b", "1024", "-O", "^dir_index"),
        _full_directory,
        (r"full/\d+: missing \(file\)$",),
    ),
}


@pytest.mark.loop
@pytest.mark.tools("mke2fs", "fallocate")
@pytest.mark.parametrize("name", EXT)
def test_ext(tmp_path: Path, name: str) -> None:
    kind, size, options, fill, patterns = EXT[name]
    image = loop.mkfs(tmp_path / "image", kind, size, *options)
    with mounted(image, "rw", kind="ext4") as root:
        fill(root)
    with mounted(image, kind="ext4", options="ro") as root:
        truth = kernel_tree(root)
    assert not _wrong(image, ExtParser(), truth, ("flags",))  # type: ignore[arg-type]
    wrong = _wrong(image, DissectParser(), truth, ("flags",))  # type: ignore[arg-type]
    assert wrong
    assert [line for line in wrong if not any(re.match(pattern, line) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.match(pattern, line) for line in wrong)] == []


@pytest.mark.tools("mke2fs")
def test_ext_bigalloc_is_refused(tmp_path: Path) -> None:
    image = loop.mkfs(tmp_path / "image", "ext4", "16M", "-O", "bigalloc")
    with ImageFile(image) as device, pytest.raises(UnsupportedError, match="cluster"):
        open_filesystem(DissectParser(), device)


@pytest.mark.parametrize(
    ("fixture", "patterns"),
    [
        ("ext2-1k", [r"times/19\d\d .*: [ma]time_ns: -\d+ expected, \d+$"]),
        ("ext3", []),
        ("ext4-64k", []),
    ],
)
def test_ext_fixtures_are_read_like_by_our_own_but_for(fixture: str, patterns: list[str], tmp_path: Path) -> None:
    """The cross-check: two readers that share no code see the same, and what the kernel saw."""
    from tests.support.fixtures import fixture_path

    truth = fixture_tree(fixture)
    image = fixture_path(fixture, tmp_path)
    with ImageFile(image) as device:
        ours = browse_tree(open_filesystem(ExtParser(), device)).entries
        theirs = browse_tree(open_filesystem(DissectParser(), device)).entries
    assert len(ours) == len(truth)
    wrong = differences(ours, theirs, ignore=("flags", "generation"))
    assert [line for line in wrong if not any(re.match(pattern, line) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.match(pattern, line) for line in wrong)] == []


@pytest.mark.loop
@pytest.mark.tools("mkntfs", "ntfs-3g")
def test_ntfs(tmp_path: Path) -> None:
    image = mkntfs(tmp_path / "image", "16M")
    with ntfs3g(image, "rw,streams_interface=windows") as top:
        many = top / "many"
        many.mkdir()
        for number in range(400):
            (many / f"a file with a long name {number:04d}").write_bytes(b"%d" % number)
        for number in range(5, 400):
            (many / f"a file with a long name {number:04d}").unlink()
        (top / "\u0131").write_bytes(b"dotless")
        (top / "wof").write_bytes(b"")
        with (top / "wof").open("r+b") as file:
            file.truncate(5000)
        with Path(f"{top / 'wof'}:WofCompressedData").open("wb") as file:
            file.write(os.urandom(900))
        set_xattr(top / "wof", "system.ntfs_reparse_data", reparse(0x80000017, bytes(16)))
        (top / "relative").write_bytes(b"")
        set_xattr(
            top / "relative", "system.ntfs_reparse_data", link_point(0xA000000C, r"many\x", r"many\x", relative=True)
        )
    with ntfs3g(image, "rw") as top:
        (top / "interix").symlink_to("many/x")
    with ntfs3g(image, "rw,special_files=wsl") as top:
        (top / "wsl").symlink_to("many/x")
    with ImageFile(image) as device:
        ours, theirs = open_ntfs(device), open_filesystem(DissectParser(), device)
        assert len(names(ours, "many")) == 5
        stale = set(names(theirs, "many")) - set(names(ours, "many"))
        assert stale, "the library looks at the index's $BITMAP now"
        find(theirs, "I")  # str.upper makes an I of the dotless one, $UpCase does not
        with pytest.raises(AssertionError, match="not there"):
            find(ours, "I")
        assert content(theirs, "wof") == bytes(5000)
        with pytest.raises(UnsupportedError):
            content(ours, "wof")
        for name, where in (("interix", b"many/x"), ("wsl", b"many/x"), ("relative", b"many\\x")):
            mine, other = (_target(filesystem, name) for filesystem in (ours, theirs))
            assert mine == where
            assert (other == where) is (name == "relative")


def _target(filesystem: object, name: str) -> bytes | None:
    import numpy as np

    from pseudomount.filesystem import FileSystem

    assert isinstance(filesystem, FileSystem)
    answer = filesystem.readlink(np.array([find(filesystem, name)], np.uint64))
    return None if answer.errors else answer.target[0]


@pytest.mark.loop
@pytest.mark.tools("mkfs.xfs", "fallocate")
def test_what_the_adapter_mends_of_xfs(tmp_path: Path) -> None:
    """By itself the library shows what lay on the disk before in blocks that were never written."""
    from dissect.xfs.xfs import XFS

    image = images.made("xfs", tmp_path / "clean", "64M", _fallocated)
    with image.path.open("rb") as file:
        runs = XFS(file).get("middle").dataruns
    assert [start for start, _ in runs if start is None] == []
    assert not _wrong(image.path, DissectParser(), dict(image.truth), ("flags",))
