"""A window onto a device: a partition."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index

import numpy as np

from pseudomount.device.contract import BlockDevice, ExtentKind, ExtentMap, Int64s, UInt8s
from pseudomount.device.layer import Layer
from pseudomount.errors import PseudomountError, TruncatedError, UsageError

__all__ = ["SliceDevice"]


class SliceDevice(Layer):
    """`size` bytes of another device, from `offset`.

    The window may reach past the inner device's end, as a partition does in an image that was cut short: the device
    has the size claimed, and ranges that touch what is missing fail with `TruncatedError`, one by one.

    Raises:
        UsageError: offset or size is negative or past 2**63.
    """

    def __init__(self, inner: BlockDevice, offset: int, size: int, *, name: str = "", owns: bool = False) -> None:
        super().__init__(inner, name=name, owns=owns)
        offset, size = index(offset), index(size)
        if offset < 0 or size < 0 or offset + size >= 1 << 63:
            raise UsageError(f"{self.name}: no device has {size} bytes at {offset}")
        self.offset = offset
        self._size = size
        self._there = min(max(inner.size - offset, 0), size)  # bytes of the window that the inner device has

    @property
    def size(self) -> int:
        """Bytes, as claimed."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        if offset + length > self._there:
            raise self._missing(offset, length)
        return self.inner.read(self.offset + offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        if self._there == self._size:
            return self.inner.read_into(offsets + self.offset, lengths, buffer, positions)
        missing = offsets + lengths > self._there
        errors: dict[int, PseudomountError] = {
            row: self._missing(int(offsets[row]), int(lengths[row])) for row in np.flatnonzero(missing).tolist()
        }
        rows = np.flatnonzero(~missing)
        if len(rows):
            failed = self.inner.read_into(offsets[rows] + self.offset, lengths[rows], buffer, positions[rows])
            errors.update((int(rows[i]), error) for i, error in failed.items())
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        inside = min(length, max(self._there - offset, 0))
        known = self.inner.extents(self.offset + offset, inside) if inside else ExtentMap.single(0, 0)
        rest = ExtentMap.single(offset + inside, length - inside, ExtentKind.DATA)  # unknown is data
        return ExtentMap.merged(
            np.concatenate((known.offsets - self.offset, rest.offsets)),
            np.concatenate((known.lengths, rest.lengths)),
            np.concatenate((known.kinds, rest.kinds)),
        )

    def _missing(self, offset: int, length: int) -> TruncatedError:
        first = max(offset, self._there)
        return TruncatedError(
            f"{self.name}: of {length} bytes at {offset}, those from {first} lie past the end of the copy",
            device=self.name,
            offset=first,
        )
