"""An extent index in memory: sorted numpy columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import CorruptionError, UsageError
from pseudomount.extents._pieces import check_ranges
from pseudomount.extents.contract import RAW, Codec, ExtentIndex, Kind, Resolved

__all__ = ["ColumnIndex"]

Int64s = NDArray[np.int64]
Integers = NDArray[np.integer]
Optional = Integers | None

#: Rows looked at together while checking: bounds the temporaries, whatever the number of extents.
_BLOCK = 1 << 20
_LIMIT = (1 << 63) - 1
#: No object is this large; sums of positions in objects then stay within int64.
_OBJECT_LIMIT = 1 << 62


class ColumnIndex(ExtentIndex):
    """Extents as sorted columns of n rows. What no extent covers is a hole.

    A column may have any integer type; one that follows from the others may be None, which saves its memory.
    The arrays are not copied: they must not change any more.

    Args:
        size: bytes of the disk.
        offset: (n,), bytes from the start of the disk, ascending.
        length: (n,), bytes of the disk, positive.
        object_offset: (n,), bytes from the start of the object; None: zero.
        objects: names of the objects; any sequence, so a long one may be computed.
        number: (n,), the extent's position in `objects`; None: 0.
        kind: (n,), values of `Kind`; None: all DATA. Where it is not DATA the columns about storage mean nothing.
        stored_length: (n,), bytes to fetch; None: the length. Of a raw extent it is the length.
        codec: (n,), position in `codecs`; None: all raw.
        skip: (n,), where the extent begins within what is stored there, once decoded; None: 0.
        decoded_length: (n,), bytes of the whole once decoded; None: the length.
        identity: uint8 (n, 32), checksum or identity of the decoded extent; a row of zeros, or None: none.
        codecs: the first is `RAW`, no other is.

    Raises:
        CorruptionError: extents overlap, are out of order, or reach out of the disk, the objects or the codecs.
        UsageError: the columns do not fit each other.
    """

    def __init__(
        self,
        size: int,
        offset: NDArray[np.generic],
        length: NDArray[np.generic],
        object_offset: NDArray[np.generic] | None = None,
        *,
        objects: Sequence[str],
        number: NDArray[np.generic] | None = None,
        kind: NDArray[np.generic] | None = None,
        stored_length: NDArray[np.generic] | None = None,
        codec: NDArray[np.generic] | None = None,
        skip: NDArray[np.generic] | None = None,
        decoded_length: NDArray[np.generic] | None = None,
        identity: NDArray[np.uint8] | None = None,
        codecs: Sequence[Codec] = (RAW,),
    ) -> None:
        if not 0 <= size <= _LIMIT:
            raise CorruptionError(f"a disk of {size} bytes", structure="extent index")
        if not codecs or codecs[0] != RAW or any(codec.name == RAW.name for codec in codecs[1:]):
            raise UsageError("the first codec of an extent index is RAW, and no other is")
        n = len(offset)
        self._size = int(size)
        self._objects = objects
        self._codecs = tuple(codecs)
        self._offset: Int64s = _column("offset", offset, n).astype(np.int64, copy=False)
        self._length = _column("length", length, n)
        self._object_offset = _maybe("object_offset", object_offset, n)
        self._number = _maybe("number", number, n)
        self._kind = _maybe("kind", kind, n)
        self._stored_length = _maybe("stored_length", stored_length, n)
        self._codec = _maybe("codec", codec, n)
        self._skip = _maybe("skip", skip, n)
        self._decoded_length = _maybe("decoded_length", decoded_length, n)
        if identity is not None and (identity.shape != (n, 32) or identity.dtype != np.uint8):
            raise UsageError(f"column identity is {identity.dtype} {identity.shape}, not uint8 ({n}, 32)")
        self._identity = identity
        self._check()

    # -- builders ------------------------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        size: int,
        offset: ArrayLike,
        length: ArrayLike,
        object_offset: ArrayLike | None = None,
        *,
        objects: Sequence[str],
        number: ArrayLike | None = None,
        kind: ArrayLike | None = None,
        stored_length: ArrayLike | None = None,
        codec: ArrayLike | None = None,
        skip: ArrayLike | None = None,
        decoded_length: ArrayLike | None = None,
        identity: NDArray[np.uint8] | None = None,
        codecs: Sequence[Codec] = (RAW,),
    ) -> ColumnIndex:
        """From extents in any order; arguments and errors as the constructor's.

        A scalar stands for a column of it. Empty extents are dropped, columns stored in the narrowest type, and not
        at all where they follow from the others.
        """
        offs = np.atleast_1d(np.asarray(offset))
        n = len(offs)
        order: NDArray[np.bool_] | Int64s | None = None
        lens = _spread("length", length, n)
        if n and not bool((lens > 0).all()):
            if bool((lens < 0).any()):
                raise CorruptionError("an extent of negative length", structure="extent")
            order = np.flatnonzero(lens > 0)
        if n > 1 and bool((offs[1:] < offs[:-1]).any()):
            order = np.argsort(offs) if order is None else order[np.argsort(offs[order])]

        def column(name: str, values: ArrayLike | None) -> Optional:
            if values is None:
                return None
            if np.ndim(values) == 0 and int(values) == 0:  # type: ignore[arg-type]
                return None
            array = _spread(name, values, n)
            return _narrow(array if order is None else array[order])

        lens = _narrow(lens if order is None else lens[order])
        stored, decoded, skips = (
            column("stored_length", stored_length),
            column("decoded_length", decoded_length),
            column("skip", skip),
        )
        columns = {
            "object_offset": column("object_offset", object_offset),
            "number": column("number", number),
            "kind": column("kind", kind),
            "codec": column("codec", codec),
            "skip": skips,
        }
        return cls(
            size,
            offs if order is None else offs[order],
            lens,
            objects=objects,
            stored_length=None if stored is None or np.array_equal(stored, lens) else stored,
            decoded_length=None if decoded is None or np.array_equal(decoded, lens) else decoded,
            identity=identity if identity is None or order is None else identity[order],
            codecs=codecs,
            **{name: None if values is None or not values.any() else values for name, values in columns.items()},
        )

    @classmethod
    def single(cls, name: str, size: int) -> ColumnIndex:
        """A disk that is one object, byte by byte."""
        return cls.concat([(name, size)])

    @classmethod
    def concat(cls, pieces: Sequence[tuple[str, int]]) -> ColumnIndex:
        """A disk that is (object, bytes) after (object, bytes)."""
        lengths = np.array([length for _, length in pieces], np.int64)
        ends = np.cumsum(lengths)
        size = int(ends[-1]) if len(ends) else 0
        if sum(length for _, length in pieces) != size or bool((lengths < 0).any()):
            raise CorruptionError("the pieces of the disk sum up to more than 2**63 bytes", structure="extent index")
        return cls.from_arrays(
            size,
            ends - lengths,
            lengths,
            objects=[name for name, _ in pieces],
            number=np.arange(len(pieces), dtype=np.int64),
        )

    # -- the contract --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._size

    @property
    def codecs(self) -> Sequence[Codec]:
        """The codecs that the codec column counts in."""
        return self._codecs

    @property
    def objects(self) -> Sequence[str]:
        """Names of the objects."""
        return self._objects

    def __len__(self) -> int:
        """Number of extents."""
        return len(self._offset)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns take."""
        columns = (getattr(self, name) for name in vars(self))
        return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))

    def object_names(self, numbers: NDArray[np.int64]) -> list[str]:
        """Names of objects, as `fetch` takes them."""
        return [self._objects[number] for number in numbers.tolist()]

    def rows(self, first: int, last: int) -> Resolved:
        """Extents `first` to `last` (excluded) as pieces of range 0, uncut."""
        rows = np.arange(first, min(last, len(self)), dtype=np.int64)
        return self._cut(np.zeros(len(rows), np.int64), self._offset[rows], self._lengths(rows), rows)

    def resolve(self, offsets: ArrayLike, lengths: ArrayLike) -> Resolved:
        """The pieces of many ranges; see `ExtentIndex.resolve`."""
        offs, lens = check_ranges(offsets, lengths, self._size)
        ends = offs + lens
        first, count = self._touched(offs, ends)
        until = np.cumsum(count)
        total = int(until[-1]) if len(until) else 0
        ranges = np.repeat(np.arange(len(offs), dtype=np.int64), count)
        rows = np.arange(total, dtype=np.int64) + np.repeat(first - (until - count), count)
        begin = self._offset[rows]
        end = begin + self._lengths(rows)
        np.maximum(begin, offs[ranges], out=begin)
        np.minimum(end, ends[ranges], out=end)
        # Each extent's predecessor within its range ends where a gap would begin, and after the last may be one more.
        gap = np.empty(total, np.int64)
        gap[1:] = end[:-1]
        some = count > 0
        gap[(until - count)[some]] = offs[some]
        tail = offs.copy()
        tail[some] = end[until[some] - 1]
        if np.array_equal(gap, begin) and np.array_equal(tail, ends) and bool((end > begin).all()):
            return self._cut(ranges, begin, end - begin, rows)
        # Slots: gap, extent, gap, extent …, tail of the first range, then of the second. The empty ones go.
        slots = 2 * total + len(offs)
        slot_begin, slot_length = np.empty(slots, np.int64), np.empty(slots, np.int64)
        slot_row = np.full(slots, -1, np.int64)
        at = 2 * np.arange(total, dtype=np.int64) + ranges
        slot_begin[at], slot_length[at] = gap, begin - gap
        at += 1
        slot_begin[at], slot_length[at], slot_row[at] = begin, end - begin, rows
        at = 2 * until + np.arange(len(offs), dtype=np.int64)
        slot_begin[at], slot_length[at] = tail, ends - tail
        kept = np.flatnonzero(slot_length > 0)
        slots_before = np.searchsorted(at, kept, side="left").astype(np.int64, copy=False)
        return self._cut(slots_before, slot_begin[kept], slot_length[kept], slot_row[kept])

    def around(self, offset: int) -> Resolved:
        """The whole extent, or gap, that holds a byte; see `ExtentIndex.around`."""
        check_ranges([offset], [1], self._size)
        row = int(self._offset.searchsorted(offset, side="right")) - 1
        begin = int(self._offset[row]) if row >= 0 else 0
        end = begin + int(self._length[row]) if row >= 0 else 0
        if end <= offset:
            begin = end
            end = int(self._offset[row + 1]) if row + 1 < len(self) else self._size
            row = -1
        return self._cut(
            np.zeros(1, np.int64),
            np.array([begin], np.int64),
            np.array([end - begin], np.int64),
            np.array([row], np.int64),
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _touched(self, offs: Int64s, ends: Int64s) -> tuple[Int64s, Int64s]:
        """The first extent that each range touches, and how many."""
        # Searching in ascending order walks the columns instead of jumping about in them: three times as fast.
        order = None if bool((offs[1:] >= offs[:-1]).all()) else np.argsort(offs)
        if order is not None:
            offs, ends = offs[order], ends[order]
        first = np.searchsorted(self._offset, offs, side="right") - 1
        if len(self):
            # The extent that begins before the range counts only where it reaches into it.
            before = np.maximum(first, 0)
            first += (first < 0) | (self._offset[before] + self._lengths(before) <= offs)
        else:
            first += 1
        count = np.searchsorted(self._offset, ends, side="left") - first
        if order is None:
            return first, count
        back_first, back_count = np.empty_like(first), np.empty_like(count)
        back_first[order], back_count[order] = first, count
        return back_first, back_count

    def _lengths(self, rows: Int64s) -> Int64s:
        return self._length[rows].astype(np.int64, copy=False)

    def _cut(self, ranges: Int64s, begin: Int64s, length: Int64s, rows: Int64s) -> Resolved:
        """Pieces out of extents `rows`; -1 is a gap."""
        none = rows < 0
        if none.any():
            if not len(self):
                rows = np.empty(0, np.int64)
                kind = np.full(len(begin), Kind.HOLE, np.uint8)
                zero = np.zeros(len(begin), np.int64)
                return Resolved(ranges, begin, length, kind, zero, zero, zero, zero, zero, zero)
            rows = np.where(none, 0, rows)
        n = len(rows)
        kind = np.zeros(n, np.uint8) if self._kind is None else self._kind[rows].astype(np.uint8, copy=False)
        kind[none] = Kind.HOLE
        void = kind != Kind.DATA
        any_void = bool(void.any())

        def column(values: Optional) -> Int64s:
            taken = np.zeros(n, np.int64) if values is None else values[rows].astype(np.int64, copy=False)
            if any_void and values is not None:
                taken[void] = 0
            return taken

        within = begin - self._offset[rows]
        if any_void:
            within[void] = 0
        codec = column(self._codec)
        raw = codec == 0
        object_offset = column(self._object_offset)
        skip = column(self._skip)
        skip += within
        if self._codec is None:
            object_offset += within
            stored = length.copy()
        else:
            object_offset += np.where(raw, within, 0)
            stored = np.where(raw, length, column(self._length if self._stored_length is None else self._stored_length))
        if any_void:
            stored[void] = 0
        decoded = column(self._length if self._decoded_length is None else self._decoded_length)
        identity = None
        if self._identity is not None:
            identity = self._identity[rows]
            if any_void:
                identity[void] = 0
        return Resolved(
            ranges,
            begin,
            length,
            kind,
            column(self._number),
            object_offset,
            stored,
            codec,
            skip,
            decoded,
            identity,
        )

    def _check(self) -> None:
        """Checks every row, a block at a time."""
        end = 0
        for first in range(0, len(self), _BLOCK):
            rows = slice(first, first + _BLOCK)
            offset = self._offset[rows]
            length = self._length[rows].astype(np.int64, copy=False)
            size = self._size
            _refuse(length <= 0, first, offset, "is not longer than nothing")
            outside = (offset < 0) | (length > size) | (offset > size - np.minimum(length, size))
            _refuse(outside, first, offset, f"reaches out of the disk's {size} bytes")
            stop = offset + length
            before = np.concatenate((np.array([end], np.int64), stop[:-1]))
            _refuse(offset < before, first, offset, "begins inside the one before it, or before it")
            end = int(stop[-1])
            self._check_storage(rows, offset, length)

    def _check_storage(self, rows: slice, offset: Int64s, length: Int64s) -> None:
        first = rows.start
        data: NDArray[np.bool_] | None = None
        if self._kind is not None:
            kind = self._kind[rows]
            _refuse((kind < 0) | (kind > Kind.HOLE), first, offset, "is of no known kind")
            data = kind == Kind.DATA

        def part(column: Optional) -> Optional:
            return None if column is None else column[rows]

        def refuse(bad: NDArray[np.bool_], why: str) -> None:
            _refuse(bad if data is None else bad & data, first, offset, why)

        codec = part(self._codec)
        if codec is not None:
            refuse((codec < 0) | (codec >= len(self._codecs)), f"has none of the {len(self._codecs)} codecs")
        number = part(self._number)
        if number is None:
            number = np.zeros(1, np.int64)
        refuse((number < 0) | (number >= len(self._objects)), f"is in none of the {len(self._objects)} objects")
        stored = part(self._stored_length)
        at = part(self._object_offset)
        if stored is not None:
            refuse((stored < 0), "is stored in less than no bytes")
            raw = stored != length
            refuse(raw if codec is None else raw & (codec == 0), "is raw, but not stored in as many bytes as it has")
        if at is not None:
            room = _OBJECT_LIMIT - (length if stored is None else stored.astype(np.int64, copy=False))
            refuse((at < 0) | (at > room), "is stored beyond 2**62 bytes")
        skip, decoded = part(self._skip), part(self._decoded_length)
        if skip is not None or decoded is not None:
            cut = np.zeros(1, np.int64) if skip is None else skip.astype(np.int64, copy=False)
            whole = length if decoded is None else decoded.astype(np.int64, copy=False)
            refuse((cut < 0) | (cut > whole - length), "is longer than what is stored there")
            inside = cut > (np.zeros(1, np.int64) if at is None else at)
            refuse(inside if codec is None else inside & (codec == 0), "is raw and begins before its object")


def _refuse(bad: NDArray[np.bool_], first: int, offset: Int64s, why: str) -> None:
    if bad.any():
        i = int(np.argmax(bad))
        raise CorruptionError(
            f"extent {first + i}, at {int(offset[min(i, len(offset) - 1)])}, {why}",
            structure="extent",
            offset=max(int(offset[min(i, len(offset) - 1)]), 0),
        )


def _column(name: str, values: NDArray[np.generic], n: int) -> Integers:
    array = np.asarray(values)
    if array.ndim != 1 or len(array) != n:
        raise UsageError(f"column {name} has shape {array.shape}, not ({n},)")
    if n == 0:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise UsageError(f"column {name} is {array.dtype}; extents are counted in whole numbers")
    if array.dtype == np.uint64:
        if int(array.max()) > _LIMIT:
            raise CorruptionError(f"{name} of 2**63 or more", structure="extent")
        array = array.astype(np.int64)
    return array


def _maybe(name: str, values: NDArray[np.generic] | None, n: int) -> Optional:
    return None if values is None else _column(name, values, n)


def _spread(name: str, values: ArrayLike, n: int) -> Integers:
    array = np.asarray(values)
    return _column(name, np.broadcast_to(array, n) if array.ndim == 0 else array, n)


def _narrow(values: Integers) -> Integers:
    """The same in the narrowest unsigned type that holds it; negative numbers stay, to be refused."""
    if not len(values) or int(values.min()) < 0:
        return values
    return values.astype(np.min_scalar_type(int(values.max())), copy=False)
