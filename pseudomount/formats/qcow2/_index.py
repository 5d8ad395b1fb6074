"""The map of a qcow2 image: L1 at opening, L2 as needed.

Nothing here is larger than what was asked for: absent L2 tables are runs, present ones are loaded in slices, and
clusters are decoded together and joined where disk and file go on together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.device.ranges import Pieces, cut
from pseudomount.errors import CorruptionError, DamageError, OutOfRangeError, PseudomountError, TruncatedError
from pseudomount.extents import RAW, Codec, ExtentIndex, Kind, Resolved
from pseudomount.formats.qcow2._layout import OFFSET_MASK, Geometry
from pseudomount.formats.qcow2._slices import Slices
from pseudomount.formats.qcow2._tables import Fault, decode, subclusters
from pseudomount.storage import Store

__all__ = ["Qcow2Index"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: Clusters looked at on both sides of a byte before its whole slice is.
_NEAR = 32
#: Of an L2 entry: it is compressed, or zeros.
_NOT_PLAIN = 1 << 62 | 1
#: Codecs of compressed clusters. qcow2's deflate has a window of 4 KiB, but qemu takes what reaches back further.
_CODECS = {"zlib": Codec("deflate"), "zstd": Codec("zstd")}

_MESSAGES = {
    Fault.UNALIGNED: "is stored at no multiple of the cluster size",
    Fault.ZERO_IN_V2: "is marked as zeros, which version 2 does not know",
    Fault.COMPRESSED_EXTERNAL: "is compressed, though data lie in an external file",
    Fault.BITMAP: "has a subcluster that is allocated and zero, or allocated in nothing",
    Fault.DISPLACED: "lies elsewhere in the external data file than on the disk",
    Fault.BEYOND: "is stored beyond the end of the file",
    Fault.TABLE_UNALIGNED: "has an L2 table at no multiple of the cluster size",
    Fault.TABLE_BEYOND: "has its L2 entry beyond the end of the file",
    Fault.L1_BEYOND: "has its L1 entry beyond the end of the file",
}
_MISSING = {Fault.BEYOND, Fault.TABLE_BEYOND, Fault.L1_BEYOND}


@dataclass(frozen=True, slots=True)
class _Atoms:
    """Clusters, subclusters or whole runs of what has no L2 table, in the order of the pieces asked for.

    All (k,): the range, where on the disk it begins and how long it is, `Kind`, where it is stored, bytes stored of a
    compressed one (else 0), how far into the cluster it begins, `Fault`.
    """

    row: Int64s
    offset: Int64s
    length: Int64s
    kind: NDArray[np.uint8]
    host: Int64s
    stored: Int64s
    skip: Int64s
    fault: Int64s

    def take(self, which: NDArray[np.bool_] | Int64s) -> _Atoms:
        return _Atoms(
            self.row[which],
            self.offset[which],
            self.length[which],
            self.kind[which],
            self.host[which],
            self.stored[which],
            self.skip[which],
            self.fault[which],
        )


class Qcow2Index(ExtentIndex):
    """The extents of one image, without what its backing file adds: that shows through its holes.

    Args:
        store: where the image lies.
        name: the image's name there: object 0.
        file_size: bytes of the image.
        size: bytes of the disk.
        geometry: of the image.
        l1: uint64, the L1 table as far as the disk needs it; shorter where the file ends.
        compression: "zlib" or "zstd".
        data: name and size of the external data file, object 1, or None.
        cache_bytes: bytes of L2 tables that are kept.

    A cluster that contradicts the specification, or lies beyond the end of its file, is the error of the ranges that
    need it. The last cluster of a file may break off: the rest is zeros, as qemu leaves and reads it.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        file_size: int,
        size: int,
        geometry: Geometry,
        l1: UInt64s,
        *,
        compression: str = "zlib",
        data: tuple[str, int] | None = None,
        cache_bytes: int = 32 << 20,
    ) -> None:
        self._size = size
        self._geometry = geometry
        self._file_size = file_size
        self._name = name
        self._objects = (name,) if data is None else (name, data[0])
        self._data_size = file_size if data is None else data[1]
        self._codecs = (RAW, _CODECS[compression])
        self._slices = Slices(store, name, file_size, geometry.cluster_bits, cache_bytes)
        self._starts, self._tables = self._cells(l1)
        there = self._tables > 0
        self._before: Int64s = np.cumsum(there) - there  # L2 tables before each cell

    def _cells(self, l1: UInt64s) -> tuple[Int64s, Int64s]:
        """Where cells begin on the disk, and the L2 table of each: its offset, 0 for none, else minus a `Fault`.

        A table is a cell, and so is a run of none: the map of a vast and empty disk is short.
        """
        needed = self._geometry.tables(self._size)
        tables = (l1[:needed] & OFFSET_MASK).view(np.int64)
        tables[(tables & (self._geometry.cluster_size - 1)) != 0] = -Fault.TABLE_UNALIGNED
        tables[tables >= self._file_size] = -Fault.TABLE_BEYOND
        if len(tables) < needed:
            tables = np.append(tables, np.int64(-Fault.L1_BEYOND))
        begins = np.ones(len(tables), np.bool_)
        begins[1:] = (tables[1:] > 0) | (tables[1:] != tables[:-1])
        first = np.flatnonzero(begins)
        return first << self._geometry.table_bits, tables[first]

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._size

    @property
    def codecs(self) -> Sequence[Codec]:
        """Raw, and how clusters are compressed."""
        return self._codecs

    def object_names(self, numbers: NDArray[np.int64]) -> list[str]:
        """The image, and its external data file."""
        return [self._objects[number] for number in numbers.tolist()]

    def resolve(self, offsets: ArrayLike, lengths: ArrayLike) -> Resolved:
        """The pieces of many ranges; see `ExtentIndex.resolve`."""
        offs, lens = _checked(offsets, lengths, self._size)
        asked = np.flatnonzero(lens > 0)
        if not len(asked):
            return self._resolved(_no_atoms(), {})
        cells = cut(offs[asked], lens[asked], self._starts)
        atoms, failures = self._atoms(cells)
        atoms = replace(atoms, row=asked[atoms.row])
        faulty = atoms.fault != 0
        errors: dict[int, PseudomountError] = {}
        if faulty.any():
            bad = np.flatnonzero(faulty)
            rows, first = np.unique(atoms.row[bad], return_index=True)
            # A loop once a range that fails.
            for row, atom in zip(rows.tolist(), bad[first].tolist(), strict=True):
                errors[row] = self._error(int(atoms.fault[atom]), int(atoms.offset[atom]), failures)
            atoms = atoms.take(~np.isin(atoms.row, rows))
        return self._resolved(self._ended(_joined(atoms)), errors)

    def around(self, offset: int) -> Resolved:
        """The piece that holds a byte, within its slice of the L2 table; see `ExtentIndex.around`."""
        _checked([offset], [1], self._size)
        cell = int(np.searchsorted(self._starts, offset, side="right")) - 1
        begin = int(self._starts[cell])
        end = int(self._starts[cell + 1]) if cell + 1 < len(self._starts) else self._size
        if self._tables[cell] <= 0:
            return self.resolve([begin], [end - begin])
        run = self._run(offset, int(self._tables[cell]))
        if run is not None:
            return run
        geometry = self._geometry
        cluster = geometry.cluster_bits
        slice_bits = self._slices.bits - geometry.entry_bits + cluster
        begin = max(begin, offset >> slice_bits << slice_bits)
        end = min(end, begin + (1 << slice_bits))
        near = max(begin, ((offset >> cluster) - _NEAR) << cluster), min(end, ((offset >> cluster) + _NEAR) << cluster)
        for low, high in (near, (begin, end)):
            pieces = self.resolve([low], [high - low])
            if pieces.errors:
                break
            i = int(np.searchsorted(pieces.offset, offset, side="right")) - 1
            first, last = int(pieces.offset[i]), int(pieces.offset[i] + pieces.length[i])
            if (first > low or low == begin) and (last < high or high == end):
                return pieces.take(np.array([i], np.int64))
        # Something near by is wrong: no more than the cluster itself.
        low = offset >> cluster << cluster
        pieces = self.resolve([low], [min(self._size - low, geometry.cluster_size)])
        i = int(np.searchsorted(pieces.offset, offset, side="right")) - 1
        return pieces if pieces.errors else pieces.take(np.array([i], np.int64))

    def _run(self, offset: int, table: int) -> Resolved | None:
        """The clusters around a byte that lie in the file as on the disk, if the byte's is stored plainly; else None.

        What `around` would find in a fifth of the time: readers of small ranges ask for little else.
        """
        geometry, bits = self._geometry, self._geometry.cluster_bits
        if geometry.extended or geometry.external:
            return None
        cluster = offset >> bits
        place = table + ((cluster & ((1 << (bits - 3)) - 1)) << 3)
        entries = self._slices.one(place >> self._slices.bits) if place < self._file_size else None
        at = (place & ((1 << self._slices.bits) - 1)) >> 3
        if not isinstance(entries, np.ndarray) or at >= len(entries):
            return None
        word = int(entries[at])
        host = word & int(OFFSET_MASK)
        if word & _NOT_PLAIN or not host or host & (geometry.cluster_size - 1):
            return None
        for low, high in ((max(at - _NEAR, 0), min(at + _NEAR, len(entries))), (0, len(entries))):
            # Neighbours on the disk that are neighbours in the file, all their flags the same.
            along = np.arange(low - at, high - at) << bits
            other = np.flatnonzero(entries[low:high].view(np.int64) - along != entries[at : at + 1].view(np.int64))
            after = int(np.searchsorted(other, at - low))
            first = low + int(other[after - 1]) + 1 if after else low
            last = low + int(other[after]) if after < len(other) else high
            if (first > low or not low) and (last < high or high == len(entries)):
                break
        begin = (cluster - at + first) << bits
        end = min((cluster - at + last) << bits, self._size)
        start = host - ((at - first) << bits)
        if start + end - begin > self._data_size:
            return None
        zero, length = np.zeros(1, np.int64), np.array([end - begin], np.int64)
        return Resolved(
            zero,
            np.array([begin], np.int64),
            length,
            np.full(1, Kind.DATA, np.uint8),
            zero,
            np.array([start], np.int64),
            length,
            zero,
            zero,
            length,
        )

    def reach(self, offset: int, pieces: int) -> int:
        """As far as so many pieces suffice, by counting L2 tables; see `ExtentIndex.reach`."""
        if offset >= self._size:
            return 0
        geometry = self._geometry
        finest = geometry.cluster_bits - (5 if geometry.extended else 0)
        tables = (pieces << finest) >> geometry.table_bits
        cell = int(np.searchsorted(self._starts, offset, side="right")) - 1
        last = int(np.searchsorted(self._before, self._before[cell] + tables, side="right")) - 1
        if last == len(self._starts) - 1 and (tables or self._tables[last] <= 0):
            return self._size - offset
        return min(self._size - offset, max(int(self._starts[last]) - offset, pieces << finest))

    def close(self) -> None:
        """Forgets the L2 tables."""
        self._slices.clear()

    # -- inside --------------------------------------------------------------------------------------------------

    def _atoms(self, cells: Pieces) -> tuple[_Atoms, list[PseudomountError]]:
        """All clusters of pieces, each of which lies in one cell; and the errors met when loading L2 tables."""
        geometry = self._geometry
        bits = geometry.cluster_bits
        table = self._tables[cells.cells]
        there = table > 0
        first = cells.offsets >> bits
        count = np.where(there, ((cells.offsets + cells.lengths - 1) >> bits) - first + 1, 1)
        piece = np.repeat(np.arange(len(cells), dtype=np.int64), count)
        nth = np.arange(len(piece), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
        cluster = first[piece] + nth
        absent = ~there[piece]
        begin = cells.offsets[piece]
        end = begin + cells.lengths[piece]
        kind = np.full(len(piece), Kind.HOLE, np.uint8)
        host, stored = np.zeros(len(piece), np.int64), np.zeros(len(piece), np.int64)
        fault = np.where(absent, -table[piece], 0)
        atoms = np.flatnonzero(~absent)
        if not len(atoms):
            return _Atoms(cells.rows[piece], begin, end - begin, kind, host, stored, host, fault), []
        start = cluster << bits
        begin[atoms] = np.maximum(begin[atoms], start[atoms])
        end[atoms] = np.minimum(end[atoms], start[atoms] + geometry.cluster_size)
        per_table = (1 << (bits - geometry.entry_bits)) - 1
        places = table[piece[atoms]] + ((cluster[atoms] & per_table) << geometry.entry_bits)
        words, bitmaps, unread, failures = self._words(places)
        found = decode(words, bitmaps, start[atoms], geometry)
        data, raw = found.kind == Kind.DATA, found.stored == 0
        beyond = data & (found.host >= np.where(raw, self._data_size, self._file_size))
        wrong = np.where((found.fault == 0) & beyond, np.int64(Fault.BEYOND), found.fault)
        kind[atoms], host[atoms], stored[atoms] = found.kind, found.host, found.stored
        fault[atoms] = np.where(unread != 0, unread, wrong)
        within = np.zeros(len(piece), np.int64)
        within[atoms] = begin[atoms] - start[atoms]
        whole = _Atoms(cells.rows[piece], begin, end - begin, kind, host, stored, within, fault)
        if bitmaps is not None and found.mixed.any():
            maps = np.zeros(len(piece), np.uint64)
            maps[atoms] = np.where(found.mixed & (fault[atoms] == 0), bitmaps, np.uint64(0))
            whole = self._parted(whole, maps)
        return replace(whole, host=np.where(whole.stored == 0, whole.host + whole.skip, whole.host)), failures

    def _parted(self, atoms: _Atoms, bitmaps: UInt64s) -> _Atoms:
        """Clusters whose subclusters differ in parts; of all the others the bitmap given is 0, and they stay whole."""
        bits = self._geometry.cluster_bits - 5
        mixed = bitmaps != 0
        first: Int64s = atoms.skip >> bits
        count: Int64s = np.where(mixed, ((atoms.skip + atoms.length - 1) >> bits) - first + 1, 1)
        row = np.repeat(np.arange(len(count), dtype=np.int64), count)
        nth = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count) + first[row]
        parts = atoms.take(row)
        mixed = mixed[row]
        begin: Int64s = np.where(mixed, np.maximum(parts.skip, nth << bits), parts.skip)
        end: Int64s = np.where(
            mixed, np.minimum(parts.skip + parts.length, (nth + 1) << bits), parts.skip + parts.length
        )
        return replace(
            parts,
            offset=parts.offset + (begin - parts.skip),
            length=end - begin,
            kind=np.where(mixed, subclusters(bitmaps[row], nth & 31), parts.kind),
            skip=begin,
        )

    def _words(self, places: Int64s) -> tuple[UInt64s, UInt64s | None, Int64s, list[PseudomountError]]:
        """L2 entries by their places in the file: words, bitmaps, faults, and the errors that faults number."""
        bits = self._slices.bits
        extended = self._geometry.extended
        words = np.zeros(len(places), np.uint64)
        bitmaps = np.zeros(len(places), np.uint64) if extended else None
        fault = np.zeros(len(places), np.int64)
        failures: list[PseudomountError] = []
        number = places >> bits
        outside = places >= self._file_size  # of a table that breaks off
        fault[outside] = Fault.TABLE_BEYOND
        # Neighbours mostly lie in one slice: runs of them are looked up, not each.
        cuts = np.flatnonzero(np.diff(number, prepend=-1))
        bounds = np.append(cuts, len(places))
        numbers, which = np.unique(number[cuts], return_inverse=True)
        order = np.argsort(which, kind="stable")
        begins = np.searchsorted(which[order], np.arange(len(numbers) + 1))
        inside = numbers << bits < self._file_size
        slot = {number: i for i, number in enumerate(numbers.tolist())}
        for wave in self._slices.waves(numbers[inside]):
            for loaded, entries in wave.items():  # a loop once a slice
                mine = slot[loaded]
                runs = order[begins[mine] : begins[mine + 1]]
                if isinstance(entries, PseudomountError):
                    failures.append(entries)
                for run in runs.tolist():
                    here = slice(int(bounds[run]), int(bounds[run + 1]))
                    if isinstance(entries, PseudomountError):
                        fault[here] = Fault.LOADING + len(failures) - 1
                        continue
                    at = (places[here] & ((1 << bits) - 1)) >> 3
                    if len(entries) << 3 < 1 << bits:
                        short = at + extended >= len(entries)
                        fault[here] = np.where(short, np.int64(Fault.TABLE_BEYOND), 0)
                        at = np.where(short, 0, at)
                        if len(entries) <= extended:
                            continue
                    words[here] = entries[at]
                    if bitmaps is not None:
                        bitmaps[here] = entries[at + 1]
        return words, bitmaps, fault, failures

    def _ended(self, atoms: _Atoms) -> _Atoms:
        """What is stored across the end of the file, parted there: behind it are zeros."""
        raw = (atoms.kind == Kind.DATA) & (atoms.stored == 0)
        across = raw & (atoms.host + atoms.length > self._data_size)
        if not across.any():
            return atoms
        rows = np.repeat(np.arange(len(across), dtype=np.int64), np.where(across, 2, 1))
        second = np.zeros(len(rows), np.bool_)
        second[1:] = rows[1:] == rows[:-1]
        first = np.zeros(len(rows), np.bool_)
        first[:-1] = second[1:]
        parts = atoms.take(rows)
        have = np.clip(self._data_size - parts.host, 0, parts.length)
        parts.offset[second] += have[second]
        parts.length[second] -= have[second]
        parts.length[first] = have[first]
        parts.kind[second] = Kind.ZERO
        return parts.take(parts.length > 0)

    def _resolved(self, atoms: _Atoms, errors: dict[int, PseudomountError]) -> Resolved:
        data = atoms.kind == Kind.DATA
        packed = data & (atoms.stored > 0)
        raw = data & ~packed
        return Resolved(
            atoms.row,
            atoms.offset,
            atoms.length,
            atoms.kind,
            np.where(raw, len(self._objects) - 1, 0),
            np.where(data, atoms.host, 0),
            np.where(packed, atoms.stored, np.where(data, atoms.length, 0)),
            packed.astype(np.int64),
            np.where(packed, atoms.skip, 0),
            np.where(packed, self._geometry.cluster_size, np.where(data, atoms.length, 0)),
            None,
            errors,
        )

    def _error(self, fault: int, offset: int, failures: list[PseudomountError]) -> PseudomountError:
        if fault >= Fault.LOADING:
            return failures[fault - Fault.LOADING]
        kind: type[DamageError] = TruncatedError if fault in _MISSING else CorruptionError
        cluster = offset >> self._geometry.cluster_bits << self._geometry.cluster_bits
        return kind(f"{self._name}: the cluster at {cluster} {_MESSAGES[Fault(fault)]}", structure="L2 table")


