"""Reading many records or blocks of one size, with an error for each that failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.device.ranges import coalesce
from pseudomount.errors import PseudomountError, TruncatedError

__all__ = ["CHUNK", "Int64s", "Rows", "UInt8s", "UInt32s", "read_rows", "stretches"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]
UInt32s = NDArray[np.uint32]

#: Bytes that one step of a longer piece of work keeps in memory.
CHUNK: Final = 16 << 20


def stretches(group: Int64s) -> Iterator[tuple[int, int]]:
    """(first, end) of each stretch of equal numbers."""
    if len(group):
        firsts = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1]))).tolist()
        yield from zip(firsts, [*firsts[1:], len(group)], strict=True)


@dataclass(frozen=True, slots=True)
class Rows:
    """Records of one size.

    Attributes:
        data: uint8 (n, length); zeros where the row has an error.
        errors: row → why it could not be read.
    """

    data: UInt8s
    errors: dict[int, PseudomountError]

    def ok(self) -> NDArray[np.bool_]:
        """bool (n,): which rows were read."""
        good = np.ones(len(self.data), np.bool_)
        if self.errors:
            good[list(self.errors)] = False
        return good


def read_rows(device: BlockDevice, offsets: Int64s, length: int, structure: str, gap: int = 0) -> Rows:
    """Reads `length` bytes at each offset, neighbours in one range.

    Args:
        device: where from.
        offsets: int64 (n,), bytes; any order. The answer takes n * length bytes of memory: the caller bounds n.
        length: bytes of each record.
        structure: what messages call a record.
        gap: bytes that may be read in vain to join two records.
    """
    data = np.zeros((len(offsets), length), np.uint8)
    errors: dict[int, PseudomountError] = {}
    inside = (offsets >= 0) & (offsets <= device.size - length)
    for i in np.flatnonzero(~inside).tolist():
        errors[i] = TruncatedError(
            f"{structure} at {int(offsets[i])} is past the end of {device.name}",
            device=device.name,
            offset=int(offsets[i]),
            structure=structure,
        )
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(offsets[rows], kind="stable")]
    step = max(1, min(CHUNK, device.batch_budget) // (length + gap))
    for first in range(0, len(rows), step):
        _read_step(device, offsets, length, gap, rows[first : first + step], data, errors)
    return Rows(data, errors)


def _read_step(
    device: BlockDevice,
    offsets: Int64s,
    length: int,
    gap: int,
    rows: Int64s,
    data: UInt8s,
    errors: dict[int, PseudomountError],
) -> None:
    wanted = offsets[rows]
    joined = coalesce(wanted, np.full(len(rows), length, np.int64), gap=gap)
    batch = device.read_many(joined.offsets, joined.lengths)
    good = batch.ok()[joined.group]
    if good.any():
        begins = batch.positions[joined.group] + wanted - joined.offsets[joined.group]
        data[rows[good]] = sliding_window_view(batch.buffer, length)[begins[good]]
    if good.all():
        return
    # One bad sector fails a whole joined range: ask for its records one by one, so that only those on it are lost.
    failed = rows[~good]
    again = device.read_many(offsets[failed], length)
    for i, row in enumerate(failed.tolist()):
        if i in again.errors:
            errors[row] = again.errors[i]
        else:
            data[row] = again.view(i)
