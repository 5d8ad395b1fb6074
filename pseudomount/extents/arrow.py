"""Extent indexes to and from Arrow.

One row an extent, ascending; holes are not stored. The schema:

    offset          int64                       bytes from the start of the disk
    length          int64                       bytes of the disk
    kind            uint8                       0 data, 1 zeros
    object          dictionary<int32, string>   the object's name; null where the kind is not data
    object_offset   int64                       bytes from the start of the object
    stored_length   int64                       bytes to fetch; may be an upper bound
    codec           uint16                      position in the metadata's codecs
    skip            int64                       where the extent begins within what is stored, once decoded, bytes
    decoded_length  int64                       bytes of the whole once decoded
    identity        fixed_size_binary[32]       checksum or identity of the decoded extent, or null

The columns from `object_offset` to `decoded_length` mean nothing where the kind is not data. Each batch has a
dictionary of its own, of just the names that it uses, so that batches can be streamed whatever the number of objects.

Schema metadata, key `pseudomount.extents`: JSON with `version` (1), `size` (bytes of the disk) and `codecs`: a list
of `{"name": …, "parameters": [[key, type, value], …]}`, type one of "int", "str", "bytes" (value in base 64).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, UnsupportedError
from pseudomount.extents._pieces import walk
from pseudomount.extents.columns import ColumnIndex
from pseudomount.extents.contract import RAW, Codec, ExtentIndex, Kind, Resolved

__all__ = ["METADATA_KEY", "from_arrow", "schema", "to_arrow", "to_batches"]

METADATA_KEY = b"pseudomount.extents"
_VERSION = 1
_INTEGERS = ("offset", "length", "object_offset", "stored_length", "skip", "decoded_length")


def schema(size: int, codecs: Sequence[Codec] = (RAW,)) -> pa.Schema:
    """The schema of a disk of `size` bytes, with its metadata."""
    metadata = {
        "version": _VERSION,
        "size": size,
        "codecs": [
            {"name": codec.name, "parameters": [[key, *_tagged(value)] for key, value in codec.parameters]}
            for codec in codecs
        ],
    }
    return pa.schema(
        [
            pa.field("offset", pa.int64(), nullable=False),
            pa.field("length", pa.int64(), nullable=False),
            pa.field("kind", pa.uint8(), nullable=False),
            pa.field("object", pa.dictionary(pa.int32(), pa.string())),
            pa.field("object_offset", pa.int64(), nullable=False),
            pa.field("stored_length", pa.int64(), nullable=False),
            pa.field("codec", pa.uint16(), nullable=False),
            pa.field("skip", pa.int64(), nullable=False),
            pa.field("decoded_length", pa.int64(), nullable=False),
            pa.field("identity", pa.binary(32)),
        ],
        metadata={METADATA_KEY: json.dumps(metadata).encode()},
    )


def to_batches(index: ExtentIndex, rows: int = 1 << 18) -> Iterator[pa.RecordBatch]:
    """The index in batches of about `rows` extents, so that a huge one never lies in memory.

    Raises:
        PseudomountError: a part of the index could not be loaded.
    """
    fields = schema(index.size, index.codecs)
    if isinstance(index, ColumnIndex):
        for first in range(0, len(index), rows):
            yield _batch(index, index.rows(first, first + rows), fields)
        return
    for _, _, pieces in walk(index, 0, index.size, pieces=rows):
        for error in pieces.errors.values():
            raise error
        for first in range(0, len(pieces), rows):
            yield _batch(index, pieces.take(np.arange(first, min(first + rows, len(pieces)))), fields)


def to_arrow(index: ExtentIndex) -> pa.Table:
    """The whole index as a table."""
    return pa.Table.from_batches(to_batches(index), schema=schema(index.size, index.codecs))


def from_arrow(data: pa.Table | pa.RecordBatchReader | Iterable[pa.RecordBatch]) -> ColumnIndex:
    """The index of a table, or of a stream of batches.

    Raises:
        CorruptionError: it is none, or contradicts itself.
        UnsupportedError: it is of a later version.
    """
    objects: dict[str, int] = {}
    columns: dict[str, list[NDArray[Any]]] = {}
    identities: list[NDArray[np.uint8] | None] = []
    size, codecs = (None, ()) if not hasattr(data, "schema") else _metadata(data.schema)
    rows = 0
    for batch in data.to_batches() if isinstance(data, pa.Table) else data:
        if size is None:
            size, codecs = _metadata(batch.schema)
        rows += len(batch)
        try:
            _collect(batch, objects, columns, identities)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
            raise CorruptionError(f"not an extent index in Arrow: {error}", structure="extent index") from error
    if size is None:
        raise CorruptionError("not an extent index in Arrow: no batches and no schema", structure="extent index")
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    identity = None
    if any(part is not None for part in identities):
        identity = np.concatenate(
            [np.zeros((n, 32), np.uint8) if p is None else p for p, n in zip(identities, _counts(columns), strict=True)]
        )
    empty = np.empty(0, np.int64)
    return ColumnIndex.from_arrays(
        size,
        joined.pop("offset", empty),
        joined.pop("length", empty),
        objects=list(objects),
        identity=identity,
        codecs=codecs,
        **joined,
    )


def _counts(columns: dict[str, list[NDArray[Any]]]) -> list[int]:
    return [len(part) for part in columns["offset"]]


def _batch(index: ExtentIndex, pieces: Resolved, fields: pa.Schema) -> pa.RecordBatch:
    if bool((pieces.kind == Kind.HOLE).any()):
        pieces = pieces.take(np.flatnonzero(pieces.kind != Kind.HOLE))
    void = pieces.kind != Kind.DATA
    numbers, position = np.unique(pieces.object[~void], return_inverse=True)
    indices = np.zeros(len(pieces), np.int32)
    indices[~void] = position
    names = pa.array(index.object_names(numbers), pa.string())
    identity: Any = pa.nulls(len(pieces), pa.binary(32))
    if pieces.identity is not None:
        flat: Any = np.ascontiguousarray(pieces.identity)
        known: Any = np.packbits(pieces.identity.any(axis=1), bitorder="little")
        identity = pa.Array.from_buffers(pa.binary(32), len(pieces), [pa.py_buffer(known), pa.py_buffer(flat)])
    named: Any = pa.array(indices, mask=void)
    return pa.RecordBatch.from_arrays(
        [
            pa.array(pieces.offset),
            pa.array(pieces.length),
            pa.array(pieces.kind),
            pa.DictionaryArray.from_arrays(named, names),
            pa.array(pieces.object_offset),
            pa.array(pieces.stored_length),
            pa.array(pieces.codec.astype(np.uint16)),
            pa.array(pieces.skip),
            pa.array(pieces.decoded_length),
            identity,
        ],
        schema=fields,
    )


def _collect(
    batch: pa.RecordBatch,
    objects: dict[str, int],
    columns: dict[str, list[NDArray[Any]]],
    identities: list[NDArray[np.uint8] | None],
) -> None:
    """Adds a batch's columns to `columns`, its names to `objects`."""
    for name in _INTEGERS:
        columns.setdefault(name, []).append(_narrowed(_numpy(batch.column(name).cast(pa.int64()))))
    for name in ("kind", "codec"):
        columns.setdefault(name, []).append(_numpy(batch.column(name).cast(pa.uint16())))
    column: Any = batch.column("object")
    if not isinstance(column, pa.DictionaryArray):  # read back from Parquet, say
        column = column.cast(pa.string()).dictionary_encode()
    names = column.dictionary.cast(pa.string()).to_pylist()
    known = np.array([objects.setdefault(name, len(objects)) for name in names] or [-1], np.int64)
    # A null is -1 here: the index refuses it where the kind is data.
    indices = _numpy(column.indices.cast(pa.int64()).fill_null(-1))
    columns.setdefault("number", []).append(np.where(indices < 0, -1, known[indices]))
    identity: Any = batch.column("identity").cast(pa.binary(32))
    if identity.null_count == len(identity):
        identities.append(None)
        return
    filled = identity.fill_null(bytes(32))
    flat = np.frombuffer(filled.buffers()[1], np.uint8)[filled.offset * 32 : (filled.offset + len(filled)) * 32]
    identities.append(flat.reshape(-1, 32))


