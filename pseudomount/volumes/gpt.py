"""The GUID partition table: both of its copies.

Layout: UEFI 2.10 sections 5.3.2 (header) and 5.3.3 (entries). The primary header is in sector 1, its array mostly from
sector 2; the backup header is in the disk's last sector, its array mostly right before it. Header and array have a
CRC32 each, and both copies' arrays have the same one, so that either header can vouch for either array.

The backup is looked at only where the primary fails: it is at the far end of what may be a remote disk.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from construct import Bytes, Container, Int32ul, Int64ul, Struct
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.findings import FindingLog, Severity
from pseudomount.volumes.slots import MAX_BYTES, Partition, read_places
from pseudomount.volumes.typenames import GPT_TYPES

__all__ = ["SIGNATURE", "Gpt", "Header", "parse_header"]

SIGNATURE = b"EFI PART"
#: Bytes of an array at most; what partitioning tools make has 16 KiB.
MAX_ARRAY = 4 << 20
#: Volumes at most. Linux stops at 255; a forged array could hold 32,768 and have each probed for a file system.
MAX_PARTITIONS = 1024
LEGACY_BOOT = 1 << 2  # attribute bit 2

_HEADER = Struct(
    "signature" / Bytes(8),
    "revision" / Int32ul,
    "header_size" / Int32ul,
    "header_crc" / Int32ul,
    "reserved" / Int32ul,
    "my_lba" / Int64ul,
    "alternate_lba" / Int64ul,
    "first_usable" / Int64ul,
    "last_usable" / Int64ul,
    "disk_guid" / Bytes(16),
    "entries_lba" / Int64ul,
    "count" / Int32ul,
    "entry_size" / Int32ul,
    "entries_crc" / Int32ul,
)
_HEADER_SIZE, _CRC_AT = 92, 16

#: The first 128 bytes of an entry; it may be longer, by a power of two.
ENTRY = np.dtype(
    [
        ("type", "u1", 16),
        ("unique", "u1", 16),
        ("first", "<u8"),
        ("last", "<u8"),  # inclusive
        ("attributes", "<u8"),
        ("name", "<u2", 36),
    ]
)

Rows = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Header:
    """A header that passed its checksum and makes sense; all positions in sectors.

    Attributes:
        sector_size: bytes, which follows from where it was found.
        lba: where it was found; 1 is the primary.
        alternate_lba: where the other copy should be.
        first_usable, last_usable: what partitions may cover, both inclusive.
        entries_lba: where the array of entries begins.
        count, entry_size: entries, and bytes in each.
        entries_crc: CRC32 of the array.
    """

    sector_size: int
    lba: int
    alternate_lba: int
    first_usable: int
    last_usable: int
    entries_lba: int
    count: int
    entry_size: int
    entries_crc: int

    @property
    def array_size(self) -> int:
        """Bytes of the array."""
        return self.count * self.entry_size


@dataclass(frozen=True, slots=True)
class _Damaged:
    """Something with a header's signature that is no sound header. `alternate_lba` may still be right."""

    sector_size: int
    lba: int
    alternate_lba: int
    why: str


def parse_header(raw: bytes, sector_size: int, lba: int) -> Header | _Damaged | None:
    """The header at the beginning of a sector; None where its signature is missing.

    Args:
        raw: the whole sector.
        sector_size: bytes; part of what is checked, since a header names its own sector.
        lba: the sector it was read from.
    """
    if raw[:8] != SIGNATURE or len(raw) < _HEADER_SIZE:
        return None
    head = _HEADER.parse(raw)
    why = _fault(head, raw, lba)
    if why:
        return _Damaged(sector_size, lba, head.alternate_lba, why)
    return Header(
        sector_size=sector_size,
        lba=lba,
        alternate_lba=head.alternate_lba,
        first_usable=head.first_usable,
        last_usable=head.last_usable,
        entries_lba=head.entries_lba,
        count=head.count,
        entry_size=head.entry_size,
        entries_crc=head.entries_crc,
    )


