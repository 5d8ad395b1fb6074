"""Content of Btrfs files that is compressed, in metadata, or striped over the device."""

from __future__ import annotations

import sys
import zlib
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from dissect.btrfs.stream import decode_extent

from pseudomount.device import BlockDevice, ExtentKind, ExtentMap
from pseudomount.errors import CorruptionError, UnsupportedError
from pseudomount.filesystem import RunKind
from pseudomount_dissect._guard import Guard

__all__ = ["Extent", "ExtentDevice", "decoded"]

#: A compressed extent holds up to 128 KiB; more than this much is refused.
_DECODED_LIMIT: Final = 1 << 20
_ZLIB, _LZO, _ZSTD = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Extent:
    """A file's bytes from `offset` on.

    Attributes:
        offset, length: in the file, bytes.
        kind: as of data runs.
        address, stored: where it lies (logical) and how many bytes are there.
        within: where the file's part begins in the decoded extent.
        full: bytes of the decoded extent.
        compression: 0 none, 1 zlib, 2 LZO, 3 zstd.
        sector: bytes of a sector.
        data: the bytes, where metadata holds them.
    """

    offset: int
    length: int
    kind: RunKind = RunKind.DATA
    address: int = 0
    stored: int = 0
    within: int = 0
    full: int = 0
    compression: int = 0
    sector: int = 4096
    data: bytes | None = None


def decoded(data: bytes, compression: int, full: int, sector: int, file: int) -> bytes:
    """An extent's bytes, `full` of them: what it is short of is zeros, as the kernel has it."""
    if not compression:
        return data
    if not 0 < full <= _DECODED_LIMIT or len(data) > _DECODED_LIMIT:
        raise CorruptionError(f"file {file}: a compressed extent of {full} bytes", structure="file extent item")
    if compression == _ZLIB:
        out = zlib.decompressobj().decompress(data, full)
    elif compression == _LZO:
        out = decode_extent(data, _LZO, 0, sector)[:full]
    elif compression == _ZSTD:
        out = _zstd().ZstdDecompressor().decompress(data, full)
    else:
        raise UnsupportedError(f"file {file}: compression {compression} is not known")
    return bytes(out).ljust(full, b"\0")


def _zstd() -> Any:
    # Deferred: most files are not compressed with it.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


class ExtentDevice(BlockDevice):
    """A file's content from its extents; what none covers is zeros.

    Args:
        guard: of the file system.
        read: bytes at a logical address, inside of `Guard.call`.
        extents: ascending.
        size: bytes.
    """

    def __init__(
        self, guard: Guard, read: Callable[[int, int], bytes], extents: list[Extent], size: int, name: str
    ) -> None:
        self.name = name
        self._guard, self._logical, self._extents_of, self._size = guard, read, extents, size
        self._begins = [extent.offset for extent in extents]
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def check(self) -> None:
        """CorruptionError where extents overlap or reach too far."""
        end = 0
        for extent in self._extents_of:
            if extent.offset < end or extent.offset + extent.length >= 1 << 62:
                raise CorruptionError(f"{self.name}: extents overlap", structure="file extent item")
            end = extent.offset + extent.length

    def _read(self, offset: int, length: int) -> bytes:
        out = bytearray(length)
        end = offset + length
        with self._guard.call(self.name, "file extent item"):
            for i in range(max(bisect_right(self._begins, offset) - 1, 0), len(self._extents_of)):
                extent = self._extents_of[i]
                if extent.offset >= end:
                    break
                first, last = max(offset, extent.offset), min(end, extent.offset + extent.length)
                if first < last and extent.kind is RunKind.DATA:
                    part = self._part(i, extent, first - extent.offset, last - first)
                    if len(part) != last - first:
                        raise CorruptionError(f"{self.name}: an extent is cut off", structure="file extent item")
                    out[first - offset : last - offset] = part
        return bytes(out)

    def _part(self, number: int, extent: Extent, at: int, length: int) -> bytes:
        if extent.data is not None:
            return extent.data[at : at + length]
        at += extent.within
        if not extent.compression:
            return self._logical(extent.address + at, length)
        if self._last[0] != number:
            if not 0 < extent.stored <= _DECODED_LIMIT:
                message = f"{self.name}: a compressed extent of {extent.stored} bytes"
                raise CorruptionError(message, structure="file extent item")
            stored = self._logical(extent.address, extent.stored)
            self._last = number, decoded(stored, extent.compression, extent.full, extent.sector, 0)
        return self._last[1][at : at + length]

    def _extents(self, offset: int, length: int) -> ExtentMap:
        """Holes and zeros that the extents tell of."""
        import numpy as np

        pieces: list[tuple[int, int, ExtentKind]] = []
        at, end = offset, offset + length
        for i in range(max(bisect_right(self._begins, offset) - 1, 0), len(self._extents_of)):
            extent = self._extents_of[i]
            first, last = max(at, extent.offset), min(end, extent.offset + extent.length)
            if first >= last:
                continue
            pieces.append((at, first - at, ExtentKind.HOLE))
            kind = {RunKind.HOLE: ExtentKind.HOLE, RunKind.UNWRITTEN: ExtentKind.ZERO}.get(extent.kind, ExtentKind.DATA)
            pieces.append((first, last - first, kind))
            at = last
        pieces.append((at, end - at, ExtentKind.HOLE))
        table = np.array(pieces, np.int64)
        return ExtentMap.merged(table[:, 0], table[:, 1], table[:, 2].astype(np.uint8))
