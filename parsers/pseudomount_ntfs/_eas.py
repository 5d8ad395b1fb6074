"""NTFS's own extended attributes. Source: [LN] Attribute: $EA; [MS-FSCC] 2.4.15 FileFullEaInformation."""

from __future__ import annotations

import struct
from typing import Final

from pseudomount.errors import CorruptionError

__all__ = ["EA_LIMIT", "parse_eas"]

#: The extended attributes of a file have at most 64 KiB.
EA_LIMIT: Final = 128 << 10


def parse_eas(data: bytes) -> dict[str, bytes]:
    """The extended attributes in $EA, as `user.NAME`.

    Raises:
        CorruptionError: they make no sense.
    """
    found: dict[str, bytes] = {}
    at = 0
    while at + 8 < len(data):
        step, _, name_length, value_length = struct.unpack_from("<IBBH", data, at)
        name_end = at + 8 + name_length
        end = name_end + 1 + value_length
        if end > len(data) or (step and (step < end - at or step % 4)):
            raise CorruptionError("extended attributes that make no sense", structure="$EA")
        name = data[at + 8 : name_end].decode("latin-1")
        found[f"user.{name}"] = data[name_end + 1 : end]
        if not step:
            break
        at += step
    return found
