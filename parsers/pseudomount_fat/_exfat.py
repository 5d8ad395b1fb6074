"""exFAT."""

from __future__ import annotations

import threading
from types import MappingProxyType
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError
from pseudomount.filesystem import TimeColumn, gather_ranges
from pseudomount.findings import FindingLog, Severity
from pseudomount_fat._bitmap import AllocationBitmap
from pseudomount_fat._directories import DirectoryTable
from pseudomount_fat._entries import GONE, Entries, Nodes
from pseudomount_fat._exfat_catalogue import (
    BARRIER,
    IN_USE,
    deleted_entries,
    file_fields,
    parse_entries,
    set_checksums,
    stream_fields,
)
from pseudomount_fat._exfat_layout import (
    BITMAP,
    FILE,
    GUID,
    LABEL,
    STREAM,
    UPCASE,
    BootRegion,
    ExfatGeometry,
    expand_upcase,
    rotating_checksum,
)
from pseudomount_fat._fat import volume_serial
from pseudomount_fat._layout import ATTR_DIRECTORY, ENTRY
from pseudomount_fat._names import unicode_upcase
from pseudomount_fat._pages import TableShape
from pseudomount_fat._read import read_entries
from pseudomount_fat._table import AllocationTable
from pseudomount_fat._times import Zone, dos_times
from pseudomount_fat._volume import ClusterFileSystem, Runs

