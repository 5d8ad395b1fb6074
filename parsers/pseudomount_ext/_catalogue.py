"""The kernels: tables of inodes and blocks of directory entries into columns, whole batches at a time.

They know nothing of devices or trees, so that one directory and the scan of a whole volume use the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.filesystem.columns import Names, TimeColumn
from pseudomount.filesystem.contract import FileType
from pseudomount_ext import _layout as lay
from pseudomount_ext._crc import crc32c_rows, crc32c_words
from pseudomount_ext._layout import Incompat, InodeFlag, RoCompat
from pseudomount_ext._read import Int64s, UInt8s, UInt32s
from pseudomount_ext._super import Superblock

__all__ = ["Entries", "Inodes", "Trouble", "checksum_seeds", "parse_inodes", "step_entries"]

Bools = NDArray[np.bool_]


class Trouble(IntEnum):
    """Why an inode is no file."""

    NONE = 0
    DELETED = 1  # no links
    UNUSED = 2  # all zeros
    NO_TYPE = 3  # a mode that is no kind of file
    IN_USE = 4  # asked for as a deleted file, and none


@dataclass(frozen=True, slots=True)
class Inodes:
    """n inodes as columns; all arrays are (n,) unless said otherwise.

    Attributes:
        number: int64.
        trouble: uint8, `Trouble`.
        intact: bool, the checksum fits, or there is none.
        extra_fits: bool, `i_extra_isize` makes sense; where it does not it counts as 0.
        type: uint8, `FileType`.
        size: int64, bytes; -1 where the disk says 2**63 or more.
        allocated: int64, bytes; -1 where int64 cannot hold it.
        block: uint8 (n, 60), `i_block`.
        file_acl: int64, block of extended attributes, 0 for none.
        extra_isize: int64, bytes in use beyond the first 128.
        deleted: int64, `i_dtime` in seconds since 1970.
        project: int64, -1 where there is none.
        rdev: int64, device number as Linux's makedev, -1 where the file is no device.
        raw: uint8 (n, inode size).
    """

    number: Int64s
    trouble: UInt8s
    intact: Bools
    extra_fits: Bools
    type: UInt8s
    mode: Int64s
    uid: Int64s
    gid: Int64s
    size: Int64s
    links: Int64s
    allocated: Int64s
    flags: Int64s
    generation: Int64s
    block: UInt8s
    file_acl: Int64s
    extra_isize: Int64s
    created: TimeColumn
    modified: TimeColumn
    changed: TimeColumn
    accessed: TimeColumn
    deleted: Int64s
    project: Int64s
    rdev: Int64s
    raw: UInt8s

    def __len__(self) -> int:
        return len(self.number)

    def row(self, i: int) -> Inodes:
        """One inode by itself."""
        return self.take(np.array([i], np.int64))

    def take(self, rows: Int64s) -> Inodes:
        """Some of them."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        for name, value in values.items():
            values[name] = value.take(rows) if isinstance(value, TimeColumn) else value[rows]
        return Inodes(**values)

    def flagged(self, flag: InodeFlag) -> Bools:
        """bool (n,): which inodes have a flag."""
        has: Bools = (self.flags & int(flag)) != 0
        return has


def checksum_seeds(superblock: Superblock, numbers: Int64s, generations: Int64s) -> UInt32s:
    """uint32 (n,): the register with which the checksums of each file's own metadata start."""
    seeds = np.full(len(numbers), superblock.checksum_seed, np.uint32)
    seeds = crc32c_words(seeds, numbers.astype(np.uint32))
    return crc32c_words(seeds, generations.astype(np.uint32))


