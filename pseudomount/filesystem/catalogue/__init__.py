"""The catalogue: every file of a volume as columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.errors import BatchTooLargeError, PathNotFoundError, PseudomountError, UsageError
from pseudomount.filesystem.catalogue._arrow import arrow as as_arrow
from pseudomount.filesystem.catalogue._arrow import is_null, number, numbers, text
from pseudomount.filesystem.catalogue._build import Built, OddTimes, build
from pseudomount.filesystem.catalogue._directories import MOST_BYTES, Directories
from pseudomount.filesystem.catalogue._find import Conditions, select
from pseudomount.filesystem.catalogue._runs import run_table
from pseudomount.filesystem.catalogue._source import CatalogueSource, file_rows
from pseudomount.filesystem.catalogue._strings import names_of
from pseudomount.filesystem.catalogue._usage import usage
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.contract import FileSystem
from pseudomount.filesystem.names import unescape
from pseudomount.filesystem.rows import FileRows, FileType, NameEncoding

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

__all__ = ["Catalogue", "CatalogueSource", "run_table", "scan_catalogue"]

#: What no name in escaped form has.
_SURROGATE = re.compile("[\ud800-\udfff]")

Rows = slice | NDArray[np.integer] | NDArray[np.bool_]


class Catalogue:
    """All files of a volume, or some of them: a row for each name. Immutable.

    Columns (Arrow types; all may be null but `file`, `type` and `deleted`):

    - `file` uint64: the id by which the parser knows the file; `parent` uint64: that of the directory the name is in,
      null for the root and for files without a name.
    - `inode` uint64, `generation` int64, and `subvolume` uint64 where the file system has subvolumes: what identifies
      the file across backups.
    - `name` string: always valid UTF-8, escaped where needed; `name_raw` binary: the disk's bytes of names that
      had to be escaped. The root's name is "".
    - `type` dictionary: "file", "dir", "symlink", "char", "block", "fifo", "socket", "unknown".
    - `size`, `allocated` int64, bytes; `mode` uint32 as in `st_mode`; `uid`, `gid`, `links` uint32.
    - `created`, `modified`, `changed`, `accessed` timestamp[ns, UTC]; null too where 64 bits cannot hold it: see `odd`.
    - `flags` uint64: attribute bits as the file system defines them; `target` string: where a link leads, escaped.
    - `deleted` bool: the name or the file was deleted; what it names may have been overwritten.
    - whatever else the parser knows of a file, under its own names, unless that was left out.

    Attributes:
        arrow: the columns, pyarrow.Table; DuckDB, polars and pandas read it as it is.
        streams: named streams, pyarrow.Table (`file`, `name`, `name_raw`, `size`, `allocated`).
        directories: the tree that the rows lie in; it is the whole volume's also where the rows are a selection.
        odd: column of time → row → (seconds since 1970, nanoseconds), of the times that int64 nanoseconds cannot hold.
        errors: file → why nothing is known of it (its `inode` is null), of the first 100,000.
        folder_errors: directory → what was wrong with its entries. A catalogue that comes from a file has neither.
        encoding: how the file system's names become Python strings.
        case_sensitive: whether the file system tells upper from lower case.
        filesystem, volume: "ext4" …, "disk0p2" …
    """

    def __init__(
        self,
        arrow: pa.Table,
        directories: Directories,
        *,
        streams: pa.Table,
        encoding: NameEncoding,
        case_sensitive: bool,
        filesystem: str = "",
        volume: str = "",
        odd: OddTimes | None = None,
        errors: Mapping[int, PseudomountError] | None = None,
        folder_errors: Mapping[int, PseudomountError] | None = None,
    ) -> None:
        """For use by `scan_catalogue` and `read_parquet`."""
        self.arrow = arrow
        self.directories = directories
        self.streams = streams
        self.encoding = encoding
        self.case_sensitive = case_sensitive
        self.filesystem = filesystem
        self.volume = volume
        self.odd = odd or {}
        self.errors = errors or {}
        self.folder_errors = folder_errors or {}

    # -- rows --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        count: int = self.arrow.num_rows
        return count

    def __repr__(self) -> str:
        return f"<Catalogue {self.volume} {self.filesystem}: {len(self)} rows>"

    def __getitem__(self, rows: Rows) -> Catalogue:
        """A selection of rows, by slice, numbers or mask."""
        if isinstance(rows, slice):
            first, last, step = rows.indices(len(self))
            if step == 1:
                last = max(first, last)
                return self._with(np.arange(first, last), self.arrow.slice(first, last - first))
        return self._with(_numbers(rows, len(self)))

    def _with(self, rows: NDArray[np.integer], arrow: pa.Table | None = None) -> Catalogue:
        """A selection; `arrow` is the columns of these rows where somebody has them already."""
        arrow = self.arrow.take(as_arrow(rows)) if arrow is None else arrow
        odd: OddTimes = {}
        for name, known in self.odd.items():
            hits = np.flatnonzero(np.isin(rows, np.fromiter(known, np.int64, len(known))))
            odd[name] = {row: known[int(rows[row])] for row in hits.tolist()}
        streams = self.streams
        if len(streams):
            streams = streams.filter(pc.is_in(streams["file"], arrow["file"].combine_chunks()))
        return Catalogue(
            arrow,
            self.directories,
            streams=streams,
            encoding=self.encoding,
            case_sensitive=self.case_sensitive,
            filesystem=self.filesystem,
            volume=self.volume,
            odd=odd,
            errors=self.errors,
            folder_errors=self.folder_errors,
        )

    def find(
        self,
        name: str | None = None,
        *,
        regex: str | re.Pattern[str] | None = None,
        type: str | FileType | Sequence[str | FileType] | None = None,  # noqa: A002
        min_size: int | None = None,
        max_size: int | None = None,
        newer: datetime | int | None = None,
        older: datetime | int | None = None,
        time: str = "modified",
        under: str | int | None = None,
        ignore_case: bool | None = None,
        deleted: bool | None = None,
    ) -> Catalogue:
        """The rows that meet all conditions, in their order.

        Args:
            name: a pattern for the name, as `fnmatch` reads it; compared with the name itself, not its escaped form.
            regex: Python's regular expression, searched in the escaped path.
            type: kinds of file, as the column has them.
            min_size, max_size: bytes, both included.
            newer, older: at or after, and before; datetime (naive: UTC) or nanoseconds since 1970.
            time: the column that these are about.
            under: path of a directory in escaped form, or its id: what lies below it, itself left out.
            ignore_case: whether `name` fits whatever the case; by default as the file system compares names.
            deleted: whether to have deleted rows only, or only the others.

        Raises:
            PathNotFoundError: there is no directory `under`.
            UsageError: a condition has no meaning.
        """
        ignore = not self.case_sensitive if ignore_case is None else ignore_case
        conditions = Conditions(name, ignore, regex, type, min_size, max_size, newer, older, time, deleted)
        inside = None
        if under is not None:
            inside = self.directories.below(self._directory(under))
        rows = select(self, conditions, inside)
        return self if len(rows) == len(self) else self._with(rows)

    def children(self, directory: int | str) -> Catalogue:
        """The rows that are entries of a directory, by id or by path in escaped form; deleted names included."""
        file = number(int(self.directories.ids[self._directory(directory)]), pa.uint64())
        return self._with(np.flatnonzero(numbers(pc.equal(self.arrow["parent"], file), 0)))

    def sort(self, by: str | Sequence[str] = "path", *, descending: bool = False) -> Catalogue:
        """The rows in the order of one or more columns, "path" among them; nulls last, equal ones as they were.

        Raises:
            UsageError: there is no such column.
        """
        keys = [by] if isinstance(by, str) else list(by)
        for key in keys:
            if key != "path" and key not in self.arrow.column_names:
                raise UsageError(f"there is no column {key!r}; there are path, {', '.join(self.arrow.column_names)}")
        order = "descending" if descending else "ascending"
        table = pa.table({key: self.paths() if key == "path" else _sortable(self.arrow[key]) for key in keys})
        return self._with(numbers(pc.sort_indices(table, sort_keys=[(key, order) for key in keys])))

    def _directory(self, place: str | int) -> int:
        """Position in `directories` of a directory by its id, or by its path in escaped form."""
        tree = self.directories
        if not isinstance(place, str):
            found = tree.find(np.array([place], np.uint64)) if 0 <= place < 1 << 64 else [-1]
            if found[0] < 0:
                raise PathNotFoundError(f"no directory has the id {place}")
            return int(found[0])
        at = int(tree.levels[0][0])
        for part in [part for part in place.split("/") if part]:
            below = np.flatnonzero((tree.parent == at) & (tree.depth > 0))
            names = tree.name.take(as_arrow(below))
            hits = np.empty(0, np.int64)
            if not _SURROGATE.search(part):
                hits = np.flatnonzero(numbers(pc.equal(names, text(part, pa.string()))))
                if not len(hits) and not self.case_sensitive:
                    folded = pc.equal(pc.utf8_lower(names), pc.utf8_lower(text(part, pa.string())))
                    hits = np.flatnonzero(numbers(folded))
            if not len(hits):
                raise PathNotFoundError(f"{place}: no such directory", path=place)
            at = int(below[hits[0]])
        return at

    # -- paths -------------------------------------------------------------------------------------------------------

    def paths(self) -> pa.ChunkedArray:
        """The rows' paths, large strings in escaped form; null for a file that no path leads to.

        Raises:
            BatchTooLargeError: they are more than 8 GiB long; ask for those of fewer rows.
        """
        tree = self.directories
        parent = self.arrow["parent"]
        top = is_null(parent)
        above = tree.find(numbers(parent, 0))
        above[top] = -1
        names = self.arrow["name"]
        known = np.flatnonzero(above >= 0)
        total = int(tree.lengths()[above[known]].sum()) + names.nbytes
        if total > MOST_BYTES:
            raise BatchTooLargeError(f"the paths of {len(self)} rows are {total} bytes long; ask for those of fewer")
        used = np.zeros(len(tree.ids), np.bool_)
        used[above[known]] = True
        place_of = np.cumsum(used) - 1
        prefixes = tree.prefixes(np.flatnonzero(used)).take(as_arrow(place_of[above[known]]))
        tails = pc.cast(names.take(as_arrow(known)), pa.large_string())
        found = pc.binary_join_element_wise(prefixes, tails.combine_chunks(), text("/"))
        if len(known) == len(self):
            return pa.chunked_array([found])
        place = np.full(len(self), -1, np.int64)
        place[known] = np.arange(len(known))
        root = numbers(self.arrow["file"]) == tree.ids[tree.levels[0][0]]
        found = found.take(as_arrow(np.maximum(place, 0), place < 0))
        return pa.chunked_array([pc.if_else(as_arrow(root & top), text("/"), found)])

    def file_rows(self, rows: NDArray[np.integer]) -> FileRows:
        """What is known of the files of some rows, as `FileSystem.rows` says it."""
        return file_rows(self, rows)

    def names(self) -> Names:
        """The disk's own names; empty for what has none."""
        return names_of(self.arrow["name"], self.arrow["name_raw"])

    def regular_files(self) -> NDArray[np.uint64]:
        """The ids of all regular files among the rows, each once, in their order."""
        ids = numbers(self.arrow["file"])[self.type_codes == FileType.FILE]
        _, first = np.unique(ids, return_index=True)
        found: NDArray[np.uint64] = ids[np.sort(first)]
        return found

    def path_of(self, row: int) -> str | None:
        """The path of one row as a Python string, not escaped: `volume.path` takes it."""
        text: str | None = self[np.array([row])].paths()[0].as_py()
        return None if text is None else unescape(text, self.encoding)

    # -- sums --------------------------------------------------------------------------------------------------------

    def du(self, depth: int | None = None, *, under: str | int = "/") -> pa.Table:
        """What directories hold, all that is below them included: `path`, `files`, `directories`, `size`, `allocated`.

        A file with several names counts once, where its first one is. Deleted rows are left out. In order of the paths.

        Args:
            depth: how many levels below the directory are told; by default all.
            under: the directory to begin with, by path in escaped form or by id.

        Raises:
            PathNotFoundError: there is no such directory.
        """
        return usage(self, depth, self._directory(under))

    # -- to others ---------------------------------------------------------------------------------------------------

    def to_arrow(self, *, paths: bool = True) -> pa.Table:
        """The columns, with `path` in front."""
        return self.arrow.add_column(0, "path", self.paths()) if paths else self.arrow

    def to_pandas(self, *, paths: bool = True) -> pd.DataFrame:
        """As a pandas DataFrame; needs pandas."""
        frame: pd.DataFrame = self.to_arrow(paths=paths).to_pandas()
        return frame

    def to_polars(self, *, paths: bool = True) -> pl.DataFrame:
        """As a polars DataFrame; needs polars."""
        import polars

        frame = polars.from_arrow(self.to_arrow(paths=paths))
        if not isinstance(frame, polars.DataFrame):
            raise TypeError("polars made no DataFrame of a table")
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The Arrow PyCapsule interface: `pa.table(catalogue)`, `polars.DataFrame(catalogue)`; without paths."""
        return self.arrow.__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The schema for the same interface."""
        return self.arrow.schema.__arrow_c_schema__()

    def to_parquet(self, where: str | Path | IO[bytes], *, paths: bool = True) -> None:
        """Writes the columns, with `path` unless told otherwise, and what `read_parquet` needs to make it anew."""
        from pseudomount.filesystem.catalogue._files import write_parquet

        write_parquet(self, where, paths=paths)

    @classmethod
    def read_parquet(cls, where: str | Path | IO[bytes]) -> Self:
        """A catalogue that `to_parquet` wrote.

        Raises:
            UnsupportedError: the file is none.
        """
        from pseudomount.filesystem.catalogue._files import read_parquet

        return cls(**read_parquet(where))

    @cached_property
    def type_codes(self) -> NDArray[np.int8]:
        """int8 (n,) `FileType` of each row."""
        codes: NDArray[np.int8] = numbers(self.arrow["type"].combine_chunks().indices)
        return codes


