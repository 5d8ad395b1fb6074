"""A device in memory, for content that lies inside metadata."""

from __future__ import annotations

from pseudomount.device import BlockDevice

__all__ = ["MemoryDevice"]


class MemoryDevice(BlockDevice):
    """Bytes as a device."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self.name = name

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._content)

    def _read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]
