"""Columns that grow part by part, and become Arrow's one after the other, in little more memory than the result."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudomount.filesystem.catalogue._arrow import arrow, arrow_times
from pseudomount.filesystem.columns import NAT, Names

__all__ = ["Column", "StringColumn", "contains", "pick", "pieces", "positions"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]
#: Row numbers, int32 where that is enough.
Rows = NDArray[np.integer]

#: Rows that are worked on at once: what is made on the way stays small.
_STEP = 1 << 20
#: Bytes of text in one chunk of a column: its offsets are int32.
_CHUNK = (1 << 31) - 1
#: A table of ids may have this many places for each, or this many in all.
_SPARSE, _TABLE = 4, 1 << 22
#: Bytes of a block of a growing column; those below the second size come from the heap.
_BLOCK, _SMALL = 8 << 20, 1 << 20


def pieces(n: int) -> Iterator[slice]:
    """Slices that cover n rows."""
    return (slice(first, first + _STEP) for first in range(0, n, _STEP))


def pick(values: NDArray[Any], rows: Rows | None) -> NDArray[Any]:
    """`values[rows]`, all for None; always contiguous, and not what many share."""
    if rows is None:
        return np.require(values, requirements=("C", "W"))
    out = np.empty(len(rows), values.dtype)
    for piece in pieces(len(rows)):
        np.take(values, rows[piece], out=out[piece], mode="clip")
    return out


def positions(ids: UInt64s, values: UInt64s) -> Rows:
    """Where in `ids` each value is, -1 where nowhere; int32 if that is enough.

    Ids of files are dense, or their lower 48 bits are (NTFS has the sequence number in the others): then a table tells,
    several times as fast as a search.
    """
    n = len(ids)
    narrow = np.dtype(np.int32 if n < 1 << 31 else np.int64)
    found: Rows = np.full(len(values), -1, narrow)
    if not n or not len(values):
        return found
    for mask in (np.uint64((1 << 64) - 1), np.uint64((1 << 48) - 1)):
        keys = ids & mask
        low = keys.min()
        span = int(keys.max() - low) + 1
        if span > max(_SPARSE * n, _TABLE) or span > _TABLE + _SPARSE * len(values):
            continue
        table = np.full(span, -1, narrow)
        table[(keys - low)[::-1]] = np.arange(n, dtype=narrow)[::-1]
        for piece in pieces(len(values)):
            key = (values[piece] & mask) - low  # what lies below wraps around
            at = np.take(table, np.minimum(key, np.uint64(span - 1)).astype(np.int64))
            at[ids[at] != values[piece]] = -1
            found[piece] = at
        rest = np.flatnonzero(found < 0)
        if int(mask) < 1 << 48 and len(rest):  # several ids may have the same lower bits
            found[rest] = _search(ids, values[rest], narrow)
        return found
    return _search(ids, values, narrow)


def _search(ids: UInt64s, values: UInt64s, narrow: np.dtype[Any]) -> Rows:
    order: Rows | None = None
    if not bool((ids[1:] > ids[:-1]).all()):
        order = np.argsort(ids, kind="stable").astype(narrow)
        ids = pick(ids, order)
    found: Rows = np.empty(len(values), narrow)
    for piece in pieces(len(values)):
        at = np.minimum(np.searchsorted(ids, values[piece]), len(ids) - 1)
        found[piece] = np.where(ids[at] == values[piece], at if order is None else order[at], -1)
    return found


def contains(ids: UInt64s, values: UInt64s) -> Bools:
    """Which of the values are among some ids."""
    found: Bools = positions(ids, values) >= 0
    return found


class Pile:
    """Values of one dtype that come in parts, in blocks of memory that goes back to the system when they are let go.

    What `malloc` gives for millions of small parts it keeps for itself afterwards. As long as all values are the same
    one, it is kept once.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        """An empty one."""
        self.dtype = dtype
        self.count = 0
        self._same: NDArray[Any] | None = None
        self._blocks: list[NDArray[Any]] = []
        self._used = 0

    def add(self, values: NDArray[Any]) -> None:
        """The next values; they are copied."""
        if not len(values):
            return
        if not self._blocks:
            if _uniform(values) and (self._same is None or values[0] == self._same[0]):
                self._same = values[:1].copy()
                self.count += len(values)
                return
            if self._same is not None:
                self._put(np.broadcast_to(self._same, self.count))
                self._same = None
        self._put(values)
        self.count += len(values)

    def _put(self, values: NDArray[Any]) -> None:
        while len(values):
            if not self._blocks or self._used == len(self._blocks[-1]):
                wanted = min(max(len(values), self.count), _BLOCK // self.dtype.itemsize)
                self._blocks.append(_memory(wanted, self.dtype))
                self._used = 0
            block = self._blocks[-1]
            part = values[: len(block) - self._used]
            block[self._used : self._used + len(part)] = part
            self._used += len(part)
            values = values[len(part) :]

    def take(self) -> NDArray[Any]:
        """All values as one array, of stride 0 where they are all the same; the pile is empty afterwards."""
        if self._same is not None:
            whole = np.broadcast_to(self._same, self.count)
        else:
            whole = np.empty(self.count, self.dtype)
            at = 0
            blocks, self._blocks = self._blocks[::-1], []
            while blocks:
                block = blocks.pop()
                part = block[: min(len(block), self.count - at)]
                whole[at : at + len(part)] = part
                at += len(part)
        self._same, self.count, self._used = None, 0, 0
        return whole


def _uniform(values: NDArray[Any]) -> bool:
    return bool(values[0] == values[-1]) and bool((values == values[0]).all())


def _memory(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    size = n * dtype.itemsize
    if size < _SMALL:
        return np.empty(n, dtype)
    if sys.platform == "win32":
        return np.frombuffer(mmap.mmap(-1, size), dtype)
    return np.frombuffer(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype)


class Column:
    """Values that come in parts."""

    def __init__(self, dtype: type[np.generic] | None = None) -> None:
        """For values of `dtype`, or of the kind of what comes; an unsigned one takes a mark beside where it is null."""
        self._dtype = None if dtype is None else np.dtype(dtype)
        self._marks = Pile(np.dtype(np.bool_)) if self._dtype is not None and self._dtype.kind == "u" else None
        self._pile: Pile | None = None
        self._whole: NDArray[Any] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values so far."""
        return np.dtype(np.uint64) if self._pile is None else self._pile.dtype

    def add(self, values: NDArray[Any]) -> None:
        """The next rows. What a narrower column cannot hold is null."""
        if self._dtype is not None and values.dtype != self._dtype:
            if self._marks is not None:
                self._marks.add((values < 0) | (values > np.iinfo(self._dtype).max))
            values = values.astype(self._dtype)
        if self._pile is None:
            self._pile = Pile(values.dtype)
        if self._whole is not None or values.dtype != self._pile.dtype:
            before = self.joined()
            self._pile, self._whole = Pile(np.result_type(before, values)), None
            self._pile.add(before.astype(self._pile.dtype))
        self._pile.add(values)

    def joined(self) -> NDArray[Any]:
        """All values so far as one array, which the column keeps."""
        if self._whole is None:
            self._whole = np.empty(0, np.uint64) if self._pile is None else self._pile.take()
        return self._whole

    def take(self, rows: Rows | None) -> NDArray[Any]:
        """The values of some rows, None for all; the column is empty afterwards."""
        values = self.joined()
        self._whole = self._pile = None
        return pick(values, rows)

    def arrow(self, rows: Rows | None, absent: Bools | None) -> pa.Array:
        """The same as Arrow, null where the value is negative (or was, before it was narrowed) and where `absent`.

        Where they are times, null is where there is none.
        """
        values = self.take(rows)
        if values.dtype.kind == "M":
            ns = values.astype("datetime64[ns]", copy=False).view(np.int64)
            return arrow_times(ns if absent is None else np.where(absent, NAT, ns))
        null = absent
        if self._marks is not None and self._marks.count:
            marks = pick(self._marks.take(), rows)
            null = marks if absent is None else marks | absent
        elif values.dtype.kind == "i":
            null = values < 0 if absent is None else (values < 0) | absent
        return arrow(values, null)


class StringColumn:
    """Valid UTF-8 that comes in parts."""

    def __init__(self) -> None:
        """An empty one."""
        self._text = Pile(np.dtype(np.uint8))
        self._lengths = Pile(np.dtype(np.int32))

    def add(self, names: Names) -> None:
        """The next rows."""
        self._text.add(names.buffer[int(names.offsets[0]) : int(names.offsets[-1])])
        self._lengths.add(np.diff(names.offsets).astype(np.int32))

    def arrow(self) -> pa.ChunkedArray:
        """All of it, in as few chunks as hold it; the column is empty afterwards."""
        lengths, text = self._lengths.take(), np.ascontiguousarray(self._text.take())
        chunks: list[pa.Array] = []
        at = row = 0
        while row < len(lengths) or not chunks:
            n = len(lengths) - row
            if len(text) - at > _CHUNK:
                n = max(int(np.searchsorted(np.cumsum(lengths[row:], dtype=np.int64), _CHUNK, side="right")), 1)
            offsets = np.zeros(n + 1, np.int32)
            np.cumsum(lengths[row : row + n], out=offsets[1:])
            data = text[at : at + int(offsets[-1])]
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
            chunks.append(pa.Array.from_buffers(pa.string(), n, buffers))
            at, row = at + len(data), row + n
        return pa.chunked_array(chunks, pa.string())
