"""Columns that batches of names and times travel in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAT", "Names", "TimeColumn", "gather_ranges"]

Int64s = NDArray[np.int64]

#: The value of an int64 time that is null, as numpy's NaT.
NAT: Final = -(1 << 63)

_NS = 1_000_000_000


def gather_ranges(buffer: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> NDArray[np.uint8]:
    """The bytes of many ranges of a buffer, one after the other, as one uint8 array, without a loop."""
    total = int(lengths.sum())
    if not total:
        return np.empty(0, np.uint8)
    begins = np.cumsum(lengths) - lengths
    index = np.arange(total, dtype=np.int64)
    index += np.repeat(starts - begins, lengths)
    return buffer[index]


@dataclass(frozen=True, slots=True)
class Names:
    """n byte strings in one buffer, as Arrow's large_binary lays them out.

    Attributes:
        buffer: uint8 (total,).
        offsets: int64 (n + 1,), string i is `buffer[offsets[i]:offsets[i + 1]]`.
    """

    buffer: NDArray[np.uint8]
    offsets: Int64s

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Names:
        """From byte strings."""
        items = list(values)
        offsets = np.zeros(len(items) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, items), np.int64, len(items)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(items), np.uint8), offsets)

    @classmethod
    def gathered(cls, buffer: NDArray[np.uint8], starts: Int64s, lengths: Int64s) -> Names:
        """From ranges of a larger buffer, which must lie inside it."""
        offsets = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(gather_ranges(buffer, starts, lengths), offsets)

    @classmethod
    def concat(cls, parts: Iterable[Names]) -> Names:
        """One after the other."""
        items = list(parts)
        if len(items) == 1:
            return items[0]
        lengths = [np.diff(part.offsets) for part in items]
        offsets = np.zeros(sum(map(len, lengths)) + 1, np.int64)
        if lengths:
            np.cumsum(np.concatenate(lengths), out=offsets[1:])
        trimmed = [part.buffer[part.offsets[0] : part.offsets[-1]] for part in items]
        return cls(np.concatenate(trimmed) if trimmed else np.empty(0, np.uint8), offsets)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Names:
        """A selection, by numbers or mask."""
        starts, lengths = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        return Names.gathered(self.buffer, starts, lengths)

    def tolist(self) -> list[bytes]:
        """As Python byte strings."""
        data, ends = self.buffer.tobytes(), self.offsets.tolist()
        return [data[a:b] for a, b in pairwise(ends)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> bytes:
        return self.buffer[int(self.offsets[i]) : int(self.offsets[i + 1])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.tolist())


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """n points in time.

    Attributes:
        ns: int64 (n,), nanoseconds since 1970 UTC; `NAT` where there is none or int64 cannot hold it.
        odd: row → (seconds since 1970, nanoseconds), for the rows that are NAT though the disk has a time.
    """

    ns: Int64s
    odd: Mapping[int, tuple[int, int]] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def null(cls, n: int) -> TimeColumn:
        """No time in any row."""
        return cls(np.full(n, NAT, np.int64))

    @classmethod
    def of(cls, seconds: Int64s, nanoseconds: Int64s, known: NDArray[np.bool_] | None = None) -> TimeColumn:
        """From seconds since 1970 and nanoseconds of the second (0 to 999,999,999), null where not `known`."""
        fits = (seconds > -9_223_372_036) & (seconds < 9_223_372_036)
        good = fits if known is None else fits & known
        ns = np.where(good, seconds, 0) * _NS + np.where(good, nanoseconds, 0)
        ns[~good] = NAT
        out = ~fits if known is None else ~fits & known
        odd = {int(i): (int(seconds[i]), int(nanoseconds[i])) for i in np.flatnonzero(out)}
        return cls(ns, odd or MappingProxyType({}))

    @classmethod
    def concat(cls, parts: Iterable[TimeColumn]) -> TimeColumn:
        """One after the other."""
        items = list(parts)
        odd: dict[int, tuple[int, int]] = {}
        base = 0
        for part in items:
            odd.update((base + row, value) for row, value in part.odd.items())
            base += len(part.ns)
        return cls(np.concatenate([part.ns for part in items]) if items else np.empty(0, np.int64), odd)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> TimeColumn:
        """A selection, by numbers or mask."""
        ns = self.ns[rows]
        if not self.odd:
            return TimeColumn(ns)
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, np.int64)
        kept = {i: self.odd[int(row)] for i, row in enumerate(numbers.tolist()) if int(row) in self.odd}
        return TimeColumn(ns, kept)

    def exact(self, i: int) -> tuple[int, int] | None:
        """(seconds since 1970, nanoseconds) of row i, or None where there is no time."""
        if i in self.odd:
            return self.odd[i]
        value = int(self.ns[i])
        return None if value == NAT else divmod(value, _NS)

    def __len__(self) -> int:
        return len(self.ns)
