"""From the parts of a scan to the columns of a catalogue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem.catalogue._arrow import arrow, arrow_times, strings
from pseudomount.filesystem.catalogue._columns import Column, contains, pick, positions
from pseudomount.filesystem.catalogue._directories import Directories
from pseudomount.filesystem.catalogue._gather import KEPT, NUMBERS, TIMES, Files, Links, OddTimes
from pseudomount.filesystem.catalogue._strings import binary_column, escaped_names, string_column
from pseudomount.filesystem.columns import NAT, Names
from pseudomount.filesystem.contract import FileSystem
from pseudomount.filesystem.rows import FileType
from pseudomount.filesystem.scan import ScanBatch, ScanStreams
from pseudomount.findings import Severity

__all__ = ["OWN", "STANDARD", "WORDS", "Built", "OddTimes", "build"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]
Rows = NDArray[np.integer]

#: All columns that a catalogue can have besides a parser's own.
STANDARD = frozenset(
    (
        *("path", "file", "inode", "subvolume", "parent", "name", "name_raw", "type", "flags", "target", "deleted"),
        *NUMBERS,
        *TIMES,
    )
)
#: What the name of a parser's own column gets where a catalogue has one of that name.
OWN = "_extra"
WORDS = strings([kind.word for kind in FileType], pa.string())
#: Findings that are looked up and told of one structure, and bytes of paths that they get.
_TOLD, _TOLD_BYTES = 10_000, 64 << 20
#: Files that the file system is asked about at once.
_ASKED = 1 << 16


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` makes of a scan; see `Catalogue`."""

    table: pa.Table
    directories: Directories
    streams: pa.Table
    odd: OddTimes
    errors: dict[int, PseudomountError]
    folder_errors: dict[int, PseudomountError]


