"""A loaded catalogue in the place of the disk: the same answers, without a read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.errors import PathNotDirectoryError, PseudomountError
from pseudomount.filesystem.catalogue._strings import names_of
from pseudomount.filesystem.columns import NAT, TimeColumn
from pseudomount.filesystem.rows import FileRows, FileType, LinkRows

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue
    from pseudomount.filesystem.contract import FileSystem

__all__ = ["CatalogueSource"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

_STANDARD = frozenset(
    (
        *("file", "inode", "subvolume", "generation", "parent", "name", "name_raw", "type", "size", "allocated"),
        *("mode", "uid", "gid", "links", "created", "modified", "changed", "accessed", "flags", "target", "deleted"),
        "path",
    )
)


class CatalogueSource:
    """`children` and `rows` of a file system, answered from its catalogue.

    Ids that the catalogue does not have are asked of the file system itself. Thread-safe.
    """

    def __init__(self, catalogue: Catalogue, fs: FileSystem) -> None:
        """For a catalogue of all files of `fs`, with the parser's own columns."""
        self._catalogue = catalogue
        self._fs = fs

    # Both orders are made when they are first asked for: 10 million rows take a second.

    @cached_property
    def _live(self) -> Int64s:
        """The rows that are names a walk comes by."""
        table = self._catalogue.arrow
        live: NDArray[np.bool_] = ~_numpy(table["deleted"], 0).astype(np.bool_)
        live &= table["parent"].is_valid().to_numpy()
        live &= self._catalogue.directories.find(self._parent) >= 0
        return np.flatnonzero(live)

    @cached_property
    def _parent(self) -> UInt64s:
        return _numpy(self._catalogue.arrow["parent"], self._fs.root)

    @cached_property
    def _file(self) -> UInt64s:
        return _numpy(self._catalogue.arrow["file"], 0)

    @cached_property
    def _by_parent(self) -> tuple[UInt64s, Int64s]:
        parents = self._parent[self._live]
        order = np.argsort(parents, kind="stable")
        return parents[order], self._live[order]

    @cached_property
    def _by_file(self) -> tuple[UInt64s, Int64s]:
        order = np.argsort(self._file, kind="stable")
        return self._file[order], order

    def children(self, directories: UInt64s) -> LinkRows:
        """As `FileSystem.children`."""
        catalogue = self._catalogue
        parents, rows = self._by_parent
        first, last = np.searchsorted(parents, directories), np.searchsorted(parents, directories, side="right")
        counts = last - first
        ends = np.cumsum(counts)
        query = np.repeat(np.arange(len(directories)), counts)
        at = rows[np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - counts), counts)]
        errors: dict[int, PseudomountError] = {}
        known = catalogue.directories.find(directories) >= 0
        if not known.all() or catalogue.folder_errors:
            for i, file in enumerate(directories.tolist()):
                if file in catalogue.folder_errors:
                    errors[i] = catalogue.folder_errors[file]
                elif not known[i]:
                    errors[i] = catalogue.errors.get(file) or PathNotDirectoryError(f"file {file} is no directory")
        table = catalogue.arrow
        picked = pa.array(at)
        names = names_of(table["name"].take(picked), table["name_raw"].take(picked))
        kinds = _numpy(_codes(table["type"]), 0).astype(np.uint8)[at]
        return LinkRows(query, directories[query], self._file[at], names, kinds, errors)

    def rows(self, files: UInt64s) -> FileRows:
        """As `FileSystem.rows`."""
        ids, order = self._by_file
        at = np.minimum(np.searchsorted(ids, files), max(len(ids) - 1, 0))
        if not len(ids) or not (ids[at] == files).all():
            return self._fs.rows(files)
        rows = order[at]
        table = self._catalogue.arrow.take(pa.array(rows))
        errors = self._catalogue.errors
        failed = {i: errors[file] for i, file in enumerate(files.tolist()) if file in errors} if errors else {}
        kinds = _numpy(_codes(table["type"]), 0).astype(np.uint8)
        if failed:
            kinds[list(failed)] = FileType.UNKNOWN

        def number(name: str) -> Int64s:
            values = _numpy(pc.cast(table[name], pa.int64()), -1)
            return values

        def times(name: str) -> TimeColumn:
            known = self._catalogue.odd.get(name, {})
            odd = {i: known[row] for i, row in enumerate(rows.tolist()) if row in known} if known else {}
            return TimeColumn(_numpy(pc.cast(table[name], pa.int64()), NAT), odd)

        return FileRows(
            file=files,
            subvolume=_numpy(table["subvolume"], 0)
            if "subvolume" in table.column_names
            else np.zeros(len(files), np.uint64),
            inode=_numpy(table["inode"], 0),
            generation=number("generation"),
            type=kinds,
            size=number("size"),
            allocated=number("allocated"),
            mode=number("mode"),
            uid=number("uid"),
            gid=number("gid"),
            links=number("links"),
            created=times("created"),
            modified=times("modified"),
            changed=times("changed"),
            accessed=times("accessed"),
            flags=_numpy(table["flags"], 0),
            extra={name: _own(table[name]) for name in table.column_names if name not in _STANDARD},
            errors=failed,
        )


def _codes(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().indices


def _numpy(column: pa.ChunkedArray | pa.Array, null: int) -> NDArray[Any]:
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(null, column.type))
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    return values


def _own(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        return _numpy(pc.cast(column, pa.int64()), NAT).view("datetime64[ns]")
    return _numpy(column, -1 if pa.types.is_signed_integer(column.type) else 0)
