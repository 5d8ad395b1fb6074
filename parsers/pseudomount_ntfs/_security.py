"""Security descriptors.

Sources: [LN] File: $Secure; Attribute: $SECURITY_DESCRIPTOR.
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError
from pseudomount_ntfs._index import index_nodes, parse_entries
from pseudomount_ntfs._layout import AttributeType, RecordNumber, gather
from pseudomount_ntfs._runs import Segments, read_segments
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


#: Security ids of one volume that are kept; more than any volume has, and what a forged index may cost.
_MOST: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class _Secure:
    """$Secure: where $SDS lies, and entries of $SII (n,) by security id, ascending."""

    descriptors: Segments
    entries: NDArray[np.void]


class Descriptors:
    """$Secure: security id → descriptor. Its index is read when the first one is asked for."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._secure: _Secure | None = None
        self._lock = threading.Lock()

    def __getitem__(self, security_id: int) -> bytes:
        """The self-relative descriptor.

        Raises:
            PathNotFoundError: $Secure does not know this id.
            CorruptionError: its entry is damaged.
        """
        with self._lock:
            if self._secure is None:
                self._secure = self._read()
            secure = self._secure
        at = int(np.searchsorted(secure.entries["id"], security_id))
        if at >= len(secure.entries) or int(secure.entries["id"][at]) != security_id:
            raise PathNotFoundError(f"$Secure has no security id {security_id}")
        offset, length, digest = (int(secure.entries[name][at]) for name in ("offset", "length", "hash"))
        if not _HEADER.size <= length <= DESCRIPTOR_LIMIT or offset + length > secure.descriptors.size:
            raise CorruptionError(f"security id {security_id} lies outside of $SDS", structure="$SII")
        where = np.array([offset], np.int64), np.array([length], np.int64)
        data, errors = read_segments(self._volume.device, secure.descriptors, *where, "$SDS")
        if errors:
            raise errors[0]
        raw = data.tobytes()
        if _HEADER.unpack_from(raw) != (digest, security_id, offset, length):
            raise CorruptionError(
                f"$SDS has something else in the place of security id {security_id}", structure="$SDS"
            )
        return raw[_HEADER.size :]

    def _read(self) -> _Secure:
        volume = self._volume
        batch = volume.load(np.array([RecordNumber.SECURE], np.uint64))
        if batch.errors:
            raise batch.errors[0]
        pick = batch.pick(AttributeType.DATA, "$SDS")
        if pick[0] < 0 or batch.attributes.resident[pick[0]]:
            raise batch.damage.get(0) or CorruptionError("$Secure has no $SDS", structure="$Secure")
        errors: dict[int, PseudomountError] = {}
        parts, count = [np.empty(0, _ENTRY)], 0
        for nodes in index_nodes(volume, batch, "$SII", errors):
            node, place, _ = parse_entries(nodes.buffer, nodes.starts, nodes.ends)
            inside = place + _ENTRY.itemsize <= nodes.ends[node]
            entry = gather(nodes.buffer, place[inside], _ENTRY)
            parts.append(entry[(entry["id"] == entry["id_again"]) & (entry["offset"] < 1 << 48)])
            count += len(parts[-1])
            if count > _MOST:
                raise CorruptionError(f"$Secure names over {_MOST} security ids", structure="$SII")
        if errors and not count:
            raise errors[0]
        entries = np.concatenate(parts)
        ordered = entries[np.argsort(entries["id"], kind="stable")]
        return _Secure(volume.streams(batch, pick, initialized=True)[0], ordered)
