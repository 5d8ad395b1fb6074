"""The superblock and its backups ("Super Block" in the kernel's ext4 documentation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pseudomount.device import BlockDevice
from pseudomount_ext import _layout as lay
from pseudomount_ext._crc import START, crc32c
from pseudomount_ext._layout import Compat, Incompat, RoCompat

__all__ = ["Superblock", "find", "parse", "unreadable_features"]

_MORE_GROUPS: Final = (3, 5, 7)
_SMALLEST_GROUP: Final = 18  # 2**18 bytes: 256 blocks of 1 KiB


@dataclass(frozen=True, slots=True)
class Superblock:
    """A superblock whose numbers fit each other.

    Attributes:
        group: the block group whose copy this is; 0 is the primary.
        intact: its checksum fits, or it has none.
        blocks, inodes: how many there are.
        block_size, cluster_size, inode_size, desc_size: bytes.
        groups: block groups.
        checksum_seed: register before each metadata checksum.
        hash_seed: four words, zero for the built-in seed.
        unsigned_hash: names are hashed as unsigned bytes.
        backup_groups: the two groups with backups, under sparse_super2.
        own_inodes: of the quotas and the orphan file, which no name leads to; 0 where there is none.
    """

    group: int
    intact: bool
    blocks: int
    inodes: int
    block_size: int
    cluster_size: int
    inode_size: int
    desc_size: int
    groups: int
    blocks_per_group: int
    inodes_per_group: int
    first_data_block: int
    first_meta_bg: int
    revision: int
    state: int
    compat: Compat
    incompat: Incompat
    ro_compat: RoCompat
    raw_uuid: bytes
    raw_label: bytes
    checksum_seed: int
    hash_seed: tuple[int, int, int, int]
    hash_version: int
    unsigned_hash: bool
    strict_encoding: bool
    backup_groups: tuple[int, int]
    own_inodes: tuple[int, ...] = ()

    @property
    def filesystem(self) -> str:
        """ "ext2", "ext3" or "ext4", by blkid's rule: the oldest one that knows all of the features."""
        beyond3 = self.incompat & ~lay.EXT3_INCOMPAT or self.ro_compat & ~lay.EXT3_RO_COMPAT
        if beyond3:
            return "ext4"
        if self.compat & Compat.HAS_JOURNAL:
            return "ext3"
        return "ext4" if self.incompat & ~lay.EXT2_INCOMPAT else "ext2"

    @property
    def uuid(self) -> str:
        """As blkid prints it; "" for none."""
        text = self.raw_uuid.hex()
        parts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
        return "-".join(parts) if any(self.raw_uuid) else ""

    @property
    def label(self) -> str:
        """Up to 16 bytes of UTF-8; stray bytes are written as escapes."""
        return self.raw_label.split(b"\0")[0].decode("utf-8", "backslashreplace")

    @property
    def metadata_csum(self) -> bool:
        """Whether metadata carry CRC-32C."""
        return bool(self.ro_compat & RoCompat.METADATA_CSUM)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size

    @property
    def descs_per_block(self) -> int:
        """Group descriptors in a block."""
        return self.block_size // self.desc_size

    def has_super(self, group: int) -> bool:
        """Whether a group begins with a copy of the superblock ("Sparse super", "sparse_super2")."""
        if group == 0:
            return True
        if self.compat & Compat.SPARSE_SUPER2:
            return group in self.backup_groups
        if group == 1 or not self.ro_compat & RoCompat.SPARSE_SUPER:
            return True
        return any(_is_power(group, base) for base in (3, 5, 7))

    def first_block(self, group: int) -> int:
        """The first block of a group."""
        return self.first_data_block + group * self.blocks_per_group


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1


