"""Signs of a file system at the very start of a disk, in the place where a partition table would be.

A FAT, NTFS or exFAT boot sector ends in the same 0x55AA as an MBR, and so may the boot block in front of an ext file
system. These signs are hints for telling them apart, no proof: what is on a volume is for the parsers to say.
"""

from __future__ import annotations

from construct import Bytes, Int8ul, Int16ul, Struct

__all__ = ["looks_like_file_system"]

#: FAT: Microsoft's FAT specification 1.03, "Boot Sector and BPB"; the first fields are the same in all its kinds.
_BPB = Struct(
    "jump" / Bytes(3),
    "oem" / Bytes(8),
    "sector_size" / Int16ul,
    "cluster_sectors" / Int8ul,
    "reserved_sectors" / Int16ul,
    "fats" / Int8ul,
    "root_entries" / Int16ul,
    "sectors_16" / Int16ul,
    "media" / Int8ul,
)

# (offset, bytes) within the first 4096 bytes.
_MAGICS = (
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (3, b"ReFS\0\0\0\0"),
    (0, b"XFSB"),
    (0, b"LUKS\xba\xbe"),
    (3, b"-FVE-FS-"),  # BitLocker
    (512, b"LABELONE"),  # an LVM physical volume
    (1024, b"H+\0\x04"),
    (1024, b"HX\0\x05"),
    (1024, b"\x10\x20\xf5\xf2"),  # F2FS
    (1024 + 56, b"\x53\xef"),  # ext2, ext3, ext4: s_magic
    (4096 - 10, b"SWAPSPACE2"),
)


def looks_like_file_system(head: bytes) -> bool:
    """Whether the first bytes (up to 4096) of a disk or partition are those of a known file system or container."""
    return any(head[offset : offset + len(magic)] == magic for offset, magic in _MAGICS) or _is_fat(head)


def _is_fat(head: bytes) -> bool:
    if len(head) < 512 or head[510:512] != b"\x55\xaa":
        return False
    bpb = _BPB.parse(head)
    return (
        (bpb.jump[:1] == b"\xe9" or (bpb.jump[:1] == b"\xeb" and bpb.jump[2:] == b"\x90"))
        and bpb.sector_size in (512, 1024, 2048, 4096)
        and bpb.cluster_sectors in (1, 2, 4, 8, 16, 32, 64, 128)
        and bpb.reserved_sectors > 0
        and bpb.fats in (1, 2)
        and (bpb.media == 0xF0 or bpb.media >= 0xF8)
    )
