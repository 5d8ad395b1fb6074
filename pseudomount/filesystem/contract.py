"""The FileSystem contract: what a parser makes of a block device.

A parser is a plug-in, found by entry point (group `pseudomount.parsers`). It imports this contract, devices, errors and
findings, and nothing else of pseudomount. It asks its device, and is asked itself, in batches: arrays in, columns out,
and an error for each row that failed. Only a `PseudomountError` may leave it, in bounded time and memory.

Files are known by an id, a uint64 that means something within one opened file system only: the inode number for ext,
record and sequence for NTFS, the position of the directory entry for FAT. What identifies a file across backups is
(subvolume, inode, generation), which are columns.
"""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import Names, TimeColumn
from pseudomount.findings import FindingLog

__all__ = [
    "ASKED_FOR",
    "DataRuns",
    "FileRows",
    "FileSystem",
    "FileType",
    "LinkRows",
    "Looked",
    "Match",
    "NameEncoding",
    "Parser",
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
        extra: what the file system has besides, name → array (n,); the numbers of device nodes are `rdev_major` and
            `rdev_minor`, int64, -1 for other files.
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


class FileSystem(ABC):
    """One mounted, so to speak, file system. Read-only and thread-safe.

    Attributes:
        name: "ext4", "ntfs", "fat32" …
        device: the volume.
        label: "" where there is none.
        uuid: in the form that blkid prints, "" where there is none.
        root: id of the root directory.
        findings: what was wrong so far; parsers add to it.
        name_encoding: how its names become Python strings.
        case_sensitive: whether `lookup` tells upper from lower case.
        details: what else an expert wants to see, by the format's own terms; plain values.
    """

    name: str
    device: BlockDevice
    label: str = ""
    uuid: str = ""
    root: int
    findings: FindingLog
    name_encoding: NameEncoding = NameEncoding.BYTES
    case_sensitive: bool = True
    details: Mapping[str, object] = MappingProxyType({})

    @abstractmethod
    def children(self, directories: UInt64s) -> LinkRows:
        """The entries of many directories. A file that is no directory is an error of its row."""

    @abstractmethod
    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """The file that directory i has under name i, names compared as the file system itself does."""

    @abstractmethod
    def rows(self, files: UInt64s) -> FileRows:
        """What is known of many files."""

    @abstractmethod
    def runs(self, files: UInt64s) -> DataRuns:
        """Where the content of many files lies."""

    @abstractmethod
    def readlink(self, files: UInt64s) -> Targets:
        """The targets of many symbolic links. A file that is none is an error of its row (`NotASymlinkError`)."""

    @abstractmethod
    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """The content of one file, or of one of its named streams, as a device of the file's size.

        Raises:
            PathIsDirectoryError: it has no content.
            PathNotFoundError: it has no such stream.
            EncryptedError, UnsupportedError: the content is there and we cannot decode it.
            CorruptionError: nothing of the content can be found. Damage to a part shows when that part is read.
        """

    def xattrs(self, file: int) -> dict[str, bytes]:
        """Extended attributes, by full name ("user.comment", "system.posix_acl_access"), as the kernel gives them."""
        return {}

    def streams(self, file: int) -> list[StreamInfo]:
        """Named streams."""
        return []

    def link_parts(self, target: bytes) -> tuple[bool, list[bytes]]:
        """A link's target as (whether it starts at the root, its parts), parts ".." and "." included."""
        return target.startswith(b"/"), [part for part in target.split(b"/") if part]

    def close(self) -> None:  # noqa: B027  (optional to implement)
        """Frees what it holds; not its device."""


#: A match of a lower score is a second opinion: for those who ask for it by name.
ASKED_FOR: Final = 10


@dataclass(frozen=True, slots=True)
class Match:
    """What `probe` found.

    Attributes:
        filesystem: "ext4", "ntfs", "fat32" …
        label, uuid: as in `FileSystem`.
        score: how sure; the highest of several parsers opens the volume. 100 is a magic number and a sound superblock,
            50 a magic number with doubts (a backup superblock, a bad checksum). Below `ASKED_FOR` the parser is taken
            only where the user names it.
    """

    filesystem: str
    label: str = ""
    uuid: str = ""
    score: int = 100


class Parser(ABC):
    """A file-system parser. The entry point names a class without constructor arguments.

    Attributes:
        name: as `--parser` takes it.
        unavailable: why it cannot open anything here, such as a library that is not installed, and what to do about it;
            "" where it can. It may still probe, so that `open` can tell the user.
    """

    name: str

    @property
    def unavailable(self) -> str:
        """Why it cannot open anything here; see above."""
        return ""

    @abstractmethod
    def probe(self, device: BlockDevice) -> Match | None:
        """Whether this device holds a file system that the parser reads; in few and small reads.

        Errors of the device propagate; only the format's own "this is not mine" is None.
        """

    @abstractmethod
    def open(
        self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = MappingProxyType({})
    ) -> FileSystem:
        """Opens it, reading no more than the superblock and what it needs to find the root.

        Args:
            findings: where to note what is wrong.
            options: what the user set for this file system (a code page, a time zone), by the parser's own keys.

        Raises:
            CorruptionError: it cannot be opened at all.
            UnsupportedError: it has features that cannot be ignored and that we do not read.
        """
