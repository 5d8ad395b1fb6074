"""exFAT's allocation bitmap: one bit a cluster, read as far as it is asked about (exFAT specification, section 7.1)."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount_fat._content import FileContent

__all__ = ["AllocationBitmap"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

#: Bytes that are read and kept at once: 64 Ki clusters.
_PAGE = 8 << 10
#: Pages that one question may need, and that are kept: 16 Mi clusters in 2 MiB.
_MOST = 256


class AllocationBitmap:
    """Which clusters are allocated. Clusters are counted from 0 here, bit 0 of byte 0 is the first. Thread-safe."""

    def __init__(self, device: BlockDevice, clusters: int, lengths: Int64s, positions: Int64s) -> None:
        self._clusters = clusters
        size = min(-(-clusters // 8), int(lengths.sum()))
        self._content = FileContent(device, f"{device.name}: allocation bitmap", size, lengths, positions, None)
        self._lock = threading.Lock()
        self._kept: dict[int, UInt8s] = {}

    def free_in(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        """bool (n,): which runs of clusters have one that is marked free, as far as can be told.

        Needs at most `_MOST` pages: runs in others, and those whose bits cannot be read, count as allocated.
        """
        taken = self._taken(starts, counts)
        free: NDArray[np.bool_] = (taken >= 0) & (taken < counts)
        return free

    def all_free(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        """bool (n,): which runs have nothing but clusters that are marked free; with the same bounds."""
        free: NDArray[np.bool_] = self._taken(starts, counts) == 0
        return free

    def _taken(self, starts: Int64s, counts: Int64s) -> Int64s:
        """int64 (n,): clusters of each run that are allocated; -1 for one of which that is not known."""
        result = np.full(len(starts), -1, np.int64)
        within = (starts >= 0) & (starts + counts <= self._clusters) & (counts > 0)
        first, last = starts // 8 // _PAGE, (starts + counts - 1) // 8 // _PAGE
        rows = np.flatnonzero(within & (last - first < _MOST))
        if not len(rows):
            return result
        marks = np.zeros(int(last[rows].max()) + 2, np.int64)  # a page for every 64 Ki clusters that there really are
        np.add.at(marks, first[rows], 1)
        np.add.at(marks, last[rows] + 1, -1)
        numbers = np.flatnonzero(np.cumsum(marks) > 0)[:_MOST]
        pages, good = self._pages(numbers)
        begin = np.searchsorted(numbers, first[rows])
        stop = begin + last[rows] - first[rows] + 1
        bad_before = np.concatenate([[0], np.cumsum(~good)])
        known = stop <= len(numbers)
        known[known] = bad_before[stop[known]] == bad_before[begin[known]]
        rows, begin = rows[known], begin[known]
        taken = np.concatenate([[0], np.cumsum(np.unpackbits(pages, bitorder="little"), dtype=np.int32)])
        low = (begin - first[rows]) * (8 * _PAGE) + starts[rows]
        result[rows] = taken[low + counts[rows]] - taken[low]
        return result

    def _pages(self, numbers: Int64s) -> tuple[UInt8s, NDArray[np.bool_]]:
        """Pages one after the other as uint8 (k * _PAGE,), and which of them could be read."""
        pages = np.zeros((len(numbers), _PAGE), np.uint8)
        good = np.ones(len(numbers), np.bool_)
        with self._lock:
            kept = {number: self._kept.get(number) for number in numbers.tolist()}
        missing = [i for i, page in enumerate(kept.values()) if page is None]
        for i, page in enumerate(kept.values()):
            if page is not None:
                pages[i] = page
        if missing:
            offsets = numbers[missing] * _PAGE
            lengths = np.minimum(_PAGE, self._content.size - offsets)
            good[missing] = lengths > 0
            some = lengths > 0
            missing = [i for i, there in zip(missing, some.tolist(), strict=True) if there]
            batch = self._content.read_many(offsets[some], lengths[some])
            for k, i in enumerate(missing):
                if k in batch.errors:
                    good[i] = False
                else:
                    pages[i, : int(batch.lengths[k])] = batch.view(k)
            fresh = {int(numbers[i]): pages[i].copy() for i in missing if good[i]}
            with self._lock:
                if len(self._kept) + len(fresh) > _MOST:
                    self._kept.clear()
                self._kept.update(fresh)
        return pages.reshape(-1), good
