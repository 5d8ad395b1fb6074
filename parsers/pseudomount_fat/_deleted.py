"""What is left of deleted files in FAT directories.

Deleting marks the short entry and those of the long name by their first byte, 0xE5, and frees the chain in the FAT; the
rest of the entries stays until others need the room (Microsoft FAT specification 1.03, section 6). Lost are the first
character of the short name, the order of a long name's parts, and where the content lies behind its first cluster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount_fat._catalogue import DELETED, either_names, entry_fields, part_units
from pseudomount_fat._entries import Entries
from pseudomount_fat._layout import ATTR_DIRECTORY, ATTR_LONG, ATTR_LONG_MASK, ATTR_VOLUME
from pseudomount_fat._names import CodePage, UnitNames

__all__ = ["deleted_entries", "is_deleted_file"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
Bools = NDArray[np.bool_]

_PARTS = 20
_NONE_SUCH = 0xC0  # bits that no attribute has
_LOST = ord("_")
#: Bytes that no short name has (section 6.1).
_ILLEGAL = np.zeros(256, np.bool_)
_ILLEGAL[[*range(0x20), 0x7F, *b'"*+,./:;<=>?[\\]|']] = True
#: Bytes that none begins with: those, the space, lower case, and the mark itself, for which 0x05 stands.
_NO_FIRST = _ILLEGAL.copy()
_NO_FIRST[[0x20, *range(ord("a"), ord("z") + 1), DELETED]] = True
_NO_FIRST[0x05] = False


def is_deleted_file(table: UInt8s) -> Bools:
    """bool (n,): which rows of uint8 (n, 32) can have been files: marked, and nothing in them that no file has."""
    attributes = table[:, 11]
    found: Bools = (table[:, 0] == DELETED) & ((attributes & (_NONE_SUCH | ATTR_VOLUME)) == 0)
    rows = np.flatnonzero(found)
    entries = table[rows]
    directory = (entries[:, 11] & ATTR_DIRECTORY) != 0
    found[rows] = ~_ILLEGAL[entries[:, 1:11]].any(1) & ~(directory & (entries[:, 28:] != 0).any(1))
    return found


def deleted_entries(
    table: UInt8s, owner: Int64s, codepage: CodePage, last_cluster: int, *, wide: bool = True
) -> Entries:
    """The files that were deleted from directories.

    Args:
        table: uint8 (n, 32), entries of directories one directory after the other, each up to its end mark.
        owner: int64 (n,), which directory a row belongs to.
        codepage: of short names.
        last_cluster: number of the volume's last cluster; what claims to begin behind it is no file.
        wide: whether the upper half of a cluster's number counts (FAT32).

    A long name counts where its checksum is that of the short name with some first character that fits; otherwise the
    name is the short one, "_" for what was lost of it.
    """
    rows = np.flatnonzero(is_deleted_file(table))
    field = entry_fields(table.take(rows, axis=0))
    first = field["cluster_low"] | (field["cluster_high"] << 16 if wide else 0)
    sound = (first == 0) | ((first >= 2) & (first <= last_cluster))
    # The "." of a deleted directory, marked as well, is none of its files.
    after = np.minimum(rows + 1, len(table) - 1)
    own = (table[rows, 11] & ATTR_DIRECTORY != 0) & (table[rows, 1:11] == 0x20).all(1)
    own &= (table[after, 1] == 0x2E) & (table[after, 2:11] == 0x20).all(1) & (owner[after] == owner[rows])
    rows = rows[sound & ~own]
    parts = _long_names(table, owner, rows)
    long = part_units(table, rows[parts > 0], parts[parts > 0])
    has_long = _fitting(table, rows, parts, long)
    long = long.take(has_long[parts > 0])
    named = table.take(rows, axis=0)
    named[:, 0] = _LOST
    names, _ = either_names(named, np.arange(len(rows)), long, has_long, codepage, aliases=False)
    slashed = names.holds(0x2F)
    if slashed.any():
        names = names.without_slash(slashed)
    return Entries(rows, (named[:, 11] & ATTR_DIRECTORY) != 0, names)


def _long_names(table: UInt8s, owner: Int64s, rows: Int64s) -> Int64s:
    """For each marked short entry: how many marked parts of a long name lie before it and can belong together.

    The last part holds the end of the name, or all 13 units of it and another checksum before it.
    """
    part = (table[:, 0] == DELETED) & ((table[:, 11] & ATTR_LONG_MASK) == ATTR_LONG)
    part &= (table[:, 12] == 0) & ((table[:, 11] & _NONE_SUCH) == 0) & (table[:, 26:28] == 0).all(1)
    checks = np.ascontiguousarray(table[:, 13])
    padded = ((table[:, 30:] == 0) | (table[:, 30:] == 0xFF)).all(1)  # its last unit is no character
    parts = np.zeros(len(rows), np.int64)
    active = np.arange(len(rows))
    for k in range(1, _PARTS + 1):
        at = rows[active] - k
        active, at = active[at >= 0], at[at >= 0]
        start = rows[active]
        fits = part[at] & (checks[at] == checks[start - 1]) & (owner[at] == owner[start])
        active, at = active[fits], at[fits]
        parts[active] = k
        active = active[~padded[at]]
        if not len(active):
            break
    return parts


def _fitting(table: UInt8s, rows: Int64s, parts: Int64s, long: UnitNames) -> Bools:
    """Which entries are those of the long names before them.

    A checksum and ten characters of the short name tell the eleventh, which must be one, and that of the long name.
    """
    result = parts > 0
    some = rows[result]
    total = table[some - 1, 13]
    for column in np.ascontiguousarray(table.take(some, axis=0)[:, 10:0:-1].T):
        total = total - column
        total = (total << 1) | (total >> 7)
    good = ~_NO_FIRST[total] & ~long.unusable() & (long.lengths <= 255)
    # A short name begins as the long one does, where that begins with a letter or digit after all its dots and spaces.
    begin, stop = long.starts.copy(), long.starts + long.lengths
    while True:
        more = np.flatnonzero(begin < stop)
        more = more[np.isin(long.pool[begin[more]], (0x20, 0x2E))]
        if not len(more):
            break
        begin[more] += 1
    letter = np.zeros(len(some), np.uint16)
    inside = begin < stop
    letter[inside] = long.pool[begin[inside]]
    letter = np.where((letter >= 0x61) & (letter <= 0x7A), letter - 0x20, letter)
    plain = ((letter >= 0x30) & (letter <= 0x39)) | ((letter >= 0x41) & (letter <= 0x5A))
    result[result] = good & (~plain | (letter == total))
    return result
