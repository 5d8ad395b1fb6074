"""Reading directories: all blocks of many directories, in order, checked, and stepped through in lockstep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.contract import RunKind
from pseudomount_ext import _htree
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Entries, Inodes, checksum_seeds, step_entries
from pseudomount_ext._content import BlockRuns, Volume, map_blocks
from pseudomount_ext._crc import crc32c_rows
from pseudomount_ext._layout import Incompat, InodeFlag
from pseudomount_ext._names import no_key_name
from pseudomount_ext._read import CHUNK, Int64s, UInt8s, read_rows
from pseudomount_ext._slack import deleted_entries
from pseudomount_ext._xattr import inline_content

__all__ = ["Listing", "data_blocks", "parse_blocks", "read_directories", "shown_names", "visible_names"]

Bools = NDArray[np.bool_]

_STRUCTURE: Final = "directory block"
#: A directory with more blocks than this that make no sense is given up.
_PATIENCE: Final = 1024
#: Directories of a batch that may use the same block; see `_content`.
_SHARERS: Final = 8


@dataclass(frozen=True, slots=True)
class Listing:
    """Entries of directories, without "." and "..".

    Attributes:
        query: int64 (n,), position of the directory in the question, ascending.
        inode: int64 (n,).
        name: n names, as they lie on the disk.
        type: uint8 (n,), `FileType`.
        errors: position of a directory in the question → the first thing that was wrong with it.
    """

    query: Int64s
    inode: Int64s
    name: Names
    type: UInt8s
    errors: dict[int, PseudomountError]


def read_directories(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    *,
    gone: list[tuple[Int64s, Entries]] | None = None,
    mapped: Callable[[Inodes, Int64s], BlockRuns] | None = None,
) -> Listing:
    """All entries of directories.

    Args:
        volume: the volume.
        inodes: where the directories' inodes are.
        rows: int64 (k,), which of them; all are directories.
        gone: takes up deleted entries, with the position of each one's directory in `rows`; see `_slack`.
        mapped: finds their blocks, `map_blocks` by default.
    """
    errors: dict[int, PseudomountError] = {}
    inline = inodes.flagged(InodeFlag.INLINE_DATA)[rows]
    if not volume.superblock.incompat & Incompat.INLINE_DATA:
        inline = np.zeros(len(rows), np.bool_)
    parts: list[tuple[Int64s, Entries]] = []
    if inline.any():
        parts.append(_inline(volume, inodes, rows, np.flatnonzero(inline), errors, gone))
    queries = np.flatnonzero(~inline)
    if len(queries):
        runs = map_blocks(volume, inodes, rows[queries]) if mapped is None else mapped(inodes, rows[queries])
        errors.update((int(queries[i]), error) for i, error in runs.errors.items())
        blocks = _listed_blocks(volume, inodes, rows, queries, runs, errors)
        parts += _read_blocks(volume, inodes, rows, blocks, errors, gone)
    query = np.concatenate([part[0] for part in parts]) if parts else np.empty(0, np.int64)
    inode = np.concatenate([part[1].inode for part in parts]) if parts else np.empty(0, np.int64)
    kind = np.concatenate([part[1].type for part in parts]) if parts else np.empty(0, np.uint8)
    names = Names.concat([part[1].name for part in parts])
    order = np.flatnonzero(~_is_dot(names))
    order = order[np.argsort(query[order], kind="stable")]
    return Listing(query[order], inode[order], names.take(order), kind[order], errors)


def _is_dot(names: Names) -> Bools:
    lengths = np.diff(names.offsets)
    dots: Bools = (lengths == 1) | (lengths == 2)
    rows = np.flatnonzero(dots)
    begin, end = names.offsets[:-1][rows], names.offsets[1:][rows] - 1
    dots[rows] = (names.buffer[begin] == ord(".")) & (names.buffer[end] == ord("."))
    return dots


def visible_names(volume: Volume, listing: Listing, inodes: Inodes, rows: Int64s) -> Names:
    """The listing's names, those of encrypted directories as they are shown without the key; `rows` as it was asked."""
    encrypted = inodes.flagged(InodeFlag.ENCRYPT)[rows][listing.query]
    if not encrypted.any():
        return listing.name
    at = np.flatnonzero(encrypted)
    both = Names.concat([listing.name, shown_names(volume, listing.name.take(at))])
    order = np.arange(len(listing.name))
    order[at] = len(listing.name) + np.arange(len(at))
    return both.take(order)


