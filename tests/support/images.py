"""A plain file as a device: the least that reads, so that a parser's tests depend on no other part of the project."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pseudomount.device import BlockDevice
from pseudomount.errors import ReadError


class ImageDevice(BlockDevice):
    """A file, or a part of one, read by position."""

    def __init__(self, path: Path, offset: int = 0, size: int | None = None) -> None:
        self.name = path.name
        self._file = path.open("rb", buffering=0)
        whole = os.fstat(self._file.fileno()).st_size
        self._offset = offset
        self._size = whole - offset if size is None else size
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        with self._lock:
            self._file.seek(self._offset + offset)
            while length > 0:
                part = self._file.read(length)
                if not part:
                    raise ReadError(f"{self.name}: the file ends early", device=self.name, offset=offset)
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    def _close(self) -> None:
        self._file.close()


class BytesDevice(BlockDevice):
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, name: str = "bytes") -> None:
        self.name = name
        self._data = memoryview(data)

    @property
    def size(self) -> int:
        return len(self._data)

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._data[offset : offset + length])
