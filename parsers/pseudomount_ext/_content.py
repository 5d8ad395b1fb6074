"""Where a file's blocks lie: extent trees and block maps, breadth-first for many files at once.

Every level of all trees is one batch. A tree cannot be endless: the depth falls with each level, a block serves one
file once in a level, and no more than `_SHARERS` files of a batch. What makes no sense becomes a damaged run, so that
reading it is an error and never zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PseudomountError, ReadError
from pseudomount.filesystem.contract import RunKind
from pseudomount.findings import FindingLog, Severity
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes, checksum_seeds
from pseudomount_ext._crc import crc32c_rows
from pseudomount_ext._layout import InodeFlag
from pseudomount_ext._read import CHUNK, Int64s, UInt8s, read_rows
from pseudomount_ext._super import Superblock

__all__ = ["BlockRuns", "Damage", "Taken", "Volume", "map_blocks"]

Bools = NDArray[np.bool_]
Taken = Callable[[Int64s, Int64s], Bools]


class Damage(IntEnum):
    """Besides the values of `RunKind`: why a run cannot be found."""

    OUTSIDE = 0xF0  # the blocks themselves lie outside the volume
    NODE_BROKEN = 0xF1
    NODE_OUTSIDE = 0xF2
    NODE_TWICE = 0xF3
    NODE_UNREAD = 0xF4
    POINTERS_OUTSIDE = 0xF5
    POINTERS_TWICE = 0xF6
    POINTERS_UNREAD = 0xF7
    TAKEN = 0xF8  # of a deleted file: they belong to others by now


_TREE, _POINTERS = "extent tree block", "indirect block"
#: The structure, and what is wrong; the block's own offset tells more where that lies inside the volume.
_EXPLAINED: Final = {
    Damage.OUTSIDE: ("data runs", "they are said to lie at block {}, outside the volume"),
    Damage.NODE_BROKEN: (_TREE, "the extent tree node in block {} makes no sense"),
    Damage.NODE_OUTSIDE: (_TREE, "their extent tree block is said to lie at block {}, outside the volume"),
    Damage.NODE_TWICE: (_TREE, "block {} is used twice in trees of blocks"),
    Damage.NODE_UNREAD: (_TREE, "the extent tree block {} could not be read"),
    Damage.POINTERS_OUTSIDE: (_POINTERS, "their indirect block is said to lie at block {}, outside the volume"),
    Damage.POINTERS_TWICE: (_POINTERS, "block {} is used twice in trees of blocks"),
    Damage.POINTERS_UNREAD: (_POINTERS, "the indirect block {} could not be read"),
    Damage.TAKEN: ("data runs", "the file was deleted, and block {} has been given to another file"),
}

#: A sound volume has one owner for each block. A damaged one may have a few, a forged one as many as it has files.
_SHARERS: Final = 8


@dataclass(frozen=True, slots=True)
class Volume:
    """What everything that reads needs."""

    device: BlockDevice
    superblock: Superblock
    findings: FindingLog

    def damage(self, message: str, block: int | None, structure: str) -> CorruptionError:
        """A CorruptionError at a block of the volume."""
        offset = None if block is None else block * self.superblock.block_size
        return CorruptionError(message, device=self.device.name, offset=offset, structure=structure)

    def doubt(self, message: str, offset: int | None, structure: str, file: int | None = None) -> None:
        """Notes something doubtful that was read all the same."""
        self.findings.add(Severity.DEGRADED, message, structure=structure, file=file, offset=offset)


@dataclass(frozen=True, slots=True)
class BlockRuns:
    """Runs of blocks, sorted by (query, logical), disjoint within a file; holes are left out.

    Attributes:
        query: int64 (m,), position of the file in the question.
        logical, count: int64 (m,), blocks.
        physical: int64 (m,), block of the volume; of a damaged run the block that is to blame, -1 for the inode.
        kind: uint8 (m,), `RunKind` or `Damage`.
        errors: position of a file in the question → the first thing that was wrong.
    """

    query: Int64s
    logical: Int64s
    count: Int64s
    physical: Int64s
    kind: UInt8s
    errors: dict[int, PseudomountError]

    def take(self, rows: NDArray[np.integer] | Bools) -> BlockRuns:
        """A selection; errors stay."""
        return BlockRuns(
            self.query[rows], self.logical[rows], self.count[rows], self.physical[rows], self.kind[rows], self.errors
        )

    @property
    def damaged(self) -> Bools:
        """bool (m,): runs that cannot be found."""
        cannot: Bools = self.kind >= min(Damage)
        return cannot

    def explain(self, volume: Volume, run: int) -> PseudomountError:
        """What is wrong with a damaged run."""
        earlier = self.errors.get(int(self.query[run]))
        return _explained(
            volume,
            Damage(int(self.kind[run])),
            int(self.logical[run]),
            int(self.count[run]),
            int(self.physical[run]),
            earlier,
        )

    def locate(self, queries: Int64s, blocks: Int64s) -> Int64s:
        """int64 (n,): the physical block of each file's logical block; -1 where it is not data."""
        if not len(self.query):
            return np.full(len(queries), -1, np.int64)
        keys = self.query << 33 | self.logical
        at = np.searchsorted(keys, queries << 33 | blocks, side="right") - 1
        row = np.maximum(at, 0)
        within = blocks - self.logical[row]
        hit = (at >= 0) & (self.query[row] == queries) & (within < self.count[row]) & (self.kind[row] == RunKind.DATA)
        return np.where(hit, self.physical[row] + within, -1)