def shown_names(volume: Volume, names: Names) -> Names:
    """Names of an encrypted directory as they are shown without its key."""
    superblock = volume.superblock
    version = superblock.hash_version
    if superblock.unsigned_hash and version < _htree.UNSIGNED:
        version += _htree.UNSIGNED
    if version not in _htree.KNOWN_VERSIONS:
        version = _htree.HALF_MD4
    return Names.of(no_key_name(name, version, superblock.hash_seed) for name in names)


# -- inline directories ------------------------------------------------------------------------------------------------


def _inline(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    queries: Int64s,
    errors: dict[int, PseudomountError],
    gone: list[tuple[Int64s, Entries]] | None,
) -> tuple[Int64s, Entries]:
    """The first 4 bytes are the parent's inode number; entries fill the rest of `i_block`, and then the attribute."""
    pieces: list[bytes] = []
    owners: list[int] = []
    begins: list[int] = []
    ends: list[int] = []
    at = 0
    for query in queries.tolist():
        content = inline_content(inodes, int(rows[query]))
        for piece in (content[4 : lay.IN_BLOCK_SIZE], content[lay.IN_BLOCK_SIZE :]):
            if len(piece) < lay.DIRENT_MIN:
                continue
            padded = piece + bytes(-len(piece) % 4)
            owners.append(query)
            begins.append(at)
            ends.append(at + (len(piece) & ~3))
            pieces.append(padded)
            at += len(padded)
    buffer, owner = np.frombuffer(b"".join(pieces), np.uint8), np.array(owners, np.int64)
    start, end = np.array(begins, np.int64), np.array(ends, np.int64)
    typed = bool(volume.superblock.incompat & Incompat.FILETYPE)
    opaque = inodes.flagged(InodeFlag.ENCRYPT)[rows[owner]]
    entries = step_entries(buffer, start, end, inodes=volume.superblock.inodes, typed=typed, opaque=opaque)
    if gone is not None:
        left = deleted_entries(buffer, start, end, inodes=volume.superblock.inodes, whole=0, typed=typed, skip=opaque)
        gone.append((owner[left.region], left))
    for region, _ in [*entries.broken.items(), *entries.refused]:
        number = int(inodes.number[rows[owner[region]]])
        error = volume.damage(f"an entry of the inline directory {number} makes no sense", None, "directory entry")
        errors.setdefault(int(owner[region]), error)
    return owner[entries.region], entries


# -- directories in blocks ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Runs of directory blocks, by (query, logical); `query` is a position in the rows asked for."""

    query: Int64s
    logical: Int64s
    physical: Int64s
    count: Int64s


