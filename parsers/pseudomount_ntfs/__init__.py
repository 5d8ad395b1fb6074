"""NTFS: a parser of our own, batch-first.

`NtfsParser` is what the entry point names. Below it: `_layout` structures and numbers, `_boot` the geometry,
`_records`, `_runs`, `_index` and `_catalogue` the kernels over tables of records, `_volume` what reads and joins them,
`_content` what a file's bytes are, `_filesystem` the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, UsageError
from pseudomount.filesystem import Match, Parser
from pseudomount.findings import FindingLog
from pseudomount_ntfs._boot import match_of, read_boot

if TYPE_CHECKING:
    from pseudomount_ntfs._filesystem import Ntfs

__all__ = ["Ntfs", "NtfsParser"]

_OPTIONS = {"system_files": {"yes": True, "no": False}}


# Every volume is probed, and not all are NTFS: what reads it is loaded when one is found.


def __getattr__(name: str) -> object:
    if name == "Ntfs":
        from pseudomount_ntfs._filesystem import Ntfs

        return Ntfs
    raise AttributeError(name)


class NtfsParser(Parser):
    """The parser of NTFS, 1.2 to 3.1.

    Options:
        system_files: "yes" lists the metafiles ($MFT, $Extend …) in the root; "no" is the default. They are found by
            their names in any case.
    """

    name = "ntfs"

    def probe(self, device: BlockDevice) -> Match | None:
        """Whether the boot sector, or its copy at the end, is NTFS's and leads to an MFT."""
        try:
            geometry = read_boot(device)
        except CorruptionError:
            return None
        if geometry is None:
            return None
        from pseudomount_ntfs._state import label_of
        from pseudomount_ntfs._volume import Volume

        try:
            volume = Volume(device, geometry, FindingLog())
        except CorruptionError:
            # What is left of an earlier NTFS below another file system has a boot sector at the end, and no MFT.
            return None if geometry.from_backup else match_of(geometry, "", False)
        return match_of(geometry, label_of(volume), not volume.mirror_used)

    def open(
        self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = MappingProxyType({})
    ) -> Ntfs:
        """Opens the volume: its boot sector, the MFT's own record, $Volume, and the head of $LogFile."""
        from pseudomount_ntfs._filesystem import Ntfs

        chosen: dict[str, bool] = {}
        for key, value in options.items():
            if key not in _OPTIONS or value not in _OPTIONS[key]:
                raise UsageError(f"ntfs has no option {key}={value}; it takes system_files=yes or no")
            chosen[key] = _OPTIONS[key][value]
        geometry = read_boot(device)
        if geometry is None:
            raise CorruptionError("no NTFS boot sector", device=device.name, offset=0, structure="boot sector")
        return Ntfs(device, geometry, findings, **chosen)