@dataclass(slots=True)
class _Entries:
    """The rows to be.

    Attributes:
        at: int (n,), which file of `Files` each is of; None: they are the same in the same order.
        file, parent: uint64 (n,), ids; the first is the root.
        type: uint8 (n,), `FileType`.
        deleted: bool (n,), the name or the file was.
        orphans: the last rows that have no name and no parent.
    """

    at: Rows | None
    file: UInt64s
    parent: UInt64s
    type: UInt8s
    deleted: Bools
    orphans: int = 0

    def __len__(self) -> int:
        return len(self.file)


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

    Memory is at no time much more than the result and one column: what a column was made of is let go before the next.
    """
    files, links = Files(extra=extra), Links(fs.root, fs.name_encoding)
    streams: list[ScanStreams] = []
    folder_errors: dict[int, PseudomountError] = {}
    done = 0.0
    for batch in batches:
        files.add(batch.files, batch.deleted)
        links.add(batch.links)
        if len(batch.streams):
            streams.append(batch.streams)
        for file, error in batch.errors.items():
            if len(folder_errors) < KEPT:
                folder_errors[file] = error
        done = max(done, min(batch.done, 1.0))
        del batch  # the next part is read while this one would still be there
        if progress is not None:
            progress(done)
    entries = _entries(fs, files, links)
    changed = np.concatenate([np.empty(0, np.int64), *links.escaped])
    raw = Names.concat([Names.of([]), *links.raw])
    name = links.name.arrow()
    directories = _directories(fs, entries, name)
    keep = _reachable(fs, entries, directories, everything=deleted)
    nameless = files.without(entries.at) if deleted else np.empty(0, np.int64)
    if keep is not None or len(nameless):
        rows = np.arange(len(entries)) if keep is None else np.flatnonzero(keep)
        new = np.full(len(entries) + 1, -1, np.int64)
        new[rows] = np.arange(len(rows))
        directories = replace(directories, row=new[directories.row])
        kept = new[changed] >= 0
        changed, raw = new[changed[kept]], raw.take(kept)
        del new
        mask = np.append(np.zeros(len(rows), np.bool_), np.ones(len(nameless), np.bool_))
        name = name.take(arrow(np.append(rows, np.zeros(len(nameless), np.int64)), mask))
        _choose(entries, rows, nameless, files)
    table, odd, broken = _table(fs, files, entries, name, binary_column(raw, changed, len(entries)))
    listed = set(entries.file[broken].tolist())
    errors = {file: error for file, error in files.errors.items() if file in listed}
    _note(fs, entries, directories, table, errors, folder_errors)
    within = entries.file if keep is not None else None
    found = Built(table, directories, _stream_table(fs, streams, within), odd, errors, folder_errors)
    if progress is not None:
        progress(1.0)
    return found


def _choose(entries: _Entries, rows: Int64s, nameless: Int64s, files: Files) -> None:
    """Leaves some of the entries, and puts behind them those of files without a name."""
    ids = files.file.joined()
    at = rows if entries.at is None else entries.at[rows]
    entries.at = np.append(at, nameless)
    entries.file = np.append(entries.file[rows], ids[nameless])
    entries.parent = np.append(entries.parent[rows], ids[nameless])
    entries.type = np.append(entries.type[rows], files.type.joined()[nameless])
    entries.deleted = np.append(entries.deleted[rows], files.deleted.joined()[nameless])
    entries.orphans = len(nameless)


def _entries(fs: FileSystem, files: Files, links: Links) -> _Entries:
    """The root and all names, each with the file that it is of."""
    named = links.file.take(None)
    at, absent = _match(files.file.joined(), named)
    if at is not None and len(absent):
        # Names of files that the tables do not have: the file system says what it knows of those.
        lost, which = np.unique(named[absent], return_inverse=True)
        at[absent] = files.count + which
        for first in range(0, len(lost), _ASKED):
            ids = lost[first : first + _ASKED]
            files.add(fs.rows(ids), np.zeros(len(ids), np.bool_))
    kinds = pick(files.type.joined(), at)
    said = links.type.take(None)
    unknown = kinds == FileType.UNKNOWN
    kinds[unknown] = said[unknown]
    gone = links.deleted.take(None) | pick(files.deleted.joined(), at)
    return _Entries(at, named, links.parent.take(None), kinds, gone)


def _match(ids: UInt64s, named: UInt64s) -> tuple[Rows | None, Int64s]:
    """Where in `ids` each id of `named` is, None if they are the same; and which of them are nowhere."""
    if np.array_equal(ids, named):
        return None, np.empty(0, np.int64)
    at = positions(ids, named)
    return at, np.flatnonzero(at < 0)


def _directories(fs: FileSystem, entries: _Entries, name: pa.ChunkedArray) -> Directories:
    rows = np.flatnonzero(entries.type == FileType.DIRECTORY)
    rows = rows[rows > 0]
    found = Directories.of(fs.root, entries.file[rows], entries.parent[rows], rows, entries.deleted[rows], name)
    found.row[found.find(np.array([fs.root], np.uint64))] = 0
    if found.too_deep:
        fs.findings.add_error(CorruptionError("directories nest too deep", structure="directory"))
    place = found.find(entries.file[rows])
    twice = rows[(place >= 0) & (found.row[place] != rows)]
    twice = twice[~entries.deleted[twice] & (found.find(entries.parent[twice]) >= 0)]
    for file in np.unique(entries.file[twice]).tolist()[:_TOLD]:
        fs.findings.add_error(
            CorruptionError("a directory that several entries claim", structure="directory"), file=file
        )
    return found


def _reachable(fs: FileSystem, entries: _Entries, directories: Directories, *, everything: bool) -> Bools | None:
    """Which rows to keep, None for all."""
    keep = contains(directories.ids[directories.depth >= 0], entries.parent)
    keep[0] = True
    live = int((~keep & ~entries.deleted).sum())
    if live:
        fs.findings.add(
            Severity.NOTE,
            f"{live} names lie in directories to which no path leads; deleted=True lists them, too",
            structure="directory tree",
        )
    return None if everything or keep.all() else keep


def _table(
    fs: FileSystem, files: Files, entries: _Entries, name: pa.ChunkedArray, raw: pa.ChunkedArray
) -> tuple[pa.Table, OddTimes, Int64s]:
    """The columns, one after the other; the times that they cannot hold; and the rows of files that are not known."""
    at, n = entries.at, len(entries)
    broken = np.zeros(files.count, np.bool_)
    broken[files.broken] = True
    # What is known of a file whose record could not be read means nothing.
    absent = pick(broken, at) if files.broken else None
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"file": arrow(entries.file)}
    files.file = Column()
    inode = entries.file if files.inode is None else files.inode.take(at)
    columns["inode"] = arrow(inode, absent)
    del inode
    subvolume = files.subvolume.take(at)
    if subvolume.any():
        columns["subvolume"] = arrow(subvolume, absent)
    del subvolume
    columns["generation"] = files.numbers["generation"].arrow(at, absent)
    top = np.zeros(n, np.bool_)
    top[0] = True
    top[n - entries.orphans :] = True
    columns["parent"] = arrow(entries.parent, top)
    columns["name"], columns["name_raw"] = name, raw
    columns["type"] = pa.DictionaryArray.from_arrays(arrow(entries.type.astype(np.int8)), WORDS)
    for column in ("size", "allocated", "mode", "uid", "gid", "links"):
        columns[column] = files.numbers[column].arrow(at, absent)
    odd: OddTimes = {}
    for column in TIMES:
        stamps = files.times[column].take(at)
        if absent is not None:
            stamps[absent] = NAT
        columns[column] = arrow_times(stamps)
        if column in files.odd:
            odd[column] = _odd(files.odd[column], at, n, broken)
    columns["flags"] = files.flags.arrow(at, absent)
    columns["target"] = _targets(fs, entries)
    columns["deleted"] = arrow(entries.deleted)
    for column in list(files.extra):
        own = column + OWN if column in STANDARD else column
        columns[own] = files.extra.pop(column).arrow(at, absent)
    return pa.table(columns), odd, np.empty(0, np.int64) if absent is None else np.flatnonzero(absent)


def _odd(known: Mapping[int, tuple[int, int]], at: Rows | None, n: int, broken: Bools) -> dict[int, tuple[int, int]]:
    """The times that a column cannot hold, by row."""
    wanted = np.zeros(len(broken), np.bool_)
    wanted[list(known)] = True
    wanted &= ~broken
    rows = np.flatnonzero(pick(wanted, at)[:n]).tolist()
    return {row: known[row if at is None else int(at[row])] for row in rows}


def _targets(fs: FileSystem, entries: _Entries) -> pa.ChunkedArray:
    """Where links lead to, in escaped form; null for what is no link, or one that could not be read."""
    n = len(entries)
    rows = np.flatnonzero(entries.type == FileType.SYMLINK)
    if not len(rows):
        return pa.chunked_array([pa.nulls(n, pa.string())])
    ids, which = np.unique(entries.file[rows], return_inverse=True)
    parts: list[Names] = []
    known = np.ones(len(ids), np.bool_)
    for first in range(0, len(ids), _ASKED):
        found = fs.readlink(ids[first : first + _ASKED])
        for i, error in found.errors.items():
            known[first + i] = False
            fs.findings.add_error(error, file=int(ids[first + i]))
        parts.append(escaped_names(found.target, fs.name_encoding)[0])
    rows, which = rows[known[which]], which[known[which]]
    values = Names.concat(parts).take(which)
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
    hits = np.flatnonzero(contains(files, entries.file))
    above = directories.find(entries.parent[hits])
    hits, above = hits[above >= 0], above[above >= 0]
    few = np.cumsum(directories.lengths()[above] + 256) <= _TOLD_BYTES
    hits, above = hits[few], above[few]
    prefixes = directories.prefixes(above).to_pylist()
    names = table["name"].take(arrow(hits)).to_pylist()
    paths: dict[int, str] = {}
    for row, prefix, name in zip(hits.tolist(), prefixes, names, strict=True):
        paths.setdefault(int(entries.file[row]), f"{prefix}/{name}")
    for number in files.tolist():
        fs.findings.add_error(told[number], file=number, path=paths.get(number, ""))


def _stream_table(fs: FileSystem, parts: list[ScanStreams], within: UInt64s | None) -> pa.Table:
    """Named streams: `file`, `name`, `name_raw`, `size`, `allocated`; of the files `within`, None for all."""
    none = ScanStreams.none()
    file = np.concatenate([none.file, *(part.file for part in parts)])
    names = Names.concat([none.name, *(part.name for part in parts)])
    size = np.concatenate([none.size, *(part.size for part in parts)])
    allocated = np.concatenate([none.allocated, *(part.allocated for part in parts)])
    if within is not None and len(file):
        wanted = np.unique(file)
        keep = np.isin(file, within[contains(wanted, within)])
        file, names, size, allocated = file[keep], names.take(keep), size[keep], allocated[keep]
    shown, changed = escaped_names(names, fs.name_encoding)
    return pa.table(
        {
            "file": arrow(file),
            "name": string_column(shown),
            "name_raw": binary_column(names.take(changed), changed, len(file)),
            "size": arrow(size, size < 0),
            "allocated": arrow(allocated, allocated < 0),
        }
    )
