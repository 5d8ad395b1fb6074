"""The BlockDevice contract: positional, read-only, thread-safe, and asked in batches.

A device implements `size` and `_read`; one that can answer many ranges better than one by one overrides `_fill`.
The public methods are the guard: they check the arguments and the answers, for every device and every layer, so that
no layer checks again. A range of a batch that fails costs that range and no other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from operator import index
from types import MappingProxyType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import (
    BatchTooLargeError,
    ClosedError,
    DamageError,
    OutOfRangeError,
    PseudomountError,
    ReadError,
    UsageError,
)

__all__ = [
    "BATCH_BUDGET",
    "BlockDevice",
    "ExtentKind",
    "ExtentMap",
    "Int64s",
    "ReadBatch",
    "Streamed",
    "UInt8s",
    "stream_many",
]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

#: Bytes that one `read_many` may ask for, unless the device was made with another budget.
BATCH_BUDGET = 256 << 20

_NO_ERRORS: Mapping[int, PseudomountError] = MappingProxyType({})


class ExtentKind(IntEnum):
    """What is known of a run of bytes without reading it. What is unknown is DATA."""

    DATA = 0
    ZERO = 1  # stored as zeros: known to read as zeros
    HOLE = 2  # not stored at all: reads as zeros


@dataclass(frozen=True, slots=True)
class ExtentMap:
    """Runs that cover a range without gaps, ascending, neighbours of differing kind.

    Attributes:
        offsets: int64 (n,), bytes from the start of the device.
        lengths: int64 (n,), bytes, all positive.
        kinds: uint8 (n,), values of `ExtentKind`.
    """

    offsets: Int64s
    lengths: Int64s
    kinds: UInt8s

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int, ExtentKind]]:
        for offset, length, kind in zip(self.offsets.tolist(), self.lengths.tolist(), self.kinds.tolist(), strict=True):
            yield offset, length, ExtentKind(kind)

    @classmethod
    def single(cls, offset: int, length: int, kind: ExtentKind = ExtentKind.DATA) -> ExtentMap:
        """One run; none where `length` is 0."""
        n = 1 if length else 0
        return cls(np.full(n, offset, np.int64), np.full(n, length, np.int64), np.full(n, kind, np.uint8))

    @classmethod
    def merged(cls, offsets: Int64s, lengths: Int64s, kinds: UInt8s) -> ExtentMap:
        """Adjacent runs in ascending order, with empty ones dropped and equal neighbours joined."""
        keep = lengths > 0
        offsets, lengths, kinds = offsets[keep], lengths[keep], kinds[keep]
        if len(offsets) < 2:
            return cls(offsets, lengths, kinds)
        first = np.flatnonzero(np.concatenate(([True], kinds[1:] != kinds[:-1])))
        return cls(offsets[first], np.add.reduceat(lengths, first), kinds[first])


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """The answer of `read_many`.

    Attributes:
        buffer: uint8 (total,), the bytes of all ranges, one after the other in the order they were asked for.
        positions: int64 (n,), where range i begins in `buffer`.
        lengths: int64 (n,), bytes, as asked for.
        errors: range number → why it failed. The bytes of a failed range are zeros and mean nothing.
    """

    buffer: UInt8s
    positions: Int64s
    lengths: Int64s
    errors: Mapping[int, PseudomountError]

    def __len__(self) -> int:
        return len(self.lengths)

    def view(self, i: int) -> UInt8s:
        """The bytes of range i, without a copy; raises the range's error if it has one."""
        if self.errors and i in self.errors:
            raise self.errors[i]
        position = int(self.positions[i])
        return self.buffer[position : position + int(self.lengths[i])]

    def ok(self) -> NDArray[np.bool_]:
        """bool (n,): which ranges were read."""
        good = np.ones(len(self.lengths), np.bool_)
        if self.errors:
            good[list(self.errors)] = False
        return good

    def raise_first(self) -> None:
        """Raises the first error, for callers to whom all ranges matter."""
        if self.errors:
            raise self.errors[min(self.errors)]


