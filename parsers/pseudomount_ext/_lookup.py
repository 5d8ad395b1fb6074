"""Finding names in directories: by the hash tree where that is sound, by reading the directory where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import Names
from pseudomount_ext import _htree
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes, checksum_seeds, step_entries
from pseudomount_ext._content import BlockRuns, Volume, map_blocks
from pseudomount_ext._crc import crc32c
from pseudomount_ext._directory import Listing, data_blocks, read_directories, shown_names
from pseudomount_ext._inodes import inline
from pseudomount_ext._layout import Compat, InodeFlag
from pseudomount_ext._names import fold
from pseudomount_ext._read import Int64s, UInt8s, read_rows

__all__ = ["look_up"]

Bools = NDArray[np.bool_]

#: A directory of so few blocks is read whole, which costs no more than its tree.
_SMALL: Final = 4
_STEPS: Final = 64  # blocks that one name may cost: levels, and leaves that share a hash


def look_up(
    volume: Volume, inodes: Inodes, rows: Int64s, names: Sequence[bytes]
) -> tuple[Int64s, dict[int, PseudomountError]]:
    """The inode of each name, 0 where there is none; and why it could not be told.

    Args:
        volume: the volume.
        inodes: where the directories' inodes are.
        rows: int64 (n,), the directory of each name.
        names: n names.
    """
    out = np.zeros(len(rows), np.int64)
    settled = np.zeros(len(rows), np.bool_)
    asked = np.bincount(rows, minlength=len(inodes))
    special = inodes.flagged(InodeFlag.ENCRYPT) | inodes.flagged(InodeFlag.CASEFOLD) | inline(volume, inodes)
    indexed = inodes.flagged(InodeFlag.INDEX) & ~special & bool(volume.superblock.compat & Compat.DIR_INDEX)
    indexed &= data_blocks(volume, inodes, np.arange(len(inodes))) > _SMALL * np.maximum(asked, 1)
    by_tree = np.flatnonzero(indexed[rows])
    if len(by_tree):
        _by_tree(volume, inodes, rows, names, by_tree, out, settled)
    rest = np.flatnonzero(~settled)
    if not len(rest):
        return out, {}
    directories, place = np.unique(rows[rest], return_inverse=True)
    listing = read_directories(volume, inodes, directories)
    errors: dict[int, PseudomountError] = {}
    bounds = np.searchsorted(listing.query, np.arange(len(directories) + 1))
    by_directory = np.argsort(place, kind="stable")
    groups = np.searchsorted(place[by_directory], np.arange(len(directories) + 1))
    for i, directory in enumerate(directories.tolist()):  # a step for each directory, whose names are one buffer
        queries = rest[by_directory[groups[i] : groups[i + 1]]]
        part = np.arange(bounds[i], bounds[i + 1])
        _match(volume, inodes, directory, listing, part, queries, names, out)
        if i in listing.errors:
            errors.update((query, listing.errors[i]) for query in queries.tolist() if not out[query])
    return out, errors


def _match(
    volume: Volume,
    inodes: Inodes,
    directory: int,
    listing: Listing,
    part: Int64s,
    queries: Int64s,
    names: Sequence[bytes],
    out: Int64s,
) -> None:
    """Finds names among the entries of one directory; of several the first counts."""
    here = listing.name.take(part)
    flags = int(inodes.flags[directory])
    folded = bool(flags & InodeFlag.CASEFOLD)
    if flags & InodeFlag.ENCRYPT:
        here, folded = shown_names(volume, here), False
    if not folded and len(queries) <= 4:
        for query in queries.tolist():
            at = _position(here, names[query])
            if at >= 0:
                out[query] = listing.inode[part[at]]
        return
    entries = [fold(name) for name in here] if folded else here.tolist()
    table = dict(zip(reversed(entries), reversed(part.tolist()), strict=True))
    for query in queries.tolist():
        row = table.get(fold(names[query]) if folded else names[query])
        if row is not None:
            out[query] = listing.inode[row]


def _position(names: Names, wanted: bytes) -> int:
    """The first of equal names, or -1."""
    rows = np.flatnonzero(np.diff(names.offsets) == len(wanted))
    target = np.frombuffer(wanted, np.uint8)
    for i in range(len(wanted)):
        if not len(rows):
            return -1
        rows = rows[names.buffer[names.offsets[rows] + i] == target[i]]
    return int(rows[0]) if len(rows) and wanted else -1


# -- by the tree -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    """One name on its way down."""

    query: int
    name: bytes
    directory: int  # position among the mapped directories
    hash: int = 0
    levels: int = -1  # interior levels still to come; -1 before the root
    node: _htree.Node | None = None  # whose entry `entry` is `block`
    entry: int = 0
    block: int = 0
    trusted: bool = True  # all nodes so far had a checksum that fits
    steps: int = 0


def _by_tree(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    names: Sequence[bytes],
    queries: Int64s,
    out: Int64s,
    settled: Bools,
) -> None:
    """Takes all names down their trees, a level in a batch. What does not end well is left unsettled."""
    directories, place = np.unique(rows[queries], return_inverse=True)
    runs = map_blocks(volume, inodes, directories)
    seeds = checksum_seeds(volume.superblock, inodes.number[directories], inodes.generation[directories])
    going = [
        _Search(query, names[query], int(at))
        for query, at in zip(queries.tolist(), place.tolist(), strict=True)
        if int(at) not in runs.errors
    ]
    while going:
        blocks = _fetch(volume, runs, going)
        following: list[_Search] = []
        for search, block in zip(going, blocks, strict=True):
            search.steps += 1
            if block is None or search.steps > _STEPS:
                continue
            seed = int(seeds[search.directory])
            if search.levels == 0:
                more = _leaf(volume, search, block, seed, out, settled)
            else:
                more = _descend(volume, search, block, seed)
            if more:
                following.append(search)
        going = following


def _fetch(volume: Volume, runs: BlockRuns, searches: list[_Search]) -> list[UInt8s | None]:
    size = volume.superblock.block_size
    directory = np.array([search.directory for search in searches], np.int64)
    logical = np.array([search.block for search in searches], np.int64)
    physical = runs.locate(directory, logical)
    wanted, place = np.unique(physical, return_inverse=True)
    got = read_rows(volume.device, np.maximum(wanted, 0) * size, size, "directory block")
    return [None if wanted[at] < 0 or int(at) in got.errors else got.data[at] for at in place.tolist()]


def _descend(volume: Volume, search: _Search, block: UInt8s, seed: int) -> bool:
    """Reads a node and goes on to its child; False where it makes no sense."""
    superblock = volume.superblock
    if search.node is None:
        node = _htree.parse_root(block)
        if node is None:
            return False
        version = node.version
        if superblock.unsigned_hash and version < _htree.UNSIGNED:
            version += _htree.UNSIGNED
        if version not in _htree.KNOWN_VERSIONS:
            return False
        search.hash, _ = _htree.name_hash(search.name, version, superblock.hash_seed)
        search.levels = node.levels
    else:
        node = _htree.parse_interior(block) if _htree.is_interior(block) else None
        if node is None:
            return False
        search.levels -= 1
    search.trusted &= superblock.metadata_csum and _htree.checksum_fits(block, node, seed)
    search.node, search.entry = node, node.find(search.hash)
    search.block = int(node.blocks[search.entry])
    return True


def _leaf(volume: Volume, search: _Search, block: UInt8s, seed: int, out: Int64s, settled: Bools) -> bool:
    """Looks for the name in a leaf; True where names of its hash go on in the next one."""
    size = len(block)
    entries = step_entries(
        block,
        np.zeros(1, np.int64),
        np.full(1, size, np.int64),
        inodes=volume.superblock.inodes,
        whole=size if size == 1 << 16 else 0,
    )
    at = _position(entries.name, search.name)
    if at >= 0:
        out[search.query] = entries.inode[at]
        settled[search.query] = True
        return False
    node = search.node
    if node is None or search.entry + 1 >= len(node.hashes):
        return False
    search.trusted &= crc32c(seed, block[: -lay.TAIL_SIZE].tobytes()) == int(block[-4:].view("<u4")[0])
    following = int(node.hashes[search.entry + 1])
    if following & 1 and following & ~1 == search.hash:
        search.entry += 1
        search.block = int(node.blocks[search.entry])
        return True
    # Not there, and nothing says that the tree is wrong.
    settled[search.query] = search.trusted and not entries.broken and not entries.refused
    return False
