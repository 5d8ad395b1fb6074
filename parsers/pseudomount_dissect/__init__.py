"""The libraries of the dissect project (AGPL-3.0, not part of pseudomount) behind our contract.

`DissectParser` is what the entry point names. It reads XFS and Btrfs, for which there is no parser of our own, and NTFS
and ext for who asks for a second opinion. The libraries come with the extra `dissect`; without them this package still
imports, still says what is on a volume, and tells how to get them where it is to open one.

`_probe` our own look at superblocks, `_guard` everything that stands between the libraries and the device, `_adapter`
what is asked of a library, `_xfs`, `_btrfs`, `_ext` and `_ntfs` one each, `_filesystem` the contract over any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, UnsupportedError, UsageError
from pseudomount.filesystem import FileSystem, Match, Parser
from pseudomount.findings import FindingLog, Severity
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock, find

__all__ = ["DissectParser"]

#: The library of each family.
_LIBRARIES: Final = {"btrfs": "dissect.btrfs", "ext": "dissect.extfs", "ntfs": "dissect.ntfs", "xfs": "dissect.xfs"}
_HOW: Final = "pip install 'pseudomount[dissect]'"
#: Of the families that we read ourselves: no parser with so low a score is taken unasked.
_SECOND_OPINION: Final = 5


def _missing(library: str) -> bool:
    try:
        return find_spec(library) is None
    except ModuleNotFoundError:
        return True


class DissectParser(Parser):
    """Opens XFS and Btrfs; NTFS, ext2, ext3 and ext4 where it is asked for by name.

    Options:
        subvolume: the number of the Btrfs subvolume that is the root, 5 for the top of them all; without it, it is the
            volume's default subvolume, as it is for the kernel.
    """

    name = "dissect"

    @property
    def unavailable(self) -> str:
        """Which libraries are not installed, and how to install them; "" where all are."""
        missing = [library for library in _LIBRARIES.values() if _missing(library)]
        return f"{', '.join(missing)} not installed: {_HOW}" if missing else ""

    def probe(self, device: BlockDevice) -> Match | None:
        """By magic numbers; three small reads."""
        found = find(device)
        if found is None:
            return None
        sure = 100 if found.sound else 50
        score = sure if found.family in {"xfs", "btrfs"} else _SECOND_OPINION
        return Match(found.filesystem, found.label, found.uuid, score)

    def open(
        self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = MappingProxyType({})
    ) -> FileSystem:
        """Opens a volume by the library for it.

        Raises:
            UnsupportedError: the library is not installed, or cannot read the volume.
            CorruptionError: there is no superblock that makes sense.
            UsageError: an option that is none.
        """
        found = find(device)
        if found is None:
            raise CorruptionError(
                f"{device.name} has no superblock of XFS, Btrfs, NTFS or ext",
                device=device.name,
                structure="superblock",
            )
        subvolume = _subvolume(options, found.family)
        library = _LIBRARIES[found.family]
        if _missing(library):
            raise UnsupportedError(f"{device.name} is {found.filesystem}, and {library} is not installed: {_HOW}")
        _note(found, library, findings)
        return _open(found, subvolume, Guard(device, findings), findings)


def _subvolume(options: Mapping[str, str], family: str) -> int | None:
    unknown = options.keys() - {"subvolume"}
    if unknown or (options and family != "btrfs"):
        raise UsageError(f"dissect has no option {', '.join(sorted(unknown or options))} for {family}")
    if not options:
        return None
    try:
        return int(options["subvolume"])
    except ValueError:
        raise UsageError(f"subvolume={options['subvolume']} is no number of a subvolume") from None


def _note(found: Superblock, library: str, findings: FindingLog) -> None:
    findings.add(Severity.NOTE, f"read by {library}, not by a parser of pseudomount", structure="parser")
    for message in found.notes:
        findings.add(Severity.NOTE, message, structure="superblock")
    for message in found.doubts:
        findings.add(Severity.DEGRADED, message, structure="superblock")


def _open(found: Superblock, subvolume: int | None, guard: Guard, findings: FindingLog) -> FileSystem:
    # Deferred: these import the library.
    module = import_module(f"pseudomount_dissect._{found.family}")
    from pseudomount_dissect._filesystem import DissectFileSystem

    with guard.call(f"{guard.device.name}: opening it", "superblock"):
        arguments = () if found.family != "btrfs" else (subvolume,)
        adapter = module.Adapter(guard, found, findings, *arguments)
    return DissectFileSystem(adapter, guard, found, findings)
