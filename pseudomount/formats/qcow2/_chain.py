"""An image with all that it consists of: itself, its external data file, and what lies beneath it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import (
    CorruptionError,
    DamageError,
    TruncatedError,
    UnsupportedError,
)
from pseudomount.extents import ExtentIndex, OverlayIndex
from pseudomount.findings import FindingLog, Severity
from pseudomount.formats.contract import Disk, Format, Source
from pseudomount.formats.members import Members, open_parent
from pseudomount.formats.qcow2._index import Qcow2Index
from pseudomount.formats.qcow2._layout import MAX_L1_BYTES, Header, read_header
from pseudomount.formats.qcow2._snapshots import Snapshot, find_snapshot, read_snapshots
from pseudomount.formats.raw import RawFormat

__all__ = ["FACTS", "open_image"]

#: (offset, length) → up to so many bytes of the image.
_Read: TypeAlias = Callable[[int, int], bytes]

#: What the facts of an image are called in a disk's metadata.
FACTS = "qcow2.json"
#: What qemu calls formats, where we call them otherwise.
_FORMATS = {"vpc": "vhd", "file": "raw", "host_device": "raw"}


def open_image(source: Source, name: str, sector_size: int, findings: FindingLog, this: Format) -> Disk:
    """The disk of an image; see `Format.open`.

    Args:
        source: what was named for opening.
        name: which object of it.
        sector_size: bytes.
        findings: gets what is wrong.
        this: the format itself, to open backing files with if the source tells no formats.
    """
    members = Members.of(source, name)
    file_size = source.size if name == source.names[0] else source.store.size(name)
    head = source.head if name == source.names[0] else b""

    def read(offset: int, length: int) -> bytes:
        if offset >= 0 and offset + length <= len(head):
            return head[offset : offset + length]
        # No position in a file reaches further; what a forged header claims must not reach the system's calls.
        return source.store.read(name, offset, length) if offset < 1 << 62 else b""

    header = read_header(name, read)
    _note_flags(name, header, findings)
    snapshots = _snapshots(name, read, header, findings, wanted="snapshot" in source.options)
    size, l1_offset, l1_size = header.size, header.l1_offset, header.l1_size
    wanted = source.options.get("snapshot")
    if wanted is not None:
        chosen = find_snapshot(name, snapshots, wanted)
        size = header.size if chosen.disk_size is None else chosen.disk_size
        l1_offset, l1_size = chosen.l1_offset, chosen.l1_size
    l1 = _read_l1(name, read, header, size, l1_offset, l1_size, findings)
    data = _data_file(name, header, members, findings) if header.geometry.external else None
    index: ExtentIndex = Qcow2Index(
        source.store, name, file_size, size, header.geometry, l1, compression=header.compression, data=data
    )
    facts = _facts(header, snapshots, wanted, data)
    if header.backing is not None:
        told = None if header.backing_format is None else _FORMATS.get(header.backing_format, header.backing_format)
        below, kind, disk = open_parent(source, name, header.backing, told, findings, formats=(this, RawFormat()))
        facts["backing_chain"] = [f"{below} ({kind.name})", *_chain_of(disk.metadata)]
        index = OverlayIndex(index, disk.index)
    metadata = {FACTS: json.dumps(facts, ensure_ascii=True).encode()}
    alone = header.backing is None and data is None
    return Disk(index, sector_size, metadata, None if alone else members)


def _note_flags(name: str, header: Header, findings: FindingLog) -> None:
    if header.dirty:
        message = f"{name} was not closed properly; its reference counts are stale, which reading does not need"
        findings.add(Severity.NOTE, message, structure="header")
    if header.corrupt:
        message = f"{name} is marked as corrupt by what wrote it last; `qemu-img check` tells more"
        findings.add(Severity.DEGRADED, message, structure="header")


def _snapshots(name: str, read: _Read, header: Header, findings: FindingLog, *, wanted: bool) -> Sequence[Snapshot]:
    """The internal snapshots. A table that cannot be read is a finding, unless one of them is asked for."""
    if not header.snapshot_count:
        return ()
    try:
        return read_snapshots(name, read, header.snapshot_offset, header.snapshot_count)
    except DamageError as error:
        if wanted:
            raise
        findings.add_error(error, severity=Severity.DEGRADED)
        return ()


def _read_l1(
    name: str, read: _Read, header: Header, size: int, offset: int, entries: int, findings: FindingLog
) -> NDArray[np.uint64]:
    """The L1 table as far as the disk needs it; shorter where the file ends."""
    geometry = header.geometry
    needed = geometry.tables(size)
    if size >= 1 << 63 or needed > entries:
        message = f"{name}: an L1 table of {entries} entries for a disk of {size} bytes, which needs {needed}"
        raise CorruptionError(message, offset=36, structure="L1 table")
    if needed * 8 > MAX_L1_BYTES:
        raise UnsupportedError(f"{name}: an L1 table of {needed * 8} bytes; the limit is {MAX_L1_BYTES}")
    if not needed:
        return np.empty(0, np.uint64)
    if offset % geometry.cluster_size:
        message = f"{name}: an L1 table at {offset}, which is no multiple of the cluster size"
        raise CorruptionError(message, offset=40, structure="L1 table")
    raw = read(offset, needed * 8)
    if len(raw) < 8:
        raise TruncatedError(f"{name} ends before its L1 table", offset=min(offset, 1 << 62), structure="L1 table")
    if len(raw) < needed * 8:
        message = f"{name} ends within its L1 table: what lies behind on the disk cannot be read"
        findings.add(Severity.LOST, message, structure="L1 table", offset=offset + len(raw))
    return np.frombuffer(raw[: len(raw) & ~7], ">u8").astype(np.uint64)


def _data_file(name: str, header: Header, members: Members, findings: FindingLog) -> tuple[str, int]:
    if header.data_file is None:
        raise CorruptionError(f"{name} keeps its data in another file, but does not name it", structure="header")
    found = members.find(header.data_file, name, "external data file", findings)
    return found, members.size(found)


def _facts(
    header: Header, snapshots: Sequence[Snapshot], wanted: str | None, data: tuple[str, int] | None
) -> dict[str, object]:
    facts: dict[str, object] = {
        "version": header.geometry.version,
        "cluster_size": header.geometry.cluster_size,
        "compression": header.compression,
        "extended_l2": header.geometry.extended,
    }
    if data is not None:
        facts["data_file"] = data[0] + (" (raw)" if header.raw_external else "")
    if wanted is not None:
        facts["snapshot"] = wanted
    if snapshots:
        facts["snapshots"] = [snapshot.facts() for snapshot in snapshots]
    return facts


def _chain_of(metadata: Mapping[str, bytes]) -> list[str]:
    """The backing chain of a disk beneath, as its facts have it."""
    for key, value in metadata.items():
        if key.endswith(".json"):
            chain = json.loads(value).get("backing_chain", [])
            return [str(item) for item in chain]
    return []
