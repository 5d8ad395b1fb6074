"""Partition tables packed by hand, field by field as UEFI 2.10 sections 5.2 and 5.3 give them."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from pseudomount.device import BlockDevice
from pseudomount.findings import FindingLog, Severity
from pseudomount.volumes.contract import VolumeSlot
from pseudomount.volumes.discover import discover

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ESP = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"


class SparseDevice(BlockDevice):
    """A disk of any size that holds a few pieces, and zeros elsewhere."""

    def __init__(self, size: int, pieces: dict[int, bytes] | None = None, sector_size: int = 512) -> None:
        self.name = "sparse"
        self.sector_size = sector_size
        self.pieces = dict(pieces or {})
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        out = bytearray(length)
        for start, piece in self.pieces.items():
            low, high = max(start, offset), min(start + len(piece), offset + length)
            if low < high:
                out[low - offset : high - offset] = piece[low - start : high - start]
        return bytes(out)


def mbr(*rows: tuple[int, int, int, int], signature: int = 0, magic: bytes = b"\x55\xaa", code: bytes = b"") -> bytes:
    """A table of 512 bytes. Rows: (flag, type, start, count)."""
    entries = b"".join(struct.pack("<B3xB3xII", *row) for row in rows)
    return code.ljust(440, b"\0") + struct.pack("<IH", signature, 0) + entries.ljust(64, b"\0") + magic


@dataclass
class Gpt:
    """A GPT disk. Partitions: (number, type, unique, first, last, attributes, name in UTF-16-LE)."""

    sectors: int
    partitions: Sequence[tuple[int, str, str, int, int, int, bytes]]
    unit: int = 512
    count: int = 128
    entry_size: int = 128
    guard: Sequence[tuple[int, int, int, int]] | None = None
    header: dict[str, int] = field(default_factory=dict)  # fields to set to something else, CRC computed after

    @property
    def array(self) -> bytes:
        out = bytearray(self.count * self.entry_size)
        for number, kind, unique, first, last, attributes, name in self.partitions:
            entry = uuid.UUID(kind).bytes_le + uuid.UUID(unique).bytes_le
            entry += struct.pack("<QQQ", first, last, attributes) + name.ljust(72, b"\0")
            at = (number - 1) * self.entry_size
            out[at : at + 128] = entry
        return bytes(out[: self.count * self.entry_size])

    @property
    def array_sectors(self) -> int:
        return -(-len(self.array) // self.unit)

    def head(self, *, backup: bool = False) -> bytes:
        last = self.sectors - 1
        values = {
            "revision": 0x00010000,
            "header_size": 92,
            "my_lba": last if backup else 1,
            "alternate_lba": 1 if backup else last,
            "first_usable": 2 + self.array_sectors,
            "last_usable": last - self.array_sectors - 1,
            "entries_lba": last - self.array_sectors if backup else 2,
            "count": self.count,
            "entry_size": self.entry_size,
            "entries_crc": zlib.crc32(self.array),
            **self.header,
        }

        def pack(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART",
                values["revision"],
                values["header_size"],
                crc,
                0,
                values["my_lba"],
                values["alternate_lba"],
                values["first_usable"],
                values["last_usable"],
                bytes(range(16)),
                values["entries_lba"],
                values["count"],
                values["entry_size"],
                values["entries_crc"],
            )

        size = min(values["header_size"], self.unit)
        return pack(zlib.crc32(pack(0).ljust(size, b"\0")[:size])).ljust(self.unit, b"\0")

    def pieces(self) -> dict[int, bytes]:
        """What lies where: MBR, header and array, array and header."""
        guard = self.guard or [(0, 0xEE, 1, min(self.sectors - 1, 0xFFFFFFFF))]
        last = self.sectors - 1
        return {
            0: mbr(*guard),
            self.unit: self.head(),
            2 * self.unit: self.array,
            (last - self.array_sectors) * self.unit: self.array,
            last * self.unit: self.head(backup=True),
        }

    def device(self, sector_size: int | None = None) -> SparseDevice:
        return SparseDevice(self.sectors * self.unit, self.pieces(), sector_size or self.unit)


def volumes(device: BlockDevice, disk: str = "disk0") -> tuple[list[VolumeSlot], FindingLog]:
    log = FindingLog()
    return discover(device, disk, log), log


def spans(slots: Sequence[VolumeSlot]) -> list[tuple[str, int, int]]:
    return [(slot.name, slot.start, slot.size) for slot in slots]


def severities(log: FindingLog) -> list[Severity]:
    return [finding.severity for finding in log]
