"""Directories: index nodes of many directories read in batches, their entries stepped in lockstep.

The blocks of a large index lie in $INDEX_ALLOCATION; which of them are in use its $BITMAP says, and an unused one may
be full of names of files that are gone. Blocks in use are read in the order in which they lie, not by descending the
tree: all the same entries, in fewer requests.

Sources: [LN] Attribute: $INDEX_ROOT, $INDEX_ALLOCATION, $BITMAP; Concept: INDX record, index entry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._layout import (
    FILE_NAME,
    FILE_NAME_SIZE,
    INDEX_BLOCK,
    INDEX_ENTRY,
    INDEX_ENTRY_LAST,
    INDEX_ROOT,
    MAGIC_INDEX,
    STRIDE,
    AttributeType,
    gather,
    units_of,
)
from pseudomount_ntfs._records import apply_fixups
from pseudomount_ntfs._runs import BAD, Segments, read_segments
from pseudomount_ntfs._volume import Volume

__all__ = ["Entries", "index_nodes", "parse_entries", "read_names"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: The name of a directory's index.
NAMES_INDEX = "$I30"
_CHUNK = 8 << 20
_LARGEST_BLOCK = 64 << 10
_ROOT_HEADER = 16
_BLOCK_HEADER = 24


@dataclass(frozen=True, slots=True)
class Nodes:
    """Some nodes of indexes: node i holds its entries at `starts[i]` to `ends[i]` of `buffer`.

    `owner` is the index's place in the question.
    """

    buffer: UInt8s
    starts: Int64s
    ends: Int64s
    owner: Int64s


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of directories, ordered by directory.

    Attributes:
        query: int64 (n,), the directory's place in the question.
        reference: uint64 (n,), the file.
        attributes, tag, namespace: int64 (n,), as the entry's copy of $FILE_NAME has them.
        units, offsets: the names, UTF-16; name i is `units[offsets[i]:offsets[i + 1]]`.
    """

    query: Int64s
    reference: UInt64s
    attributes: Int64s
    tag: Int64s
    namespace: Int64s
    units: NDArray[np.uint16]
    offsets: Int64s

    def __len__(self) -> int:
        return len(self.query)

    def take(self, rows: Int64s) -> Entries:
        """A selection."""
        starts, counts = self.offsets[:-1][rows], np.diff(self.offsets)[rows]
        units, offsets = units_of(self.units.view(np.uint8), 2 * starts, counts)
        return Entries(
            self.query[rows],
            self.reference[rows],
            self.attributes[rows],
            self.tag[rows],
            self.namespace[rows],
            units,
            offsets,
        )

    @staticmethod
    def concat(parts: list[Entries]) -> Entries:
        """One after the other, then ordered by directory."""
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        whole = Entries(
            np.concatenate([part.query for part in parts]),
            np.concatenate([part.reference for part in parts]),
            np.concatenate([part.attributes for part in parts]),
            np.concatenate([part.tag for part in parts]),
            np.concatenate([part.namespace for part in parts]),
            np.concatenate([part.units for part in parts]),
            offsets,
        )
        order = np.argsort(whole.query, kind="stable")
        return whole if bool((np.diff(order) == 1).all()) else whole.take(order)


def parse_entries(buffer: UInt8s, starts: Int64s, ends: Int64s) -> tuple[Int64s, Int64s, NDArray[np.bool_]]:
    """The entries of many nodes.

    Args:
        buffer: uint8, its length a multiple of 8; starts, ends: int64 (n,), multiples of 8, inside it.

    Returns:
        int64 (m,) node and place of each entry that has a key, by node; bool (n,) which nodes are sound to the end.
        The places have room for the entry's header and its key.
    """
    sound = np.ones(len(starts), np.bool_)
    which, at, until = np.arange(len(starts), dtype=np.int64), starts, ends
    nodes, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    while len(which):
        room = at + INDEX_ENTRY.itemsize <= until
        sound[which[~room]] = False
        which, at, until = which[room], at[room], until[room]
        entry = gather(buffer, at, INDEX_ENTRY)
        length = entry["length"].astype(np.int64)
        last = (entry["flags"] & INDEX_ENTRY_LAST) != 0
        fits = (length >= INDEX_ENTRY.itemsize) & (length % 8 == 0) & (at + length <= until)
        fits &= entry["key_length"] + np.int64(INDEX_ENTRY.itemsize) <= length
        sound[which[~fits & ~last]] = False
        live = fits & ~last
        which, at, until, length = which[live], at[live], until[live], length[live]
        nodes.append(which)
        places.append(at)
        at = at + length
    node, place = np.concatenate(nodes), np.concatenate(places)
    order = np.argsort(node, kind="stable")
    return node[order], place[order], sound