def _fault(head: Container, raw: bytes, lba: int) -> str:
    """What is wrong with a header, or ""."""
    if not _HEADER_SIZE <= head.header_size <= len(raw):
        return f"claims a length of {head.header_size} bytes"
    zeroed = raw[:_CRC_AT] + bytes(4) + raw[_CRC_AT + 4 : head.header_size]
    if zlib.crc32(zeroed) != head.header_crc:
        return "does not fit its checksum"
    if head.my_lba != lba:
        return f"belongs into sector {head.my_lba}"
    if head.first_usable > head.last_usable:
        return "leaves no room for partitions"
    if head.entry_size < ENTRY.itemsize or head.entry_size & (head.entry_size - 1):
        return f"claims entries of {head.entry_size} bytes"
    if head.count * head.entry_size > MAX_ARRAY:
        return f"claims {head.count} entries"
    return ""


class Gpt:
    """Finds the table on a disk: `primary` first, `load` for its partitions, both copies tried.

    Args:
        device: the whole disk.
        head: its first 8 KiB, or what there is of it; zeros where it could not be read.
        findings: for copies and entries that make no sense.
    """

    def __init__(self, device: BlockDevice, head: bytes, findings: FindingLog) -> None:
        self._device = device
        self._findings = findings
        wanted = dict.fromkeys((device.sector_size, 512, 4096))
        self._sector_sizes = [size for size in wanted if 512 <= size <= 4096 and size & (size - 1) == 0]
        # More than one, when a disk was partitioned with one sector size and then with another.
        self._primaries: list[Header] = []
        self._damaged: list[_Damaged] = []
        for size in self._sector_sizes:
            header = parse_header(head[size : 2 * size], size, 1)
            if isinstance(header, _Damaged):
                self._damaged.append(header)
            elif header is not None:
                self._primaries.append(header)

    @property
    def primary(self) -> Header | None:
        """The primary header, if it is sound."""
        return self._primaries[0] if self._primaries else None

    @property
    def seen(self) -> bool:
        """Whether there is, or once was, a primary header."""
        return bool(self._primaries or self._damaged)

    def load(self, last_lba: int | None = None) -> list[Partition] | None:
        """The partitions by the first copy that holds good; None, and no finding, if nothing can be made of either.

        Args:
            last_lba: the disk's last sector by the protective MBR, where a backup may be if the disk grew since.
        """
        for primary in self._primaries:
            rows = self._array(primary, [primary.entries_lba])
            if rows is not None:
                self._note_size(primary)
                return self._partitions(primary, rows)
        backup = self._backup(last_lba)
        headers = [*([backup] if backup is not None else []), *self._primaries]
        if not headers:
            return None
        for header in headers:
            rows = self._array(header, dict.fromkeys((header.entries_lba, _twin(header))))
            if rows is not None:
                self._note(Severity.NOTE, f"{self._complaint()}; the backup is used", header)
                return self._partitions(header, rows)
        return self._doubtful(headers)

    def _complaint(self) -> str:
        if self._primaries:
            return "the array of the primary GPT is damaged"
        return f"the primary GPT header {self._damaged[0].why if self._damaged else 'is gone'}"

    def _doubtful(self, headers: Sequence[Header]) -> list[Partition] | None:
        """Neither array fits the checksum: one bad entry does that, so what is in range is taken for what it is."""
        for header in headers:
            raw = self._read_array(header.entries_lba, header)
            if raw is not None:
                found = self._partitions(header, _rows(raw, header), doubtful=True)
                if found:
                    self._note(Severity.DEGRADED, "no copy of the GPT's array fits its checksum", header)
                    return found
        return None

    def _backup(self, last_lba: int | None) -> Header | None:
        places: dict[tuple[int, int], None] = {}
        for copy in self._primaries or self._damaged:
            places[copy.sector_size, copy.alternate_lba] = None
        for size in dict.fromkeys(header.sector_size for header in self._primaries) or self._sector_sizes:
            places[size, self._device.size // size - 1] = None
            if last_lba is not None:
                places[size, last_lba] = None
        inside = [(size, lba) for size, lba in places if 2 <= lba < self._device.size // size]
        raws = read_places(self._device, [(lba * size, size) for size, lba in inside], self._findings, "GPT header")
        for (size, lba), raw in zip(inside, raws, strict=True):
            header = parse_header(raw, size, lba) if raw is not None else None
            if isinstance(header, Header):
                return header
        return None

    def _array(self, header: Header, places: Iterable[int]) -> Rows | None:
        """The rows of the first array that fits the header's checksum. `places`: the sectors where one may begin."""
        for lba in places:
            raw = self._read_array(lba, header)
            if raw is not None and zlib.crc32(raw) == header.entries_crc:
                return _rows(raw, header)
        return None

    def _read_array(self, lba: int, header: Header) -> bytes | None:
        offset = lba * header.sector_size
        if lba < 2 or offset + header.array_size > self._device.size:
            return None
        return read_places(self._device, [(offset, header.array_size)], self._findings, "GPT entries")[0]

    def _partitions(self, header: Header, rows: Rows, *, doubtful: bool = False) -> list[Partition]:
        unit = header.sector_size
        sectors = -(-self._device.size // unit)
        # Beyond what the table says the disk has, and the disk itself, there is nothing to mean.
        bound = np.uint64(min(max(header.last_usable, sectors - 1), MAX_BYTES // unit - 1))
        numbers = np.flatnonzero(rows["type"].any(axis=1))
        if len(numbers) > MAX_PARTITIONS:
            self._note(
                Severity.DEGRADED,
                f"{len(numbers)} partitions; the first {MAX_PARTITIONS} are shown",
                header,
            )
            numbers = numbers[:MAX_PARTITIONS]
        used = rows[numbers]
        absurd = (used["last"] < used["first"]) | (used["first"] > bound)
        if doubtful:  # a bit that flips in the type of an unused entry makes it a partition that begins at 0
            absurd |= used["first"] < header.first_usable
        long = ~absurd & (used["last"] > bound)
        last = np.minimum(used["last"], bound)
        for i in np.flatnonzero(absurd).tolist():
            first, end = int(used["first"][i]), int(used["last"][i])
            text = f"entry {numbers[i] + 1} claims sectors {first} to {end} and was left out"
            self._note(Severity.DEGRADED, text, header)
        for i in np.flatnonzero(long).tolist():
            text = f"entry {numbers[i] + 1} claims to end in sector {int(used['last'][i])}; it was cut at {bound}"
            self._note(Severity.DEGRADED, text, header)
        return list(_decode(used[~absurd], last[~absurd], numbers[~absurd], unit))

    def _note_size(self, header: Header) -> None:
        """Compares the disk with the one that the primary header was written for."""
        there, meant = self._device.size // header.sector_size, header.alternate_lba + 1
        if meant > there:
            text = f"the disk has {there} sectors and its GPT was made for {meant}: the image was cut short"
            self._note(Severity.DEGRADED, text, header)
        elif meant < there:
            text = f"the disk has {there} sectors and its GPT was made for {meant}: the disk grew"
            self._note(Severity.NOTE, text, header)

    def _note(self, severity: Severity, message: str, header: Header) -> None:
        self._findings.add(severity, message, structure="GPT", offset=header.lba * header.sector_size)


def _twin(header: Header) -> int:
    """The sector where the other copy's array is by custom: after the primary header, before the backup one."""
    if header.lba != 1:
        return 2
    return header.alternate_lba - -(-header.array_size // header.sector_size)


def _rows(raw: bytes, header: Header) -> Rows:
    table = np.frombuffer(raw, np.uint8).reshape(header.count, header.entry_size)
    return np.ascontiguousarray(table[:, : ENTRY.itemsize]).view(ENTRY)[:, 0]


def _decode(rows: Rows, last: NDArray[np.uint64], numbers: NDArray[np.int64], unit: int) -> Iterator[Partition]:
    # At most MAX_PARTITIONS rows, each of which becomes objects anyway: a loop is what there is to do.
    for row, end, number in zip(rows, last.tolist(), numbers.tolist(), strict=True):
        first = int(row["first"])
        kind = _guid(row["type"])
        yield Partition(
            number=number + 1,
            start=first * unit,
            size=(end - first + 1) * unit,
            type=kind,
            type_name=GPT_TYPES.get(kind, ""),
            label=_label(row["name"]),
            uuid=_guid(row["unique"]),
            bootable=bool(int(row["attributes"]) & LEGACY_BOOT),
        )


def _guid(raw: NDArray[np.uint8]) -> str:
    """Lower case; the first three fields are little-endian on disk (UEFI 2.10, appendix A)."""
    return str(uuid.UUID(bytes_le=raw.tobytes()))


def _label(units: NDArray[np.uint16]) -> str:
    r"""A name up to its NUL, always valid UTF-8: an unpaired surrogate is written \uNNNN."""
    text = units.tobytes().decode("utf-16-le", "surrogatepass").partition("\0")[0]
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
