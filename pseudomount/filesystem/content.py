"""The content of a file, with what goes wrong in it noted as findings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pseudomount.device import BlockDevice, ExtentMap
from pseudomount.device.contract import Int64s, UInt8s
from pseudomount.errors import DamageError, PseudomountError

__all__ = ["NotingDevice"]


class NotingDevice(BlockDevice):
    """Passes everything through; tells `note` of each error of damage before the reader sees it."""

    def __init__(self, inner: BlockDevice, name: str, note: Callable[[DamageError], None]) -> None:
        self._inner = inner
        self._note = note
        self.name = name
        self.sector_size = inner.sector_size
        self.batch_budget = inner.batch_budget

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._inner.size

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return self._inner.read(offset, length)
        except DamageError as error:
            self._note(error)
            raise

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        errors = self._inner._fill(offsets, lengths, buffer, positions)
        for error in errors.values():
            if isinstance(error, DamageError):
                self._note(error)
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        return self._inner.extents(offset, length)

    def _close(self) -> None:
        self._inner.close()
