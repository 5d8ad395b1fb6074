"""Security descriptors.

Sources: [LN] File: $Secure; Attribute: $SECURITY_DESCRIPTOR.
"""

from __future__ import annotations

import struct
import threading
from typing import Final

import numpy as np

from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError
from pseudomount_ntfs._index import index_nodes, parse_entries
from pseudomount_ntfs._layout import AttributeType, RecordNumber, gather
from pseudomount_ntfs._runs import read_segments
from pseudomount_ntfs._volume import Volume

__all__ = ["DESCRIPTOR_LIMIT", "Descriptors"]

#: A descriptor is at most 64 KiB.
DESCRIPTOR_LIMIT: Final = 128 << 10

# An entry of $SII: the entry's header, the key (a security id), then the header of the descriptor in $SDS.
_ENTRY = np.dtype(
    {
        "names": ["data_at", "data_length", "id", "hash", "id_again", "offset", "length"],
        "formats": ["<u2", "<u2", "<u4", "<u4", "<u4", "<u8", "<u4"],
        "offsets": [0, 2, 16, 20, 24, 28, 36],
        "itemsize": 40,
    }
)
_HEADER: Final = struct.Struct("<IIQI")


class Descriptors:
    """$Secure: security id → descriptor. Its index is read when the first one is asked for."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._places: dict[int, tuple[int, int, int]] | None = None
        self._lock = threading.Lock()

    def __getitem__(self, security_id: int) -> bytes:
        """The self-relative descriptor.

        Raises:
            PathNotFoundError: $Secure does not know this id.
            CorruptionError: its entry is damaged.
        """
        with self._lock:
            if self._places is None:
                self._places = self._read_index()
            place = self._places.get(security_id)
        if place is None:
            raise PathNotFoundError(f"$Secure has no security id {security_id}")
        offset, length, digest = place
        volume = self._volume
        batch = volume.load(np.array([RecordNumber.SECURE], np.uint64))
        pick = batch.pick(AttributeType.DATA, "$SDS")
        if pick[0] < 0 or batch.attributes.resident[pick[0]]:
            raise CorruptionError("$Secure has no $SDS", structure="$Secure")
        segments = volume.streams(batch, pick, initialized=True)[0]
        if not _HEADER.size <= length <= DESCRIPTOR_LIMIT or offset + length > segments.size:
            raise CorruptionError(f"security id {security_id} lies outside of $SDS", structure="$SII")
        where = np.array([offset], np.int64), np.array([length], np.int64)
        data, errors = read_segments(volume.device, segments, *where, "$SDS")
        if errors:
            raise errors[0]
        raw = data.tobytes()
        if _HEADER.unpack_from(raw) != (digest, security_id, offset, length):
            raise CorruptionError(
                f"$SDS has something else in the place of security id {security_id}", structure="$SDS"
            )
        return raw[_HEADER.size :]

    def _read_index(self) -> dict[int, tuple[int, int, int]]:
        batch = self._volume.load(np.array([RecordNumber.SECURE], np.uint64))
        errors: dict[int, PseudomountError] = dict(batch.errors)
        places: dict[int, tuple[int, int, int]] = {}
        for nodes in index_nodes(self._volume, batch, "$SII", errors):
            node, place, _ = parse_entries(nodes.buffer, nodes.starts, nodes.ends)
            inside = place + _ENTRY.itemsize <= nodes.ends[node]
            entry = gather(nodes.buffer, place[inside], _ENTRY)
            good = (entry["id"] == entry["id_again"]) & (entry["offset"] < 1 << 48)
            columns = (entry[name][good].tolist() for name in ("id", "offset", "length", "hash"))
            places.update((key, (at, size, digest)) for key, at, size, digest in zip(*columns, strict=True))
        if errors and not places:
            raise errors[0]
        return places
