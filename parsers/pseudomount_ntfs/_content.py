"""What the bytes of a stream are: in the record, in runs, compressed, or something that only their maker can decode.

Sources: [LN] Concept: data runs, compression; [MS-FSCC] 2.1.2.1 Reparse tags; [LN] valid data length.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, ExtentKind, ExtentMap
from pseudomount.device.layer import read_by_fill
from pseudomount.device.ranges import cut_even
from pseudomount.errors import CorruptionError, EncryptedError, PseudomountError, UnsupportedError
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._layout import DELETED, AttributeFlag, AttributeType, FileFlag
from pseudomount_ntfs._lznt1 import decompress
from pseudomount_ntfs._reparse import Tag, is_cloud
from pseudomount_ntfs._runs import BAD, BytesDevice, Segments, read_segments
from pseudomount_ntfs._volume import Volume

__all__ = ["CompressedDevice", "needs_decoder", "open_stream", "refusal"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

_LARGEST_UNIT = 16 << 20
_UNITS_AT_ONCE = 8 << 20
_CACHED = 4 << 20


class CompressedDevice(BlockDevice):
    """A stream in compression units: each unit is stored plain, compressed into fewer clusters, or not at all.

    A unit that cannot be decoded fails the ranges that touch it and no other. The units decoded last are kept.

    Args:
        segments: the stream's runs, to the end of what is allocated.
        unit: bytes of a compression unit.
        size: bytes, decoded.
        initialized: the valid data length; zeros follow.
    """

    def __init__(
        self, device: BlockDevice, segments: Segments, unit: int, size: int, initialized: int, name: str
    ) -> None:
        self.name = name
        self.sector_size = device.sector_size
        self.batch_budget = device.batch_budget
        self._device, self._segments, self._unit = device, segments, unit
        self._size, self._initialized = size, initialized
        self._stored = segments.counter(segments.positions >= 0)
        self._lost = segments.counter(segments.positions == BAD)
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes, decoded."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        return read_by_fill(self, offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        pieces = cut_even(offsets, lengths, self._unit)
        errors: dict[int, PseudomountError] = {}
        order = np.argsort(pieces.cells, kind="stable")
        units = np.unique(pieces.cells)
        edges = np.append(np.searchsorted(pieces.cells[order], units), len(order))
        step = max(1, _UNITS_AT_ONCE // self._unit)
        for start in range(0, len(units), step):
            decoded = self._units(units[start : start + step])
            for i, data in enumerate(decoded, start):
                base = int(units[i]) * self._unit
                for piece in order[edges[i] : edges[i + 1]].tolist():
                    row, length = int(pieces.rows[piece]), int(pieces.lengths[piece])
                    if isinstance(data, PseudomountError):
                        errors.setdefault(row, data)
                        continue
                    at = int(positions[row] + pieces.within[piece])
                    begin = int(pieces.offsets[piece]) - base
                    buffer[at : at + length] = np.frombuffer(data, np.uint8, length, begin)
        return errors

    def _extents(self, offset: int, length: int) -> ExtentMap:
        units = np.arange(offset // self._unit, (offset + length - 1) // self._unit + 1, dtype=np.int64)
        begins = np.maximum(units * self._unit, offset)
        ends = np.minimum((units + 1) * self._unit, offset + length)
        empty = self._within(self._stored, units) + self._within(self._lost, units) == 0
        kinds = np.where(empty, ExtentKind.HOLE, ExtentKind.DATA).astype(np.uint8)
        return ExtentMap.merged(begins, ends - begins, kinds)

    def _units(self, units: Int64s) -> list[bytes | PseudomountError]:
        """Whole units, decoded, or why not."""
        with self._lock:
            answer: list[bytes | PseudomountError | None] = [self._cache.get(unit) for unit in units.tolist()]
        missing = np.array([i for i, data in enumerate(answer) if data is None], np.int64)
        if len(missing):
            for i, data in zip(missing.tolist(), self._fetch(units[missing]), strict=True):
                answer[i] = data
                if isinstance(data, bytes):
                    self._keep(int(units[i]), data)
        return [data for data in answer if data is not None]

    def _keep(self, unit: int, data: bytes) -> None:
        with self._lock:
            self._cache[unit] = data
            while len(self._cache) * self._unit > max(_CACHED, self._unit):
                self._cache.popitem(last=False)

    def _within(self, count: Callable[[Int64s], Int64s], units: Int64s) -> Int64s:
        """How many bytes of each unit are of one kind."""
        return count((units + 1) * self._unit) - count(units * self._unit)

    def _fetch(self, units: Int64s) -> list[bytes | PseudomountError]:
        size = self._unit
        begin = units * size
        room = np.minimum(self._segments.size - begin, size)
        stored, lost = self._within(self._stored, units), self._within(self._lost, units)
        # A unit that misses clusters is read as a whole, which then says that they are lost.
        whole = (stored >= room) | (lost > 0)
        lengths = np.where(whole, room, stored)
        # Units behind the valid data, and those without clusters, are not read.
        wanted = np.flatnonzero((begin < self._initialized) & (lengths > 0))
        data, failed = read_segments(self._device, self._segments, begin[wanted], lengths[wanted], self.name)
        # What is stored of a compressed unit lies at its beginning.
        gaps = self._stored((begin + lengths)[wanted]) - self._stored(begin[wanted]) != lengths[wanted]
        answer: list[bytes | PseudomountError] = [bytes(size)] * len(units)
        at = 0
        for j, i in enumerate(wanted.tolist()):
            length = int(lengths[i])
            raw, at = data[at : at + length].tobytes(), at + length
            if j in failed:
                answer[i] = failed[j]
                continue
            try:
                if gaps[j]:
                    raise CorruptionError("a hole before stored clusters")
                plain = raw.ljust(size, b"\0") if whole[i] else decompress(raw, size)
            except CorruptionError as error:
                message = f"{self.name}: {error} in the compression unit at {int(begin[i])}"
                answer[i] = CorruptionError(message, device=self._device.name, structure="LZNT1")
                continue
            valid = self._initialized - int(begin[i])
            answer[i] = plain if valid >= size else plain[:valid].ljust(size, b"\0")
        return answer


def refusal(flags: int, tag: int, holes: bool) -> PseudomountError | None:
    """Why the main content of a file cannot be read, though it has some.

    Args:
        flags: the file's attributes.
        tag: its reparse tag, 0 without one.
        holes: part of the content has no clusters.
    """
    if tag == Tag.WOF:
        return UnsupportedError("the content is compressed by the Windows Overlay Filter (WOF), which is not read yet")
    if tag == Tag.DEDUP:
        return UnsupportedError("the content is deduplicated: it lies in the volume's chunk store, which is not read")
    if tag in (Tag.HSM, Tag.HSM2, Tag.SIS, Tag.WCI, Tag.WCI_1, Tag.PROJFS):
        return UnsupportedError(f"the content is kept elsewhere by the owner of reparse tag {tag:#010x}")
    away = FileFlag.OFFLINE | FileFlag.RECALL_ON_OPEN | FileFlag.RECALL_ON_DATA_ACCESS
    if is_cloud(tag) and (flags & away or holes):
        return UnsupportedError("a placeholder: the content is in the cloud and not on this volume")
    return None


def needs_decoder(flags: int) -> bool:
    """Whether an attribute's clusters are not the content itself."""
    return bool(flags & (AttributeFlag.COMPRESSION | AttributeFlag.ENCRYPTED))


