"""Devices for tests: of known content, counting, slow, and faulty."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, Layer
from pseudomount.device.contract import Int64s, UInt8s
from pseudomount.device.ranges import coalesce, cut_even
from pseudomount.errors import PseudomountError, ReadError

__all__ = ["CounterDevice", "FaultDevice", "LatencyDevice", "MemoryDevice", "PatternDevice", "pattern"]

UInt64s = NDArray[np.uint64]


class MemoryDevice(BlockDevice):
    """Bytes in memory."""

    def __init__(self, content: bytes, *, name: str = "memory") -> None:
        self.content = content
        self.name = name

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    def _read(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


def pattern(offset: int, length: int, seed: int = 0) -> bytes:
    """What a `PatternDevice` of this seed holds at `offset`."""
    first = offset & ~7
    words = np.arange(first, offset + length, 8, dtype=np.uint64) ^ np.uint64(seed)
    return words.astype("<u8").tobytes()[offset - first : offset - first + length]


class PatternDevice(BlockDevice):
    """Any number of bytes without memory: each 8 hold their own offset xor `seed`, as a little-endian uint64."""

    def __init__(self, size: int, seed: int = 0, *, name: str = "pattern") -> None:
        self._size = size
        self.seed = seed
        self.name = name

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        return pattern(offset, length, self.seed)


class FaultDevice(Layer):
    """Fails where it is told to, and at random places; always the same ones, however it is asked.

    Random faults befall grains of `grain` bytes, drawn by `seed` and the grain's number alone: reading again, in
    other ranges or in another order, meets the same faults, and faults of a higher rate include those of a lower.

    Args:
        errors: (offset, length) ranges; what touches one is a `ReadError`.
        shorts: (offset, length) ranges; what touches one is answered only up to it. The guard makes that a `ReadError`.
        flips: (offset, length) ranges; in each byte of them the lowest bit is turned over, silently.
        error_rate, short_rate, flip_rate: how many of all grains are so, 0 to 1; in a flipped grain it is one bit.
    """

    def __init__(
        self,
        inner: BlockDevice,
        *,
        seed: int = 0,
        errors: Iterable[tuple[int, int]] = (),
        shorts: Iterable[tuple[int, int]] = (),
        flips: Iterable[tuple[int, int]] = (),
        error_rate: float = 0.0,
        short_rate: float = 0.0,
        flip_rate: float = 0.0,
        grain: int = 512,
        name: str = "",
        owns: bool = False,
    ) -> None:
        super().__init__(inner, name=name, owns=owns)
        self.grain = grain
        self._seed = seed
        self._errors, self._error_rate = _joined(errors), error_rate
        self._shorts, self._short_rate = _joined(shorts), short_rate
        self._flips, self._flip_rate = _joined(flips), flip_rate

    def heal(self) -> None:
        """Ends all faults."""
        self._errors = self._shorts = self._flips = _joined(())
        self._error_rate = self._short_rate = self._flip_rate = 0.0

    def bad(self, offset: int, length: int) -> bool:
        """Whether reading this range fails."""
        one = np.array([[offset], [length]], np.int64)
        return bool((self._first_error(*one) >= 0)[0] | (self._first_short(*one) >= 0)[0])

    def _first_error(self, offsets: Int64s, lengths: Int64s) -> Int64s:
        return self._first(offsets, lengths, self._errors, self._error_rate, 1)

    def _first_short(self, offsets: Int64s, lengths: Int64s) -> Int64s:
        return self._first(offsets, lengths, self._shorts, self._short_rate, 2)

    def _first(self, offsets: Int64s, lengths: Int64s, where: tuple[Int64s, Int64s], rate: float, salt: int) -> Int64s:
        """int64 (n,): the first faulty byte of each range, -1 where there is none."""
        found = np.full(len(offsets), -1, np.int64)
        starts, ends = where
        if len(starts):
            at = np.searchsorted(ends, offsets, side="right")
            near = np.minimum(at, len(starts) - 1)
            hit = (at < len(starts)) & (starts[near] < offsets + lengths)
            found[hit] = np.maximum(starts[near], offsets)[hit]
        if rate > 0:
            pieces = cut_even(offsets, lengths, self.grain)
            drawn = np.flatnonzero(_chance(pieces.cells, self._seed, salt) < rate)
            rows, first = np.unique(pieces.rows[drawn], return_index=True)
            byte = pieces.offsets[drawn[first]]
            found[rows] = np.where(found[rows] >= 0, np.minimum(found[rows], byte), byte)
        return found

    def _read(self, offset: int, length: int) -> bytes:
        one = np.array([[offset], [length]], np.int64)
        error, short = int(self._first_error(*one)[0]), int(self._first_short(*one)[0])
        if error >= 0 and (short < 0 or error <= short):
            raise self._fault(error)
        if short >= 0:
            return self.inner.read(offset, short - offset)
        data = np.frombuffer(self.inner.read(offset, length), np.uint8).copy()
        self._flip(one[0], one[1], data, np.zeros(1, np.int64))
        return data.tobytes()

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        error, short = self._first_error(offsets, lengths), self._first_short(offsets, lengths)
        faults: dict[int, PseudomountError] = {}
        for row in np.flatnonzero((error >= 0) | (short >= 0)).tolist():
            e, s = int(error[row]), int(short[row])
            offset, length = int(offsets[row]), int(lengths[row])
            faults[row] = self._fault(e) if e >= 0 and (s < 0 or e <= s) else self._short(offset, length, s - offset)
        rows = np.flatnonzero((error < 0) & (short < 0))
        if len(rows):
            failed = self.inner.read_into(offsets[rows], lengths[rows], buffer, positions[rows])
            faults.update((int(rows[i]), fault) for i, fault in failed.items())
            self._flip(offsets[rows], lengths[rows], buffer, positions[rows])
        return faults

    def _flip(self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s) -> None:
        starts, ends = self._flips
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            low, high = np.maximum(offsets, start), np.minimum(offsets + lengths, end)
            for row in np.flatnonzero(low < high).tolist():
                begin = int(positions[row] - offsets[row])
                buffer[begin + int(low[row]) : begin + int(high[row])] ^= 1
        if self._flip_rate > 0:
            pieces = cut_even(offsets, lengths, self.grain)
            drawn = pieces.take(_chance(pieces.cells, self._seed, 3) < self._flip_rate)
            which = _mix(drawn.cells.astype(np.uint64) ^ np.uint64(self._seed + 4))
            byte = drawn.cells * self.grain + (which % np.uint64(self.grain)).astype(np.int64)
            hit = (byte >= drawn.offsets) & (byte < drawn.offsets + drawn.lengths)
            rows = drawn.rows[hit]
            bit = np.left_shift(1, (which[hit] >> np.uint64(61)).astype(np.int64)).astype(np.uint8)
            # Places of ranges do not overlap, so each byte is hit once and a selection may be changed in place.
            buffer[positions[rows] + byte[hit] - offsets[rows]] ^= bit

    def _fault(self, offset: int) -> ReadError:
        return ReadError(f"{self.name}: an injected fault at {offset}", device=self.name, offset=offset)


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[Int64s, Int64s]:
    """(starts, ends), ascending and disjoint."""
    table = np.array(list(ranges), np.int64).reshape(-1, 2)
    joined = coalesce(table[:, 0], table[:, 1])
    return joined.offsets, joined.offsets + joined.lengths


def _chance(grains: Int64s, seed: int, salt: int) -> NDArray[np.float64]:
    """float64 (n,) in [0, 1), by the numbers of grains."""
    key = _mix(np.array([(seed << 8) + salt], np.uint64))
    return _mix(grains.astype(np.uint64) ^ key).astype(np.float64) / 2.0**64


def _mix(values: UInt64s) -> UInt64s:
    """splitmix64's finaliser (Steele, Lea and Flood 2014): each bit of the input moves half of those of the result."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class LatencyDevice(Layer):
    """Takes `seconds` for each request, a batch being one, as storage far away does."""

    def __init__(self, inner: BlockDevice, seconds: float, *, name: str = "", owns: bool = False) -> None:
        super().__init__(inner, name=name, owns=owns)
        self.seconds = seconds

    def _read(self, offset: int, length: int) -> bytes:
        time.sleep(self.seconds)
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        time.sleep(self.seconds)
        return self.inner.read_into(offsets, lengths, buffer, positions)


class CounterDevice(Layer):
    """Counts what is asked of the device below.

    Attributes:
        requests: calls; a batch is one.
        ranges: ranges of all calls.
        bytes: bytes of all ranges.
    """

    def __init__(self, inner: BlockDevice, *, name: str = "", owns: bool = False) -> None:
        super().__init__(inner, name=name, owns=owns)
        self._lock = threading.Lock()
        self.requests = self.ranges = self.bytes = 0

    def reset(self) -> None:
        """Begins at zero again."""
        with self._lock:
            self.requests = self.ranges = self.bytes = 0

    def _count(self, ranges: int, size: int) -> None:
        with self._lock:
            self.requests += 1
            self.ranges += ranges
            self.bytes += size

    def _read(self, offset: int, length: int) -> bytes:
        self._count(1, length)
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        self._count(len(offsets), int(lengths.sum()))
        return self.inner.read_into(offsets, lengths, buffer, positions)
