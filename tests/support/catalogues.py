"""A catalogue compared with the plain walk, row by row and column by column."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pseudomount.api import BackupVolume
from pseudomount.filesystem import FileSystem, FileType
from pseudomount.filesystem.catalogue import Catalogue, scan_catalogue
from pseudomount.filesystem.names import escape
from pseudomount.filesystem.rows import FileRows
from pseudomount.filesystem.tree import Tree
from pseudomount.filesystem.walk import walk_batches

Row = dict[str, object]

_TIMES = ("created", "modified", "changed", "accessed")
_NUMBERS = ("generation", "size", "allocated", "mode", "uid", "gid", "links")


def assert_equals_walk(volume: BackupVolume | FileSystem, *, damaged: bool = False, deleted: bool = False) -> Catalogue:
    """The catalogue of a volume has the rows that a plain walk comes by, every column of them, and no other.

    Args:
        volume: where; a catalogue that it has loaded is not used.
        damaged: whether the walk may find errors; the rows that have one are then told by path and id alone.
        deleted: whether to ask for deleted files, too, which the walk does not find: the others are compared.

    Returns:
        the catalogue, for further questions.
    """
    fs = volume if isinstance(volume, FileSystem) else volume.fs
    catalogue = scan_catalogue(fs, volume="disk0", deleted=deleted)
    live = catalogue
    if deleted:  # and files without a name come, too
        live = catalogue[catalogue.paths().is_valid().to_numpy()].find(deleted=False)
    assert_same_rows(rows_of_catalogue(live), rows_of_walk(fs, damaged=damaged))
    assert_same_rows(streams_of_catalogue(live), streams_of_walk(fs))
    files = catalogue.arrow["file"].to_numpy()
    assert int(files[0]) == fs.root, "the root is the first row"
    return catalogue


def assert_same_rows(ours: list[Row], others: list[Row]) -> None:
    """The same rows, in whatever order."""
    mine, theirs = ({repr(sorted(row.items(), key=str)): row for row in rows} for rows in (ours, others))
    only_mine = [row for key, row in mine.items() if key not in theirs]
    only_theirs = {row["path"]: row for key, row in theirs.items() if key not in mine}
    for row in only_mine:
        other = only_theirs.get(row["path"])
        if other is not None:
            wrong = {k: (row.get(k), other.get(k)) for k in {*row, *other} if row.get(k) != other.get(k)}
            raise AssertionError(f"{row['path']}: (catalogue, walk) {wrong}")
    assert not only_mine, f"{len(only_mine)} rows that the walk has not, among them {only_mine[0]}"
    assert not only_theirs, f"{len(only_theirs)} rows that only the walk has, among them {next(iter(only_theirs))}"
    assert len(ours) == len(others), "the same row several times"


def rows_of_catalogue(catalogue: Catalogue) -> list[Row]:
    """Each row as plain values, nulls left out; times are (seconds, nanoseconds)."""
    table = catalogue.to_arrow()
    columns = {}
    for name in table.column_names:
        column = table[name]
        if str(column.type).startswith("timestamp"):
            odd = catalogue.odd.get(name, {})
            values = [
                odd.get(i, None if ns is None else divmod(ns, 1_000_000_000))
                for i, ns in enumerate(column.cast("int64").to_pylist())
            ]
        else:
            values = column.to_pylist()
        columns[name] = values
    names = list(columns)
    found = [
        {key: value for key, value in zip(names, values, strict=True) if value is not None}
        for values in zip(*columns.values(), strict=True)
    ]
    for row in found:
        assert row.pop("deleted") is False
        if "inode" not in row:
            row["broken"] = True
    return found


def rows_of_walk(fs: FileSystem, *, damaged: bool = False) -> list[Row]:
    """The same of what `children`, `rows` and `readlink` say, directory by directory."""
    tree = Tree(fs, "disk0")
    top = fs.rows(np.array([fs.root], np.uint64))
    assert damaged or not top.errors
    found = [{**_row(fs, top, 0, FileType.DIRECTORY), "path": "/", "name": ""}]
    for batch in walk_batches(tree, fs.root, "/"):
        rows = batch.rows
        assert rows is not None
        assert damaged or not (rows.errors or batch.links.errors), (rows.errors, batch.links.errors)
        for i, raw in enumerate(batch.links.name):
            kind = FileType(int(rows.type[i] or batch.types[i]))
            row = _row(fs, rows, i, kind)
            row["path"] = escape(batch.path(i), fs.name_encoding)
            row["name"] = escape(batch.names[i], fs.name_encoding)
            row["parent"] = int(batch.links.parent[i])
            if str(row["name"]).encode() != raw:
                row["name_raw"] = raw
            found.append(row)
    return found


def _row(fs: FileSystem, rows: FileRows, i: int, kind: FileType) -> Row:
    row: Row = {"file": int(rows.file[i]), "type": kind.word}
    if kind is FileType.SYMLINK:
        answer = fs.readlink(rows.file[i : i + 1])
        if not answer.errors:
            row["target"] = escape(fs.name_encoding.decode(answer.target[0]), fs.name_encoding)
    if i in rows.errors:
        return {**row, "broken": True, **_extra(rows, i, broken=True)}
    row["inode"], row["flags"] = int(rows.inode[i]), int(rows.flags[i])
    if rows.subvolume[i]:
        row["subvolume"] = int(rows.subvolume[i])
    row |= {name: int(getattr(rows, name)[i]) for name in _NUMBERS if getattr(rows, name)[i] >= 0}
    for name in _TIMES:
        exact = getattr(rows, name).exact(i)
        if exact is not None:
            row[name] = exact
    return row | _extra(rows, i)


def _extra(rows: FileRows, i: int, *, broken: bool = False) -> Row:
    found: Row = {}
    for name, column in rows.extra.items():
        value = column[i].item()
        if broken or value is None or (column.dtype.kind == "i" and value < 0):
            continue
        found[name] = divmod(value, 1_000_000_000) if column.dtype.kind == "M" else value
    return found


def streams_of_catalogue(catalogue: Catalogue) -> list[Row]:
    """Each named stream as plain values; "path" is the file's id and the stream's name."""
    return [
        {"path": (row["file"], row["name"]), "size": row["size"], "allocated": row["allocated"]}
        for row in catalogue.streams.to_pylist()
    ]


def streams_of_walk(fs: FileSystem) -> list[Row]:
    """The same by asking each file."""
    found: list[Row] = []
    for file in dict.fromkeys(_files(fs)):
        for stream in fs.streams(file):
            name = escape(stream.name, fs.name_encoding)
            found.append({"path": (file, name), "size": stream.size, "allocated": stream.allocated})
    return found


def _files(fs: FileSystem) -> Iterator[int]:
    if type(fs).streams is FileSystem.streams:
        return
    yield fs.root
    for batch in walk_batches(Tree(fs), fs.root, "/"):
        assert batch.rows is not None
        yield from batch.links.file[batch.rows.type != FileType.UNKNOWN].tolist()
