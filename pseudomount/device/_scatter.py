"""Copying many pieces of one buffer to their places in another."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

__all__ = ["scatter", "zero"]

Int64s: TypeAlias = NDArray[np.int64]
UInt8s: TypeAlias = NDArray[np.uint8]

#: Up to so many pieces a loop over slices is fastest.
_FEW = 8
#: Bytes of a piece from which its copying outweighs a loop's step.
_LONG = 4096
#: So many pieces of one length at least are copied at once.
_MANY = 32


def scatter(source: UInt8s, starts: Int64s, target: UInt8s, positions: Int64s, lengths: Int64s) -> None:
    """`target[positions[i]:][:lengths[i]] = source[starts[i]:][:lengths[i]]` for all i.

    The pieces lie inside both buffers; those of the target do not overlap.
    """
    rows = np.arange(len(lengths))
    if len(lengths) > _FEW:
        small = lengths < _LONG
        if small.any():
            sizes, group = np.unique(lengths[small], return_inverse=True)
            where = np.flatnonzero(small)
            order = np.argsort(group, kind="stable")
            cuts = np.searchsorted(group[order], np.arange(len(sizes) + 1))
            loose = [np.flatnonzero(~small)]
            for i, size in enumerate(sizes.tolist()):
                mine = where[order[cuts[i] : cuts[i + 1]]]
                if len(mine) < _MANY:
                    loose.append(mine)
                else:
                    _windows(target, size)[positions[mine]] = _windows(source, size)[starts[mine]]
            rows = np.concatenate(loose)
    for start, position, length in zip(
        starts[rows].tolist(), positions[rows].tolist(), lengths[rows].tolist(), strict=True
    ):
        target[position : position + length] = source[start : start + length]


def zero(target: UInt8s, positions: Int64s, lengths: Int64s) -> None:
    """Zeros for all of `target[positions[i]:][:lengths[i]]`."""
    if len(lengths) > _FEW:
        # Neighbours in the target become one run.
        order = np.argsort(positions, kind="stable")
        positions, lengths = positions[order], lengths[order]
        first = np.flatnonzero(np.concatenate(([True], positions[1:] != positions[:-1] + lengths[:-1])))
        positions, lengths = positions[first], np.add.reduceat(lengths, first)
        size = int(lengths[0])
        if len(lengths) > _MANY and size < _LONG and bool((lengths == size).all()):
            _windows(target, size)[positions] = 0
            return
    for position, length in zip(positions.tolist(), lengths.tolist(), strict=True):
        target[position : position + length] = 0


def _windows(buffer: UInt8s, size: int) -> UInt8s:
    """Row i is the `size` bytes from i: a view, in which rows overlap."""
    return as_strided(buffer, (max(len(buffer) - size + 1, 0), size), (1, 1), writeable=buffer.flags.writeable)
