"""FAT12, FAT16 and FAT32 on disk.

Sources: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03 (2000): section 3 (boot sector and BPB),
section 4 (the FAT), section 6 (directories), section 7 (long names).
"""

from __future__ import annotations

from dataclasses import dataclass

from construct import Bytes, Int8ul, Int16ul, Int32ul, Struct

from pseudomount.device import BlockDevice
from pseudomount.errors import DamageError

__all__ = [
    "ATTR_DIRECTORY",
    "ATTR_LONG",
    "ATTR_LONG_MASK",
    "ATTR_VOLUME",
    "BACKUP_SECTOR",
    "ENTRY",
    "SECTOR_SIZES",
    "FatGeometry",
    "find_boot_sector",
    "parse_boot_sector",
]

#: Bytes of a directory entry, in FAT and exFAT alike.
ENTRY = 32
ATTR_VOLUME = 0x08
ATTR_DIRECTORY = 0x10
ATTR_LONG = 0x0F
ATTR_LONG_MASK = 0x3F
SECTOR_SIZES = (512, 1024, 2048, 4096)
#: Where FAT32 keeps the copy of its boot sector ("no value other than 6 is recommended"): what says so is in the sector
#: that is damaged when the copy is needed.
BACKUP_SECTOR = 6

#: Section 3.1, offsets 0 to 35.
_BPB = Struct(
    "jump" / Bytes(3),
    "oem" / Bytes(8),
    "sector_size" / Int16ul,
    "sectors_per_cluster" / Int8ul,
    "reserved" / Int16ul,
    "fats" / Int8ul,
    "root_entries" / Int16ul,
    "sectors_16" / Int16ul,
    "media" / Int8ul,
    "fat_sectors_16" / Int16ul,
    "sectors_per_track" / Int16ul,
    "heads" / Int16ul,
    "hidden" / Int32ul,
    "sectors_32" / Int32ul,
)
#: Section 3.3, from offset 36, FAT32 only.
_BPB32 = Struct(
    "fat_sectors" / Int32ul,
    "flags" / Int16ul,
    "version" / Int16ul,
    "root_cluster" / Int32ul,
    "info_sector" / Int16ul,
    "backup_sector" / Int16ul,
    "unused" / Bytes(12),
)
#: Section 3.2 and 3.3, from offset 36 (FAT12, FAT16) or 64 (FAT32). Bits 0 and 1 of `state` are Windows NT's and
#: Linux's: not unmounted cleanly, and surface to be scanned.
_EXTENDED = Struct(
    "drive" / Int8ul,
    "state" / Int8ul,
    "signature" / Int8ul,
    "serial" / Int32ul,
    "label" / Bytes(11),
    "type" / Bytes(8),
)


@dataclass(frozen=True, slots=True)
class FatGeometry:
    """What the boot sector says, checked. Positions and lengths are bytes from the start of the volume.

    Attributes:
        bits: 12, 16 or 32.
        fat_start, fat_length, fats: the copies of the FAT lie one after the other.
        active: the copy in use; `mirrored` says whether the others are kept equal to it (BPB_ExtFlags).
        root_start, root_length: the root directory of FAT12 and FAT16; length 0 for FAT32, whose root is a chain.
        root_cluster: first cluster of FAT32's root directory.
        data_start: position of cluster 2.
        clusters: how many there are; no more than the FAT has entries for.
        size: bytes, as the boot sector claims.
        signed: whether it has the jump or the signature of a boot sector.
        sound: whether jump, signature and file-system type are those of a real boot sector, too.
    """

    bits: int
    sector_size: int
    cluster_size: int
    fat_start: int
    fat_length: int
    fats: int
    active: int
    mirrored: bool
    root_start: int
    root_length: int
    root_cluster: int
    data_start: int
    clusters: int
    size: int
    media: int
    hidden: int
    oem: bytes
    serial: int | None
    boot_label: bytes
    state: int
    signed: bool
    sound: bool


