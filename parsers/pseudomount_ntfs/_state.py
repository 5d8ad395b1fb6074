"""The volume's own state: label, version, flags, and whether its journal awaits replay.

Sources: [LN] File: $Volume, $LogFile; Attribute: $VOLUME_INFORMATION, $VOLUME_NAME.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._layout import (
    MAGIC_RESTART,
    RESTART_AREA,
    RESTART_CLEAN,
    RESTART_NO_CLIENT,
    RESTART_PAGE,
    VOLUME_DIRTY,
    AttributeType,
    RecordNumber,
    gather,
)
from pseudomount_ntfs._records import apply_fixups
from pseudomount_ntfs._runs import read_segments
from pseudomount_ntfs._volume import Volume

__all__ = ["VolumeState", "label_of", "read_state"]

_LABEL_LIMIT = 256
_LARGEST_PAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class VolumeState:
    """What `$Volume`, `$LogFile` and the root's record say; `errors` are those of metafiles that say nothing."""

    label: str
    version: str
    flags: int
    journal_pending: bool
    root_sequence: int
    errors: list[PseudomountError]

    @property
    def dirty(self) -> bool:
        """Windows would check the volume before it mounts it."""
        return bool(self.flags & VOLUME_DIRTY)


def read_state(volume: Volume) -> VolumeState:
    """Reads the state, in one batch of records and one of the journal's restart pages."""
    batch = volume.load(np.array([RecordNumber.VOLUME, RecordNumber.LOG_FILE, RecordNumber.ROOT], np.uint64))
    errors = [batch.errors[row] for row in (0, 1) if row in batch.errors]
    pending = False
    if 1 not in batch.errors:
        try:
            pending = _journal_pending(volume, batch)
        except PseudomountError as error:
            errors.append(error)
    version, flags, label = "", 0, ""
    try:
        label = _label(volume, batch)
        version, flags = _information(volume, batch)
    except PseudomountError as error:
        errors.append(error)
    # The root's sequence number is 5 wherever it was formatted as it should be.
    sequence = int(batch.sequence[2]) if 2 not in batch.errors else int(RecordNumber.ROOT)
    return VolumeState(label, version, flags, pending, sequence, errors)


def label_of(volume: Volume) -> str:
    """The volume's label, "" where it has none or it cannot be read."""
    try:
        return _label(volume, volume.load(np.array([RecordNumber.VOLUME], np.uint64)))
    except PseudomountError:
        return ""


def _value(volume: Volume, batch: Batch, kind: AttributeType) -> bytes:
    pick = batch.pick(kind)[:1]
    return volume.values(batch, pick, _LABEL_LIMIT).bytes_of(0) if pick[0] >= 0 else b""


def _label(volume: Volume, batch: Batch) -> str:
    raw = _value(volume, batch, AttributeType.VOLUME_NAME)
    # Labels go into messages, JSON and tables: a surrogate without its partner is replaced.
    return raw[: len(raw) & ~1].decode("utf-16-le", "replace").rstrip("\0")


def _information(volume: Volume, batch: Batch) -> tuple[str, int]:
    raw = _value(volume, batch, AttributeType.VOLUME_INFORMATION)
    if len(raw) < 12:
        return "", 0
    return f"{raw[8]}.{raw[9]}", int.from_bytes(raw[10:12], "little")


def _journal_pending(volume: Volume, batch: Batch) -> bool:
    """Whether `$LogFile` holds changes that were not written back.

    Two restart pages describe the journal, the one with the later log sequence number counts. A journal filled with
    0xFF is empty, as formatting and a clean check leave it.
    """
    pick = batch.pick(AttributeType.DATA)[1:2]
    if pick[0] < 0 or batch.attributes.resident[pick[0]]:
        raise CorruptionError("$LogFile has no data", structure="$LogFile")
    segments = volume.streams(batch, pick, initialized=True)[0]
    if segments.size < 2 * 4096:
        return False
    best, pending = -1, False
    page_size, at = 4096, 0
    for number in range(2):
        if at + page_size > segments.size:
            break
        where = np.array([at], np.int64), np.array([page_size], np.int64)
        data, errors = read_segments(volume.device, segments, *where, "$LogFile")
        if errors:
            raise errors[0]
        page = data[:page_size].reshape(1, -1).copy()
        if page[0, :4].tobytes() == b"\xff\xff\xff\xff" and number == 0:
            return False
        head = gather(page[0], np.zeros(1, np.int64), RESTART_PAGE)[0]
        size, area = int(head["page_size"]), int(head["area"])
        sound = head["magic"] == MAGIC_RESTART and 512 <= size <= _LARGEST_PAGE and size % 512 == 0
        if sound and size != page_size and number == 0 and size <= segments.size:
            page_size = size
            where = np.array([0], np.int64), np.array([page_size], np.int64)
            data, errors = read_segments(volume.device, segments, *where, "$LogFile")
            if errors:
                raise errors[0]
            page = data[:page_size].reshape(1, -1).copy()
        if sound and apply_fixups(page)[0] and area % 8 == 0 and area + RESTART_AREA.itemsize <= page_size:
            restart = gather(page[0], np.array([area], np.int64), RESTART_AREA)[0]
            if int(restart["lsn"]) > best:
                best = int(restart["lsn"])
                clean = int(restart["flags"]) & RESTART_CLEAN
                pending = int(restart["in_use"]) != RESTART_NO_CLIENT and not clean
        at = page_size
    return pending
