"""What the indexes share: checking ranges, and putting pieces together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import OutOfRangeError, PseudomountError, UsageError
from pseudomount.extents.contract import ExtentIndex, Kind, Resolved

__all__ = ["assemble", "check_ranges", "holes", "walk"]

Int64s = NDArray[np.int64]


def check_ranges(offsets: ArrayLike, lengths: ArrayLike, size: int) -> tuple[Int64s, Int64s]:
    """Both as int64 (n,).

    Raises:
        OutOfRangeError: a range is not inside `size` bytes.
        UsageError: the arrays do not fit each other or hold no whole numbers.
    """
    offs, lens = _whole(np.asarray(offsets)), _whole(np.asarray(lengths))
    if offs.ndim != 1 or offs.shape != lens.shape:
        raise UsageError(f"ranges of shapes {offs.shape} and {lens.shape} do not fit")
    bad = (offs < 0) | (lens < 0) | (lens > size) | (offs > size - np.clip(lens, 0, size))
    if bad.any():
        i = int(np.argmax(bad))
        raise OutOfRangeError(f"{lens[i]} bytes at {offs[i]} are not inside the disk's {size} bytes")
    return offs, lens


def _whole(values: NDArray[np.generic]) -> Int64s:
    if values.size == 0:
        return np.zeros(values.shape, np.int64)
    if values.dtype.kind not in "iu":
        raise UsageError(f"offsets and lengths are whole numbers, not {values.dtype}")
    if values.dtype == np.uint64 and int(values.max()) >= 1 << 63:
        raise OutOfRangeError("an offset or length of 2**63 or more")
    return values.astype(np.int64, copy=False)


def holes(ranges: Int64s, offset: Int64s, length: Int64s) -> Resolved:
    """Pieces that are holes."""
    none = np.zeros(len(offset), np.int64)
    kind = np.full(len(offset), Kind.HOLE, np.uint8)
    return Resolved(ranges, offset, length, kind, none, none, none, none, none, none)


def assemble(parts: Sequence[Resolved], errors: Mapping[int, PseudomountError]) -> Resolved:
    """One answer out of parts whose `ranges` already count the ranges asked for.

    Pieces come in order; those of a range that failed are dropped. The errors of the parts themselves are not looked
    at.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        none = np.empty(0, np.int64)
        return Resolved(none, none, none, np.empty(0, np.uint8), none, none, none, none, none, none, None, dict(errors))
    identity = None
    if any(part.identity is not None for part in parts):
        identity = np.concatenate(
            [np.zeros((len(p), 32), np.uint8) if p.identity is None else p.identity for p in parts]
        )

    def joined(name: str) -> Int64s:
        column: Int64s = np.concatenate([getattr(part, name) for part in parts])
        return column

    whole = Resolved(
        joined("ranges"),
        joined("offset"),
        joined("length"),
        np.concatenate([part.kind for part in parts]),
        joined("object"),
        joined("object_offset"),
        joined("stored_length"),
        joined("codec"),
        joined("skip"),
        joined("decoded_length"),
        identity,
    )
    # Pieces of one range do not overlap, so range and offset give their order.
    order = np.lexsort((whole.offset, whole.ranges))
    if errors:
        failed = np.array(sorted(errors), np.int64)
        order = order[~np.isin(whole.ranges[order], failed)]
    return replace(whole.take(order), errors=dict(errors))


def walk(index: ExtentIndex, offset: int, length: int, *, pieces: int = 1 << 18) -> Iterator[tuple[int, int, Resolved]]:
    """Resolves a long range in steps of about `pieces` pieces: (offset, length, answer) for each step.

    Steps grow over what is sparse and shrink over what is fragmented, so that neither a disk that claims 8 EiB nor
    one of tiny extents needs more than a few thousand steps or more memory than some steps' pieces.
    """
    at, end = offset, offset + length
    step = 1 << 30
    largest = max(64 << 30, length >> 10)
    while at < end:
        step = max(1 << 20, min(step, largest))
        here = min(step, end - at, max(1 << 20, index.reach(at, pieces)))
        answer = index.resolve([at], [here])
        yield at, here, answer
        at += here
        if len(answer) < pieces // 4:
            step = step * 2
        elif len(answer) > pieces:
            step = step // 4