__all__ = ["ExfatFileSystem"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: Section 7.6.3.1 of the specification: no directory is larger.
_MOST_DIRECTORY = 256 << 20
#: Bytes of the root directory that are searched for what is no file: at first, and where a part of it is missing.
_SYSTEM_WITHIN = (8 << 10, 1 << 20)
#: An up-case table has at most 65536 units.
_MOST_UPCASE = 128 << 10
_MOST_SET = 19
_CONTIGUOUS = 0x02
_DIRTY, _MEDIA_FAILURE = 0x02, 0x04


def table_shape(geometry: ExfatGeometry) -> TableShape:
    """The FAT in use; TexFAT's other one is no mirror (section 3.1.16)."""
    return TableShape(
        32, 0xFFFFFFFF, geometry.clusters, (geometry.fat_start,), geometry.fat_length, 0xFFFFFFF7, 0xFFFFFFF8
    )


class ExfatFileSystem(ClusterFileSystem):
    """An exFAT volume. Times without an offset of their own are local times of `zone`."""

    name = "exfat"
    _barrier = BARRIER
    _most_directory = _MOST_DIRECTORY
    _keeps_chains = True

    def __init__(self, device: BlockDevice, findings: FindingLog, boot: BootRegion, zone: Zone) -> None:
        super().__init__(device, findings)
        geometry = boot.geometry
        self._geometry, self._zone = geometry, zone
        self._cluster, self._clusters, self._data_start = geometry.cluster_size, geometry.clusters, geometry.heap_start
        self._table = AllocationTable(device, table_shape(geometry), findings)
        self._lock = threading.Lock()
        self._upcase_table: NDArray[np.uint16] | None = None
        self.uuid = volume_serial(geometry.serial)
        system = self._system_entries()
        self._upcase_entry = next((e for e in system if e[0] == UPCASE), None)
        self._bitmap = self._find_bitmap(system)
        label = next((e for e in system if e[0] == LABEL), b"\0\0")
        self.label = label[2 : 2 + 2 * min(label[1], 11)].decode("utf-16-le", "surrogatepass").split("\0")[0]
        guid = next((e for e in system if e[0] == GUID), None)
        if geometry.flags & _DIRTY:
            self.findings.add(
                Severity.NOTE,
                "the volume was in use: not unmounted cleanly",
                structure="VolumeFlags",
                offset=boot.position + 106,
            )
        if geometry.flags & _MEDIA_FAILURE:
            self.findings.add(
                Severity.NOTE,
                "the volume met disk errors when it was last in use",
                structure="VolumeFlags",
                offset=boot.position + 106,
            )
        self.details = MappingProxyType(
            {
                "sector_size": geometry.sector_size,
                "cluster_size": geometry.cluster_size,
                "clusters": geometry.clusters,
                "fats": geometry.fats,
                "active_fat": geometry.active,
                "revision": f"{geometry.revision >> 8}.{geometry.revision & 0xFF:02}",
                "partition_offset": geometry.partition_offset,
                "size": geometry.size,
                "dirty": bool(geometry.flags & _DIRTY),
                "volume_guid": str(UUID(bytes_le=guid[6:22])) if guid is not None else "",
                "timezone": zone.text,
            }
        )

    # -- system files --------------------------------------------------------------------------------------------

    def _system_entries(self) -> list[bytes]:
        """The root directory's entries that are no files, few as they are."""
        for most in _SYSTEM_WITHIN:
            found = self._root_start(most)
            kinds = found.table[:, 0].tolist()
            whole = kinds.count(BITMAP) >= self._geometry.fats and {UPCASE, LABEL} <= set(kinds)
            if whole or len(kinds) * ENTRY < most:
                break
        wanted = np.flatnonzero(np.isin(found.table[:, 0], (BITMAP, UPCASE, LABEL, GUID)))[:16]
        return [found.table[row].tobytes() for row in wanted.tolist()]

    def _find_bitmap(self, system: list[bytes]) -> AllocationBitmap | None:
        geometry = self._geometry
        for entry in system:
            if entry[0] == BITMAP and entry[1] & 1 == geometry.active:
                lengths, positions, error = self._system_runs(entry, -(-geometry.clusters // 8))
                if error is None:
                    return AllocationBitmap(self.device, geometry.clusters, lengths, positions)
                self.findings.add(
                    Severity.DEGRADED,
                    f"the allocation bitmap cannot be found: {error}",
                    structure="allocation bitmap",
                    offset=geometry.heap_start,
                )
                return None
        self.findings.add(Severity.DEGRADED, "there is no allocation bitmap", structure="allocation bitmap")
        return None

    def _system_runs(self, entry: bytes, size: int) -> tuple[Int64s, Int64s, PseudomountError | None]:
        """Lengths and positions of a system file whose entry has first cluster and length where all have them."""
        first = int.from_bytes(entry[20:24], "little")
        claimed = int.from_bytes(entry[24:32], "little")
        none = np.empty(0, np.int64)
        if claimed < size:
            return none, none, CorruptionError(f"{claimed} bytes long where {size} are needed")
        wanted = -(-size // self._cluster)
        chains = self._table.chains(np.array([first]), np.array([wanted]), exact=True)
        return (
            chains.count * self._cluster,
            self._data_start + (chains.start - 2) * self._cluster,
            chains.errors.get(0),
        )

    def _upcase(self) -> NDArray[np.uint16]:
        with self._lock:
            if self._upcase_table is None:
                self._upcase_table = self._load_upcase()
            return self._upcase_table

    def _load_upcase(self) -> NDArray[np.uint16]:
        """The volume's own table; Unicode's simple upper case where that is damaged."""
        problem = "there is none"
        if self._upcase_entry is not None:
            size = int.from_bytes(self._upcase_entry[24:32], "little")
            if 0 < size <= _MOST_UPCASE:
                lengths, positions, error = self._system_runs(self._upcase_entry, size)
                content = self.device.read_many(positions, lengths)
                error = error or next(iter(content.errors.values()), None)
                table = content.buffer[:size].tobytes()
                if error is not None:
                    problem = str(error)
                elif rotating_checksum(table) != int.from_bytes(self._upcase_entry[4:8], "little"):
                    problem = "its checksum is wrong"
                else:
                    return expand_upcase(table)
            else:
                problem = f"it cannot be {size} bytes long"
        self.findings.add(
            Severity.DEGRADED, f"the up-case table is not used: {problem}; Unicode's is", structure="up-case table"
        )
        return unicode_upcase()

    def _check_allocated(self, files: UInt64s, runs: Runs) -> None:
        if self._bitmap is None or not len(runs.owner):
            return
        free = self._bitmap.free_in((runs.position - self._data_start) // self._cluster, runs.length // self._cluster)
        lost = files[np.unique(runs.owner[free])]
        lost = lost[(lost & np.uint64(GONE)) == 0]
        self._tell_files(Severity.DEGRADED, "clusters of the file are marked free", "allocation bitmap", lost)

    # -- entries -------------------------------------------------------------------------------------------------

    def _parse(self, found: DirectoryTable, *, aliases: bool = False) -> Entries:
        return parse_entries(found.table, found.owner, self._upcase())

    def _parse_deleted(self, found: DirectoryTable) -> Entries:
        return deleted_entries(found.table, found.owner)

    def _free(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        if self._bitmap is None:
            return np.zeros(len(starts), np.bool_)
        return self._bitmap.all_free(starts - 2, counts)

    def _begins(self, found: DirectoryTable, first: Int64s) -> NDArray[np.bool_]:
        live, gone = parse_entries(found.table, found.owner, None), self._parse_deleted(found)
        sets = np.concatenate([live.row if live.sure is None else live.row[live.sure], gone.row])
        begin = np.searchsorted(found.owner, np.arange(len(first)))
        begins: NDArray[np.bool_] = np.isin(begin, sets)
        begins[begins] = found.owner[begin[begins]] == np.flatnonzero(begins)
        return begins

    def _nodes(self, files: UInt64s, *, times: bool = False) -> Nodes:
        pairs, errors = self._read_pairs(files)
        return self._columns(files, pairs, errors, times=times)

    def _listed_nodes(self, files: UInt64s, found: DirectoryTable, entries: Entries) -> Nodes:
        pairs = np.concatenate([found.table.take(entries.row, axis=0), found.table.take(entries.row + 1, axis=0)], 1)
        errors: dict[int, PseudomountError] = {}
        if len(files) and bool((files & np.uint64(GONE)).any()):
            pairs[:, [0, ENTRY]] |= IN_USE
        if entries.sure is not None and not entries.sure.all():
            # Where a cluster ends behind the first entry, what is told of such a file is what its id alone tells.
            place = (files & np.uint64(GONE - 1)).astype(np.int64) - self._data_start
            cut = np.flatnonzero(~entries.sure & (place % self._cluster == self._cluster - ENTRY))
            pairs[cut], failed = self._read_pairs(files[cut])
            errors = {int(cut[i]): error for i, error in failed.items()}
        return self._columns(files, pairs, errors, times=True)

    def _read_pairs(self, files: UInt64s) -> tuple[UInt8s, dict[int, PseudomountError]]:
        """File and stream entry of n files, uint8 (n, 64), as they were before the file was deleted."""
        n = len(files)
        root = files == 0
        gone = (files & np.uint64(GONE)) != 0
        files = files & np.uint64(GONE - 1)
        inside = self._is_position(files)
        rows = np.flatnonzero(inside)
        at = files[rows].astype(np.int64)
        room = self._cluster - (at - self._data_start) % self._cluster
        # File and stream entry mostly lie side by side; where a cluster ends between them the rest is looked for.
        data, failed = read_entries(self.device, at, np.minimum(room, 2 * ENTRY))
        begins = np.cumsum(np.minimum(room, 2 * ENTRY)) - np.minimum(room, 2 * ENTRY)
        pairs = np.zeros((n, 2 * ENTRY), np.uint8)
        flat = np.concatenate([data, np.zeros(ENTRY, np.uint8)])
        pairs[rows] = flat[begins[:, None] + np.arange(2 * ENTRY)] if len(rows) else 0
        cut = rows[room < 2 * ENTRY]
        pairs[cut, ENTRY:] = 0
        pairs[gone, 0] |= IN_USE
        pairs[gone, ENTRY] |= IN_USE
        errors: dict[int, PseudomountError] = {int(rows[i]): error for i, error in failed.items()}
        cut = cut[(pairs[cut, 0] == FILE) & ~np.isin(cut, list(errors))]
        if len(cut):
            pairs[cut, ENTRY:] = self._continued(
                files[cut].astype(np.int64), pairs[cut, :ENTRY], cut, errors, np.where(gone[cut], IN_USE, 0)
            )
        for i in np.flatnonzero(~root & (pairs[:, 0] != FILE)).tolist():
            errors.setdefault(i, PathNotFoundError(f"no file has its entry at {int(files[i])}"))
        for i in np.flatnonzero(~root & (pairs[:, ENTRY] != STREAM)).tolist():
            errors.setdefault(i, self._corrupt("its stream extension is missing", int(files[i])))
        return pairs, errors

    def _columns(
        self,
        files: UInt64s,
        pairs: UInt8s,
        errors: dict[int, PseudomountError],
        *,
        times: bool,
    ) -> Nodes:
        root, gone = files == 0, (files & np.uint64(GONE)) != 0
        places = files & np.uint64(GONE - 1)
        file, stream = file_fields(pairs[:, :ENTRY]), stream_fields(pairs[:, ENTRY:])
        for i in np.flatnonzero(~root & (stream["size"] >= np.uint64(1 << 63))).tolist():
            errors.setdefault(i, self._corrupt("it claims a size of 2**63 or more", int(places[i])))
        beyond = ~root & (stream["valid"] > stream["size"])
        for i in np.flatnonzero(beyond)[:100].tolist():
            if i not in errors:
                self.findings.add(
                    Severity.DEGRADED,
                    "valid data reach past the size",
                    structure="stream extension",
                    file=int(files[i]),
                    offset=int(places[i]),
                )
        bad = np.zeros(len(files), np.bool_)
        bad[list(errors)] = True
        size = np.where(bad | root, 0, stream["size"]).astype(np.int64)
        valid = np.minimum(np.where(bad | root, 0, stream["valid"]), size.astype(np.uint64)).astype(np.int64)
        directory = root | ((file["attributes"] & ATTR_DIRECTORY) != 0)
        created = modified = accessed = TimeColumn.null(len(files))
        if times:
            created, modified, accessed = (
                dos_times(file[f"{x}_date"], file[f"{x}_time"], self._zone, file.get(f"{x}_tens"), file[f"{x}_zone"])
                for x in ("created", "modified", "accessed")
            )
        return Nodes(
            directory=directory,
            attributes=np.where(root, ATTR_DIRECTORY, file["attributes"]).astype(np.uint64),
            first=np.where(root, self._geometry.root_cluster, stream["first"]).astype(np.int64),
            size=np.where(root | bad, -1, size),
            valid=np.where(root | bad, -1, np.where(directory, size, valid)),
            contiguous=~root & ((stream["flags"] & np.uint64(_CONTIGUOUS)) != 0),
            created=created,
            modified=modified,
            accessed=accessed,
            errors=errors,
            gone=gone,
        )

    def _continued(
        self, at: Int64s, first: UInt8s, rows: Int64s, errors: dict[int, PseudomountError], restored: Int64s
    ) -> UInt8s:
        """The stream entries uint8 (n, 32) of sets whose first entry is the last of a cluster.

        Which cluster goes on is known to the directory: the FAT says, or, where the directory is contiguous, it is the
        next one. The id does not name the directory, but the checksum of the set tells which is right. `restored` are
        the bits that are set again in the types of entries.
        """
        cluster = (at - self._data_start) // self._cluster + 2
        count = np.minimum(file_fields(first)["secondary"], _MOST_SET - 1)
        length = np.minimum(count * ENTRY, self._cluster)
        best = np.zeros((len(at), ENTRY), np.uint8)
        sure = np.zeros(len(at), np.bool_)
        wanted = file_fields(first)["checksum"]
        for candidate in (self._table.pages.following(cluster), cluster + 1):
            some = np.flatnonzero((candidate >= 2) & (candidate < self._clusters + 2) & ~sure & (length > 0))
            if not len(some):
                continue
            data, failed = read_entries(
                self.device, self._data_start + (candidate[some] - 2) * self._cluster, length[some]
            )
            begins = np.cumsum(length[some]) - length[some]
            data = data.copy()
            types = np.arange(0, len(data), ENTRY)
            data[types] |= np.repeat(restored[some], length[some] // ENTRY).astype(np.uint8)
            good = (data[begins] == STREAM) & ~np.isin(np.arange(len(some)), list(failed))
            errors.update((int(rows[some[i]]), error) for i, error in failed.items())
            some, begins = some[good], begins[good]
            if not len(some):
                continue
            parts = length[some] // ENTRY
            heads = np.cumsum(parts + 1) - (parts + 1)
            table = np.empty((int((parts + 1).sum()), ENTRY), np.uint8)
            table[heads] = first[some]
            inside = np.ones(len(table), np.bool_)
            inside[heads] = False
            table[inside] = gather_ranges(data, begins, length[some]).reshape(-1, ENTRY)
            right = (parts == count[some]) & (set_checksums(table, heads, parts + 1) == wanted[some])
            taken = right | ~best[some].any(1)
            best[some[taken]] = table[heads[taken] + 1]
            sure[some] = right
            for i in rows[some[right]].tolist():
                errors.pop(i, None)
        return best

    def _corrupt(self, message: str, offset: int) -> CorruptionError:
        return CorruptionError(message, device=self.device.name, offset=offset, structure="file entry")
