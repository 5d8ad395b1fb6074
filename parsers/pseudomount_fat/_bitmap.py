"""exFAT's allocation bitmap: one bit a cluster, read as far as it is asked about (exFAT specification, section 7.1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount_fat._content import FileContent

__all__ = ["AllocationBitmap"]

Int64s = NDArray[np.int64]

#: Bytes of the bitmap that one question may read; 8 Mi clusters.
_MOST = 1 << 20


class AllocationBitmap:
    """Which clusters are allocated. Clusters are counted from 0 here, bit 0 of byte 0 is the first."""

    def __init__(self, device: BlockDevice, clusters: int, lengths: Int64s, positions: Int64s) -> None:
        self._clusters = clusters
        size = min(-(-clusters // 8), int(lengths.sum()))
        self._content = FileContent(device, f"{device.name}: allocation bitmap", size, lengths, positions, None)

    def free_in(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        """bool (n,): which runs of clusters have one that is marked free, as far as can be told.

        Reads at most a mebibyte: runs past that, and those whose bits cannot be read, count as allocated.
        """
        first = starts // 8
        length = (starts + counts + 7) // 8 - first
        result = np.zeros(len(starts), np.bool_)
        within = (starts >= 0) & (starts + counts <= self._clusters) & (counts > 0)
        rows = np.flatnonzero(within & (np.cumsum(np.where(within, length, 0)) <= _MOST))
        if not len(rows):
            return result
        first, length = first[rows], length[rows]
        batch = self._content.read_many(first, length)
        taken = np.unpackbits(batch.buffer, bitorder="little")
        before = np.concatenate([[0], np.cumsum(taken)])
        low = batch.positions * 8 + starts[rows] - first * 8
        result[rows] = batch.ok() & (before[low + counts[rows]] - before[low] < counts[rows])
        return result
