"""The columns that a file system answers in: arrays of n, and an error for each row that failed."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import Names, TimeColumn

__all__ = [
    "DataRuns",
    "FileRows",
    "FileType",
    "LinkRows",
    "Looked",
    "NameEncoding",
    "RunKind",
    "StreamInfo",
    "Targets",
]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]
Errors = Mapping[int, PseudomountError]

_NO_ERRORS: Errors = MappingProxyType({})


def _no_errors() -> Errors:
    return _NO_ERRORS


class FileType(IntEnum):
    """The kinds of file."""

    UNKNOWN = 0
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    CHAR_DEVICE = 4
    BLOCK_DEVICE = 5
    FIFO = 6
    SOCKET = 7

    @property
    def mode(self) -> int:
        """The file-type bits of `st_mode`."""
        return _MODES[self]

    @property
    def word(self) -> str:
        """As the CLI and JSON say it: "file", "dir", "symlink", "char", "block", "fifo", "socket", "unknown"."""
        return _WORDS[self]


_MODES = {
    FileType.UNKNOWN: 0,
    FileType.FILE: stat.S_IFREG,
    FileType.DIRECTORY: stat.S_IFDIR,
    FileType.SYMLINK: stat.S_IFLNK,
    FileType.CHAR_DEVICE: stat.S_IFCHR,
    FileType.BLOCK_DEVICE: stat.S_IFBLK,
    FileType.FIFO: stat.S_IFIFO,
    FileType.SOCKET: stat.S_IFSOCK,
}
_WORDS = {
    FileType.UNKNOWN: "unknown",
    FileType.FILE: "file",
    FileType.DIRECTORY: "dir",
    FileType.SYMLINK: "symlink",
    FileType.CHAR_DEVICE: "char",
    FileType.BLOCK_DEVICE: "block",
    FileType.FIFO: "fifo",
    FileType.SOCKET: "socket",
}


class NameEncoding(Enum):
    """How the byte strings in `Names` become Python strings.

    BYTES: the disk's own bytes, UTF-8 by convention; stray bytes become surrogate escapes (U+DC80 to U+DCFF).
    WTF8: the disk has UTF-16; the bytes are UTF-8 in which an unpaired surrogate is encoded as itself.
    """

    BYTES = "surrogateescape"
    WTF8 = "surrogatepass"

    def decode(self, name: bytes) -> str:
        """One name."""
        return name.decode("utf-8", self.value)

    def encode(self, name: str) -> bytes:
        """One name; `UnicodeEncodeError` where the file system cannot have it."""
        return name.encode("utf-8", self.value)


@dataclass(frozen=True, slots=True)
class LinkRows:
    """Entries of directories, without "." and "..", in the order in which the directories were asked for.

    Attributes:
        query: int64 (n,), position of the entry's directory in the question, ascending.
        parent: uint64 (n,), id of that directory.
        file: uint64 (n,), id of the file the entry names.
        name: n names.
        type: uint8 (n,), `FileType` as the entry says; UNKNOWN where it does not.
        errors: position of a directory in the question → what went wrong in it. Its readable entries are there.
    """

    query: Int64s
    parent: UInt64s
    file: UInt64s
    name: Names
    type: UInt8s
    errors: Errors = field(default_factory=_no_errors)

    def __len__(self) -> int:
        return len(self.file)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> LinkRows:
        """A selection of entries; errors stay."""
        return LinkRows(
            self.query[rows], self.parent[rows], self.file[rows], self.name.take(rows), self.type[rows], self.errors
        )


@dataclass(frozen=True, slots=True)
class FileRows:
    """What `stat` would say of n files, in the order in which they were asked for. -1 is "not known" or "has none".

    Attributes:
        file: uint64 (n,), ids.
        subvolume: uint64 (n,), 0 where the file system has none.
        inode: uint64 (n,), the number under which the file system itself knows the file.
        generation: int64 (n,), tells apart files that used the same inode one after the other.
        type: uint8 (n,), `FileType`; UNKNOWN where the row has an error.
        size: int64 (n,), bytes.
        allocated: int64 (n,), bytes of the device that the file uses.
        mode: int64 (n,), permission bits and type as in `st_mode`; -1 where the file system has no modes.
        uid, gid: int64 (n,).
        links: int64 (n,), hard links.
        created, modified, changed, accessed: times.
        flags: uint64 (n,), attribute bits as the file system defines them.
        extra: what the file system has besides, name → array (n,): numbers, as narrow as they are, negative where there
            is none, or times as datetime64[ns]. The numbers of device nodes are `rdev_major` and `rdev_minor`, signed,
            -1 for other files.
        errors: row → what was wrong; the row's numbers mean nothing.
    """

    file: UInt64s
    subvolume: UInt64s
    inode: UInt64s
    generation: Int64s
    type: UInt8s
    size: Int64s
    allocated: Int64s
    mode: Int64s
    uid: Int64s
    gid: Int64s
    links: Int64s
    created: TimeColumn
    modified: TimeColumn
    changed: TimeColumn
    accessed: TimeColumn
    flags: UInt64s
    extra: Mapping[str, NDArray[np.generic]] = field(default_factory=lambda: MappingProxyType({}))
    errors: Errors = field(default_factory=_no_errors)

    def __len__(self) -> int:
        return len(self.file)

    @classmethod
    def none(cls) -> FileRows:
        """No rows."""
        ids, numbers, times = np.empty(0, np.uint64), np.empty(0, np.int64), TimeColumn.null(0)
        return cls(
            file=ids,
            subvolume=ids,
            inode=ids,
            generation=numbers,
            type=np.empty(0, np.uint8),
            size=numbers,
            allocated=numbers,
            mode=numbers,
            uid=numbers,
            gid=numbers,
            links=numbers,
            created=times,
            modified=times,
            changed=times,
            accessed=times,
            flags=ids,
        )

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> FileRows:
        """A selection of rows, by numbers or mask, with their errors."""
        columns: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        picked: dict[str, Any] = {
            name: column.take(rows) if isinstance(column, TimeColumn) else column[rows]
            for name, column in columns.items()
            if name not in ("extra", "errors")
        }
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        errors = {}
        if self.errors:
            errors = {i: self.errors[row] for i, row in enumerate(numbers.tolist()) if row in self.errors}
        return FileRows(**picked, extra={name: column[rows] for name, column in self.extra.items()}, errors=errors)


@dataclass(frozen=True, slots=True)
class Looked:
    """The answer of `lookup`.

    Attributes:
        file: uint64 (n,), ids; mean something where `found`.
        found: bool (n,).
        errors: row → why it could not be told. A row that is neither found nor an error is not there.
    """

    file: UInt64s
    found: NDArray[np.bool_]
    errors: Errors = field(default_factory=_no_errors)


@dataclass(frozen=True, slots=True)
class Targets:
    """The answer of `readlink`: n targets as the file system has them; empty where the row has an error."""

    target: Names
    errors: Errors = field(default_factory=_no_errors)


class RunKind(IntEnum):
    """What a data run is."""

    DATA = 0  # bytes of the device
    HOLE = 1  # nothing allocated: zeros
    UNWRITTEN = 2  # allocated, never written: zeros


@dataclass(frozen=True, slots=True)
class DataRuns:
    """Where the content of files lies, file by file in the order asked for, ascending within a file.

    Runs cover a file's allocated part; what they leave out is a hole. They may reach past its size.

    Attributes:
        query: int64 (m,), position of the run's file in the question, ascending.
        offset: int64 (m,), bytes from the start of the file.
        length: int64 (m,), bytes.
        position: int64 (m,), bytes from the start of the device; -1 for a hole.
        kind: uint8 (m,), `RunKind`.
        resident: position of a file in the question → its content, where metadata holds it. Such files have no runs.
        encoded: bool (n,) over the files asked for: the runs hold compressed or encrypted bytes, `open` decodes them.
        errors: position of a file in the question → what was wrong. The runs that make sense are there.
    """

    query: Int64s
    offset: Int64s
    length: Int64s
    position: Int64s
    kind: UInt8s
    resident: Mapping[int, bytes]
    encoded: NDArray[np.bool_]
    errors: Errors = field(default_factory=_no_errors)

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """A named stream of a file (NTFS alternate data streams); the main content is not among them."""

    name: str
    size: int
    allocated: int
