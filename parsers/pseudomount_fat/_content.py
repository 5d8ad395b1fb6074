"""A file's bytes: runs of the volume, zeros where nothing was written, an error where its chain broke off."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, ExtentKind, ExtentMap, stream_many
from pseudomount.errors import OutOfRangeError, PseudomountError, TruncatedError

__all__ = ["FileContent"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]


class FileContent(BlockDevice):
    """The content of one file.

    Args:
        device: the volume; not closed with the file.
        size: bytes of the file.
        lengths: int64 (k,), bytes of the runs, the first at the start of the file, each after the one before.
        positions: int64 (k,), bytes from the start of the volume; -1 for a run that reads as zeros.
        error: what reading past the last run raises, where the runs do not cover the file.
    """

    def __init__(
        self,
        device: BlockDevice,
        name: str,
        size: int,
        lengths: Int64s,
        positions: Int64s,
        error: PseudomountError | None,
    ) -> None:
        self.name = name
        self.sector_size = device.sector_size
        self._device = device
        self._size = size
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._positions = positions
        self._error = error

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        run = int(np.searchsorted(self._ends, offset, "right"))
        if run < len(self._ends) and offset + length <= int(self._ends[run]):
            position = int(self._positions[run])
            if position < 0:
                return bytes(length)
            position += offset - int(self._starts[run])
            if position + length > self._device.size:
                raise self._beyond(position)
            return self._device.read(position, length)
        buffer = np.empty(length, np.uint8)
        errors = self._fill(np.array([offset]), np.array([length]), buffer, np.array([0]))
        if errors:
            raise errors[0]
        return buffer.tobytes()

    def _beyond(self, position: int) -> TruncatedError:
        return TruncatedError("content beyond the end of the device", device=self._device.name, offset=position)

    def _damage(self, error: PseudomountError, position: int) -> PseudomountError:
        return self._beyond(position) if isinstance(error, OutOfRangeError) else error

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        errors: dict[int, PseudomountError] = {}
        covered = int(self._ends[-1]) if len(self._ends) else 0
        if self._error is not None:
            errors.update(dict.fromkeys(np.flatnonzero(offsets + lengths > covered).tolist(), self._error))
        rows, begin, length, source = self._pieces(offsets, lengths)
        target = positions[rows] + begin - offsets[rows]
        if len(rows) and bool((source < 0).any()):
            zeros = np.flatnonzero(source < 0)
            for at, count in zip(target[zeros].tolist(), length[zeros].tolist(), strict=True):
                buffer[at : at + count] = 0
            data = np.flatnonzero(source >= 0)
            rows, length, source, target = rows[data], length[data], source[data], target[data]
        for step in stream_many(self._device, source, length):
            if not len(step.ranges):
                continue
            for i, error in step.batch.errors.items():
                errors[int(rows[step.ranges[i]])] = self._damage(error, int(source[step.ranges[i]]))
            # Pieces lie in the answer one after the other, mostly in the target, too: what does is copied in one go.
            to = target[step.ranges] + step.within
            origin, count = step.batch.positions, step.batch.lengths
            first = np.flatnonzero(np.concatenate([[True], np.diff(to - origin) != 0]))
            last = np.append(first[1:], len(to)) - 1
            sizes = origin[last] + count[last] - origin[first]
            for a, b, n in zip(to[first].tolist(), origin[first].tolist(), sizes.tolist(), strict=True):
                buffer[a : a + n] = step.batch.buffer[b : b + n]
        return errors

    def _pieces(self, offsets: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """Number of the range, offset in the file, length and position of each piece of a run that a range needs."""
        first = np.searchsorted(self._ends, offsets, "right")
        stop = np.searchsorted(self._starts, offsets + lengths, "left")
        counts = np.maximum(stop - first, 0)
        rows = np.repeat(np.arange(len(offsets)), counts)
        run = np.arange(len(rows)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
        begin = np.maximum(self._starts[run], offsets[rows])
        end = np.minimum(self._ends[run], (offsets + lengths)[rows])
        position = self._positions[run]
        return rows, begin, end - begin, np.where(position < 0, -1, position + begin - self._starts[run])

    def _extents(self, offset: int, length: int) -> ExtentMap:
        _, begin, count, source = self._pieces(np.array([offset]), np.array([length]))
        kinds = np.where(source < 0, ExtentKind.ZERO, ExtentKind.DATA).astype(np.uint8)
        reached = int(begin[-1] + count[-1]) if len(begin) else offset
        if reached < offset + length:
            begin, count = np.append(begin, reached), np.append(count, offset + length - reached)
            kinds = np.append(kinds, np.uint8(ExtentKind.DATA))
        return ExtentMap.merged(begin, count, kinds)
