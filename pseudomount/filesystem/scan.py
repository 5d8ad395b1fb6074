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
    none = ScanStreams.none()
    yield ScanBatch(rows, ScanLinks.none(), np.zeros(1, np.bool_), _streams(fs, rows) if streams else none)
    seen = _Seen()
    seen.fresh(root)
    level = root
    entered, known = 0, 1
    done = 0.0
    for _ in range(_MAX_DEPTH + 1):
        below: list[UInt64s] = []
        for first in range(0, len(level), _BATCH):
            directories = level[first : first + _BATCH]
            found = fs.children(directories)
            fresh = seen.fresh(found.file)
            rows = fs.rows(fresh)
            # What cannot be read is entered, as a walk does, where an entry says that it is a directory.
            said = np.isin(fresh, found.file[found.type == FileType.DIRECTORY])
            below.append(fresh[(rows.type == FileType.DIRECTORY) | ((rows.type == FileType.UNKNOWN) & said)])
            entered, known = entered + len(directories), known + len(below[-1])
            done = max(done, entered / known)
            yield ScanBatch(
                rows,
                ScanLinks(found.parent, found.file, found.name, found.type, np.zeros(len(found), np.bool_)),
                np.zeros(len(fresh), np.bool_),
                _streams(fs, rows) if streams else none,
                {int(directories[i]): error for i, error in found.errors.items()},
                done,
            )
        level = np.concatenate(below)
        if not len(level):
            return
    fs.findings.add_error(CorruptionError("directories nest too deep", structure="directory"), file=int(level[0]))


class _Seen:
    """The ids that came by; in sorted arrays, each half as long as the one before, so that small steps are cheap."""

    def __init__(self) -> None:
        self._parts: list[UInt64s] = []

    def fresh(self, ids: UInt64s) -> UInt64s:
        """Those that come by for the first time, in the order in which they do; from now on they are seen."""
        unique, first = np.unique(ids, return_index=True)
        new = np.ones(len(unique), np.bool_)
        for part in self._parts:
            at = np.minimum(np.searchsorted(part, unique), len(part) - 1)
            new &= part[at] != unique
        if new.any():
            self._parts.append(unique[new])
        while len(self._parts) > 1 and len(self._parts[-2]) < 2 * len(self._parts[-1]):
            last = self._parts.pop()
            self._parts[-1] = np.union1d(self._parts[-1], last)
        return ids[np.sort(first[new])]


def _streams(fs: FileSystem, rows: FileRows) -> ScanStreams:
    """The named streams of some files, one file at a time: the contract has no batch for what few files have."""
    owners, names, sizes, allocated = [], [], [], []
    for file in rows.file[rows.type != FileType.UNKNOWN].tolist():
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
