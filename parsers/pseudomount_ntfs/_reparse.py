r"""Reparse points and the other kinds of link: what they are, and where they lead.

Sources: [MS-FSCC] 2.1.2 Reparse point data structures; Interix's links as ntfs-3g and Services for UNIX write them.
"""

from __future__ import annotations

import re
import struct
from enum import IntEnum
from typing import Final

from pseudomount.errors import CorruptionError
from pseudomount.filesystem import FileType

__all__ = ["INTERIX_LINK", "Tag", "interix_type", "is_cloud", "link_parts", "reparse_target", "tag_type"]


class Tag(IntEnum):
    """[MS-FSCC] 2.1.2.1 Reparse tags."""

    MOUNT_POINT = 0xA000_0003
    SYMLINK = 0xA000_000C
    LX_SYMLINK = 0xA000_001D
    LX_FIFO = 0x8000_0024
    LX_CHR = 0x8000_0025
    LX_BLK = 0x8000_0026
    AF_UNIX = 0x8000_0023
    WOF = 0x8000_0017
    DEDUP = 0x8000_0013
    HSM = 0xC000_0004
    HSM2 = 0x8000_0006
    SIS = 0x8000_0007
    WCI = 0x8000_0018
    WCI_1 = 0x9000_1018
    PROJFS = 0x9000_001C
    CLOUD = 0x9000_001A


_TYPES: Final = {
    Tag.MOUNT_POINT: FileType.SYMLINK,
    Tag.SYMLINK: FileType.SYMLINK,
    Tag.LX_SYMLINK: FileType.SYMLINK,
    Tag.LX_FIFO: FileType.FIFO,
    Tag.LX_CHR: FileType.CHAR_DEVICE,
    Tag.LX_BLK: FileType.BLOCK_DEVICE,
    Tag.AF_UNIX: FileType.SOCKET,
}

INTERIX_LINK: Final = b"IntxLNK\1"
_INTERIX: Final = {
    INTERIX_LINK: FileType.SYMLINK,
    b"IntxCHR\0": FileType.CHAR_DEVICE,
    b"IntxBLK\0": FileType.BLOCK_DEVICE,
}
_INTERIX_DEVICE_SIZE: Final = 24
#: A longer file is no Interix link.
INTERIX_LIMIT: Final = 8 + 2 * 4096

_LX_VERSION: Final = 2
_DRIVE: Final = re.compile(rb"[A-Za-z]:")
_VOLUME: Final = re.compile(rb"Volume\{[0-9A-Fa-f-]*\}", re.IGNORECASE)


def is_cloud(tag: int) -> bool:
    """Whether a tag is one of the sixteen of the cloud files API."""
    return tag & 0xFFFF_0FFF == Tag.CLOUD


def tag_type(tag: int) -> FileType | None:
    """What a file with this reparse tag is, where the tag says so."""
    return _TYPES.get(tag)  # type: ignore[call-overload, no-any-return]


def interix_type(head: bytes, size: int, hidden: bool) -> FileType | None:
    """What a file is that has the system attribute, by its first 8 bytes and its size; None for a plain file."""
    if size <= 1:
        # Windows has empty system files too; they are hidden.
        return None if hidden else (FileType.SOCKET if size else FileType.FIFO)
    kind = _INTERIX.get(head)
    if kind is None or size > INTERIX_LIMIT:
        return None
    if kind is not FileType.SYMLINK and size != _INTERIX_DEVICE_SIZE:
        return None
    return kind


def interix_target(data: bytes) -> bytes:
    """Where an Interix link leads, as WTF-8."""
    return _wtf8(data[len(INTERIX_LINK) : len(data) & ~1])


def reparse_target(data: bytes) -> bytes:
    r"""Where a symbolic link, mount point, junction or WSL link leads, as WTF-8.

    It is the substitute name, which is what Windows follows; `\??\` in front of it is dropped, as Windows shows it.
    Only where there is none it is the print name.

    Raises:
        CorruptionError: the data makes no sense, or the tag is not a link's.
    """
    if len(data) < 8:
        raise CorruptionError("a reparse point of less than 8 bytes", structure="$REPARSE_POINT")
    tag, length = struct.unpack_from("<IH", data)
    body = data[8 : 8 + length]
    if len(body) < length:
        raise CorruptionError("a reparse point that is cut off", structure="$REPARSE_POINT")
    if tag == Tag.LX_SYMLINK:
        if length < 4 or int.from_bytes(body[:4], "little") != _LX_VERSION:
            raise CorruptionError("a WSL link of an unknown version", structure="$REPARSE_POINT")
        return body[4:].decode("utf-8", "surrogateescape").encode("utf-8", "replace")
    fixed = {Tag.SYMLINK: 12, Tag.MOUNT_POINT: 8}.get(tag)
    if fixed is None or length < fixed:
        raise CorruptionError(f"a reparse point of tag {tag:#010x} is no link", structure="$REPARSE_POINT")
    names = body[fixed:]
    substitute_at, substitute_size, print_at, print_size = struct.unpack_from("<4H", body)
    if max(substitute_at + substitute_size, print_at + print_size) > len(names):
        raise CorruptionError("a link's names lie outside of it", structure="$REPARSE_POINT")
    substitute = names[substitute_at : substitute_at + (substitute_size & ~1)]
    shown = names[print_at : print_at + (print_size & ~1)]
    return _wtf8(substitute, strip=True) or _wtf8(shown)


def _wtf8(units: bytes, *, strip: bool = False) -> bytes:
    text = units.decode("utf-16-le", "surrogatepass").rstrip("\0")
    if strip:
        if text.startswith("\\??\\UNC\\"):
            text = "\\" + text[7:]
        elif text.startswith("\\??\\Volume{"):
            text = "\\\\?\\" + text[4:]
        elif text.startswith("\\??\\"):
            text = text[4:]
    return text.encode("utf-8", "surrogatepass")


def link_parts(target: bytes) -> tuple[bool, list[bytes]]:
    r"""A target as (whether it starts at the root, its parts).

    Both slashes part names. `\??\` and `\\?\`, a drive's letter and a volume's GUID are dropped: which volume had them
    is not known here, and nearly always it is this one. A network path keeps its two backslashes in its first part,
    which no file can be called, so it leads nowhere rather than astray.
    """
    text = target
    prefix = re.match(rb"\\(?:\?\?|\\\?)\\", text)
    if prefix:
        text = text[prefix.end() :]
        volume = _VOLUME.match(text)
        if volume:
            return True, _parts(text[volume.end() :])
        if text[:4].upper() == b"UNC\\":
            text = b"\\\\" + text[4:]
    if text.startswith(b"\\\\"):
        host, *rest = _parts(text) or [b""]
        return True, [b"\\\\" + host, *rest]
    if _DRIVE.match(text):
        return True, _parts(text[2:])
    return bool(prefix) or text.startswith((b"\\", b"/")), _parts(text)


def _parts(text: bytes) -> list[bytes]:
    return [part for part in re.split(rb"[\\/]", text) if part]
