"""The whole volume, level by level: what a directory's entries say of files is taken from where it lists them.

All directories of a level are one question; their entries are read once, for names and for all else. Whatever they
claim, a file comes once, and a directory is entered once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem import FileRows, FileType, ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import FindingLog
from pseudomount_fat._directories import DirectoryTable
from pseudomount_fat._entries import GONE, Entries, Nodes

__all__ = ["ScanSteps", "scan_volume"]

Bools = NDArray[np.bool_]
UInt64s = NDArray[np.uint64]

#: Levels below which nobody goes, as in a walk.
_MAX_DEPTH: Final = 4096
_MARK: Final = np.uint64(GONE)


@dataclass(frozen=True, slots=True)
class ScanSteps:
    """What a volume does for its scan; see `ClusterFileSystem` for each.

    Attributes:
        nodes: what entries at positions say.
        listed: directories and their nodes → tables of their entries.
        listed_nodes: what the entries say of the files that a table lists.
        rows: nodes as rows.
        deleted: the files that were deleted from the directories of a table.
        below: deleted directories and their nodes → tables, entries that are not marked as deleted, and those that are.
    """

    nodes: Callable[..., Nodes]
    listed: Callable[[UInt64s, Nodes], Iterator[tuple[DirectoryTable, Entries, dict[int, PseudomountError]]]]
    listed_nodes: Callable[[UInt64s, DirectoryTable, Entries], Nodes]
    rows: Callable[[UInt64s, Nodes], FileRows]
    deleted: Callable[[DirectoryTable], Entries]
    below: Callable[[UInt64s, Nodes], Iterator[tuple[DirectoryTable, Entries, Entries]]]


def scan_volume(steps: ScanSteps, findings: FindingLog, *, deleted: bool) -> Iterator[ScanBatch]:
    """The whole enumeration; see `FileSystem.scan`."""
    yield from _Scan(steps, findings, deleted=deleted).run()


@dataclass(slots=True)
class _Level:
    """Directories that are still to be entered."""

    ids: list[UInt64s]
    nodes: list[Nodes]

    @classmethod
    def none(cls) -> _Level:
        return cls([], [])

    def add(self, ids: UInt64s, nodes: Nodes, rows: Bools) -> int:
        some = np.flatnonzero(rows)
        if len(some):
            self.ids.append(ids[some])
            self.nodes.append(nodes.take(some))
        return len(some)

    def joined(self) -> tuple[UInt64s, Nodes]:
        """By id, which is the order of a walk."""
        ids = np.concatenate(self.ids)
        nodes = Nodes.concat(self.nodes)
        if bool((ids[1:] > ids[:-1]).all()):
            return ids, nodes
        order = np.argsort(ids, kind="stable")
        return ids[order], nodes.take(order)


class _Scan:
    """One pass."""

    def __init__(self, steps: ScanSteps, findings: FindingLog, *, deleted: bool) -> None:
        self._steps, self._findings, self._deleted = steps, findings, deleted
        self._seen, self._clusters = _Seen(), _Seen()
        self._gone = _Level.none()
        self._entered, self._known, self._done = 0, 1, 0.0

    def run(self) -> Iterator[ScanBatch]:
        """All parts: what is there, then what was deleted and is only found in directories deleted as well."""
        root = np.zeros(1, np.uint64)
        nodes = self._steps.nodes(root, times=True)
        yield ScanBatch(
            self._steps.rows(root, nodes), ScanLinks.none(), np.zeros(1, np.bool_), ScanStreams.none(), {}, 0.0
        )
        self._seen.fresh(root)
        level = _Level([root], [nodes])
        for _ in range(_MAX_DEPTH + 1):
            if not level.ids:
                break
            below = _Level.none()
            yield from self._level(*level.joined(), below)
            level = below
        self._too_deep(level)
        for _ in range(_MAX_DEPTH):
            if not self._gone.ids:
                break
            level, self._gone = self._gone, _Level.none()
            yield from self._gone_level(*level.joined())
        self._too_deep(self._gone)

    def _too_deep(self, level: _Level) -> None:
        if level.ids:
            error = CorruptionError("directories nest too deep", structure="directory")
            self._findings.add_error(error, file=int(level.ids[0][0]))

    def _level(self, ids: UInt64s, nodes: Nodes, below: _Level) -> Iterator[ScanBatch]:
        for table, entries, failed in self._steps.listed(ids, nodes):
            errors = {int(ids[i]): error for i, error in failed.items()}
            self._entered += len(np.flatnonzero(np.diff(table.owner, prepend=-1)))
            yield self._part(ids, table, entries, errors, below, gone=False)
            if self._deleted:
                found = self._steps.deleted(table)
                if len(found.row):
                    yield self._part(ids, table, found, {}, self._gone, gone=True)

    def _gone_level(self, ids: UInt64s, nodes: Nodes) -> Iterator[ScanBatch]:
        # Any number of deleted entries can claim a cluster: whatever they are, it is read once.
        once = self._clusters.fresh(nodes.first.astype(np.uint64))
        if once is not None:
            ids, nodes = ids[once], nodes.take(once)
        for table, entries, deleted in self._steps.below(ids, nodes):
            for found in (entries, deleted):
                if found.sure is not None and not found.sure.all():
                    kept = np.flatnonzero(found.sure)
                    found = Entries(
                        found.row[kept], found.directory[kept], found.names.take(kept), None, [], found.sure[kept]
                    )
                if len(found.row):
                    yield self._part(ids, table, found, {}, self._gone, gone=True)

    def _part(
        self,
        ids: UInt64s,
        table: DirectoryTable,
        entries: Entries,
        errors: dict[int, PseudomountError],
        below: _Level,
        *,
        gone: bool,
    ) -> ScanBatch:
        """The files of a table, and their names; the directories among them are added to those below."""
        file = table.position[entries.row].astype(np.uint64)
        if gone:
            file |= _MARK
        types = np.where(entries.directory, FileType.DIRECTORY, FileType.FILE).astype(np.uint8)
        names = entries.names.names()
        links = ScanLinks(ids[table.owner[entries.row]], file, names, types, np.full(len(file), gone))
        fresh = self._seen.fresh(file)
        if fresh is not None:
            sure = None if entries.sure is None else entries.sure[fresh]
            entries = Entries(entries.row[fresh], entries.directory[fresh], entries.names, None, [], sure)
            file = file[fresh]
        nodes = self._steps.listed_nodes(file, table, entries)
        directory = nodes.directory.copy()
        for row in nodes.errors:  # what cannot be read is entered, as a walk does, where its entry says what it is
            directory[row] = entries.directory[row]
        self._known += below.add(file, nodes, directory)
        self._done = max(self._done, min(self._entered / self._known, 1.0))
        return ScanBatch(
            self._steps.rows(file, nodes), links, np.full(len(file), gone), ScanStreams.none(), errors, self._done
        )


class _Seen:
    """The ids that came by, in sorted arrays, each half as long as the one before, so that small steps are cheap."""

    def __init__(self) -> None:
        self._parts: list[UInt64s] = []

    def fresh(self, ids: UInt64s) -> NDArray[np.int64] | None:
        """Rows of those that come by for the first time, None for all; from now on they are seen."""
        if not len(ids):
            return None
        first: NDArray[np.int64] | None = None
        unique = ids
        if not bool((ids[1:] > ids[:-1]).all()):
            unique = np.sort(ids, kind="stable")
            if bool((unique[1:] == unique[:-1]).any()):
                unique, first = np.unique(ids, return_index=True)
        new = np.ones(len(unique), np.bool_)
        for part in self._parts:
            at = np.searchsorted(part, unique)
            inside = at < len(part)
            new[inside] &= part[at[inside]] != unique[inside]
        rows: NDArray[np.int64] | None = None
        if first is not None:
            rows = np.sort(first[new])
        elif not new.all():
            rows = np.flatnonzero(np.isin(ids, unique[new]))
        if new.any():
            self._parts.append(unique[new])
        while len(self._parts) > 1 and len(self._parts[-2]) < 2 * len(self._parts[-1]):
            last = self._parts.pop()
            self._parts[-1] = np.sort(np.concatenate([self._parts[-1], last]), kind="stable")
        return rows
