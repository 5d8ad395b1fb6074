"""Catalogues in Parquet files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pseudomount.errors import UnsupportedError
from pseudomount.filesystem.catalogue._directories import Directories
from pseudomount.filesystem.rows import NameEncoding

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue

__all__ = ["read_parquet", "write_parquet"]

_KEY = b"pseudomount.catalogue"
_VERSION = 1


def write_parquet(catalogue: Catalogue, where: str | Path | IO[bytes], *, paths: bool) -> None:
    """Writes the table; the tree of directories, the streams and what else is small go into the file's metadata."""
    tree = catalogue.directories
    head = {
        "version": _VERSION,
        "filesystem": catalogue.filesystem,
        "volume": catalogue.volume,
        "encoding": catalogue.encoding.name,
        "case_sensitive": catalogue.case_sensitive,
        "odd": {name: [[row, *exact] for row, exact in rows.items()] for name, rows in catalogue.odd.items()},
    }
    folders = pa.table({"id": tree.ids, "parent": tree.parent, "depth": tree.depth, "row": tree.row, "name": tree.name})
    meta = {_KEY: json.dumps(head).encode(), _KEY + b".directories": _ipc(folders)}
    meta[_KEY + b".streams"] = _ipc(catalogue.streams)
    table = catalogue.to_arrow(paths=paths)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **meta})
    pq.write_table(table, where if not isinstance(where, Path) else str(where), compression="zstd")


def read_parquet(where: str | Path | IO[bytes]) -> dict[str, Any]:
    """What makes a Catalogue of a file that `write_parquet` wrote."""
    try:
        table = pq.read_table(where if not isinstance(where, Path) else str(where))
    except pa.ArrowInvalid as error:
        raise UnsupportedError(f"{where} is no Parquet file that can be read: {error}") from error
    meta = dict(table.schema.metadata or {})
    try:
        head = json.loads(meta[_KEY])
        folders = _table(meta[_KEY + b".directories"])
        streams = _table(meta[_KEY + b".streams"])
        if head["version"] != _VERSION:
            raise UnsupportedError(f"{where} was written by another version of pseudomount ({head['version']})")
        depth = folders["depth"].to_numpy()
        order = np.argsort(depth, kind="stable")
        ends = np.searchsorted(depth[order], np.arange(int(depth.max()) + 2))
        levels = tuple(order[a:b] for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))
        name = folders["name"].combine_chunks()
        tree = Directories(
            folders["id"].to_numpy(), folders["parent"].to_numpy(), depth, folders["row"].to_numpy(), name, levels
        )
        odd = {name: {row[0]: (row[1], row[2]) for row in rows} for name, rows in head["odd"].items()}
    except (KeyError, ValueError, pa.ArrowInvalid) as error:
        raise UnsupportedError(f"{where} holds no catalogue of pseudomount") from error
    if "path" in table.column_names:
        table = table.drop_columns(["path"])
    return {
        "arrow": table.replace_schema_metadata(None),
        "directories": tree,
        "streams": streams,
        "encoding": NameEncoding[head["encoding"]],
        "case_sensitive": bool(head["case_sensitive"]),
        "filesystem": head["filesystem"],
        "volume": head["volume"],
        "odd": odd,
    }


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()
