"""The directories of a catalogue: which of them a path leads to, and those paths, without a loop over files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.errors import BatchTooLargeError
from pseudomount.filesystem.catalogue._arrow import arrow, numbers, strings, text
from pseudomount.filesystem.catalogue._columns import positions

__all__ = ["Directories"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: Levels below which nobody goes, as in a walk: a path that any of our file systems allows has fewer.
MAX_DEPTH = 4096
#: Bytes of paths that are handed out at once: a forged tree can make paths many times as long as the names in it.
MOST_BYTES = 8 << 30
_SLASH = text("/")


@dataclass(frozen=True, slots=True)
class Directories:
    """D directories, ordered by id.

    Attributes:
        ids: uint64 (D,), ascending.
        parent: int64 (D,), position of the one above; the root's own is its own, -1: no path leads there.
        depth: int64 (D,), 0 for the root; -1: no path leads there.
        row: int64 (D,), the row of the whole catalogue, as it was scanned, by which a path leads there, -1 for none.
        name: their names, Arrow strings (D,), "" for the root.
        levels: positions of the directories of each depth, ascending.
        too_deep: whether directories were left out because they nest too deep.
    """

    ids: UInt64s
    parent: Int64s
    depth: Int64s
    row: Int64s
    name: pa.Array
    levels: tuple[Int64s, ...]
    too_deep: bool = False

    @classmethod
    def of(
        cls, root: int, ids: UInt64s, parents: UInt64s, rows: Int64s, deleted: Bools, names: pa.ChunkedArray
    ) -> Directories:
        """From the rows of a catalogue that are directories.

        A directory is entered once, by the name nearest to the root, of several the one that a walk comes by first,
        however many claim it; by a deleted name only where no other leads there. The root is never below anything.

        Args:
            root: its id.
            ids, parents: uint64 (k,), the directory that a row is, and the one it is in.
            rows: int64 (k,), their numbers.
            deleted: bool (k,), which of these names were deleted.
            names: the catalogue's column of names, that `rows` count in.
        """
        known = np.union1d(ids, np.array([root], np.uint64))
        top = int(np.searchsorted(known, np.uint64(root)))
        place = np.searchsorted(known, ids)
        above = np.minimum(np.searchsorted(known, parents), len(known) - 1)
        fits = (known[above] == parents) & (place != top)
        depth = np.full(len(known), -1, np.int64)
        parent = np.full(len(known), -1, np.int64)
        claim = np.full(len(known), -1, np.int64)
        depth[top], parent[top] = 0, top
        too_deep = False
        for wanted in (fits & ~deleted, fits) if deleted.any() else (fits,):
            edges = np.flatnonzero(wanted)
            edges = edges[np.argsort(above[edges], kind="stable")]
            sources = above[edges]
            front = np.flatnonzero(depth >= 0)
            while len(front):
                first, last = np.searchsorted(sources, front), np.searchsorted(sources, front, side="right")
                out = edges[_ranges(first, last - first)]
                out = out[depth[place[out]] < 0]
                deep = depth[above[out]] >= MAX_DEPTH
                too_deep |= bool(deep.any())
                out = out[~deep]
                chosen = out[np.sort(np.unique(place[out], return_index=True)[1])]
                front = place[chosen]
                depth[front], parent[front], claim[front] = depth[above[chosen]] + 1, above[chosen], chosen
        reached = np.flatnonzero(claim >= 0)
        row = np.full(len(known), -1, np.int64)
        row[reached] = rows[claim[reached]]
        if len(names):
            picked = names.take(arrow(np.maximum(row, 0), row < 0))
            name = _one(pc.fill_null(picked, text("", pa.string())))
        else:
            name = strings([""] * len(known), pa.string())
        return cls(known, parent, depth, row, name, cls.by_depth(depth), too_deep)

    @staticmethod
    def by_depth(depth: Int64s) -> tuple[Int64s, ...]:
        """The positions of the directories of each depth, ascending."""
        order = np.argsort(depth, kind="stable")
        ends = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
        return tuple(order[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))

    def find(self, ids: UInt64s) -> Int64s:
        """Positions of directories by id; -1 for what is none, or what no path leads to."""
        at = positions(self.ids, ids).astype(np.int64)
        at[self.depth[at] < 0] = -1
        return at

    def lengths(self) -> Int64s:
        """Bytes (D,) of each directory's path without the last "/"."""
        names = numbers(pc.binary_length(self.name)).astype(np.int64)
        total = np.zeros(len(self.ids), np.int64)
        for level in self.levels[1:]:
            total[level] = total[self.parent[level]] + 1 + names[level]
        return total

    def prefixes(self, wanted: Int64s) -> pa.Array:
        """The paths, without the last "/", of some directories (positions, no -1) as large strings: "", "/a/b".

        Raises:
            BatchTooLargeError: they are more than 8 GiB long; ask for fewer.
        """
        if not len(wanted):
            return strings([])
        total = int(self.lengths()[wanted].sum())
        if total > MOST_BYTES:
            raise BatchTooLargeError(f"the paths of {len(wanted)} directories are {total} bytes long; ask for fewer")
        asked = np.zeros(len(self.ids), np.bool_)
        asked[wanted] = True
        needed = asked.copy()
        for level in reversed(self.levels[1:]):
            needed[self.parent[level[needed[level]]]] = True
        # Only the paths that are asked for are kept, and of the others those of one level at a time.
        inner = np.zeros(len(self.ids), np.int64)
        place = np.zeros(len(self.ids), np.int64)
        parts: list[pa.Array] = []
        above = strings([""])
        count = 0
        for depth, level in enumerate(self.levels):
            mine = level[needed[level]]
            if not len(mine):
                break
            if depth:
                names = pc.cast(self.name.take(arrow(mine)), pa.large_string())
                above = pc.binary_join_element_wise(above.take(arrow(inner[self.parent[mine]])), names, _SLASH)
            inner[mine] = np.arange(len(mine))
            kept = asked[mine]
            place[mine[kept]] = count + np.arange(int(kept.sum()))
            count += int(kept.sum())
            parts.append(above if kept.all() else above.filter(arrow(kept)))
        return pa.concat_arrays(parts).take(arrow(place[wanted]))

    def below(self, position: int) -> Bools:
        """Which directories (D,) are this one or lie below it."""
        inside = np.zeros(len(self.ids), np.bool_)
        inside[position] = True
        for level in self.levels[int(self.depth[position]) + 1 :]:
            inside[level] = inside[self.parent[level]]
        return inside

    def upward(self) -> Iterator[Int64s]:
        """The directories below the root, level by level, the deepest first."""
        return reversed(self.levels[1:])


def _ranges(starts: Int64s, counts: Int64s) -> Int64s:
    """The numbers of many ranges, one after the other."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Int64s = np.arange(total, dtype=np.int64) + np.repeat(starts - (ends - counts), counts)
    return numbers


def _one(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
