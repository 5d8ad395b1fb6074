"""Names: UTF-16 to WTF-8 for whole tables, and the volume's own case folding.

WTF-8 is UTF-8 in which a surrogate without its partner is encoded by itself, as Python's "surrogatepass" does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.filesystem import Names

__all__ = ["default_upcase", "fold_hashes", "units_from_wtf8", "unusable", "wtf8"]

UInt16s = NDArray[np.uint16]
Int64s = NDArray[np.int64]


def wtf8(units: UInt16s, offsets: Int64s) -> Names:
    """Names of UTF-16 units (all in one array, name i at `offsets[i]:offsets[i + 1]`) as byte strings."""
    if not len(units):
        return Names(np.empty(0, np.uint8), offsets)
    if int(units.max()) < 0x80:
        return Names(units.astype(np.uint8), offsets)
    code = units.astype(np.uint32)
    last = np.zeros(len(code), np.bool_)
    filled = offsets[1:] > offsets[:-1]
    last[offsets[1:][filled] - 1] = True
    high, low = (code & 0xFC00) == 0xD800, (code & 0xFC00) == 0xDC00
    pair = np.flatnonzero(high[:-1] & low[1:] & ~last[:-1])
    width = 1 + (code >= 0x80).astype(np.int64) + (code >= 0x800)
    width[pair] = 4
    width[pair + 1] = 0
    ends = np.zeros(len(code) + 1, np.int64)
    np.cumsum(width, out=ends[1:])
    code[pair] = 0x10000 + ((code[pair] - 0xD800) << 10) + (code[pair + 1] - 0xDC00)
    out = np.empty(int(ends[-1]), np.uint8)
    for size, lead in ((1, 0), (2, 0xC0), (3, 0xE0), (4, 0xF0)):
        rows = np.flatnonzero(width == size)
        at, value = ends[rows], code[rows]
        out[at] = lead | (value >> (6 * (size - 1)))
        for tail in range(1, size):
            out[at + tail] = 0x80 | ((value >> (6 * (size - 1 - tail))) & 0x3F)
    return Names(out, ends[offsets])


def units_from_wtf8(name: bytes) -> UInt16s | None:
    """The UTF-16 units of a name, or None for bytes that are no name here."""
    try:
        raw = name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass")
    except UnicodeError:
        return None
    return np.frombuffer(raw, "<u2").astype(np.uint16, copy=False)


def default_upcase() -> UInt16s:
    """A table for volumes whose own $UpCase is lost: Unicode's simple upper case within 16 bits."""
    table = np.arange(0x10000, dtype=np.uint16)
    for code in range(0x10000):
        upper = chr(code).upper()
        if len(upper) == 1 and ord(upper) < 0x10000:
            table[code] = ord(upper)
    return table


def fold_hashes(units: UInt16s, offsets: Int64s, upcase: UInt16s) -> NDArray[np.uint64]:
    """A 64-bit hash of each name in upper case; equal names have equal hashes, other names seldom do."""
    counts = np.diff(offsets)
    hashes = counts.astype(np.uint64)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return hashes
    place = np.arange(len(units), dtype=np.int64) - np.repeat(offsets[:-1], counts)
    powers = np.cumprod(np.full(int(counts.max()) + 1, 0x9E3779B97F4A7C15, np.uint64))
    terms = (upcase[units].astype(np.uint64) + np.uint64(1)) * powers[place]
    hashes[filled] += np.add.reduceat(terms, offsets[:-1][filled])
    return hashes


def unusable(units: UInt16s, offsets: Int64s) -> NDArray[np.bool_]:
    """Which names would lead elsewhere: ".", "..", those with a slash or a NUL, and those of no length."""
    counts = np.diff(offsets)
    bad: NDArray[np.bool_] = counts == 0
    places = np.flatnonzero((units == 0) | (units == ord("/")))
    if len(places):
        bad[np.searchsorted(offsets, places, side="right") - 1] = True
    short = np.flatnonzero((counts == 1) | (counts == 2))
    first, last = units[offsets[short]], units[offsets[short + 1] - 1]
    bad[short[(first == ord(".")) & (last == ord("."))]] = True
    return bad