def _explained(
    volume: Volume, damage: Damage, logical: int, count: int, block: int, earlier: PseudomountError | None
) -> PseudomountError:
    structure, text = _EXPLAINED[damage]
    why = text.format(block) if block >= 0 else text.format("").replace("block ", "the inode")
    if count < lay.LOGICAL_LIMIT:  # else it is the whole file
        why = f"{count} blocks from block {logical} of the file on cannot be found: {why}"
    where = max(block, 0) if damage not in (Damage.OUTSIDE, Damage.NODE_OUTSIDE, Damage.POINTERS_OUTSIDE) else 0
    if damage in (Damage.NODE_UNREAD, Damage.POINTERS_UNREAD):
        again = earlier is not None and earlier.retryable
        offset = where * volume.superblock.block_size
        return ReadError(why, device=volume.device.name, offset=offset, structure=structure, retryable=again)
    return volume.damage(why, where or None, structure)


class _Found:
    """Runs collected so far."""

    def __init__(self, volume: Volume, taken: Taken | None) -> None:
        self.volume = volume
        self.taken = taken
        self.parts: list[tuple[Int64s, Int64s, Int64s, Int64s, UInt8s]] = []
        self.errors: dict[int, PseudomountError] = {}

    def add(self, query: Int64s, logical: Int64s, count: Int64s, physical: Int64s, kind: UInt8s) -> None:
        """Notes runs; those that lie outside the volume are damaged."""
        superblock = self.volume.superblock
        outside = (physical <= superblock.first_data_block) | (physical > superblock.blocks - count)
        if outside.any():
            kind = np.where(outside, np.uint8(Damage.OUTSIDE), kind)
            self._blame(query, logical, count, physical, outside, Damage.OUTSIDE)
        self.parts.append((query, logical, count, physical, kind))

    def lose(self, level: _Level, damage: Damage) -> None:
        """Notes the logical blocks that tree blocks would have told of."""
        if len(level.query):
            count = level.high - level.low
            kind = np.full(len(level.query), damage, np.uint8)
            self._blame(level.query, level.low, count, level.block, kind != 0, damage)
            self.parts.append((level.query, level.low, count, level.block, kind))

    def _blame(self, query: Int64s, logical: Int64s, count: Int64s, block: Int64s, bad: Bools, damage: Damage) -> None:
        # Only the first complaint of a file counts, and a forged tree has millions.
        for i in _firsts(query, bad):
            if int(query[i]) not in self.errors:
                why = _explained(self.volume, damage, int(logical[i]), int(count[i]), int(block[i]), None)
                self.errors[int(query[i])] = why

    def without_taken(self, level: _Level) -> _Level:
        """Drops the tree blocks of deleted files that others have."""
        if self.taken is None or not len(level.query):
            return level
        taken = self.taken(level.query, level.block)
        if taken.any():
            self.lose(level.take(taken), Damage.TAKEN)
            level = level.take(~taken)
        return level

    def blame(self, query: int, error: PseudomountError) -> None:
        """Notes an error of a file if it is the first."""
        self.errors.setdefault(query, error)

    def finish(self) -> BlockRuns:
        """All runs, sorted and with neighbours joined."""
        if not self.parts:
            none = np.empty(0, np.int64)
            return BlockRuns(none, none, none, none, np.empty(0, np.uint8), self.errors)
        query, logical, count, physical = (np.concatenate([part[column] for part in self.parts]) for column in range(4))
        kind = np.concatenate([part[4] for part in self.parts])
        order = np.lexsort((logical, query))
        runs = BlockRuns(query[order], logical[order], count[order], physical[order], kind[order], self.errors)
        return _joined(runs)


