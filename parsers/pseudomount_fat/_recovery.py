"""The clusters of deleted files, as far as nobody else has them by now."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount_fat._entries import Nodes
from pseudomount_fat._table import AllocationTable

__all__ = ["deleted_runs"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]


def deleted_runs(
    nodes: Nodes,
    wanted: Int64s,
    table: AllocationTable,
    free: Callable[[Int64s, Int64s], Bools],
    errors: dict[int, PseudomountError],
    *,
    keeps_chains: bool,
) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Where deleted files can still lie.

    Args:
        nodes: of files, deleted or not.
        wanted: int64 (n,), clusters of each.
        table: the FAT.
        free: which runs of clusters, by starts and counts, are known to be free.
        errors: gets those of the files whose clusters are not all free.
        keeps_chains: whether chains are left in the FAT: a file whose chain is as long as the file lies there.

    Returns:
        Of each run: row of the file, clusters of the file before it, first cluster, clusters. Without a chain they
        follow one another: a guess.
    """
    clusters = table.shape.clusters
    rows = np.flatnonzero(nodes.gone & (wanted > 0))
    count = np.where(nodes.directory & (nodes.size < 0), 1, wanted)[rows]
    first = nodes.first[rows]
    inside = (first >= 2) & (count <= clusters) & (first + np.minimum(count, clusters) <= clusters + 2)
    chained = np.flatnonzero(~nodes.contiguous[rows] & (count > 1)) if keeps_chains else rows[:0]
    chains = table.chains(first[chained], count[chained], exact=True)
    unused = free(chains.start, chains.count)
    lost = np.union1d(chains.owner[~unused], np.append(chains.longer, list(chains.errors))).astype(np.int64)
    whole = np.ones(len(chained), np.bool_)
    whole[lost] = False
    kept = whole[chains.owner]
    inside[chained[whole]] = False
    good = inside.copy()
    good[inside] = free(first[inside], count[inside])
    for i in rows[~good].tolist():
        errors[i] = CorruptionError("its clusters have been given to other files", structure="directory entry")
    for i in rows[~inside].tolist():
        errors[i] = CorruptionError("its clusters lie outside the volume", structure="directory entry")
    for i in rows[chained[whole]].tolist():
        del errors[i]
    return (
        np.concatenate([rows[good], rows[chained[chains.owner[kept]]]]),
        np.concatenate([np.zeros(int(good.sum()), np.int64), chains.logical[kept]]),
        np.concatenate([first[good], chains.start[kept]]),
        np.concatenate([count[good], chains.count[kept]]),
    )
