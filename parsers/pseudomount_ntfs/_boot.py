"""The boot sector: the volume's geometry, range-checked. Source: [LN] File: $Boot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, DamageError
from pseudomount.filesystem import Match
from pseudomount_ntfs._layout import BOOT

__all__ = ["Geometry", "parse_boot", "read_boot"]

_OEM = b"NTFS    "
_SECTORS = frozenset({256, 512, 1024, 2048, 4096})
_LARGEST_CLUSTER = 2 << 20
_LARGEST_RECORD = 64 << 10


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the boot sector says.

    Attributes:
        sector_size, cluster_size, record_size: bytes, powers of two.
        clusters: the volume's clusters; no run may reach past them.
        mft, mirror: clusters where the MFT and its mirror begin.
        serial: the volume's serial number.
        from_backup: the first sector was no good and the copy in the last sector was used.
    """

    sector_size: int
    cluster_size: int
    record_size: int
    clusters: int
    mft: int
    mirror: int
    serial: int
    from_backup: bool = False

    @property
    def uuid(self) -> str:
        """The serial number as blkid prints it."""
        return f"{self.serial:016X}"


def parse_boot(sector: bytes, *, from_backup: bool = False) -> Geometry | str:
    """The geometry, or what is wrong with these 512 bytes. A sector that is not NTFS's at all gives ""."""
    boot = np.frombuffer(sector, BOOT, 1)[0]
    if sector[3:11] != _OEM:
        return ""
    sector_size = int(boot["sector_size"])
    if sector_size not in _SECTORS:
        return f"sectors of {sector_size} bytes"
    # Up to 128 sectors the byte is their number; above, its two's complement is the power of two.
    per = int(boot["sectors_per_cluster"])
    per = 1 << (256 - per) if per > 0x80 and per >= 256 - 13 else per
    cluster_size = per * sector_size
    if not per or per & (per - 1) or cluster_size > _LARGEST_CLUSTER:
        return f"clusters of {per} sectors"
    record = int(boot["record_size"])
    record_size = record * cluster_size if record > 0 else 1 << min(-record, 62)
    if not 512 <= record_size <= _LARGEST_RECORD or record_size & (record_size - 1):
        return f"MFT records of {record_size} bytes"
    clusters = int(boot["sectors"]) * sector_size // cluster_size
    mft, mirror = int(boot["mft"]), int(boot["mirror"])
    if not 0 < clusters < 1 << 40 or clusters * cluster_size >= 1 << 60:
        return f"a volume of {clusters} clusters"
    if not 0 <= mft < clusters and not 0 <= mirror < clusters:
        return f"an MFT at cluster {mft} of {clusters}"
    return Geometry(sector_size, cluster_size, record_size, clusters, mft, mirror, int(boot["serial"]), from_backup)


def read_boot(device: BlockDevice) -> Geometry | None:
    """The geometry from the first sector or, where that is damaged, from the copy in the last one; None if not NTFS.

    Raises:
        CorruptionError: the OEM id is NTFS's, the rest makes no sense, and there is no good copy.
    """
    if device.size < 4096:
        return None
    first: Geometry | str
    failure: DamageError | None = None
    try:
        first = parse_boot(device.read(0, 512))
    except DamageError as error:
        first, failure = "", error
    if isinstance(first, Geometry):
        return first
    # The copy lies in the volume's last sector, so its place depends on the sector size, which is not known.
    try:
        tail = device.read(device.size - 4096, 4096)
    except DamageError:
        tail = bytes(4096)
    for sector_size in (512, 4096, 2048, 1024, 256):
        sector = tail[4096 - sector_size :][:512].ljust(512, b"\0")
        backup = parse_boot(sector, from_backup=True)
        if isinstance(backup, Geometry) and backup.sector_size == sector_size:
            return backup
    if failure is not None:
        raise failure
    if first:
        raise CorruptionError(
            f"the boot sector names {first}, and there is no good copy of it",
            device=device.name,
            offset=0,
            structure="boot sector",
        )
    return None


def match_of(geometry: Geometry, label: str, sound: bool) -> Match:
    """What `probe` answers."""
    return Match("ntfs", label, geometry.uuid, 100 if sound and not geometry.from_backup else 50)
