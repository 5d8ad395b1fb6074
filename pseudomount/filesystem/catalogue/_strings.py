"""Names as Arrow columns: valid UTF-8, and the disk's bytes beside those that had to be escaped."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.filesystem.catalogue._arrow import text
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.names import escape
from pseudomount.filesystem.rows import NameEncoding

__all__ = ["binary_column", "escaped_names", "names_of", "string_column"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]

#: Bytes of text in one chunk of a column: its offsets are int32.
_CHUNK = (1 << 31) - 1
#: Names that are checked at once for being valid UTF-8, and of which those that are not are then found one by one.
_COARSE, _FINE = 1 << 16, 1 << 8
_BACKSLASH = 0x5C


def escaped_names(names: Names, encoding: NameEncoding) -> tuple[Names, Int64s]:
    """Names in their escaped form, and int64 (k,) which of them that form changed, ascending.

    Only names that hold a backslash or lie among some that are no valid UTF-8 are looked at one by one.
    """
    suspects = np.union1d(_with_backslash(names), _invalid(names))
    if not len(suspects):
        return names, suspects
    raw = names.take(suspects).tolist()
    shown = [escape(encoding.decode(name), encoding).encode() for name in raw]
    changed = np.fromiter((a != b for a, b in zip(raw, shown, strict=True)), np.bool_, len(raw))
    which = suspects[changed]
    if not len(which):
        return names, which
    both = Names.concat([names, Names.of([shown[i] for i in np.flatnonzero(changed).tolist()])])
    order = np.arange(len(names), dtype=np.int64)
    order[which] = len(names) + np.arange(len(which))
    return both.take(order), which


def _with_backslash(names: Names) -> Int64s:
    first, last = int(names.offsets[0]), int(names.offsets[-1])
    places = np.flatnonzero(names.buffer[first:last] == _BACKSLASH) + first
    return np.unique(np.searchsorted(names.offsets, places, side="right") - 1)


def _invalid(names: Names) -> Int64s:
    """Numbers of the names that are no valid UTF-8, and perhaps of some near them."""
    found = [np.empty(0, np.int64)]
    for first in range(0, len(names), _COARSE):
        last = min(first + _COARSE, len(names))
        if _valid(names, first, last):
            continue
        for begin in range(first, last, _FINE):
            end = min(begin + _FINE, last)
            if not _valid(names, begin, end):
                found.append(np.arange(begin, end, dtype=np.int64))
    return np.concatenate(found)


def _valid(names: Names, first: int, last: int) -> bool:
    offsets = names.offsets[first : last + 1]
    try:
        _array(pa.large_string(), names.buffer, offsets, None).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _array(kind: pa.DataType, buffer: NDArray[np.uint8], offsets: Int64s, known: Bools | None) -> pa.Array:
    """An Arrow array of strings; takes the buffers as they are."""
    width = np.int64 if kind in (pa.large_string(), pa.large_binary()) else np.int32
    base = int(offsets[0])
    part = buffer[base : int(offsets[-1])]
    places = np.ascontiguousarray((offsets - base) if base else offsets, dtype=width)
    mask = None if known is None else pa.py_buffer(np.packbits(known, bitorder="little"))
    return pa.Array.from_buffers(kind, len(offsets) - 1, [mask, pa.py_buffer(places), pa.py_buffer(part)])


def _chunks(kind: pa.DataType, names: Names, known: Bools | None) -> pa.ChunkedArray:
    arrays: list[pa.Array] = []
    first = 0
    while first < len(names) or not arrays:
        limit = int(names.offsets[first]) + _CHUNK
        last = int(np.searchsorted(names.offsets, limit, side="right")) - 1
        part = None if known is None else known[first:last]
        arrays.append(_array(kind, names.buffer, names.offsets[first : last + 1], part))
        first = last
    return pa.chunked_array(arrays, kind)


def string_column(names: Names, known: Bools | None = None) -> pa.ChunkedArray:
    """Names that are valid UTF-8 as an Arrow column of strings, null where not `known`."""
    return _chunks(pa.string(), names, known)


def binary_column(values: Names, rows: Int64s, n: int) -> pa.ChunkedArray:
    """A column (n,) of bytes that has values in some rows, ascending, and is null in all others."""
    if not len(rows):
        return pa.chunked_array([pa.nulls(n, pa.binary())])
    offsets = np.zeros(n + 1, np.int64)
    offsets[rows + 1] = np.diff(values.offsets)
    np.cumsum(offsets, out=offsets)
    known = np.zeros(n, np.bool_)
    known[rows] = True
    first, last = int(values.offsets[0]), int(values.offsets[-1])
    return _chunks(pa.binary(), Names(values.buffer[first:last], offsets), known)


def names_of(column: pa.ChunkedArray, raw: pa.ChunkedArray) -> Names:
    """The disk's own names of a column of escaped ones, and of the bytes of those that had to be escaped.

    A null is an empty name.
    """
    whole = column if raw.null_count == len(raw) else pc.coalesce(raw, pc.cast(column, pa.binary()))
    if whole.null_count:
        whole = pc.fill_null(whole, text("", whole.type))
    return Names.concat(_names(chunk) for chunk in whole.chunks)


def _names(array: pa.Array) -> Names:
    _, offsets, data = array.buffers()
    first, count = array.offset, len(array)
    if data is None or not count:
        return Names(np.empty(0, np.uint8), np.zeros(count + 1, np.int64))
    ends = np.frombuffer(offsets, np.int32)[first : first + count + 1].astype(np.int64)
    return Names(np.frombuffer(data, np.uint8), ends)
