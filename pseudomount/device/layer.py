"""What layers over one device have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pseudomount.device.contract import BlockDevice, ExtentMap, Int64s, UInt8s
from pseudomount.errors import PseudomountError

__all__ = ["Layer", "read_by_fill"]


class Layer(BlockDevice):
    """A device that answers from another one, `inner`; as it stands, byte for byte the same.

    It keeps to the inner device's budget, so a batch that passes here passes there. `owns` closes the inner device
    with it.
    """

    def __init__(self, inner: BlockDevice, *, name: str = "", owns: bool = False) -> None:
        self.inner = inner
        self.name = name or inner.name
        self.sector_size = inner.sector_size
        self.batch_budget = inner.batch_budget
        self._owns = owns

    @property
    def size(self) -> int:
        """Bytes."""
        return self.inner.size

    def _read(self, offset: int, length: int) -> bytes:
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        return self.inner.read_into(offsets, lengths, buffer, positions)

    def _extents(self, offset: int, length: int) -> ExtentMap:
        return self.inner.extents(offset, length)

    def _close(self) -> None:
        if self._owns:
            self.inner.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self.size} bytes over {self.inner!r}>"


def read_by_fill(device: BlockDevice, offset: int, length: int) -> bytes:
    """`_read` by way of the device's own `_fill`, for a range that has no faster path."""
    buffer = np.empty(length, np.uint8)
    # A single read has no budget, a batch below has.
    for done in range(0, length, device.batch_budget):
        one = np.array([[offset + done], [min(length - done, device.batch_budget)], [done]], np.int64)
        errors = device._fill(one[0], one[1], buffer, one[2])
        if errors:
            raise errors[0]
    return buffer.tobytes()
