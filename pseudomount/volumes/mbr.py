"""The MBR partition table, and the chains of tables inside its extended partitions.

Layout: UEFI 2.10 section 5.2.1, table 5.1 and 5.2. Chains and numbers as Linux has them: primaries are numbered by
their row, 1 to 4; logical partitions from 5, in the order of the chain, rows that are empty taking no number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from construct import Array, Bytes, Int8ul, Int32ul, Padding, Struct

from pseudomount.device import BlockDevice
from pseudomount.findings import FindingLog, Severity
from pseudomount.volumes.signs import looks_like_file_system
from pseudomount.volumes.slots import Partition, read_places
from pseudomount.volumes.typenames import EXTENDED, MBR_TYPES, PROTECTIVE

__all__ = ["Entry", "Table", "parse_table", "partitions", "sector_size_of"]

SECTOR = 512  # the table lies in the first 512 bytes, however long a sector is
#: Linux knows no partition beyond 255 of a disk. Each table of a chain is a read, and a forged chain can be endless.
MAX_CHAIN = 256

_ENTRY = Struct(
    "flag" / Int8ul,
    Padding(3),  # first sector as cylinder, head, sector
    "type" / Int8ul,
    Padding(3),  # last sector, likewise
    "start" / Int32ul,
    "count" / Int32ul,
)
_TABLE = Struct(
    Padding(440),  # boot code
    "signature" / Int32ul,
    Padding(2),
    "entries" / Array(4, _ENTRY),
    "magic" / Bytes(2),
)
_ENTRIES_AT, _ENTRY_SIZE = 446, 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: flag (0x80 boots, 0 does not), type, start and count in sectors. In a chain `start` is relative."""

    flag: int
    type: int
    start: int
    count: int

    @property
    def used(self) -> bool:
        """As Linux sees it: a length makes an entry, even of type 0."""
        return self.count > 0

    @property
    def extended(self) -> bool:
        """Whether it holds further tables and no file system."""
        return self.type in EXTENDED

    @property
    def flag_valid(self) -> bool:
        """Anything but 0 and 0x80 there is boot code or damage."""
        return self.flag in (0x00, 0x80)


@dataclass(frozen=True, slots=True)
class Table:
    """The four rows of an MBR or of a table in a chain, and the disk's signature."""

    signature: int
    entries: tuple[Entry, ...]

    @property
    def flags_valid(self) -> bool:
        """Whether all four rows, empty ones too, have a valid flag."""
        return all(entry.flag_valid for entry in self.entries)

    @property
    def protective(self) -> Entry | None:
        """The row that covers a GPT disk, if there is one."""
        for entry in self.entries:
            if entry.type == PROTECTIVE and entry.used and entry.flag_valid:
                return entry
        return None

    @property
    def others(self) -> list[tuple[int, Entry]]:
        """Rows in use that are not protective, with their numbers."""
        return [(i, entry) for i, entry in enumerate(self.entries, 1) if entry.used and entry.type != PROTECTIVE]

    def believable(self, size: int, unit: int, over_file_system: bool) -> bool:
        """Whether this is a partition table at all, and not the code of a boot sector.

        Where the disk begins like a file system, the table must be without fault: all four flags valid, and every
        row inside the disk, clear of the table and of the other rows. Such a table was written after the file
        system, because making one clears its boot sector. (mkfs.fat can write a row of its own that begins at 0.)
        Elsewhere one sound row bears out its neighbours, and without an invalid flag any row in use will do:
        the disk may have been cut short.

        Args:
            size: bytes of the disk.
            unit: bytes in a sector.
            over_file_system: whether the disk begins like a file system.
        """
        rows = [entry for _, entry in self.others]
        sound = [entry for entry in rows if _sound(entry, size, unit)]
        if over_file_system:
            return self.flags_valid and bool(rows) and len(sound) == len(rows) and not _overlap(rows)
        if self.flags_valid:
            return bool(rows)
        return bool(sound) and not _overlap(sound)


def _sound(entry: Entry, size: int, unit: int) -> bool:
    return (
        entry.flag_valid
        and entry.type != 0
        and entry.start > 0
        and (entry.start + entry.count) * unit < size + unit  # a raw image may lack the rest of its last sector
    )


def _overlap(entries: Sequence[Entry]) -> bool:
    rows = sorted(entries, key=lambda entry: entry.start)
    return any(a.start + a.count > b.start for a, b in pairwise(rows))


def parse_table(sector: bytes) -> Table | None:
    """The table in the first 512 bytes of an MBR or of a link of a chain; None without 0x55AA at their end."""
    if len(sector) < SECTOR or sector[510:512] != b"\x55\xaa":
        return None
    raw = _TABLE.parse(sector)
    return Table(raw.signature, tuple(Entry(each.flag, each.type, each.start, each.count) for each in raw.entries))


