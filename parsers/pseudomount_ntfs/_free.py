"""Which clusters are free: what a deleted file had may belong to others by now.

Source: [LN] File: $Bitmap, one bit a cluster, set where it is in use.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.findings import Severity
from pseudomount_ntfs._layout import AttributeType, RecordNumber
from pseudomount_ntfs._runs import ZERO, Segments, read_segments, stretches

if TYPE_CHECKING:
    from pseudomount_ntfs._volume import Volume

__all__ = ["FreeClusters"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Runs = tuple[Int64s, Int64s, Int64s, Int64s]

#: Clusters that are looked up at once, and pieces that the runs of one question may fall into.
_STEP, _MOST_PIECES = 1 << 20, 1 << 20


class FreeClusters:
    """$Bitmap, read where it is asked about."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._bitmap: Segments | None = None
        self._lock = threading.Lock()

    def left_of(self, runs: Runs) -> Runs:
        """Runs without the clusters that are in use; where $Bitmap cannot be read all are.

        Args:
            runs: int64 (m,) each, as `Volume.stream_runs` gives them, and so is the answer.
        """
        owner, vcn, count, lcn = runs
        pieces = -(-count // _STEP)
        stored = lcn >= 0
        pieces = np.where(stored, pieces, 1)
        if int(pieces.sum()) > _MOST_PIECES:  # more than a volume of 2^40 clusters: one cluster many times
            keep = ~stored
            return owner[keep], vcn[keep], count[keep], lcn[keep]
        which = np.repeat(np.arange(len(count)), pieces)
        skip = (np.arange(len(which)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _STEP
        owner, vcn = owner[which], vcn[which] + skip
        count = np.where(stored[which], np.minimum(count[which] - skip, _STEP), count[which])
        lcn = np.where(stored[which], lcn[which] + skip, ZERO)
        size = np.where(lcn >= 0, count, 0)
        group = np.cumsum(size) // _STEP
        parts: list[Runs] = [(np.empty(0, np.int64),) * 4]
        found = 0
        for a, b in stretches(group):
            part = self._free_parts((owner[a:b], vcn[a:b], count[a:b], lcn[a:b]))
            found += len(part[0])
            if found > _MOST_PIECES:
                break
            parts.append(part)
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return joined[0], joined[1], joined[2], joined[3]

    def _free_parts(self, runs: Runs) -> Runs:
        owner, vcn, count, lcn = runs
        rows = np.flatnonzero(lcn >= 0)
        if not len(rows):
            return runs
        free, begins = self._bits(lcn[rows], count[rows])
        which = np.repeat(rows, count[rows])
        # A piece begins where a free cluster follows one in use, or another run.
        first = free.copy()
        first[1:] &= ~free[:-1] | (which[1:] != which[:-1])
        last = free.copy()
        last[:-1] &= ~free[1:] | (which[1:] != which[:-1])
        at, end = np.flatnonzero(first), np.flatnonzero(last) + 1
        run = which[at]
        begin = np.zeros(len(count), np.int64)
        begin[rows] = begins
        skip = at - begin[run]
        holes = np.flatnonzero(lcn < 0)
        row = np.concatenate((run, holes))
        starts = np.concatenate((vcn[run] + skip, vcn[holes]))
        sizes = np.concatenate((end - at, count[holes]))
        places = np.concatenate((lcn[run] + skip, lcn[holes]))
        order = np.lexsort((starts, row))
        return owner[row[order]], starts[order], sizes[order], places[order]

    def _bits(self, lcn: Int64s, count: Int64s) -> tuple[Bools, Int64s]:
        """Whether each cluster of some runs is free, one run after the other; and where each run begins in that."""
        volume = self._volume
        bitmap = self._segments()
        begins = np.cumsum(count) - count
        first, last = lcn // 8, (lcn + count + 7) // 8
        inside = last <= bitmap.size
        lengths = np.where(inside, last - first, 0)
        data = np.empty(0, np.uint8)
        rows = np.flatnonzero(inside)
        if len(rows):
            data, errors = read_segments(volume.device, bitmap, first[rows], lengths[rows], "$Bitmap")
            if errors:
                self._note(next(iter(errors.values())))
                inside[rows[list(errors)]] = False
        base = np.cumsum(lengths) - lengths
        bit = np.arange(int(count.sum()), dtype=np.int64) + np.repeat(8 * base + lcn % 8 - begins, count)
        known = np.repeat(inside, count)
        free = np.zeros(len(bit), np.bool_)
        bits = np.unpackbits(data, bitorder="little")
        free[known] = bits[bit[known]] == 0
        return free, begins

    def _segments(self) -> Segments:
        with self._lock:
            if self._bitmap is None:
                nothing = np.zeros(0, np.int64)
                self._bitmap = Segments.of(nothing, nothing, nothing, 0)
                batch = self._volume.load(np.array([RecordNumber.BITMAP], np.uint64))
                pick = batch.pick(AttributeType.DATA)
                error = batch.errors.get(0) or batch.damage.get(0)
                if error is not None:
                    self._note(error)
                elif pick[0] >= 0 and not batch.attributes.resident[pick[0]]:
                    self._bitmap = self._volume.streams(batch, pick, initialized=True)[0]
            return self._bitmap

    def _note(self, error: PseudomountError) -> None:
        self._volume.findings.add_error(error, file=RecordNumber.BITMAP, severity=Severity.DEGRADED)
