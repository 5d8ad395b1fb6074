"""Group descriptors ("Block Group Descriptors", "Meta Block Groups"), a block of them at a time when needed.

Of each: where its inode table lies, how much of that was ever used, and where its bitmaps lie.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.findings import FindingLog, Severity
from pseudomount_ext import _layout as lay
from pseudomount_ext._crc import START, crc16_rows, crc32c_rows, crc32c_words
from pseudomount_ext._layout import Incompat, RoCompat
from pseudomount_ext._read import Int64s, UInt8s, UInt32s, read_rows
from pseudomount_ext._super import Superblock

__all__ = ["Groups"]

Bools = NDArray[np.bool_]

_STRUCTURE: Final = "group descriptor"
_KEPT: Final = 16 << 20  # bytes
#: What is kept of a descriptor.
_TABLE, _USED, _BLOCK_BITMAP, _INODE_BITMAP = range(4)
_FIELDS: Final = 4


class Groups:
    """Where each group's inode table lies. Thread-safe."""

    def __init__(self, device: BlockDevice, superblock: Superblock, findings: FindingLog) -> None:
        self._device = device
        self._super = superblock
        self._findings = findings
        # Of a block of descriptors, int64 (_FIELDS, descriptors).
        self._tables: OrderedDict[int, Int64s] = OrderedDict()
        self._errors: dict[int, PseudomountError] = {}
        self._keep = max(1, _KEPT // (8 * _FIELDS * superblock.descs_per_block))
        self._lock = threading.Lock()

    def inode_tables(self, groups: Int64s) -> tuple[Int64s, dict[int, PseudomountError]]:
        """The first block of the inode table of each group; -1 and an error where it is not known.

        Args:
            groups: int64 (n,), each inside the volume.
        """
        fields, errors = self._fields(groups)
        return fields[_TABLE], errors

    def inodes(self, groups: Int64s) -> tuple[Int64s, Int64s, dict[int, PseudomountError]]:
        """As `inode_tables`; and int64 (n,), how many inodes at the beginning of each table were ever used."""
        fields, errors = self._fields(groups)
        return fields[_TABLE], fields[_USED], errors

    def bitmaps(self, groups: Int64s) -> tuple[Int64s, Int64s]:
        """The block of each group's bitmap of blocks, and of inodes; 0: all are free; -1: it is not known where."""
        fields, _ = self._fields(groups)
        return fields[_BLOCK_BITMAP], fields[_INODE_BITMAP]

    def _fields(self, groups: Int64s) -> tuple[Int64s, dict[int, PseudomountError]]:
        per_block = self._super.descs_per_block
        blocks, place = np.unique(groups // per_block, return_inverse=True)
        out = np.full((_FIELDS, len(groups)), -1, np.int64)
        errors: dict[int, PseudomountError] = {}
        with self._lock:
            for first in range(0, len(blocks), self._keep):
                part = blocks[first : first + self._keep]
                self._load(part)
                tables = np.stack([self._tables[block] for block in part.tolist()])
                rows = np.flatnonzero((place >= first) & (place < first + len(part)))
                out[:, rows] = tables[place[rows] - first, :, groups[rows] % per_block].T
                for row in rows[out[_TABLE, rows] < 0].tolist():
                    errors[row] = self._why(int(groups[row]))
        return out, errors

    def _why(self, group: int) -> PseudomountError:
        block = group // self._super.descs_per_block
        if block in self._errors:
            return self._errors[block]
        return CorruptionError(
            f"the descriptor of block group {group} puts its inode table outside the volume",
            device=self._device.name,
            offset=self._places(np.array([block], np.int64), 0)[0] * self._super.block_size,
            structure=_STRUCTURE,
        )

    def _load(self, blocks: Int64s) -> None:
        missing = np.array([block for block in blocks.tolist() if block not in self._tables], np.int64)
        for block in blocks.tolist():
            if block in self._tables:
                self._tables.move_to_end(block)
        if len(missing):
            self._fetch(missing)
        while len(self._tables) > max(self._keep, len(blocks)):
            old, _ = self._tables.popitem(last=False)
            self._errors.pop(old, None)

    def _fetch(self, blocks: Int64s) -> None:
        """Loads descriptor blocks; those that make no sense again from their backups."""
        size = self._super.block_size
        best = np.full((len(blocks), _FIELDS, self._super.descs_per_block), -1, np.int64)
        doubtful = np.ones(len(blocks), np.bool_)
        for copy in range(3):
            rows = np.flatnonzero(doubtful)
            places = self._places(blocks[rows], copy)
            rows, places = rows[places >= 0], places[places >= 0]
            if not len(rows):
                break
            got = read_rows(self._device, places * size, size, _STRUCTURE)
            tables, sound = self._parse(got.data, blocks[rows])
            for i, row in enumerate(rows.tolist()):
                block = int(blocks[row])
                if i in got.errors:
                    if copy == 0:
                        self._errors[block] = got.errors[i]
                    continue
                if not sound[i] and copy == 0:
                    self._findings.add(
                        Severity.DEGRADED,
                        f"group descriptors from group {block * self._super.descs_per_block} on do not fit their "
                        "checksum or the volume",
                        structure=_STRUCTURE,
                        offset=int(places[i]) * size,
                    )
                if sound[i] or copy == 0:
                    best[row] = tables[i]
                if sound[i]:
                    doubtful[row] = False
                    self._errors.pop(block, None)
                    if copy:
                        self._findings.add(
                            Severity.NOTE,
                            f"a backup of the group descriptors from group "
                            f"{block * self._super.descs_per_block} on was used",
                            structure=_STRUCTURE,
                            offset=int(places[i]) * size,
                        )
        for row, block in enumerate(blocks.tolist()):
            self._tables[block] = best[row]

    def _places(self, blocks: Int64s, copy: int) -> Int64s:
        """The block of the device where a copy of each descriptor block lies; -1 where there is none so far.

        Copy 0 is the primary, or the one beside the backup superblock in use.
        """
        return np.array([self._place(block, copy) for block in blocks.tolist()], np.int64)

    def _place(self, block: int, copy: int) -> int:
        sb = self._super
        if sb.incompat & Incompat.META_BG and block >= sb.first_meta_bg:
            # Each block of descriptors lies in the groups it describes: in the first, the second and the last.
            first = block * sb.descs_per_block
            group = first + (0, 1, sb.descs_per_block - 1)[copy]
            if group >= sb.groups or (copy and group == first):
                return -1
            ahead = int(sb.has_super(group))
            if group == 0 and sb.block_size == 1024 and sb.first_data_block == 0:
                ahead += 1  # the superblock is in block 1 all the same
            return sb.first_block(group) + ahead
        copies = [sb.group] + [g for g in self._backup_groups() if g != sb.group]
        if copy >= len(copies):
            return -1
        group = copies[copy]
        start = sb.first_block(group)
        if group == 0 and sb.block_size == 1024:
            start = 1
        return start + 1 + block

    def _backup_groups(self) -> list[int]:
        sb = self._super
        candidates = (0, 1, 3, 5, 7, *sb.backup_groups)
        return sorted({group for group in candidates if group < sb.groups and sb.has_super(group)})

    def _parse(self, data: UInt8s, blocks: Int64s) -> tuple[Int64s, Bools]:
        """What is kept of the descriptors, int64 (n, _FIELDS, descriptors of a block); and whether each is sound.

        A place is -1 where it is impossible.
        """
        sb = self._super
        per_block = sb.descs_per_block
        rows = data[:, : per_block * sb.desc_size].reshape(-1, sb.desc_size)
        numbers = (blocks[:, None] * per_block + np.arange(per_block)).reshape(-1)
        used = numbers < sb.groups
        words = rows.view("<u4")
        tables = words[:, lay.GD_INODE_TABLE_LO // 4].astype(np.int64)
        if sb.desc_size >= lay.GD_SIZE_64BIT:
            tables |= words[:, lay.GD_INODE_TABLE_HI // 4].astype(np.int64) << 32
        length = -(-sb.inodes_per_group * sb.inode_size // sb.block_size)
        bad = (tables <= 0) | (tables > sb.blocks - length)
        tables[bad] = -1
        wrong = used & (bad | ~self._checksums_fit(rows, numbers))
        sound: Bools = np.logical_not(wrong.reshape(-1, per_block).any(axis=1))
        columns = (
            tables,
            self._ever_used(rows),
            self._bitmap(rows, lay.GD_BLOCK_BITMAP_LO, lay.GD_BLOCK_BITMAP_HI, lay.GD_BLOCK_UNINIT),
            self._bitmap(rows, lay.GD_INODE_BITMAP_LO, lay.GD_INODE_BITMAP_HI, lay.GD_INODE_UNINIT),
        )
        return np.stack([column.reshape(-1, per_block) for column in columns], axis=1), sound

    def _bitmap(self, rows: UInt8s, low: int, high: int, uninit: int) -> Int64s:
        """Where bitmaps lie; descriptors with checksums may say that one was never written."""
        sb = self._super
        words = rows.view("<u4")
        places = words[:, low // 4].astype(np.int64)
        if sb.desc_size >= lay.GD_SIZE_64BIT:
            places |= words[:, high // 4].astype(np.int64) << 32
        places[(places <= 0) | (places >= sb.blocks)] = -1
        if sb.metadata_csum or sb.ro_compat & RoCompat.GDT_CSUM:
            places[(rows.view("<u2")[:, lay.GD_FLAGS // 2] & uninit) != 0] = 0
        return places

    def _ever_used(self, rows: UInt8s) -> Int64s:
        """`bg_itable_unused` counts from the table's end; it means something where descriptors have checksums."""
        sb = self._super
        if not (sb.metadata_csum or sb.ro_compat & RoCompat.GDT_CSUM):
            return np.full(len(rows), sb.inodes_per_group, np.int64)
        halves = rows.view("<u2")
        unused = halves[:, lay.GD_ITABLE_UNUSED_LO // 2].astype(np.int64)
        if sb.desc_size >= lay.GD_SIZE_64BIT:
            unused |= halves[:, lay.GD_ITABLE_UNUSED_HI // 2].astype(np.int64) << 16
        used = np.maximum(sb.inodes_per_group - unused, 0)
        never = (halves[:, lay.GD_FLAGS // 2] & lay.GD_INODE_UNINIT) != 0
        return np.where(never, 0, used)

    def _checksums_fit(self, rows: UInt8s, numbers: Int64s) -> Bools:
        sb = self._super
        stored = rows[:, lay.GD_CHECKSUM : lay.GD_CHECKSUM + 2].copy().view("<u2")[:, 0]
        groups = numbers.astype(np.uint32)
        before, after = rows[:, : lay.GD_CHECKSUM], rows[:, lay.GD_CHECKSUM + 2 :]
        crc: UInt32s
        if sb.metadata_csum:
            seeds = np.full(len(rows), sb.checksum_seed, np.uint32)
            zeroed = rows.copy()
            zeroed[:, lay.GD_CHECKSUM : lay.GD_CHECKSUM + 2] = 0
            crc = crc32c_rows(crc32c_words(seeds, groups), zeroed)
        elif sb.ro_compat & RoCompat.GDT_CSUM:
            uuid = np.frombuffer(sb.raw_uuid, np.uint8).reshape(1, -1)
            seed = crc16_rows(np.array([START], np.uint32), uuid)
            crc = crc16_rows(np.repeat(seed, len(rows)), groups.astype("<u4").view(np.uint8).reshape(-1, 4))
            crc = crc16_rows(crc, before)
            if sb.incompat & Incompat.BIT64:
                crc = crc16_rows(crc, after)
        else:
            return np.ones(len(rows), np.bool_)
        fits: Bools = (crc & 0xFFFF) == stored
        return fits
