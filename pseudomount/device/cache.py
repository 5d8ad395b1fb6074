"""A bounded cache of blocks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np

from pseudomount.device.contract import BlockDevice, Int64s, UInt8s
from pseudomount.device.layer import Layer, read_by_fill
from pseudomount.device.ranges import coalesce, cut_even
from pseudomount.errors import PseudomountError, UsageError

__all__ = ["CacheDevice"]


class CacheDevice(Layer):
    """Keeps the blocks of the inner device that were used last, `capacity` bytes of them at any moment.

    - A range that lies wholly in the cache costs no read of the inner device.
    - The blocks that a batch misses are fetched together, as one batch of joined ranges.
    - A batch that misses more than half of the capacity goes past the cache: its ranges, and not the blocks around
      them, are read, and what is cached stays. So one big scan neither fills memory nor drives out the metadata.
    - Where a block cannot be read, the ranges asked for are read on their own: what fails is what fails without a
      cache. Failures are not kept.

    Threads that miss the same block at once each fetch it.

    Args:
        capacity: bytes; less than a block caches nothing.
        block: bytes.
    """

    def __init__(
        self,
        inner: BlockDevice,
        capacity: int = 64 << 20,
        block: int = 64 << 10,
        *,
        name: str = "",
        owns: bool = False,
    ) -> None:
        super().__init__(inner, name=name, owns=owns)
        if block < 1 or capacity < 0:
            raise UsageError(f"{self.name}: no cache of {capacity} bytes in blocks of {block}")
        self.capacity = capacity
        self.block = block
        self._size = inner.size
        self._most = min(max(capacity // 2, block), capacity, inner.batch_budget)  # bytes that one batch may bring in
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._used = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def used(self) -> int:
        """Bytes cached now; never more than `capacity`."""
        return self._used

    def clear(self) -> None:
        """Forgets all blocks."""
        with self._lock:
            self._blocks.clear()
            self._used = 0

    def _read(self, offset: int, length: int) -> bytes:
        block = self.block
        number = offset // block
        skip = offset - number * block
        if skip + length > block:
            return read_by_fill(self, offset, length)
        with self._lock:
            data = self._blocks.get(number)
            if data is not None:
                self._blocks.move_to_end(number)
        if data is None:
            data = self._load(number)
            if data is None:
                return self.inner.read(offset, length)
        return data[skip : skip + length]

    def _load(self, number: int) -> bytes | None:
        """A block that was missed, now cached; None where it cannot be read or would not fit."""
        start = number * self.block
        length = min(self.block, self._size - start)
        if length > self._most:
            return None
        try:
            data = self.inner.read(start, length)
        except PseudomountError:
            return None
        self._keep([(number, data)])
        return data

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        pieces = cut_even(offsets, lengths, self.block)
        numbers, which = np.unique(pieces.cells, return_inverse=True)
        held = self._held(numbers)
        missing = np.array([data is None for data in held], np.bool_)
        if bool(missing.any()) and int(np.count_nonzero(missing)) * self.block <= self._most:
            lost = np.flatnonzero(missing)
            for i, data in zip(lost.tolist(), self._fetch(numbers[lost]), strict=True):
                held[i] = data
                missing[i] = data is None
        lacking = np.zeros(len(offsets), np.bool_)
        lacking[pieces.rows[missing[which]]] = True
        whole = ~lacking[pieces.rows]
        places = (positions[pieces.rows] + pieces.within)[whole].tolist()
        skips = (pieces.offsets - pieces.cells * self.block)[whole].tolist()
        view = buffer.data
        # Once a piece: blocks are objects of their own, so that evicting one frees its memory.
        for i, place, skip, length in zip(
            which[whole].tolist(), places, skips, pieces.lengths[whole].tolist(), strict=True
        ):
            data = held[i]
            assert data is not None
            view[place : place + length] = data[skip : skip + length]
        rows = np.flatnonzero(lacking)
        if not len(rows):
            return {}
        failed = self.inner.read_into(offsets[rows], lengths[rows], buffer, positions[rows])
        return {int(rows[i]): error for i, error in failed.items()}

    def _held(self, numbers: Int64s) -> list[bytes | None]:
        """The cached ones among these blocks, which thereby count as used."""
        held: list[bytes | None] = []
        with self._lock:
            for number in numbers.tolist():
                data = self._blocks.get(number)
                if data is not None:
                    self._blocks.move_to_end(number)
                held.append(data)
        return held

    def _fetch(self, numbers: Int64s) -> list[bytes | None]:
        """Blocks that were missed, ascending, now cached; None for those that could not be read."""
        starts = numbers * self.block
        lengths = np.minimum(self.block, self._size - starts)
        buffer = np.empty(int(lengths.sum()), np.uint8)
        places = np.cumsum(lengths) - lengths
        joined = coalesce(starts, lengths)
        heads = np.cumsum(joined.lengths) - joined.lengths  # the blocks are ascending, so they lie as their places say
        failed = self.inner.read_into(joined.offsets, joined.lengths, buffer, heads)
        bad: dict[int, PseudomountError] = {}
        if failed:  # one bad block must not cost the whole run that it was joined into
            again = np.flatnonzero(np.isin(joined.group, list(failed)))
            answer = self.inner.read_into(starts[again], lengths[again], buffer, places[again])
            bad = {int(again[i]): error for i, error in answer.items()}
        fetched: list[bytes | None] = []
        for i, (place, length) in enumerate(zip(places.tolist(), lengths.tolist(), strict=True)):
            # A copy: a view would keep the whole buffer alive, and the capacity would mean nothing.
            fetched.append(None if i in bad else buffer[place : place + length].tobytes())
        self._keep((number, data) for number, data in zip(numbers.tolist(), fetched, strict=True) if data is not None)
        return fetched

    def _keep(self, blocks: Iterable[tuple[int, bytes]]) -> None:
        with self._lock:
            if self._closed:
                return
            for number, data in blocks:
                if number in self._blocks:  # another thread was faster
                    self._blocks.move_to_end(number)
                    continue
                while self._blocks and self._used + len(data) > self.capacity:
                    self._used -= len(self._blocks.popitem(last=False)[1])
                self._blocks[number] = data
                self._used += len(data)

    def _close(self) -> None:
        self.clear()
        super()._close()
