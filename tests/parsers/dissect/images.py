"""XFS, Btrfs and NTFS volumes made by the kernel and by ntfs-3g, and what these see in them."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pseudomount.testing.filesystem_conformance import Expected
from tests.support import trees
from tests.support.entries import Entry
from tests.support.loop import kernel_tree, mounted, run
from tests.support.ntfs import fuse_tree, mkntfs, ntfs3g

#: Lets mkfs.xfs make volumes of under 300 MB, as the file system's own tests do.
_SMALL = {"TEST_DIR": "1", "TEST_DEV": "1", "QA_CHECK_FS": "1"}

TEXT = b"".join(b"line %d of a text that compresses well\n" % line for line in range(20_000))


@dataclass(frozen=True, slots=True)
class Image:
    """A volume and what its own driver shows."""

    path: Path
    truth: Mapping[bytes, Entry]


def manifest_of(truth: Mapping[bytes, Entry]) -> Mapping[bytes, Expected]:
    """What a reader saw, for the conformance suite."""
    return {
        path: Expected(
            entry.type,
            entry.size,
            entry.sha256,
            entry.target,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.nlink,
            entry.mtime_ns,
        )
        for path, entry in truth.items()
    }


def mkfs(kind: str, image: Path, size: str, *options: str) -> None:
    """A new file system in a sparse file."""
    image.unlink(missing_ok=True)
    run("truncate", "-s", size, image)
    before = {name: os.environ.get(name) for name in _SMALL}
    os.environ.update(_SMALL)
    try:
        run(f"mkfs.{kind}", "-q", *options, image)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]


def made(kind: str, image: Path, size: str, fill: Callable[[Path], None], *options: str) -> Image:
    """A volume with a tree in it, and how the kernel shows it."""
    mkfs(kind, image, size, *options)
    with mounted(image, "rw", kind=kind) as root:
        fill(root)
    with mounted(image, "ro", kind=kind) as root:
        return Image(image, kernel_tree(root))


def small(root: Path) -> None:
    """A little of everything: for the conformance suite, which reads it many times."""
    for size in (0, 1, 60, 700, 4096, 70_000):
        (root / f"size {size}").write_bytes(trees.noise(size, size))
    crowd = root / "crowd"
    crowd.mkdir()
    for number in range(150):
        (crowd / f"a name of some length {number:04d}").write_bytes(b"%d" % number)
    for number in range(0, 150, 3):
        (crowd / f"a name of some length {number:04d}").unlink()
    (root / "deep/er/still").mkdir(parents=True)
    (root / "deep/er/still/bottom").write_bytes(b"deep down")
    (root / "deep/hard").hardlink_to(root / "size 60")
    (root / "link").symlink_to("deep/er")
    (root / "long link").symlink_to("x" * 900)
    os.mkfifo(root / "fifo")
    with (root / "holes").open("wb") as file:
        for at in (4096, 40_960, 100_000):
            file.seek(at)
            file.write(trees.noise(at, 5000))
    run("fallocate", "-l", "65536", root / "unwritten")
    trees.attribute(root / "size 60", "user.comment", b"hello")
    trees.attribute(root / "deep", "user.long", trees.noise(3, 1500))
    (root / os.fsdecode(b"caf\xe9")).write_bytes(b"latin")


def compressed(root: Path) -> None:
    """Btrfs's compressed files, and its subvolumes."""
    for kind in ("zlib", "lzo", "zstd"):
        folder = root / kind
        folder.mkdir()
        run("btrfs", "property", "set", folder, "compression", kind)
        (folder / "text").write_bytes(TEXT)
        (folder / "inline").write_bytes(b"small text " * 100)
        (folder / "mixed").write_bytes(TEXT[:200_000] + bytes(300_000) + trees.noise(5, 5000))
    run("btrfs", "subvolume", "create", root / "sub")
    (root / "sub/in").write_bytes(trees.noise(1, 5000))
    run("btrfs", "subvolume", "create", root / "sub/deep")
    (root / "sub/deep/below").write_bytes(b"below")
    run("btrfs", "subvolume", "snapshot", root / "sub", root / "snapshot")
    (root / "sub/later").write_bytes(b"not in the snapshot")


def _small_btrfs(root: Path) -> None:
    small(root)
    folder = root / "packed"
    folder.mkdir()
    run("btrfs", "property", "set", folder, "compression", "zlib")
    (folder / "text").write_bytes(TEXT[:100_000])
    run("btrfs", "subvolume", "create", root / "sub")
    (root / "sub/in").write_bytes(trees.noise(1, 5000))


@functools.cache
def _folder() -> Path:
    made_here = tempfile.TemporaryDirectory(prefix="pseudomount-dissect-")
    _kept.append(made_here)
    return Path(made_here.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def small_xfs() -> Image:
    """16 MiB of XFS."""
    return made("xfs", _folder() / "small.xfs", "16M", small, "-L", "small")


@functools.cache
def small_btrfs() -> Image:
    """16 MiB of Btrfs, data and metadata mixed."""
    return made("btrfs", _folder() / "small.btrfs", "16M", _small_btrfs, "--mixed", "-L", "small")


@functools.cache
def small_ntfs() -> Image:
    """8 MiB of NTFS."""
    image = mkntfs(_folder() / "small.ntfs", "8M", "-L", "small")
    with ntfs3g(image, "rw,compression,streams_interface=windows") as root:
        for size in (0, 1, 60, 700, 4096, 70_000):
            (root / f"size {size}").write_bytes(trees.noise(size, size))
        crowd = root / "crowd"
        crowd.mkdir()
        for number in range(150):
            (crowd / f"a name of some length {number:04d}").write_bytes(b"%d" % number)
        (root / "deep/er/still").mkdir(parents=True)
        (root / "deep/er/still/bottom").write_bytes(b"deep down")
        (root / "deep/hard").hardlink_to(root / "size 60")
        packed = root / "packed"
        packed.mkdir()
        trees.attribute(packed, "system.ntfs_attrib_be", (0x810).to_bytes(4, "big"))
        (packed / "text").write_bytes(TEXT[:100_000])
        with Path(f"{root / 'size 700'}:stream").open("wb") as file:
            file.write(b"named")
        (root / "Ünï").write_bytes(b"u")
    with ntfs3g(image) as root:
        truth = fuse_tree(root)
    folders = {path: replace(entry, nlink=None, mode=None) for path, entry in truth.items()}
    return Image(image, folders)
