"""One name in a large directory: down the tree of its index, by the volume's own order, reading the nodes on the way.

Names stand in the order of their units in upper case; names that differ in case alone stand side by side, on both sides
of a node's border too. All questions of a batch go down together, one request a level.

What the tree says is believed only where it keeps its own rules: nodes in order, between the names above them, in
blocks in use, none met twice. A directory that breaks one is left to the scan of all its blocks.

Sources: [LN] Attribute: $INDEX_ROOT; Concept: B+ trees, collation; index entry (a child's number ends its entry).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._index import (
    NAMES_INDEX,
    Blocks,
    Nodes,
    block_unit,
    index_blocks,
    index_roots,
    parse_entries,
    read_blocks,
)
from pseudomount_ntfs._layout import (
    FILE_NAME,
    FILE_NAME_SIZE,
    INDEX_ENTRY,
    INDEX_ENTRY_LAST,
    INDEX_ENTRY_SUBNODE,
    gather,
    units_of,
)
from pseudomount_ntfs._volume import Volume

__all__ = ["Walked", "walk_trees"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
UInt16s = NDArray[np.uint16]
UInt64s = NDArray[np.uint64]

#: A directory is descended where it has more blocks than this for each name asked of it: fewer are one request anyway.
BLOCKS_A_NAME = 16
#: No tree of 2**48 names is deeper.
_DEEPEST = 24
#: Bytes of nodes that are looked into at once.
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Walked:
    """What the trees say to n questions.

    Attributes:
        reference: uint64 (n,), the file, where `found`.
        found: bool (n,).
        decided: bool (n,), whether the tree was descended; the other questions need the scan.
        broken: directories (places in the batch) whose tree breaks a rule.
    """

    reference: UInt64s
    found: Bools
    decided: Bools
    broken: list[int]


@dataclass(frozen=True, slots=True)
class _Node:
    """A node: names in upper case (big-endian bytes sort as their units do), and what stands beside them.

    `children` has one more than `keys`, or none in a leaf; block numbers, -1 where a number makes no sense.
    """

    keys: list[bytes]
    names: list[bytes]
    references: list[int]
    children: list[int]


@dataclass(slots=True)
class _Question:
    number: int
    directory: int
    key: bytes
    name: bytes
    best: tuple[bool, bytes, int] | None = None


def walk_trees(
    volume: Volume, batch: Batch, directory: Int64s, names: Sequence[UInt16s], upcase: UInt16s, skip: set[int]
) -> Walked:
    """Looks names up in those directories of a batch that are large.

    Args:
        directory: int64 (n,), the place in the batch of each name's directory.
        names: n names, UTF-16.
        upcase: the volume's table.
        skip: directories that are not to be descended.

    Errors of the device and of the index are not told here: the scan, to which they are left, tells them.
    """
    n = len(names)
    walked = Walked(np.zeros(n, np.uint64), np.zeros(n, np.bool_), np.zeros(n, np.bool_), [])
    asked = np.bincount(directory, minlength=len(batch))
    wanted = asked > 0
    if skip:
        wanted[list(skip)] = False
    if not wanted.any():
        return walked
    errors: dict[int, PseudomountError] = {}
    roots, size, large = index_roots(volume, batch, NAMES_INDEX, errors, wanted)
    many = batch.attributes.size[large] // size > BLOCKS_A_NAME * asked[roots.owner] if len(large) else large >= 0
    questions = _questions(directory, names, upcase)
    for each in np.unique(size[(large >= 0) & many]).tolist():
        mask = (large >= 0) & many & (size == each)
        blocks = index_blocks(volume, batch, NAMES_INDEX, roots.owner[mask], large[mask], int(each), errors)
        nodes = Nodes(roots.buffer, roots.starts[mask], roots.ends[mask], roots.owner[mask], roots.block[mask])
        here = set(roots.owner[mask].tolist())
        descent = _Descent(volume, batch, blocks, upcase, errors)
        descent.run(nodes, [question for question in questions if question.directory in here])
        walked.broken.extend(sorted(descent.broken))
        for question in questions:
            if question.directory in here and question.directory not in errors:
                walked.decided[question.number] = True
                if question.best is not None:
                    walked.found[question.number] = True
                    walked.reference[question.number] = question.best[2]
    return walked


def _questions(directory: Int64s, names: Sequence[UInt16s], upcase: UInt16s) -> list[_Question]:
    return [
        _Question(i, row, upcase[name].astype(">u2").tobytes(), name.astype(">u2").tobytes())
        for i, (row, name) in enumerate(zip(directory.tolist(), names, strict=True))
    ]


class _Descent:
    """All questions of directories whose blocks have one size, level by level."""

    def __init__(
        self, volume: Volume, batch: Batch, blocks: Blocks, upcase: UInt16s, errors: dict[int, PseudomountError]
    ) -> None:
        self.broken: set[int] = set()
        self._volume, self._batch, self._blocks, self._upcase, self._errors = volume, batch, blocks, upcase, errors
        self._which = {row: i for i, row in enumerate(blocks.rows.tolist())}
        self._unit = block_unit(volume, blocks.size)
        # (directory, block) → the names between which a node's own have to stand; a node is met once.
        self._bounds: dict[tuple[int, int], tuple[bytes, bytes | None]] = {}

    def run(self, roots: Nodes, questions: list[_Question]) -> None:
        """Answers the questions; directories whose tree breaks a rule come into `broken`, and into the errors."""
        open_: dict[tuple[int, int], list[_Question]] = {}
        for question in questions:
            if question.directory in self._which:
                open_.setdefault((question.directory, -1), []).append(question)
        self._bounds = dict.fromkeys(open_, (b"", None))
        below: dict[tuple[int, int], list[_Question]] = {}
        self._level(roots, open_, below)
        step = max(1, _CHUNK // self._blocks.size)
        for _ in range(_DEEPEST):
            open_ = {place: asked for place, asked in below.items() if place[0] not in self._errors}
            below = {}
            places = list(open_)
            for start in range(0, len(places), step):
                part = places[start : start + step]
                which = np.array([self._which[row] for row, _ in part], np.int64)
                numbers = np.array([block for _, block in part], np.int64)
                nodes = read_blocks(self._volume, self._batch, self._blocks, which, numbers, self._errors)
                self._level(nodes, {place: open_[place] for place in part}, below)
        for row, _ in below:
            self._break(row)

    def _break(self, row: int) -> None:
        self.broken.add(row)
        self._errors.setdefault(row, CorruptionError("an index that breaks its own rules", structure="index"))

    def _level(
        self,
        nodes: Nodes,
        open_: dict[tuple[int, int], list[_Question]],
        below: dict[tuple[int, int], list[_Question]],
    ) -> None:
        """Looks into nodes, for those who wanted them; adds the blocks to read next to `below`."""
        places = list(zip(nodes.owner.tolist(), nodes.block.tolist(), strict=True))
        for row, _ in open_.keys() - set(places):
            self._break(row)  # a block that is damaged
        for (row, block), node in zip(places, self._parse(nodes), strict=True):
            if row in self._errors or (row, block) not in open_:
                continue
            low, high = self._bounds[row, block]
            if node is None or not _in_order(node, low, high):
                self._break(row)
                continue
            for question in open_[row, block]:
                self._ask(question, node, (low, high), below)

    def _ask(
        self,
        question: _Question,
        node: _Node,
        bounds: tuple[bytes, bytes | None],
        below: dict[tuple[int, int], list[_Question]],
    ) -> None:
        row = question.directory
        first, last = bisect_left(node.keys, question.key), bisect_right(node.keys, question.key)
        for i in range(first, last):
            found = (node.names[i] != question.name, node.names[i], node.references[i])
            if question.best is None or found[:2] < question.best[:2]:
                question.best = found
        if not node.children or (question.best is not None and not question.best[0]):
            return
        for i in range(first, last + 1):
            place = (row, node.children[i])
            if place not in below:
                if place in self._bounds or not self._in_use(*place):
                    self._break(row)
                    return
                low = node.keys[i - 1] if i else bounds[0]
                self._bounds[place] = (low, node.keys[i] if i < len(node.keys) else bounds[1])
            below.setdefault(place, []).append(question)

    def _in_use(self, row: int, block: int) -> bool:
        used = self._blocks.used[self._which[row]]
        at = int(np.searchsorted(used, block))
        return at < len(used) and int(used[at]) == block

    def _parse(self, nodes: Nodes) -> list[_Node | None]:
        """The nodes; None for one that makes no sense."""
        buffer = nodes.buffer
        node, place, sound = parse_entries(buffer, nodes.starts, nodes.ends)
        entry = gather(buffer, place, INDEX_ENTRY)
        length, key_length = entry["length"].astype(np.int64), entry["key_length"].astype(np.int64)
        key_at = place + INDEX_ENTRY.itemsize
        count = gather(buffer, key_at, FILE_NAME)["name_length"].astype(np.int64)
        inner = (entry["flags"] & INDEX_ENTRY_SUBNODE) != 0
        fits = (key_length >= FILE_NAME_SIZE) & (FILE_NAME_SIZE + 2 * count <= key_length) & (count > 0)
        fits &= ~inner | (INDEX_ENTRY.itemsize + key_length + 8 <= length)
        edges = np.searchsorted(node, np.arange(len(nodes.starts) + 1))
        # The entry that ends a node has no name, and the child behind all of them.
        stop = nodes.starts.copy()
        filled = np.flatnonzero(np.diff(edges))
        stop[filled] = (place + length)[edges[1:][filled] - 1]
        end = gather(buffer, stop, INDEX_ENTRY)
        end_length, end_inner = end["length"].astype(np.int64), (end["flags"] & INDEX_ENTRY_SUBNODE) != 0
        sound &= ((end["flags"] & INDEX_ENTRY_LAST) != 0) & (end_length % 8 == 0)
        sound &= (end_length >= INDEX_ENTRY.itemsize + 8 * end_inner) & (stop + end_length <= nodes.ends)
        # Entries of one node all have a child or none has.
        bad = np.zeros(len(sound), np.bool_)
        bad[node[~fits | (inner != end_inner[node])]] = True
        sound &= ~bad
        units, offsets = units_of(buffer, key_at + FILE_NAME_SIZE, np.where(fits, count, 0))
        folded, raw = self._upcase[units].astype(">u2").tobytes(), units.astype(">u2").tobytes()
        cuts = (2 * offsets).tolist()
        references = entry["reference"].tolist()
        child = self._child(buffer, place + length, inner & fits).tolist()
        end_child = self._child(buffer, stop + end_length, end_inner & sound).tolist()
        answer: list[_Node | None] = []
        # One slice a name of the few nodes on the way: names are of any length, and bisection wants them apart.
        for i, (a, b) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            if not sound[i]:
                answer.append(None)
                continue
            keys = [folded[cuts[k] : cuts[k + 1]] for k in range(a, b)]
            names = [raw[cuts[k] : cuts[k + 1]] for k in range(a, b)]
            children = [*child[a:b], end_child[i]] if end_inner[i] else []
            answer.append(_Node(keys, names, references[a:b], children))
        return answer

    def _child(self, buffer: UInt8s, ends: Int64s, which: Bools) -> Int64s:
        """The numbers of the blocks that the last 8 bytes of entries name; -1 for the others."""
        number = buffer.view("<u8")[np.where(which, ends - 8, 0) >> 3]
        most = np.uint64((1 << 62) // self._unit)
        good = which & (number < most)
        byte = np.where(good, number, 0).astype(np.int64) * self._unit
        found: Int64s = np.where(good & (byte % self._blocks.size == 0), byte // self._blocks.size, -1)
        return found


def _in_order(node: _Node, low: bytes, high: bytes | None) -> bool:
    """Whether a node's names ascend, between those above it."""
    keys = node.keys
    if not keys:
        return True
    return low <= keys[0] and (high is None or keys[-1] <= high) and all(a <= b for a, b in pairwise(keys))
