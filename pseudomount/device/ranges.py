"""Arithmetic on many byte ranges at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError

__all__ = ["Coalesced", "Pieces", "blame", "clear", "coalesce", "cut", "cut_even"]

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coalesced:
    """Few ranges that cover many.

    Attributes:
        offsets, lengths: int64 (k,), ascending, disjoint.
        group: int64 (n,), the covering range of each range asked for; -1 for an empty one.
    """

    offsets: Int64s
    lengths: Int64s
    group: Int64s


def coalesce(offsets: Int64s, lengths: Int64s, *, gap: int = 0, limit: int | None = None) -> Coalesced:
    """Joins ranges that overlap, touch, or are at most `gap` bytes apart.

    Args:
        offsets, lengths: int64 (n,), any order, none negative.
        gap: bytes that may be read in vain between two ranges to save a request.
        limit: bytes; a joined range stops growing before it would pass this, except that one range asked for
            is never cut, and ranges that overlap are joined whatever comes of it.
    """
    group = np.full(len(offsets), -1, np.int64)
    rows = np.flatnonzero(lengths > 0)
    if not len(rows):
        return Coalesced(np.empty(0, np.int64), np.empty(0, np.int64), group)
    rows = rows[np.argsort(offsets[rows], kind="stable")]
    start = offsets[rows]
    reach = np.maximum.accumulate(start + lengths[rows])
    apart = np.empty(len(rows), np.bool_)
    apart[0] = True
    apart[1:] = start[1:] - reach[:-1] > gap
    if limit is not None:
        _cut(start, reach, apart, limit)
    number = np.cumsum(apart) - 1
    group[rows] = number
    first = np.flatnonzero(apart)
    last = np.concatenate((first[1:], [len(rows)])) - 1
    return Coalesced(start[first], reach[last] - start[first], group)


def _cut(start: Int64s, reach: Int64s, apart: NDArray[np.bool_], limit: int) -> None:
    """Marks further cuts in `apart`, so that joined ranges keep to `limit`."""
    # Ranges that overlap stay together: an atom is as many of them as cannot be cut apart.
    first = np.flatnonzero(np.concatenate(([True], start[1:] >= reach[:-1])))
    begin = start[first]
    end = reach[np.concatenate((first[1:], [len(start)])) - 1]
    heads = np.flatnonzero(apart[first])
    stops = np.concatenate((heads[1:], [len(first)]))
    while len(heads):
        # Each round takes one piece off every joined range that is still too long: up to the atom that would pass.
        cuts = np.maximum(np.searchsorted(end, begin[heads] + limit, side="right"), heads + 1)
        longer = cuts < stops
        heads, stops = cuts[longer], stops[longer]
        apart[first[heads]] = True


@dataclass(frozen=True, slots=True)
class Pieces:
    """Ranges cut where cells begin: range by range in the order asked for, ascending within a range.

    Attributes:
        rows: int64 (m,), the range that a piece belongs to.
        cells: int64 (m,), the cell in which it lies.
        offsets: int64 (m,), bytes, on the scale of the ranges.
        within: int64 (m,), bytes from where its range begins.
        lengths: int64 (m,), bytes, all positive.
    """

    rows: Int64s
    cells: Int64s
    offsets: Int64s
    within: Int64s
    lengths: Int64s

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: NDArray[np.bool_]) -> Pieces:
        """A selection, by mask."""
        return Pieces(self.rows[which], self.cells[which], self.offsets[which], self.within[which], self.lengths[which])


def cut(offsets: Int64s, lengths: Int64s, starts: Int64s) -> Pieces:
    """Cuts ranges at the cells that begin at `starts`.

    Args:
        offsets, lengths: int64 (n,), any order, none empty, none before the first cell.
        starts: int64 (k,), ascending; a cell reaches to the next, the last one on and on. Empty cells have no pieces.
    """
    last = len(starts) - 1
    head = np.searchsorted(starts, offsets, side="right") - 1
    tail = np.searchsorted(starts, offsets + lengths - 1, side="right") - 1
    rows, cells = _spread(head, tail)
    ends = (offsets + lengths)[rows]
    begins = np.maximum(offsets[rows], starts[cells])
    ends = np.where(cells < last, np.minimum(ends, starts[np.minimum(cells + 1, last)]), ends)
    pieces = Pieces(rows, cells, begins, begins - offsets[rows], ends - begins)
    full = pieces.lengths > 0
    return pieces if bool(full.all()) else pieces.take(full)


def cut_even(offsets: Int64s, lengths: Int64s, block: int) -> Pieces:
    """Cuts ranges, none of them empty, at multiples of `block`; the cells are the numbers of the blocks."""
    stops = offsets + lengths
    rows, cells = _spread(offsets // block, (stops - 1) // block)
    begins = np.maximum(offsets[rows], cells * block)
    room = block - (begins - cells * block)
    return Pieces(rows, cells, begins, begins - offsets[rows], np.minimum(stops[rows] - begins, room))


def _spread(head: Int64s, tail: Int64s) -> tuple[Int64s, Int64s]:
    """For each row, the numbers from `head` to `tail`: (rows, numbers)."""
    count = tail - head + 1
    before = np.cumsum(count) - count
    rows = np.repeat(np.arange(len(head), dtype=np.int64), count)
    numbers = np.arange(len(rows), dtype=np.int64) - np.repeat(before - head, count)
    return rows, numbers


def clear(buffer: NDArray[np.uint8], positions: Int64s, lengths: Int64s) -> None:
    """Zeros in many places of a buffer."""
    # One slice at a time: an index array would take eight times the bytes. Places that touch are taken together.
    joined = coalesce(positions, lengths)
    for position, length in zip(joined.offsets.tolist(), joined.lengths.tolist(), strict=True):
        buffer[position : position + length] = 0


def blame(errors: Mapping[int, PseudomountError], rows: Int64s, into: dict[int, PseudomountError]) -> None:
    """Notes the errors of pieces as those of their ranges `rows`; a range keeps the error of its first piece."""
    for piece in sorted(errors):
        into.setdefault(int(rows[piece]), errors[piece])
