"""NTFS volumes for tests: made by mkntfs, filled and read through ntfs-3g, the independent implementation."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pseudomount.device import BlockDevice
from pseudomount.filesystem import FileSystem
from pseudomount.findings import FindingLog
from pseudomount_ntfs import Ntfs, NtfsParser
from tests.support.entries import Entry, digest
from tests.support.loop import TYPES, run

#: What stands in the way of a mount by ntfs-3g in a container: no /dev/fuse.
FUSE = Path("/dev/fuse").exists()

RECORD_MASK = (1 << 48) - 1


def mkntfs(image: Path, size: str, *options: str) -> Path:
    """A new sparse file with NTFS on it. `size` as truncate takes it."""
    image.unlink(missing_ok=True)
    run("truncate", "-s", size, image)
    run("mkntfs", "-Q", "-F", "-q", "-p", "0", "-H", "255", "-S", "63", *options, image)
    return image


@contextlib.contextmanager
def ntfs3g(image: Path, options: str = "ro") -> Iterator[Path]:
    """A mount by ntfs-3g, undone in any case."""
    with tempfile.TemporaryDirectory(prefix="pseudomount-ntfs-") as folder:
        run("ntfs-3g", "-o", options, image, folder)
        try:
            yield Path(folder)
        finally:
            # The driver may still hold a file for a moment; an unmounted image must be complete on return.
            run("umount", folder)
            _settle(image)


def _settle(image: Path) -> None:
    """Waits until the driver's process has let go of the image: it writes the last of it after umount returns."""
    subprocess.run(["sync", "-f", str(image)], check=False, capture_output=True)
    for _ in range(200):
        held = False
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().startswith("ntfs-3g"):
                    held |= any(os.path.realpath(fd) == str(image) for fd in (process / "fd").iterdir())
        if not held:
            return
        time.sleep(0.01)
    raise RuntimeError(f"ntfs-3g does not let go of {image}")


class ImageFile(BlockDevice):
    """An image, read where it lies: large ones are sparse."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._file = path.open("rb")
        self._size = path.stat().st_size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def _close(self) -> None:
        self._file.close()


def _reader(file: int) -> Callable[[int, int], bytes]:
    def read(at: int, length: int) -> bytes:
        os.lseek(file, at, os.SEEK_SET)
        return os.read(file, length)

    return read


def fuse_tree(mountpoint: Path) -> dict[bytes, Entry]:
    """Every path below a mount and the root itself (as b""), as ntfs-3g shows them; directories have no size."""
    if sys.platform == "win32":
        raise OSError("needs FUSE")
    top = os.fsencode(mountpoint)
    tree: dict[bytes, Entry] = {}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        full = top + b"/" + path if path else top
        info = os.lstat(full)
        kind = TYPES[stat.S_IFMT(info.st_mode)]
        sha256 = target = None
        if kind == "dir":
            waiting += [path + b"/" + name if path else name for name in os.listdir(full)]  # noqa: PTH208
        elif kind == "symlink":
            target = os.readlink(full)  # noqa: PTH115  (names are bytes)
        elif kind == "file":
            with open(full, "rb") as file:  # noqa: PTH123  (names are bytes)
                sha256 = digest(info.st_size, _reader(file.fileno()))
        tree[path] = Entry(
            type=kind,
            size=info.st_size if kind in {"file", "symlink"} else None,
            nlink=info.st_nlink if kind == "file" else None,
            mtime_ns=info.st_mtime_ns,
            atime_ns=info.st_atime_ns,
            ctime_ns=info.st_ctime_ns,
            btime_ns=_created(full) if kind in {"file", "dir"} else None,
            ino=info.st_ino,
            # ntfs-3g counts what lies in the record as blocks of the device; it takes none of its own.
            allocated=info.st_blocks * 512 if kind == "file" and info.st_blocks * 512 > 4096 else None,
            rdev=(os.major(info.st_rdev), os.minor(info.st_rdev)) if kind in {"char", "block"} else None,
            target=target,
            sha256=sha256,
        )
    return tree


def _created(path: bytes) -> int:
    """When a file was made, which stat of a FUSE mount does not say: ntfs-3g has the four FILETIMEs as an attribute."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    ticks = struct.unpack_from("<Q", os.getxattr(path, "system.ntfs_times"))[0]
    return int(ticks - 116_444_736_000_000_000) * 100


