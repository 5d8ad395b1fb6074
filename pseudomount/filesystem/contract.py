"""The FileSystem contract: what a parser makes of a block device.

A parser is a plug-in, found by entry point (group `pseudomount.parsers`). It imports this contract, devices, errors and
findings, and nothing else of pseudomount. It asks its device, and is asked itself, in batches: arrays in, columns out,
and an error for each row that failed. Only a `PseudomountError` may leave it, in bounded time and memory.

Files are known by an id, a uint64 that means something within one opened file system only: the inode number for ext,
record and sequence for NTFS, the position of the directory entry for FAT. What identifies a file across backups is
(subvolume, inode, generation), which are columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.filesystem.rows import (
    DataRuns,
    FileRows,
    FileType,
    LinkRows,
    Looked,
    NameEncoding,
    RunKind,
    StreamInfo,
    Targets,
)
from pseudomount.filesystem.scan import ScanBatch, scan_by_walk
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

UInt64s = NDArray[np.uint64]


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
        literal_names: whether `lookup` finds a name by its own bytes only, in every directory: no case that does not
            matter, no aliases, no folding.
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
    literal_names: bool = False
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

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        """The whole enumeration: every file, name and named stream of the volume, in parts.

        What the parts say of a file is what `rows` says of it, their links are those of `children`. A parser that can
        read its tables in bulk does; this one goes from directory to directory and finds no deleted files.

        A parser that reads tables may find more than the directories do, where these are damaged.

        Args:
            deleted: whether deleted names and files are wanted as well; they are marked as such.
        """
        return scan_by_walk(self, streams=type(self).streams is not FileSystem.streams)

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
