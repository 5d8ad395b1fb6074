"""What FAT and exFAT have in common behind the FileSystem contract: files known by where their entry lies.

A file's id is the position of its directory entry on the volume in bytes (of the short entry in FAT, of the File entry
in exFAT); the root directory, which has no entry, is 0, where the boot sector lies. Ids stay right as long as the
directory is not rewritten, and a directory that is reached by two ways shows the same ids both times. The ids of
deleted files, which only a scan gives, have the highest bit set besides.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import (
    CorruptionError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PseudomountError,
)
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    NameEncoding,
    Names,
    RunKind,
    ScanBatch,
    Targets,
    TimeColumn,
)
from pseudomount.findings import FindingLog, Severity
from pseudomount_fat._content import FileContent
from pseudomount_fat._cycles import sharing
from pseudomount_fat._directories import DirectoryTable, read_directories
from pseudomount_fat._entries import GONE, Entries, Nodes
from pseudomount_fat._layout import ENTRY
from pseudomount_fat._names import UnitNames, units_of
from pseudomount_fat._recovery import deleted_runs
from pseudomount_fat._scan import ScanSteps, scan_volume
from pseudomount_fat._table import AllocationTable

__all__ = ["ClusterFileSystem", "Runs"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: Bytes of directories that are parsed at once.
_GROUP = 64 << 20
#: Defects of one kind that become findings of their own in one call.
_TOLD = 100


class Runs:
    """Runs of n files as bytes: int64 (m,) owner (ascending), offset, length, position; and errors by file."""

    __slots__ = ("errors", "length", "offset", "owner", "position")

    def __init__(
        self, owner: Int64s, offset: Int64s, length: Int64s, position: Int64s, errors: dict[int, PseudomountError]
    ) -> None:
        self.owner, self.offset, self.length, self.position, self.errors = owner, offset, length, position, errors


class ClusterFileSystem(FileSystem):
    """A file system of clusters and chains. Subclasses know the entries; all else is here."""

    name_encoding = NameEncoding.WTF8
    case_sensitive = False
    root = 0

    _table: AllocationTable
    _cluster: int
    _clusters: int
    _data_start: int
    _barrier: int
    _most_directory: int
    #: Whether a deleted file's chain is still in the FAT.
    _keeps_chains = False

    def __init__(self, device: BlockDevice, findings: FindingLog) -> None:
        self.device = device
        self.findings = findings

    # -- what a subclass knows -----------------------------------------------------------------------------------

    @abstractmethod
    def _nodes(self, files: UInt64s, *, times: bool = False) -> Nodes:
        """What the entries at these positions say, the root's among them; times are null unless asked for."""

    @abstractmethod
    def _parse(self, found: DirectoryTable, *, aliases: bool = False) -> Entries:
        """The files in directories; `aliases`: with the short names that stand beside long ones."""

    @abstractmethod
    def _listed_nodes(self, files: UInt64s, found: DirectoryTable, entries: Entries) -> Nodes:
        """What `_nodes` says of files, times included, from the directories that they were found in."""

    @abstractmethod
    def _parse_deleted(self, found: DirectoryTable) -> Entries:
        """The files that were deleted from directories."""

    @abstractmethod
    def _begins(self, found: DirectoryTable, first: Int64s) -> NDArray[np.bool_]:
        """bool (n,), which of n deleted directories, numbered from 0, still begin as the directory at `first` would."""

    @abstractmethod
    def _free(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        """bool (n,), which runs of clusters are known to be free, all of them."""

    @abstractmethod
    def _upcase(self) -> NDArray[np.uint16]:
        """uint16 (65536,), upper case of UTF-16 units."""

    def _root_runs(self) -> tuple[Int64s, Int64s] | None:
        """Lengths and positions of a root directory that is no chain of clusters."""
        return None

    def _check_allocated(self, files: UInt64s, runs: Runs) -> None:
        """Notes files whose clusters are not marked as allocated."""

    # -- the contract --------------------------------------------------------------------------------------------

    def children(self, directories: UInt64s) -> LinkRows:
        """See `FileSystem.children`."""
        ids, inverse = np.unique(np.asarray(directories, np.uint64), return_inverse=True)
        query, file, types, names, errors = [], [], [], [], {}
        for found, entries, failed in self._listed(ids):
            errors.update(failed)
            query.append(found.owner[entries.row])
            file.append(found.position[entries.row])
            types.append(np.where(entries.directory, FileType.DIRECTORY, FileType.FILE).astype(np.uint8))
            names.append(entries.names.names())
        if not query:
            none = np.empty(0, np.int64)
            return LinkRows(
                none,
                none.astype(np.uint64),
                none.astype(np.uint64),
                Names.of([]),
                none.astype(np.uint8),
                self._spread(errors, inverse),
            )
        links = LinkRows(
            np.concatenate(query),
            ids[np.concatenate(query)],
            np.concatenate(file).astype(np.uint64),
            Names.concat(names),
            np.concatenate(types),
            self._spread(errors, inverse),
        )
        if len(ids) == len(inverse) and bool((inverse[1:] > inverse[:-1]).all()):
            return links
        # Asked in another order, or for one directory twice: the entries of each directory are one stretch.
        starts = np.searchsorted(links.query, inverse, "left")
        counts = np.searchsorted(links.query, inverse, "right") - starts
        rows = np.arange(int(counts.sum())) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        again = links.take(rows)
        order = np.repeat(np.arange(len(inverse)), counts)
        return LinkRows(order, again.parent, again.file, again.name, again.type, links.errors)

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """See `FileSystem.lookup`. Short names that stand beside long ones are found, too, after these."""
        ids, inverse = np.unique(np.asarray(directories, np.uint64), return_inverse=True)
        file = np.zeros(len(names), np.uint64)
        found = np.zeros(len(names), np.bool_)
        units = [units_of(name) for name in names]
        usable = np.array([u is not None and 0 < len(u) <= 4096 for u in units], np.bool_)
        asked = UnitNames.of(
            [
                u if u is not None and ok else np.empty(0, np.uint16)
                for u, ok in zip(units, usable.tolist(), strict=True)
            ]
        )
        upcase = self._upcase()
        hashes = asked.hashes(upcase)
        errors: dict[int, PseudomountError] = {}
        for table, entries, failed in self._listed(ids, aliases=True):
            errors.update(failed)
            owners = table.owner[entries.row]
            for kind in (entries.names, entries.alias):
                if kind is None or not len(owners):
                    continue
                key = _keys(kind.hashes(upcase), owners)
                order = np.argsort(key, kind="stable")
                wanted = np.flatnonzero(usable & ~found)
                low = np.searchsorted(key[order], _keys(hashes[wanted], inverse[wanted]), "left")
                high = np.searchsorted(key[order], _keys(hashes[wanted], inverse[wanted]), "right")
                for i, a, b in zip(wanted.tolist(), low.tolist(), high.tolist(), strict=True):
                    name = upcase[asked.get(i)]
                    for row in order[a:b].tolist():
                        if owners[row] == inverse[i] and np.array_equal(upcase[kind.get(row)], name):
                            file[i], found[i] = table.position[entries.row[row]], True
                            break
        spread = self._spread(errors, inverse)
        return Looked(file, found, {i: error for i, error in spread.items() if not found[i]})

    def rows(self, files: UInt64s) -> FileRows:
        """See `FileSystem.rows`.

        `allocated` is the size in whole clusters, without a walk through the FAT. A directory of FAT has no size of its
        own, nor the root of exFAT: size and allocated are -1, except for the fixed root of FAT12 and FAT16.
        """
        ids = np.asarray(files, np.uint64)
        return self._file_rows(ids, self._nodes(ids, times=True))

    def _file_rows(self, ids: UInt64s, nodes: Nodes) -> FileRows:
        n = len(ids)
        none = np.full(n, -1, np.int64)
        bad = np.zeros(n, np.bool_)
        if nodes.errors:
            bad[list(nodes.errors)] = True
        types = np.where(bad, FileType.UNKNOWN, np.where(nodes.directory, FileType.DIRECTORY, FileType.FILE))
        known = nodes.size >= 0
        clusters = _whole(nodes.size, self._cluster)
        allocated = np.where(known, np.minimum(clusters, self._clusters) * self._cluster, -1)
        fixed = self._root_runs()
        size = nodes.size
        if fixed is not None:
            size = np.where(ids == 0, int(fixed[0].sum()), size)
            allocated = np.where(ids == 0, size, allocated)
        return FileRows(
            file=ids,
            subvolume=np.zeros(n, np.uint64),
            inode=ids & np.uint64(GONE - 1),
            generation=np.zeros(n, np.int64),
            type=types.astype(np.uint8),
            size=size,
            allocated=allocated,
            mode=none,
            uid=none,
            gid=none,
            links=np.ones(n, np.int64),
            created=nodes.created,
            modified=nodes.modified,
            changed=TimeColumn.null(n),
            accessed=nodes.accessed,
            flags=nodes.attributes,
            extra={"first_cluster": nodes.first.astype(np.uint32), "valid_data_length": nodes.valid},
            errors=nodes.errors,
        )

    def runs(self, files: UInt64s) -> DataRuns:
        """See `FileSystem.runs`. A chain that breaks off is an error; what it leaves out is lost, no hole."""
        ids, inverse = np.unique(np.asarray(files, np.uint64), return_inverse=True)
        return self._data_runs(ids, inverse, self._nodes(ids))

    def _data_runs(self, ids: UInt64s, inverse: NDArray[np.integer], nodes: Nodes) -> DataRuns:
        """Runs of distinct files, given out in the order asked for."""
        runs = self._runs(nodes, ids)
        self._check_allocated(ids, runs)
        owner, offset, length, position = runs.owner, runs.offset, runs.length, runs.position
        kind = np.zeros(len(owner), np.uint8)
        short = nodes.valid[owner] < np.where(nodes.directory, 0, nodes.size)[owner]
        if short.any():
            written = np.clip(nodes.valid[owner] - offset, 0, length)
            written = np.where(short, written, length)
            column = np.repeat(np.arange(len(owner)), 2)
            parts = np.stack([written, length - written], 1).reshape(-1)
            shift = np.stack([np.zeros_like(written), written], 1).reshape(-1)
            kinds = np.tile(np.array([RunKind.DATA, RunKind.UNWRITTEN], np.uint8), len(owner))
            some = parts > 0
            column = column[some]
            owner, length, kind = owner[column], parts[some], kinds[some]
            offset, position = offset[column] + shift[some], position[column] + shift[some]
        starts = np.searchsorted(owner, inverse, "left")
        counts = np.searchsorted(owner, inverse, "right") - starts
        rows = np.arange(int(counts.sum())) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        query = np.repeat(np.arange(len(inverse)), counts)
        return DataRuns(
            query,
            offset[rows],
            length[rows],
            position[rows],
            kind[rows],
            {},
            np.zeros(len(inverse), np.bool_),
            self._spread(runs.errors, inverse),
        )

    def readlink(self, files: UInt64s) -> Targets:
        """See `FileSystem.readlink`: there are no symbolic links here."""
        n = len(files)
        return Targets(Names.of([b""] * n), {i: NotASymlinkError("this file system has no links") for i in range(n)})

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """See `FileSystem.open`."""
        ids = np.array([file], np.uint64)
        nodes = self._nodes(ids)
        if nodes.errors:
            raise nodes.errors[0]
        if stream is not None:
            raise PathNotFoundError("this file system has no named streams", path=stream)
        if nodes.directory[0]:
            raise PathIsDirectoryError("a directory has no content")
        runs = self._data_runs(ids, np.zeros(1, np.int64), nodes)
        error = runs.errors.get(0)
        size = int(nodes.size[0])
        if nodes.gone[0] and size and error is None:
            self.findings.add(
                Severity.DEGRADED,
                "the file was deleted: that its content is what lies from its first cluster on is a guess",
                structure="directory entry",
                file=file,
                offset=file & (GONE - 1),
            )
        if error is not None and size and not len(runs):
            raise error
        position = np.where(runs.kind == RunKind.DATA, runs.position, -1)
        return FileContent(self.device, f"{self.device.name}:{file}", size, runs.length, position, error)

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        """See `FileSystem.scan`.

        The id of a deleted file is the position of its entry with the highest bit set. Its content is taken to lie from
        its first cluster on, without gaps, and only where all those clusters are free: `open` and `runs` refuse others.
        """
        steps = ScanSteps(
            self._nodes,
            self._listed,
            self._listed_nodes,
            self._file_rows,
            self._parse_deleted,
            self._deleted_directories,
        )
        return scan_volume(steps, self.findings, deleted=deleted)

    # -- below the contract --------------------------------------------------------------------------------------

    def _root_start(self, most: int) -> DirectoryTable:
        """The root directory's entries in its first `most` bytes, without following its chain any further."""
        ids = np.zeros(1, np.uint64)
        runs = self._runs(self._nodes(ids), ids, most)
        return read_directories(self.device, runs.owner, runs.length, runs.position, barrier=self._barrier, most=most)

    def _listed(
        self, ids: UInt64s, nodes: Nodes | None = None, *, aliases: bool = False
    ) -> Iterator[tuple[DirectoryTable, Entries, dict[int, PseudomountError]]]:
        """The entries of directories, in groups of so many bytes; the numbers in them are rows of `ids`."""
        if nodes is None:
            nodes = self._nodes(ids)
        directory = nodes.directory.copy()
        failed = dict(nodes.errors)
        for i in np.flatnonzero(~directory).tolist():
            failed.setdefault(i, PathNotDirectoryError("not a directory"))
        for i in np.flatnonzero(nodes.gone).tolist():
            failed.setdefault(i, PathNotDirectoryError("a directory that was deleted; its files are found by a scan"))
        directory &= ~nodes.gone
        runs = self._runs(nodes, ids)
        failed.update((i, error) for i, error in runs.errors.items() if i not in failed)
        wanted = directory[runs.owner]
        owner, length, position = runs.owner[wanted], runs.length[wanted], runs.position[wanted]
        for a, b in _groups(owner, length):
            found = read_directories(
                self.device, owner[a:b], length[a:b], position[a:b], barrier=self._barrier, most=self._most_directory
            )
            entries = self._parse(found, aliases=aliases)
            self._tell(entries, found.position)
            yield found, entries, {**found.errors, **failed}
            failed = {}
        if failed:
            nothing = np.empty(0, np.int64)
            table = DirectoryTable(np.empty((0, ENTRY), np.uint8), nothing, nothing, {})
            names = UnitNames(np.empty(0, np.uint16), nothing, nothing)
            yield table, Entries(nothing, nothing.astype(np.bool_), names), failed

    def _runs(self, nodes: Nodes, ids: UInt64s, most_directory: int | None = None) -> Runs:
        """Where the content of files, and the entries of directories, lie. Files are followed as far as their size.

        Directories without a size are followed for `most_directory` bytes, the largest that may be unless given.
        """
        n, cluster = len(nodes), self._cluster
        most = -(-(most_directory or self._most_directory) // cluster)
        sized = nodes.size >= 0
        whole = _whole(nodes.size, cluster)
        wanted = np.where(nodes.directory, np.where(sized, np.minimum(whole, most), most), whole)
        fixed = self._root_runs()
        errors: dict[int, PseudomountError] = dict(nodes.errors)
        if errors:
            wanted[list(errors)] = 0
        if fixed is not None:
            wanted[ids == 0] = 0
        huge = whole > most
        for i in np.flatnonzero(nodes.directory & sized & huge).tolist():
            errors.setdefault(i, CorruptionError("larger than a directory may be", device=self.device.name))
        parts = []
        if nodes.gone.any():
            keeps = self._keeps_chains
            parts.append(deleted_runs(nodes, wanted, self._table, self._free, errors, keeps_chains=keeps))
            wanted[nodes.gone] = 0
        direct = nodes.contiguous & (wanted > 0)
        empty = ~nodes.gone & ~nodes.directory & (nodes.size == 0) & (nodes.first >= 2)
        empty[list(nodes.errors)] = False
        longer = [np.flatnonzero(empty)]
        for exact in (True, False):
            rows = np.flatnonzero(~direct & (wanted > 0) & (sized == exact))
            if len(rows):
                chains = self._table.chains(nodes.first[rows], wanted[rows], exact=exact)
                errors.update((int(rows[i]), error) for i, error in chains.errors.items())
                parts.append((rows[chains.owner], chains.logical, chains.start, chains.count))
                longer.append(rows[chains.longer])
        self._tell_files(
            Severity.NOTE, "its chain of clusters goes on past its size", "FAT", ids[np.concatenate(longer)]
        )
        rows = np.flatnonzero(direct)
        if len(rows):
            first = nodes.first[rows]
            inside = (first >= 2) & (first < self._clusters + 2)
            count = np.where(inside, np.minimum(wanted[rows], self._clusters + 2 - first), 0)
            for i in rows[count < wanted[rows]].tolist():
                errors[i] = CorruptionError(
                    "its clusters lie outside the volume", device=self.device.name, structure="stream extension"
                )
            some = count > 0
            parts.append((rows[some], np.zeros(int(some.sum()), np.int64), first[some], count[some]))
        owner, logical, start, count = (
            (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else np.empty((4, 0), np.int64)
        )
        order = np.argsort(owner, kind="stable")
        owner, logical, start, count = owner[order], logical[order], start[order], count[order]
        crossing = nodes.directory[owner]
        if int(count[crossing].sum()) > self._clusters:
            # Only directories that share clusters come to more than the volume has. Their entries would multiply.
            guilty = sharing(*(column[crossing] for column in (owner, logical, start, count)))
            keep = ~np.isin(owner, guilty)
            owner, logical, start, count = owner[keep], logical[keep], start[keep], count[keep]
            for i in guilty.tolist():
                errors[i] = CorruptionError("its clusters are those of other directories", device=self.device.name)
        position = self._data_start + (start - 2) * cluster
        offset, length = logical * cluster, count * cluster
        at = np.flatnonzero(ids == 0)
        if fixed is not None and len(at) and n:
            lengths, positions = fixed
            where = np.searchsorted(owner, at[0])
            owner = np.insert(owner, where, np.full(len(lengths), at[0]))
            offset = np.insert(offset, where, np.cumsum(lengths) - lengths)
            length, position = np.insert(length, where, lengths), np.insert(position, where, positions)
        return Runs(owner, offset, length, position, errors)

    def _deleted_directories(self, ids: UInt64s, nodes: Nodes) -> Iterator[tuple[DirectoryTable, Entries, Entries]]:
        """Of deleted directories whose clusters are free and still look like theirs: entries not deleted, and deleted.

        The numbers in the tables are rows of `ids`. Of a directory without a size only the first cluster is known.
        """
        runs = self._runs(nodes, ids)
        for a, b in _groups(runs.owner, runs.length):
            found = read_directories(
                self.device,
                runs.owner[a:b],
                runs.length[a:b],
                runs.position[a:b],
                barrier=self._barrier,
                most=self._most_directory,
            )
            good = np.flatnonzero(self._begins(found, nodes.first)[found.owner])
            kept = DirectoryTable(found.table.take(good, axis=0), found.owner[good], found.position[good], {})
            yield kept, self._parse(kept), self._parse_deleted(kept)

    def _is_position(self, files: UInt64s) -> NDArray[np.bool_]:
        """bool (n,): which ids can be the position of an entry among the clusters."""
        ids = files
        end = self._data_start + self._clusters * self._cluster
        possible: NDArray[np.bool_] = (ids >= self._data_start) & (ids < end) & (ids % ENTRY == 0)
        return possible

    def _tell(self, entries: Entries, position: Int64s) -> None:
        """Problems as findings, the first of each kind one by one."""
        for problem in entries.problems:
            at = position[problem.rows]
            for where in at[:_TOLD].tolist():
                self.findings.add(
                    problem.severity, problem.message, structure=problem.structure, file=where, offset=where
                )
            if len(at) > _TOLD:
                self.findings.add(
                    problem.severity,
                    f"{problem.message} ({len(at) - _TOLD} more)",
                    structure=problem.structure,
                    offset=int(at[_TOLD]),
                )

    def _tell_files(self, severity: Severity, message: str, structure: str, files: UInt64s) -> None:
        """A problem of many files as findings, the first ones one by one."""
        for file in files[:_TOLD].tolist():
            self.findings.add(severity, message, structure=structure, file=file)
        if len(files) > _TOLD:
            self.findings.add(severity, f"{message} ({len(files) - _TOLD} more)", structure=structure)

    @staticmethod
    def _spread(errors: dict[int, PseudomountError], inverse: NDArray[np.integer]) -> dict[int, PseudomountError]:
        """Errors of distinct ids as errors of the rows that asked for them."""
        if not errors:
            return {}
        return {i: errors[k] for i, k in enumerate(inverse.tolist()) if k in errors}


def _groups(owner: Int64s, length: Int64s) -> Iterator[tuple[int, int]]:
    """Ranges of runs that are read at once: whole directories, of so many bytes."""
    group = (np.cumsum(length) - length) // _GROUP
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    group = np.repeat(group[first], np.diff(np.append(first, len(owner))))
    borders = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
    return zip(borders, [*borders[1:], len(owner)], strict=False)


def _whole(size: Int64s, cluster: int) -> Int64s:
    """Clusters that so many bytes take; 0 for a size that is not known."""
    known = np.maximum(size, 0)
    return known // cluster + (known % cluster > 0)


def _keys(hashes: UInt64s, owners: NDArray[np.integer]) -> UInt64s:
    return hashes ^ (owners.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
