r"""NTFS by dissect.ntfs: a second opinion, so what it says is told as it says it.

Ids are file references, 48 bits of record and 16 of sequence number, as the parser of our own has them; the metafiles
below record 16 are not listed. Names are compared by `str.upper`, as the library compares them.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any, Final

from dissect.ntfs.c_ntfs import ATTRIBUTE_TYPE_CODE, c_ntfs
from dissect.ntfs.ntfs import NTFS
from dissect.ntfs.util import segment_reference

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PathNotFoundError, UnsupportedError
from pseudomount.filesystem import FileType, NameEncoding, RunKind, StreamInfo
from pseudomount.findings import FindingLog
from pseudomount_dissect._adapter import Adapter as Base
from pseudomount_dissect._adapter import Content, Entry, Facts, Run, Time, no_stream
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock

__all__ = ["Adapter"]

_ROOT, _FIRST_USER = 5, 16
_IN_USE, _DIRECTORY = 1, 2
_DOS: Final = 2
_COMPRESSED: Final = 0xFF
_LINKS: Final = {0xA000_000C, 0xA000_0003}
_EPOCH: Final = 116_444_736_000_000_000  # of 1970, in units of 100 ns since 1601
_RECORD_LIMIT: Final = 65536
_INDEX_LIMIT: Final = 65536
_LIST_LIMIT: Final = 262_144
_REPARSE_LIMIT: Final = 16384 + 8
_RUNS_LIMIT: Final = 2_000_000
#: Compression units that the library makes a list of for a file.
_UNITS_LIMIT: Final = 1 << 20


def check_record(data: bytes) -> None:
    """Refuses a record whose attributes would be read whole, and are larger than they may be.

    Standard information and file names are resident by definition; an attribute list has at most 256 KiB and a reparse
    point 16.
    """
    if len(data) < 48:
        return
    at = struct.unpack_from("<H", data, 20)[0]
    limits = {0x10: -1, 0x30: -1, 0x20: _LIST_LIMIT, 0xC0: _REPARSE_LIMIT}
    while at + 64 <= len(data):
        kind, length, form = struct.unpack_from("<IIB", data, at)
        if kind == 0xFFFFFFFF or not length:
            return
        if kind in limits and form and not 0 <= struct.unpack_from("<q", data, at + 48)[0] <= limits[kind]:
            raise CorruptionError(f"an attribute of type {kind:#x} that is too large", structure="MFT record")
        at += length


class Adapter(Base):
    """An NTFS volume."""

    name_encoding = NameEncoding.WTF8
    case_sensitive = False

    def __init__(self, guard: Guard, found: Superblock, findings: FindingLog) -> None:
        self._guard, self._device = guard, guard.device
        boot = c_ntfs.BOOT_SECTOR(found.raw)
        sector, per = boot.Bpb.BytesPerSector, boot.Bpb.SectorsPerCluster & 0xFF
        cluster = sector * (1 << (256 - per) if per > 0x80 else per)
        record = boot.ClustersPerFileRecordSegment
        size = record * cluster if record > 0 else 1 << min(-record, 62)
        if not found.sound or not 0 < cluster <= 2 << 20 or not 512 <= size <= _RECORD_LIMIT:
            raise CorruptionError("the boot sector makes no sense", structure="boot sector", offset=0)
        guard.stream.seek(boot.MftStartLcn * cluster)
        check_record(guard.stream.read(size))
        # The journal and the security descriptors are not asked for; without these it would look for them at once.
        self._fs: Any = NTFS(guard.stream, sds=io.BytesIO(), usnjrnl=io.BytesIO())
        get = self._fs.mft.get

        def checked(reference: Any, *arguments: Any) -> Any:
            record = get(reference, *arguments)
            check_record(record.data)
            return record

        self._fs.mft.get = checked
        self._cluster: int = self._fs.cluster_size
        root = self._fs.mft.get(_ROOT)
        self.root = _ROOT | root.header.SequenceNumber << 48
        self.details = {"cluster_size": self._cluster, "record_size": size, "sector_size": sector}

    def _record(self, file: int) -> Any:
        number, sequence = file & (1 << 48) - 1, file >> 48
        if number < _FIRST_USER and number != _ROOT:
            raise PathNotFoundError(f"record {number} is a metafile, which are not read")
        record = self._fs.mft.get(number)
        if not record.header.Flags & _IN_USE:
            raise PathNotFoundError(f"MFT record {number} is not in use")
        if sequence and record.header.SequenceNumber != sequence:
            raise PathNotFoundError(f"MFT record {number} is no longer that of sequence number {sequence}")
        if segment_reference(record.header.BaseFileRecordSegment):
            raise PathNotFoundError(f"MFT record {number} belongs to another one")
        return record

    def fold(self, name: bytes) -> bytes:
        """By `str.upper`."""
        try:
            return name.decode("utf-8", "surrogatepass").upper().encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # no name that the volume can have
            return name

    def entries(self, directory: int) -> Iterator[Entry]:
        """As the library lists them: from every index buffer, those no longer in use too."""
        record = self._record(directory)
        index = record.index("$I30")
        if not 0 < index.root.bytes_per_index_buffer <= _INDEX_LIMIT:
            message = f"index buffers of {index.root.bytes_per_index_buffer} bytes"
            raise CorruptionError(message, structure="$INDEX_ROOT")
        stream = index._index_stream
        if stream is not None and stream.size > self._device.size:
            raise CorruptionError(f"an index of {stream.size} bytes", structure="$INDEX_ALLOCATION")
        for entry in index.entries():
            reference = entry.header.FileReference
            number = segment_reference(reference)
            if number < _FIRST_USER:
                continue
            attribute = entry.attribute
            if attribute is None:
                raise CorruptionError("an index entry without a name", structure="index")
            name = attribute.file_name.encode("utf-8", "surrogatepass")
            kind = FileType.DIRECTORY if attribute.is_dir() else FileType.FILE
            if attribute.is_reparse_point():
                kind = FileType.UNKNOWN
            yield Entry(name, number | reference.SequenceNumber << 48, kind, attribute.flags == _DOS)

    def facts(self, file: int) -> Facts:
        """From standard information and the unnamed stream."""
        record = self._record(file)
        attributes = record.attributes
        info = attributes[ATTRIBUTE_TYPE_CODE.STANDARD_INFORMATION]
        if not info:
            raise CorruptionError(f"MFT record {record.segment} has no standard information", structure="MFT record")
        kind = FileType.DIRECTORY if record.header.Flags & _DIRECTORY else FileType.FILE
        reparse = attributes[ATTRIBUTE_TYPE_CODE.REPARSE_POINT]
        if reparse and int(reparse.tag) in _LINKS:
            kind = FileType.SYMLINK
        size = allocated = 0
        if kind is FileType.SYMLINK:
            size = len(_target(reparse))
        elif kind is FileType.FILE and record.has_stream():
            size, allocated = record.size(), self._allocated(record, "")
        names = [name for name in attributes[ATTRIBUTE_TYPE_CODE.FILE_NAME] if name.flags != _DOS]
        return Facts(
            inode=record.segment,
            type=kind,
            size=size,
            generation=record.header.SequenceNumber,
            allocated=allocated,
            links=max(len(names), 1),
            created=_time(info.attr.CreationTime),
            modified=_time(info.attr.LastModificationTime),
            changed=_time(info.attr.LastChangeTime),
            accessed=_time(info.attr.LastAccessTime),
            flags=int(info.attr.FileAttributes),
        )

    def _allocated(self, record: Any, stream: str) -> int:
        found = record._get_stream_attributes(stream)
        if found.header.resident:
            return 0
        return int(sum(count for lcn, count in found.dataruns() if lcn is not None) * self._cluster)

    def content(self, file: int, stream: str | None = None) -> Content:
        """The library's data runs; its stream, where it is compressed."""
        record = self._record(file)
        if not record.has_stream(stream or ""):
            if stream:
                raise no_stream(file, stream)
            raise CorruptionError(f"MFT record {record.segment} has no content", structure="$DATA")
        found = record._get_stream_attributes(stream or "")
        size = found.size()
        if found.header.resident:
            data = found.open().read(_RECORD_LIMIT)
            if len(data) != size:
                raise CorruptionError(f"MFT record {record.segment}: its content is cut off", structure="$DATA")
            return Content(size, resident=data)
        first = min(found, key=lambda attribute: attribute.header.lowest_vcn or 0)
        table = found.dataruns()
        if len(table) > _RUNS_LIMIT or any(count <= 0 for _, count in table):
            raise CorruptionError(f"MFT record {record.segment}: its data runs make no sense", structure="data runs")
        if first.header.flags & _COMPRESSED:
            units = sum(count for _, count in table) >> min(first.header.compression_unit, 16)
            if units > _UNITS_LIMIT or first.header.compression_unit > 16:
                raise UnsupportedError(f"MFT record {record.segment}: too large for a compressed file")
            name = f"{self._device.name} file {record.segment}"
            return Content(size, decoded=_Decoded(self._guard, found.open(), size, name))
        runs: list[Run] = []
        at = 0
        for lcn, count in table:
            length = count * self._cluster
            if lcn is not None:
                runs.append((at, length, lcn * self._cluster, RunKind.DATA))
            at += length
        return Content(size, runs)

    def target(self, file: int) -> bytes:
        """The substitute name without its prefix."""
        return _target(self._record(file).attributes[ATTRIBUTE_TYPE_CODE.REPARSE_POINT])

    def link_parts(self, target: bytes) -> tuple[bool, list[bytes]]:
        """Both slashes part names; a drive's letter is dropped."""
        text = target.replace(b"\\", b"/")
        if text[1:2] == b":":
            text = text[2:]
        return text.startswith(b"/"), [part for part in text.split(b"/") if part]

    def streams(self, file: int) -> list[StreamInfo]:
        """The named ones."""
        record = self._record(file)
        names = {attribute.name: None for attribute in record.attributes[ATTRIBUTE_TYPE_CODE.DATA] if attribute.name}
        return [StreamInfo(name, record.size(name), self._allocated(record, name)) for name in names]

    def xattrs(self, file: int) -> dict[str, bytes]:
        """`system.ntfs_reparse_data`; security descriptors and NTFS's own attributes are not read."""
        found = self._record(file).attributes[ATTRIBUTE_TYPE_CODE.REPARSE_POINT]
        return {"system.ntfs_reparse_data": bytes(found[0].data())} if found else {}


class _Decoded(BlockDevice):
    """A stream of the library as a device."""

    def __init__(self, guard: Guard, stream: Any, size: int, name: str) -> None:
        self._guard, self._stream, self._size, self.name = guard, stream, size, name

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        with self._guard.call(self.name, "$DATA"):
            self._stream.seek(offset)
            data: bytes = self._stream.read(length)
            if len(data) != length:
                raise CorruptionError(f"{self.name}: {len(data)} of {length} bytes at {offset}", structure="$DATA")
        return data


def _target(reparse: Any) -> bytes:
    text = str(reparse.substitute_name or reparse.print_name or "").rstrip("\0")
    if not text:
        raise CorruptionError("a link that leads nowhere", structure="$REPARSE_POINT")
    if text.startswith("\\??\\UNC\\"):
        text = "\\" + text[7:]
    elif text.startswith("\\??\\Volume{"):
        text = "\\\\?\\" + text[4:]
    elif text.startswith("\\??\\"):
        text = text[4:]
    return text.encode("utf-8", "surrogatepass")


def _time(filetime: int) -> Time | None:
    if filetime <= 0:
        return None
    seconds, rest = divmod(filetime - _EPOCH, 10_000_000)
    return seconds, rest * 100