def index_nodes(volume: Volume, batch: Batch, name: str, errors: dict[int, PseudomountError]) -> Iterator[Nodes]:
    """The nodes of one index of each file of a batch, in portions; rows of `errors` are left out.

    What is wrong with an index becomes its row's error; the nodes that make sense are given.
    """
    attributes = batch.attributes
    roots = batch.pick(AttributeType.INDEX_ROOT, name)
    for row in np.flatnonzero(roots < 0).tolist():
        if row not in errors:
            errors[row] = batch.damage.get(row) or _wrong(volume, batch, row, "it has no index")
    rows = np.array([row for row in np.flatnonzero(roots >= 0).tolist() if row not in errors], np.int64)
    roots = roots[rows]
    at, length = attributes.value_at[roots], attributes.value_length[roots]
    fits = attributes.resident[roots] & (length >= INDEX_ROOT.itemsize) & (at % 8 == 0)
    root = gather(batch.buffer, np.where(fits, at, 0), INDEX_ROOT)
    first, used = root["entries"].astype(np.int64), root["length"].astype(np.int64)
    block = root["block_size"].astype(np.int64)
    fits &= (first % 8 == 0) & (first >= 16) & (used >= first) & (used + _ROOT_HEADER <= length)
    fits &= (block >= STRIDE) & (block <= _LARGEST_BLOCK) & ((block & (block - 1)) == 0)
    for row in rows[~fits].tolist():
        errors[row] = _wrong(volume, batch, row, "its index root makes no sense")
    rows, at, first, used, block = rows[fits], at[fits], first[fits], used[fits], block[fits]
    yield Nodes(batch.buffer, at + _ROOT_HEADER + first, at + _ROOT_HEADER + used, rows)
    large = batch.pick(AttributeType.INDEX_ALLOCATION, name)[rows]
    for size in np.unique(block[large >= 0]).tolist():
        mask = (large >= 0) & (block == size)
        yield from _blocks(volume, batch, name, rows[mask], large[mask], int(size), errors)


