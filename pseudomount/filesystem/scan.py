"""What `FileSystem.scan` gives: the whole enumeration of a volume, in parts that memory holds.

Files and the names that they have are told apart: a file comes once, a link for each of its names. Parts come in the
order in which the parser reads the disk; the links of a file may come in another part than the file itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.rows import FileRows, FileType

if TYPE_CHECKING:
    from pseudomount.filesystem.contract import FileSystem

__all__ = ["ScanBatch", "ScanLinks", "ScanStreams", "scan_by_walk"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: Directories that are asked for in one batch.
_BATCH = 4096
#: Levels below which nobody goes: the longest path that any of our file systems allows has fewer.
_MAX_DEPTH = 4096


@dataclass(frozen=True, slots=True)
class ScanLinks:
    """n names, "." and ".." left out.

    Attributes:
        parent: uint64 (n,), ids of the directories that have them.
        file: uint64 (n,), ids of the files they name.
        name: n names.
        type: uint8 (n,), `FileType` as the entry says; UNKNOWN where it does not.
        deleted: bool (n,), the name was deleted. What it names may be another file by now.
    """

    parent: UInt64s
    file: UInt64s
    name: Names
    type: UInt8s
    deleted: Bools

    @classmethod
    def none(cls) -> ScanLinks:
        """No names."""
        ids = np.empty(0, np.uint64)
        return cls(ids, ids, Names.of([]), np.empty(0, np.uint8), np.empty(0, np.bool_))

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True, slots=True)
class ScanStreams:
    """n named streams.

    Attributes:
        file: uint64 (n,), ids of the files that have them.
        name: n names.
        size, allocated: int64 (n,), bytes.
    """

    file: UInt64s
    name: Names
    size: Int64s
    allocated: Int64s

    @classmethod
    def none(cls) -> ScanStreams:
        """No streams."""
        return cls(np.empty(0, np.uint64), Names.of([]), np.empty(0, np.int64), np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.file)


@dataclass(frozen=True, slots=True)
class ScanBatch:
    """A part of the enumeration.

    Attributes:
        files: what is known of some files; each file of the volume, the root included, is in one part. A file that
            could not be read is a row with an error where its id is known.
        links: some names.
        deleted: bool (len(files),), the file was deleted. Its id is one that no other file of the volume has, and
            `open`, `runs` and `rows` take it.
        streams: some named streams.
        errors: id of a directory → what was wrong with its entries. The readable ones are among the links.
        done: how much of the volume has been enumerated, 0 to 1, an estimate.
    """

    files: FileRows
    links: ScanLinks
    deleted: Bools
    streams: ScanStreams
    errors: Mapping[int, PseudomountError] = field(default_factory=lambda: MappingProxyType({}))
    done: float = 0.0


def scan_by_walk(fs: FileSystem, *, streams: bool = True) -> Iterator[ScanBatch]:
    """The enumeration by asking for the children of the root, their children, and so on: true for every parser.

    Directories are entered once, however many entries claim them; a file with several names comes once. Deleted files
    are not found.

    Args:
        fs: where.
        streams: whether files may have named streams.
    """
    root = np.array([fs.root], np.uint64)
    rows = fs.rows(root)
    yield ScanBatch(rows, ScanLinks.none(), np.zeros(1, np.bool_), ScanStreams.none())
    seen = root
    level = root
    for _ in range(_MAX_DEPTH):
        if not len(level):
            return
        below: list[UInt64s] = []
        for first in range(0, len(level), _BATCH):
            directories = level[first : first + _BATCH]
            found = fs.children(directories)
            files = np.unique(found.file)
            fresh = files[~np.isin(files, seen, assume_unique=True)]
            seen = np.union1d(seen, fresh)
            rows = fs.rows(fresh)
            yield ScanBatch(
                rows,
                ScanLinks(found.parent, found.file, found.name, found.type, np.zeros(len(found), np.bool_)),
                np.zeros(len(fresh), np.bool_),
                _streams(fs, fresh[rows.type == FileType.FILE]) if streams else ScanStreams.none(),
                {int(directories[i]): error for i, error in found.errors.items()},
            )
            below.append(fresh[rows.type == FileType.DIRECTORY])
        level = np.concatenate(below)
    error = CorruptionError("directories nest too deep", structure="directory")
    for file in level[:1].tolist():
        fs.findings.add_error(error, file=file)


def _streams(fs: FileSystem, files: UInt64s) -> ScanStreams:
    """The named streams of some files, one file at a time: the contract has no batch for what few files have."""
    owners, names, sizes, allocated = [], [], [], []
    for file in files.tolist():
        try:
            streams = fs.streams(file)
        except PseudomountError as error:
            fs.findings.add_error(error, file=file)
            continue
        for stream in streams:
            owners.append(file)
            names.append(fs.name_encoding.encode(stream.name))
            sizes.append(stream.size)
            allocated.append(stream.allocated)
    return ScanStreams(
        np.array(owners, np.uint64), Names.of(names), np.array(sizes, np.int64), np.array(allocated, np.int64)
    )
