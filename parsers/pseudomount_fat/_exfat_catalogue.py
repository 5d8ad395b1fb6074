"""exFAT directories as columns: any number of them at once.

A file is a set of entries: one of type File, one Stream Extension, then names; further secondary entries (a vendor's)
may follow and are passed over (exFAT specification, sections 6.3, 7.4, 7.6, 7.7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.findings import Severity
from pseudomount_fat._entries import Entries, Problem
from pseudomount_fat._exfat_layout import FILE, NAME, NAME_UNITS, STREAM
from pseudomount_fat._layout import ATTR_DIRECTORY, ENTRY
from pseudomount_fat._names import UnitNames

__all__ = [
    "BARRIER",
    "IN_USE",
    "deleted_entries",
    "file_fields",
    "name_hashes",
    "parse_entries",
    "set_checksums",
    "stream_fields",
]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
UInt16s = NDArray[np.uint16]

#: Type of a file entry not in use: what unreadable pieces of a directory are filled with, no set goes across it.
BARRIER = 0x05
#: The bit of an entry's type that deleting it clears.
IN_USE = 0x80
_MOST = 18
#: Section 7.7.
_NAME_ENTRY = np.dtype({"names": ["units"], "formats": ["V30"], "offsets": [2], "itemsize": ENTRY})
#: Section 7.4.
_FILE_ENTRY = np.dtype(
    [
        ("type", "u1"),
        ("secondary", "u1"),
        ("checksum", "<u2"),
        ("attributes", "<u2"),
        ("reserved", "<u2"),
        ("created_time", "<u2"),
        ("created_date", "<u2"),
        ("modified_time", "<u2"),
        ("modified_date", "<u2"),
        ("accessed_time", "<u2"),
        ("accessed_date", "<u2"),
        ("created_tens", "u1"),
        ("modified_tens", "u1"),
        ("created_zone", "u1"),
        ("modified_zone", "u1"),
        ("accessed_zone", "u1"),
        ("unused", "V7"),
    ]
)


class _Rotating:
    """Checksums as exFAT has them, of many rows at once: rotated right by one bit, the next byte added.

    Where a byte is zero in all rows, as half of each name's are, there is nothing to add: the rotation waits.
    """

    def __init__(self, n: int) -> None:
        self._total = np.zeros(n, np.uint16)
        self._turns = 0
        self._rows = n

    def add(self, values: NDArray[np.integer]) -> None:
        """The next bytes, as uint16 (k,), of the first k rows; no more of those behind them."""
        if len(values) < self._rows:
            self._turn()
            self._rows = len(values)
        self._turns += 1
        if values.any():
            self._turn()
            self._total[: self._rows] += values.astype(np.uint16, copy=False)

    def _turn(self) -> None:
        turns = self._turns % 16
        self._turns = 0
        if turns:
            part = self._total[: self._rows]
            part[:] = (part << (16 - turns)) | (part >> turns)

    def result(self) -> UInt16s:
        """uint16 (n,)."""
        self._turn()
        return self._total


def set_checksums(table: UInt8s, rows: Int64s, counts: Int64s) -> UInt16s:
    """uint16 (n,), of the sets of `counts` entries each that begin at `rows` of uint8 (m, 32) (section 6.3.3)."""
    order = np.argsort(-counts, kind="stable")  # the longest first: those that end are a tail, cut off in one go
    begin, left = rows[order], counts[order]
    total = _Rotating(len(rows))
    ends = np.searchsorted(-left, -np.arange(int(left.max(initial=0))), "left")
    for number, n in enumerate(ends.tolist()):
        words = table.take(begin[:n] + number, axis=0).view("<u2").T
        for column, pair in enumerate(np.ascontiguousarray(words)):
            if number or column != 1:  # the checksum itself
                total.add(pair & 0xFF)
                total.add(pair >> 8)
    result = np.empty(len(rows), np.uint16)
    result[order] = total.result()
    return result


def name_hashes(names: UnitNames, upcase: UInt16s) -> UInt16s:
    """uint16 (n,), of the names in upper case (section 7.6.4)."""
    order = np.argsort(-names.lengths, kind="stable")
    begin, left = names.starts[order], names.lengths[order]
    pool = upcase[names.pool]
    total = _Rotating(len(order))
    ends = np.searchsorted(-left, -np.arange(int(left.max(initial=0))), "left")
    for i, n in enumerate(ends.tolist()):
        units = pool[begin[:n] + i]
        total.add(units & 0xFF)
        total.add(units >> 8)
    result = np.empty(len(order), np.uint16)
    result[order] = total.result()
    return result


def parse_entries(table: UInt8s, owner: Int64s, upcase: UInt16s | None) -> Entries:
    """The files in directories.

    Args:
        table: uint8 (n, 32), entries of directories one directory after the other, each up to its end mark.
        owner: int64 (n,), which directory a row belongs to; no set reaches over into another.
        upcase: the volume's table, to check name hashes with; None leaves them unchecked.

    A set that is no file (without stream extension, without its names) is left out and a problem. One whose checksum is
    wrong is given, and a problem: which of its bytes is wrong nobody knows.
    """
    problems = []
    rows = np.flatnonzero(table[:, 0] == FILE)
    secondary = table[rows, 1].astype(np.int64)
    end = rows + secondary
    sound = (secondary >= 2) & (secondary <= _MOST) & (end < len(table))
    end = np.where(sound, end, 0)
    sound &= owner[end] == owner[rows]
    second = np.minimum(rows + 1, len(table) - 1)
    sound &= table[second, 0] == STREAM
    length = table[second, 3].astype(np.int64)
    names = -(-length // NAME_UNITS)
    sound &= (length > 0) & (names < secondary)
    is_name = np.concatenate([[0], np.cumsum(table[:, 0] == NAME)])
    stop = np.where(sound, rows + 2 + names, 0)
    sound &= is_name[stop] - is_name[np.where(sound, rows + 2, 0)] == names
    if not sound.all():
        problems.append(
            Problem(Severity.LOST, "a file's set of entries is not whole and is left out", "file entry", rows[~sound])
        )
    rows, secondary, length, names = rows[sound], secondary[sound], length[sound], names[sound]
    wrong = set_checksums(table, rows, secondary + 1) != _word(table, rows, 2)
    if wrong.any():
        problems.append(
            Problem(Severity.DEGRADED, "the checksum of a file's entries is wrong", "file entry", rows[wrong])
        )
    begins = np.cumsum(names) - names
    source = np.arange(int(names.sum())) + np.repeat(rows + 2 - begins, names)
    parts = table.take(source, axis=0).view(_NAME_ENTRY)[:, 0]["units"]
    pool = np.ascontiguousarray(parts).view("<u2").astype(np.uint16, copy=False)
    starts = begins * NAME_UNITS
    nul = np.append(np.flatnonzero(pool == 0), len(pool))
    first = nul[np.minimum(np.searchsorted(nul, starts), len(nul) - 1)]
    found = UnitNames(pool, starts, np.minimum(first - starts, length))
    if upcase is not None:
        unlike = ~wrong & (name_hashes(found, upcase) != _word(table, rows + 1, 4))
        if unlike.any():
            problems.append(
                Problem(
                    Severity.NOTE,
                    "the hash of a name is wrong: Windows would not find it",
                    "stream extension",
                    rows[unlike],
                )
            )
    refused = found.unusable()
    if refused.any():
        slashed = refused & found.holds(0x2F)
        nameless = refused & ~slashed
        if slashed.any():
            found = found.without_slash(slashed)
            problems.append(
                Problem(Severity.DEGRADED, "a slash in a name is shown as U+2215", "file name", rows[slashed])
            )
        if nameless.any():
            problems.append(
                Problem(Severity.DEGRADED, "a file without a name is left out", "file name", rows[nameless])
            )
        rows, found, wrong = rows[~nameless], found.take(~nameless), wrong[~nameless]
    directory = (_word(table, rows, 4) & ATTR_DIRECTORY) != 0
    return Entries(rows, directory, found, None, problems, ~wrong)


def deleted_entries(table: UInt8s, owner: Int64s) -> Entries:
    """The files that were deleted from directories; arguments as for `parse_entries`.

    Deleting clears the highest bit of the type of each of a set's entries (section 6.2.1.4) and leaves all else, the
    checksum of the bytes as they were before included: only sets of which it is right are given.
    """
    before = table.copy()
    before[:, 0] ^= IN_USE
    found = parse_entries(before, owner, None)
    sure = found.sure if found.sure is not None else np.ones(len(found.row), np.bool_)
    return Entries(found.row[sure], found.directory[sure], found.names.take(sure), None, [], sure[sure])


def _word(table: UInt8s, rows: Int64s, at: int) -> UInt16s:
    word: UInt16s = np.ascontiguousarray(table[rows, at : at + 2]).view("<u2")[:, 0].astype(np.uint16)
    return word


def file_fields(entries: UInt8s) -> dict[str, Int64s]:
    """The numbers of File entries uint8 (n, 32), each int64 (n,) (section 7.4)."""
    fields = np.ascontiguousarray(entries).reshape(-1).view(_FILE_ENTRY)
    skipped = ("type", "reserved", "unused")
    return {name: fields[name].astype(np.int64) for name in _FILE_ENTRY.names or () if name not in skipped}


def stream_fields(entries: UInt8s) -> dict[str, NDArray[np.uint64]]:
    """The numbers of Stream Extension entries uint8 (n, 32), each uint64 (n,) (section 7.6)."""
    packed = np.ascontiguousarray(entries)
    wide, long = packed.view("<u8"), packed.view("<u4")
    return {
        "flags": packed[:, 1].astype(np.uint64),
        "valid": wide[:, 1].astype(np.uint64),
        "first": long[:, 5].astype(np.uint64),
        "size": wide[:, 3].astype(np.uint64),
    }
