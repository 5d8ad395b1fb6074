"""Names as UTF-16 units, as the disk has them: decoded, upper-cased and compared for many at once."""

from __future__ import annotations

import codecs
import functools
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import UsageError
from pseudomount.filesystem import Names

__all__ = ["CodePage", "UnitNames", "take_ranges", "unicode_upcase", "units_of"]

Int64s = NDArray[np.int64]
Units = NDArray[np.uint16]

#: Another one in each process: nobody can forge a directory of names that all have the same hash.
_FACTOR = np.uint64(int.from_bytes(os.urandom(8), "little") | 1)


def take_ranges(values: Units, starts: Int64s, lengths: Int64s, gap: int = 0) -> Units:
    """Ranges of an array one after the other, each followed by `gap` zeros."""
    index = np.arange(int(lengths.sum()), dtype=np.int64)
    source = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    source += index
    if not gap:
        flat: Units = values[source]
        return flat
    result = np.zeros(len(index) + gap * len(lengths), np.uint16)
    result[index + np.repeat(np.arange(len(lengths)) * gap, lengths)] = values[source]
    return result


def units_of(name: bytes) -> Units | None:
    """A name in WTF-8 as UTF-16 units, or None where it cannot be one."""
    try:
        return np.frombuffer(name.decode("utf-8", "surrogatepass").encode("utf-16-le", "surrogatepass"), "<u2")
    except UnicodeError:
        return None


@dataclass(frozen=True, slots=True)
class UnitNames:
    """n names without U+0000, as ranges of one pool.

    Attributes:
        pool: uint16 (any,).
        starts, lengths: int64 (n,), units.
    """

    pool: Units
    starts: Int64s
    lengths: Int64s

    def names(self) -> Names:
        """In WTF-8: UTF-8 in which an unpaired surrogate is encoded as itself."""
        flat = take_ranges(self.pool, self.starts, self.lengths)
        offsets = np.zeros(len(self.lengths) + 1, np.int64)
        np.cumsum(self.lengths, out=offsets[1:])
        if not len(flat) or int(flat.max()) < 0x80:
            return Names(flat.astype(np.uint8), offsets)
        if not ((flat & 0xF800) == 0xD800).any():
            ends = np.zeros(len(flat) + 1, np.int64)
            np.cumsum(1 + (flat >= 0x80).astype(np.int64) + (flat >= 0x800), out=ends[1:])
            text = flat.astype("<u2").tobytes().decode("utf-16-le").encode()
            return Names(np.frombuffer(text, np.uint8), ends[offsets])
        # One decoding for all: with U+0000 between them two names cannot make a pair of surrogates.
        flat = take_ranges(self.pool, self.starts, self.lengths, 1)
        text = flat.astype("<u2").tobytes().decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
        data = np.frombuffer(text, np.uint8)
        zeros = np.flatnonzero(data == 0)
        offsets[1:] = zeros - np.arange(len(zeros))
        return Names(data[data != 0], offsets)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> UnitNames:
        """A selection."""
        return UnitNames(self.pool, self.starts[rows], self.lengths[rows])

    def get(self, i: int) -> Units:
        """The units of one."""
        return self.pool[int(self.starts[i]) : int(self.starts[i]) + int(self.lengths[i])]

    def holds(self, unit: int) -> NDArray[np.bool_]:
        """bool (n,): which names hold a unit."""
        at = np.flatnonzero(self.pool == unit)
        if not len(at):
            return np.zeros(len(self.starts), np.bool_)
        found: NDArray[np.bool_] = np.searchsorted(at, self.starts) < np.searchsorted(at, self.starts + self.lengths)
        return found

    def unusable(self) -> NDArray[np.bool_]:
        """bool (n,): names that a path cannot hold: empty, ".", "..", and those with a slash."""
        some = self.lengths > 0
        first, last = np.zeros((2, len(self.lengths)), np.uint16)
        first[some] = self.pool[self.starts[some]]
        last[some] = self.pool[self.starts[some] + self.lengths[some] - 1]
        bad: NDArray[np.bool_] = ~some | self.holds(0x2F) | ((self.lengths <= 2) & (first == 0x2E) & (last == 0x2E))
        return bad

    def without_slash(self, rows: NDArray[np.bool_]) -> UnitNames:
        """The same with U+2215, the division slash, for the slashes of some."""
        some = self.take(rows)
        pool = take_ranges(some.pool, some.starts, some.lengths)
        pool[pool == 0x2F] = 0x2215
        starts = self.starts.copy()
        starts[rows] = np.cumsum(some.lengths) - some.lengths + len(self.pool)
        return UnitNames(np.concatenate([self.pool, pool]), starts, self.lengths)

    def hashes(self, upcase: Units) -> NDArray[np.uint64]:
        """uint64 (n,): equal for names that are equal in upper case; others may share one by chance."""
        flat = upcase[take_ranges(self.pool, self.starts, self.lengths)].astype(np.uint64)
        begins = np.cumsum(self.lengths) - self.lengths
        within = np.arange(len(flat)) - np.repeat(begins, self.lengths)
        powers = np.full(int(self.lengths.max(initial=0)), _FACTOR, np.uint64)
        np.multiply.accumulate(powers, out=powers)
        flat = (flat + np.uint64(1)) * powers[within]
        result = np.zeros(len(self.lengths), np.uint64)
        some = np.flatnonzero(self.lengths > 0)
        if len(some):
            result[some] = np.add.reduceat(flat, begins[some])
        return result

    @classmethod
    def of(cls, names: list[Units]) -> UnitNames:
        """From single names."""
        lengths = np.fromiter(map(len, names), np.int64, len(names))
        pool = np.concatenate(names) if names else np.empty(0, np.uint16)
        return cls(pool.astype(np.uint16), np.cumsum(lengths) - lengths, lengths)


