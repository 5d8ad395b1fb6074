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
from pseudomount_fat._layout import ATTR_DIRECTORY, ATTR_LONG, ATTR_LONG_MASK, ATTR_VOLUME, ENTRY
from pseudomount_fat._names import CodePage, UnitNames

__all__ = [
    "DELETED",
    "either_names",
    "entry_fields",
    "is_dots",
    "is_file",
    "label_rows",
    "parse_entries",
    "part_units",
    "short_name_checksum",
]

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
#: Where the 13 units of a name are in an entry (section 7.1), and the same without what is between them.
_PIECES = ("V10", "V12", "V4")
_LONG_ENTRY = np.dtype({"names": ["a", "b", "c"], "formats": _PIECES, "offsets": [1, 14, 28], "itemsize": ENTRY})
_LONG_NAME = np.dtype({"names": ["a", "b", "c"], "formats": _PIECES})
#: Section 6.
_SHORT_ENTRY = np.dtype(
    [
        ("name", "V11"),
        ("attributes", "u1"),
        ("case", "u1"),
        ("tenths", "u1"),
        ("created_time", "<u2"),
        ("created_date", "<u2"),
        ("accessed_date", "<u2"),
        ("cluster_high", "<u2"),
        ("modified_time", "<u2"),
        ("modified_date", "<u2"),
        ("cluster_low", "<u2"),
        ("size", "<u4"),
    ]
)


def short_name_checksum(names: UInt8s) -> UInt8s:
    """uint8 (n,), of short names uint8 (n, 11) as stored (section 7.2)."""
    total = np.zeros(len(names), np.uint8)
    for column in np.ascontiguousarray(names.T):
        total = (total << 7) + (total >> 1) + column
    return total


def _kinds(table: UInt8s) -> tuple[Bools, Bools, Bools]:
    """Which rows of uint8 (n, 32) are files, parts of long names, volume labels."""
    first, attributes = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 11])
    used = (first != DELETED) & (first != 0)
    part = used & ((attributes & ATTR_LONG_MASK) == ATTR_LONG)
    label = used & ~part & ((attributes & ATTR_VOLUME) != 0)
    file = used & ~part & ~label
    dots = np.flatnonzero(first == 0x2E)
    file[dots[is_dots(table[dots])]] = False
    return file, part, label


def is_dots(table: UInt8s) -> Bools:
    """bool (n,): which rows of uint8 (n, 32) are called "." or ".."."""
    second = (table[:, 1] == 0x20) | (table[:, 1] == 0x2E)
    dots: Bools = (table[:, 0] == 0x2E) & second & (table[:, 2:11] == 0x20).all(1)
    return dots


def is_file(table: UInt8s) -> Bools:
    """bool (n,): which rows of uint8 (n, 32) stand for files."""
    return _kinds(table)[0]


def label_rows(table: UInt8s) -> Int64s:
    """Rows of uint8 (n, 32) that are volume labels."""
    return np.flatnonzero(_kinds(table)[2])


def _long_names(table: UInt8s, owner: Int64s, rows: Int64s, part: Bools) -> tuple[Int64s, Int64s]:
    """For each short entry: how many parts of a whole long name belong to it (0 for none); and the orphaned parts."""
    checksum = short_name_checksum(table.take(rows, axis=0)[:, :11])
    parts = np.zeros(len(rows), np.int64)
    ordinals, checks = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 13])
    numbers = np.where(part & (table[:, 12] == 0), ordinals & ~np.uint8(_LAST), np.uint8(0))
    claimed = np.zeros(len(table), np.bool_)
    active = np.arange(len(rows))
    for k in range(1, _PARTS + 1):
        at = rows[active] - k
        inside = at >= 0
        if not inside.all():
            active, at = active[inside], at[inside]
        fits = (numbers[at] == k) & (checks[at] == checksum[active]) & (owner[at] == owner[rows[active]])
        last = fits & ((ordinals[at] & _LAST) != 0)
        parts[active[last]] = k
        active = active[fits & ~last]
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


def part_units(table: UInt8s, rows: Int64s, parts: Int64s) -> UnitNames:
    """The long names of entries with so many parts each."""
    behind = np.repeat(rows, parts) - _countdown(parts)
    whole = table.take(behind, axis=0).view(_LONG_ENTRY)[:, 0]
    units = np.empty(len(behind), _LONG_NAME)
    for name in _LONG_NAME.names or ():
        units[name] = whole[name]
    pool = units.view("<u2").astype(np.uint16, copy=False)
    begins = (np.cumsum(parts) - parts) * _UNITS
    ends = begins + parts * _UNITS
    stops = np.append(np.flatnonzero((pool == 0) | (pool == 0xFFFF)), len(pool))
    first = stops[np.minimum(np.searchsorted(stops, begins), len(stops) - 1)]
    return UnitNames(pool, begins, np.minimum(first, ends) - begins)


def parse_entries(table: UInt8s, owner: Int64s, codepage: CodePage, *, aliases: bool) -> Entries:
    """The files in directories.

    Args:
        table: uint8 (n, 32), entries of directories one directory after the other, each up to its end mark.
        owner: int64 (n,), which directory a row belongs to; a long name never reaches over into another.
        codepage: of short names.
        aliases: whether the short names beside long ones are wanted.

    Deleted entries, volume labels, "." and ".." are left out, parts of long names that belong to no entry ignored.
    """
    file, part, _ = _kinds(table)
    rows = np.flatnonzero(file)
    parts, orphans = _long_names(table, owner, rows, part)
    problems = []
    if len(orphans):
        problems.append(Problem(Severity.NOTE, "parts of a long name belong to no file", "long name", orphans))
    has_long = parts > 0
    long = part_units(table, rows[has_long], parts[has_long])
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
    names, alias = either_names(table, rows, long, has_long, codepage, aliases=aliases)
    refused = np.zeros(len(rows), np.bool_)
    refused[~has_long] = names.take(~has_long).unusable()
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
        rows, names, alias = rows[keep], names.take(keep), None if alias is None else alias.take(keep)
    return Entries(rows, (table[rows, 11] & ATTR_DIRECTORY) != 0, names, alias, problems)


def either_names(
    table: UInt8s, rows: Int64s, long: UnitNames, has_long: Bools, codepage: CodePage, *, aliases: bool
) -> tuple[UnitNames, UnitNames | None]:
    """The long names of entries that have one, the short ones of the others; and where asked for the other short ones.

    Short names are made only of what needs them: that costs more than all else.
    """
    some = np.arange(len(rows)) if aliases else np.flatnonzero(~has_long)
    if not len(some):
        return long, None
    short = _short_names(table.take(rows[some], axis=0), codepage)
    starts, lengths = np.zeros((2, len(rows)), np.int64)
    starts[some], lengths[some] = short.starts, short.lengths
    alias = UnitNames(short.pool, starts.copy(), np.where(has_long, lengths, 0)) if aliases else None
    starts[has_long], lengths[has_long] = long.starts + len(short.pool), long.lengths
    return UnitNames(np.concatenate([short.pool, long.pool]), starts, lengths), alias


def entry_fields(table: UInt8s) -> dict[str, Int64s]:
    """The numbers of short entries uint8 (n, 32), each int64 (n,) (section 6)."""
    entries = np.ascontiguousarray(table).reshape(-1).view(_SHORT_ENTRY)
    return {name: entries[name].astype(np.int64) for name in _SHORT_ENTRY.names or () if name not in ("name", "case")}
