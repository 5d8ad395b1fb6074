"""Copy-on-write in memory: a device that can be changed without changing what lies below."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from operator import index

import numpy as np
from numpy.typing import NDArray

from pseudomount.device.contract import BlockDevice, ExtentKind, ExtentMap, Int64s, UInt8s
from pseudomount.device.layer import Layer, read_by_fill
from pseudomount.device.ranges import blame, cut, cut_even
from pseudomount.errors import ClosedError, PseudomountError, UsageError

__all__ = ["OverlayDevice"]


class OverlayDevice(Layer):
    """The inner device with what was written over it; the inner one is only ever read.

    Memory grows by `block` bytes for each block that a write touches. Readers see each block of a write change at
    once. What lies below a block that was written is no longer read, so writing over a damaged place mends it.

    Args:
        block: bytes, the unit of copying; the block size of what will be written saves reading the rest of blocks.
    """

    def __init__(self, inner: BlockDevice, block: int = 4096, *, name: str = "", owns: bool = False) -> None:
        super().__init__(inner, name=name, owns=owns)
        if block < 1:
            raise UsageError(f"{self.name}: no overlay in blocks of {block} bytes")
        self.block = block
        self._size = inner.size
        self._lock = threading.Lock()
        self._blocks: dict[int, bytes] = {}  # blocks are replaced, never changed and never removed
        self._table: tuple[Int64s, NDArray[np.bool_]] | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Lays `data` over the bytes at `offset`.

        Raises:
            OutOfRangeError: the range is not inside the device.
            PseudomountError: the rest of a block that is written in part could not be read; nothing was written.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        offset, new = index(offset), bytes(data)
        end = offset + len(new)
        if offset < 0 or end > self._size:
            raise self._outside(offset, len(new))
        if not new:
            return
        block = self.block
        first, last = offset // block, (end - 1) // block
        begin, stop = first * block, min((last + 1) * block, self._size)
        with self._lock:
            head = self._whole(first) if begin < offset or (first == last and end < stop) else b""
            tail = head if first == last else self._whole(last) if end < stop else b""
            new = head[: offset - begin] + new + tail[len(tail) - (stop - end) :]
            for number in range(first, last + 1):
                at = number * block - begin
                self._blocks[number] = new[at : at + block]
            self._table = None

    def _whole(self, number: int) -> bytes:
        """A block as it is now."""
        data = self._blocks.get(number)
        if data is None:
            start = number * self.block
            data = self.inner.read(start, min(self.block, self._size - start))
        return data

    def _cells(self) -> tuple[Int64s, NDArray[np.bool_]]:
        """The device cut where what was written begins and ends: (starts, whether it was written)."""
        with self._lock:
            if self._table is None:
                numbers = np.array(sorted(self._blocks), np.int64)
                jumps = np.flatnonzero(np.diff(numbers) != 1) + 1
                heads = numbers[np.concatenate(([0], jumps))] if len(numbers) else numbers
                tails = numbers[np.concatenate((jumps - 1, [-1]))] + 1 if len(numbers) else numbers
                starts = np.zeros(2 * len(heads) + 1, np.int64)
                starts[1::2], starts[2::2] = heads * self.block, tails * self.block
                written = np.zeros(len(starts), np.bool_)
                written[1::2] = True
                self._table = starts, written
            return self._table

    def _read(self, offset: int, length: int) -> bytes:
        if not self._blocks:
            return self.inner.read(offset, length)
        number = offset // self.block
        skip = offset - number * self.block
        if skip + length > self.block:
            return read_by_fill(self, offset, length)
        data = self._blocks.get(number)
        return self.inner.read(offset, length) if data is None else data[skip : skip + length]

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        if not self._blocks:
            return self.inner.read_into(offsets, lengths, buffer, positions)
        starts, written = self._cells()
        pieces = cut(offsets, lengths, starts)
        places = positions[pieces.rows] + pieces.within
        over = written[pieces.cells]
        self._copy(pieces.offsets[over], pieces.lengths[over], buffer, places[over])
        below = np.flatnonzero(~over)
        errors: dict[int, PseudomountError] = {}
        if len(below):
            failed = self.inner.read_into(pieces.offsets[below], pieces.lengths[below], buffer, places[below])
            blame(failed, pieces.rows[below], errors)
        return errors

    def _copy(self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, places: Int64s) -> None:
        """Copies ranges that were wholly written."""
        pieces = cut_even(offsets, lengths, self.block)
        view = buffer.data
        # Once a block: each is an object of its own.
        for number, place, skip, length in zip(
            pieces.cells.tolist(),
            (places[pieces.rows] + pieces.within).tolist(),
            (pieces.offsets - pieces.cells * self.block).tolist(),
            pieces.lengths.tolist(),
            strict=True,
        ):
            view[place : place + length] = self._blocks[number][skip : skip + length]

    def _extents(self, offset: int, length: int) -> ExtentMap:
        below = self.inner.extents(offset, length)
        if not self._blocks:
            return below
        starts, written = self._cells()
        inside = starts[(starts > offset) & (starts < offset + length)]
        points = np.unique(np.concatenate((below.offsets, inside)))
        kinds = below.kinds[np.searchsorted(below.offsets, points, side="right") - 1]
        over = written[np.searchsorted(starts, points, side="right") - 1]
        lengths = np.diff(np.append(points, offset + length))
        return ExtentMap.merged(points, lengths, np.where(over, np.uint8(ExtentKind.DATA), kinds))

    def _close(self) -> None:
        with self._lock:
            self._blocks = {}
            self._table = None
        super()._close()
