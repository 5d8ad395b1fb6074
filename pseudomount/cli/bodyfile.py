"""The body file of The Sleuth Kit 3.0 and later, which mactime makes a timeline of.

A line a name: `MD5|name|inode|mode_as_string|UID|GID|size|atime|mtime|ctime|crtime`, times in whole seconds since 1970,
0 for what is not known (https://wiki.sleuthkit.org/index.php?title=Body_file). mactime splits at each "|" and then
reads %XX as the byte of that number, so "|" and "%" of a name are written in that way; fls leaves both as they are.
Control characters are written as everywhere in the command line.
"""

from __future__ import annotations

import stat

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pseudomount.cli.catalogued import shown_paths
from pseudomount.filesystem.catalogue import Catalogue
from pseudomount.filesystem.columns import NAT
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.names import printable

__all__ = ["body_lines"]

#: How fls tells kinds of file: of the name, and of the file itself.
_LETTERS = {
    FileType.UNKNOWN: ("-", "-"),
    FileType.FILE: ("r", "r"),
    FileType.DIRECTORY: ("d", "d"),
    FileType.SYMLINK: ("l", "l"),
    FileType.CHAR_DEVICE: ("c", "c"),
    FileType.BLOCK_DEVICE: ("b", "b"),
    FileType.FIFO: ("p", "p"),
    FileType.SOCKET: ("s", "h"),
}
_NS = 1_000_000_000
_READ_ONLY = 0x01


def body_lines(catalogue: Catalogue) -> list[str]:
    """A line for each row but the root's."""
    top = pc.fill_null(pc.equal(catalogue.arrow["name"], ""), False).to_numpy()
    catalogue = catalogue[~top] if top.any() else catalogue
    table = catalogue.arrow
    names = shown_paths(catalogue)
    targets = table["target"]
    if targets.null_count < len(targets):
        for i in np.flatnonzero(targets.is_valid().to_numpy()).tolist():
            names[i] += f" -> {printable(targets[i].as_py())}"
    for i in np.flatnonzero(table["deleted"].to_numpy()).tolist():
        names[i] += " (deleted)"
    columns = (
        [name.replace("%", "%25").replace("|", "%7C") for name in names],
        _numbers(table["inode"]),
        _modes(catalogue),
        _numbers(table["uid"]),
        _numbers(table["gid"]),
        _numbers(table["size"]),
        *(_seconds(catalogue, name) for name in ("accessed", "modified", "changed", "created")),
    )
    return [f"0|{'|'.join(cells)}" for cells in zip(*columns, strict=True)]


def _numbers(column: pa.ChunkedArray) -> list[str]:
    texts: list[str] = pc.cast(pc.fill_null(column, pa.scalar(0, column.type)), pa.string()).to_pylist()
    return texts


def _seconds(catalogue: Catalogue, name: str) -> list[str]:
    ns = pc.fill_null(pc.cast(catalogue.arrow[name], pa.int64()), NAT).to_numpy()
    seconds: list[int] = np.where(ns == NAT, 0, ns // _NS).tolist()
    for row, exact in catalogue.odd.get(name, {}).items():
        seconds[row] = exact[0]
    return list(map(str, seconds))


def _modes(catalogue: Catalogue) -> list[str]:
    """ "r/rrw-r--r--"; where the file system has no modes all may do all, but write what is read-only."""
    table = catalogue.arrow
    flags = pc.fill_null(table["flags"], 0).to_numpy()
    given = pc.fill_null(pc.cast(table["mode"], pa.int64()), -1).to_numpy()
    modes = np.where(given >= 0, given & 0o7777, np.where(flags & np.uint64(_READ_ONLY) != 0, 0o555, 0o777))
    kinds = catalogue.type_codes.astype(np.int64)
    both, which = np.unique(kinds << 12 | modes, return_inverse=True)
    texts = ["/".join(_LETTERS[FileType(value >> 12)]) + _permissions(value & 0o7777) for value in both.tolist()]
    return [texts[i] for i in which.tolist()]


def _permissions(mode: int) -> str:
    return stat.filemode(stat.S_IFREG | mode)[1:]