def parse_inodes(raw: UInt8s, numbers: Int64s, superblock: Superblock) -> Inodes:
    """Inodes as columns ("Index Nodes").

    Args:
        raw: uint8 (n, inode size), C-contiguous.
        numbers: int64 (n,), inode numbers.
        superblock: whose features say what the fields mean.
    """
    halves, words = raw.view("<u2"), raw.view("<u4")

    def half(at: int) -> Int64s:
        return halves[:, at // 2].astype(np.int64)

    def word(at: int) -> Int64s:
        return words[:, at // 4].astype(np.int64)

    mode, links, flags, generation = half(lay.IN_MODE), half(lay.IN_LINKS), word(lay.IN_FLAGS), word(lay.IN_GENERATION)
    kind = lay.TYPE_OF_MODE[mode >> 12]
    extra, extra_fits = _extra_isize(raw, halves)
    trouble = np.zeros(len(raw), np.uint8)
    trouble[kind == 0] = Trouble.NO_TYPE
    trouble[links == 0] = Trouble.DELETED
    trouble[(links == 0) & (mode == 0) & ~raw[:, : lay.IN_BLOCK].any(axis=1)] = Trouble.UNUSED

    def time(at: int, more: int) -> TimeColumn:
        """The signed 32 bits, and 2 bits of seconds and 30 of nanoseconds where the inode has room ("Timestamps")."""
        seconds = words[:, at // 4].view("<i4").astype(np.int64)
        nanoseconds = np.zeros(len(raw), np.int64)
        known = None
        if raw.shape[1] > lay.OLD_INODE_SIZE:
            has = extra >= more + 4 - lay.OLD_INODE_SIZE
            bits = np.where(has, word(more), 0)
            seconds += (bits & 3) << 32
            nanoseconds = bits >> 2
            nanoseconds[nanoseconds >= 1_000_000_000] = 0
            if at == lay.IN_CRTIME:
                known = extra >= at + 4 - lay.OLD_INODE_SIZE
        return TimeColumn.of(seconds, nanoseconds, known)

    if raw.shape[1] > lay.OLD_INODE_SIZE:
        created = time(lay.IN_CRTIME, lay.IN_CRTIME_EXTRA)
        has_project = extra >= lay.IN_PROJECT + 4 - lay.OLD_INODE_SIZE
        project = np.where(has_project & bool(superblock.ro_compat & RoCompat.PROJECT), word(lay.IN_PROJECT), -1)
    else:
        created = TimeColumn.null(len(raw))
        project = np.full(len(raw), -1, np.int64)
    acl = word(lay.IN_FILE_ACL_LO)
    if superblock.incompat & Incompat.BIT64:
        acl |= half(lay.IN_FILE_ACL_HI) << 32
    return Inodes(
        number=numbers,
        trouble=trouble,
        intact=_inodes_intact(raw, numbers, generation, extra, superblock),
        extra_fits=extra_fits,
        type=kind,
        mode=mode,
        uid=half(lay.IN_UID) | half(lay.IN_UID_HI) << 16,
        gid=half(lay.IN_GID) | half(lay.IN_GID_HI) << 16,
        size=_sizes(words, kind, superblock),
        links=links,
        allocated=_allocated(words, halves, flags, superblock),
        flags=flags,
        generation=generation,
        block=raw[:, lay.IN_BLOCK : lay.IN_BLOCK + lay.IN_BLOCK_SIZE],
        file_acl=acl,
        extra_isize=extra,
        created=created,
        modified=time(lay.IN_MTIME, lay.IN_MTIME_EXTRA),
        changed=time(lay.IN_CTIME, lay.IN_CTIME_EXTRA),
        accessed=time(lay.IN_ATIME, lay.IN_ATIME_EXTRA),
        deleted=word(lay.IN_DTIME),
        project=project,
        rdev=_device_numbers(words, mode),
        raw=raw,
    )


def _extra_isize(raw: UInt8s, halves: NDArray[np.uint16]) -> tuple[Int64s, Bools]:
    if raw.shape[1] <= lay.OLD_INODE_SIZE:
        return np.zeros(len(raw), np.int64), np.ones(len(raw), np.bool_)
    extra = halves[:, lay.IN_EXTRA_ISIZE // 2].astype(np.int64)
    fits = (extra <= raw.shape[1] - lay.OLD_INODE_SIZE) & (extra % 4 == 0)
    return np.where(fits, extra, 0), fits


def _sizes(words: UInt32s, kind: UInt8s, superblock: Superblock) -> Int64s:
    """The upper half counts for regular files only, and for directories where they may be that large."""
    low, high = words[:, lay.IN_SIZE_LO // 4].astype(np.int64), words[:, lay.IN_SIZE_HI // 4].astype(np.int64)
    wide = kind == FileType.FILE
    if superblock.incompat & Incompat.LARGEDIR:
        wide = wide | (kind == FileType.DIRECTORY)
    high = np.where(wide, high, 0)
    return np.where(high >= 1 << 31, -1, low | (high & 0x7FFFFFFF) << 32)


def _allocated(words: UInt32s, halves: NDArray[np.uint16], flags: Int64s, superblock: Superblock) -> Int64s:
    """`i_blocks` counts 512 bytes, or blocks where the inode says so."""
    count = words[:, lay.IN_BLOCKS_LO // 4].astype(np.int64)
    if not superblock.ro_compat & RoCompat.HUGE_FILE:
        return count * 512
    count |= halves[:, lay.IN_BLOCKS_HI // 2].astype(np.int64) << 32
    unit = np.where(flags & int(InodeFlag.HUGE_FILE), superblock.block_size, 512)
    return np.where(count < 1 << 46, (count & ((1 << 46) - 1)) * unit, -1)


def _device_numbers(words: UInt32s, mode: Int64s) -> Int64s:
    """The old form (8 bits each for major and minor) in word 0 of `i_block`, or else the new one in word 1."""
    old = words[:, lay.IN_BLOCK // 4].astype(np.int64)
    new = words[:, lay.IN_BLOCK // 4 + 1].astype(np.int64)
    device = (mode >> 12 == 0x2) | (mode >> 12 == 0x6)
    return np.where(device, np.where(old != 0, old & 0xFFFF, new), -1)


def _inodes_intact(raw: UInt8s, numbers: Int64s, generation: Int64s, extra: Int64s, superblock: Superblock) -> Bools:
    """The checksum is over the number, the generation and the inode, its own two halves counted as zeros."""
    if not superblock.metadata_csum:
        return np.ones(len(raw), np.bool_)
    wide = extra >= lay.IN_CHECKSUM_HI + 2 - lay.OLD_INODE_SIZE
    halves = raw.view("<u2")
    stored = halves[:, lay.IN_CHECKSUM_LO // 2].astype(np.uint32)
    places = [lay.IN_CHECKSUM_LO, lay.IN_CHECKSUM_LO + 1]
    if wide.any():
        places += [lay.IN_CHECKSUM_HI, lay.IN_CHECKSUM_HI + 1]
        stored |= np.where(wide, halves[:, lay.IN_CHECKSUM_HI // 2], 0).astype(np.uint32) << 16
    seeds = checksum_seeds(superblock, numbers, generation)
    crc = crc32c_rows(seeds, raw, places)
    narrow = np.flatnonzero(~wide)
    if len(places) > 2 and len(narrow):  # the upper half is not theirs
        crc[narrow] = crc32c_rows(seeds[narrow], raw[narrow], places[:2])
    crc[narrow] &= 0xFFFF
    fits: Bools = crc == stored
    bad = np.flatnonzero(~fits)
    fits[bad] = ~raw[bad].any(axis=1)  # an inode never used has no checksum either
    return fits


_NO_NAME: Final = np.array([ord("/"), 0], np.uint8)


@dataclass(frozen=True, slots=True)
class Entries:
    """Directory entries in use, in the order in which they lie in the buffer.

    Attributes:
        region: int64 (n,), number of the region.
        inode: int64 (n,).
        name: n names; "." and ".." among them.
        type: uint8 (n,), `FileType`.
        position: int64 (n,), where the entry begins in the buffer.
        broken: region → position in the buffer of the entry that makes no sense; nothing behind it was read.
        refused: positions in the buffer of entries whose inode number or name no file can have.
    """

    region: Int64s
    inode: Int64s
    name: Names
    type: UInt8s
    position: Int64s
    broken: dict[int, int]
    refused: list[tuple[int, int]]


def step_entries(
    buffer: UInt8s,
    begins: Int64s,
    ends: Int64s,
    *,
    inodes: int,
    whole: int = 0,
    typed: bool = True,
    opaque: Bools | None = None,
) -> Entries:
    """Linear directory entries ("Directory Entries") of many regions, one entry of each region in a step.

    Args:
        buffer: uint8 (total,), a multiple of 4 bytes long.
        begins, ends: int64 (regions,), disjoint and ascending, multiples of 4: blocks, or parts of inodes.
        inodes: the highest inode number.
        whole: bytes of a block of 64 KiB, whose record lengths are coded; 0 for smaller blocks.
        typed: whether entries hold the file's type.
        opaque: bool (regions,), names are ciphertext, which may hold any byte; none is by default.
    """
    words, halves = buffer.view("<u4"), buffer.view("<u2")
    row, at, end = np.arange(len(begins), dtype=np.int64), begins, ends
    found: list[tuple[Int64s, Int64s]] = []
    broken: dict[int, int] = {}
    while len(row):
        room = end - at
        short = room < lay.DIRENT_HEADER
        if short.any():  # 4 bytes are left over: no entry, and no entry can have left them
            broken.update(zip(row[short].tolist(), at[short].tolist(), strict=True))
            row, at, end, room = row[~short], at[~short], end[~short], room[~short]
        length = halves[(at >> 1) + 2].astype(np.int64)
        if whole:
            length = np.where((length == 0xFFFF) | (length == 0), whole, (length & 0xFFFC) | (length & 3) << 16)
        named = buffer[at + 6].astype(np.int64)
        used = words[at >> 2] != 0
        sound = (length >= lay.DIRENT_MIN) & (length % 4 == 0) & (length <= room)
        sound &= length >= lay.DIRENT_HEADER + named
        if not sound.all():
            broken.update(zip(row[~sound].tolist(), at[~sound].tolist(), strict=True))
        take = sound & used
        found.append((row[take], at[take]))
        more = sound & (length < room)
        row, at, end = row[more], at[more] + length[more], end[more]
    region = np.concatenate([part[0] for part in found]) if found else np.empty(0, np.int64)
    position = np.concatenate([part[1] for part in found]) if found else np.empty(0, np.int64)
    order = np.argsort(position, kind="stable")
    return _gather(buffer, region[order], position[order], inodes, typed, opaque, broken)


def _gather(
    buffer: UInt8s,
    region: Int64s,
    position: Int64s,
    inodes: int,
    typed: bool,
    opaque: Bools | None,
    broken: dict[int, int],
) -> Entries:
    inode = buffer.view("<u4")[position >> 2].astype(np.int64)
    lengths = buffer[position + 6].astype(np.int64)
    names = Names.gathered(buffer, position + lay.DIRENT_HEADER, lengths)
    good = (inode <= inodes) & (lengths > 0)
    # No path can hold a slash or a NUL inside a name; such a name is damage, and dangerous further up.
    at = np.flatnonzero((names.buffer == _NO_NAME[0]) | (names.buffer == _NO_NAME[1]))
    if len(at):
        rows = np.searchsorted(names.offsets, at, side="right") - 1
        good[rows if opaque is None else rows[~opaque[region[rows]]]] = False
    refused: list[tuple[int, int]] = []
    if not good.all():
        refused = list(zip(region[~good].tolist(), position[~good].tolist(), strict=True))
        region, position, inode, names = region[good], position[good], inode[good], names.take(good)
    kinds = lay.TYPE_OF_DIRENT[buffer[position + 7]] if typed else np.zeros(len(position), np.uint8)
    return Entries(region, inode, names, kinds, position, broken, refused)
