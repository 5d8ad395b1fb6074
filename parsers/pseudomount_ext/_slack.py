"""Names that directories no longer have, in what their entries leave between them ("Linear (Classic) Directories").

Deleting an entry makes the one before it longer, and clears its inode number where it is the first of its block, or
always (ext2); the bytes stay until another entry takes the room (ext4 since Linux 5.13 clears them). So what follows
an entry's own name up to where the next one begins may hold entries. Nothing there is certain: only what makes sense as
an entry is taken.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.filesystem.columns import Names
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Entries
from pseudomount_ext._read import Int64s, UInt8s, stretches

__all__ = ["deleted_entries"]

Bools = NDArray[np.bool_]

#: Bytes that are looked through at once.
_STEP: Final = 2 << 20


def deleted_entries(
    buffer: UInt8s, begins: Int64s, ends: Int64s, *, inodes: int, whole: int, typed: bool, skip: Bools
) -> Entries:
    """What look like deleted entries, in the order in which they lie. An inode number is 0 where it is lost.

    Args:
        buffer, begins, ends, inodes, whole, typed: as `step_entries` has them.
        skip: bool (regions,), those that hold something else: nodes of hash trees, ciphertext.
    """
    parts: list[tuple[Int64s, Int64s]] = []
    rows = np.flatnonzero(~skip)
    group = np.cumsum((ends - begins)[rows]) // _STEP
    for a, b in stretches(group):
        part = rows[a:b]
        parts.append(_find(buffer, part, begins[part], ends[part], inodes, whole, typed))
    region = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    position = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    inode = buffer.view("<u4")[position >> 2].astype(np.int64)
    lengths = buffer[position + 6].astype(np.int64)
    names = Names.gathered(buffer, position + lay.DIRENT_HEADER, lengths)
    kinds = lay.TYPE_OF_DIRENT[buffer[position + 7]] if typed else np.zeros(len(position), np.uint8)
    return Entries(region, inode, names, kinds, position, {}, [])


def _find(
    buffer: UInt8s, region: Int64s, begins: Int64s, ends: Int64s, inodes: int, whole: int, typed: bool
) -> tuple[Int64s, Int64s]:
    """Region and position of what look like deleted entries."""
    gap, start, end, limit, emptied = _gaps(buffer, begins, ends, whole)
    # Every place in a gap where an entry could begin: the plausible ones are few.
    room = np.maximum((end - start - lay.DIRENT_MIN) // 4 + 1, 0)
    at = np.repeat(start, room) + 4 * (np.arange(int(room.sum())) - np.repeat(np.cumsum(room) - room, room))
    which = np.repeat(np.arange(len(start)), room)
    number = buffer.view("<u4")[at >> 2]
    fine = (number >= lay.FIRST_INODE) & (number <= inodes)
    # ext2 clears the number of every entry; the type makes up for what that says less.
    fine |= (number == 0) & ((emptied[which] & (at == start[which])) | (typed & (buffer[at + 7] != 0)))
    fine &= buffer[at + 6] != 0
    at, which = at[fine], which[fine]
    named = buffer[at + 6].astype(np.int64)
    length = _lengths(buffer, at, whole)
    need = (lay.DIRENT_HEADER + named + 3) & ~3
    fine = (at + lay.DIRENT_HEADER + named <= end[which]) & (length % 4 == 0) & (length >= need)
    fine &= at + length <= limit[which]
    fine &= buffer[at + 7] <= (lay.DIRENT_TYPES if typed else 0)
    at, which, named, need = at[fine], which[fine], named[fine], need[fine]
    names = Names.gathered(buffer, at + lay.DIRENT_HEADER, named)
    fine = np.ones(len(at), np.bool_)
    bad = np.flatnonzero((names.buffer == ord("/")) | (names.buffer == 0))
    fine[np.searchsorted(names.offsets, bad, side="right") - 1] = False
    short = np.flatnonzero(named <= 2)
    edges = names.buffer[names.offsets[short]], names.buffer[names.offsets[short] + named[short] - 1]
    fine[short[(edges[0] == ord(".")) & (edges[1] == ord("."))]] = False
    at, which, need = at[fine], which[fine], need[fine]
    kept = _apart(at, which, at + need)
    return region[gap[which[kept]]], at[kept]


def _lengths(buffer: UInt8s, at: Int64s, whole: int) -> Int64s:
    length: Int64s = buffer.view("<u2")[(at >> 1) + 2].astype(np.int64)
    if whole:
        length = np.where((length == 0xFFFF) | (length == 0), whole, (length & 0xFFFC) | (length & 3) << 16)
    return length


def _gaps(buffer: UInt8s, begins: Int64s, ends: Int64s, whole: int) -> tuple[Int64s, Int64s, Int64s, Int64s, Bools]:
    """What entries leave over: int64 (n,) region, start, end, end of the region; bool (n,), an entry without file."""
    words = buffer.view("<u4")
    row, at, end = np.arange(len(begins), dtype=np.int64), begins, ends
    found: list[tuple[Int64s, Int64s, Int64s, Bools]] = []
    while len(row):
        room = end - at >= lay.DIRENT_HEADER
        row, at, end = row[room], at[room], end[room]
        length = _lengths(buffer, at, whole)
        named = buffer[at + 6].astype(np.int64)
        used = words[at >> 2] != 0
        sound = (length >= lay.DIRENT_MIN) & (length % 4 == 0) & (at + length <= end)
        sound &= length >= lay.DIRENT_HEADER + named
        row, at, end, length, named, used = row[sound], at[sound], end[sound], length[sound], named[sound], used[sound]
        begin = at + np.where(used, (lay.DIRENT_HEADER + named + 3) & ~3, 0)
        found.append((row, begin, at + length, ~used))
        more = at + length < end
        row, at, end = row[more], (at + length)[more], end[more]
    region = np.concatenate([part[0] for part in found])
    start, stop = np.concatenate([part[1] for part in found]), np.concatenate([part[2] for part in found])
    emptied = np.concatenate([part[3] for part in found])
    wide = np.flatnonzero(stop - start >= lay.DIRENT_MIN)
    wide = wide[np.argsort(start[wide], kind="stable")]
    return region[wide], start[wide], stop[wide], ends[region[wide]], emptied[wide]


def _apart(at: Int64s, gap: Int64s, end: Int64s) -> Int64s:
    """Those of the places, which ascend, that do not lie in one taken before; one of each gap in a step."""
    if not len(at):
        return at
    current = np.flatnonzero(np.concatenate(([True], gap[1:] != gap[:-1])))
    kept: list[Int64s] = []
    while len(current):
        kept.append(current)
        following = np.searchsorted(at, end[current])
        inside = following < len(at)
        current, following = current[inside], following[inside]
        current = following[gap[following] == gap[current]]
    return np.sort(np.concatenate(kept))
