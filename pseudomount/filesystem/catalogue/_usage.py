"""What directories hold, summed up level by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.filesystem.catalogue._arrow import arrow, is_null, numbers, text
from pseudomount.filesystem.rows import FileType

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue
    from pseudomount.filesystem.catalogue._directories import Directories

__all__ = ["usage"]

Int64s = NDArray[np.int64]


def usage(catalogue: Catalogue, depth: int | None, top: int) -> pa.Table:
    """See `Catalogue.du`."""
    tree, table = catalogue.directories, catalogue.arrow
    parent = table["parent"]
    above = tree.find(numbers(parent, 0))
    mine = (above >= 0) & ~numbers(table["deleted"]) & ~is_null(parent)
    rows = np.flatnonzero(mine)
    _, first = np.unique(numbers(table["file"])[rows], return_index=True)
    rows = rows[np.sort(first)]
    place = above[rows]
    folders = catalogue.type_codes[rows] == FileType.DIRECTORY
    # A directory's own size is its table's; what it holds is asked for here.
    columns = {
        "files": (~folders).astype(np.int64),
        "directories": folders.astype(np.int64),
        "size": np.where(folders, 0, numbers(table["size"], 0)[rows]),
        "allocated": numbers(table["allocated"], 0)[rows],
    }
    sums = {name: _summed(tree, place, values) for name, values in columns.items()}
    inside = tree.below(top)
    if depth is not None:
        inside &= tree.depth <= tree.depth[top] + depth
    wanted = np.flatnonzero(inside)
    paths = pc.replace_with_mask(tree.prefixes(wanted), arrow(tree.depth[wanted] == 0), text("/"))
    found = pa.table({"path": paths, **{name: arrow(total[wanted]) for name, total in sums.items()}})
    return found.sort_by("path")


def _summed(tree: Directories, place: Int64s, values: Int64s) -> Int64s:
    """int64 (D,): the values (n,) that lie in or below each directory; at most what int64 holds, however forged."""
    if float(values.sum(dtype=np.float64)) < 1 << 62:
        return _added(tree, place, values)
    high, low = _added(tree, place, values >> 32), _added(tree, place, values & 0xFFFFFFFF)
    high += low >> 32
    return np.where(high < 1 << 31, high << 32 | low & 0xFFFFFFFF, np.iinfo(np.int64).max)


def _added(tree: Directories, place: Int64s, values: Int64s) -> Int64s:
    total = np.zeros(len(tree.ids), np.int64)
    np.add.at(total, place, values)
    for level in tree.upward():
        np.add.at(total, tree.parent[level], total[level])
    return total
