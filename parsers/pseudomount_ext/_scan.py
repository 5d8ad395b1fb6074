"""The whole volume in one pass: inode tables in large reads, and behind each part of them the directories in it.

Which inodes are files, they say themselves; the bitmaps, which a damaged volume may have wrong, are not asked. What the
group descriptors say was never used is not read. Should a name lead there all the same, that inode is read at the end.

Deleted files, where they are wanted, are the inodes without links whose mode is still there, with the id
`number | DELETED`. Names that directories no longer have are looked for in what their entries leave between them, see
`_slack`, and in the blocks of deleted directories. Such a name is of the deleted file that its inode is. Where the
inode belongs to a file again, or was wiped, nothing says that it is the name's: the name stands alone, for the id
`number | NAME_ONLY`, of which nothing else is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.contract import FileRows, FileType
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import FindingLog
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Entries, Inodes
from pseudomount_ext._content import BlockRuns, Volume
from pseudomount_ext._directory import Listing, read_directories, visible_names
from pseudomount_ext._inodes import InodeTable
from pseudomount_ext._read import CHUNK, Int64s, stretches
from pseudomount_ext._rows import file_rows, name_rows

__all__ = ["scan_volume"]

Bools = NDArray[np.bool_]
UInt64s = NDArray[np.uint64]
UInt32s = NDArray[np.uint32]
Mapper = Callable[[Inodes, Int64s], BlockRuns]
#: Directory, inode number, names and types of deleted entries; directories by id.
_Gone = tuple[UInt64s, Int64s, Names, NDArray[np.uint8]]

#: Names that lead to directories among the inodes never used lead on at most so often.
_MOST_ROUNDS: Final = 4096
#: Bytes of directories that are worked on at once.
_AT_ONCE: Final = 2 * CHUNK
_MARK: Final = np.uint64(lay.DELETED)


def scan_volume(volume: Volume, table: InodeTable, mapped: Mapper, *, deleted: bool = False) -> Iterator[ScanBatch]:
    """The whole enumeration; see `FileSystem.scan`.

    Args:
        volume: where.
        table: its inodes.
        mapped: finds the blocks of files, those of deleted ones as far as they are free.
        deleted: whether deleted files and names are wanted.
    """
    yield from _Scan(volume, table, mapped, deleted=deleted).run()


class _Scan:
    """One pass. Inode numbers have 32 bits."""

    def __init__(self, volume: Volume, table: InodeTable, mapped: Mapper, *, deleted: bool) -> None:
        self._volume = volume
        self._table = table
        self._mapped = mapped
        self._deleted = deleted
        self._seen: list[UInt32s] = [np.zeros(1, np.uint32)]  # nothing is inode 0
        self._named: list[UInt32s] = [np.array([lay.ROOT_INODE], np.uint32)]
        self._gone_files: list[UInt32s] = []
        self._gone_directories: list[UInt32s] = []
        self._gone: list[_Gone] = []

    def run(self) -> Iterator[ScanBatch]:
        """All parts."""
        for inodes, gone, done in self._table.tables(deleted=self._deleted):
            self._seen.append(inodes.number.astype(np.uint32))
            yield from self._part(inodes, file_rows(inodes, {}), done)
            if len(gone):
                numbers = gone.number.astype(np.uint32)
                self._gone_files.append(numbers)
                self._gone_directories.append(numbers[gone.type == FileType.DIRECTORY])
                rows = file_rows(gone, {}, gone.number.astype(np.uint64) | _MARK)
                yield ScanBatch(rows, ScanLinks.none(), np.ones(len(rows), np.bool_), ScanStreams.none(), done=done)
        yield from self._missing()
        if self._deleted:
            self._read_deleted_directories()
            yield from self._deleted_names()

    def _part(self, inodes: Inodes, files: FileRows, done: float) -> Iterator[ScanBatch]:
        """Files, and the names in those that are directories."""
        nothing = np.zeros(len(files), np.bool_)
        yield ScanBatch(files, ScanLinks.none(), nothing, ScanStreams.none(), done=done)
        rows = np.flatnonzero(files.type == FileType.DIRECTORY)
        for group in _groups(np.clip(inodes.size[rows], 0, _AT_ONCE)):
            links, errors = self._links(inodes, rows[group])
            yield _names_only(links, errors, done)

    def _links(self, inodes: Inodes, rows: Int64s) -> tuple[ScanLinks, dict[int, PseudomountError]]:
        gone: list[tuple[Int64s, Entries]] | None = [] if self._deleted else None
        listing = read_directories(self._volume, inodes, rows, gone=gone)
        directories = inodes.number[rows].astype(np.uint64)
        errors = {int(directories[i]): error for i, error in listing.errors.items()}
        self._named.append(listing.inode.astype(np.uint32))
        for query, entries in _without_copies(listing, gone or []):
            self._gone.append((directories[query], entries.inode, entries.name, entries.type))
        links = ScanLinks(
            directories[listing.query],
            listing.inode.astype(np.uint64),
            visible_names(self._volume, listing, inodes, rows),
            listing.type,
            np.zeros(len(listing.inode), np.bool_),
        )
        return links, errors

    def _missing(self) -> Iterator[ScanBatch]:
        """Files that names lead to and the tables do not have: never used, as it seemed, or damaged."""
        step = max(1, CHUNK // self._volume.superblock.inode_size)
        for _ in range(_MOST_ROUNDS):
            if not self._named:
                return
            named, seen = np.sort(np.concatenate(self._named)), np.sort(np.concatenate(self._seen))
            known = seen[np.minimum(np.searchsorted(seen, named), len(seen) - 1)] == named
            missing = np.unique(named[~known]).astype(np.uint64)
            self._named, self._seen = [], [seen, missing.astype(np.uint32)]
            for start in range(0, len(missing), step):
                inodes, errors = self._table.read(missing[start : start + step])
                yield from self._part(inodes, file_rows(inodes, errors), 1.0)

    # -- deleted -----------------------------------------------------------------------------------------------------

    def _read_deleted_directories(self) -> None:
        """What is left in the blocks of deleted directories, as far as these are free. What is not is no damage."""
        if not self._gone_directories:
            return
        quiet = Volume(self._volume.device, self._volume.superblock, FindingLog(limit=0))
        numbers = np.concatenate(self._gone_directories).astype(np.uint64)
        step = max(1, CHUNK // self._volume.superblock.inode_size)
        for start in range(0, len(numbers), step):
            inodes, errors = self._table.read(numbers[start : start + step] | _MARK)
            rows = np.array([row for row in range(len(inodes)) if row not in errors], np.int64)
            rows = rows[(inodes.size[rows] > 0) & inodes.block[rows].any(axis=1)]
            for group in _groups(np.clip(inodes.size[rows], 0, _AT_ONCE)):
                self._left_in(quiet, inodes, rows[group])

    def _left_in(self, quiet: Volume, inodes: Inodes, rows: Int64s) -> None:
        gone: list[tuple[Int64s, Entries]] = []
        listing: Listing = read_directories(quiet, inodes, rows, gone=gone, mapped=self._mapped)
        ids = inodes.number[rows].astype(np.uint64) | _MARK
        self._gone.append((ids[listing.query], listing.inode, listing.name, listing.type))
        for query, entries in _without_copies(listing, gone):
            self._gone.append((ids[query], entries.inode, entries.name, entries.type))

    def _deleted_names(self) -> Iterator[ScanBatch]:
        """Deleted names, now that it is known what their inodes are."""
        files = np.sort(np.concatenate([np.empty(0, np.uint32), *self._gone_files])).astype(np.int64)
        alone = [np.empty(0, np.uint64)]
        for parent, number, names, kinds in self._gone:
            at = np.minimum(np.searchsorted(files, number), max(len(files) - 1, 0))
            dead = files[at] == number if len(files) else np.zeros(len(number), np.bool_)
            ids = number.astype(np.uint64) | np.where(dead, _MARK, np.uint64(lay.NAME_ONLY))
            alone.append(np.unique(ids[~dead]))
            links = ScanLinks(parent, ids, names, kinds, np.ones(len(number), np.bool_))
            yield _names_only(links, {}, 1.0)
        self._gone.clear()
        rows = name_rows(np.unique(np.concatenate(alone)))
        yield ScanBatch(rows, ScanLinks.none(), np.ones(len(rows), np.bool_), ScanStreams.none(), done=1.0)


def _without_copies(listing: Listing, gone: list[tuple[Int64s, Entries]]) -> Iterator[tuple[Int64s, Entries]]:
    """Deleted entries of which the directory has no other: when it grows, copies stay where its entries were before."""
    keys = [listing.query << 32 | listing.inode, *(query << 32 | entries.inode for query, entries in gone)]
    every, counts = np.unique(np.concatenate(keys), return_counts=True)
    twice = every[counts > 1]
    # Only of these the names count; there are few but in large directories that lost many.
    rows = np.flatnonzero(np.isin(keys[0], twice))
    known = set(zip(keys[0][rows].tolist(), listing.name.take(rows), strict=True))
    for (query, entries), key in zip(gone, keys[1:], strict=True):
        keep = np.ones(len(query), np.bool_)
        rows = np.flatnonzero(np.isin(key, twice))
        for row, name in zip(rows.tolist(), entries.name.take(rows), strict=True):
            entry = int(key[row]), name
            keep[row] = entry not in known
            known.add(entry)
        picks = np.flatnonzero(keep)
        yield (
            query[picks],
            replace(
                entries,
                region=entries.region[picks],
                inode=entries.inode[picks],
                name=entries.name.take(picks),
                type=entries.type[picks],
                position=entries.position[picks],
            ),
        )


def _groups(sizes: Int64s) -> Iterator[Int64s]:
    """Directories of which as many as memory holds at once; one that is larger is alone."""
    group = np.cumsum(sizes) // _AT_ONCE
    for a, b in stretches(group):
        yield np.arange(a, b)


def _names_only(links: ScanLinks, errors: dict[int, PseudomountError], done: float) -> ScanBatch:
    return ScanBatch(FileRows.none(), links, np.empty(0, np.bool_), ScanStreams.none(), errors, done)
