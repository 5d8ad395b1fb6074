"""FAT12, FAT16, FAT32 and exFAT.

Options: `codepage` (FAT: of names without a long form; "cp437" unless given) and `timezone` (of times that do not say
their own: minutes east of UTC or the name of a zone; UTC unless given).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError
from pseudomount.filesystem import FileSystem, Match, Parser
from pseudomount.findings import FindingLog, Severity
from pseudomount_fat._exfat_layout import find_boot_region
from pseudomount_fat._layout import find_boot_sector

if TYPE_CHECKING:
    from pseudomount_fat._exfat import ExfatFileSystem
    from pseudomount_fat._fat import FatFileSystem

__all__ = ["ExfatFileSystem", "ExfatParser", "FatFileSystem", "FatParser"]

_NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


# Every volume is probed, and few are FAT: what reads it is loaded when one is found.


def __getattr__(name: str) -> object:
    if name == "ExfatFileSystem":
        from pseudomount_fat._exfat import ExfatFileSystem

        return ExfatFileSystem
    if name == "FatFileSystem":
        from pseudomount_fat._fat import FatFileSystem

        return FatFileSystem
    raise AttributeError(name)


class FatParser(Parser):
    """FAT12, FAT16 and FAT32."""

    name = "fat"

    def probe(self, device: BlockDevice) -> Match | None:
        """See `Parser.probe`: one sector, where it is FAT the start of the root directory for the label, too."""
        found = find_boot_sector(device)
        if found is None:
            return None
        from pseudomount_fat._fat import FatFileSystem
        from pseudomount_fat._names import CodePage
        from pseudomount_fat._times import Zone

        geometry, position = found
        volume = FatFileSystem(device, FindingLog(), geometry, CodePage(), Zone())
        return Match(volume.name, volume.label, volume.uuid, 100 if position == 0 and geometry.sound else 50)

    def open(self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = _NO_OPTIONS) -> FileSystem:
        """See `Parser.open`.

        Raises:
            UsageError: a code page or time zone that is not known.
        """
        from pseudomount_fat._fat import FatFileSystem
        from pseudomount_fat._names import CodePage
        from pseudomount_fat._times import Zone

        codepage = CodePage(options.get("codepage", "cp437"))
        zone = Zone(options.get("timezone", "UTC"))
        found = find_boot_sector(device)
        if found is None:
            raise CorruptionError("no FAT boot sector", device=device.name, offset=0, structure="boot sector")
        geometry, position = found
        if position:
            findings.add(
                Severity.NOTE, "the boot sector is damaged; its copy is used", structure="boot sector", offset=position
            )
        if geometry.size > device.size:
            findings.add(
                Severity.DEGRADED,
                f"the volume claims {geometry.size} bytes, there are {device.size}",
                structure="boot sector",
                offset=position,
            )
        return FatFileSystem(device, findings, geometry, codepage, zone)


class ExfatParser(Parser):
    """exFAT."""

    name = "exfat"

    def probe(self, device: BlockDevice) -> Match | None:
        """See `Parser.probe`: the boot region, and the start of the root directory for the label."""
        boot = find_boot_region(device)
        if boot is None:
            return None
        from pseudomount_fat._exfat import ExfatFileSystem
        from pseudomount_fat._times import Zone

        volume = ExfatFileSystem(device, FindingLog(), boot, Zone())
        return Match("exfat", volume.label, volume.uuid, 100 if boot.position == 0 and boot.checked else 50)

    def open(self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = _NO_OPTIONS) -> FileSystem:
        """See `Parser.open`.

        Raises:
            UsageError: a time zone that is not known.
        """
        from pseudomount_fat._exfat import ExfatFileSystem
        from pseudomount_fat._times import Zone

        zone = Zone(options.get("timezone", "UTC"))
        boot = find_boot_region(device)
        if boot is None:
            raise CorruptionError("no exFAT boot sector", device=device.name, offset=0, structure="boot sector")
        if boot.position:
            findings.add(
                Severity.NOTE,
                f"{boot.problem}; the backup boot region is used",
                structure="boot region",
                offset=boot.position,
            )
        if not boot.checked:
            findings.add(
                Severity.DEGRADED,
                "the checksum of the boot region is wrong, and so is its copy",
                structure="boot region",
                offset=boot.position,
            )
        if boot.geometry.size > device.size:
            findings.add(
                Severity.DEGRADED,
                f"the volume claims {boot.geometry.size} bytes, there are {device.size}",
                structure="boot region",
                offset=boot.position,
            )
        return ExfatFileSystem(device, findings, boot, zone)