def open_stream(volume: Volume, batch: Batch, pick: int, name: str) -> BlockDevice:
    """The content of one stream, by the attribute that begins it.

    Raises:
        EncryptedError, UnsupportedError, CorruptionError: as `FileSystem.open` says.
    """
    attributes = batch.attributes
    flags, kind = int(attributes.flags[pick]), int(attributes.type[pick])
    if flags & AttributeFlag.ENCRYPTED:
        raise EncryptedError(f"{name} is encrypted by EFS, its key is with a user of the source machine")
    if attributes.resident[pick]:
        at = int(attributes.value_at[pick])
        return BytesDevice(batch.buffer[at : at + int(attributes.value_length[pick])].tobytes(), name)
    one = np.array([pick], np.int64)
    method = flags & AttributeFlag.COMPRESSION
    lost = ""
    if int(batch.references[attributes.row[pick]]) & DELETED:
        lost = "its clusters have been given to other files, or nothing says any more where they were"
        places = volume.streams(batch, one)[0].positions
        if (places == BAD).any() and not (places >= 0).any():
            raise CorruptionError(f"{name}: {lost}", device=volume.device.name, structure="data runs")
    if kind != AttributeType.DATA or not method:
        return volume.streams(batch, one, initialized=True)[0].device(volume.device, name, lost)
    unit = volume.geometry.cluster_size << min(int(attributes.unit[pick]), 63)
    if method != 1:
        raise UnsupportedError(f"{name} is compressed by method {method}, only LZNT1 is known")
    if not int(attributes.unit[pick]) or unit > _LARGEST_UNIT:
        raise CorruptionError(
            f"{name}: compression units of 2**{int(attributes.unit[pick])} clusters", structure="$DATA"
        )
    segments = volume.streams(batch, one, whole=True)[0]
    size, valid = int(attributes.size[pick]), int(attributes.initialized[pick])
    return CompressedDevice(volume.device, segments, unit, size, valid, name) if size else BytesDevice(b"", name)