def data_blocks(volume: Volume, inodes: Inodes, rows: Int64s) -> Int64s:
    """int64 (k,): how many blocks each directory says it has."""
    size = inodes.size[rows]
    return np.where(size < 0, lay.LOGICAL_LIMIT, -(-size // volume.superblock.block_size))


def _listed_blocks(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    queries: Int64s,
    runs: BlockRuns,
    errors: dict[int, PseudomountError],
) -> _Blocks:
    """The runs that make up the directories, up to their sizes; no block twice in one, nor in too many."""
    claimed = data_blocks(volume, inodes, rows[queries])
    for i in np.unique(runs.query[runs.kind == RunKind.UNWRITTEN]).tolist():
        # The kernel reads these all the same: no directory block is ever allocated without being written.
        number = int(inodes.number[rows[queries[i]]])
        volume.doubt(f"blocks of directory {number} are marked as never written", None, _STRUCTURE, number)
    runs = runs.take(~runs.damaged & (runs.logical < claimed[runs.query]))
    count = np.minimum(runs.count, claimed[runs.query] - runs.logical)
    keep = _disjoint(runs.query, runs.physical, count)
    got = np.zeros(len(queries), np.int64)
    np.add.at(got, runs.query[keep], count[keep])
    for i in np.flatnonzero(~keep).tolist():
        block = int(runs.physical[i])
        error = volume.damage(f"block {block} belongs to directories more than once", block, _STRUCTURE)
        errors.setdefault(int(queries[runs.query[i]]), error)
    for i in np.flatnonzero((got < claimed) | (claimed == 0)).tolist():
        number = int(inodes.number[rows[queries[i]]])
        message = f"directory {number} lacks {int(claimed[i] - got[i])} of its {int(claimed[i])} blocks"
        errors.setdefault(int(queries[i]), volume.damage(message, None, "directory"))
    return _Blocks(queries[runs.query[keep]], runs.logical[keep], runs.physical[keep], count[keep])


def _disjoint(query: Int64s, physical: Int64s, count: Int64s) -> Bools:
    """bool (n,): runs that no earlier run of the same directory overlaps, nor too many of other directories."""
    n = len(query)
    keep = np.ones(n, np.bool_)
    if n < 2:
        return keep
    order = np.lexsort((physical, query))
    q, start, end = query[order], physical[order], (physical + count)[order]
    # Block numbers stay below 2**48, so directories can be told apart by their rank in a float's exact range or by a
    # running maximum that starts anew with each of them.
    rank = np.cumsum(np.concatenate(([0], q[1:] != q[:-1])))
    first = np.flatnonzero(np.concatenate(([True], q[1:] != q[:-1])))
    if len(first) < n:
        reach = end.copy()
        bounds = np.append(first, n)
        for i in np.flatnonzero(np.diff(bounds) > 1).tolist():  # a step for each directory of several runs
            part = slice(int(bounds[i]), int(bounds[i + 1]))
            reach[part] = np.maximum.accumulate(reach[part])
        again = np.concatenate(([False], (rank[1:] == rank[:-1]) & (start[1:] < reach[:-1])))
        keep[order[again]] = False
    starts, ends = np.sort(physical), np.sort(physical + count)
    by_start = np.argsort(physical, kind="stable")
    depth = np.arange(1, n + 1) - np.searchsorted(ends, starts, side="right")
    keep[by_start[depth > _SHARERS]] = False
    return keep


def _read_blocks(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    blocks: _Blocks,
    errors: dict[int, PseudomountError],
    gone: list[tuple[Int64s, Entries]] | None,
) -> list[tuple[Int64s, Entries]]:
    """Reads and parses blocks, a chunk at a time, giving up directories that are mostly no directory."""
    size = volume.superblock.block_size
    step = CHUNK // size
    before = np.cumsum(blocks.count) - blocks.count
    total = int(blocks.count.sum())
    parts: list[tuple[Int64s, Entries]] = []
    nonsense = np.zeros(len(rows), np.int64)
    given_up = np.zeros(len(rows), np.bool_)
    first = 0
    while first < total:
        # The runs that hold blocks first … first + step, cut to these.
        a = int(np.searchsorted(before, first, side="right")) - 1
        b = int(np.searchsorted(before, first + step, side="left"))
        run = np.arange(a, b)
        skip = np.maximum(first - before[run], 0)
        length = np.minimum(blocks.count[run], first + step - before[run]) - skip
        live = ~given_up[blocks.query[run]]
        if not live.any():
            # Go on where a directory begins that was not given up.
            ahead = np.flatnonzero(~given_up[blocks.query[b - 1 :]])
            if not len(ahead):
                break
            first = max(first + step, int(before[b - 1 + int(ahead[0])]))
            continue
        run, skip, length = run[live], skip[live], length[live]
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        physical = np.repeat(blocks.physical[run] + skip, length) + within
        logical = np.repeat(blocks.logical[run] + skip, length) + within
        query = np.repeat(blocks.query[run], length)
        got = read_rows(volume.device, physical * size, size, _STRUCTURE)
        for i, error in got.errors.items():
            errors.setdefault(int(query[i]), error)
        good = got.ok()
        owner = query[good]
        entries = parse_blocks(volume, inodes, rows[owner], got.data[good], logical[good], physical[good])
        _note_broken(volume, inodes, rows, owner, physical[good], entries, errors)
        broken = np.fromiter(entries.broken, np.int64, len(entries.broken))
        np.add.at(nonsense, owner[broken], 1)
        for lost in np.flatnonzero((nonsense > _PATIENCE) & ~given_up).tolist():
            number = int(inodes.number[rows[lost]])
            message = f"directory {number} was given up after {int(nonsense[lost])} blocks that make no sense"
            volume.doubt(message, None, _STRUCTURE, number)
            given_up[lost] = True
        parts.append((owner[entries.region], entries))
        if gone is not None:
            left = _deleted_entries(volume, inodes, rows[owner], got.data[good], logical[good])
            gone.append((owner[left.region], left))
        first += step
    return parts


def parse_blocks(
    volume: Volume, inodes: Inodes, rows: Int64s, data: UInt8s, logical: Int64s, physical: Int64s
) -> Entries:
    """The entries of blocks, and a finding for each block that does not fit its checksum.

    Args:
        volume: the volume.
        inodes: where the directories' inodes are.
        rows: int64 (n,), the inode of each block's directory.
        data: uint8 (n, block size).
        logical, physical: int64 (n,), the block's number in the directory and on the volume.
    """
    superblock = volume.superblock
    size = superblock.block_size
    if superblock.metadata_csum and len(data):
        _check_blocks(volume, inodes, rows, data, logical, physical)
    begins = np.arange(len(data), dtype=np.int64) * size
    return step_entries(
        data.reshape(-1),
        begins,
        begins + size,
        inodes=superblock.inodes,
        whole=size if size == 1 << 16 else 0,
        typed=bool(superblock.incompat & Incompat.FILETYPE),
        opaque=inodes.flagged(InodeFlag.ENCRYPT)[rows],
    )


def _deleted_entries(volume: Volume, inodes: Inodes, rows: Int64s, data: UInt8s, logical: Int64s) -> Entries:
    """What is left of deleted entries in blocks; nodes of hash trees, and what is encrypted, are left alone."""
    size = volume.superblock.block_size
    whole = size if size == 1 << 16 else 0
    length = data.view("<u2")[:, 2].astype(np.int64)
    node = (data.view("<u4")[:, 0] == 0) & ((length == size) | ((whole != 0) & ((length == 0) | (length == 0xFFFF))))
    node = inodes.flagged(InodeFlag.INDEX)[rows] & (node | (logical == 0))
    begins = np.arange(len(data), dtype=np.int64) * size
    return deleted_entries(
        data.reshape(-1),
        begins,
        begins + size,
        inodes=volume.superblock.inodes,
        whole=whole,
        typed=bool(volume.superblock.incompat & Incompat.FILETYPE),
        skip=node | inodes.flagged(InodeFlag.ENCRYPT)[rows],
    )


def _check_blocks(
    volume: Volume, inodes: Inodes, rows: Int64s, data: UInt8s, logical: Int64s, physical: Int64s
) -> None:
    size = volume.superblock.block_size
    seeds = checksum_seeds(volume.superblock, inodes.number[rows], inodes.generation[rows])
    indexed = inodes.flagged(InodeFlag.INDEX)[rows]
    words, halves = data.view("<u4"), data.view("<u2")
    length = halves[:, 2].astype(np.int64)
    whole = (length == size) | ((size == 1 << 16) & ((length == 0) | (length == 0xFFFF)))
    nodes = indexed & ((logical == 0) | ((words[:, 0] == 0) & whole))
    fits = np.ones(len(data), np.bool_)
    leaves = np.flatnonzero(~nodes)
    tail = words[leaves, -3:]
    crc = crc32c_rows(seeds[leaves], data[leaves, : size - lay.TAIL_SIZE])
    fits[leaves] = (tail[:, 0] == 0) & (tail[:, 1] == lay.TAIL_SIZE | lay.TAIL_TYPE << 24) & (tail[:, 2] == crc)
    for i in np.flatnonzero(nodes).tolist():  # one for some hundred leaves
        node = _htree.parse_root(data[i]) if logical[i] == 0 else _htree.parse_interior(data[i])
        fits[i] = node is not None and _htree.checksum_fits(data[i], node, int(seeds[i]))
    for i in np.flatnonzero(~fits).tolist():
        volume.doubt(
            "a directory block does not fit its checksum",
            int(physical[i]) * size,
            "hash tree node" if nodes[i] else _STRUCTURE,
            int(inodes.number[rows[i]]),
        )


def _note_broken(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    owner: Int64s,
    physical: Int64s,
    entries: Entries,
    errors: dict[int, PseudomountError],
) -> None:
    """Errors and findings for entries that make no sense."""
    size = volume.superblock.block_size
    places: Sequence[tuple[int, int]] = sorted([*entries.broken.items(), *entries.refused])
    for region, position in places:
        query = int(owner[region])
        number = int(inodes.number[rows[query]])
        error = volume.damage(
            f"an entry of directory {number} makes no sense", int(physical[region]), "directory entry"
        )
        error.offset = int(physical[region]) * size + position - region * size
        if query in errors:
            volume.findings.add_error(error, file=number)
        else:
            errors[query] = error
