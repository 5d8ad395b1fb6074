"""Commands on a whole volume work on its catalogue: read once, filtered as columns, printed in pieces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.api import BackupVolume
from pseudomount.cli.entries import Entries, Int64s
from pseudomount.cli.filters import Filters
from pseudomount.cli.progress import progress_bar
from pseudomount.filesystem.catalogue import Catalogue
from pseudomount.filesystem.catalogue._arrow import arrow, is_null, numbers, text
from pseudomount.filesystem.contract import FileType, LinkRows
from pseudomount.filesystem.names import printable, unescape

__all__ = ["NO_PATH", "chosen", "entries_of", "load", "pieces", "plain_lines", "shown_paths"]

#: Stands for the folder of what no path leads to.
NO_PATH = "<no path>"
_PIECE = 1 << 15
_CONTROL = r"[\x{0}-\x{1f}\x{7f}-\x{9f}\x{61c}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}]"


def load(volume: BackupVolume, *, deleted: bool = False) -> Catalogue:
    """The catalogue of a volume, without a parser's own columns; on a terminal a bar shows how far it is."""
    with progress_bar(f"Reading {volume.name}") as progress:
        return volume.catalogue(deleted=deleted, extra=False, progress=progress)


def chosen(catalogue: Catalogue, filters: Filters, *, under: int) -> Catalogue:
    """What lies below a directory and meets the conditions, in the order of the catalogue.

    What lies nowhere, as some of what was deleted, is taken to be below the root.
    """
    table = catalogue.arrow
    root = int(catalogue.directories.ids[catalogue.directories.levels[0][0]])
    if under == root:
        top = (numbers(table["file"]) == np.uint64(root)) & is_null(table["parent"])
        found = catalogue[1:] if top[0] and not top[1:].any() else catalogue[~top]
    else:
        found = catalogue.find(under=under)
    types: list[str | FileType] | None = None if filters.types is None else sorted(filters.types)
    found = found.find(
        filters.name,
        type=types,
        min_size=filters.min_size,
        max_size=filters.max_size,
        newer=filters.newer,
        older=filters.older,
    )
    if filters.iname is not None:
        found = found.find(filters.iname, ignore_case=True)
    if filters.regex is not None:
        search = filters.regex.search
        paths = [path and unescape(path, catalogue.encoding) for path in found.paths().to_pylist()]
        found = found[np.array([path is not None and search(path) is not None for path in paths], np.bool_)]
    return found


def pieces(catalogue: Catalogue) -> Iterator[Catalogue]:
    """The rows, some thousand at a time."""
    return (catalogue[first : first + _PIECE] for first in range(0, len(catalogue), _PIECE))


def plain_lines(catalogue: Catalogue, prefix: str) -> str | None:
    """The paths behind a prefix, a line each, as one text; None where some of them must be looked at one by one."""
    paths = catalogue.paths()
    if paths.null_count or pc.any(pc.match_substring_regex(paths, _CONTROL)).as_py():
        return None
    ended = pc.binary_join_element_wise(text(prefix), paths, text("\n"), text(""))
    return b"".join(_content(chunk) for chunk in ended.chunks).decode()


def _content(array: pa.Array) -> bytes:
    """All strings of an array of large strings, one after the other."""
    if not len(array):
        return b""
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    return bytes(memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[-1])])


def shown_paths(catalogue: Catalogue) -> list[str]:
    """The paths as a terminal may have them; of what has none its name, or its id, behind `NO_PATH`."""
    paths = catalogue.paths()
    texts: list[str | None] = paths.to_pylist()
    for i in np.flatnonzero(numbers(pc.match_substring_regex(paths, _CONTROL), 0)).tolist():
        texts[i] = printable(texts[i] or "")
    if paths.null_count:
        lost = np.flatnonzero(is_null(paths))
        some = catalogue.arrow.select(["file", "name"]).take(arrow(lost)).to_pylist()
        for i, row in zip(lost.tolist(), some, strict=True):
            name = f"#{row['file']}" if row["name"] is None else printable(row["name"])
            texts[i] = f"{NO_PATH}/{name}"
    return [text or "" for text in texts]


def entries_of(volume: BackupVolume, catalogue: Catalogue) -> tuple[Entries, Int64s]:
    """The rows as entries, all of them."""
    tree, table, n = catalogue.directories, catalogue.arrow, len(catalogue)
    encoding = catalogue.encoding
    parent = numbers(table["parent"], 0)
    place = tree.find(parent)
    place[is_null(table["parent"])] = -1
    above, query = np.unique(place, return_inverse=True)
    known = above[above >= 0]
    folders = [NO_PATH] * (len(above) - len(known))
    folders += [unescape(path, encoding) for path in tree.prefixes(known).to_pylist()]
    raw = catalogue.names()
    rows = catalogue.file_rows(np.arange(n))
    lost = place < 0
    top = np.flatnonzero(lost & (rows.file == tree.ids[tree.levels[0][0]]) & (np.diff(raw.offsets) == 0))
    if len(top):  # the root itself
        lost[top] = False
        query[top] = len(folders)
        folders.append("/")
    names = [encoding.decode(name) for name in raw]
    for i in np.flatnonzero(lost & is_null(table["name"])).tolist():
        names[i] = f"#{int(rows.file[i])}"
    kinds: NDArray[np.uint8] = catalogue.type_codes.astype(np.uint8)
    links = LinkRows(query, parent, rows.file, raw, kinds)
    deleted = numbers(table["deleted"])
    return Entries(volume.name, volume.fs, folders, names, links, kinds, rows, deleted, lost), np.arange(n)
