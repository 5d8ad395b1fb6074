"""The kernels over MFT records: fix-ups on a whole matrix, and attributes stepped in lockstep over all records.

Each takes a table of records and gives columns, so the same code serves one file, a directory and a whole MFT.
Sources: [LN] Concept: fixup, FILE record, attribute header, $ATTRIBUTE_LIST.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from pseudomount_ntfs._layout import (
    ATTRIBUTE,
    ATTRIBUTE_LIST_ENTRY,
    ATTRIBUTE_LIST_ENTRY_SIZE,
    NONRESIDENT,
    RECORD,
    RECORD_MASK,
    RESIDENT,
    STRIDE,
    AttributeType,
    gather,
)

__all__ = ["Attributes", "apply_fixups", "first_of", "list_references", "parse_attributes", "record_headers"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

_HEADER_END = 40  # the attributes of a record begin after its header, 42 bytes in NTFS 1.2 and 48 since 3.1
_END = np.uint32(AttributeType.END)


def apply_fixups(matrix: UInt8s) -> Bools:
    """Puts back, in place, the last two bytes of each 512 of n protected structures.

    Args:
        matrix: uint8 (n, size), C-contiguous; size is a multiple of 512.

    Returns:
        bool (n,): whose update sequence fits. A row that does not fit (a torn write) is left as it was.
    """
    strides = matrix.shape[1] // STRIDE
    words = matrix.view("<u2")
    offset, count = words[:, 2].astype(np.int64), words[:, 3]
    fits: Bools = (
        (count == strides + 1) & (offset % 2 == 0) & (offset >= 8) & (offset + 2 * (strides + 1) <= STRIDE - 2)
    )
    rows = np.flatnonzero(fits)
    array = offset[rows] >> 1
    number = words[rows, array]
    for stride in range(strides):
        fits[rows] &= words[rows, stride * 256 + 255] == number
    keep = fits[rows]
    rows, array = rows[keep], array[keep]
    for stride in range(strides):
        words[rows, stride * 256 + 255] = words[rows, array + 1 + stride]
    return fits


def record_headers(matrix: UInt8s) -> NDArray[np.void]:
    """The headers (n,) of a matrix of records."""
    return np.ascontiguousarray(matrix[:, : RECORD.itemsize]).view(RECORD)[:, 0]


@dataclass(frozen=True, slots=True)
class Attributes:
    """n attributes of many records. All int64 (n,) but the two masks; places are offsets in the records' buffer.

    Attributes:
        row: which record, or once extension records are merged, which file.
        at, end: where it begins and ends.
        type, flags: as on the disk.
        resident: the value lies in the record: `value_at`, `value_length`.
        name_at, name_length: the name, in UTF-16 units.
        lowest, highest: clusters of the stream that a non-resident attribute's runs are for; highest is inclusive.
        pairs_at: where its runs begin.
        unit: clusters of a compression unit as a power of two.
        allocated, size, initialized: bytes; resident ones have the value's length in the two last.
        stored: bytes that a compressed or sparse stream takes; `allocated` for others.
    """

    row: Int64s
    at: Int64s
    end: Int64s
    type: Int64s
    flags: Int64s
    resident: Bools
    name_at: Int64s
    name_length: Int64s
    value_at: Int64s
    value_length: Int64s
    lowest: Int64s
    highest: Int64s
    pairs_at: Int64s
    unit: Int64s
    allocated: Int64s
    size: Int64s
    initialized: Int64s
    stored: Int64s

    def __len__(self) -> int:
        return len(self.row)

    def take(self, picks: NDArray[np.integer] | Bools) -> Attributes:
        """A selection."""
        return Attributes(*(getattr(self, field.name)[picks] for field in fields(self)))

    def moved(self, rows: Int64s, by: int) -> Attributes:
        """The same in a longer buffer, `by` bytes further on, and record i renamed to `rows[i]`."""
        places = {"at", "end", "name_at", "value_at", "pairs_at"}
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: column + by if name in places else column for name, column in columns.items()}
        return Attributes(**{**moved, "row": rows[self.row]})

    @staticmethod
    def concat(parts: Iterable[Attributes]) -> Attributes:
        """One after the other."""
        items = list(parts)
        return Attributes(*(np.concatenate([getattr(item, f.name) for item in items]) for f in fields(Attributes)))


def parse_attributes(matrix: UInt8s, rows: Int64s, cluster_size: int) -> tuple[Attributes, dict[int, str]]:
    """The attributes of some records of a matrix.

    Args:
        matrix: uint8 (n, size), fixed up; size is a multiple of 8.
        rows: int64 (k,), which records.
        cluster_size: bytes; bounds what a stream's last cluster may be.

    Returns:
        The attributes, in the order of step, and row → what was wrong with it. Attributes that make sense are there
        also of a row that is wrong in another place.
    """
    size = matrix.shape[1]
    flat = matrix.reshape(-1)
    words = flat.view("<u4")
    header = record_headers(matrix[rows]) if len(rows) else np.empty(0, RECORD)
    wrong: dict[int, str] = {}
    offset, used = header["attributes"].astype(np.int64), header["used"].astype(np.int64)
    sound = (used <= size) & (offset >= _HEADER_END) & (offset % 8 == 0) & (offset + 4 <= used)
    _note(wrong, rows[~sound], "a record whose length or first attribute lies outside it")
    row, offset, used = rows[sound], offset[sound], used[sound]
    found: list[tuple[Int64s, Int64s, Int64s]] = []
    while len(row):
        at = row * size + offset
        kind = words[at >> 2]
        open_ = kind != _END
        room = offset + RESIDENT.itemsize <= used
        length = words[np.minimum((at >> 2) + 1, len(words) - 1)].astype(np.int64)
        fits = room & (length >= RESIDENT.itemsize) & (length % 8 == 0) & (offset + length <= used) & (kind != 0)
        live = open_ & fits
        if not live.all():
            _note(wrong, row[open_ & ~fits], "an attribute that does not fit into its record")
            row, offset, used, at, length = row[live], offset[live], used[live], at[live], length[live]
        found.append((row, at, length))
        offset = offset + length
        ended = offset + 4 > used
        if ended.any():
            _note(wrong, row[ended], "a record without an end mark")
            row, offset, used = row[~ended], offset[~ended], used[~ended]
    if not found:
        found.append((np.empty(0, np.int64),) * 3)
    owner, place, lengths = (np.concatenate(column) for column in zip(*found, strict=True))
    attributes, good = _decode(flat, owner, place, lengths, cluster_size)
    if good.all():
        return attributes, wrong
    _note(wrong, owner[~good], "an attribute header that makes no sense")
    return attributes.take(good), wrong


def _note(wrong: dict[int, str], rows: Int64s, what: str) -> None:
    for row in rows.tolist():
        wrong.setdefault(row, what)


def _decode(flat: UInt8s, row: Int64s, at: Int64s, length: Int64s, cluster_size: int) -> tuple[Attributes, Bools]:
    """Headers of attributes that are known to lie inside their records, and which of them make sense."""
    head = gather(flat, at, ATTRIBUTE)
    name_offset, name_length = head["name_offset"].astype(np.int64), head["name_length"].astype(np.int64)
    good = (name_length == 0) | (name_offset + 2 * name_length <= length)
    resident = head["nonresident"] == 0
    near = gather(flat, at, RESIDENT)
    value_offset, value_length = near["value_offset"].astype(np.int64), near["value_length"].astype(np.int64)
    value_length = np.where(resident, value_length, 0)
    good &= ~resident | (value_offset + value_length <= length)
    enough = ~resident & (length >= NONRESIDENT.itemsize)
    picks = np.flatnonzero(enough)
    far = gather(flat, at[picks], NONRESIDENT)

    def number(name: str) -> Int64s:
        column = np.zeros(len(at), np.int64)
        column[picks] = far[name]
        return column

    lowest, highest, pairs = number("lowest"), number("highest"), number("pairs")
    allocated, data, initialized = number("allocated"), number("size"), number("initialized")
    top = (1 << 62) // cluster_size
    spans = (lowest >= 0) & (highest >= lowest - 1) & (highest < top) & (pairs >= 64) & (pairs < length)
    # Sizes mean something in the first attribute of a stream alone; elsewhere they are zero or stale.
    first = lowest == 0
    sized = (data >= 0) & (initialized >= 0) & (allocated >= 0) & (initialized <= data) & (allocated < 1 << 62)
    good &= resident | (enough & spans & (~first | sized))
    flags = head["flags"].astype(np.int64)
    packed = (flags & 0x80FF) != 0
    with_stored = enough & packed & first & (pairs >= 72) & (length >= 72)
    stored = np.where(with_stored, _int64_at(flat, at + 64, with_stored), allocated)
    return (
        Attributes(
            row=row,
            at=at,
            end=at + length,
            type=head["type"].astype(np.int64),
            flags=flags,
            resident=resident,
            name_at=at + name_offset,
            name_length=name_length,
            value_at=at + np.where(resident, value_offset, 0),
            value_length=value_length,
            lowest=lowest,
            highest=highest,
            pairs_at=at + pairs,
            unit=number("unit"),
            allocated=allocated,
            size=np.where(resident, value_length, data),
            initialized=np.where(resident, value_length, initialized),
            stored=np.clip(stored, 0, allocated),
        ),
        good,
    )


def _int64_at(flat: UInt8s, at: Int64s, where: Bools) -> Int64s:
    """The numbers at places of a buffer; 0 where not `where`. The places are multiples of 8."""
    values = np.zeros(len(at), np.int64)
    values[where] = flat.view("<i8")[at[where] >> 3]
    return values


def first_of(rows: Int64s, n: int) -> Int64s:
    """For each of n rows the position of its first appearance in `rows`, -1 where there is none."""
    first = np.full(n, -1, np.int64)
    first[rows[::-1]] = np.arange(len(rows) - 1, -1, -1, dtype=np.int64)
    return first


def list_references(flat: UInt8s, starts: Int64s, ends: Int64s) -> tuple[Int64s, UInt64s, Bools]:
    """The file references in many attribute lists, stepped in lockstep.

    Args:
        flat: uint8, holds the lists; starts, ends: int64 (n,), where each lies.

    Returns:
        int64 (m,) which list; uint64 (m,) references; bool (n,) which lists are sound to their end.
    """
    sound = np.ones(len(starts), np.bool_)
    which, at, until = np.arange(len(starts), dtype=np.int64), starts, ends
    lists, references = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    while True:
        live = at < until
        which, at, until = which[live], at[live], until[live]
        if not len(which):
            break
        room = at + ATTRIBUTE_LIST_ENTRY_SIZE <= until
        sound[which[~room]] = False
        which, at, until = which[room], at[room], until[room]
        entry = gather(flat, at, ATTRIBUTE_LIST_ENTRY)
        length = entry["length"].astype(np.int64)
        fits = (length >= ATTRIBUTE_LIST_ENTRY_SIZE) & (at + length <= until)
        sound[which[~fits]] = False
        which, at, until = which[fits], at[fits], until[fits]
        lists.append(which)
        references.append(entry["reference"][fits])
        at = at + length[fits]
    return np.concatenate(lists), np.concatenate(references), sound


def record_numbers(references: UInt64s) -> Int64s:
    """The record numbers of file references."""
    return (references & np.uint64(RECORD_MASK)).astype(np.int64)
