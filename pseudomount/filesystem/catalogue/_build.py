"""From the parts of a scan to the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem.catalogue._directories import Directories
from pseudomount.filesystem.catalogue._strings import binary_column, escaped_names, string_column
from pseudomount.filesystem.columns import NAT, Names
from pseudomount.filesystem.contract import FileSystem
from pseudomount.filesystem.rows import FileRows, FileType
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import Severity

__all__ = ["Built", "build"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
OddTimes = dict[str, dict[int, tuple[int, int]]]

_TIMES = ("created", "modified", "changed", "accessed")
#: Columns of `FileRows` in which -1 is null, and how wide the values are.
_NUMBERS: dict[str, type[np.generic]] = {
    "generation": np.int64,
    "size": np.int64,
    "allocated": np.int64,
    "mode": np.uint32,
    "uid": np.uint32,
    "gid": np.uint32,
    "links": np.uint32,
}
_WORDS = pa.array([kind.word for kind in FileType], pa.string())
_STAMP = pa.timestamp("ns", "UTC")
#: Findings that are looked up and told of one structure.
_TOLD = 10_000


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` makes of a scan; see `Catalogue`."""

    table: pa.Table
    directories: Directories
    streams: pa.Table
    odd: OddTimes
    errors: dict[int, PseudomountError]
    folder_errors: dict[int, PseudomountError]


