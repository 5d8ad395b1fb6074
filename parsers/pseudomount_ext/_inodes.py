"""Fetching inodes by number, many at once."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem.contract import FileType
from pseudomount.findings import Severity
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes, Trouble, parse_inodes
from pseudomount_ext._content import Volume
from pseudomount_ext._groups import Groups
from pseudomount_ext._layout import Incompat, InodeFlag
from pseudomount_ext._read import Int64s, read_rows

__all__ = ["InodeTable", "fast_links", "inline"]

Bools = NDArray[np.bool_]

_GAP: Final = 8192  # inodes in use lie close together: reading those between costs less than asking again
_KEPT: Final = 16 << 20  # bytes
_TROUBLES: Final = {
    Trouble.DELETED: "inode {} was deleted",
    Trouble.UNUSED: "inode {} was never used",
    Trouble.NO_TYPE: "inode {} is no kind of file (mode {:#o})",
}


class InodeTable:
    """The inodes of a volume. Thread-safe.

    The last batch is kept, so that listing a directory and then opening its files reads their inodes once.
    """

    def __init__(self, volume: Volume, groups: Groups) -> None:
        self._volume = volume
        self._groups = groups
        # Replaced as a whole, never changed: ids in ascending order, their inodes and errors.
        self._recent: tuple[NDArray[np.uint64], Inodes, dict[int, PseudomountError]] | None = None

    def one(self, file: int) -> Inodes:
        """One inode by number; raises why it is no file."""
        wanted = np.array([file], np.uint64)
        recent = self._recent
        if recent is not None:
            files, inodes, errors = recent
            at = int(np.searchsorted(files, wanted[0]))
            if at < len(files) and files[at] == wanted[0]:
                if at in errors:
                    raise errors[at]
                return inodes.row(at)
        inodes, errors = self.read(wanted)
        if errors:
            raise errors[0]
        return inodes

    def read_unique(self, files: NDArray[np.uint64]) -> tuple[Inodes, dict[int, PseudomountError]]:
        """As `read`, for different ids in ascending order."""
        inodes, errors = self.read(files)
        # An error of the device may pass, so a batch that had one is not kept.
        lasting = all(isinstance(error, CorruptionError) for error in errors.values())
        if len(files) > 1 and inodes.raw.nbytes <= _KEPT and lasting:
            self._recent = files, inodes, dict(errors)
        return inodes, errors

    def read(self, files: NDArray[np.uint64]) -> tuple[Inodes, dict[int, PseudomountError]]:
        """Inodes by number, and why a row is no file.

        Args:
            files: uint64 (n,), inode numbers; each costs its size in memory.
        """
        volume, superblock = self._volume, self._volume.superblock
        errors: dict[int, PseudomountError] = {}
        known = (files >= 1) & (files <= superblock.inodes)
        for row in np.flatnonzero(~known).tolist():
            message = f"there is no inode {int(files[row])} among {superblock.inodes}"
            errors[row] = volume.damage(message, None, "inode number")
        numbers = np.where(known, files, 1).astype(np.int64)
        offsets = np.full(len(files), -1, np.int64)
        rows = np.flatnonzero(known)
        tables, failed = self._groups.inode_tables((numbers[rows] - 1) // superblock.inodes_per_group)
        errors.update((int(rows[i]), error) for i, error in failed.items())
        offsets[rows] = tables * superblock.block_size
        offsets[rows] += (numbers[rows] - 1) % superblock.inodes_per_group * superblock.inode_size
        offsets[rows[tables < 0]] = -1
        there = np.flatnonzero(offsets >= 0)
        raw = np.zeros((len(files), superblock.inode_size), np.uint8)
        got = read_rows(volume.device, offsets[there], superblock.inode_size, "inode", _GAP)
        raw[there] = got.data
        errors.update((int(there[i]), error) for i, error in got.errors.items())
        inodes = parse_inodes(raw, numbers, superblock)
        self._judge(inodes, offsets, errors)
        return inodes, errors

    def in_use(self, first: int, last: int) -> tuple[Inodes, dict[int, PseudomountError]]:
        """The inodes that are files in the tables of groups `first` to `last`, exclusive; and group → what was lost.

        The reserved ones, which no name leads to (the journal's, for one), are left out.
        """
        superblock, device = self._volume.superblock, self._volume.device
        size, per_group = superblock.inode_size, superblock.inodes_per_group
        groups = np.arange(first, last, dtype=np.int64)
        tables, used, failed = self._groups.inodes(groups)
        errors = {first + i: error for i, error in failed.items()}
        used = np.where(tables < 0, 0, np.minimum(used, superblock.inodes - groups * per_group))
        offsets = tables * superblock.block_size
        inside = offsets + used * size <= device.size
        whole = np.flatnonzero((used > 0) & inside)
        batch = device.read_many(offsets[whole], used[whole] * size)
        lost = whole[list(batch.errors)]
        parts = [(batch.buffer.reshape(-1, size), np.repeat(groups[whole], used[whole]), _steps(used[whole]))]
        # Of a table with a bad sector, or of a volume that was cut off, some inodes can still be read.
        for i in [*np.flatnonzero((used > 0) & ~inside).tolist(), *lost.tolist()]:
            place = np.arange(int(used[i]), dtype=np.int64)
            got = read_rows(device, int(offsets[i]) + place * size, size, "inode table", _GAP)
            if got.errors:
                errors[first + i] = next(iter(got.errors.values()))
            parts.append((got.data, np.full(len(place), groups[i]), place))
        found: list[tuple[NDArray[np.uint8], Int64s]] = []
        for data, group, place in parts:
            known = data.view("<u2")[:, lay.IN_LINKS // 2] != 0
            numbers = group * per_group + place + 1
            known &= (numbers >= lay.FIRST_INODE) | (numbers == lay.ROOT_INODE)
            if data is parts[0][0] and len(lost):
                known &= ~np.isin(group, groups[lost])
            picks = np.flatnonzero(known)
            found.append((data[picks], numbers[picks]))
        raw = found[0][0] if len(found) == 1 else np.concatenate([part[0] for part in found])
        number = np.concatenate([part[1] for part in found])
        inodes = parse_inodes(raw, number, superblock)
        sound = np.flatnonzero(inodes.trouble == Trouble.NONE)
        if len(sound) < len(inodes):
            inodes = inodes.take(sound)
        place = (inodes.number - 1) // per_group - first
        self._judge(inodes, offsets[place] + (inodes.number - 1) % per_group * size, {})
        return inodes, errors

    def _judge(self, inodes: Inodes, offsets: Int64s, errors: dict[int, PseudomountError]) -> None:
        volume = self._volume
        for row in np.flatnonzero(inodes.trouble != Trouble.NONE).tolist():
            number, mode = int(inodes.number[row]), int(inodes.mode[row])
            error = volume.damage(_TROUBLES[Trouble(int(inodes.trouble[row]))].format(number, mode), None, "inode")
            error.offset = int(offsets[row])
            errors.setdefault(row, error)
        for bad, message in (
            (~inodes.intact, "an inode does not fit its checksum"),
            (~inodes.extra_fits, "an inode says that it is larger than there is room for"),
        ):
            for row in np.flatnonzero(bad).tolist():
                if row not in errors:
                    volume.doubt(message, int(offsets[row]), "inode", int(inodes.number[row]))
        for row in np.flatnonzero(inodes.size < 0).tolist():
            if row not in errors:
                message = "an inode claims a size of 2**63 bytes or more"
                number, offset = int(inodes.number[row]), int(offsets[row])
                volume.findings.add(Severity.DEGRADED, message, structure="inode", file=number, offset=offset)


def _steps(counts: Int64s) -> Int64s:
    """0, 1 … for each count, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    steps: Int64s = np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)
    return steps


def inline(volume: Volume, inodes: Inodes) -> Bools:
    """bool (n,): content lies in the inode itself ("Inline Data")."""
    if not volume.superblock.incompat & Incompat.INLINE_DATA:
        return np.zeros(len(inodes), np.bool_)
    return inodes.flagged(InodeFlag.INLINE_DATA)


def fast_links(volume: Volume, inodes: Inodes) -> Bools:
    """bool (n,): symbolic links whose target is in `i_block`: those that use no block but one for attributes.

    Where attributes may have inodes of their own these count as blocks too, and so the size alone decides. Both are
    the kernel's rules: a link without blocks whose size is damaged still has its target, up to the first NUL.
    """
    superblock = volume.superblock
    links: Bools = (inodes.type == FileType.SYMLINK) & ~inline(volume, inodes)
    if superblock.incompat & Incompat.EA_INODE:
        links &= (inodes.size < lay.IN_BLOCK_SIZE) & ~inodes.flagged(InodeFlag.EXTENTS)
        return links
    own = np.where(inodes.file_acl != 0, superblock.cluster_size, 0)
    links &= inodes.allocated <= own
    return links
