"""Pieces of extents that are fetched as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pseudomount.extents import Resolved

__all__ = ["BLOCK", "BLOCK_CODEC", "Key", "Units", "divided", "grouped", "keys", "of_blocks", "of_extents"]

Int64s: TypeAlias = NDArray[np.int64]
Key: TypeAlias = tuple[int | bytes, ...]

#: Bytes of a cached block of raw data.
BLOCK = 64 << 10
#: In the column of codecs: a block of raw data, which may end early.
BLOCK_CODEC = -1


@dataclass(frozen=True, slots=True)
class Units:
    """Pieces (m,) of units: what to fetch, and where which part of it goes."""

    number: Int64s
    start: Int64s
    stored: Int64s
    codec: Int64s
    decoded: Int64s
    identity: NDArray[np.uint8] | None
    skip: Int64s
    length: Int64s
    target: Int64s
    ranges: Int64s
    offset: Int64s


def of_extents(pieces: Resolved, target: Int64s, *, identities: bool) -> Units:
    """Units that are whole extents: `target` is where each piece goes, `identities` whether these matter."""
    raw = pieces.codec == 0  # to be verified: the whole extent, not just the piece
    stored = np.where(raw, pieces.decoded_length, pieces.stored_length)
    # The stored length may be a bound, and a forged one; nothing that is stored sensibly needs more than this.
    sensible = 2 * np.minimum(pieces.decoded_length, 1 << 61) + BLOCK
    return Units(
        pieces.object,
        pieces.object_offset - np.where(raw, pieces.skip, 0),
        np.clip(stored, 1, sensible),
        pieces.codec,
        pieces.decoded_length,
        pieces.identity if identities else None,
        pieces.skip,
        pieces.length,
        target,
        pieces.ranges,
        pieces.offset,
    )


def of_blocks(pieces: Resolved, target: Int64s) -> Units:
    """Units that are blocks of raw bytes."""
    row, within, length = divided(pieces.length, pieces.object_offset % BLOCK, BLOCK)
    at = pieces.object_offset[row] + within
    size = np.full(len(row), BLOCK, np.int64)
    return Units(
        pieces.object[row],
        at // BLOCK * BLOCK,
        size,
        np.full(len(row), BLOCK_CODEC, np.int64),
        size,
        None,
        at % BLOCK,
        length,
        target[row] + within,
        pieces.ranges[row],
        pieces.offset[row] + within,
    )


def divided(lengths: Int64s, phase: Int64s, limit: int) -> tuple[Int64s, Int64s, Int64s]:
    """Cuts pieces wherever `phase` plus the way into the piece is a multiple of `limit`.

    Returns (piece, bytes into it, length) for each part.
    """
    count = (phase + lengths + limit - 1) // limit
    row = np.repeat(np.arange(len(lengths)), count)
    nth = np.arange(len(row), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    begin = np.maximum(nth * limit - phase[row], 0)
    end = np.minimum((nth + 1) * limit - phase[row], lengths[row])
    return row, begin, end - begin


def grouped(pieces: Units) -> tuple[Int64s, Int64s]:
    """An order in which the pieces of a unit follow each other, and where in it each unit begins."""
    columns = [pieces.number, pieces.start, pieces.stored, pieces.codec, pieces.decoded]
    if pieces.identity is not None:
        columns += list(np.ascontiguousarray(pieces.identity).view(np.int64).T)
    order = np.lexsort(columns[::-1])
    differs = np.zeros(len(order), np.bool_)
    differs[:1] = True
    for column in columns:
        ordered = column[order]
        differs[1:] |= ordered[1:] != ordered[:-1]
    return order, np.flatnonzero(differs)


def keys(pieces: Units, rows: Int64s | None = None) -> list[Key]:
    """What tells units apart, for some pieces or all."""
    rows = np.arange(len(pieces.number)) if rows is None else rows
    columns: list[list[int] | list[bytes]] = [
        column[rows].tolist() for column in (pieces.number, pieces.start, pieces.stored, pieces.codec, pieces.decoded)
    ]
    if pieces.identity is not None:
        columns.append([row.tobytes() for row in pieces.identity[rows]])
    return list(zip(*columns, strict=True))
