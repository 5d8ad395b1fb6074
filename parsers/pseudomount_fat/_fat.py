"""FAT12, FAT16 and FAT32."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import PathNotFoundError, PseudomountError
from pseudomount.filesystem import TimeColumn
from pseudomount.findings import FindingLog, Severity
from pseudomount_fat._catalogue import DELETED, entry_fields, is_dots, is_file, label_rows, parse_entries
from pseudomount_fat._deleted import deleted_entries, is_deleted_file
from pseudomount_fat._directories import DirectoryTable
from pseudomount_fat._entries import GONE, Entries, Nodes
from pseudomount_fat._layout import ATTR_DIRECTORY, ENTRY, FatGeometry
from pseudomount_fat._names import CodePage, unicode_upcase
from pseudomount_fat._pages import TableShape
from pseudomount_fat._read import read_entries
from pseudomount_fat._table import AllocationTable
from pseudomount_fat._times import Zone, dos_times
from pseudomount_fat._volume import ClusterFileSystem

__all__ = ["FatFileSystem", "volume_serial"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: A directory has at most 65536 entries, 2 MiB (section 6.1 of the specification); eight times that is borne.
_MOST_DIRECTORY = 16 << 20
#: Bytes of the root directory that are searched for the volume label: at first, and where it is not among them.
_LABEL_WITHIN = (8 << 10, 256 << 10)


def volume_serial(serial: int | None) -> str:
    """As blkid prints it: "1A2B-3C4D"; "" for none."""
    return f"{serial >> 16:04X}-{serial & 0xFFFF:04X}" if serial else ""


def table_shape(geometry: FatGeometry) -> TableShape:
    """The FAT that a boot sector describes."""
    mask = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}[geometry.bits]
    copies = [geometry.fat_start + i * geometry.fat_length for i in range(geometry.fats)]
    used = (copies[geometry.active], *(copies[1:2] if geometry.mirrored else ()))
    return TableShape(geometry.bits, mask, geometry.clusters, used, geometry.fat_length, mask - 8, mask - 7)


class FatFileSystem(ClusterFileSystem):
    """A FAT volume.

    Times are local times of `zone`. Names that stand only in the short form are decoded with `codepage`, in lower case
    where Windows NT's bits say so. `lookup` compares as Windows does, by Unicode's simple upper case.
    """

    _barrier = DELETED
    _most_directory = _MOST_DIRECTORY

    def __init__(
        self, device: BlockDevice, findings: FindingLog, geometry: FatGeometry, codepage: CodePage, zone: Zone
    ) -> None:
        super().__init__(device, findings)
        self._geometry, self._codepage, self._zone = geometry, codepage, zone
        self._cluster, self._clusters, self._data_start = geometry.cluster_size, geometry.clusters, geometry.data_start
        self._table = AllocationTable(device, table_shape(geometry), findings)
        self.name = f"fat{geometry.bits}"
        self.uuid = volume_serial(geometry.serial)
        self.label = self._find_label()
        dirty = self._note_state()
        self.details = MappingProxyType(
            {
                "fat_bits": geometry.bits,
                "sector_size": geometry.sector_size,
                "cluster_size": geometry.cluster_size,
                "clusters": geometry.clusters,
                "fats": geometry.fats,
                "active_fat": geometry.active,
                "mirrored": geometry.mirrored,
                "media": geometry.media,
                "hidden_sectors": geometry.hidden,
                "oem_name": geometry.oem.decode("latin-1").rstrip(" \0"),
                "boot_label": geometry.boot_label.decode("latin-1").rstrip(" \0"),
                "size": geometry.size,
                "dirty": dirty,
                "codepage": codepage.name,
                "timezone": zone.text,
            }
        )

    def _note_state(self) -> bool:
        """Notes what the flags in entry 1 of the FAT and in the boot sector say (section 4.2)."""
        geometry = self._geometry
        dirty = bool(geometry.state & 1)
        if geometry.bits > 12:
            try:
                entry = self._table.pages.entry(1)
            except PseudomountError:
                entry = -1  # whoever needs this part of the FAT will be told
            clean, sound = (1 << 15, 1 << 14) if geometry.bits == 16 else (1 << 27, 1 << 26)
            dirty |= not entry & clean
            if not entry & sound:
                self.findings.add(
                    Severity.NOTE,
                    "the volume met disk errors when it was last in use",
                    structure="FAT",
                    offset=geometry.fat_start,
                )
        if dirty:
            self.findings.add(
                Severity.NOTE,
                "the volume was in use: not unmounted cleanly",
                structure="FAT",
                offset=geometry.fat_start,
            )
        return dirty

    def _find_label(self) -> str:
        """The label in the root directory: the one that Windows shows; that of the boot sector may be stale."""
        for most in _LABEL_WITHIN:
            table = self._root_start(most).table
            rows = label_rows(table)
            if len(rows):
                break
            if len(table) * ENTRY < most:  # the directory ends here
                return ""
        else:
            return ""
        raw = table[rows[0], :11].tobytes()
        raw = b"\xe5" + raw[1:] if raw[0] == 0x05 else raw
        return self._codepage.decode(raw.rstrip(b" \0"))

    def _root_runs(self) -> tuple[Int64s, Int64s] | None:
        geometry = self._geometry
        if geometry.bits == 32:
            return None
        some = int(geometry.root_length > 0)
        return np.full(some, geometry.root_length, np.int64), np.full(some, geometry.root_start, np.int64)

    def _parse(self, found: DirectoryTable, *, aliases: bool = False) -> Entries:
        return parse_entries(found.table, found.owner, self._codepage, aliases=aliases)

    def _parse_deleted(self, found: DirectoryTable) -> Entries:
        geometry = self._geometry
        last = geometry.clusters + 1
        return deleted_entries(found.table, found.owner, self._codepage, last, wide=geometry.bits == 32)

    def _free(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        return self._table.pages.all_free(starts, counts)

    def _begins(self, found: DirectoryTable, first: Int64s) -> NDArray[np.bool_]:
        if not len(found.table):
            return np.zeros(len(first), np.bool_)
        numbers = np.arange(len(first))
        dot = np.minimum(np.searchsorted(found.owner, numbers), len(found.owner) - 1)
        both = np.minimum(dot + 1, len(found.owner) - 1)
        good = (found.owner[dot] == numbers) & (found.owner[both] == numbers) & (both > dot)
        good &= is_dots(found.table[dot]) & is_dots(found.table[both])
        good &= (found.table[dot, 1] == 0x20) & (found.table[both, 1] == 0x2E)
        good &= self._first_cluster(entry_fields(found.table[dot])) == first
        begins: NDArray[np.bool_] = good
        return begins

    def _upcase(self) -> NDArray[np.uint16]:
        return unicode_upcase()

    def _nodes(self, files: UInt64s, *, times: bool = False) -> Nodes:
        geometry = self._geometry
        gone = (files & np.uint64(GONE)) != 0
        at = files & np.uint64(GONE - 1)
        inside = self._is_position(at)
        end = geometry.root_start + geometry.root_length
        inside |= (at >= geometry.root_start) & (at < end) & (at % ENTRY == 0)
        rows = np.flatnonzero(inside)
        table = np.zeros((len(files), ENTRY), np.uint8)
        data, failed = read_entries(self.device, at[rows].astype(np.int64), np.full(len(rows), ENTRY, np.int64))
        table[rows] = data.reshape(-1, ENTRY)
        errors: dict[int, PseudomountError] = {int(rows[i]): error for i, error in failed.items()}
        known = is_file(table) | (files == 0)
        if gone.any():
            known |= gone & is_deleted_file(table)
        for i in np.flatnonzero(~known).tolist():
            errors.setdefault(i, PathNotFoundError(f"no file has its entry at {int(at[i])}"))
        return self._entry_nodes(files, table, errors, times=times)

    def _listed_nodes(self, files: UInt64s, found: DirectoryTable, entries: Entries) -> Nodes:
        return self._entry_nodes(files, found.table.take(entries.row, axis=0), {}, times=True)

    def _entry_nodes(
        self, files: UInt64s, table: NDArray[np.uint8], errors: dict[int, PseudomountError], *, times: bool
    ) -> Nodes:
        """What short entries uint8 (n, 32) say."""
        root = files == 0
        field = entry_fields(table)
        directory = root | ((field["attributes"] & ATTR_DIRECTORY) != 0)
        size = np.where(directory, -1, field["size"])
        created = modified = accessed = TimeColumn.null(len(files))
        if times:
            zone = self._zone
            created = dos_times(field["created_date"], field["created_time"], zone, field["tenths"])
            modified = dos_times(field["modified_date"], field["modified_time"], zone)
            accessed = dos_times(field["accessed_date"], np.zeros(len(files), np.int64), zone)
        return Nodes(
            directory=directory,
            attributes=np.where(root, ATTR_DIRECTORY, field["attributes"]).astype(np.uint64),
            first=np.where(root, self._geometry.root_cluster, self._first_cluster(field)),
            size=size,
            valid=size,
            contiguous=np.zeros(len(files), np.bool_),
            created=created,
            modified=modified,
            accessed=accessed,
            errors=errors,
            gone=(files & np.uint64(GONE)) != 0,
        )

    def _first_cluster(self, field: dict[str, Int64s]) -> Int64s:
        # FAT12 and FAT16 keep other things (OS/2's extended attributes) where FAT32 has the upper half of the cluster.
        return field["cluster_low"] | (field["cluster_high"] << 16 if self._geometry.bits == 32 else 0)
