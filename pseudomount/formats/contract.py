"""The Format contract: what a backup tool wrote → disks, each an extent index.

A format is a plug-in, found by entry point (group `pseudomount.formats`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pseudomount.extents import ExtentIndex
from pseudomount.findings import FindingLog
from pseudomount.storage import Store

__all__ = ["Disk", "Format", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """What was named for opening.

    Attributes:
        store: where it lies.
        names: objects in that store, in the order given; several are the pieces of one disk or the disks of one VM.
        head: the first bytes of the first object (up to 64 KiB).
        size: bytes of the first object.
        options: what the user asked for beyond that, by the format's own keys.
        formats: what else can be opened: for the backing files that an image names.
        above: the images that refer to this one, the one that was named for opening first.
    """

    store: Store
    names: tuple[str, ...]
    head: bytes
    size: int
    options: Mapping[str, str] = field(default_factory=dict)
    formats: Sequence[Format] = ()
    above: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """One virtual disk of a source.

    Attributes:
        index: where its bytes are. Objects are named as in the source's store, or in `store`.
        sector_size: bytes, where the format says; else 512.
        metadata: what the hypervisor kept with it, name → bytes; browsing never needs it. What is named "*.json" is
            an object of plain values, which `pseudomount info` shows.
        store: where the objects lie, if not all of them are in the source's store. Closed with the backup.
    """

    index: ExtentIndex
    sector_size: int = 512
    metadata: Mapping[str, bytes] = field(default_factory=dict)
    store: Store | None = None


class Format(ABC):
    """A container format.

    Attributes:
        name: as the field calls it: "raw", "qcow2".
        priority: formats are probed from the highest down; raw, which fits everything, is last.
        options: the keys of `Source.options` that mean something to it, besides "format"; parsers never see them.
    """

    name: str
    priority: int = 0
    options: frozenset[str] = frozenset()

    @abstractmethod
    def probe(self, source: Source) -> bool:
        """Whether this format opens the source. Storage errors propagate."""

    @abstractmethod
    def open(self, source: Source, findings: FindingLog) -> Sequence[Disk]:
        """The source's disks.

        Raises:
            CorruptionError, UnsupportedError, EncryptedError, StorageError
        """
