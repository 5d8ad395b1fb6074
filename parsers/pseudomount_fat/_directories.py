"""The entries of many directories, read off the volume in few batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, stream_many
from pseudomount.errors import PseudomountError, TruncatedError
from pseudomount_fat._layout import ENTRY

__all__ = ["DirectoryTable", "read_directories"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

#: Bytes read of a directory at first; an exFAT directory of ten files often has a cluster of 128 KiB.
_FIRST_WINDOW = 8 << 10
_GROWTH = 8
_LAST_WINDOW = 4 << 20


@dataclass(frozen=True, slots=True)
class DirectoryTable:
    """Entries of directories up to their end marks, one directory after the other.

    Attributes:
        table: uint8 (n, 32).
        owner: int64 (n,), number of the directory, ascending.
        position: int64 (n,), bytes from the start of the volume.
        errors: number of a directory → why a part of it could not be read.
    """

    table: UInt8s
    owner: Int64s
    position: Int64s
    errors: dict[int, PseudomountError]


def read_directories(
    device: BlockDevice, owner: Int64s, length: Int64s, position: Int64s, *, barrier: int, most: int | None = None
) -> DirectoryTable:
    """Reads directories until their end mark (an entry that begins with zero) or their last run.

    Args:
        owner: int64 (m,), number of the directory that a run belongs to, ascending.
        length, position: int64 (m,), bytes, of the run; those of a directory are in order.
        barrier: first byte of the entries that stand for what could not be read.
        most: bytes to read of each at most.
    """
    errors: dict[int, PseudomountError] = {}
    ends = np.cumsum(length)
    before = ends - length
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    offset = before - np.repeat(before[first], np.diff(np.append(first, len(owner))))
    length = length // ENTRY * ENTRY
    if most is not None:
        length = np.clip(most - offset, 0, length)
    tables: list[UInt8s] = [np.empty((0, ENTRY), np.uint8)]
    owners: list[Int64s] = [np.empty(0, np.int64)]
    positions: list[Int64s] = [np.empty(0, np.int64)]
    begin, window = 0, _FIRST_WINDOW
    active = length > 0
    while active.any():
        low = np.maximum(offset[active], begin)
        high = np.minimum(offset[active] + length[active], begin + window)
        rows = np.flatnonzero(active)[high > low]
        low, high = low[high > low], high[high > low]
        at = position[rows] + low - offset[rows]
        data = _read(device, at, high - low, owner[rows], barrier, errors)
        counts = (high - low) // ENTRY
        table = data.reshape(-1, ENTRY)
        who = np.repeat(owner[rows], counts)
        where = np.repeat(at, counts) + ENTRY * (np.arange(len(table)) - np.repeat(np.cumsum(counts) - counts, counts))
        zero = np.flatnonzero(table[:, 0] == 0)
        if len(zero):
            mark = zero[np.diff(who[zero], prepend=-1) > 0]
            done = who[mark]
            # The rest of each directory that has its mark: up and down again where the next one begins.
            change = np.zeros(len(table) + 1, np.int8)
            change[mark] += 1
            change[np.searchsorted(who, done, "right")] -= 1
            live = np.flatnonzero(np.cumsum(change[:-1], dtype=np.int8) == 0)
            table, who, where = table.take(live, axis=0), who[live], where[live]
            active &= ~np.isin(owner, done)
        tables.append(table)
        owners.append(who)
        positions.append(where)
        begin += window
        window = min(window * _GROWTH, _LAST_WINDOW)
        active &= offset + length > begin
    if len(tables) == 2:
        return DirectoryTable(tables[1], owners[1], positions[1], errors)
    every = np.concatenate(owners)
    order = np.argsort(every, kind="stable")
    return DirectoryTable(np.concatenate(tables)[order], every[order], np.concatenate(positions)[order], errors)


def _read(
    device: BlockDevice, at: Int64s, length: Int64s, owner: Int64s, barrier: int, errors: dict[int, PseudomountError]
) -> UInt8s:
    """The bytes of ranges one after the other; what fails is barriers, and its owner's error."""
    inside = np.clip(device.size - at, 0, length) // ENTRY * ENTRY
    for i in np.flatnonzero(inside < length).tolist():
        errors.setdefault(
            int(owner[i]),
            TruncatedError(
                "a directory beyond the end of the device", device=device.name, offset=int(at[i]), structure="directory"
            ),
        )
    parts = []
    whole = bool((inside == length).all())
    begins = np.cumsum(length) - length
    result = np.full(0 if whole else int(length.sum()), barrier, np.uint8)
    for step in stream_many(device, np.minimum(at, device.size), inside):
        batch = step.batch
        buffer = batch.buffer
        for i, error in batch.errors.items():
            errors.setdefault(int(owner[step.ranges[i]]), error)
            begin = int(batch.positions[i])
            buffer[begin : begin + int(batch.lengths[i])] = barrier
        if whole:
            parts.append(buffer)
            continue
        targets = begins[step.ranges] + step.within
        for i, (to, n) in enumerate(zip(targets.tolist(), batch.lengths.tolist(), strict=True)):
            begin = int(batch.positions[i])
            result[to : to + n] = buffer[begin : begin + n]
    if not whole:
        return result
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
