"""The parts of a scan, kept as columns until all of them are there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.catalogue._columns import Column, StringColumn
from pseudomount.filesystem.catalogue._strings import escaped_names
from pseudomount.filesystem.columns import NAT, Names
from pseudomount.filesystem.rows import FileRows, FileType, NameEncoding
from pseudomount.filesystem.scan import ScanLinks

__all__ = ["KEPT", "NUMBERS", "TIMES", "Files", "Links", "OddTimes"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
Rows = NDArray[np.integer]
OddTimes = dict[str, dict[int, tuple[int, int]]]

TIMES = ("created", "modified", "changed", "accessed")
#: Columns of `FileRows` in which -1 is null, and what they are kept as.
NUMBERS: dict[str, type[np.generic]] = {
    "generation": np.int64,
    "size": np.int64,
    "allocated": np.int64,
    "mode": np.uint32,
    "uid": np.uint32,
    "gid": np.uint32,
    "links": np.uint32,
}
#: Errors that are kept one by one.
KEPT = 100_000


class Files:
    """The files of all parts."""

    def __init__(self, *, extra: bool) -> None:
        self._with_extra = extra
        self.file = Column()
        self.inode: Column | None = None  # None as long as it is the id itself
        self.subvolume = Column()
        self.type = Column()
        self.flags = Column()
        self.deleted = Column()
        self.numbers = {name: Column(dtype) for name, dtype in NUMBERS.items()}
        self.times = {name: Column() for name in TIMES}
        self.odd: OddTimes = {}
        self.extra: dict[str, Column] = {}
        self.errors: dict[int, PseudomountError] = {}
        self.broken: list[int] = []
        self.count = 0

    def add(self, rows: FileRows, deleted: Bools) -> None:
        """The next files."""
        if not len(rows):
            return
        if self.inode is None and not np.array_equal(rows.inode, rows.file):
            self.inode = Column()
            self.inode.add(self.file.joined())
        if self.inode is not None:
            self.inode.add(rows.inode)
        self.file.add(rows.file)
        self.subvolume.add(rows.subvolume)
        self.flags.add(rows.flags)
        self.deleted.add(deleted)
        kinds = rows.type
        if rows.errors:
            broken = list(rows.errors)
            kinds = kinds.copy()
            kinds[broken] = FileType.UNKNOWN
            self.broken += [self.count + row for row in broken]
            for row, error in rows.errors.items():
                if len(self.errors) >= KEPT:
                    break
                self.errors[int(rows.file[row])] = error
        self.type.add(kinds)
        for name, column in self.numbers.items():
            column.add(getattr(rows, name))
        for name, column in self.times.items():
            times = getattr(rows, name)
            column.add(times.ns)
            if times.odd:
                self.odd.setdefault(name, {}).update((self.count + row, exact) for row, exact in times.odd.items())
        if self._with_extra:
            self._add_extra(rows)
        self.count += len(rows)

    def _add_extra(self, rows: FileRows) -> None:
        for name, values in rows.extra.items():
            if name not in self.extra:
                self.extra[name] = Column()
                if self.count:
                    self.extra[name].add(_nothing(values.dtype, self.count))
            self.extra[name].add(np.asarray(values))
        for name, column in self.extra.items():
            if name not in rows.extra:
                column.add(_nothing(column.dtype, len(rows)))

    def without(self, rows: Rows | None) -> Int64s:
        """The files that none of `rows` is, and that make sense."""
        if rows is None:
            return np.empty(0, np.int64)
        rest = self.type.joined() != FileType.UNKNOWN
        rest[rows] = False
        return np.flatnonzero(rest)


def _nothing(dtype: np.dtype[Any], n: int) -> NDArray[Any]:
    """What stands for no value in a parser's own column."""
    if dtype.kind == "M":
        return np.full(n, NAT, np.int64).view("datetime64[ns]")
    return np.full(n, -1 if dtype.kind == "i" else 0, dtype)


class Links:
    """The names of all parts, that of the root first."""

    def __init__(self, root: int, encoding: NameEncoding) -> None:
        self._encoding = encoding
        self.parent, self.file, self.type, self.deleted = Column(), Column(), Column(), Column()
        self.name = StringColumn()
        self.escaped: list[Int64s] = []
        self.raw: list[Names] = []
        self.count = 0
        ids = np.array([root], np.uint64)
        self.add(ScanLinks(ids, ids, Names.of([b""]), np.array([FileType.DIRECTORY], np.uint8), np.zeros(1, np.bool_)))

    def add(self, links: ScanLinks) -> None:
        """The next names."""
        if not len(links):
            return
        self.parent.add(links.parent)
        self.file.add(links.file)
        self.type.add(links.type)
        self.deleted.add(links.deleted)
        shown, changed = escaped_names(links.name, self._encoding)
        self.name.add(shown)
        if len(changed):
            self.escaped.append(self.count + changed)
            self.raw.append(links.name.take(changed))
        self.count += len(links)
