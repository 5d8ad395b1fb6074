"""Between numpy and Arrow without a copy, and without pyarrow's own conversions.

Those (`pyarrow.array`, `pyarrow.scalar`, `to_numpy`) look whether they were given something of pandas', and for that
import it where it is installed: a quarter of a second for each command.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.filesystem.columns import NAT

__all__ = ["STAMP", "arrow", "arrow_times", "is_null", "number", "numbers", "strings", "text"]

Bools = NDArray[np.bool_]

STAMP: Final = pa.timestamp("ns", "UTC")


def arrow(values: NDArray[Any], null: Bools | None = None, kind: pa.DataType | None = None) -> pa.Array:
    """Numbers (or bools) as Arrow, in the memory that they are in; null where `null`."""
    known = None
    if null is not None and null.any():
        known = pa.py_buffer(np.packbits(~null, bitorder="little"))
    if values.dtype == np.bool_:
        data = pa.py_buffer(np.packbits(values, bitorder="little"))
        return pa.Array.from_buffers(pa.bool_(), len(values), [known, data])
    kind = kind or pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [known, pa.py_buffer(np.ascontiguousarray(values))])


def arrow_times(ns: NDArray[np.int64]) -> pa.Array:
    """Nanoseconds since 1970 as timestamps; null where `NAT`."""
    return arrow(ns, ns == NAT, STAMP)


def numbers(column: pa.Array | pa.ChunkedArray, null: int | None = None) -> NDArray[Any]:
    """A column of numbers, bools or times (as nanoseconds) as numpy, `null` in the place of nulls; may share memory.

    Without `null` there must be no nulls, or their values do not matter.
    """
    if null is not None and column.null_count:
        column = pc.fill_null(column, number(null, column.type))
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    parts = [_values(chunk) for chunk in chunks]
    return parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.int64)])


def _values(array: pa.Array) -> NDArray[Any]:
    data, first, n = array.buffers()[1], array.offset, len(array)
    if pa.types.is_boolean(array.type):
        if not n:
            return np.empty(0, np.bool_)
        begin = first // 8
        packed = np.frombuffer(data, np.uint8)[begin : (first + n + 7) // 8]
        bits = np.unpackbits(packed, bitorder="little")[first - 8 * begin :][:n]
        return bits.view(np.bool_)
    kind = np.dtype(np.int64) if pa.types.is_timestamp(array.type) else np.dtype(array.type.to_pandas_dtype())
    if data is None:
        return np.empty(n, kind)
    return np.frombuffer(data, kind)[first : first + n]


def is_null(column: pa.Array | pa.ChunkedArray) -> Bools:
    """bool (n,): where a column is null."""
    if not column.null_count:
        return np.zeros(len(column), np.bool_)
    return numbers(column.is_null())


def strings(values: list[str], kind: pa.DataType | None = None) -> pa.Array:
    """Some texts as Arrow: large strings, or `kind`."""
    kind = kind or pa.large_string()
    data = [value.encode() for value in values]
    offsets = np.zeros(len(data) + 1, np.int64 if kind == pa.large_string() else np.int32)
    np.cumsum([len(value) for value in data], out=offsets[1:])
    return pa.Array.from_buffers(kind, len(data), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))])


def text(value: str, kind: pa.DataType | None = None) -> pa.Scalar:
    """A text as Arrow's scalar."""
    return strings([value], kind)[0]


def number(value: int, kind: pa.DataType) -> pa.Scalar:
    """A number, bool or time as Arrow's scalar."""
    if pa.types.is_boolean(kind):
        return arrow(np.array([value], np.bool_))[0]
    dtype = np.dtype(np.int64) if pa.types.is_timestamp(kind) else np.dtype(kind.to_pandas_dtype())
    return arrow(np.array([value], dtype), kind=kind)[0]
