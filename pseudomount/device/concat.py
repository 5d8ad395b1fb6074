"""Devices one after the other: a disk in several files, a linear logical volume."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np

from pseudomount.device.contract import BATCH_BUDGET, BlockDevice, ExtentMap, Int64s, UInt8s
from pseudomount.device.layer import read_by_fill
from pseudomount.device.ranges import blame, cut
from pseudomount.errors import PseudomountError, UsageError

__all__ = ["ConcatDevice"]


class ConcatDevice(BlockDevice):
    """The bytes of `parts`, one part after the other. `owns` closes them with it.

    Raises:
        UsageError: together they would pass 2**63 bytes.
    """

    def __init__(self, parts: Sequence[BlockDevice], *, name: str = "concat", owns: bool = False) -> None:
        self.parts = tuple(parts)
        self.name = name
        self.sector_size = self.parts[0].sector_size if self.parts else BlockDevice.sector_size
        self.batch_budget = min((part.batch_budget for part in self.parts), default=BATCH_BUDGET)
        self._owns = owns
        ends = list(accumulate((part.size for part in self.parts), initial=0))
        self._size = ends[-1]
        if self._size >= 1 << 63:
            raise UsageError(f"{name}: {self._size} bytes are more than a device has")
        self._index = ends[:-1]  # where each part begins
        self._starts = np.array(self._index, np.int64)

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        number = bisect_right(self._index, offset) - 1
        part, begin = self.parts[number], self._index[number]
        if offset + length <= begin + part.size:
            return part.read(offset - begin, length)
        return read_by_fill(self, offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        pieces = cut(offsets, lengths, self._starts)
        errors: dict[int, PseudomountError] = {}
        failed: dict[int, PseudomountError] = {}
        order = np.argsort(pieces.cells, kind="stable")
        numbers, first = np.unique(pieces.cells[order], return_index=True)
        # Once a part, whatever the number of ranges: each part gets all that concerns it as one batch.
        for number, mine in zip(numbers.tolist(), np.split(order, first[1:]), strict=True):
            answer = self.parts[number].read_into(
                pieces.offsets[mine] - self._index[number],
                pieces.lengths[mine],
                buffer,
                positions[pieces.rows[mine]] + pieces.within[mine],
            )
            failed.update((int(mine[i]), error) for i, error in answer.items())
        blame(failed, pieces.rows, errors)
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        end = offset + length
        number = bisect_right(self._index, offset) - 1
        found: list[ExtentMap] = []
        while number < len(self.parts) and self._index[number] < end:
            begin, part = self._index[number], self.parts[number]
            low, high = max(offset - begin, 0), min(end - begin, part.size)
            known = part.extents(low, high - low)
            found.append(ExtentMap(known.offsets + begin, known.lengths, known.kinds))
            number += 1
        return ExtentMap.merged(
            np.concatenate([known.offsets for known in found]),
            np.concatenate([known.lengths for known in found]),
            np.concatenate([known.kinds for known in found]),
        )

    def _close(self) -> None:
        if self._owns:
            for part in self.parts:
                part.close()
