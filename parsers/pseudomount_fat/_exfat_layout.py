"""exFAT on disk.

Source: Microsoft, "exFAT file system specification" (2019, published): section 3 (boot regions), 4 (FAT), 7 (directory
entries).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul, Struct
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import DamageError, UnsupportedError

__all__ = [
    "BITMAP",
    "FILE",
    "GUID",
    "LABEL",
    "NAME",
    "NAME_UNITS",
    "STREAM",
    "UPCASE",
    "BootRegion",
    "ExfatGeometry",
    "expand_upcase",
    "find_boot_region",
    "parse_boot_sector",
    "rotating_checksum",
]

#: Entry types in use (section 6.2.1): bit 7 in use, bit 6 secondary, bit 5 benign.
BITMAP, UPCASE, LABEL, FILE = 0x81, 0x82, 0x83, 0x85
GUID = 0xA0
STREAM, NAME = 0xC0, 0xC1
#: UTF-16 units that one name entry holds.
NAME_UNITS = 15

_SIGNATURE = b"EXFAT   "
#: A boot region is twelve sectors, its copy the twelve after it (section 3).
_REGION = 12
_SHIFTS = range(9, 13)
#: Bytes of the boot sector that change while mounted and are no part of its checksum: VolumeFlags, PercentInUse.
_VOLATILE = (106, 107, 112)

_BOOT = Struct(
    "jump" / Bytes(3),
    "name" / Bytes(8),
    "zero" / Bytes(53),
    "partition_offset" / Int64ul,
    "volume_length" / Int64ul,
    "fat_offset" / Int32ul,
    "fat_length" / Int32ul,
    "heap_offset" / Int32ul,
    "clusters" / Int32ul,
    "root_cluster" / Int32ul,
    "serial" / Int32ul,
    "revision" / Int16ul,
    "flags" / Int16ul,
    "sector_shift" / Int8ul,
    "cluster_shift" / Int8ul,
    "fats" / Int8ul,
    "drive" / Int8ul,
    "percent_in_use" / Int8ul,
)


@dataclass(frozen=True, slots=True)
class ExfatGeometry:
    """What the boot sector says, checked. Positions and lengths are bytes from the start of the volume.

    Attributes:
        active: 0 or 1, the FAT and the allocation bitmap in use (TexFAT has two of each).
        flags: VolumeFlags: bit 0 active FAT, 1 dirty, 2 media failure.
    """

    sector_size: int
    cluster_size: int
    fat_start: int
    fat_length: int
    fats: int
    active: int
    heap_start: int
    clusters: int
    root_cluster: int
    size: int
    serial: int
    revision: int
    flags: int
    partition_offset: int


@dataclass(frozen=True, slots=True)
class BootRegion:
    """A boot region that can be used.

    Attributes:
        position: where it begins.
        checked: whether its checksum is right.
        problem: what was wrong with the main one, where this is its copy; "" otherwise.
    """

    geometry: ExfatGeometry
    position: int
    checked: bool
    problem: str = ""


def parse_boot_sector(sector: bytes) -> ExfatGeometry | None:
    """The geometry in 512 bytes, or None where they are no exFAT boot sector (section 3.1).

    Raises:
        UnsupportedError: it is one, of a revision other than 1.x.
    """
    if len(sector) < 512 or sector[3:11] != _SIGNATURE or sector[510:512] != b"\x55\xaa" or any(sector[11:64]):
        return None
    boot = _BOOT.parse(sector)
    if boot.sector_shift not in _SHIFTS or boot.cluster_shift > 25 - boot.sector_shift or boot.fats not in (1, 2):
        return None
    if boot.revision >> 8 != 1:
        raise UnsupportedError(f"exFAT of revision {boot.revision >> 8}.{boot.revision & 0xFF:02}")
    size = 1 << boot.sector_shift
    cluster = size << boot.cluster_shift
    if boot.fat_offset < 2 * _REGION or boot.heap_offset < boot.fat_offset + boot.fat_length * boot.fats:
        return None
    room = (boot.volume_length - boot.heap_offset) >> boot.cluster_shift
    clusters = min(boot.clusters, room, boot.fat_length * size // 4 - 2, (1 << 32) - 11)
    if clusters < 1 or boot.volume_length > (1 << 63) // size:
        return None
    active = boot.flags & 1 if boot.fats == 2 else 0
    return ExfatGeometry(
        sector_size=size,
        cluster_size=cluster,
        fat_start=(boot.fat_offset + active * boot.fat_length) * size,
        fat_length=boot.fat_length * size,
        fats=boot.fats,
        active=active,
        heap_start=boot.heap_offset * size,
        clusters=clusters,
        root_cluster=boot.root_cluster,
        size=boot.volume_length * size,
        serial=boot.serial,
        revision=boot.revision,
        flags=boot.flags,
        partition_offset=boot.partition_offset,
    )


def rotating_checksum(data: bytes, skip: Collection[int] = ()) -> int:
    """Of a boot region (section 3.4, with bytes to skip) or an up-case table (section 7.2.2)."""
    total = 0
    for i, byte in enumerate(data):
        if i not in skip:
            total = ((total << 31 | total >> 1) & 0xFFFFFFFF) + byte & 0xFFFFFFFF
    return total


def _region_fits(device: BlockDevice, position: int, size: int) -> bool:
    """Whether the checksum of the region at `position` is right: its last sector repeats it all over."""
    if position + _REGION * size > device.size:
        return False
    try:
        region = device.read(position, _REGION * size)
    except DamageError:
        return False
    total = rotating_checksum(region[: (_REGION - 1) * size], _VOLATILE)
    return region[(_REGION - 1) * size :] == total.to_bytes(4, "little") * (size // 4)


def find_boot_region(device: BlockDevice) -> BootRegion | None:
    """The main boot region, its copy where the main one is damaged, or None for no exFAT.

    Where both are damaged, whichever has a boot sector that makes sense.

    Raises:
        UnsupportedError: a revision that we do not read.
        PseudomountError: the device's own, where neither could be read.
    """
    if device.size < 512:
        return None
    unread: DamageError | None = None
    main: ExfatGeometry | None = None
    problem = "the boot sector makes no sense"
    try:
        main = parse_boot_sector(device.read(0, 512))
    except DamageError as error:
        unread, problem = error, "the boot sector cannot be read"
    if main is not None:
        if _region_fits(device, 0, main.sector_size):
            return BootRegion(main, 0, True)
        problem = "the checksum of the boot region is wrong"
    positions = [at for at in (_REGION << shift for shift in _SHIFTS) if at + 512 <= device.size]
    copies = device.read_many(positions, 512)
    second: BootRegion | None = None
    for i, position in enumerate(positions):
        copy = None if i in copies.errors else parse_boot_sector(copies.view(i).tobytes())
        if copy is None or copy.sector_size * _REGION != position:
            continue
        if _region_fits(device, position, copy.sector_size):
            return BootRegion(copy, position, True, problem)
        second = second or BootRegion(copy, position, False, problem)
    if main is not None:
        return BootRegion(main, 0, False)
    if second is None and unread is not None:
        raise unread
    return second


def expand_upcase(table: bytes) -> NDArray[np.uint16]:
    """uint16 (65536,), from a table as stored: 0xFFFF and a count stand for so many characters without upper case."""
    units = np.frombuffer(table[: len(table) & ~1], "<u2").tolist()
    full = np.arange(65536, dtype=np.uint16)
    at = i = 0
    while i < len(units) and at < 65536:
        if units[i] == 0xFFFF and i + 1 < len(units) and len(units) < 65536:
            at += units[i + 1]
            i += 2
            continue
        full[at] = units[i]
        at += 1
        i += 1
    full.setflags(write=False)
    return full
