"""Directories: index nodes of many directories read in batches, their entries stepped in lockstep.

The blocks of a large index lie in $INDEX_ALLOCATION; which of them are in use its $BITMAP says, and an unused one may
be full of names of files that are gone. For all entries, the blocks in use are read in the order in which they lie, not
by descending the tree: the same entries, in fewer requests. `_tree` descends it for single names.

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

__all__ = [
    "NAMES_INDEX",
    "Blocks",
    "Entries",
    "Nodes",
    "block_unit",
    "index_blocks",
    "index_nodes",
    "index_roots",
    "parse_entries",
    "read_blocks",
    "read_names",
]

Bools = NDArray[np.bool_]
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

    Attributes:
        owner: int64 (n,), the index's place in the question.
        block: int64 (n,), which block of its index it is, -1 for a root.
    """

    buffer: UInt8s
    starts: Int64s
    ends: Int64s
    owner: Int64s
    block: Int64s


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the blocks of n indexes lie; all blocks have one size.

    Attributes:
        rows: int64 (n,), the indexes' places in the question.
        size: bytes of a block.
        chain: the $INDEX_ALLOCATIONs, one after the other.
        begins: int64 (n,), where in the chain each begins, bytes.
        used: the numbers of the blocks in use, ascending, for each index.
    """

    rows: Int64s
    size: int
    chain: Segments
    begins: Int64s
    used: list[Int64s]


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

    def name(self, i: int) -> NDArray[np.uint16]:
        """Name i."""
        return self.units[self.offsets[i] : self.offsets[i + 1]]

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


def parse_entries(buffer: UInt8s, starts: Int64s, ends: Int64s) -> tuple[Int64s, Int64s, Bools]:
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


def index_roots(
    volume: Volume, batch: Batch, name: str, errors: dict[int, PseudomountError], wanted: Bools | None = None
) -> tuple[Nodes, Int64s, Int64s]:
    """The roots of one index of each file of a batch; rows of `errors` and those not `wanted` are left out.

    Returns:
        The roots; int64 (n,) the bytes of each index's blocks; int64 (n,) the attribute that holds them, -1 for none.
        What is wrong with a root becomes its row's error.
    """
    attributes = batch.attributes
    roots = batch.pick(AttributeType.INDEX_ROOT, name)
    if wanted is None:
        wanted = np.ones(len(batch), np.bool_)
    for row in np.flatnonzero((roots < 0) & wanted).tolist():
        if row not in errors:
            errors[row] = batch.damage.get(row) or _wrong(volume, batch, row, "it has no index")
    rows = np.array([row for row in np.flatnonzero((roots >= 0) & wanted).tolist() if row not in errors], np.int64)
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
    begin = at + _ROOT_HEADER
    nodes = Nodes(batch.buffer, begin + first, begin + used, rows, np.full(len(rows), -1, np.int64))
    return nodes, block, batch.pick(AttributeType.INDEX_ALLOCATION, name)[rows]


def index_nodes(
    volume: Volume, batch: Batch, name: str, errors: dict[int, PseudomountError], wanted: Bools | None = None
) -> Iterator[Nodes]:
    """The nodes of one index of each file of a batch, in portions.

    Rows of `errors` and those not `wanted` are left out. What is wrong with an index becomes its row's error; the nodes
    that make sense are given.
    """
    roots, block, large = index_roots(volume, batch, name, errors, wanted)
    yield roots
    for size in np.unique(block[large >= 0]).tolist():
        mask = (large >= 0) & (block == size)
        blocks = index_blocks(volume, batch, name, roots.owner[mask], large[mask], int(size), errors)
        which = np.repeat(np.arange(len(blocks.rows), dtype=np.int64), [len(used) for used in blocks.used])
        numbers = np.concatenate([np.empty(0, np.int64), *blocks.used])
        step = max(1, min(_CHUNK, volume.device.batch_budget) // blocks.size)
        for start in range(0, len(numbers), step):
            part = slice(start, start + step)
            yield read_blocks(volume, batch, blocks, which[part], numbers[part], errors)


def index_blocks(
    volume: Volume, batch: Batch, name: str, rows: Int64s, large: Int64s, size: int, errors: dict[int, PseudomountError]
) -> Blocks:
    """Where the blocks of indexes lie and which are in use; `large` are the attributes that hold them."""
    resident = batch.attributes.resident[large]
    for row in rows[resident].tolist():
        errors[row] = _wrong(volume, batch, row, "its index blocks make no sense")
    rows, large = rows[~resident], large[~resident]
    blocks = np.minimum(batch.attributes.size[large], volume.device.size) // size
    used = _used_blocks(volume, batch, name, rows, blocks, errors)
    kept, chains, numbers = [], [], []
    for row, segments, here in zip(rows.tolist(), volume.streams(batch, large), used, strict=True):
        if segments.size > volume.device.size:
            errors[row] = _wrong(volume, batch, row, "its index is larger than the volume")
            continue
        if len(here) and (int(here[-1]) + 1) * size > segments.size:
            errors[row] = _wrong(volume, batch, row, "its index ends before its last block")
            here = here[(here + 1) * size <= segments.size]
        kept.append(row)
        chains.append(segments)
        numbers.append(here)
    chain, begins = Segments.chain(chains)
    return Blocks(np.array(kept, np.int64), size, chain, begins, numbers)


def block_unit(volume: Volume, size: int) -> int:
    """Bytes that the numbers of an index's blocks count: clusters or, where these are larger than blocks, 512 bytes."""
    return volume.geometry.cluster_size if volume.geometry.cluster_size <= size else STRIDE