def _checked(offsets: ArrayLike, lengths: ArrayLike, size: int) -> tuple[Int64s, Int64s]:
    offs, lens = np.asarray(offsets, np.int64), np.asarray(lengths, np.int64)
    bad = (offs < 0) | (lens < 0) | (lens > size) | (offs > size - np.clip(lens, 0, size))
    if bad.any():
        i = int(np.argmax(bad))
        raise OutOfRangeError(f"{lens[i]} bytes at {offs[i]} are not inside the disk's {size} bytes")
    return offs, lens


def _no_atoms() -> _Atoms:
    none = np.empty(0, np.int64)
    return _Atoms(none, none, none, np.empty(0, np.uint8), none, none, none, none)


def _joined(atoms: _Atoms) -> _Atoms:
    """Neighbours of a range made one where the file goes on as the disk does, or there is nothing stored."""
    if len(atoms.row) < 2:
        return atoms
    same = (atoms.row[1:] == atoms.row[:-1]) & (atoms.kind[1:] == atoms.kind[:-1])
    onward = (
        (atoms.host[1:] == atoms.host[:-1] + atoms.length[:-1]) & (atoms.stored[1:] == 0) & (atoms.stored[:-1] == 0)
    )
    same &= onward | (atoms.kind[1:] != Kind.DATA)
    heads = np.concatenate(([0], np.flatnonzero(~same) + 1))
    return replace(atoms.take(heads), length=np.add.reduceat(atoms.length, heads))