def _firsts(query: Int64s, mask: Bools) -> list[int]:
    """The first marked row of each file."""
    rows = np.flatnonzero(mask)
    return rows[np.unique(query[rows], return_index=True)[1]].tolist() if len(rows) else []


def _joined(runs: BlockRuns) -> BlockRuns:
    if len(runs.query) < 2:
        return runs
    end = runs.logical + runs.count
    follows = (runs.query[1:] == runs.query[:-1]) & (runs.logical[1:] == end[:-1]) & (runs.kind[1:] == runs.kind[:-1])
    # Damaged runs are one where one tree block is to blame for them.
    step = np.where(runs.damaged[:-1] & (runs.kind[:-1] != Damage.OUTSIDE), 0, runs.count[:-1])
    follows &= runs.physical[1:] == runs.physical[:-1] + step
    if not follows.any():
        return runs
    first = np.flatnonzero(np.concatenate(([True], ~follows)))
    head = runs.take(first)
    return BlockRuns(
        head.query, head.logical, np.add.reduceat(runs.count, first), head.physical, head.kind, runs.errors
    )


def map_blocks(volume: Volume, inodes: Inodes, rows: Int64s, taken: Taken | None = None) -> BlockRuns:
    """Where the blocks of files lie.

    Args:
        volume: the volume.
        inodes: the files' inodes.
        rows: int64 (k,), which of them to map; they must be directories, regular files or symbolic links without
            inline content. `query` of the answer is a position in `rows`.
        taken: which blocks of the trees, by query and number, cannot be the file's any more.
    """
    found = _Found(volume, taken)
    by_extents = inodes.flagged(InodeFlag.EXTENTS)[rows]
    queries = np.arange(len(rows), dtype=np.int64)
    if by_extents.any():
        _walk_extents(volume, inodes, rows, queries[by_extents], found)
    if not by_extents.all():
        _walk_pointers(volume, inodes, rows, queries[~by_extents], found)
    return found.finish()


# -- "Extent Tree" -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Level:
    """Tree blocks that wait to be read: each may map the logical blocks from `low` to `high`, exclusive."""

    query: Int64s
    block: Int64s
    low: Int64s
    high: Int64s
    depth: Int64s

    def take(self, rows: NDArray[np.integer] | Bools) -> _Level:
        return _Level(self.query[rows], self.block[rows], self.low[rows], self.high[rows], self.depth[rows])


