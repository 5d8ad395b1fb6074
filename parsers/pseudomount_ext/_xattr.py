"""Extended attributes and what lies among them: access control lists, and the rest of inline data.

"Extended Attributes", "Inline Data" and "POSIX ACLs" in the kernel's ext4 documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from pseudomount.errors import PseudomountError
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes
from pseudomount_ext._content import Volume
from pseudomount_ext._crc import crc32c
from pseudomount_ext._layout import InodeFlag
from pseudomount_ext._read import read_rows

__all__ = ["InodeReader", "acl_as_xattr", "inline_content", "read_xattrs"]

#: Reads the whole content of an inode that holds one attribute's value: (its inode, the most bytes it may have).
InodeReader = Callable[[int, int], tuple[Inodes, bytes]]

_STRUCTURE: Final = "extended attribute"
_NO_ID: Final = 0xFFFFFFFF
_ACL_USER: Final = 0x2
_ACL_GROUP: Final = 0x8


@dataclass(frozen=True, slots=True)
class _Entry:
    """One attribute: `value` is None where another inode holds it."""

    index: int
    name: bytes
    value: bytes | None
    size: int
    inode: int


def _entries(region: bytes, first: int, base: int) -> Iterator[_Entry | str]:
    """The entries from `first` on, or a complaint. Values are counted from `base`."""
    at = first
    while at + 4 <= len(region) and region[at : at + 4] != b"\0\0\0\0":
        if at + lay.XATTR_ENTRY > len(region):
            yield "an entry is cut off"
            return
        name_length, index, offset, inode, size, _ = struct.unpack_from("<BBHIII", region, at)
        end = at + lay.XATTR_ENTRY + name_length
        if end > len(region):
            yield "a name is cut off"
            return
        name = region[at + lay.XATTR_ENTRY : end]
        if inode:
            yield _Entry(index, name, None, size, inode)
        elif base + offset + size > len(region):
            yield f"the value of {name!r} lies outside"
        else:
            yield _Entry(index, name, region[base + offset : base + offset + size], size, 0)
        at = (end + 3) & ~3


def _inode_region(inodes: Inodes, row: int) -> tuple[bytes, int]:
    """What follows the inode's fields, and where in the inode it begins; empty without attributes."""
    begin = lay.OLD_INODE_SIZE + int(inodes.extra_isize[row])
    raw = inodes.raw[row, begin:].tobytes()
    has = len(raw) >= 8 and int.from_bytes(raw[:4], "little") == lay.XATTR_MAGIC and bool(inodes.extra_isize[row])
    return (raw if has else b""), begin


def inline_content(inodes: Inodes, row: int) -> bytes:
    """The inline data of a file: `i_block`, and the attribute "system.data" where there is more ("Inline Data")."""
    more = b""
    region, _ = _inode_region(inodes, row)
    for entry in _entries(region, 4, 4):
        if isinstance(entry, _Entry) and (entry.index, entry.name) == (lay.XATTR_SYSTEM, lay.XATTR_INLINE_NAME):
            more = entry.value or b""
            break
    return bytes(inodes.block[row]) + more


def read_xattrs(volume: Volume, inodes: Inodes, row: int, reader: InodeReader) -> dict[str, bytes]:
    """All attributes of a file that the kernel would list, those in the inode first.

    An attribute that makes no sense is left out and noted.
    """
    number = int(inodes.number[row])
    found: dict[str, bytes] = {}

    def take(entries: Iterator[_Entry | str], offset: int | None) -> None:
        for entry in entries:
            if isinstance(entry, str):
                volume.doubt(f"extended attributes of inode {number}: {entry}", offset, _STRUCTURE, number)
                continue
            prefix = lay.XATTR_PREFIX.get(entry.index)
            if prefix is None:
                continue
            name = prefix + entry.name.decode("utf-8", "surrogateescape")
            value = entry.value
            if value is None:
                value = _from_inode(volume, number, entry, reader)
            if value is not None and entry.index in lay.XATTR_ACLS:
                value = acl_as_xattr(value)
            if value is None:
                message = f"the extended attribute {name.encode('utf-8', 'replace').decode()} cannot be read"
                volume.doubt(message, offset, _STRUCTURE, number)
                continue
            found.setdefault(name, value)

    region, _ = _inode_region(inodes, row)
    take(_entries(region, 4, 4), None)
    block = int(inodes.file_acl[row])
    if block:
        raw = _read_block(volume, number, block)
        if raw:
            take(_entries(raw, lay.XATTR_BLOCK_HEADER, 0), block * volume.superblock.block_size)
    return found


def _read_block(volume: Volume, number: int, block: int) -> bytes:
    superblock = volume.superblock
    size = superblock.block_size
    if not superblock.first_data_block < block < superblock.blocks:
        volume.doubt(f"the attribute block {block} lies outside the volume", None, _STRUCTURE, number)
        return b""
    got = read_rows(volume.device, np.array([block * size], np.int64), size, _STRUCTURE)
    if got.errors:
        volume.doubt(str(got.errors[0]), block * size, _STRUCTURE, number)
        return b""
    raw = bytes(got.data[0])
    magic, _, blocks, _, stored = struct.unpack_from("<5I", raw)
    if magic != lay.XATTR_MAGIC or blocks != 1:
        volume.doubt("an attribute block makes no sense", block * size, _STRUCTURE, number)
        return b""
    if superblock.metadata_csum:
        crc = crc32c(superblock.checksum_seed, struct.pack("<Q", block) + raw[:0x10] + bytes(4) + raw[0x14:])
        if crc != stored:
            volume.doubt("an attribute block does not fit its checksum", block * size, _STRUCTURE, number)
    return raw


def _from_inode(volume: Volume, number: int, entry: _Entry, reader: InodeReader) -> bytes | None:
    """A value that has an inode to itself, with the checksum of the value in the place of the access time."""
    if entry.size > lay.XATTR_VALUE_MAX:
        return None
    try:
        inodes, value = reader(entry.inode, entry.size)
    except PseudomountError as error:
        volume.doubt(str(error), None, _STRUCTURE, number)
        return None
    if not inodes.flagged(InodeFlag.EA_INODE)[0] or len(value) != entry.size:
        return None
    stored = int.from_bytes(inodes.raw[0, lay.IN_ATIME : lay.IN_ATIME + 4].tobytes(), "little")
    if volume.superblock.metadata_csum and crc32c(volume.superblock.checksum_seed, value) != stored:
        volume.doubt(
            f"the extended attribute value in inode {entry.inode} does not fit its hash", None, _STRUCTURE, number
        )
    return value


def acl_as_xattr(disk: bytes) -> bytes | None:
    """An access control list as the kernel shows it ("posix_acl_xattr_header", version 2); None if it makes no sense.

    On the disk (version 1) an entry has a tag and permissions, and an id only for named users and groups; outside,
    each has an id.
    """
    if len(disk) < 4 or int.from_bytes(disk[:4], "little") != 1:
        return None
    out = [struct.pack("<I", 2)]
    at = 4
    while at < len(disk):
        if at + 4 > len(disk):
            return None
        tag, permissions = struct.unpack_from("<HH", disk, at)
        at += 4
        who = _NO_ID
        if tag in (_ACL_USER, _ACL_GROUP):
            if at + 4 > len(disk):
                return None
            (who,) = struct.unpack_from("<I", disk, at)
            at += 4
        out.append(struct.pack("<HHI", tag, permissions, who))
    return b"".join(out)
