"""Names among the entries of directories that were read whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount_ntfs._index import Entries
from pseudomount_ntfs._names import fold_hashes

__all__ = ["match_names"]

Int64s = NDArray[np.int64]
UInt16s = NDArray[np.uint16]


def match_names(entries: Entries, directory: Int64s, names: list[UInt16s], upcase: UInt16s) -> Int64s:
    """The entry that each name finds in its directory, -1 for none: an exact match first, then by upper case.

    Args:
        entries: of directories.
        directory: int64 (n,), the directory that each name is looked for in, as `entries.query` counts.
        names: n names, UTF-16 units.
        upcase: uint16 (65536,), the volume's table.
    """
    hits = np.full(len(names), -1, np.int64)
    if not len(entries) or not names:
        return hits
    offsets = np.zeros(len(names) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), out=offsets[1:])
    units = np.concatenate(names)
    exact = _Candidates(entries, directory, units, offsets, np.arange(0x10000, dtype=np.uint16))
    folded = _Candidates(entries, directory, units, offsets, upcase)
    # Names that differ in case alone are compared once, however many are asked for.
    known: dict[tuple[int, bytes], int] = {}
    for i, name in enumerate(names):
        hits[i] = next((entry for entry in exact.of(i) if np.array_equal(entries.name(entry), name)), -1)
        if hits[i] >= 0:
            continue
        key = int(directory[i]), upcase[name].tobytes()
        if key not in known:
            same = [entry for entry in folded.of(i) if upcase[entries.name(entry)].tobytes() == key[1]]
            known[key] = min(same, key=lambda entry: entries.name(entry).tolist(), default=-1)
        hits[i] = known[key]
    return hits


class _Candidates:
    """The entries that may be the ones asked for: those of the same directory and hash.

    `units` and `offsets` are the names asked for; `table` is what is applied to each unit before it is hashed.
    """

    def __init__(self, entries: Entries, directory: Int64s, units: UInt16s, offsets: Int64s, table: UInt16s) -> None:
        hashes, wanted = fold_hashes(entries.units, entries.offsets, table), fold_hashes(units, offsets, table)
        _, rank = np.unique(np.concatenate((hashes, wanted)), return_inverse=True)
        base = np.int64(len(rank))
        keys = entries.query * base + rank[: len(hashes)]
        asked = directory * base + rank[len(hashes) :]
        self._order = np.argsort(keys, kind="stable")
        self._low = np.searchsorted(keys[self._order], asked, side="left")
        self._high = np.searchsorted(keys[self._order], asked, side="right")

    def of(self, i: int) -> list[int]:
        """The entries for name i."""
        found: list[int] = self._order[self._low[i] : self._high[i]].tolist()
        return found