def open_ntfs(device: BlockDevice, **options: str) -> Ntfs:
    """Our parser's view."""
    return NtfsParser().open(device, FindingLog("disk0"), options)


def find(filesystem: FileSystem, path: str) -> int:
    """The id behind a path."""
    file = int(filesystem.root)
    for part in path.split("/"):
        looked = filesystem.lookup(np.array([file], np.uint64), [part.encode("utf-8", "surrogatepass")])
        if looked.errors:
            raise looked.errors[0]
        assert bool(looked.found[0]), f"{part!r} of {path!r} is not there"
        file = int(looked.file[0])
    return file


def content(filesystem: FileSystem, path: str, stream: str | None = None) -> bytes:
    """All bytes of a file."""
    with filesystem.open(find(filesystem, path), stream) as device:
        return device.read(0, device.size)


def set_xattr(path: Path, name: str, value: bytes) -> None:
    """One of ntfs-3g's own attributes, `system.ntfs_…`, by which it sets what has no call of its own."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    os.setxattr(path, name, value)


def get_xattr(path: Path, name: str) -> bytes:
    """The same, read."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    return os.getxattr(path, name)


def make_node(path: Path, mode: int, major: int = 0, minor: int = 0) -> None:
    """A FIFO or device node."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    os.mknod(path, mode, os.makedev(major, minor))


def reparse(tag: int, body: bytes) -> bytes:
    """A reparse point."""
    return struct.pack("<IHH", tag, len(body), 0) + body


def link_point(tag: int, substitute: str, shown: str, *, relative: bool = False) -> bytes:
    """The reparse point of a symbolic link (0xA000000C) or mount point (0xA0000003)."""
    first, second = substitute.encode("utf-16-le"), shown.encode("utf-16-le")
    flags = struct.pack("<I", relative) if tag == 0xA000000C else b""
    body = struct.pack("<4H", 0, len(first), len(first) + 2, len(second)) + flags
    return reparse(tag, body + first + b"\0\0" + second + b"\0\0")


def names(filesystem: FileSystem, path: str = "") -> list[str]:
    """The names in a directory, sorted."""
    directory = find(filesystem, path) if path else int(filesystem.root)
    links = filesystem.children(np.array([directory], np.uint64))
    if links.errors:
        raise links.errors[0]
    return sorted(name.decode("utf-8", "surrogatepass") for name in links.name)


class Image:
    """An image's bytes, to be damaged in known places."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.sector = int.from_bytes(data[11:13], "little")
        per = data[13]
        self.cluster = self.sector * (per if per <= 0x80 else 1 << (256 - per))
        size = struct.unpack_from("b", data, 64)[0]
        self.record = size * self.cluster if size > 0 else 1 << -size
        self.mft = int.from_bytes(data[48:56], "little") * self.cluster
        self.mirror = int.from_bytes(data[56:64], "little") * self.cluster

    def record_at(self, number: int) -> int:
        """Where a record lies, in an MFT of one piece."""
        return int(self.mft + (number & RECORD_MASK) * self.record)

    def attribute(self, number: int, kind: int, *, nth: int = 0) -> int:
        """Where the nth attribute of a type lies in a record."""
        base = self.record_at(number)
        at = base + int.from_bytes(self.data[base + 20 : base + 22], "little")
        while True:
            found, length = struct.unpack_from("<II", self.data, at)
            assert found != 0xFFFFFFFF, f"record {number} has no attribute {kind:#x}"
            if found == kind:
                if not nth:
                    return int(at)
                nth -= 1
            at += length

    def first_run(self, at: int) -> int:
        """Where the content of a non-resident attribute begins."""
        pairs = at + int.from_bytes(self.data[at + 32 : at + 34], "little")
        width, far = self.data[pairs] & 15, self.data[pairs] >> 4
        return self.cluster * int.from_bytes(self.data[pairs + 1 + width : pairs + 1 + width + far], "little")

    def poke(self, at: int, data: bytes) -> None:
        """Writes bytes. Not over the last two of 512 bytes in a record: these are in its update sequence."""
        self.data[at : at + len(data)] = data