class _Column:
    """A column that grows part by part and is kept as narrow as it ends up."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._parts: list[NDArray[Any]] = []
        self._null: list[Bools] = []
        self._any = False

    def add(self, values: NDArray[Any]) -> None:
        """The next rows; negative numbers, where the column has none, are null."""
        null = values < 0
        self._any = self._any or bool(null.any())
        self._null.append(null)
        self._parts.append(values.astype(self._dtype))

    def take(self, rows: Int64s | None, absent: Bools | None) -> pa.Array:
        """The column as Arrow, its rows picked, null where `absent`; the parts are let go."""
        values, null = _joined(self._parts), _joined(self._null)
        self._parts, self._null = [], []
        mask = null if self._any else None
        if rows is not None:
            values, mask = values[rows], None if mask is None else mask[rows]
        if absent is not None:
            mask = absent if mask is None else mask | absent
        return pa.array(values, mask=mask)


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """The parts as one, which takes their place."""
    if len(parts) != 1:
        parts[:] = [np.concatenate(parts)]
    return parts[0]


class _Files:
    """The files of all parts."""

    def __init__(self, *, extra: bool) -> None:
        self._with_extra = extra
        self.file: list[UInt64s] = []
        self.inode: list[UInt64s] = []
        self.subvolume: list[UInt64s] = []
        self.type: list[NDArray[np.uint8]] = []
        self.flags: list[UInt64s] = []
        self.deleted: list[Bools] = []
        self.numbers = {name: _Column(dtype) for name, dtype in _NUMBERS.items()}
        self.times: dict[str, list[Int64s]] = {name: [] for name in _TIMES}
        self.odd: OddTimes = {}
        self.extra: dict[str, list[NDArray[Any]]] = {}
        self.errors: dict[int, PseudomountError] = {}
        self.count = 0

    def add(self, rows: FileRows, deleted: Bools) -> None:
        """The next files."""
        self.file.append(rows.file)
        self.inode.append(rows.inode)
        self.subvolume.append(rows.subvolume)
        self.type.append(rows.type)
        self.flags.append(rows.flags)
        self.deleted.append(deleted)
        for name, column in self.numbers.items():
            column.add(getattr(rows, name))
        for name, parts in self.times.items():
            times = getattr(rows, name)
            parts.append(times.ns)
            if times.odd:
                self.odd.setdefault(name, {}).update((self.count + row, exact) for row, exact in times.odd.items())
        if self._with_extra:
            for name, values in rows.extra.items():
                self.extra.setdefault(name, []).append(np.asarray(values))
        self.errors.update((int(rows.file[row]), error) for row, error in rows.errors.items())
        self.count += len(rows)

    def without(self, at: Int64s) -> Int64s:
        """The files that none of `at` is, and that make sense."""
        rest = np.ones(self.count, np.bool_)
        rest[at] = False
        return np.flatnonzero(rest & (_joined(self.type) != FileType.UNKNOWN))


class _Links:
    """The names of all parts."""

    def __init__(self) -> None:
        self.parent: list[UInt64s] = []
        self.file: list[UInt64s] = []
        self.name: list[Names] = []
        self.type: list[NDArray[np.uint8]] = []
        self.deleted: list[Bools] = []

    def clear(self) -> None:
        """Lets go of them."""
        for parts in (self.parent, self.file, self.name, self.type, self.deleted):
            parts.clear()

    def add(self, links: ScanLinks) -> None:
        """The next names."""
        self.parent.append(links.parent)
        self.file.append(links.file)
        self.name.append(links.name)
        self.type.append(links.type)
        self.deleted.append(links.deleted)


def build(
    fs: FileSystem,
    batches: Iterable[ScanBatch],
    *,
    deleted: bool,
    extra: bool,
    progress: Callable[[float], object] | None = None,
) -> Built:
    """The columns of a catalogue, of which the root is the first row.

    Names in directories that no path leads to are left out, unless deleted ones are wanted; then files without a name
    are rows, too. Each error becomes a finding with the path it concerns.
    """
    files, links = _Files(extra=extra), _Links()
    streams: list[ScanStreams] = []
    folder_errors: dict[int, PseudomountError] = {}
    for batch in batches:
        files.add(batch.files, batch.deleted)
        links.add(batch.links)
        if len(batch.streams):
            streams.append(batch.streams)
        folder_errors.update(batch.errors)
        if progress is not None:
            progress(batch.done)
    entries = _entries(fs, files, links)
    names, changed = escaped_names(entries.name, fs.name_encoding)
    raw = entries.name.take(changed)
    entries.name = Names.of([])
    name = string_column(names)
    directories = _directories(fs, entries, name)
    keep = _reachable(fs, entries, directories, everything=deleted)
    nameless = files.without(entries.at) if deleted else np.empty(0, np.int64)
    if keep is not None or len(nameless):
        rows = np.arange(len(entries.at)) if keep is None else np.flatnonzero(keep)
        new = np.full(len(entries.at) + 1, -1, np.int64)
        new[rows] = np.arange(len(rows))
        directories = replace(directories, row=new[directories.row])
        kept = new[changed] >= 0
        changed, raw = new[changed[kept]], raw.take(kept)
        name = name.take(pa.array(np.append(rows, np.full(len(nameless), -1)), mask=_tail(len(rows), len(nameless))))
        entries = entries.take(rows, nameless, files)
    table, odd = _table(fs, files, entries, name, binary_column(raw, changed, len(entries.at)))
    listed = set(entries.file[np.isin(entries.file, np.fromiter(files.errors, np.uint64, len(files.errors)))].tolist())
    errors = {file: error for file, error in files.errors.items() if file in listed}
    _note(fs, entries, directories, table, errors, folder_errors)
    return Built(table, directories, _stream_table(fs, streams), odd, errors, folder_errors)


@dataclass(slots=True)
class _Entries:
    """The rows to be.

    Attributes:
        at: int64 (n,), which file of `_Files` each is of; the first is the root's.
        file, parent: uint64 (n,), ids.
        name: n names.
        type: uint8 (n,), `FileType`.
        deleted: bool (n,), the name or the file was.
        orphan: bool (n,), there is no name and no parent.
    """

    at: Int64s
    file: UInt64s
    parent: UInt64s
    name: Names
    type: NDArray[np.uint8]
    deleted: Bools
    orphan: Bools

    def take(self, rows: Int64s, nameless: Int64s, files: _Files) -> _Entries:
        """Some of them, and behind them those of files without a name; names are not kept."""
        ids = _joined(files.file)
        return _Entries(
            np.append(self.at[rows], nameless),
            np.append(self.file[rows], ids[nameless]),
            np.append(self.parent[rows], ids[nameless]),
            self.name,
            np.append(self.type[rows], _joined(files.type)[nameless]),
            np.append(self.deleted[rows], _joined(files.deleted)[nameless]),
            np.append(self.orphan[rows], np.ones(len(nameless), np.bool_)),
        )


def _entries(fs: FileSystem, files: _Files, links: _Links) -> _Entries:
    """The root and all names, each with the file that it is of."""
    root = np.array([fs.root], np.uint64)
    named = np.concatenate([root, *links.file])
    parent = np.concatenate([root, *links.parent])
    ids = _joined(files.file)
    order, ordered = _order(ids)
    at = np.minimum(np.searchsorted(ordered, named), max(len(ordered) - 1, 0))
    absent = ordered[at] != named if len(ordered) else np.ones(len(named), np.bool_)
    if order is not None:
        at = order[at]
    if absent.any():  # names of files that the tables do not have: the file system says what it knows of those
        lost, which = np.unique(named[absent], return_inverse=True)
        at[absent] = files.count + which
        files.add(fs.rows(lost), np.zeros(len(lost), np.bool_))
    kinds = _joined(files.type)
    if files.errors:
        kinds = kinds.copy()
        kinds[np.isin(_joined(files.file), np.fromiter(files.errors, np.uint64))] = FileType.UNKNOWN
    said = np.concatenate([np.array([FileType.DIRECTORY], np.uint8), *links.type])
    gone = np.concatenate([np.zeros(1, np.bool_), *links.deleted]) | _joined(files.deleted)[at]
    name = Names.concat([Names.of([b""]), *links.name])
    links.clear()
    found = kinds[at]
    return _Entries(
        at, named, parent, name, np.where(found == FileType.UNKNOWN, said, found), gone, np.zeros(len(at), np.bool_)
    )


def _order(ids: UInt64s) -> tuple[Int64s | None, UInt64s]:
    """How to sort ids (None: they are), and the ids so sorted."""
    if len(ids) < 2 or bool((ids[1:] > ids[:-1]).all()):
        return None, ids
    order = np.argsort(ids, kind="stable")
    return order, ids[order]


def _directories(fs: FileSystem, entries: _Entries, name: pa.ChunkedArray) -> Directories:
    rows = np.flatnonzero(entries.type == FileType.DIRECTORY)
    rows = rows[rows > 0]
    found = Directories.of(fs.root, entries.file[rows], entries.parent[rows], rows, entries.deleted[rows], name)
    found.row[found.find(np.array([fs.root], np.uint64))] = 0
    if found.too_deep:
        fs.findings.add_error(CorruptionError("directories nest too deep", structure="directory"))
    twice = rows[found.row[found.find(entries.file[rows])] != rows]
    twice = twice[~entries.deleted[twice] & (found.find(entries.parent[twice]) >= 0)]
    for file in np.unique(entries.file[twice]).tolist()[:_TOLD]:
        fs.findings.add_error(
            CorruptionError("a directory that several entries claim", structure="directory"), file=file
        )
    return found


def _reachable(fs: FileSystem, entries: _Entries, directories: Directories, *, everything: bool) -> Bools | None:
    """Which rows to keep, None for all."""
    lost = directories.find(entries.parent) < 0
    lost[0] = False
    live = int((lost & ~entries.deleted).sum())
    if live:
        fs.findings.add(
            Severity.NOTE,
            f"{live} names lie in directories to which no path leads; deleted=True lists them, too",
            structure="directory tree",
        )
    if everything or not lost.any():
        return None
    return ~lost


def _tail(first: int, last: int) -> Bools:
    return np.append(np.zeros(first, np.bool_), np.ones(last, np.bool_))


def _table(
    fs: FileSystem, files: _Files, entries: _Entries, name: pa.ChunkedArray, raw: pa.ChunkedArray
) -> tuple[pa.Table, OddTimes]:
    """The columns, one after the other, so that only one of them is ever there twice."""
    at = entries.at
    n = len(at)
    identical = n == files.count and bool((at == np.arange(n)).all())
    rows = None if identical else at
    # What is known of a file whose record could not be read means nothing.
    broken = None
    if files.errors:
        broken = np.isin(entries.file, np.fromiter(files.errors, np.uint64, len(files.errors)))
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"file": pa.array(entries.file)}
    columns["inode"] = pa.array(_taken(files.inode, rows), mask=broken)
    subvolume = _taken(files.subvolume, rows)
    if subvolume.any():
        columns["subvolume"] = pa.array(subvolume)
    columns["generation"] = files.numbers["generation"].take(rows, broken)
    top = entries.orphan.copy()
    top[0] = True
    columns["parent"] = pa.array(entries.parent, mask=top)
    columns["name"], columns["name_raw"] = name, raw
    columns["type"] = pa.DictionaryArray.from_arrays(pa.array(entries.type.astype(np.int8)), _WORDS)
    for column in ("size", "allocated", "mode", "uid", "gid", "links"):
        columns[column] = files.numbers[column].take(rows, broken)
    odd: OddTimes = {}
    for column in _TIMES:
        stamps = _taken(files.times[column], rows)
        if broken is not None:
            stamps = np.where(broken, NAT, stamps)
        columns[column] = pa.array(stamps.view("datetime64[ns]"), _STAMP)
        if column in files.odd:
            known = files.odd[column]
            hits = np.flatnonzero(np.isin(at, np.fromiter(known, np.int64, len(known))))
            odd[column] = {row: known[int(at[row])] for row in hits.tolist()}
    columns["flags"] = pa.array(_taken(files.flags, rows), mask=broken)
    columns["target"] = _targets(fs, entries)
    columns["deleted"] = pa.array(entries.deleted)
    for column in list(files.extra):
        columns[column if column not in columns else f"{column}_extra"] = _extra(_taken(files.extra[column], rows), n)
    return pa.table(columns), odd


def _taken(parts: list[NDArray[Any]], rows: Int64s | None) -> NDArray[Any]:
    values = _joined(parts)
    parts.clear()
    return values if rows is None else values[rows]


def _extra(values: NDArray[Any], n: int) -> pa.Array:
    """A parser's own column: times where they are times, and null where a signed number is negative."""
    if values.dtype.kind == "M":
        return pa.array(values.astype("datetime64[ns]"), _STAMP)
    if values.dtype.kind == "i":
        null = values < 0
        return pa.array(values, mask=null) if null.any() else pa.array(values)
    return pa.array(values)


