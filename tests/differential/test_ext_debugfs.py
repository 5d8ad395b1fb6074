"""ext4 with blocks that few kernels mount, against debugfs and the folder that the image was made from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pseudomount.findings import Severity
from pseudomount_ext import ExtParser
from tests.support import loop, trees
from tests.support.browse import browse_tree, open_filesystem
from tests.support.entries import assert_same
from tests.support.images import ImageDevice

#: mke2fs needs root to give files away, and a folder's own times and owner are not what it copies.
pytestmark = [pytest.mark.loop, pytest.mark.tools("mke2fs", "debugfs", "setfacl", "chattr")]

COPIED = ("type", "mode", "uid", "gid", "target", "sha256", "xattrs", "rdev")


def source(folder: Path, block: int) -> Path:
    """A folder of hard things that mke2fs copies: all but sockets."""
    folder.mkdir()
    folder.chmod(0o755)
    trees.plain(folder)
    trees.special(folder)
    trees.long_links(folder)
    trees.modes_and_owners(folder)
    trees.xattrs(folder)
    trees.holes(folder, block, fallocate=False)
    (folder / "crowd").mkdir()
    for number in range(3000):
        (folder / "crowd" / f"{number:05d}{'-' * (number % 97)}").hardlink_to(folder / "size-100")
    for path in list(folder.rglob("socket")):
        path.unlink()
    return folder


@pytest.mark.parametrize(
    ("block", "size", "options"),
    [
        (8192, "64M", ()),
        (16_384, "64M", ("-O", "^has_journal")),
        (32_768, "128M", ("-O", "^has_journal,inline_data")),
        (65_536, "192M", ("-O", "^has_journal")),
        (65_536, "192M", ("-O", "^has_journal,^extent,^64bit", "-I", "128")),
        (65_536, "192M", ("-O", "^has_journal,ea_inode,^metadata_csum", "-I", "1024")),
        (8192, "256M", ("-O", "^has_journal,bigalloc", "-C", "131072")),
        (4096, "64M", ()),
        (1024, "64M", ("-O", "^has_journal")),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_equal_to_debugfs(block: int, size: str, options: tuple[str, ...], tmp_path: Path) -> None:
    folder, image = source(tmp_path / "source", min(block, 8192)), tmp_path / "image"
    if "inline_data" in str(options):  # mke2fs marks what is all holes as inline data, of more bytes than can be inline
        shutil.rmtree(folder / "holes")
    # the longest links need a block of more than 4 KiB
    if block < 4096:
        for path in folder.glob("link 4*"):
            path.unlink()
    loop.mkfs(image, "ext4", size, "-b", str(block), *options, "-d", str(folder))
    copied = loop.kernel_tree(folder, births=False)
    by_debugfs = loop.debugfs_tree(image)
    with ImageDevice(image) as device:
        filesystem = open_filesystem(ExtParser(), device)
        seen = browse_tree(filesystem).entries
        assert_same(by_debugfs, seen)
        lost = seen.pop(b"lost+found")
        assert lost.type == "dir"
        copied.pop(b""), seen.pop(b"")
        assert_same(copied, seen, only=COPIED)
        files = {path: entry for path, entry in copied.items() if entry.type in {"file", "symlink"}}
        assert_same(files, {path: seen[path] for path in files}, only=("size", "nlink"))
        assert not [str(finding) for finding in filesystem.findings if finding.severity > Severity.NOTE]
