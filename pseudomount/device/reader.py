"""A device as a file object."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import numpy as np

from pseudomount.device.contract import BlockDevice
from pseudomount.errors import PseudomountError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["DeviceReader", "open_reader"]

_SMALL = 64 << 10
_STEP = 8 << 20


class DeviceReader(io.RawIOBase):
    """An unbuffered, seekable, read-only binary file over a device. `owns` closes the device with it.

    A read that would fail halfway gives the bytes before the damage, to the sector; the next one raises. So a buffer
    that reads ahead never makes a caller fail for bytes that the caller did not ask for.

    Like every file object it has a position, and so belongs to one thread; the device may be shared.
    """

    def __init__(self, device: BlockDevice, *, owns: bool = False) -> None:
        super().__init__()
        self.device = device
        self.name = device.name
        self.mode = "rb"
        self._owns = owns
        self._position = 0

    def readable(self) -> bool:
        """True."""
        self._open()
        return True

    def seekable(self) -> bool:
        """True."""
        self._open()
        return True

    def tell(self) -> int:
        """Bytes from the start."""
        self._open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Moves, also past the end; returns the new position.

        Raises:
            ValueError: the position would be negative, or `whence` is none that files know.
        """
        self._open()
        bases = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.device.size}
        if whence not in bases:
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        position = bases[whence] + offset
        if position < 0:
            raise ValueError(f"a negative position: {position}")
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Reads up to the buffer's length; 0 only at the end, or where the buffer is empty.

        Raises:
            PseudomountError: not even the first sector could be read.
        """
        self._open()
        with memoryview(buffer).cast("B") as view:
            length = min(len(view), self.device.size - self._position, self.device.batch_budget)
            if length <= 0:
                return 0
            length = self._into(view[:length], length)
        self._position += length
        return length

    def _into(self, view: memoryview, length: int) -> int:
        if length <= _SMALL:
            try:
                view[:] = self.device.read(self._position, length)
            except PseudomountError:
                return self._salvage(view, length)
            return length
        one = np.array([[self._position], [length], [0]], np.int64)
        errors = self.device.read_into(one[0], one[1], np.frombuffer(view, np.uint8), one[2])
        return self._salvage(view, length) if errors else length

    def _salvage(self, view: memoryview, length: int) -> int:
        """The bytes before the damage, read sector by sector in one batch."""
        sector = self.device.sector_size
        end = self._position + min(length, 1 << 20)
        inner = np.arange((self._position // sector + 1) * sector, end, sector, dtype=np.int64)
        bounds = np.concatenate(([self._position], inner, [end]))
        batch = self.device.read_many(bounds[:-1], np.diff(bounds))
        first = min(batch.errors, default=len(batch))
        if first == 0:
            raise batch.errors[0]
        good = int(bounds[first]) - self._position
        view[:good] = batch.buffer[:good].data
        return good

    def readall(self) -> bytes:
        """The rest."""
        # The inherited one takes 8 KiB at a time.
        parts = []
        while part := self.read(_STEP):
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Closes the reader, and the device if it owns that."""
        if not self.closed:
            super().close()
            if self._owns:
                self.device.close()

    def _open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")


def open_reader(device: BlockDevice, buffering: int = 1 << 20, *, owns: bool = False) -> io.BufferedReader:
    """A buffered binary file over a device, as `open(path, "rb")` gives for a file."""
    return io.BufferedReader(DeviceReader(device, owns=owns), buffering)