def _targets(fs: FileSystem, entries: _Entries) -> pa.ChunkedArray:
    """Where links lead to, in escaped form; null for what is no link, or one that could not be read."""
    n = len(entries.at)
    rows = np.flatnonzero(entries.type == FileType.SYMLINK)
    if not len(rows):
        return pa.chunked_array([pa.nulls(n, pa.string())])
    ids, which = np.unique(entries.file[rows], return_inverse=True)
    found = fs.readlink(ids)
    known = np.ones(len(ids), np.bool_)
    known[list(found.errors)] = False
    for i, error in found.errors.items():
        fs.findings.add_error(error, file=int(ids[i]))
    shown, _ = escaped_names(found.target, fs.name_encoding)
    rows, which = rows[known[which]], which[known[which]]
    values = shown.take(which)
    offsets = np.zeros(n + 1, np.int64)
    offsets[rows + 1] = np.diff(values.offsets)
    has = np.zeros(n, np.bool_)
    has[rows] = True
    return string_column(Names(values.buffer, np.cumsum(offsets)), has)


def _note(
    fs: FileSystem,
    entries: _Entries,
    directories: Directories,
    table: pa.Table,
    errors: dict[int, PseudomountError],
    folder_errors: dict[int, PseudomountError],
) -> None:
    """Errors as findings, with the path of the file they are of; there are few, or the log is full soon."""
    told = {**folder_errors, **errors}
    files = np.fromiter(told, np.uint64, len(told))[:_TOLD]
    if not len(files):
        return
    hits = np.flatnonzero(np.isin(entries.file, files))
    above = directories.find(entries.parent[hits])
    hits, above = hits[above >= 0], above[above >= 0]
    prefixes = directories.prefixes(above).to_pylist()
    names = table["name"].take(pa.array(hits)).to_pylist()
    paths: dict[int, str] = {}
    for row, prefix, name in zip(hits.tolist(), prefixes, names, strict=True):
        paths.setdefault(int(entries.file[row]), f"{prefix}/{name}")
    for number in files.tolist():
        fs.findings.add_error(told[number], file=number, path=paths.get(number, ""))


def _stream_table(fs: FileSystem, parts: list[ScanStreams]) -> pa.Table:
    """Named streams: `file`, `name`, `size`, `allocated`."""
    file = np.concatenate([part.file for part in parts]) if parts else np.empty(0, np.uint64)
    names = Names.concat([part.name for part in parts]) if parts else Names.of([])
    shown, _ = escaped_names(names, fs.name_encoding)
    size = np.concatenate([part.size for part in parts]) if parts else np.empty(0, np.int64)
    allocated = np.concatenate([part.allocated for part in parts]) if parts else np.empty(0, np.int64)
    return pa.table({"file": file, "name": string_column(shown), "size": size, "allocated": allocated})
