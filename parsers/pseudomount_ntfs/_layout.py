"""NTFS on the disk: structures and numbers.

Sources: [LN] the Linux-NTFS project's "NTFS Documentation" (concepts and attributes by name), and Microsoft's published
structures: [MS-FSCC] for reparse data, file attributes and FILETIME, [MS-XCA] for compression. All is little-endian.

Structures are numpy types, so that one record and a million are read alike, see `gather`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ATTRIBUTE",
    "ATTRIBUTE_LIST_ENTRY",
    "BOOT",
    "DELETED",
    "FILE_NAME",
    "INDEX_BLOCK",
    "INDEX_ENTRY",
    "INDEX_ROOT",
    "NONRESIDENT",
    "RECORD",
    "RECORD_MASK",
    "RESIDENT",
    "RESTART_AREA",
    "RESTART_PAGE",
    "SEQUENCE_SHIFT",
    "STANDARD_INFORMATION",
    "AttributeFlag",
    "AttributeType",
    "FileFlag",
    "RecordFlag",
    "RecordNumber",
    "gather",
    "units_of",
]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
Structured = NDArray[np.void]


class AttributeType(IntEnum):
    """[LN] Attributes."""

    STANDARD_INFORMATION = 0x10
    ATTRIBUTE_LIST = 0x20
    FILE_NAME = 0x30
    SECURITY_DESCRIPTOR = 0x50
    VOLUME_NAME = 0x60
    VOLUME_INFORMATION = 0x70
    DATA = 0x80
    INDEX_ROOT = 0x90
    INDEX_ALLOCATION = 0xA0
    BITMAP = 0xB0
    REPARSE_POINT = 0xC0
    EA = 0xE0
    END = 0xFFFFFFFF


class AttributeFlag(IntFlag):
    """[LN] Concept: attribute header."""

    COMPRESSION = 0x00FF  # the method; 1 is LZNT1
    ENCRYPTED = 0x4000
    SPARSE = 0x8000


class RecordFlag(IntFlag):
    """[LN] Concept: FILE record."""

    IN_USE = 0x0001
    DIRECTORY = 0x0002
    VIEW_INDEX = 0x0008  # indexes something else than names; such metafiles have no $DATA


class FileFlag(IntFlag):
    """[MS-FSCC] 2.6 File attributes; the two last ones are NTFS's own, in $FILE_NAME."""

    HIDDEN = 0x0002
    SYSTEM = 0x0004
    REPARSE_POINT = 0x0400
    OFFLINE = 0x1000
    ENCRYPTED = 0x4000
    RECALL_ON_OPEN = 0x0004_0000
    RECALL_ON_DATA_ACCESS = 0x0040_0000
    DIRECTORY = 0x1000_0000


class RecordNumber(IntEnum):
    """[LN] Files: the metafiles' places in the MFT."""

    MFT = 0
    MFT_MIRROR = 1
    LOG_FILE = 2
    VOLUME = 3
    ROOT = 5
    BITMAP = 6
    SECURE = 9
    UPCASE = 10
    FIRST_USER = 24


#: Namespace of a name that is only the 8.3 alias of another one, [LN] Attribute: $FILE_NAME.
DOS_NAMESPACE: Final = 2

#: A file reference: 48 bits of record number, 16 of sequence number.
RECORD_MASK: Final = (1 << 47) - 1
#: Marks the id of a file whose record is no longer in use: the highest of the 48 bits of a record number, which an MFT
#: of less than 2^47 records does not need.
DELETED: Final = 1 << 47
SEQUENCE_SHIFT: Final = 48

#: Update sequences protect each stride of 512 bytes, whatever the sector size is.
STRIDE: Final = 512

#: The volume is marked to be checked, in $VOLUME_INFORMATION.
VOLUME_DIRTY: Final = 0x0001

_Field = tuple[str, str, int]


def _structure(size: int, fields: Sequence[_Field]) -> np.dtype[np.void]:
    names, formats, offsets = zip(*fields, strict=True)
    spec: Any = {"names": list(names), "formats": list(formats), "offsets": list(offsets), "itemsize": size}
    made: np.dtype[np.void] = np.dtype(spec)
    return made


#: [LN] File: $Boot.
BOOT: Final = _structure(
    512,
    [
        ("oem", "S8", 3),
        ("sector_size", "<u2", 11),
        ("sectors_per_cluster", "u1", 13),
        ("sectors", "<u8", 40),
        ("mft", "<u8", 48),
        ("mirror", "<u8", 56),
        ("record_size", "i1", 64),
        ("index_size", "i1", 68),
        ("serial", "<u8", 72),
    ],
)

#: [LN] Concept: FILE record. "number" exists since NTFS 3.1.
RECORD: Final = _structure(
    48,
    [
        ("magic", "<u4", 0),
        ("sequence", "<u2", 16),
        ("links", "<u2", 18),
        ("attributes", "<u2", 20),
        ("flags", "<u2", 22),
        ("used", "<u4", 24),
        ("base", "<u8", 32),
    ],
)