@functools.cache
def unicode_upcase() -> Units:
    """uint16 (65536,): each unit in upper case, by Unicode's simple mapping; surrogates stay.

    FAT has no table of its own; Windows compares by its Unicode table, and so does this: one unit to one unit, nothing
    that grows ("ß" stays).
    """
    table = np.arange(65536, dtype=np.uint16)
    for unit in range(65536):
        upper = chr(unit).upper()
        if len(upper) == 1 and ord(upper) < 65536:
            table[unit] = ord(upper)
    table.setflags(write=False)
    return table


class CodePage:
    """How the bytes of 8.3 names become characters.

    A byte that the code page leaves undefined becomes U+DC80 to U+DCFF, so that no two names fall together.

    Raises:
        UsageError: there is no such code page, or it is none of single or double bytes over ASCII.
    """

    def __init__(self, name: str = "cp437") -> None:
        name = f"cp{name}" if name.isdigit() else name
        try:
            codec = codecs.lookup(name)
            text_of = b"A1".decode(codec.name)
            if text_of != "A1" or codec.name.startswith(("utf", "unicode", "raw", "idna", "puny")):
                raise LookupError(name)
        except (LookupError, UnicodeError, TypeError, ValueError) as error:
            raise UsageError(f"codepage: {name!r} is no code page that is known here") from error
        self.name = codec.name
        self.upper = np.zeros(256, np.uint16)
        self.lower = np.zeros(256, np.uint16)
        self.single = True
        for byte in range(256):
            try:
                text = bytes([byte]).decode(self.name)
            except UnicodeDecodeError as error:
                self.single &= "incomplete" not in error.reason and "unexpected end" not in error.reason
                text = chr(0xDC00 + byte) if byte >= 0x80 else chr(byte)
            lower = text.lower()
            self.upper[byte] = ord(text)
            self.lower[byte] = ord(lower) if len(lower) == 1 and ord(lower) < 65536 else ord(text)

    def decode(self, raw: bytes, *, lower: bool = False) -> str:
        """One name or part of one, any code page."""
        text = raw.decode(self.name, "surrogateescape")
        return "".join(c.lower() if len(c.lower()) == 1 else c for c in text) if lower else text