def _walk_extents(volume: Volume, inodes: Inodes, rows: Int64s, queries: Int64s, found: _Found) -> None:
    n = len(queries)
    roots = _Level(
        queries,
        np.full(n, -1, np.int64),
        np.zeros(n, np.int64),
        np.full(n, lay.LOGICAL_LIMIT, np.int64),
        np.full(n, -1, np.int64),
    )
    level = _parse_nodes(np.ascontiguousarray(inodes.block[rows[queries]]), roots, found)
    size = volume.superblock.block_size
    seeds = checksum_seeds(volume.superblock, inodes.number[rows], inodes.generation[rows])
    while len(level.query):
        level = found.without_taken(_without_shared(level, found, Damage.NODE_TWICE))
        if not len(level.query):
            return
        below: list[_Level] = []
        level = level.take(np.argsort(level.block, kind="stable"))
        step = max(1, CHUNK // size)
        for first in range(0, len(level.query), step):
            part = level.take(np.arange(first, min(first + step, len(level.query))))
            got = read_rows(volume.device, part.block * size, size, "extent tree block")
            for i, error in got.errors.items():
                found.blame(int(part.query[i]), error)
            good = got.ok()
            found.lose(part.take(~good), Damage.NODE_UNREAD)
            part, data = part.take(good), got.data[good]
            if volume.superblock.metadata_csum:
                _check_tree_blocks(volume, data, part, inodes.number[rows], seeds)
            below.append(_parse_nodes(data, part, found))
        level = _Level(*(np.concatenate([getattr(part, name) for part in below]) for name in _Level.__slots__))


def _without_shared(level: _Level, found: _Found, damage: Damage) -> _Level:
    """Drops the blocks that one file uses twice, or too many files."""
    keep = _unshared(level.query, level.block)
    if not keep.all():
        found.lose(level.take(~keep), damage)
        level = level.take(keep)
    return level


def _unshared(query: Int64s, block: Int64s) -> Bools:
    """bool (n,): the first use of a block in each file, by the first few files."""
    order = np.lexsort((query, block))
    q, b = query[order], block[order]
    same = np.concatenate(([False], b[1:] == b[:-1]))
    again = same & np.concatenate(([False], q[1:] == q[:-1]))
    begin = np.maximum.accumulate(np.where(same, 0, np.arange(len(b))))
    keep = np.empty(len(b), np.bool_)
    keep[order] = ~again & (np.arange(len(b)) - begin < _SHARERS)
    return keep


def _check_tree_blocks(volume: Volume, data: UInt8s, level: _Level, numbers: Int64s, seeds: NDArray[np.uint32]) -> None:
    size = volume.superblock.block_size
    tail = lay.EXTENT_RECORD * (1 + (size - lay.EXTENT_RECORD) // lay.EXTENT_RECORD)
    if tail + 4 > size:
        return  # no room for a checksum
    crc = crc32c_rows(seeds[level.query], data[:, :tail])
    stored = np.ascontiguousarray(data[:, tail : tail + 4]).view("<u4")[:, 0]
    for i in np.flatnonzero(crc != stored).tolist():
        volume.doubt(
            "an extent tree block does not fit its checksum",
            int(level.block[i]) * size,
            "extent tree block",
            int(numbers[level.query[i]]),
        )


def _parse_nodes(data: UInt8s, level: _Level, found: _Found) -> _Level:
    """Takes the extents of leaves and returns the children of the other nodes.

    Args:
        data: uint8 (n, node size): `i_block`s or whole blocks.
        level: what each node is; depth -1 for roots, which may have any up to 5.
    """
    capacity = data.shape[1] // lay.EXTENT_RECORD - 1
    records = data[:, : (capacity + 1) * lay.EXTENT_RECORD]
    halves = np.ascontiguousarray(records).view("<u2").reshape(len(data), capacity + 1, 6)
    head = halves[:, 0].astype(np.int64)
    entries, depth = head[:, 1], head[:, 3]
    sound = (head[:, 0] == lay.EXTENT_MAGIC) & (entries <= head[:, 2]) & (head[:, 2] <= capacity)
    sound &= np.where(level.depth < 0, depth <= lay.EXTENT_MAX_DEPTH, depth == level.depth)
    sound &= (entries > 0) | (depth == 0)
    entries = np.where(sound, entries, 0)
    most = int(entries.max()) if len(entries) else 0
    node, column = np.nonzero(np.arange(most) < entries[:, None])
    body = halves[node, column + 1].astype(np.int64)
    start = body[:, 0] | body[:, 1] << 16
    leaf = depth[node] == 0
    length = np.where(body[:, 2] > lay.EXTENT_UNWRITTEN, body[:, 2] - lay.EXTENT_UNWRITTEN, body[:, 2])
    length = np.where(leaf, length, 1)
    # In order, without overlap, inside what the parent said: keys of different nodes are far apart, so that one
    # running maximum serves them all.
    key = node << 34
    reach = np.maximum.accumulate(key + start + length) if len(key) else key
    before = np.concatenate(([0], reach[:-1]))[: len(key)]
    first = np.concatenate(([True], node[1:] != node[:-1]))[: len(key)]
    bad = (length == 0) | (start < level.low[node]) | (start + length > level.high[node])
    bad |= ~first & (key + start < before)
    sound[node[bad]] = False
    found.lose(level.take(~sound), Damage.NODE_BROKEN)
    keep = sound[node]
    node, body, start, length, leaf = node[keep], body[keep], start[keep], length[keep], leaf[keep]
    if leaf.any():
        rows = body[leaf]
        unwritten = rows[:, 2] > lay.EXTENT_UNWRITTEN
        kind = np.where(unwritten, np.uint8(RunKind.UNWRITTEN), np.uint8(RunKind.DATA))
        physical = rows[:, 4] | rows[:, 5] << 16 | rows[:, 3] << 32
        found.add(level.query[node[leaf]], start[leaf], length[leaf], physical, kind)
    return _children(level, depth, node[~leaf], body[~leaf], start[~leaf], found)


def _children(level: _Level, depth: Int64s, node: Int64s, body: Int64s, start: Int64s, found: _Found) -> _Level:
    high = level.high[node]
    if len(node) > 1:
        same = node[1:] == node[:-1]
        high[:-1] = np.where(same, start[1:], high[:-1])
    block = body[:, 2] | body[:, 3] << 16 | body[:, 4] << 32
    children = _Level(level.query[node], block, start, high, depth[node] - 1)
    superblock = found.volume.superblock
    outside = (block <= superblock.first_data_block) | (block >= superblock.blocks)
    if outside.any():
        found.lose(children.take(outside), Damage.NODE_OUTSIDE)
        children = children.take(~outside)
    return children


# -- "Block Map" -------------------------------------------------------------------------------------------------------


def _walk_pointers(volume: Volume, inodes: Inodes, rows: Int64s, queries: Int64s, found: _Found) -> None:
    size = volume.superblock.block_size
    fan = size // 4
    pointers = np.ascontiguousarray(inodes.block[rows[queries]]).view("<u4").astype(np.int64)
    # Blocks of the file: past its end no pointer counts, and a size that the disk cannot mean counts as any.
    claimed = inodes.size[rows]
    ends = np.where(claimed < 0, lay.LOGICAL_LIMIT, np.minimum(-(-claimed // size), lay.LOGICAL_LIMIT))
    _take_pointers(pointers[:, : lay.DIRECT_BLOCKS], queries, np.zeros(len(queries), np.int64), ends, found)
    level: _Level | None = None
    spans = [1, fan, fan**2, fan**3]
    for height in (3, 2, 1):
        low = lay.DIRECT_BLOCKS + sum(spans[1:height])
        column = pointers[:, lay.DIRECT_BLOCKS + height - 1]
        top = _Level(
            queries,
            column,
            np.full(len(queries), low, np.int64),
            np.full(len(queries), min(low + spans[height], lay.LOGICAL_LIMIT), np.int64),
            np.full(len(queries), height, np.int64),
        )
        top = top.take((column != 0) & (top.low < ends[queries]))
        if level is not None:
            top = _Level(*(np.concatenate((getattr(top, name), getattr(level, name))) for name in _Level.__slots__))
        level = _step_pointers(volume, top, height, spans, ends, found)


def _step_pointers(
    volume: Volume, level: _Level, height: int, spans: list[int], ends: Int64s, found: _Found
) -> _Level | None:
    """Reads indirect blocks of one height; returns those below them."""
    superblock = volume.superblock
    outside = (level.block <= superblock.first_data_block) | (level.block >= superblock.blocks)
    found.lose(level.take(outside), Damage.POINTERS_OUTSIDE)
    level = found.without_taken(_without_shared(level.take(~outside), found, Damage.POINTERS_TWICE))
    level = level.take(np.argsort(level.block, kind="stable"))
    size = superblock.block_size
    below: list[_Level] = []
    step = max(1, CHUNK // 4 // size)
    for first in range(0, len(level.query), step):
        part = level.take(np.arange(first, min(first + step, len(level.query))))
        got = read_rows(volume.device, part.block * size, size, "indirect block")
        for i, error in got.errors.items():
            found.blame(int(part.query[i]), error)
        good = got.ok()
        found.lose(part.take(~good), Damage.POINTERS_UNREAD)
        part = part.take(good)
        pointers = got.data[good].view("<u4").astype(np.int64)
        if height == 1:
            _take_pointers(pointers, part.query, part.low, ends, found)
            continue
        node, column = np.nonzero(pointers)
        low = part.low[node] + column * spans[height - 1]
        inside = low < np.minimum(ends[part.query[node]], lay.LOGICAL_LIMIT)
        node, column, low = node[inside], column[inside], low[inside]
        below.append(
            _Level(
                part.query[node],
                pointers[node, column],
                low,
                np.minimum(low + spans[height - 1], lay.LOGICAL_LIMIT),
                np.full(len(node), height - 1, np.int64),
            )
        )
    if not below:
        return None
    return _Level(*(np.concatenate([getattr(part, name) for part in below]) for name in _Level.__slots__))


def _take_pointers(pointers: Int64s, query: Int64s, low: Int64s, ends: Int64s, found: _Found) -> None:
    """Pointers to data, (n, k), as runs: neighbours that lie one behind the other are one run."""
    node, column = np.nonzero(pointers)
    logical, owner, physical = low[node] + column, query[node], pointers[node, column]
    inside = logical < ends[owner]
    logical, owner, physical = logical[inside], owner[inside], physical[inside]
    if not len(logical):
        return
    apart = (owner[1:] != owner[:-1]) | (logical[1:] != logical[:-1] + 1) | (physical[1:] != physical[:-1] + 1)
    # A pointer outside the volume must not spoil those before it.
    limit = found.volume.superblock.blocks
    apart |= physical[1:] == limit
    first = np.flatnonzero(np.concatenate(([True], apart)))
    count = np.diff(np.append(first, len(logical)))
    kind = np.full(len(first), RunKind.DATA, np.uint8)
    found.add(owner[first], logical[first], count, physical[first], kind)