class BlockDevice(ABC):
    """Read-only bytes, addressed by position. Safe to share between threads; has no seek pointer.

    Attributes:
        name: what messages call it.
        sector_size: bytes, the logical sector; reads need not keep to it.
        batch_budget: bytes that one `read_many` may ask for.
    """

    name: str = "device"
    sector_size: int = 512
    batch_budget: int = BATCH_BUDGET
    _closed: bool = False

    # -- what a device implements --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes; constant for the life of the device."""

    @abstractmethod
    def _read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`; the range is inside the device and not empty.

        Raises a PseudomountError where they cannot be had. A short answer is an error, and the guard makes it one.
        """

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        """Writes range i to `buffer[positions[i]:]`, and returns the errors of those that failed.

        Ranges are inside the device, not empty, in any order, and may overlap; where they are written does not.
        A device that has to fetch overrides this, to coalesce and to fetch in parallel.
        """
        errors: dict[int, PseudomountError] = {}
        for i, (offset, length, position) in enumerate(
            zip(offsets.tolist(), lengths.tolist(), positions.tolist(), strict=True)
        ):
            try:
                data = self._read(offset, length)
                if len(data) != length:
                    raise self._short(offset, length, len(data))
                buffer[position : position + length] = np.frombuffer(data, np.uint8)
            except PseudomountError as error:
                errors[i] = error
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        """What is known of a range (inside the device, not empty) without reading it."""
        return ExtentMap.single(offset, length)

    def _close(self) -> None:  # noqa: B027  (optional to implement)
        """Frees what the device holds; called once."""

    # -- the guard -----------------------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`.

        Raises:
            OutOfRangeError: the range is not inside the device.
            PseudomountError: the bytes could not be had; `ReadError` and its kin say where.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        offset, length = index(offset), index(length)  # numpy's integers wrap around, Python's do not
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._outside(offset, length)
        if not length:
            return b""
        data = self._read(offset, length)
        if len(data) != length:
            raise self._short(offset, length, len(data))
        return data

    def read_many(self, offsets: ArrayLike, lengths: ArrayLike) -> ReadBatch:
        """The bytes of many ranges, in one buffer.

        Args:
            offsets: int64 (n,), bytes; any order, overlaps allowed.
            lengths: int64 (n,) or a scalar for all of them, bytes.

        A range that is outside the device or could not be read has its error in the answer; the others are there.

        Raises:
            BatchTooLargeError: the ranges sum up to more than `batch_budget`; see `stream_many`.
            UsageError: the arrays do not fit each other.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        offs, lens = as_ranges(offsets, lengths)
        outside = _outside_of(self.size, offs, lens)
        asked = np.where(outside, 0, lens) if bool(outside.any()) else lens
        ends = np.cumsum(asked)
        positions = ends - asked
        buffer = np.empty(self._affordable(asked), np.uint8)
        errors = self._guarded(offs, lens, outside, buffer, positions)
        for i in errors:
            buffer[positions[i] : ends[i]] = 0
        return ReadBatch(buffer, positions, asked, errors or _NO_ERRORS)

    def read_into(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        """`read_many` as layers ask it of the device below: into the buffer of whoever asked them, without a copy.

        Args:
            offsets, lengths: int64 (n,), bytes; any order, overlaps allowed.
            buffer: uint8, range i is written to `buffer[positions[i]:]`. The places of ranges do not overlap.
            positions: int64 (n,).

        Returns the errors of the ranges that failed; what `buffer` then holds in their places means nothing.

        Raises:
            BatchTooLargeError: the ranges sum up to more than `batch_budget`.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        outside = _outside_of(self.size, offsets, lengths)
        self._affordable(np.where(outside, 0, lengths) if bool(outside.any()) else lengths)
        return self._guarded(offsets, lengths, outside, buffer, positions)

    def _affordable(self, lengths: Int64s) -> int:
        """The sum of lengths that are inside the device, if the budget allows it."""
        total = _total(lengths)
        if total > self.batch_budget:
            raise BatchTooLargeError(f"{self.name}: a batch of {total} bytes is over the budget of {self.batch_budget}")
        return total

    def _guarded(
        self, offsets: Int64s, lengths: Int64s, outside: NDArray[np.bool_], buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        """`_fill` with the ranges that it may have; the others get their errors here."""
        wanted = ~outside & (lengths > 0)
        if bool(wanted.all()):
            return self._filled(offsets, lengths, buffer, positions) if len(offsets) else _NO_ERRORS
        errors: dict[int, PseudomountError] = {}
        rows = np.flatnonzero(wanted)
        if len(rows):
            failed = self._filled(offsets[rows], lengths[rows], buffer, positions[rows])
            errors.update((int(rows[i]), error) for i, error in failed.items())
        for i in np.flatnonzero(outside).tolist():
            errors[i] = self._outside(int(offsets[i]), int(lengths[i]))
        return errors

    def _filled(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        try:
            return self._fill(offsets, lengths, buffer, positions)
        except UsageError:
            raise
        except PseudomountError as error:  # what fails them all is the error of each: no batch fails as a whole
            return dict.fromkeys(range(len(offsets)), error)

    def extents(self, offset: int = 0, length: int | None = None) -> ExtentMap:
        """Which parts of a range (to the end, without `length`) are data, zeros or holes, without reading them.

        Raises:
            OutOfRangeError: the range is not inside the device.
        """
        if self._closed:
            raise ClosedError(f"{self.name} is closed")
        offset = index(offset)
        length = max(self.size - offset, 0) if length is None else index(length)
        if offset < 0 or length < 0 or offset + length > self.size:
            raise self._outside(offset, length)
        return self._extents(offset, length) if length else ExtentMap.single(offset, 0)

    def close(self) -> None:
        """Frees what the device holds. Closing twice does nothing; reading afterwards raises ClosedError."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.size} bytes>"

    def _outside(self, offset: int, length: int) -> OutOfRangeError:
        return OutOfRangeError(f"{self.name}: {length} bytes at {offset} are not inside its {self.size} bytes")

    def _short(self, offset: int, length: int, got: int) -> DamageError:
        return ReadError(f"{self.name}: {got} of {length} bytes at {offset}", device=self.name, offset=offset)


def as_ranges(offsets: ArrayLike, lengths: ArrayLike) -> tuple[Int64s, Int64s]:
    """Both as int64 (n,); a scalar length serves all offsets.

    A uint64 of 2**63 or more becomes the largest int64: no device reaches that far, so it is the error of its range
    and not of the batch.

    Raises:
        UsageError: they are not one-dimensional, of one length, and of whole numbers.
    """
    offs, lens = np.asarray(offsets), np.asarray(lengths)
    if offs.ndim != 1 or lens.ndim > 1 or (lens.ndim == 1 and len(lens) != len(offs)):
        raise UsageError(f"ranges of shapes {offs.shape} and {lens.shape} do not fit")
    return _int64(offs), (np.full(len(offs), _int64(lens), np.int64) if lens.ndim == 0 else _int64(lens))


def _int64(values: NDArray[np.generic]) -> Int64s:
    if values.dtype == np.int64:
        return values  # type: ignore[return-value]
    if values.size == 0:
        return np.zeros(values.shape, np.int64)
    if values.dtype.kind not in "iu":
        raise UsageError(f"offsets and lengths are whole numbers, not {values.dtype}")
    if values.dtype.kind == "u" and values.dtype.itemsize == 8:
        values = np.minimum(values, np.uint64((1 << 63) - 1))
    return values.astype(np.int64)


def _outside_of(size: int, offsets: Int64s, lengths: Int64s) -> NDArray[np.bool_]:
    """bool (n,): which ranges are not inside a device of `size` bytes; no sum here can wrap around."""
    return (offsets < 0) | (lengths < 0) | (lengths > size) | (offsets > size - np.clip(lengths, 0, size))


def _total(lengths: Int64s) -> int:
    # A sum of hostile lengths can wrap around in int64; each is at most the device's size, so a float bounds it.
    if float(lengths.sum(dtype=np.float64)) > 2.0**62:
        return 1 << 62
    return int(lengths.sum())


@dataclass(frozen=True, slots=True)
class Streamed:
    """One step of `stream_many`: piece j of `batch` is bytes `within[j]…` of range `ranges[j]`.

    Attributes:
        ranges: int64 (m,), numbers of the ranges asked for, ascending.
        within: int64 (m,), where in that range the piece begins, bytes.
        batch: the pieces.
    """

    ranges: Int64s
    within: Int64s
    batch: ReadBatch


def stream_many(
    device: BlockDevice, offsets: ArrayLike, lengths: ArrayLike, budget: int = 64 << 20
) -> Iterator[Streamed]:
    """Reads any number of bytes in batches of at most `budget`, in the order given; long ranges are cut.

    Sort the ranges by offset first where the order does not matter: neighbours then coalesce. A range that is outside
    the device is one piece with its error.

    Raises:
        BatchTooLargeError: the ranges sum up to more than 2**62 bytes.
        UsageError: the arrays do not fit each other.
    """
    offs, lens = as_ranges(offsets, lengths)
    budget = max(1, min(budget, device.batch_budget))
    # What is outside fails whatever its length, so it counts nothing: a forged length must not become endless steps.
    counted = np.where(_outside_of(device.size, offs, lens), 0, lens)
    total = _total(counted)
    if total >= 1 << 62:
        raise BatchTooLargeError(f"{device.name}: no stream of {total} bytes or more comes to an end")
    ends = np.cumsum(counted)
    starts = ends - counted
    first, done = 0, 0
    while first < len(offs):
        stop = min(done + budget, total)
        # The step ends before range `after`: that is the one behind byte stop - 1, and behind empty ones at the cut.
        whole = int(np.searchsorted(ends, stop, side="right"))
        after = whole + 1 if whole < len(offs) and int(starts[whole]) < stop else whole
        rows = np.arange(first, after, dtype=np.int64)
        within = np.maximum(done - starts[rows], 0)
        until = np.minimum(ends[rows], stop) - starts[rows]
        pieces = np.where(counted[rows] > 0, until - within, lens[rows])
        yield Streamed(rows, within, device.read_many(offs[rows] + within, pieces))
        first, done = whole, stop
