"""Which format opens a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pseudomount.errors import UnknownFormatError, UsageError
from pseudomount.formats.contract import Format, Source
from pseudomount.storage import Store

__all__ = ["HEAD", "find_format", "make_source"]

#: Bytes of the first object that formats are given to look at.
HEAD = 64 << 10


def make_source(
    store: Store,
    names: Sequence[str],
    options: Mapping[str, str] | None = None,
    formats: Sequence[Format] = (),
    *,
    above: Sequence[str] = (),
) -> Source:
    """What formats are asked about; `formats` and `above` as `Source` has them.

    Raises:
        UsageError: no name.
        StorageError: the first object is not there or cannot be read.
    """
    if not names:
        raise UsageError("nothing to open")
    size = store.size(names[0])
    head = store.read(names[0], 0, min(size, HEAD))
    return Source(store, tuple(names), head, size, dict(options or {}), tuple(formats), tuple(above))


def find_format(source: Source, formats: Sequence[Format]) -> Format:
    """The format of highest priority that opens the source, or the one that its option "format" names.

    Raises:
        UnknownFormatError: none does.
        UsageError: there is none of that name.
    """
    wanted = source.options.get("format")
    if wanted is not None:
        for candidate in formats:
            if candidate.name == wanted:
                return candidate
        known = ", ".join(sorted(candidate.name for candidate in formats))
        raise UsageError(f"there is no format {wanted!r}; known are {known or 'none'}")
    for candidate in sorted(formats, key=lambda f: (-f.priority, f.name)):
        if candidate.probe(source):
            return candidate
    name = source.names[0] if source.names else "the source"
    raise UnknownFormatError(f"{name} is empty" if not source.size else f"{name} is no disk image of a known format")
