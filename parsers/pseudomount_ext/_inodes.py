"""Fetching inodes by number, many at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError, TruncatedError
from pseudomount.filesystem.contract import FileType
from pseudomount.findings import Severity
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes, Trouble, parse_inodes
from pseudomount_ext._content import Volume
from pseudomount_ext._groups import Groups
from pseudomount_ext._layout import Incompat, InodeFlag
from pseudomount_ext._read import CHUNK, Int64s, UInt8s, read_rows, stretches

__all__ = ["InodeTable", "fast_links", "inline"]

Bools = NDArray[np.bool_]

_GAP: Final = 8192  # inodes in use lie close together: reading those between costs less than asking again
_KEPT: Final = 16 << 20  # bytes
_GROUPS: Final = 1 << 16  # descriptors that are looked at at once
_TOLD: Final = 100  # inodes of one part of a table of which it is told that they could not be read
_TROUBLES: Final = {
    Trouble.DELETED: "inode {} was deleted",
    Trouble.UNUSED: "inode {} was never used",
    Trouble.NO_TYPE: "inode {} is no kind of file (mode {:#o})",
    Trouble.IN_USE: "inode {} is in use again",
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
        deleted = files >= lay.DELETED
        asked = np.where(deleted, files & np.uint64(lay.NUMBER_MASK), files)
        known = (asked >= 1) & (asked <= superblock.inodes)
        alone = files >= lay.NAME_ONLY
        for row in np.flatnonzero(~known | alone).tolist():
            message = f"there is no inode {int(asked[row])} among {superblock.inodes}"
            if alone[row]:
                message = "of this file only a deleted name is left; its inode is another file's or was wiped"
            errors[row] = volume.damage(message, None, "inode number")
        numbers = np.where(known, asked, 1).astype(np.int64)
        known &= ~alone
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
        self._judge(inodes, offsets, errors, deleted)
        return inodes, errors

    def tables(self, *, deleted: bool = False) -> Iterator[tuple[Inodes, Inodes, float]]:
        """All inodes that are files, in large parts: those in use, those deleted, and how much has come by.

        The reserved ones, which no name leads to (the journal's, for one), are left out, and so is what the group
        descriptors say was never used. What cannot be read becomes a finding.
        """
        superblock = self._volume.superblock
        size, per_group = superblock.inode_size, superblock.inodes_per_group
        groups, used, offsets = self._readable()
        # Tables in steps of what memory holds; small ones together.
        most = max(1, CHUNK // size)
        pieces = -(-used // most)
        which = np.repeat(np.arange(len(groups)), pieces)
        skip = (np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * most
        count = np.minimum(used[which] - skip, most)
        ends = np.cumsum(count)
        part = (ends - 1) // most
        for a, b in stretches(part):
            row = which[a:b]
            first = groups[row] * per_group + skip[a:b] + 1
            where = offsets[row] + skip[a:b] * size
            raw, number, at = self._read_tables(first, count[a:b], where)
            yield *self._split(raw, number, at, deleted), int(ends[b - 1]) / int(ends[-1])

    def _readable(self) -> tuple[Int64s, Int64s, Int64s]:
        """The groups whose tables lie on the device, how many inodes of each are to be read, and where they begin."""
        superblock, device, findings = self._volume.superblock, self._volume.device, self._volume.findings
        size, per_group = superblock.inode_size, superblock.inodes_per_group
        # A device has room for so many descriptors, and for so many inodes: more of them are forged.
        last = min(superblock.groups, device.size // superblock.desc_size)
        budget = device.size // size
        parts: list[tuple[Int64s, Int64s, Int64s]] = [(np.empty(0, np.int64),) * 3]
        lost, refused = 0, False
        for start in range(0, last, _GROUPS):
            groups = np.arange(start, min(start + _GROUPS, last), dtype=np.int64)
            tables, used, failed = self._groups.inodes(groups)
            for error in failed.values():
                findings.add_error(error)
            used = np.where(tables < 0, 0, np.minimum(used, superblock.inodes - groups * per_group))
            offsets = tables * superblock.block_size
            there = np.clip((device.size - offsets) // size, 0, np.maximum(used, 0))
            lost += int((np.maximum(used, 0) - there).sum())
            taken = np.cumsum(there)
            refused |= bool(len(taken)) and int(taken[-1]) > budget
            there = np.where(taken <= budget, there, 0)
            budget -= int(there.sum())
            have = np.flatnonzero(there)
            parts.append((groups[have], there[have], offsets[have]))
            if refused:
                break
        if lost:
            message = f"room for {lost} inodes lies beyond the end of {device.name}"
            findings.add_error(TruncatedError(message, device=device.name, structure="inode table"))
        if refused:
            message = "inode tables lie one on the other"
            findings.add_error(CorruptionError(message, device=device.name, structure="inode table"))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return columns[0], columns[1], columns[2]

    def _read_tables(self, first: Int64s, count: Int64s, where: Int64s) -> tuple[UInt8s, Int64s, Int64s]:
        """Parts of tables: the inodes, uint8 (n, inode size), their numbers and where they lie."""
        device, size = self._volume.device, self._volume.superblock.inode_size
        batch = device.read_many(where, count * size)
        place = _steps(count)
        number, at = np.repeat(first, count) + place, np.repeat(where, count) + place * size
        raw = batch.buffer.reshape(-1, size)
        if not batch.errors:
            return raw, number, at
        # Of a table with a bad sector some inodes can still be read.
        bad = np.zeros(len(count), np.bool_)
        bad[list(batch.errors)] = True
        rows = np.flatnonzero(np.repeat(bad, count))
        got = read_rows(device, at[rows], size, "inode table")
        for error in list(got.errors.values())[:_TOLD]:
            self._volume.findings.add_error(error)
        raw = raw.copy()
        raw[rows] = got.data
        return raw, number, at

    def _split(self, raw: UInt8s, number: Int64s, at: Int64s, deleted: bool) -> tuple[Inodes, Inodes]:
        superblock = self._volume.superblock
        halves = raw.view("<u2")
        links, kind = halves[:, lay.IN_LINKS // 2], lay.TYPE_OF_MODE[halves[:, lay.IN_MODE // 2] >> 12]
        file = (number >= lay.FIRST_INODE) | (number == lay.ROOT_INODE)
        file &= kind != 0
        for own in filter(None, superblock.own_inodes):
            file &= number != own
        live = file & (links != 0)
        if superblock.incompat & Incompat.EA_INODE:  # values of attributes that were too long for their file
            live &= (raw.view("<u4")[:, lay.IN_FLAGS // 4] & int(InodeFlag.EA_INODE)) == 0
        picks = np.flatnonzero(live)
        if len(picks) < len(raw):
            inodes = parse_inodes(raw[picks], number[picks], superblock)
        else:
            inodes = parse_inodes(raw, number, superblock)
        self._judge(inodes, at[picks], {})
        gone = np.flatnonzero(file & (links == 0)) if deleted else np.empty(0, np.int64)
        return inodes, parse_inodes(raw[gone], number[gone], superblock)

    def _judge(
        self, inodes: Inodes, offsets: Int64s, errors: dict[int, PseudomountError], deleted: Bools | None = None
    ) -> None:
        volume = self._volume
        trouble = inodes.trouble
        if deleted is not None and deleted.any():
            # Of those that are to be deleted ones, the others are in trouble.
            gone = np.where(trouble == Trouble.DELETED, Trouble.NONE, Trouble.IN_USE)
            gone[(inodes.type == 0) | (trouble == Trouble.UNUSED)] = Trouble.UNUSED
            trouble = np.where(deleted, gone, trouble)
        for row in np.flatnonzero(trouble != Trouble.NONE).tolist():
            number, mode = int(inodes.number[row]), int(inodes.mode[row])
            error = volume.damage(_TROUBLES[Trouble(int(trouble[row]))].format(number, mode), None, "inode")
            error.offset = int(offsets[row])
            errors.setdefault(row, error)
        if deleted is not None and deleted.all():
            return  # what is left of them need not fit together
        for bad, message in (
            (~inodes.intact, "an inode does not fit its checksum"),
            (~inodes.extra_fits, "an inode says that it is larger than there is room for"),
        ):
            for row in np.flatnonzero(bad).tolist():
                if row not in errors and not (deleted is not None and deleted[row]):
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
