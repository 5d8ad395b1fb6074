"""A loaded catalogue in the place of the disk: the same answers, without a read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem.catalogue._arrow import arrow, is_null, numbers
from pseudomount.filesystem.catalogue._build import OWN, STANDARD
from pseudomount.filesystem.columns import NAT, Names, TimeColumn
from pseudomount.filesystem.names import unescape
from pseudomount.filesystem.rows import FileRows, FileType, LinkRows, Looked, Targets

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue
    from pseudomount.filesystem.contract import FileSystem

__all__ = ["CatalogueSource"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: Columns that `rows` answers from.
_ROWS = (
    *("file", "inode", "subvolume", "generation", "type", "size", "allocated", "mode", "uid", "gid", "links"),
    *("created", "modified", "changed", "accessed", "flags"),
)


class CatalogueSource:
    """`children`, `lookup`, `rows` and `readlink` of a file system, answered from its catalogue.

    What the catalogue does not have is asked of the file system itself. Thread-safe.
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
        live &= ~is_null(table["parent"])
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

    @cached_property
    def _names(self) -> Names:
        return self._catalogue.names()

    def _entries(self, directories: UInt64s) -> tuple[Int64s, Int64s]:
        """The rows that are entries of directories, and the position in the question of each."""
        parents, rows = self._by_parent
        first, last = np.searchsorted(parents, directories), np.searchsorted(parents, directories, side="right")
        counts = last - first
        ends = np.cumsum(counts)
        query = np.repeat(np.arange(len(directories)), counts)
        return rows[np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(first - (ends - counts), counts)], query

    def children(self, directories: UInt64s) -> LinkRows:
        """As `FileSystem.children`."""
        catalogue = self._catalogue
        if not bool((catalogue.directories.find(directories) >= 0).all()):
            return self._fs.children(directories)
        at, query = self._entries(directories)
        errors = {}
        if catalogue.folder_errors:
            told = catalogue.folder_errors
            errors = {i: told[file] for i, file in enumerate(directories.tolist()) if file in told}
        kinds = catalogue.type_codes[at].astype(np.uint8)
        return LinkRows(query, directories[query], self._file[at], self._names.take(at), kinds, errors)

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """As `FileSystem.lookup`: a name that is there letter by letter is told from here, all others by the disk.

        What a name that is not there stands for (in other case, an alias, the folded form of another one) is the file
        system's own affair; where names stand for nothing but themselves, it is not asked either.
        """
        catalogue = self._catalogue
        n = len(names)
        found, file = np.zeros(n, np.bool_), np.zeros(n, np.uint64)
        at, query = self._entries(directories)
        known = self._names
        size = known.offsets[at + 1] - known.offsets[at]
        wanted = np.fromiter(map(len, names), np.int64, n)
        for i in np.flatnonzero(size == wanted[query]).tolist():
            if not found[query[i]] and known[int(at[i])] == names[int(query[i])]:
                found[query[i]], file[query[i]] = True, self._file[at[i]]
        rest = np.flatnonzero(~found)
        if self._fs.literal_names and not catalogue.folder_errors:
            rest = rest[catalogue.directories.find(directories[rest]) < 0]
        errors: dict[int, PseudomountError] = {}
        if len(rest):
            asked = self._fs.lookup(directories[rest], [names[i] for i in rest.tolist()])
            found[rest], file[rest] = asked.found, asked.file
            errors = {int(rest[i]): error for i, error in asked.errors.items()}
        return Looked(file, found, errors)

    def readlink(self, files: UInt64s) -> Targets:
        """As `FileSystem.readlink`."""
        rows = self._rows_of(files)
        if rows is not None:
            column = self._catalogue.arrow["target"].take(arrow(rows))
            if not column.null_count:
                encoding = self._fs.name_encoding
                return Targets(Names.of(encoding.encode(unescape(text, encoding)) for text in column.to_pylist()))
        return self._fs.readlink(files)

    def _rows_of(self, files: UInt64s) -> Int64s | None:
        """A row of each file; None if one of them has none."""
        ids, order = self._by_file
        at = np.minimum(np.searchsorted(ids, files), max(len(ids) - 1, 0))
        if not len(ids) or not (ids[at] == files).all():
            return None
        return order[at]

    def rows(self, files: UInt64s) -> FileRows:
        """As `FileSystem.rows`."""
        rows = self._rows_of(files)
        if rows is None:
            return self._fs.rows(files)
        return file_rows(self._catalogue, rows)


def file_rows(catalogue: Catalogue, rows: NDArray[np.integer]) -> FileRows:
    """See `Catalogue.file_rows`."""
    own = [name for name in catalogue.arrow.column_names if name not in STANDARD]
    wanted = [name for name in (*_ROWS, *own) if name in catalogue.arrow.column_names]
    table = catalogue.arrow.select(wanted).take(arrow(rows))
    files = _numpy(table["file"], 0)
    kinds = catalogue.type_codes[rows].astype(np.uint8)
    failed: dict[int, PseudomountError] = {}
    if table["inode"].null_count:
        broken = np.flatnonzero(is_null(table["inode"])).tolist()
        kinds[broken] = FileType.UNKNOWN
        failed = {i: _error(catalogue, int(files[i])) for i in broken}

    def number(name: str) -> Int64s:
        values = _numpy(pc.cast(table[name], pa.int64()), -1)
        return values

    def times(name: str) -> TimeColumn:
        known = catalogue.odd.get(name, {})
        odd = {i: known[row] for i, row in enumerate(rows.tolist()) if row in known} if known else {}
        return TimeColumn(_numpy(pc.cast(table[name], pa.int64()), NAT), odd)

    return FileRows(
        file=files,
        subvolume=_numpy(table["subvolume"], 0) if "subvolume" in wanted else np.zeros(len(files), np.uint64),
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
        extra={name.removesuffix(OWN): _own(table[name]) for name in own},
        errors=failed,
    )


def _error(catalogue: Catalogue, file: int) -> PseudomountError:
    """Why nothing is known of a file."""
    known = catalogue.errors.get(file)
    return known or CorruptionError(f"file {file} could not be read when the catalogue was made", structure="file")


def _numpy(column: pa.ChunkedArray | pa.Array, null: int) -> NDArray[Any]:
    return numbers(column, null)


def _own(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_timestamp(column.type):
        return _numpy(pc.cast(column, pa.int64()), NAT).view("datetime64[ns]")
    return _numpy(column, -1 if pa.types.is_signed_integer(column.type) else 0)
