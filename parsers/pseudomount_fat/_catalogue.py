"""FAT directories as columns: any number of them at once, in steps that do not grow with the number of entries.

A directory is a table of 32-byte entries. A long name lies in entries before the short one that it belongs to, last
part first; each carries its ordinal and a checksum of the short name, and counts only where both are right: what does
not know of long names may have replaced the short entry (Microsoft FAT specification 1.03, sections 6 and 7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.findings import Severity
from pseudomount_fat._entries import Entries, Problem
from pseudomount_fat._layout import ATTR_DIRECTORY, ATTR_LONG, ATTR_LONG_MASK, ATTR_VOLUME
from pseudomount_fat._names import CodePage, UnitNames

__all__ = ["DELETED", "entry_fields", "is_file", "label_rows", "parse_entries", "short_name_checksum"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
Bools = NDArray[np.bool_]

#: First byte of an entry that is free.
DELETED = 0xE5
#: First byte that stands for 0xE5, which would say that the entry is free.
_KANJI = 0x05
_PARTS = 20
_UNITS = 13
_LAST = 0x40
#: Bits of offset 12: base name, extension shown in lower case (Windows NT and Linux; not in the specification).
_LOWER_BASE = 0x08
_LOWER_EXTENSION = 0x10
_LONG_BYTES = np.r_[1:11, 14:26, 28:32]


def short_name_checksum(names: UInt8s) -> UInt8s:
    """uint8 (n,), of short names uint8 (n, 11) as stored (section 7.2)."""
    total = np.zeros(len(names), np.uint8)
    for i in range(11):
        total = (total << 7) + (total >> 1) + names[:, i]
    return total


def _kinds(table: UInt8s) -> tuple[Bools, Bools, Bools]:
    """Which rows of uint8 (n, 32) are files, parts of long names, volume labels."""
    attributes = table[:, 11]
    used = (table[:, 0] != DELETED) & (table[:, 0] != 0)
    part = used & ((attributes & ATTR_LONG_MASK) == ATTR_LONG)
    label = used & ~part & ((attributes & ATTR_VOLUME) != 0)
    dots = (table[:, 0] == 0x2E) & ((table[:, 1] == 0x20) | (table[:, 1] == 0x2E)) & (table[:, 2:11] == 0x20).all(1)
    return used & ~part & ~label & ~dots, part, label


def is_file(table: UInt8s) -> Bools:
    """bool (n,): which rows of uint8 (n, 32) stand for files."""
    return _kinds(table)[0]


def label_rows(table: UInt8s) -> Int64s:
    """Rows of uint8 (n, 32) that are volume labels."""
    return np.flatnonzero(_kinds(table)[2])


def _long_names(table: UInt8s, owner: Int64s, rows: Int64s, part: Bools) -> tuple[Int64s, Int64s]:
    """For each short entry: how many parts of a whole long name belong to it (0 for none); and the orphaned parts."""
    checksum = short_name_checksum(table[rows, :11])
    parts = np.zeros(len(rows), np.int64)
    active = np.arange(len(rows))
    claimed = np.zeros(len(table), np.bool_)
    for k in range(1, _PARTS + 1):
        at = rows[active] - k
        active, at = active[at >= 0], at[at >= 0]
        entry = table[at]
        fits = part[at] & ((entry[:, 0] & ~np.uint8(_LAST)) == k) & (entry[:, 13] == checksum[active])
        fits &= (entry[:, 12] == 0) & (owner[at] == owner[rows[active]])
        active, last = active[fits], (entry[fits, 0] & _LAST) != 0
        parts[active[last]] = k
        active = active[~last]
        if not len(active):
            break
    behind = np.repeat(rows, parts) - _countdown(parts)
    claimed[behind] = True
    return parts, np.flatnonzero(part & ~claimed)


def _countdown(counts: Int64s) -> Int64s:
    """1, 2, … count for each count, one after the other."""
    begins = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(begins, counts) + 1


def _short_names(table: UInt8s, codepage: CodePage, *, lower: bool = True) -> UnitNames:
    """Short names of entries (n, 32), with their lower-case bits applied where `lower`."""
    raw = table[:, :11].copy()
    raw[raw[:, 0] == _KANJI, 0] = DELETED
    case = table[:, 12] if lower else np.zeros(len(table), np.uint8)
    if not codepage.single:
        return _double_byte_names(raw, case, codepage)
    low = np.repeat(np.stack([(case & _LOWER_BASE) != 0, (case & _LOWER_EXTENSION) != 0], 1), [8, 3], axis=1)
    units = np.where(low, codepage.lower[raw], codepage.upper[raw])
    base = _trimmed(raw[:, :8])
    extension = _trimmed(raw[:, 8:])
    column = np.arange(12)[None, :]
    stop = base[:, None]
    source = np.where(column < stop, column, np.where(column == stop, 11, np.minimum(8 + column - stop - 1, 10)))
    with_dot = np.concatenate([units, np.full((len(units), 1), 0x2E, np.uint16)], axis=1)
    pool = np.take_along_axis(with_dot, source, axis=1).reshape(-1)
    lengths = base + np.where(extension > 0, extension + 1, 0)
    # A NUL cannot be in a name; what is before it is.
    pool_2d = pool.reshape(-1, 12)
    nul = (pool_2d == 0) & (column < lengths[:, None])
    lengths = np.where(nul.any(1), nul.argmax(1), lengths) if len(nul) else lengths
    return UnitNames(pool, np.arange(len(raw), dtype=np.int64) * 12, lengths)


def _trimmed(padded: UInt8s) -> Int64s:
    """Lengths of rows without the spaces at their end."""
    width = padded.shape[1]
    filled = padded[:, ::-1] != 0x20
    return np.where(filled.any(1), width - filled.argmax(1), 0).astype(np.int64)


def _double_byte_names(raw: UInt8s, case: UInt8s, codepage: CodePage) -> UnitNames:
    """The same where a double byte can begin anywhere, so that no table of 256 serves."""
    data = raw.tobytes()
    fields = [
        data[at + low : at + high].rstrip(b" ") for low, high in ((0, 8), (8, 11)) for at in range(0, len(data), 11)
    ]
    # One decoding for all: a line feed is never the second of two bytes, so that each field stands by itself.
    texts = codepage.decode(b"\n".join(fields)).split("\n")
    if len(texts) != len(fields):  # one holds a line feed, which no sound name does
        texts = [codepage.decode(field) for field in fields]
    n = len(raw)
    for i in np.flatnonzero(case & _LOWER_BASE).tolist():
        texts[i] = codepage.decode(fields[i], lower=True)
    for i in np.flatnonzero(case & _LOWER_EXTENSION).tolist():
        texts[n + i] = codepage.decode(fields[n + i], lower=True)
    names = [f"{base}.{extension}" if extension else base for base, extension in zip(texts[:n], texts[n:], strict=True)]
    pool = np.frombuffer("".join(names).encode("utf-16-le", "surrogatepass"), "<u2").astype(np.uint16)
    lengths = np.fromiter((len(name) for name in names), np.int64, n)
    if int(lengths.sum()) != len(pool):  # a character outside the Basic Multilingual Plane (GB 18030)
        lengths = np.fromiter((len(name.encode("utf-16-le", "surrogatepass")) // 2 for name in names), np.int64, n)
    starts = np.cumsum(lengths) - lengths
    nul = np.append(np.flatnonzero(pool == 0), len(pool))  # cannot be in a name; what is before it is
    return UnitNames(pool, starts, np.minimum(nul[np.searchsorted(nul, starts)] - starts, lengths))


def _part_units(table: UInt8s, rows: Int64s, parts: Int64s) -> UnitNames:
    """The long names of entries with so many parts each."""
    behind = np.repeat(rows, parts) - _countdown(parts)
    pool = np.ascontiguousarray(table[behind][:, _LONG_BYTES]).view("<u2").astype(np.uint16).reshape(-1)
    begins = (np.cumsum(parts) - parts) * _UNITS
    ends = begins + parts * _UNITS
    stops = np.append(np.flatnonzero((pool == 0) | (pool == 0xFFFF)), len(pool))
    first = stops[np.minimum(np.searchsorted(stops, begins), len(stops) - 1)]
    return UnitNames(pool, begins, np.minimum(first, ends) - begins)


def parse_entries(table: UInt8s, owner: Int64s, codepage: CodePage) -> Entries:
    """The files in directories.

    Args:
        table: uint8 (n, 32), entries of directories one directory after the other, each up to its end mark.
        owner: int64 (n,), which directory a row belongs to; a long name never reaches over into another.
        codepage: of short names.

    Deleted entries, volume labels, "." and ".." are left out, parts of long names that belong to no entry ignored.
    """
    file, part, _ = _kinds(table)
    rows = np.flatnonzero(file)
    parts, orphans = _long_names(table, owner, rows, part)
    problems = []
    if len(orphans):
        problems.append(Problem(Severity.NOTE, "parts of a long name belong to no file", "long name", orphans))
    has_long = parts > 0
    short = _short_names(table[rows], codepage)
    if has_long.any():
        long = _part_units(table, rows[has_long], parts[has_long])
        refused = long.unusable()
        if refused.any():
            has_long[np.flatnonzero(has_long)[refused]] = False
            problems.append(
                Problem(
                    Severity.DEGRADED,
                    "the long name is none that a path can hold; the short one is shown",
                    "long name",
                    rows[parts > 0][refused],
                )
            )
            long = long.take(~refused)
        alias = UnitNames(short.pool, short.starts, np.where(has_long, short.lengths, 0))
        starts, lengths = short.starts.copy(), short.lengths.copy()
        starts[has_long], lengths[has_long] = long.starts + len(short.pool), long.lengths
        names = UnitNames(np.concatenate([short.pool, long.pool]), starts, lengths)
    else:
        names, alias = short, UnitNames(short.pool, short.starts, np.zeros_like(short.lengths))
    refused = names.unusable() & ~has_long
    if refused.any():
        slashed = refused & names.holds(0x2F)
        nameless = refused & ~slashed
        if nameless.any():
            problems.append(
                Problem(Severity.DEGRADED, "an entry without a name is left out", "directory entry", rows[nameless])
            )
        if slashed.any():
            names = names.without_slash(slashed)
            problems.append(
                Problem(Severity.DEGRADED, "a slash in a name is shown as U+2215", "directory entry", rows[slashed])
            )
        keep = ~nameless
        rows, names, alias = rows[keep], names.take(keep), alias.take(keep)
    return Entries(rows, (table[rows, 11] & ATTR_DIRECTORY) != 0, names, alias, problems)


def entry_fields(table: UInt8s) -> dict[str, Int64s]:
    """The numbers of short entries uint8 (n, 32), each int64 (n,) (section 6)."""
    words = np.ascontiguousarray(table).view("<u2").astype(np.int64)
    return {
        "attributes": table[:, 11].astype(np.int64),
        "tenths": table[:, 13].astype(np.int64),
        "created_time": words[:, 7],
        "created_date": words[:, 8],
        "accessed_date": words[:, 9],
        "cluster_high": words[:, 10],
        "modified_time": words[:, 11],
        "modified_date": words[:, 12],
        "cluster_low": words[:, 13],
        "size": words[:, 14] | words[:, 15] << 16,
    }