def _numpy(column: Any) -> NDArray[Any]:
    if column.null_count:
        raise ValueError("a number is missing")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    # Keeps memory at what the index will need, while the batches come in.
    small = len(values) and int(values.min()) >= 0 and int(values.max()) < 1 << 32
    return values.astype(np.uint32) if small else values


def _tagged(value: int | str | bytes) -> tuple[str, int | str]:
    if isinstance(value, bytes):
        return "bytes", base64.b64encode(value).decode()
    return ("int", value) if isinstance(value, int) else ("str", value)


def _untagged(tag: str, value: object) -> int | str | bytes:
    if tag == "bytes" and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    if (tag == "int" and isinstance(value, int)) or (tag == "str" and isinstance(value, str)):
        return value
    raise ValueError(f"a codec parameter of type {tag}")


def _metadata(fields: pa.Schema) -> tuple[int, tuple[Codec, ...]]:
    text = (fields.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise CorruptionError("not an extent index in Arrow: the schema has no such metadata", structure="extent index")
    try:
        values = json.loads(text)
        version = values["version"]
        if version != _VERSION:
            raise UnsupportedError(f"an extent index in Arrow of version {version}; this version reads {_VERSION}")
        codecs = tuple(
            Codec(
                str(entry["name"]), tuple((str(key), _untagged(tag, value)) for key, tag, value in entry["parameters"])
            )
            for entry in values["codecs"]
        )
        size = values["size"]
        if not isinstance(size, int) or codecs[:1] != (RAW,) or RAW in codecs[1:]:
            raise ValueError("size or codecs")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise CorruptionError(f"not an extent index in Arrow: {error}", structure="extent index") from error
    return size, codecs
