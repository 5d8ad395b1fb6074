"""Catalogues in Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pseudomount.errors import UnsupportedError
from pseudomount.filesystem.catalogue._build import WORDS
from pseudomount.filesystem.catalogue._directories import Directories
from pseudomount.filesystem.rows import FileType, NameEncoding

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue

__all__ = ["read_parquet", "write_parquet"]

_KEY = b"pseudomount.catalogue"
_VERSION = 1
#: Bytes and fields of metadata that Parquet's own format may have here; its default is made for short texts.
_MOST = (1 << 31) - 1


def write_parquet(catalogue: Catalogue, where: str | Path | IO[bytes], *, paths: bool) -> None:
    """Writes the table; what else is small goes into the file's metadata, and so does the tree of a selection.

    The tree of a whole catalogue is made anew from its rows.
    """
    tree = catalogue.directories
    root = int(tree.ids[tree.levels[0][0]])
    head = {
        "version": _VERSION,
        "filesystem": catalogue.filesystem,
        "volume": catalogue.volume,
        "encoding": catalogue.encoding.name,
        "case_sensitive": catalogue.case_sensitive,
        "root": root,
        "odd": {name: [[row, *exact] for row, exact in rows.items()] for name, rows in catalogue.odd.items()},
    }
    meta = {_KEY: json.dumps(head).encode(), _KEY + b".streams": _ipc(catalogue.streams)}
    if not _same(_tree(catalogue.arrow, root), tree):
        columns = {"id": tree.ids, "parent": tree.parent, "depth": tree.depth, "row": tree.row, "name": tree.name}
        meta[_KEY + b".directories"] = _ipc(pa.table(columns))
    table = catalogue.to_arrow(paths=paths)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **meta})
    pq.write_table(table, where if not isinstance(where, Path) else str(where), compression="zstd")


def read_parquet(where: str | Path | IO[bytes]) -> dict[str, Any]:
    """What makes a Catalogue of a file that `write_parquet` wrote."""
    try:
        # Not `read_table`, which takes folders called KEY=VALUE on the way for columns.
        with pq.ParquetFile(where, thrift_string_size_limit=_MOST, thrift_container_size_limit=_MOST) as file:
            table = file.read()
    except pa.ArrowInvalid as error:
        raise UnsupportedError(f"{where} is no Parquet file that can be read: {error}") from error
    meta = dict(table.schema.metadata or {})
    try:
        head = json.loads(meta[_KEY])
        if head["version"] != _VERSION:
            raise UnsupportedError(f"{where} was written by another version of pseudomount ({head['version']})")
        streams = _table(meta[_KEY + b".streams"])
        arrow = table.drop_columns([name for name in ("path",) if name in table.column_names])
        arrow = _with_codes(arrow.replace_schema_metadata(None))
        stored = meta.get(_KEY + b".directories")
        tree = _tree(arrow, int(head["root"])) if stored is None else _stored(_table(stored))
        odd = {name: {row[0]: (row[1], row[2]) for row in rows} for name, rows in head["odd"].items()}
        encoding = NameEncoding[head["encoding"]]
    except (KeyError, ValueError, TypeError, IndexError, pa.ArrowException) as error:
        raise UnsupportedError(f"{where} holds no catalogue of pseudomount") from error
    return {
        "arrow": arrow,
        "directories": tree,
        "streams": streams,
        "encoding": encoding,
        "case_sensitive": bool(head["case_sensitive"]),
        "filesystem": head["filesystem"],
        "volume": head["volume"],
        "odd": odd,
    }


def _with_codes(table: pa.Table) -> pa.Table:
    """The table with the types of file numbered as `FileType` does: Parquet numbers them as they come."""
    at = table.column_names.index("type")
    words = pc.cast(table["type"], pa.string()).combine_chunks()
    codes = pc.cast(pc.index_in(words, WORDS), pa.int8())
    if codes.null_count:
        raise ValueError("an unknown type of file")
    return table.set_column(at, "type", pa.DictionaryArray.from_arrays(codes, WORDS))


def _tree(table: pa.Table, root: int) -> Directories:
    """The tree that the rows of a whole catalogue make."""
    codes = table["type"].combine_chunks().indices.to_numpy()
    rows = np.flatnonzero((codes == FileType.DIRECTORY) & table["parent"].is_valid().to_numpy())
    picked = table.select(["file", "parent", "deleted"]).take(pa.array(rows))
    ids, parents = picked["file"].to_numpy(), picked["parent"].to_numpy()
    found = Directories.of(root, ids, parents, rows, picked["deleted"].to_numpy(), table["name"])
    top = np.flatnonzero(table["file"].to_numpy() == root)
    found.row[found.find(np.array([root], np.uint64))] = top[0] if len(top) else -1
    return found


def _same(one: Directories, other: Directories) -> bool:
    fields = ("ids", "parent", "depth", "row")
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in fields) and one.name.equals(other.name)


def _stored(folders: pa.Table) -> Directories:
    ids, parent, depth, row = (folders[name].to_numpy() for name in ("id", "parent", "depth", "row"))
    if not len(ids) or int(parent.max()) >= len(ids) or not bool((parent[depth >= 0] >= 0).all()):
        raise ValueError("a tree that is none")
    return Directories(ids, parent, depth, row, folders["name"].combine_chunks(), Directories.by_depth(depth))


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
