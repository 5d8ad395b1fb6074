"""Raw disk images, whole or in pieces: every byte is the disk's."""

from __future__ import annotations

from collections.abc import Sequence

from pseudomount.errors import UnknownFormatError, UnsupportedError, UsageError
from pseudomount.extents import ColumnIndex
from pseudomount.findings import FindingLog, Severity
from pseudomount.formats.contract import Disk, Format, Source
from pseudomount.formats.known import TAIL, recognise
from pseudomount.formats.pieces import find_pieces, group_names

__all__ = ["RawFormat"]

#: Containers that have a plug-in of ours: here only where they were named among raw images.
_OURS = ("qcow2",)


class RawFormat(Format):
    """Raw images. What bears the magic number of another container is refused, never taken for raw.

    Options of the source:
        split: "auto" (names such as x.000, x.001 are the pieces of one disk, and the first of them, named alone, brings
            the others; each other name is a disk of its own), "yes" (all names are one disk, in the order given),
            "no" (each is a disk).
        format: "raw" opens as raw whatever the magic number says.
        sector_size: bytes of a logical sector, 512 (unless told otherwise) or 4096.
    """

    name = "raw"
    priority = -1000
    options = frozenset({"sector_size", "split"})

    def probe(self, source: Source) -> bool:
        """Whatever is not empty; `open` refuses other containers by name."""
        return source.size > 0

    def open(self, source: Source, findings: FindingLog) -> Sequence[Disk]:
        """A disk for each image; see `Format.open`.

        Raises:
            UnknownFormatError: an image is empty.
            UnsupportedError: it is of another format.
            CorruptionError: a piece of it is missing.
            UsageError: an option has no meaning, or one piece was named and it is not the first.
        """
        sector_size = source.options.get("sector_size", "512")
        if sector_size not in ("512", "4096"):
            raise UsageError(f"option sector_size is 512 or 4096, not {sector_size!r}")
        split = source.options.get("split", "auto")
        disks = []
        for names in group_names(source.names, split):
            pieces = find_pieces(source.store, names, findings) if split == "auto" else names
            disks.append(Disk(self._index(source, pieces, findings), int(sector_size)))
        return disks

    def _index(self, source: Source, names: Sequence[str], findings: FindingLog) -> ColumnIndex:
        sizes = [(name, source.store.size(name)) for name in names]
        total = sum(size for _, size in sizes)
        if not total:
            raise UnknownFormatError(f"{names[0]} is empty")
        if source.options.get("format") != self.name:
            self._refuse_others(source, sizes)
        usual = sizes[0][1]
        odd = [(name, size) for name, size in sizes[:-1] if size != usual]
        if odd or sizes[-1][1] > usual:
            name, size = odd[0] if odd else sizes[-1]
            findings.add(
                Severity.NOTE,
                f"the pieces of the disk differ in size: {name} has {size} bytes, {names[0]} {usual}",
                structure="split raw",
            )
        return ColumnIndex.concat(sizes)

    def _refuse_others(self, source: Source, sizes: Sequence[tuple[str, int]]) -> None:
        """Looks at the beginning of the first piece and the end of the last."""
        (first, first_size), (last, last_size) = sizes[0], sizes[-1]
        head = source.head if first == source.names[0] else source.store.read(first, 0, min(first_size, TAIL))
        tail = min(last_size, TAIL)
        known = recognise(head, source.store.read(last, last_size - tail, tail))
        if known is not None:
            advice = known.advice.replace("{}", first)
            refused = "not raw" if known.name in _OURS else "which this version does not open"
            raise UnsupportedError(f"{first} is in {known.name} format, {refused}; {advice}")