def sector_size_of(device: BlockDevice, table: Table, findings: FindingLog) -> int:
    """Bytes in the sectors that the table counts in: 512 or 4096, which an MBR does not say.

    The device's own sector size decides. But a raw image knows none, and claims 512: where the rows would fit into
    the disk at the other size too, what lies at their starts is looked at, and the size at which file systems or
    further tables are found there wins.
    """
    first = device.sector_size if device.sector_size == 4096 else 512
    other = 512 if first == 4096 else 4096
    rows = [entry for _, entry in table.others if entry.flag_valid and entry.start > 0]
    if not rows or any((row.start + row.count) * other >= device.size + other for row in rows):
        return first
    places = [(unit, row.start * unit) for unit in (first, other) for row in rows]
    places = [(unit, offset) for unit, offset in places if offset + SECTOR <= device.size]
    heads = read_places(
        device, [(offset, min(4096, device.size - offset)) for _, offset in places], findings, "partition"
    )
    found = [
        unit
        for (unit, _), head in zip(places, heads, strict=True)
        if head is not None and (head[510:512] == b"\x55\xaa" or looks_like_file_system(head))
    ]
    return other if found.count(other) > found.count(first) else first


def partitions(device: BlockDevice, table: Table, unit: int, findings: FindingLog) -> list[Partition]:
    """The partitions of an MBR, primaries first, then the logical ones; extended ones are not among them.

    Args:
        device: the whole disk.
        table: its MBR.
        unit: bytes in a sector.
        findings: for rows and chains that make no sense.
    """
    rows = [(number, entry) for number, entry in table.others if _usable(device, table, number, entry, unit, findings)]
    found = [_partition(table, number, entry, entry.start, unit) for number, entry in rows if not entry.extended]
    number = 5
    walk = _Chain(device, unit, findings)
    for _, entry in rows:
        if entry.extended:
            for start, logical in walk.entries(entry):
                found.append(_partition(table, number, logical, start, unit))
                number += 1
    return found


def _usable(device: BlockDevice, table: Table, number: int, entry: Entry, unit: int, findings: FindingLog) -> bool:
    if entry.flag_valid:
        return True
    # One flag is damaged in a table that is otherwise believed: the row counts if the rest of it fits.
    rest = [each for i, each in table.others if i != number and each.flag_valid]
    fits = Entry(0, entry.type, entry.start, entry.count)
    good = _sound(fits, device.size, unit) and not _overlap([fits, *rest])
    findings.add(
        Severity.DEGRADED,
        f"row {number} of the partition table has the invalid boot flag 0x{entry.flag:02x}"
        + ("" if good else " and makes no sense: it was left out"),
        structure="MBR",
        offset=_ENTRIES_AT + (number - 1) * _ENTRY_SIZE,
    )
    return good


def _partition(table: Table, number: int, entry: Entry, start: int, unit: int) -> Partition:
    return Partition(
        number=number,
        start=start * unit,
        size=entry.count * unit,
        type=f"0x{entry.type:02x}",
        type_name=MBR_TYPES.get(entry.type, ""),
        uuid=f"{table.signature:08x}-{number:02x}" if table.signature else "",
        bootable=entry.flag == 0x80,
    )


class _Chain:
    """Walks extended partitions. Of a table there, rows 1 and 2 are a partition and the link to the next table.

    Old systems wrote them in another order or used all four rows, so each row is taken for what its type says; rows
    3 and 4 often hold rubbish and count only where they lie inside both this table's part and the whole.
    A link is relative to the extended partition, a logical partition to the table that names it.
    """

    def __init__(self, device: BlockDevice, unit: int, findings: FindingLog) -> None:
        self._device = device
        self._unit = unit
        self._findings = findings
        self._seen = {0}  # the MBR itself is no link of a chain

    def entries(self, extended: Entry) -> Iterator[tuple[int, Entry]]:
        """(first sector on the disk, row) of each logical partition, in the order of the chain."""
        first, end = extended.start, extended.start + extended.count
        at, count = first, extended.count
        while True:
            table = self._table(at)
            if table is None:
                return
            for i, row in enumerate(table.entries):
                if not row.used or row.extended:
                    continue
                start = at + row.start
                inside = first <= start and start + row.count <= end
                if i >= 2 and (not inside or row.start + row.count > count):
                    continue
                if not inside and not row.flag_valid:
                    self._note(Severity.DEGRADED, f"row {i + 1} makes no sense: it was left out", at)
                    continue
                if not inside:
                    self._note(Severity.DEGRADED, "a logical partition reaches outside of its extended partition", at)
                yield start, row
            link = next((row for row in table.entries if row.used and row.extended), None)
            if link is None:
                return
            at, count = first + link.start, link.count

    def _table(self, sector: int) -> Table | None:
        offset = sector * self._unit
        if offset in self._seen:
            self._note(Severity.DEGRADED, "the chain of logical partitions runs in a circle: it ends here", sector)
            return None
        if len(self._seen) >= MAX_CHAIN:
            self._note(Severity.DEGRADED, f"over {MAX_CHAIN} tables of logical partitions: no more are read", sector)
            return None
        self._seen.add(offset)
        if offset + SECTOR > self._device.size:
            self._note(Severity.LOST, "the next table of logical partitions lies past the end of the disk", sector)
            return None
        raw = read_places(self._device, [(offset, SECTOR)], self._findings, "EBR")[0]
        table = parse_table(raw) if raw is not None else None
        if table is None:
            self._note(Severity.LOST, "no table of logical partitions where one should be: it ends here", sector)
        return table

    def _note(self, severity: Severity, message: str, sector: int) -> None:
        self._findings.add(severity, message, structure="EBR", offset=sector * self._unit)
