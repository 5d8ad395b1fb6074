"""Our own look at superblocks: enough to know what is there without any library.

Sources: XFS, `xfs_dsb` of the XFS Algorithms and Data Structures; Btrfs, "Superblock" of its On-disk Format; NTFS,
"BIOS parameter block" as Microsoft documents it for partition boot sectors; ext, "The Super Block" of the kernel's ext4
documentation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from pseudomount.device import BlockDevice

__all__ = ["Superblock", "find"]

BTRFS_SUPER: Final = 0x10000
EXT_SUPER: Final = 1024

_XFS_FTYPE, _XFS_SPINODES, _XFS_META_UUID, _XFS_BIGTIME, _XFS_NEEDSREPAIR, _XFS_NREXT64 = (1 << bit for bit in range(6))
_XFS_EXCHRANGE, _XFS_PARENT = 1 << 6, 1 << 7
_XFS_READ: Final = 0xFF

_BTRFS_FEATURES: Final = {
    # Those of the incompatible features that the library's reader does not allow for.
    1 << 13: "extent tree v2",
    1 << 14: "RAID stripe tree",
    1 << 16: "remapped block groups",
}

_EXT_EXTENTS, _EXT_64BIT, _EXT_FLEX_BG, _EXT_MMP = 0x40, 0x80, 0x200, 0x100
_EXT_RECOVER, _EXT_JOURNAL_DEV = 0x4, 0x8
_EXT_MISREAD: Final = {0x10: "meta_bg", 0x8000: "inline_data", 0x10000: "encrypt", 0x20000: "casefold"}
#: Features that ext3 had: any other makes it ext4, as blkid tells them apart.
_EXT3_INCOMPAT, _EXT3_RO_COMPAT = 0x2 | 0x4 | 0x10, 0x1 | 0x2 | 0x4


@dataclass(frozen=True, slots=True)
class Superblock:
    """What was found.

    Attributes:
        family: "xfs", "btrfs", "ntfs" or "ext".
        filesystem, label, uuid: as in `Match`.
        sound: whether the numbers make sense.
        notes, doubts: what is to be said of the volume.
        raw: the bytes, from the start of the superblock.
    """

    family: str
    filesystem: str
    label: str
    uuid: str
    sound: bool
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    raw: bytes


def find(device: BlockDevice) -> Superblock | None:
    """The superblock of a file system that one of the libraries reads."""
    if device.size >= BTRFS_SUPER + 4096:
        block = device.read(BTRFS_SUPER, 4096)
        if block[64:72] == b"_BHRfS_M":
            return _btrfs(block)
    if device.size < 4096:
        return None
    block = device.read(0, 4096)
    if block[:4] == b"XFSB":
        return _xfs(block)
    if block[3:11] == b"NTFS    ":
        return _ntfs(block)
    return _ext(block[EXT_SUPER : EXT_SUPER + 1024])


def _uuid(raw: bytes) -> str:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) if any(raw) else ""


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace")


def _power(value: int, least: int, most: int) -> bool:
    return least <= value <= most and not value & (value - 1)


def _xfs(block: bytes) -> Superblock:
    block_size, sectors, inode_size = (
        struct.unpack_from(">I", block, 4)[0],
        *struct.unpack_from(">HH", block, 102),
    )
    sound = _power(block_size, 512, 65536) and _power(sectors, 512, 32768) and _power(inode_size, 256, 2048)
    notes, doubts = [], []
    if not struct.unpack_from(">Q", block, 48)[0]:
        notes.append("the log lies on another device: whether it was written back is not known")
    incompat = struct.unpack_from(">I", block, 216)[0] if block[101] & 0xF == 5 else 0
    if incompat & _XFS_NEEDSREPAIR:
        doubts.append("the file system is marked as in need of repair")
    if incompat & ~_XFS_READ:
        doubts.append(f"it has features that are not read: {incompat & ~_XFS_READ:#x}")
    # blkid shows the label without what pads it.
    label = _text(block[108:120]).rstrip(" ")
    return Superblock("xfs", "xfs", label, _uuid(block[32:48]), sound, tuple(notes), tuple(doubts), block)


def _btrfs(block: bytes) -> Superblock:
    sector, node = struct.unpack_from("<II", block, 144)
    log_root, devices = struct.unpack_from("<Q", block, 96)[0], struct.unpack_from("<Q", block, 136)[0]
    incompat = struct.unpack_from("<Q", block, 188)[0]
    sound = _power(sector, 512, 65536) and _power(node, 4096, 65536)
    notes = ["checksums are not verified"]
    if log_root:
        notes.append("the log tree was not replayed: the newest changes may be missing")
    if devices > 1:
        notes.append(f"the file system has {devices} devices, and this is one of them")
    doubts = [f"it has {name}, which is not read" for bit, name in _BTRFS_FEATURES.items() if incompat & bit]
    label, uuid = _text(block[299 : 299 + 256]), _uuid(block[32:48])
    return Superblock("btrfs", "btrfs", label, uuid, sound, tuple(notes), tuple(doubts), block)


def _ntfs(block: bytes) -> Superblock | None:
    if block[510:512] != b"\x55\xaa":
        return None
    sound = _power(struct.unpack_from("<H", block, 11)[0], 256, 4096)
    notes = ("$LogFile is not replayed, and whether it was written back is not looked at",)
    uuid = f"{struct.unpack_from('<Q', block, 72)[0]:016X}"
    return Superblock("ntfs", "ntfs", "", uuid, sound, notes, (), block)


def _ext(block: bytes) -> Superblock | None:
    log_block, magic = struct.unpack_from("<I", block, 24)[0], struct.unpack_from("<H", block, 56)[0]
    inodes, per_group = struct.unpack_from("<I", block)[0], struct.unpack_from("<I", block, 40)[0]
    if magic != 0xEF53 or log_block > 6 or not inodes or not per_group:
        return None
    compat, incompat, ro_compat = struct.unpack_from("<3I", block, 92)
    if incompat & _EXT_JOURNAL_DEV:
        return None
    kind = "ext3" if compat & 0x4 else "ext2"
    if incompat & ~_EXT3_INCOMPAT or ro_compat & ~_EXT3_RO_COMPAT:
        kind = "ext4"
    notes = []
    if incompat & _EXT_RECOVER:
        notes.append("the journal was not replayed: the newest changes may be missing")
    misread = [name for bit, name in _EXT_MISREAD.items() if incompat & bit]
    if misread:
        notes.append(f"the library does not allow for: {', '.join(misread)}")
    return Superblock("ext", kind, _text(block[120:136]), _uuid(block[104:120]), True, tuple(notes), (), block)