def parse(raw: bytes, group: int | None = None) -> Superblock | None:
    """The superblock in 1024 bytes, or None where there is none or its numbers make no sense.

    Args:
        raw: the bytes.
        group: the group it was found in; a copy that says it belongs elsewhere is none. Not checked where None.
    """
    fields = np.frombuffer(raw, lay.SUPER, 1)[0]

    def number(name: str) -> int:
        return int(fields[name])

    if number("magic") != lay.SUPER_MAGIC or number("log_block_size") > lay.MAX_LOG_BLOCK_SIZE:
        return None
    if group is not None and number("block_group_nr") != group:
        return None
    revision = number("rev_level")
    compat, incompat, ro_compat = Compat(0), Incompat(0), RoCompat(0)
    inode_size = lay.OLD_INODE_SIZE
    if revision > 0:  # revision 0 has neither features nor a choice of inode sizes
        compat = Compat(number("feature_compat"))
        incompat = Incompat(number("feature_incompat"))
        ro_compat = RoCompat(number("feature_ro_compat"))
        inode_size = number("inode_size")
    block_size = 1024 << number("log_block_size")
    blocks = number("blocks_count_lo")
    desc_size = lay.GD_SIZE
    if incompat & Incompat.BIT64:
        blocks |= number("blocks_count_hi") << 32
        desc_size = number("desc_size")
        if not lay.GD_SIZE_64BIT <= desc_size <= min(block_size, 1024) or desc_size & (desc_size - 1):
            return None
    cluster_size = block_size
    if ro_compat & RoCompat.BIGALLOC:
        shift = number("log_cluster_size")
        if not number("log_block_size") <= shift <= 20:
            return None
        cluster_size = 1024 << shift
    per_group, inodes_per_group = number("blocks_per_group"), number("inodes_per_group")
    first = number("first_data_block")
    inodes = number("inodes_count")
    sound = (
        inode_size >= lay.OLD_INODE_SIZE
        and inode_size <= block_size
        and not inode_size & (inode_size - 1)
        and 0 < per_group <= block_size * 8 * (cluster_size // block_size)
        and 0 < inodes_per_group <= block_size * 8
        and first <= (1 if block_size == 1024 else 0)
        and first < blocks < 1 << 48
        and inodes >= lay.ROOT_INODE
    )
    if not sound:
        return None
    groups = -(-(blocks - first) // per_group)
    if groups * inodes_per_group < inodes or groups >= 1 << 32:
        return None
    uuid = bytes(fields["uuid"])
    csum = bool(ro_compat & RoCompat.METADATA_CSUM)
    seed = number("checksum_seed") if incompat & Incompat.CSUM_SEED else crc32c(START, uuid) if csum else 0
    words = [int(word) for word in fields["hash_seed"]]
    return Superblock(
        group=number("block_group_nr") if group is None else group,
        intact=not csum or crc32c(START, raw[:0x3FC]) == number("checksum"),
        blocks=blocks,
        inodes=inodes,
        block_size=block_size,
        cluster_size=cluster_size,
        inode_size=inode_size,
        desc_size=desc_size,
        groups=groups,
        blocks_per_group=per_group,
        inodes_per_group=inodes_per_group,
        first_data_block=first,
        first_meta_bg=number("first_meta_bg"),
        revision=revision,
        state=number("state"),
        compat=compat,
        incompat=incompat,
        ro_compat=ro_compat,
        raw_uuid=uuid,
        raw_label=bytes(fields["volume_name"]),
        checksum_seed=seed,
        hash_seed=(words[0], words[1], words[2], words[3]),
        hash_version=number("def_hash_version"),
        unsigned_hash=bool(number("flags") & lay.FLAG_UNSIGNED_HASH),
        strict_encoding=bool(number("encoding_flags") & lay.ENCODING_STRICT),
        backup_groups=(int(fields["backup_bgs"][0]), int(fields["backup_bgs"][1])),
        own_inodes=tuple(number(f"{name}_inum") for name in ("usr_quota", "grp_quota", "prj_quota", "orphan_file")),
    )


def find(device: BlockDevice) -> tuple[Superblock, Superblock | None] | None:
    """The superblock to use, and the primary one where that is damaged but readable; None where there is none.

    A primary that makes sense and whose checksum fits costs one read of 1 KiB. Otherwise the backups are looked for
    where mke2fs puts them: at the start of group 1, and of groups 3, 5 and 7 where a group has 8 * block size blocks.

    Raises:
        PseudomountError: the device could not be read.
    """
    if device.size < lay.SUPER_OFFSET + lay.SUPER_SIZE:
        return None
    batch = device.read_many([lay.SUPER_OFFSET], lay.SUPER_SIZE)
    unread = batch.errors.get(0)
    primary = None if unread else parse(batch.view(0).tobytes())
    if primary is not None and primary.intact:
        return primary, None
    if unread is None and _other_volume(batch.view(0).tobytes()):
        return None
    backup = next((found for found in _backups(device) if found.intact), None)
    if backup is None:
        if primary is None and unread is not None:
            raise unread
        return None if primary is None else (primary, None)
    return backup, primary


def _other_volume(raw: bytes) -> bool:
    """Whether this is a sound superblock of an external journal, which has no files and no backups."""
    fields = np.frombuffer(raw, lay.SUPER, 1)[0]
    return int(fields["magic"]) == lay.SUPER_MAGIC and bool(int(fields["feature_incompat"]) & Incompat.JOURNAL_DEV)


def _backups(device: BlockDevice) -> Iterator[Superblock]:
    """Copies that lie where they say they belong."""
    # A group is 8 * block size blocks unless mke2fs was told otherwise, and then most likely another power of two.
    places = [(1, 1 << shift) for shift in range(_SMALLEST_GROUP, 36)]
    places += [(group, group * 8 * (1024 << log) ** 2) for group in _MORE_GROUPS for log in range(7)]
    # With blocks of 1 KiB groups are counted from block 1, except with bigalloc.
    places += [(group, at + 1024) for group, at in places if at // group <= 8 << 20]
    places = [place for place in places if place[1] + lay.SUPER_SIZE <= device.size]
    if not places:
        return
    batch = device.read_many([at for _, at in places], lay.SUPER_SIZE)
    for i, (group, at) in enumerate(places):
        found = None if i in batch.errors else parse(batch.view(i).tobytes(), group)
        if found is None or found.incompat & Incompat.JOURNAL_DEV:
            continue
        if found.first_block(group) * found.block_size == at:
            yield found


def unreadable_features(superblock: Superblock) -> list[str]:
    """Names of the features without which the volume cannot be read right and that we do not know."""
    unknown = int(superblock.incompat) & ~int(lay.READABLE_INCOMPAT)
    names = []
    for bit in range(32):
        if unknown >> bit & 1:
            known = {1 << 12: "dirdata", 1 << 3: "journal_dev"}.get(1 << bit)
            names.append(known or f"incompat bit 0x{1 << bit:x}")
    return names