def _blocks(
    volume: Volume, batch: Batch, name: str, rows: Int64s, large: Int64s, size: int, errors: dict[int, PseudomountError]
) -> Iterator[Nodes]:
    """The nodes in blocks of one size."""
    resident = batch.attributes.resident[large]
    for row in rows[resident].tolist():
        errors[row] = _wrong(volume, batch, row, "its index blocks make no sense")
    rows, large = rows[~resident], large[~resident]
    blocks = np.minimum(batch.attributes.size[large], volume.device.size) // size
    used = _used_blocks(volume, batch, name, rows, blocks, errors)
    streams = volume.streams(batch, large)
    owners, offsets, chains, base = [], [], [], 0
    for i, (row, segments) in enumerate(zip(rows.tolist(), streams, strict=True)):
        if segments.size > volume.device.size:
            errors[row] = _wrong(volume, batch, row, "its index is larger than the volume")
            continue
        here = used[i] * size
        if len(here) and int(here[-1]) + size > segments.size:
            errors[row] = _wrong(volume, batch, row, "its index ends before its last block")
            here = here[here + size <= segments.size]
        owners.append(np.full(len(here), row, np.int64))
        offsets.append(here + base)
        chains.append(segments)
        base += segments.size
    if not chains:
        return
    chain, begins = Segments.chain(chains)
    owner, offset = np.concatenate(owners), np.concatenate(offsets)
    number = offset - np.repeat(begins, [len(part) for part in offsets])
    # A block's number in its header counts clusters or, where these are larger than blocks, units of 512 bytes.
    unit = volume.geometry.cluster_size if volume.geometry.cluster_size <= size else STRIDE
    step = max(1, min(_CHUNK, volume.device.batch_budget) // size)
    for start in range(0, len(offset), step):
        part = slice(start, start + step)
        yield _read_blocks(volume, batch, chain, offset[part], number[part] // unit, owner[part], size, errors)


def _read_blocks(
    volume: Volume,
    batch: Batch,
    chain: Segments,
    offsets: Int64s,
    numbers: Int64s,
    owner: Int64s,
    size: int,
    errors: dict[int, PseudomountError],
) -> Nodes:
    lengths = np.full(len(offsets), size, np.int64)
    data, failed = read_segments(volume.device, chain, offsets, lengths, "a directory's index")
    for i, error in failed.items():
        errors.setdefault(int(owner[i]), error)
    matrix = data.reshape(-1, size)
    if not matrix.flags.writeable:
        matrix = matrix.copy()
    head = np.ascontiguousarray(matrix[:, : INDEX_BLOCK.itemsize]).view(INDEX_BLOCK)[:, 0]
    good = (head["magic"] == MAGIC_INDEX) & apply_fixups(matrix)
    first, used = head["entries"].astype(np.int64), head["length"].astype(np.int64)
    good &= (first % 8 == 0) & (first >= 16) & (used >= first) & (used + _BLOCK_HEADER <= size)
    good &= head["vcn"] == numbers.astype(np.uint64)
    bad = [i for i in np.flatnonzero(~good).tolist() if i not in failed]
    if bad:
        position = chain.pieces(offsets[bad], np.ones(len(bad), np.int64))[2].tolist()
        for i, place in zip(bad, position, strict=True):
            row = int(owner[i])
            what = f"block {int(numbers[i])} of its index is damaged"
            errors.setdefault(row, _wrong(volume, batch, row, what, place if place > BAD + 1 else None))
    rows = np.flatnonzero(good)
    at = rows * size + _BLOCK_HEADER
    return Nodes(matrix.reshape(-1), at + first[rows], at + used[rows], owner[rows])


def _used_blocks(
    volume: Volume, batch: Batch, name: str, rows: Int64s, blocks: Int64s, errors: dict[int, PseudomountError]
) -> list[Int64s]:
    """The blocks in use of each index, ascending; `blocks` is how many each has."""
    picks = batch.pick(AttributeType.BITMAP, name)[rows]
    have = np.flatnonzero(picks >= 0)
    # One bit stands for at least 512 bytes: a bitmap for more than the whole volume is none.
    limit = volume.device.size // (STRIDE * 8) + 8
    values = volume.values(batch, picks[have], limit)
    for i, error in values.errors.items():
        errors.setdefault(int(rows[have[i]]), error)
    for row in rows[picks < 0].tolist():
        errors.setdefault(row, batch.damage.get(row) or _wrong(volume, batch, row, "its index has no bitmap"))
    # Where the bitmap is lost, every block is read: a name too many is better than one too few, and the error says so.
    used = [np.arange(count, dtype=np.int64) for count in (blocks * (picks < 0)).tolist()]
    for i in values.errors:
        used[have[i]] = np.arange(blocks[have[i]], dtype=np.int64)
    for i, start, length in zip(have.tolist(), values.starts.tolist(), values.lengths.tolist(), strict=True):
        if length:
            bits = np.unpackbits(values.buffer[start : start + length], bitorder="little")
            used[i] = np.flatnonzero(bits).astype(np.int64)
    return used


def _wrong(volume: Volume, batch: Batch, row: int, what: str, offset: int | None = None) -> CorruptionError:
    number = int(batch.references[row]) & ((1 << 48) - 1)
    error = volume.damaged(number, what, "index")
    if offset is not None:
        error.offset = offset
    return error


def read_names(volume: Volume, batch: Batch, errors: dict[int, PseudomountError]) -> Entries:
    """The names in each directory of a batch; rows of `errors` are left out, what is wrong is added there."""
    none = np.empty(0, np.int64)
    empty = Entries(none, none.astype(np.uint64), none, none, none, np.empty(0, np.uint16), np.zeros(1, np.int64))
    parts = [empty]
    for nodes in index_nodes(volume, batch, NAMES_INDEX, errors):
        node, place, sound = parse_entries(nodes.buffer, nodes.starts, nodes.ends)
        entry = gather(nodes.buffer, place, INDEX_ENTRY)
        key_length = entry["key_length"].astype(np.int64)
        key_at = place + INDEX_ENTRY.itemsize
        key = gather(nodes.buffer, key_at, FILE_NAME)
        count = key["name_length"].astype(np.int64)
        fits = (key_length >= FILE_NAME_SIZE) & (FILE_NAME_SIZE + 2 * count <= key_length) & (count > 0)
        broken = np.union1d(nodes.owner[~sound], nodes.owner[node[~fits]])
        for row in broken.tolist():
            errors.setdefault(row, _wrong(volume, batch, row, "its index holds an entry that makes no sense"))
        rows = np.flatnonzero(fits)
        units, offsets = units_of(nodes.buffer, key_at[rows] + FILE_NAME_SIZE, count[rows])
        parts.append(
            Entries(
                nodes.owner[node[rows]],
                entry["reference"][rows],
                key["attributes"][rows].astype(np.int64),
                key["tag"][rows].astype(np.int64),
                key["namespace"][rows].astype(np.int64),
                units,
                offsets,
            )
        )
    return Entries.concat(parts)
