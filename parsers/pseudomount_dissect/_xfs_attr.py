"""Extended attributes of XFS, which the library leaves as bytes.

Source: XFS Algorithms and Data Structures, "Extended Attributes"; the kernel shows the two ACL attributes under the
name, and in the form, that all file systems have.
"""

from __future__ import annotations

import struct
from typing import Final

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, UnsupportedError
from pseudomount.filesystem import RunKind
from pseudomount_dissect._adapter import Run

__all__ = ["leaf_attributes", "short_attributes", "shown"]

_ROOT, _SECURE, _PARENT, _INCOMPLETE, _LOCAL = 2, 4, 8, 0x80, 1
_LEAF_MAGICS: Final = {0xFBEE, 0x3BEE}
_REMOTE_HEADER: Final = 56
_VALUE_LIMIT: Final = 65536
#: Blocks of one file's attributes; every value may be 64 KiB, every block of the fork is one of 4 KiB or more.
_BLOCKS_LIMIT: Final = 4096
_ACLS: Final = {
    "trusted.SGI_ACL_FILE": "system.posix_acl_access",
    "trusted.SGI_ACL_DEFAULT": "system.posix_acl_default",
}
_NAMED: Final = {0x02, 0x08}  # ACL entries that name someone: ACL_USER and ACL_GROUP

#: name, flags, value
Attribute = tuple[bytes, int, bytes]


def _bad(what: str) -> CorruptionError:
    return CorruptionError(f"extended attributes: {what}", structure="attribute fork")


def short_attributes(fork: bytes) -> list[Attribute]:
    """Those in the inode (`xfs_attr_shortform`)."""
    if len(fork) < 4:
        raise _bad("no header")
    total, count = struct.unpack_from(">HB", fork)
    found, at = [], 4
    for _ in range(count):
        if at + 3 > min(total, len(fork)):
            raise _bad("an entry behind the end")
        name_size, value_size, flags = fork[at : at + 3]
        end = at + 3 + name_size + value_size
        if end > min(total, len(fork)):
            raise _bad("an entry behind the end")
        found.append((fork[at + 3 : at + 3 + name_size], flags, fork[at + 3 + name_size : end]))
        at = end
    return found


def leaf_attributes(device: BlockDevice, runs: list[Run], block: int, checked: bool) -> list[Attribute]:
    """Those in blocks of their own (`xfs_attr_leafblock`); `checked` is the format with checksums."""
    if sum(length for _, length, _, _ in runs) > _BLOCKS_LIMIT * block:
        raise UnsupportedError("more extended attributes than are read")
    places = {
        offset // block + i: position + i * block
        for offset, length, position, kind in runs
        if kind is RunKind.DATA
        for i in range(length // block)
    }
    found: list[Attribute] = []
    values: set[int] = set()  # blocks that hold values: theirs may look like anything
    for number in sorted(places):
        if number in values:
            continue
        data = device.read(places[number], block)
        if struct.unpack_from(">H", data, 8)[0] in _LEAF_MAGICS:
            for name, flags, value, remote in _leaf(data, checked):
                if remote is not None:
                    first, length = remote
                    per = block - (_REMOTE_HEADER if checked else 0)
                    numbers = range(first, first + -(-length // per))
                    values.update(numbers)
                    value = _remote(device, places, numbers, block, length, checked)
                found.append((name, flags, value))
    return found


def _leaf(data: bytes, checked: bool) -> list[tuple[bytes, int, bytes, tuple[int, int] | None]]:
    base = 80 if checked else 32
    count = struct.unpack_from(">H", data, 56 if checked else 12)[0]
    if base + count * 8 > len(data):
        raise _bad(f"a leaf of {count} entries")
    found: list[tuple[bytes, int, bytes, tuple[int, int] | None]] = []
    for i in range(count):
        at, flags = struct.unpack_from(">HB", data, base + i * 8 + 4)
        if flags & (_INCOMPLETE | _PARENT):
            continue
        if at + 11 > len(data):
            raise _bad("a name outside of its leaf")
        if flags & _LOCAL:
            value_size, name_size = struct.unpack_from(">HB", data, at)
            begin, remote = at + 3, None
        else:
            first, value_size, name_size = struct.unpack_from(">IIB", data, at)
            begin, remote = at + 9, (first, value_size)
        end = begin + name_size + (value_size if remote is None else 0)
        if end > len(data) or value_size > _VALUE_LIMIT:
            raise _bad("a value outside of its leaf")
        found.append((data[begin : begin + name_size], flags, data[begin + name_size : end], remote))
    return found


def _remote(
    device: BlockDevice, places: dict[int, int], numbers: range, block: int, length: int, checked: bool
) -> bytes:
    parts = []
    for number in numbers:
        if number not in places:
            raise _bad("a value in a block that is not there")
        data = device.read(places[number], block)
        if checked:
            if data[:4] != b"XARM":
                raise _bad("a value in a block that holds none")
            data = data[_REMOTE_HEADER:]
        parts.append(data)
    return b"".join(parts)[:length]


def shown(attributes: list[Attribute]) -> dict[str, bytes]:
    """By the names, and with the values, that the kernel gives."""
    found: dict[str, bytes] = {}
    for raw, flags, value in attributes:
        if flags & (_PARENT | _INCOMPLETE):
            continue
        space = "trusted." if flags & _ROOT else "security." if flags & _SECURE else "user."
        name = space + raw.decode("utf-8", "surrogateescape")
        found[name] = value
        if name in _ACLS:
            found[_ACLS[name]] = _acl(value)
    return found


def _acl(value: bytes) -> bytes:
    """An ACL as `system.posix_acl_access` holds it."""
    if len(value) < 4 or len(value) < 4 + 12 * struct.unpack_from(">I", value)[0]:
        raise _bad("an ACL that is cut off")
    parts = [struct.pack("<I", 2)]
    for i in range(struct.unpack_from(">I", value)[0]):
        tag, who, rights = struct.unpack_from(">IIH", value, 4 + 12 * i)
        parts.append(struct.pack("<HHI", tag & 0xFFFF, rights, who if tag in _NAMED else 0xFFFFFFFF))
    return b"".join(parts)