#: What resident and non-resident attributes begin with, [LN] Concept: attribute header.
ATTRIBUTE: Final = _structure(
    16,
    [
        ("type", "<u4", 0),
        ("length", "<u4", 4),
        ("nonresident", "u1", 8),
        ("name_length", "u1", 9),
        ("name_offset", "<u2", 10),
        ("flags", "<u2", 12),
        ("id", "<u2", 14),
    ],
)
RESIDENT: Final = _structure(24, [("value_length", "<u4", 16), ("value_offset", "<u2", 20)])
NONRESIDENT: Final = _structure(
    64,
    [
        ("lowest", "<i8", 16),
        ("highest", "<i8", 24),
        ("pairs", "<u2", 32),
        ("unit", "u1", 34),
        ("allocated", "<i8", 40),
        ("size", "<i8", 48),
        ("initialized", "<i8", 56),
    ],
)

#: [LN] Attribute: $STANDARD_INFORMATION; the ids are there since NTFS 3.0.
STANDARD_INFORMATION: Final = _structure(
    72,
    [
        ("created", "<u8", 0),
        ("modified", "<u8", 8),
        ("changed", "<u8", 16),
        ("accessed", "<u8", 24),
        ("attributes", "<u4", 32),
        ("security", "<u4", 52),
        ("usn", "<u8", 64),
    ],
)
STANDARD_INFORMATION_SHORT: Final = 48

#: [LN] Attribute: $FILE_NAME. The name follows after 66 bytes; `FILE_NAME_SIZE` is what must be there.
FILE_NAME: Final = _structure(
    72,
    [
        ("parent", "<u8", 0),
        ("created", "<u8", 8),
        ("modified", "<u8", 16),
        ("changed", "<u8", 24),
        ("accessed", "<u8", 32),
        ("attributes", "<u4", 56),
        ("tag", "<u4", 60),
        ("name_length", "u1", 64),
        ("namespace", "u1", 65),
    ],
)
FILE_NAME_SIZE: Final = 66

#: [LN] Attribute: $ATTRIBUTE_LIST.
ATTRIBUTE_LIST_ENTRY: Final = _structure(
    24,
    [("type", "<u4", 0), ("length", "<u2", 4), ("lowest", "<u8", 8), ("reference", "<u8", 16)],
)
ATTRIBUTE_LIST_ENTRY_SIZE: Final = 26

#: [LN] Attribute: $INDEX_ROOT, its index header from byte 16 on.
INDEX_ROOT: Final = _structure(
    32,
    [("block_size", "<u4", 8), ("entries", "<u4", 16), ("length", "<u4", 20)],
)

#: [LN] Concept: INDX record, its index header from byte 24 on.
INDEX_BLOCK: Final = _structure(
    40,
    [("magic", "<u4", 0), ("vcn", "<u8", 16), ("entries", "<u4", 24), ("length", "<u4", 28)],
)

#: [LN] Concept: index entry.
INDEX_ENTRY: Final = _structure(
    16,
    [("reference", "<u8", 0), ("length", "<u2", 8), ("key_length", "<u2", 10), ("flags", "<u2", 12)],
)
INDEX_ENTRY_SUBNODE: Final = 1
INDEX_ENTRY_LAST: Final = 2

#: [LN] File: $LogFile.
RESTART_PAGE: Final = _structure(32, [("magic", "<u4", 0), ("page_size", "<u4", 16), ("area", "<u2", 24)])
RESTART_AREA: Final = _structure(
    48,
    [("lsn", "<u8", 0), ("in_use", "<u2", 12), ("flags", "<u2", 14)],
)
RESTART_NO_CLIENT: Final = 0xFFFF
RESTART_CLEAN: Final = 2

MAGIC_FILE: Final = int.from_bytes(b"FILE", "little")
MAGIC_INDEX: Final = int.from_bytes(b"INDX", "little")
MAGIC_RESTART: Final = int.from_bytes(b"RSTR", "little")


def gather(flat: UInt8s, at: Int64s, structure: np.dtype[np.void]) -> Structured:
    """The structures that begin at many places of a buffer, as an array (n,).

    The caller has checked that they lie inside, apart from the padding that a type may have at its end.
    """
    size = structure.itemsize
    last = int(at.max(initial=0)) + size
    if last > len(flat):
        flat = np.concatenate((flat, np.zeros(last - len(flat), np.uint8)))
    # A view of all the places that one could begin at: picking from it copies whole structures.
    everywhere = np.ndarray((len(flat) - size + 1,), np.dtype((np.void, size)), flat, strides=(1,))
    found: Structured = everywhere[at].view(structure)
    return found


def units_of(flat: UInt8s, starts: Int64s, counts: Int64s) -> tuple[NDArray[np.uint16], Int64s]:
    """The UTF-16 units of many names in a buffer, one name after the other, and the n + 1 offsets of the names."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    total = int(offsets[-1])
    if not total:
        return np.empty(0, np.uint16), offsets
    index = np.arange(total, dtype=np.int64)
    if not len(flat) % 2 and not (starts & 1).any():
        index += np.repeat((starts >> 1) - offsets[:-1], counts)
        return flat.view("<u2")[index].astype(np.uint16, copy=False), offsets
    index *= 2
    index += np.repeat(starts - 2 * offsets[:-1], counts)
    units: NDArray[np.uint16] = flat[index].astype(np.uint16) | (flat[index + 1].astype(np.uint16) << np.uint16(8))
    return units, offsets
