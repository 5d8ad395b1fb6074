"""What lies where on an ext2, ext3 or ext4 volume.

Source of every fact: the Linux kernel's "ext4 Data Structures and Algorithms" (Documentation/filesystems/ext4), whose
sections are named here. All numbers on the disk are little-endian.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final

import numpy as np

from pseudomount.filesystem.contract import FileType

# -- "Super Block" -----------------------------------------------------------------------------------------------------

SUPER_OFFSET: Final = 1024
SUPER_SIZE: Final = 1024
SUPER_MAGIC: Final = 0xEF53
MAX_LOG_BLOCK_SIZE: Final = 6

_SUPER_FIELDS: Final = {
    "inodes_count": (0x0, "<u4"),
    "blocks_count_lo": (0x4, "<u4"),
    "first_data_block": (0x14, "<u4"),
    "log_block_size": (0x18, "<u4"),
    "log_cluster_size": (0x1C, "<u4"),
    "blocks_per_group": (0x20, "<u4"),
    "clusters_per_group": (0x24, "<u4"),
    "inodes_per_group": (0x28, "<u4"),
    "magic": (0x38, "<u2"),
    "state": (0x3A, "<u2"),
    "creator_os": (0x48, "<u4"),
    "rev_level": (0x4C, "<u4"),
    "inode_size": (0x58, "<u2"),
    "block_group_nr": (0x5A, "<u2"),
    "feature_compat": (0x5C, "<u4"),
    "feature_incompat": (0x60, "<u4"),
    "feature_ro_compat": (0x64, "<u4"),
    "uuid": (0x68, "V16"),
    "volume_name": (0x78, "V16"),
    "reserved_gdt_blocks": (0xCE, "<u2"),
    "journal_inum": (0xE0, "<u4"),
    "hash_seed": (0xEC, ("<u4", (4,))),
    "def_hash_version": (0xFC, "u1"),
    "desc_size": (0xFE, "<u2"),
    "first_meta_bg": (0x104, "<u4"),
    "blocks_count_hi": (0x150, "<u4"),
    "flags": (0x160, "<u4"),
    "checksum_type": (0x175, "u1"),
    "backup_bgs": (0x24C, ("<u4", (2,))),
    "checksum_seed": (0x270, "<u4"),
    "encoding": (0x27C, "<u2"),
    "encoding_flags": (0x27E, "<u2"),
    "usr_quota_inum": (0x240, "<u4"),
    "grp_quota_inum": (0x244, "<u4"),
    "prj_quota_inum": (0x26C, "<u4"),
    "orphan_file_inum": (0x280, "<u4"),
    "checksum": (0x3FC, "<u4"),
}

SUPER: Final = np.dtype(
    {
        "names": list(_SUPER_FIELDS),
        "formats": [field[1] for field in _SUPER_FIELDS.values()],
        "offsets": [field[0] for field in _SUPER_FIELDS.values()],
        "itemsize": SUPER_SIZE,
    }
)

STATE_CLEAN: Final = 1
STATE_ERRORS: Final = 2
CHECKSUM_CRC32C: Final = 1
FLAG_UNSIGNED_HASH: Final = 2
ENCODING_STRICT: Final = 1
OLD_INODE_SIZE: Final = 128


class Compat(IntFlag):
    """Features that may be ignored altogether."""

    DIR_PREALLOC = 0x1
    IMAGIC_INODES = 0x2
    HAS_JOURNAL = 0x4
    EXT_ATTR = 0x8
    RESIZE_INODE = 0x10
    DIR_INDEX = 0x20
    LAZY_BG = 0x40
    EXCLUDE_INODE = 0x80
    EXCLUDE_BITMAP = 0x100
    SPARSE_SUPER2 = 0x200
    FAST_COMMIT = 0x400
    STABLE_INODES = 0x800
    ORPHAN_FILE = 0x1000


class Incompat(IntFlag):
    """Features without which nothing can be read right."""

    COMPRESSION = 0x1
    FILETYPE = 0x2
    RECOVER = 0x4
    JOURNAL_DEV = 0x8
    META_BG = 0x10
    EXTENTS = 0x40
    BIT64 = 0x80
    MMP = 0x100
    FLEX_BG = 0x200
    EA_INODE = 0x400
    DIRDATA = 0x1000
    CSUM_SEED = 0x2000
    LARGEDIR = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPT = 0x10000
    CASEFOLD = 0x20000


class RoCompat(IntFlag):
    """Features that may be ignored when reading."""

    SPARSE_SUPER = 0x1
    LARGE_FILE = 0x2
    BTREE_DIR = 0x4
    HUGE_FILE = 0x8
    GDT_CSUM = 0x10
    DIR_NLINK = 0x20
    EXTRA_ISIZE = 0x40
    HAS_SNAPSHOT = 0x80
    QUOTA = 0x100
    BIGALLOC = 0x200
    METADATA_CSUM = 0x400
    REPLICA = 0x800
    READONLY = 0x1000
    PROJECT = 0x2000
    SHARED_BLOCKS = 0x4000
    VERITY = 0x8000
    ORPHAN_PRESENT = 0x10000


#: COMPRESSION is here because only the compressed files themselves cannot be read.
READABLE_INCOMPAT: Final = (
    Incompat.COMPRESSION
    | Incompat.FILETYPE
    | Incompat.RECOVER
    | Incompat.META_BG
    | Incompat.EXTENTS
    | Incompat.BIT64
    | Incompat.MMP
    | Incompat.FLEX_BG
    | Incompat.EA_INODE
    | Incompat.CSUM_SEED
    | Incompat.LARGEDIR
    | Incompat.INLINE_DATA
    | Incompat.ENCRYPT
    | Incompat.CASEFOLD
)

#: What ext2 and ext3 know; more of it makes a volume ext4 (the rule of blkid).
EXT3_INCOMPAT: Final = Incompat.FILETYPE | Incompat.RECOVER | Incompat.META_BG
EXT2_INCOMPAT: Final = Incompat.FILETYPE | Incompat.META_BG
EXT3_RO_COMPAT: Final = RoCompat.SPARSE_SUPER | RoCompat.LARGE_FILE | RoCompat.BTREE_DIR

# -- "Block Group Descriptors" -----------------------------------------------------------------------------------------

#: The first inode that is not reserved, in all revisions ("Special inodes").
FIRST_INODE: Final = 11

GD_BLOCK_BITMAP_LO: Final = 0x0
GD_INODE_BITMAP_LO: Final = 0x4
GD_INODE_TABLE_LO: Final = 0x8
GD_FLAGS: Final = 0x12
GD_INODE_UNINIT: Final = 1
GD_BLOCK_UNINIT: Final = 2
GD_ITABLE_UNUSED_LO: Final = 0x1C
GD_ITABLE_UNUSED_HI: Final = 0x32
GD_CHECKSUM: Final = 0x1E
GD_BLOCK_BITMAP_HI: Final = 0x20
GD_INODE_BITMAP_HI: Final = 0x24
GD_INODE_TABLE_HI: Final = 0x28
GD_SIZE: Final = 32
GD_SIZE_64BIT: Final = 64

# -- "Index Nodes" -----------------------------------------------------------------------------------------------------

ROOT_INODE: Final = 2

#: Marks of ids that are no inode numbers: a deleted file's, and that of a name alone, whose inode is another file's by
#: now or says nothing any more (number 0 where the name has lost it).
DELETED: Final = 1 << 63
NAME_ONLY: Final = 1 << 63 | 1 << 62
NUMBER_MASK: Final = (1 << 62) - 1

IN_MODE: Final = 0x0
IN_UID: Final = 0x2
IN_SIZE_LO: Final = 0x4
IN_ATIME: Final = 0x8
IN_CTIME: Final = 0xC
IN_MTIME: Final = 0x10
IN_DTIME: Final = 0x14
IN_GID: Final = 0x18
IN_LINKS: Final = 0x1A
IN_BLOCKS_LO: Final = 0x1C
IN_FLAGS: Final = 0x20
IN_BLOCK: Final = 0x28
IN_BLOCK_SIZE: Final = 60
IN_GENERATION: Final = 0x64
IN_FILE_ACL_LO: Final = 0x68
IN_SIZE_HI: Final = 0x6C
IN_BLOCKS_HI: Final = 0x74
IN_FILE_ACL_HI: Final = 0x76
IN_UID_HI: Final = 0x78
IN_GID_HI: Final = 0x7A
IN_CHECKSUM_LO: Final = 0x7C
IN_EXTRA_ISIZE: Final = 0x80
IN_CHECKSUM_HI: Final = 0x82
IN_CTIME_EXTRA: Final = 0x84
IN_MTIME_EXTRA: Final = 0x88
IN_ATIME_EXTRA: Final = 0x8C
IN_CRTIME: Final = 0x90
IN_CRTIME_EXTRA: Final = 0x94
IN_PROJECT: Final = 0x9C


class InodeFlag(IntFlag):
    """Bits of `i_flags` that change how a file is read."""

    COMPRESSED_BLOCKS = 0x200
    ENCRYPT = 0x800
    INDEX = 0x1000
    HUGE_FILE = 0x40000
    EXTENTS = 0x80000
    VERITY = 0x100000
    EA_INODE = 0x200000
    INLINE_DATA = 0x10000000
    CASEFOLD = 0x40000000


#: `FileType` by the upper four bits of `i_mode`.
TYPE_OF_MODE: Final = np.zeros(16, np.uint8)
TYPE_OF_MODE[[0x1, 0x2, 0x4, 0x6, 0x8, 0xA, 0xC]] = [
    FileType.FIFO,
    FileType.CHAR_DEVICE,
    FileType.DIRECTORY,
    FileType.BLOCK_DEVICE,
    FileType.FILE,
    FileType.SYMLINK,
    FileType.SOCKET,
]

# -- "Extent Tree" -----------------------------------------------------------------------------------------------------

EXTENT_MAGIC: Final = 0xF30A
EXTENT_NONE: Final = b"\x0a\xf3\0\0"  # how a tree without entries begins
EXTENT_MAX_DEPTH: Final = 5
EXTENT_RECORD: Final = 12  # header and entries alike
EXTENT_UNWRITTEN: Final = 32768  # a longer extent is an unwritten one, of the length beyond this
LOGICAL_LIMIT: Final = 1 << 32  # blocks of one file

# -- "Block Map" -------------------------------------------------------------------------------------------------------

DIRECT_BLOCKS: Final = 12

# -- "Directory Entries", "Hash Tree Directories" ----------------------------------------------------------------------

DIRENT_HEADER: Final = 8
DIRENT_MIN: Final = 12
DIRENT_TYPES: Final = 7  # the highest file type
TAIL_SIZE: Final = 12
TAIL_TYPE: Final = 0xDE

#: `FileType` by the file type of a directory entry; what is higher is unknown.
TYPE_OF_DIRENT: Final = np.zeros(256, np.uint8)
TYPE_OF_DIRENT[1:8] = [
    FileType.FILE,
    FileType.DIRECTORY,
    FileType.CHAR_DEVICE,
    FileType.BLOCK_DEVICE,
    FileType.FIFO,
    FileType.SOCKET,
    FileType.SYMLINK,
]

DX_INFO: Final = 0x18  # of the root: reserved u4, hash version, info length, indirect levels, flags
DX_NODE_COUNTS: Final = 0x8  # of an interior node: limit u2, count u2
DX_RECORD: Final = 8
DX_BLOCK_MASK: Final = 0x0FFFFFFF
DX_MAX_LEVELS: Final = 3

# -- "Extended Attributes" ---------------------------------------------------------------------------------------------

XATTR_MAGIC: Final = 0xEA020000
XATTR_BLOCK_HEADER: Final = 32
XATTR_ENTRY: Final = 16
XATTR_VALUE_MAX: Final = 1 << 24
XATTR_SYSTEM: Final = 7
XATTR_INLINE_NAME: Final = b"data"

#: Name prefix by index; the indexes that the kernel keeps to itself (inline data, encryption contexts) are not here.
XATTR_PREFIX: Final = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
    8: "system.richacl",
    10: "gnu.",
}
XATTR_ACLS: Final = (2, 3)
