"""What is asked of a library, file by file: these libraries know no batches, so a loop over files is all there is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, MappedDevice
from pseudomount.errors import CorruptionError, PathNotFoundError
from pseudomount.filesystem import FileType, NameEncoding, RunKind, StreamInfo

__all__ = ["Adapter", "Bytes", "Content", "Entry", "Facts", "Run", "file_type", "no_stream", "signed"]

Int64s = NDArray[np.int64]

#: (seconds since 1970, nanoseconds)
Time = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a directory. `hidden` ones are found and not listed (NTFS's 8.3 aliases)."""

    name: bytes
    file: int
    type: FileType
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What `FileRows` has of one file; see there. `rdev` is (major, minor)."""

    inode: int
    type: FileType
    size: int
    subvolume: int = 0
    generation: int = 0
    allocated: int = -1
    mode: int = -1
    uid: int = -1
    gid: int = -1
    links: int = -1
    created: Time | None = None
    modified: Time | None = None
    changed: Time | None = None
    accessed: Time | None = None
    flags: int = 0
    rdev: tuple[int, int] | None = None


#: (offset in the file, length, position on the device or -1 for a hole, kind), bytes
Run = tuple[int, int, int, RunKind]


@dataclass(frozen=True, slots=True)
class Content:
    """Where a file's bytes are.

    Attributes:
        size: bytes.
        runs: ascending, no overlaps.
        resident: all bytes, where metadata holds them.
        decoded: a device of `size` bytes that decodes them, where runs alone do not give the content.
    """

    size: int
    runs: list[Run] = field(default_factory=list)
    resident: bytes | None = None
    decoded: BlockDevice | None = None

    def checked(self) -> Content:
        """Itself; CorruptionError where numbers make no sense."""
        end = 0
        for offset, length, position, _ in self.runs:
            if offset < end or length <= 0 or offset + length >= 1 << 62 or not -1 <= position < 1 << 62:
                message = f"a data run of {length} bytes at {offset}, on the device at {position}, makes no sense"
                raise CorruptionError(message, structure="data runs")
            end = offset + length
        return self

    def columns(self) -> tuple[Int64s, Int64s, Int64s, NDArray[np.uint8]]:
        """The runs: int64 (n,) offset, length, position, uint8 (n,) kind."""
        table = np.array(self.runs, np.int64).reshape(-1, 4)
        return table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.uint8)

    def device(self, device: BlockDevice, name: str) -> BlockDevice:
        """The content as a device."""
        if self.decoded is not None:
            return self.decoded
        if self.resident is not None:
            return Bytes(self.resident, name)
        offset, length, position, kind = self.columns()
        return MappedDevice(device, offset, length, position, self.size, name, unwritten=kind == RunKind.UNWRITTEN)


class Bytes(BlockDevice):
    """A few bytes in memory."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self.name = name

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._content)

    def _read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


class Adapter(ABC):
    """One library. All methods are called inside of `Guard.call`, which turns what they raise into our errors."""

    root: int
    name_encoding: NameEncoding = NameEncoding.BYTES
    case_sensitive: bool = True
    details: dict[str, object]

    @abstractmethod
    def entries(self, directory: int) -> Iterator[Entry]:
        """The entries of what `facts` called a directory, "." and ".." left out or not."""

    @abstractmethod
    def facts(self, file: int) -> Facts:
        """What is known of a file. PathNotFoundError where there is none."""

    @abstractmethod
    def content(self, file: int, stream: str | None = None) -> Content:
        """The content of a regular file, or of one of its named streams."""

    @abstractmethod
    def target(self, file: int) -> bytes:
        """Where a symbolic link leads."""

    def xattrs(self, file: int) -> dict[str, bytes]:
        """Extended attributes by full name."""
        return {}

    def streams(self, file: int) -> list[StreamInfo]:
        """Named streams."""
        return []

    def fold(self, name: bytes) -> bytes:
        """What is equal of names that the file system takes for the same."""
        return name

    def link_parts(self, target: bytes) -> tuple[bool, list[bytes]]:
        """See `FileSystem.link_parts`."""
        return target.startswith(b"/"), [part for part in target.split(b"/") if part]


def no_stream(file: int, stream: str) -> PathNotFoundError:
    """The error for a stream that is not there."""
    return PathNotFoundError(f"file {file} has no stream {stream!r}")


_TYPES = {kind.mode: kind for kind in FileType}


def file_type(mode: int) -> FileType:
    """The type by the bits of a mode."""
    return _TYPES.get(mode & 0o170000, FileType.UNKNOWN)


def signed(value: int, bits: int) -> int:
    """A number that was read as unsigned, in two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value