def read_blocks(
    volume: Volume,
    batch: Batch,
    blocks: Blocks,
    which: Int64s,
    numbers: Int64s,
    errors: dict[int, PseudomountError],
) -> Nodes:
    """The nodes in some blocks: block `numbers[i]` of index `which[i]` of `blocks`.

    A block that cannot be read or makes no sense is its index's error and left out.
    """
    size, owner = blocks.size, blocks.rows[which]
    offsets = blocks.begins[which] + numbers * size
    lengths = np.full(len(offsets), size, np.int64)
    data, failed = read_segments(volume.device, blocks.chain, offsets, lengths, "a directory's index")
    for i, error in failed.items():
        errors.setdefault(int(owner[i]), error)
    matrix = data.reshape(-1, size)
    if not matrix.flags.writeable:
        matrix = matrix.copy()
    head = np.ascontiguousarray(matrix[:, : INDEX_BLOCK.itemsize]).view(INDEX_BLOCK)[:, 0]
    good = (head["magic"] == MAGIC_INDEX) & apply_fixups(matrix)
    first, used = head["entries"].astype(np.int64), head["length"].astype(np.int64)
    good &= (first % 8 == 0) & (first >= 16) & (used >= first) & (used + _BLOCK_HEADER <= size)
    good &= head["vcn"] == (numbers * size // block_unit(volume, size)).astype(np.uint64)
    bad = [i for i in np.flatnonzero(~good).tolist() if i not in failed]
    if bad:
        position = blocks.chain.pieces(offsets[bad], np.ones(len(bad), np.int64))[2].tolist()
        for i, place in zip(bad, position, strict=True):
            row = int(owner[i])
            what = f"block {int(numbers[i])} of its index is damaged"
            errors.setdefault(row, _wrong(volume, batch, row, what, place if place > BAD + 1 else None))
    rows = np.flatnonzero(good)
    at = rows * size + _BLOCK_HEADER
    return Nodes(matrix.reshape(-1), at + first[rows], at + used[rows], owner[rows], numbers[rows])


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


def read_names(
    volume: Volume, batch: Batch, errors: dict[int, PseudomountError], wanted: Bools | None = None
) -> Entries:
    """The names in each directory of a batch; rows of `errors` and those not `wanted` (bool (n,)) are left out.

    What is wrong is added to `errors`.
    """
    none = np.empty(0, np.int64)
    empty = Entries(none, none.astype(np.uint64), none, none, none, np.empty(0, np.uint16), np.zeros(1, np.int64))
    parts = [empty]
    for nodes in index_nodes(volume, batch, NAMES_INDEX, errors, wanted):
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
