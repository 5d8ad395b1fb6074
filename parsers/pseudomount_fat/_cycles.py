"""Chains of clusters that come back to themselves or cross others, found without walking them again."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

__all__ = ["cut_cycles", "sharing"]

Int64s = NDArray[np.int64]
Runs = tuple[Int64s, Int64s, Int64s, Int64s]

#: Chains of one call whose cycles are cut at the very cluster; a forged disk can have a million, which lose all runs.
_EXACT = 4096


def sharing(owner: Int64s, logical: Int64s, start: Int64s, count: Int64s) -> Int64s:
    """Owners of runs (all int64 (m,)) that overlap a run which begins earlier; of a set that crosses, one is spared."""
    order = np.lexsort((owner, start))
    reach = np.maximum.accumulate(start[order] + count[order])
    late = np.flatnonzero(start[order][1:] < reach[:-1]) + 1
    return np.unique(owner[order][late])


def cut_cycles(owner: Int64s, logical: Int64s, start: Int64s, count: Int64s) -> tuple[Runs, list[int]]:
    """Cuts each chain at the first cluster that it comes to for the second time.

    Takes runs (all int64 (m,)) chain by chain in the chain's order; gives the runs left and the chains that were cut.
    """
    order = np.lexsort((start, owner))
    owners, starts = owner[order], start[order]
    twice = (owners[1:] == owners[:-1]) & (starts[1:] < starts[:-1] + count[order][:-1])
    looped = np.unique(owners[1:][twice])
    if not len(looped):
        return (owner, logical, start, count), []
    count = count.copy()
    keep = np.ones(len(owner), np.bool_)
    first, stop = np.searchsorted(owner, looped, "left"), np.searchsorted(owner, looped, "right")
    for number, (a, b) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
        if number >= _EXACT:
            keep[a:b] = False
            continue
        whole, left = _first_repeat(start[a:b], count[a:b])
        keep[a + whole + (left > 0) : b] = False
        if left:
            count[a + whole] = left
    return (owner[keep], logical[keep], start[keep], count[keep]), looped.tolist()


def _first_repeat(start: Int64s, count: Int64s) -> tuple[int, int]:
    """Of one chain: how many runs repeat nothing, and how many clusters of the next one do not either."""
    low, high = 1, len(start)  # the first run repeats nothing, all together do
    while high - low > 1:
        middle = (low + high) // 2
        if _disjoint(start[:middle], count[:middle]):
            low = middle
        else:
            high = middle
    before = np.argsort(start[:low], kind="stable")
    starts = start[:low][before].tolist()
    ends = (start[:low] + count[:low])[before].tolist()
    begin = int(start[low])
    at = bisect_left(ends, begin + 1)  # the first earlier run that reaches past where this one begins
    return low, max(0, starts[at] - begin)


def _disjoint(start: Int64s, count: Int64s) -> bool:
    order = np.argsort(start, kind="stable")
    return bool((start[order][1:] >= (start + count)[order][:-1]).all())
