"""A device made of runs of another one: the content of a file."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from operator import index

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.device.contract import BlockDevice, ExtentKind, ExtentMap, Int64s, UInt8s, as_ranges
from pseudomount.device.layer import Layer, read_by_fill
from pseudomount.device.ranges import blame, clear, cut
from pseudomount.errors import CorruptionError, PseudomountError, UsageError

__all__ = ["MappedDevice"]

_ZEROS = -1
_DAMAGED = -2


class MappedDevice(Layer):
    """`size` bytes, put together of runs of the inner device; what no run covers is a hole.

    Args:
        inner: where the bytes lie.
        offsets: int64 (m,), where each run begins in this device, bytes; ascending.
        lengths: int64 (m,), bytes. Runs do not overlap; they may reach past `size`.
        positions: int64 (m,), where each run begins in the inner device, bytes; -1 for a hole.
        size: bytes.
        unwritten: bool (m,), runs that are allocated and read as zeros all the same; none by default.
        damaged: bool (m,), runs of which it is not known where they lie; none by default. Their positions mean nothing.
        why: `why(i)` is the error of reading damaged run i; made anew for each. It should say what is wrong with the
            map of the file, and with its offset and structure where that is. Default: a `CorruptionError`.

    A range that touches a damaged run, or one outside the inner device (`CorruptionError`), fails; all other ranges
    are read.

    Raises:
        CorruptionError: runs overlap, are out of order, or have negative offsets or lengths.
        UsageError: `size` is negative or the arrays do not fit each other.
    """

    def __init__(
        self,
        inner: BlockDevice,
        offsets: ArrayLike,
        lengths: ArrayLike,
        positions: ArrayLike,
        size: int,
        name: str = "file",
        *,
        unwritten: NDArray[np.bool_] | None = None,
        damaged: NDArray[np.bool_] | None = None,
        why: Callable[[int], PseudomountError] | None = None,
        owns: bool = False,
    ) -> None:
        super().__init__(inner, name=name, owns=owns)
        size = index(size)
        if not 0 <= size < 1 << 63:
            raise UsageError(f"{name}: no device has {size} bytes")
        self._size = size
        self._inner_size = inner.size
        begins, spans = as_ranges(offsets, lengths)
        _, where = as_ranges(begins, positions)
        holes, zeros, lost = where == _ZEROS, _flags(unwritten, begins, name), _flags(damaged, begins, name)
        self._why = why
        kinds = np.full(len(begins), ExtentKind.DATA, np.uint8)
        kinds[zeros] = ExtentKind.ZERO
        kinds[holes] = ExtentKind.HOLE
        kinds[lost] = ExtentKind.DATA
        where = np.where(holes | zeros, _ZEROS, where)
        self._lay(begins, spans, np.where(lost, _DAMAGED, where), kinds, np.where(lost, np.arange(len(begins)), -1))

    def _lay(self, begins: Int64s, spans: Int64s, where: Int64s, kinds: UInt8s, lost: Int64s) -> None:
        """Makes the runs a table of cells without gaps."""
        bad = (begins < 0) | (spans < 0)
        bad[1:] |= (begins[1:] - np.maximum(begins[:-1], 0) < spans[:-1]) & (spans[:-1] > 0)
        bad[1:] |= begins[1:] < begins[:-1]
        if bool(bad.any()):
            at = int(np.flatnonzero(bad)[0])
            raise CorruptionError(
                f"{self.name}: run {at} of {len(begins)}, {int(spans[at])} bytes at {int(begins[at])}, overlaps or is "
                "out of order",
                device=self.inner.name,
                structure="data runs",
            )
        keep = (spans > 0) & (begins < self._size)
        begins, spans, where, kinds, lost = begins[keep], spans[keep], where[keep], kinds[keep], lost[keep]
        ends = begins + np.minimum(spans, self._size - begins)
        # Between two runs, before the first and after the last: a hole, where there is room for one.
        bounds = np.empty(2 * len(begins) + 1, np.int64)
        bounds[0], bounds[1::2], bounds[2::2] = 0, begins, ends
        cell_where = np.full(len(bounds), _ZEROS, np.int64)
        cell_where[1::2] = where
        cell_kinds = np.full(len(bounds), ExtentKind.HOLE, np.uint8)
        cell_kinds[1::2] = kinds
        cell_lost = np.full(len(bounds), -1, np.int64)
        cell_lost[1::2] = lost
        bounds = np.append(bounds, self._size)
        full = np.append(np.diff(bounds) > 0, True)
        self._starts: Int64s = np.ascontiguousarray(bounds[full])  # the last one is the end
        self._where: Int64s = np.ascontiguousarray(cell_where[full[:-1]])
        self._kinds: UInt8s = cell_kinds[full[:-1]]
        self._lost: Int64s = cell_lost[full[:-1]] if bool((lost >= 0).any()) else np.empty(0, np.int64)
        # Python reads a memoryview's items in a tenth of the time that it takes for an array's.
        self._index = self._starts.data
        self._target = self._where.data

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        cell = bisect_right(self._index, offset) - 1
        if offset + length > self._index[cell + 1]:
            return read_by_fill(self, offset, length)
        start = self._target[cell]
        if start == _ZEROS:
            return bytes(length)
        position = start + offset - self._index[cell]
        if start < 0 or position + length > self._inner_size:
            raise self._unknown(cell, offset)
        return self.inner.read(position, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        pieces = cut(offsets, lengths, self._starts)
        start = self._where[pieces.cells]
        zeros = start == _ZEROS
        inside = pieces.offsets - self._starts[pieces.cells]
        # Not `start + inside + length`: a forged position can be near 2**63.
        astray = ~zeros & ((start < 0) | (start > self._inner_size - inside - pieces.lengths))
        failed: dict[int, PseudomountError] = {
            piece: self._unknown(int(pieces.cells[piece]), int(pieces.offsets[piece]))
            for piece in np.flatnonzero(astray).tolist()
        }
        places = positions[pieces.rows] + pieces.within
        clear(buffer, places[zeros], pieces.lengths[zeros])
        stored = np.flatnonzero(~zeros & ~astray)
        if len(stored):
            answer = self.inner.read_into(
                start[stored] + inside[stored], pieces.lengths[stored], buffer, places[stored]
            )
            failed.update((int(stored[i]), error) for i, error in answer.items())
        errors: dict[int, PseudomountError] = {}
        blame(failed, pieces.rows, errors)
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        first = bisect_right(self._index, offset) - 1
        last = bisect_right(self._index, offset + length - 1) - 1
        bounds = np.clip(self._starts[first : last + 2], offset, offset + length)
        return ExtentMap.merged(bounds[:-1], np.diff(bounds), self._kinds[first : last + 1])

    def _unknown(self, cell: int, offset: int) -> PseudomountError:
        """Why a cell that is neither zeros nor inside the inner device cannot be read."""
        start = int(self._where[cell])
        run = int(self._lost[cell]) if len(self._lost) else -1
        if run >= 0 and self._why is not None:
            return self._why(run)
        if run >= 0:
            what = f"it is not known where the run at {offset} lies in {self.inner.name}"
        else:
            size = self._inner_size
            what = f"the run at {offset} lies at {start}, not inside the {size} bytes of {self.inner.name}"
        return CorruptionError(
            f"{self.name}: {what}",
            device=self.inner.name,
            offset=start if start >= 0 else None,
            structure="data runs",
        )


def _flags(given: NDArray[np.bool_] | None, begins: Int64s, name: str) -> NDArray[np.bool_]:
    flags = np.zeros(begins.shape, np.bool_) if given is None else np.asarray(given, np.bool_)
    if flags.shape != begins.shape:
        raise UsageError(f"{name}: {flags.size} flags for {begins.size} runs")
    return flags
