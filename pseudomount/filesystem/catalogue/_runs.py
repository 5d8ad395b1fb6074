"""Where the content of all files lies: the catalogue's companion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudomount.errors import PathIsDirectoryError, PseudomountError
from pseudomount.filesystem.catalogue._arrow import arrow, strings
from pseudomount.filesystem.contract import FileSystem
from pseudomount.filesystem.rows import DataRuns, RunKind

__all__ = ["run_table"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: Files whose runs are asked for at once.
_BATCH: Final = 1 << 15
_RESIDENT: Final = max(RunKind) + 1
_WORDS: Final = strings([kind.name.lower() for kind in RunKind] + ["resident"], pa.string())


def run_table(fs: FileSystem, files: UInt64s) -> tuple[pa.Table, Mapping[int, PseudomountError]]:
    """The data runs of many files, file by file in the order of `files`, ascending within a file.

    Args:
        fs: where.
        files: uint64 (n,), ids, each once; directories among them are left out where the file system says no more.

    Returns:
        A table of `file` (uint64), `offset` in the file and `length` (int64, bytes), `position` on the volume (int64,
        null where there is none), `kind` ("data"; "hole" and "unwritten", which are zeros; "resident": the metadata
        hold the content), and `encoded` (bool: what lies there is compressed or encrypted). And file → what was wrong
        with it; the runs that make sense are there.
    """
    parts: list[tuple[UInt64s, Int64s, Int64s, Int64s, NDArray[np.uint8], NDArray[np.bool_]]] = []
    errors: dict[int, PseudomountError] = {}
    for first in range(0, len(files), _BATCH):
        asked = files[first : first + _BATCH]
        found = fs.runs(asked)
        parts.append(_columns(asked, found))
        for i, error in found.errors.items():
            if not isinstance(error, PathIsDirectoryError):
                errors[int(asked[i])] = error
    none = np.empty(0, np.int64)
    empty = (none.astype(np.uint64), none, none, none, none.astype(np.uint8), none.astype(np.bool_))
    file, offset, length, position, kind, encoded = (
        np.concatenate(column) for column in zip(empty, *parts, strict=True)
    )
    return (
        pa.table(
            {
                "file": arrow(file),
                "offset": arrow(offset),
                "length": arrow(length),
                "position": arrow(position, position < 0),
                "kind": pa.DictionaryArray.from_arrays(arrow(kind.astype(np.int8)), _WORDS),
                "encoded": arrow(encoded),
            }
        ),
        errors,
    )


def _columns(
    asked: UInt64s, found: DataRuns
) -> tuple[UInt64s, Int64s, Int64s, Int64s, NDArray[np.uint8], NDArray[np.bool_]]:
    """A batch's runs, and a row for each file that is resident, where it belongs in the order."""
    query, offset, length, position, kind = found.query, found.offset, found.length, found.position, found.kind
    inner = [(i, len(content)) for i, content in sorted(found.resident.items()) if content]
    if inner:
        at = np.array([i for i, _ in inner], np.int64)
        where = np.searchsorted(query, at)
        query = np.insert(query, where, at)
        offset, position = np.insert(offset, where, 0), np.insert(position, where, -1)
        length = np.insert(length, where, np.array([size for _, size in inner], np.int64))
        kind = np.insert(kind, where, np.uint8(_RESIDENT))
    return asked[query], offset, length, position, kind, found.encoded[query]
