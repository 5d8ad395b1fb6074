"""Arithmetic on many byte ranges at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Coalesced", "coalesce"]

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
    may_cut = np.concatenate(([True], start[1:] >= reach[:-1]))  # never inside an overlap
    while True:
        first = np.flatnonzero(apart)
        last = np.concatenate((first[1:], [len(start)])) - 1
        begin = start[first]
        big = np.flatnonzero((reach[last] - begin > limit) & (last > first))
        if not len(big):
            return
        # For each range that is too long: the first member at which it may be cut and would pass the limit,
        # so each round settles a piece of every long range.
        cuts = np.searchsorted(reach, begin[big] + limit, side="right")
        cuts = np.maximum(cuts, first[big] + 1)
        allowed = np.flatnonzero(may_cut)
        at = np.searchsorted(allowed, cuts, side="left")
        cut = np.where(at < len(allowed), allowed[np.minimum(at, len(allowed) - 1)], len(start))
        good = cut <= last[big]
        if not good.any():
            return
        apart[cut[good]] = True
