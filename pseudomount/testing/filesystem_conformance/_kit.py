"""What the tests share: expectations, a device with a budget, trees and rows as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, Layer
from pseudomount.device.contract import Int64s, UInt8s
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    TimeColumn,
)

__all__ = [
    "PART",
    "WHOLE",
    "BoundedDevice",
    "Expected",
    "OverBudgetError",
    "Tree",
    "ids_of",
    "links_of",
    "parts_of",
    "row_of",
    "runs_of",
    "walk",
]

UInt64s = NDArray[np.uint64]
Link = tuple[int, bytes, int]

WHOLE = 8 << 20  # files up to this many bytes are read to the end, of larger ones some parts
PART = 64 << 10


@dataclass(frozen=True, slots=True)
class Expected:
    """What another reader saw of one path; None is not compared.

    Attributes:
        type: as `FileType.word`.
        size: bytes.
        sha256: of the content, in hexadecimal; compared for files of up to 8 MiB.
        target: of a symbolic link.
        mode: permission bits and type.
        modified_ns: nanoseconds since 1970.
    """

    type: str
    size: int | None = None
    sha256: str | None = None
    target: bytes | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    links: int | None = None
    modified_ns: int | None = None


class OverBudgetError(Exception):
    """A parser read more than a bounded one would. No `PseudomountError`, so that nothing takes it for damage."""


class BoundedDevice(Layer):
    """Raises `OverBudgetError` once more than so many ranges or bytes were asked for: an endless walk ends here."""

    def __init__(self, inner: BlockDevice, *, ranges: int, bytes_: int) -> None:
        super().__init__(inner)
        self.ranges_left, self.bytes_left = ranges, bytes_
        self.exceeded = False

    def _spend(self, ranges: int, count: int) -> None:
        self.ranges_left -= ranges
        self.bytes_left -= count
        if self.ranges_left < 0 or self.bytes_left < 0:
            self.exceeded = True
            raise OverBudgetError(f"{self.ranges_left} ranges and {self.bytes_left} bytes are left")

    def _read(self, offset: int, length: int) -> bytes:
        self._spend(1, length)
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        self._spend(len(offsets), int(lengths.sum()))
        return self.inner.read_into(offsets, lengths, buffer, positions)


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything that `children` lists: paths (the root is b"") → id and type as the entry says, and errors."""

    ids: dict[bytes, int]
    types: dict[bytes, FileType]
    errors: list[PseudomountError]

    def of_type(self, kind: FileType) -> list[int]:
        return list(dict.fromkeys(self.ids[path] for path, found in self.types.items() if found is kind))

    def files(self) -> list[int]:
        return list(dict.fromkeys(self.ids.values()))


def ids_of(values: Sequence[int]) -> UInt64s:
    return np.array(values, np.uint64)


def walk(filesystem: FileSystem, limit: int = 200_000) -> Tree:
    """Level by level; each directory once, whatever the disk says."""
    root = int(filesystem.root)
    ids, types = {b"": root}, {b"": FileType.DIRECTORY}
    errors: list[PseudomountError] = []
    level, seen = [b""], {root}
    while level and len(ids) < limit:
        links = filesystem.children(ids_of([ids[path] for path in level]))
        errors += links.errors.values()
        kinds = _known_types(filesystem, links)
        below = []
        for query, file, name, kind in zip(
            links.query.tolist(), links.file.tolist(), links.name, kinds.tolist(), strict=True
        ):
            path = level[query] + b"/" + name if level[query] else name
            ids[path], types[path] = int(file), FileType(kind)
            if kind == FileType.DIRECTORY and file not in seen:
                seen.add(file)
                below.append(path)
        level = below
    return Tree(ids, types, errors)


def _known_types(filesystem: FileSystem, links: LinkRows) -> UInt8s:
    """The types of entries; of those that do not tell, the files' own."""
    kinds = links.type.copy()
    silent = np.flatnonzero(kinds == FileType.UNKNOWN)
    if len(silent):
        kinds[silent] = filesystem.rows(links.file[silent]).type
    return kinds


def links_of(links: LinkRows, count: int) -> list[list[Link]]:
    """The entries of each directory asked for."""
    found: list[list[Link]] = [[] for _ in range(count)]
    assert (np.diff(links.query) >= 0).all(), "query is not ascending"
    for query, file, name, kind in zip(
        links.query.tolist(), links.file.tolist(), links.name, links.type.tolist(), strict=True
    ):
        found[query].append((file, name, kind))
    return found


_COLUMNS = (
    "file",
    "subvolume",
    "inode",
    "generation",
    "type",
    "size",
    "allocated",
    "mode",
    "uid",
    "gid",
    "links",
    "flags",
    "created",
    "modified",
    "changed",
    "accessed",
)


def row_of(rows: FileRows, i: int) -> dict[str, object]:
    """Row i as plain values; of a row with an error that it has one."""
    if i in rows.errors:
        return {"file": int(rows.file[i]), "error": type(rows.errors[i])}
    values: dict[str, object] = {}
    for name in _COLUMNS:
        column = getattr(rows, name)
        values[name] = column.exact(i) if isinstance(column, TimeColumn) else column[i].item()
    values.update((name, column[i].item()) for name, column in rows.extra.items())
    return values


def runs_of(runs: DataRuns, i: int) -> list[tuple[int, int, int, int]]:
    """(offset, length, position, kind) of file i."""
    first, last = np.searchsorted(runs.query, [i, i + 1]).tolist()
    columns = (runs.offset, runs.length, runs.position, runs.kind)
    return list(zip(*(column[first:last].tolist() for column in columns), strict=True))


def parts_of(size: int) -> list[tuple[int, int]]:
    """All of a content, or parts of a large one."""
    if size <= WHOLE:
        return [(0, size)]
    return [(at, min(PART, size - at)) for at in (0, size // 3, size // 2, size - PART)]
