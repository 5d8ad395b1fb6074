"""The whole volume in one pass: inode tables in large reads, and behind each part of them the directories in it.

Which inodes are files, they say themselves; the bitmaps, which a damaged volume may have wrong, are not asked. What the
group descriptors say was never used is not read. Should a name lead there all the same, that inode is read at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.contract import FileRows, FileType
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams
from pseudomount_ext._catalogue import Inodes
from pseudomount_ext._content import Volume
from pseudomount_ext._directory import read_directories, visible_names
from pseudomount_ext._inodes import InodeTable
from pseudomount_ext._read import CHUNK
from pseudomount_ext._rows import file_rows

__all__ = ["scan_volume"]

Bools = NDArray[np.bool_]
UInt64s = NDArray[np.uint64]

#: Names that lead to directories among the inodes never used lead on at most so often.
_MOST_ROUNDS: Final = 4096


def scan_volume(volume: Volume, table: InodeTable) -> Iterator[ScanBatch]:
    """The whole enumeration; see `FileSystem.scan`."""
    superblock = volume.superblock
    step = max(1, CHUNK // superblock.inode_size // superblock.inodes_per_group)
    # One bit an inode: it came by, and a name leads to it.
    seen, named = np.zeros(superblock.inodes + 1, np.bool_), np.zeros(superblock.inodes + 1, np.bool_)
    for first in range(0, superblock.groups, step):
        last = min(first + step, superblock.groups)
        inodes, lost = table.in_use(first, last)
        for error in lost.values():
            volume.findings.add_error(error)
        seen[inodes.number] = True
        batch = _part(volume, inodes, file_rows(inodes, {}), last / superblock.groups)
        named[batch.links.file] = True
        yield batch
    for _ in range(_MOST_ROUNDS):
        missing = np.flatnonzero(named & ~seen).astype(np.uint64)
        if not len(missing):
            return
        seen |= named
        for start in range(0, len(missing), 1 << 16):
            inodes, errors = table.read(missing[start : start + (1 << 16)])
            batch = _part(volume, inodes, file_rows(inodes, errors), 1.0)
            named[batch.links.file] = True
            yield batch


def _part(volume: Volume, inodes: Inodes, files: FileRows, done: float) -> ScanBatch:
    """Files, and the names in those that are directories."""
    rows = np.flatnonzero(files.type == FileType.DIRECTORY)
    errors: dict[int, PseudomountError] = {}
    if not len(rows):
        return ScanBatch(files, ScanLinks.none(), np.zeros(len(files), np.bool_), ScanStreams.none(), errors, done)
    listing = read_directories(volume, inodes, rows)
    directories = inodes.number[rows].astype(np.uint64)
    errors.update((int(directories[i]), error) for i, error in listing.errors.items())
    links = ScanLinks(
        directories[listing.query],
        listing.inode.astype(np.uint64),
        visible_names(volume, listing, inodes, rows),
        listing.type,
        np.zeros(len(listing.inode), np.bool_),
    )
    return ScanBatch(files, links, np.zeros(len(files), np.bool_), ScanStreams.none(), errors, done)