def _power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def parse_boot_sector(sector: bytes) -> FatGeometry | None:
    """The geometry in 512 bytes, or None where they are no FAT boot sector.

    The signature 55 AA and the jump are not demanded: old floppies and Atari's disks lack them (`find_boot_sector` then
    looks at the FAT, too). Which FAT it is: a FAT32 says so with a 16-bit FAT size of zero, the others by their number
    of clusters (section 3.5), as Linux and Windows have it.
    """
    if len(sector) < 512:
        return None
    bpb = _BPB.parse(sector)
    wide = bpb.fat_sectors_16 == 0
    if not (
        bpb.sector_size in SECTOR_SIZES
        and _power_of_two(bpb.sectors_per_cluster)
        and bpb.reserved
        and 1 <= bpb.fats <= 16
        and (bpb.media == 0xF0 or bpb.media >= 0xF8)
    ):
        return None
    jump = (bpb.jump[0] == 0xEB and bpb.jump[2] == 0x90) or bpb.jump[0] in (0xE9, 0xEB)
    signature = sector[510:512] == b"\x55\xaa"
    more = _BPB32.parse(sector[36:]) if wide else None
    extended = _EXTENDED.parse(sector[64 if wide else 36 :])
    fat_sectors = more.fat_sectors if more is not None else bpb.fat_sectors_16
    sectors = bpb.sectors_16 or bpb.sectors_32
    size = bpb.sector_size
    root_length = 0 if wide else bpb.root_entries * ENTRY
    root_start = (bpb.reserved + bpb.fats * fat_sectors) * size
    data_start = root_start + -(-root_length // size) * size
    clusters = (sectors - data_start // size) // bpb.sectors_per_cluster
    if not fat_sectors or clusters < 1:
        return None
    bits = 32 if wide else 12 if clusters < 4085 else 16
    clusters = min(clusters, fat_sectors * size * 8 // bits - 2, 0x0FFFFFF5)
    if clusters < 1 or (more is not None and more.version):
        return None
    named = extended.signature in (0x28, 0x29)
    flags = more.flags if more is not None else 0
    mirrored = not flags & 0x80
    active = 0 if mirrored else flags & 0x0F
    return FatGeometry(
        bits=bits,
        sector_size=size,
        cluster_size=size * bpb.sectors_per_cluster,
        fat_start=bpb.reserved * size,
        fat_length=fat_sectors * size,
        fats=bpb.fats,
        active=active if active < bpb.fats else 0,
        mirrored=mirrored,
        root_start=root_start,
        root_length=root_length,
        root_cluster=more.root_cluster if more is not None else 0,
        data_start=data_start,
        clusters=clusters,
        size=sectors * size,
        media=bpb.media,
        hidden=bpb.hidden,
        oem=bpb.oem,
        serial=extended.serial if named else None,
        boot_label=extended.label if extended.signature == 0x29 else b"",
        state=extended.state if named else 0,
        signed=jump or signature,
        sound=jump and signature and (named or extended.type.startswith(b"FAT")),
    )


def _fits_fat(device: BlockDevice, geometry: FatGeometry) -> bool:
    """Whether the FAT begins with the media byte as it must (section 4): what tells a copy in use from a leftover."""
    if geometry.fat_start + 4 > device.size:
        return False
    first = int.from_bytes(device.read(geometry.fat_start, 4), "little")
    mask = (1 << min(geometry.bits, 28)) - 1
    return first & mask == (0x0FFFFF00 | geometry.media) & mask


def find_boot_sector(device: BlockDevice) -> tuple[FatGeometry, int] | None:
    """The geometry and the position of the boot sector it is from: 0, or that of FAT32's copy; None for no FAT.

    Raises:
        PseudomountError: the device's own, where neither could be read.
    """
    if device.size < 512:
        return None
    unread: DamageError | None = None
    try:
        sector = device.read(0, 512)
        if sector[3:11] in (b"NTFS    ", b"EXFAT   "):
            return None
        geometry = parse_boot_sector(sector)
        if geometry is not None and (geometry.signed or _fits_fat(device, geometry)):
            return geometry, 0
    except DamageError as error:
        unread = error
    positions = [at for at in (BACKUP_SECTOR * size for size in SECTOR_SIZES) if at + 512 <= device.size]
    if positions:
        copies = device.read_many(positions, 512)
        for i, position in enumerate(positions):
            geometry = None if i in copies.errors else parse_boot_sector(copies.view(i).tobytes())
            if (
                geometry is not None
                and geometry.bits == 32
                and geometry.sound
                and geometry.sector_size * BACKUP_SECTOR == position
                and _fits_fat(device, geometry)
            ):
                return geometry, position
    if unread is not None:
        raise unread
    return None
