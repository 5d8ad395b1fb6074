"""Records what is read, for finding out what a parser needs."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping

import numpy as np

from pseudomount.device.contract import BlockDevice, Int64s, UInt8s
from pseudomount.device.layer import Layer
from pseudomount.device.ranges import coalesce
from pseudomount.errors import PseudomountError

__all__ = ["TraceDevice"]


class TraceDevice(Layer):
    """Notes each range that is asked for, as it is asked for: before any joining, caching or cutting below.

    Empty ranges and those outside the device are not noted, ranges that then fail are. 16 bytes of memory a range.
    """

    def __init__(self, inner: BlockDevice, *, name: str = "", owns: bool = False) -> None:
        super().__init__(inner, name=name, owns=owns)
        self._lock = threading.Lock()
        self._offsets = array("q")
        self._lengths = array("q")

    def ranges(self) -> tuple[Int64s, Int64s]:
        """(offsets, lengths), int64 (n,), bytes, in the order asked for."""
        with self._lock:
            offsets, lengths = self._offsets.tobytes(), self._lengths.tobytes()
        return np.frombuffer(offsets, np.int64), np.frombuffer(lengths, np.int64)

    def merged(self, gap: int = 0) -> tuple[Int64s, Int64s]:
        """(offsets, lengths) of what was asked for at least once: ascending, disjoint, more than `gap` bytes apart."""
        joined = coalesce(*self.ranges(), gap=gap)
        return joined.offsets, joined.lengths

    def clear(self) -> None:
        """Forgets all ranges."""
        with self._lock:
            self._offsets = array("q")
            self._lengths = array("q")

    def _read(self, offset: int, length: int) -> bytes:
        with self._lock:
            self._offsets.append(offset)
            self._lengths.append(length)
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        with self._lock:
            self._offsets.frombytes(offsets.tobytes())
            self._lengths.frombytes(lengths.tobytes())
        return self.inner.read_into(offsets, lengths, buffer, positions)
