"""Finding names in directories: by the hash tree where that is sound, by reading the directory where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
_SAMPLE: Final = 8
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
    special = inodes.flagged(InodeFlag.ENCRYPT) | inline(volume, inodes)
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
    """One name on its way down, and from leaf to leaf."""

    query: int
    name: bytes  # folded where the directory folds
    directory: int  # position among the mapped directories
    folded: bool
    version: int = 0
    hash: int = 0
    path: list[tuple[_htree.Node, int]] = field(default_factory=list)  # nodes from the root down, and the entry taken
    block: int = 0
    onward: bool = False  # behind the leaf where the name belongs: nodes are entered at their first entry
    steps: int = 0
    wrong: str = ""  # why the tree is not believed

    @property
    def at_leaf(self) -> bool:
        """Whether `block` is a leaf, and not a node."""
        return bool(self.path) and len(self.path) > self.path[0][0].levels

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest hash that the leaf may hold. A node's first entry begins where the node does."""
        low = next((int(node.hashes[entry]) & ~1 for node, entry in reversed(self.path) if entry), 0)
        after = next((int(n.hashes[i + 1]) for n, i in reversed(self.path) if i + 1 < len(n.hashes)), 1 << 32)
        return low, after - 1  # an odd hash says that names of the even one before it are here, too


def _by_tree(
    volume: Volume,
    inodes: Inodes,
    rows: Int64s,
    names: Sequence[bytes],
    queries: Int64s,
    out: Int64s,
    settled: Bools,
) -> None:
    """Takes all names down their trees, a level in a batch. What does not end well is left unsettled, and noted."""
    directories, place = np.unique(rows[queries], return_inverse=True)
    runs = map_blocks(volume, inodes, directories)
    seeds = checksum_seeds(volume.superblock, inodes.number[directories], inodes.generation[directories])
    folds = inodes.flagged(InodeFlag.CASEFOLD)[directories].tolist()
    going = [
        _Search(query, fold(names[query]) if folds[at] else names[query], at, folds[at])
        for query, at in zip(queries.tolist(), place.tolist(), strict=True)
        if at not in runs.errors
    ]
    while going:
        blocks = _fetch(volume, runs, going)
        following: list[_Search] = []
        for search, block in zip(going, blocks, strict=True):
            search.steps += 1
            if block is None or search.steps > _STEPS:
                continue  # reading the whole directory finds out why it cannot be read
            seed = int(seeds[search.directory])
            step = (_leaf if search.at_leaf else _descend)(volume, search, block, seed)
            if step is None:
                following.append(search)
            elif search.wrong:
                number = int(inodes.number[directories[search.directory]])
                message = f"the hash tree of directory {number} is not believed, as {search.wrong}: all of it was read"
                volume.doubt(message, None, "hash tree node", number)
            else:
                # Our folding may be of another Unicode than the one that made the tree: "not there" is sure for ASCII.
                out[search.query] = step
                settled[search.query] = step != 0 or not search.folded or search.name.isascii()
        going = following


def _fetch(volume: Volume, runs: BlockRuns, searches: list[_Search]) -> list[UInt8s | None]:
    size = volume.superblock.block_size
    directory = np.array([search.directory for search in searches], np.int64)
    logical = np.array([search.block for search in searches], np.int64)
    physical = runs.locate(directory, logical)
    wanted, place = np.unique(physical, return_inverse=True)
    got = read_rows(volume.device, np.maximum(wanted, 0) * size, size, "directory block")
    return [None if wanted[at] < 0 or int(at) in got.errors else got.data[at] for at in place.tolist()]


def _descend(volume: Volume, search: _Search, block: UInt8s, seed: int) -> int | None:
    """Reads a node and goes on to its child: None. 0 where `search.wrong` says why not."""
    superblock = volume.superblock
    node = _htree.parse_interior(block) if search.path else _htree.parse_root(block)
    if node is None or (search.path and not _htree.is_interior(block)):
        search.wrong = "a node makes no sense"
        return 0
    if superblock.metadata_csum and not _htree.checksum_fits(block, node, seed):
        search.wrong = "a node does not fit its checksum"
        return 0
    if not search.path:
        version = node.version
        if superblock.unsigned_hash and version < _htree.UNSIGNED:
            version += _htree.UNSIGNED
        if version not in _htree.KNOWN_VERSIONS:
            search.wrong = f"its hash has the unknown version {version}"
            return 0
        search.version = version
        search.hash, _ = _htree.name_hash(search.name, version, superblock.hash_seed)
    search.path.append((node, 0 if search.onward else node.find(search.hash)))
    search.block = int(node.blocks[search.path[-1][1]])
    return None


def _leaf(volume: Volume, search: _Search, block: UInt8s, seed: int) -> int | None:
    """Looks for the name in a leaf: its inode, 0 where it is nowhere, None where names of its hash go on elsewhere."""
    size = len(block)
    superblock = volume.superblock
    entries = step_entries(
        block,
        np.zeros(1, np.int64),
        np.full(1, size, np.int64),
        inodes=superblock.inodes,
        whole=size if size == 1 << 16 else 0,
    )
    if entries.broken or entries.refused:
        search.wrong = "a leaf makes no sense"
    elif superblock.metadata_csum and crc32c(seed, block[: -lay.TAIL_SIZE].tobytes()) != int(block[-4:].view("<u4")[0]):
        search.wrong = "a leaf does not fit its checksum"
    elif not superblock.metadata_csum and not _belongs(search, entries.name, superblock.hash_seed):
        search.wrong = "a leaf holds names of other hashes"
    if search.wrong:
        return 0
    if search.folded:
        at = next((i for i, name in enumerate(entries.name) if fold(name) == search.name), -1)
    else:
        at = _position(entries.name, search.name)
    if at >= 0:
        return int(entries.inode[at])
    # As the kernel does: on to the next leaf, be it a cousin, where its hash says that names of this one go on there.
    while search.path:
        node, entry = search.path.pop()
        if entry + 1 < len(node.hashes):
            if int(node.hashes[entry + 1]) & ~1 != search.hash:
                break
            search.path.append((node, entry + 1))
            search.block = int(node.blocks[entry + 1])
            search.onward = True
            return None
    return 0


def _belongs(search: _Search, names: Names, seed: tuple[int, int, int, int]) -> bool:
    """Whether some names of a leaf have hashes of that leaf, for want of a checksum."""
    low, high = search.bounds
    for i in range(0, len(names), max(1, len(names) // _SAMPLE)):
        name = fold(names[i]) if search.folded else names[i]
        if not low <= _htree.name_hash(name, search.version, seed)[0] <= high:
            return False
    return True
