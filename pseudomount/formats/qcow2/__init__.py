"""qcow2, QEMU's own container: versions 2 and 3.

Source: QEMU docs/interop/qcow2.rst. Not read: reference counts (reading needs none), persistent bitmaps, the memory
saved with snapshots.
"""

from __future__ import annotations

from collections.abc import Sequence

from pseudomount.errors import UsageError
from pseudomount.findings import FindingLog
from pseudomount.formats.contract import Disk, Format, Source
from pseudomount.formats.detect import find_format, make_source
from pseudomount.formats.qcow2._chain import FACTS, open_image
from pseudomount.formats.qcow2._layout import MAGIC

__all__ = ["FACTS", "Qcow2Format"]


class Qcow2Format(Format):
    """qcow2 images, each with the images beneath it and its external data file.

    Options of the source:
        backing_root: a folder in which backing files and external data files are looked for, besides the image's own.
        snapshot: id or name of an internal snapshot, to see the disk as it was then.
        sector_size: bytes of a logical sector, 512 (unless told otherwise) or 4096.
    """

    name = "qcow2"
    options = frozenset({"backing_root", "sector_size", "snapshot"})

    def probe(self, source: Source) -> bool:
        """Whatever bears its magic number; `open` refuses what it cannot read."""
        return source.head.startswith(MAGIC)

    def open(self, source: Source, findings: FindingLog) -> Sequence[Disk]:
        """A disk for each image; those of other formats among them are opened by theirs. See `Format.open`.

        Raises:
            CorruptionError, TruncatedError: header or L1 table make no sense, or break off.
            UnsupportedError: a version or feature that this version does not know.
            EncryptedError: it is encrypted.
            ObjectNotFoundError: a backing file or external data file is not where it is looked for.
            UsageError: an option has no meaning; there is no such snapshot.
        """
        sector_size = source.options.get("sector_size", "512")
        if sector_size not in ("512", "4096"):
            raise UsageError(f"option sector_size is 512 or 4096, not {sector_size!r}")
        disks: list[Disk] = []
        for name in source.names:
            if name != source.names[0] and not source.store.read(name, 0, len(MAGIC)).startswith(MAGIC):
                disks += self._others(source, name, findings)
            else:
                disks.append(open_image(source, name, int(sector_size), findings, self))
        return disks

    def _others(self, source: Source, name: str, findings: FindingLog) -> Sequence[Disk]:
        options = {key: value for key, value in source.options.items() if key not in ("format", "snapshot")}
        other = make_source(source.store, [name], options, source.formats)
        return find_format(other, other.formats).open(other, findings)
