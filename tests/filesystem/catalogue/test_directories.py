"""The tree of directories compared with a naive one, on graphs that no sound disk has."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pseudomount.errors import BatchTooLargeError
from pseudomount.filesystem.catalogue import _directories
from pseudomount.filesystem.catalogue._columns import positions
from pseudomount.filesystem.catalogue._directories import Directories

Edge = tuple[int, int, bool, str]  # directory, the one it is in, whether the name was deleted, the name

IDS = st.integers(1, 9)
EDGES = st.lists(st.tuples(IDS, IDS, st.booleans(), st.sampled_from(["a", "bb", "é", "d d"])), max_size=24)


def _tree(root: int, edges: list[Edge]) -> Directories:
    """Row 0 of the names is another file's, so that rows and positions differ."""
    return Directories.of(
        root,
        np.array([edge[0] for edge in edges], np.uint64),
        np.array([edge[1] for edge in edges], np.uint64),
        np.arange(1, len(edges) + 1),
        np.array([edge[2] for edge in edges], np.bool_),
        pa.chunked_array([pa.array(["other", *(edge[3] for edge in edges)], pa.string())]),
    )


def _naive(root: int, edges: list[Edge], most: int) -> tuple[dict[int, tuple[int, int, str]], bool]:
    """Directory → (depth, row, path), as a walk comes by them, and then those that only deleted names lead to."""
    known = {edge[0] for edge in edges} | {root}
    found = {root: (0, -1, "")}
    deep = False
    for deleted in (False, True):
        level = sorted(found)
        while level:
            below = []
            for above in level:
                for row, (file, parent, gone, name) in enumerate(edges, 1):
                    if parent != above or file in found or (gone and not deleted) or parent not in known:
                        continue
                    if found[above][0] + 1 > most:
                        deep = True
                        continue
                    found[file] = (found[above][0] + 1, row, f"{found[above][2]}/{name}")
                    below.append(file)
            level = below
    return found, deep


@given(EDGES, IDS, st.sampled_from([2, 4096]))
@example([(1, 2, False, "a"), (1, 3, True, "a"), (2, 4, False, "a"), (4, 3, False, "a")], 3, 2)
@example([(1, 2, False, "a"), (2, 1, False, "b"), (3, 3, False, "c"), (4, 4, False, "d")], 4, 4096)
def test_equal_to_a_naive_walk(edges: list[Edge], root: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_directories, "MAX_DEPTH", most)
        tree = _tree(root, edges)
    truth, deep = _naive(root, edges, most)
    everyone = sorted({edge[0] for edge in edges} | {root})
    assert tree.ids.tolist() == everyone
    assert tree.too_deep == deep
    assert {int(i) for i in tree.ids[tree.depth >= 0]} == set(truth)
    asked = np.array(sorted(truth), np.uint64)
    place = tree.find(asked)
    assert tree.depth[place].tolist() == [truth[int(i)][0] for i in asked]
    assert tree.row[place].tolist() == [truth[int(i)][1] for i in asked]
    paths = [truth[int(i)][2] for i in asked]
    assert tree.prefixes(place).to_pylist() == paths
    assert tree.lengths()[place].tolist() == [len(path.encode()) for path in paths]
    assert tree.find(np.array([0, 10], np.uint64)).tolist() == [-1, -1]
    lost = [i for i in everyone if i not in truth]
    assert (tree.find(np.array(lost, np.uint64)) == -1).all()
    for start in asked.tolist():
        top = truth[start][2]
        inside = tree.below(int(tree.find(np.array([start], np.uint64))[0]))
        under = {i for i, (_, _, path) in truth.items() if _lies_in(tree, i, start)}
        assert {int(i) for i in tree.ids[inside]} == under, top


def _lies_in(tree: Directories, file: int, top: int) -> bool:
    at = int(tree.find(np.array([file], np.uint64))[0])
    goal = int(tree.find(np.array([top], np.uint64))[0])
    while at != goal:
        if tree.depth[at] == 0:
            return False
        at = int(tree.parent[at])
    return True


def test_prefixes_of_some_and_of_none() -> None:
    tree = _tree(1, [(2, 1, False, "a"), (3, 2, False, "b"), (4, 3, False, "c"), (5, 1, False, "z")])
    assert tree.prefixes(np.array([3, 1, 3, 0])).to_pylist() == ["/a/b/c", "/a", "/a/b/c", ""]
    assert tree.prefixes(np.empty(0, np.int64)).to_pylist() == []


def test_paths_past_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = _tree(1, [(2, 1, False, "a"), (3, 2, False, "b")])
    monkeypatch.setattr(_directories, "MOST_BYTES", 5)
    with pytest.raises(BatchTooLargeError):
        tree.prefixes(np.array([2, 1]))
    assert tree.prefixes(np.array([2])).to_pylist() == ["/a/b"]


@given(
    st.lists(st.integers(0, (1 << 64) - 1) | st.integers(0, 40) | st.integers(0, 3).map(lambda k: (k << 48) + 7)),
    st.data(),
)
def test_positions_of_ids(ids: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, (1 << 64) - 1) | st.sampled_from([*ids, 5, 1 << 63])))
    found = positions(np.array(ids, np.uint64), np.array(values, np.uint64))
    assert found.tolist() == [ids.index(value) if value in ids else -1 for value in values]