def scan_catalogue(
    fs: FileSystem,
    *,
    volume: str = "",
    deleted: bool = False,
    extra: bool = True,
    progress: Callable[[float], object] | None = None,
) -> Catalogue:
    """The catalogue of a file system, from one pass over its tables.

    Args:
        fs: where.
        volume: its name.
        deleted: whether deleted names and files are wanted, and files that no path leads to.
        extra: whether the parser's own columns are wanted.
        progress: told from time to time how much is done, 0 to 1.
    """
    built: Built = build(fs, fs.scan(deleted=deleted), deleted=deleted, extra=extra, progress=progress)
    return Catalogue(
        built.table,
        built.directories,
        streams=built.streams,
        encoding=fs.name_encoding,
        case_sensitive=fs.case_sensitive,
        filesystem=fs.name,
        volume=volume,
        odd=built.odd,
        errors=built.errors,
        folder_errors=built.folder_errors,
    )


def _numbers(rows: Rows, n: int) -> NDArray[np.integer]:
    if isinstance(rows, slice):
        return np.arange(n)[rows]
    given = np.asarray(rows)
    if given.dtype == np.bool_:
        if given.shape != (n,):
            raise IndexError(f"a mask of {given.shape} for {n} rows")
        return np.flatnonzero(given)
    return np.arange(n)[given.astype(np.int64)]


def _sortable(column: pa.ChunkedArray) -> Any:
    return pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
