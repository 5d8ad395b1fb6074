"""Single entries of directories, read where their ids say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, stream_many
from pseudomount.device.ranges import coalesce
from pseudomount.errors import OutOfRangeError, PseudomountError, TruncatedError

__all__ = ["read_entries"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

#: Bytes between two entries that are read in vain rather than asked for separately.
_GAP = 4096


def read_entries(device: BlockDevice, at: Int64s, length: Int64s) -> tuple[UInt8s, dict[int, PseudomountError]]:
    """Bytes at n positions one after the other, neighbours read together; those of a failed one are zeros."""
    if len(at) == 1:
        try:
            return np.frombuffer(device.read(int(at[0]), int(length[0])), np.uint8), {}
        except PseudomountError as error:
            return np.zeros(int(length[0]), np.uint8), {0: _beyond(device, error, int(at[0]))}
    joined = coalesce(at, length, gap=_GAP, limit=1 << 20)
    begins = np.cumsum(length) - length
    result = np.zeros(int(length.sum()), np.uint8)
    errors: dict[int, PseudomountError] = {}
    order = np.argsort(joined.group, kind="stable")
    groups = joined.group[order]
    column = np.arange(int(length.max(initial=0)))
    for step in stream_many(device, joined.offsets, joined.lengths):
        # Ranges of at most a mebibyte are seldom cut: only where the device's own budget is smaller than that.
        low, high = (
            np.searchsorted(groups, step.ranges[0], "left"),
            np.searchsorted(groups, step.ranges[-1], "right"),
        )
        rows, piece = order[low:high], groups[low:high] - step.ranges[0]
        batch = step.batch
        within = at[rows] - joined.offsets[groups[low:high]] - step.within[piece]
        index = within[:, None] + column
        good = (index >= 0) & (index < batch.lengths[piece][:, None]) & (column < length[rows, None])
        index += batch.positions[piece][:, None]
        if batch.errors:
            failed = np.isin(piece, list(batch.errors))
            good[failed] = False
            for i, k in zip(rows[failed].tolist(), piece[failed].tolist(), strict=True):
                offset = int(joined.offsets[step.ranges[k]])
                errors.setdefault(i, _beyond(device, batch.errors[k], offset))
        target = begins[rows, None] + column
        result[target[good]] = batch.buffer[index[good]]
    return result, errors


def _beyond(device: BlockDevice, error: PseudomountError, offset: int) -> PseudomountError:
    if isinstance(error, OutOfRangeError):
        return TruncatedError("beyond the end of the device", device=device.name, offset=offset)
    return error
