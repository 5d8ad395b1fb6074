"""Entries of directories as lines of text and JSON, a batch at a time: 200,000 entries are a few array operations."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from pseudomount.cli.output import human_size, paint, raw_if_escaped, shown, type_colour
from pseudomount.cli.times import iso_minutes, iso_nanoseconds
from pseudomount.filesystem.contract import FileRows, FileSystem, FileType, LinkRows
from pseudomount.filesystem.names import escape
from pseudomount.filesystem.tree import Listing
from pseudomount.filesystem.walk import WalkBatch

__all__ = ["Entries", "json_lines", "long_lines", "permissions"]

Int64s = NDArray[np.int64]

_LETTERS = {
    FileType.FILE: "-",
    FileType.DIRECTORY: "d",
    FileType.SYMLINK: "l",
    FileType.CHAR_DEVICE: "c",
    FileType.BLOCK_DEVICE: "b",
    FileType.FIFO: "p",
    FileType.SOCKET: "s",
    FileType.UNKNOWN: "?",
}
#: The attributes of FAT and NTFS in the order in which `attrib` shows them.
_ATTRIBUTES = ((0x20, "A"), (0x04, "S"), (0x02, "H"), (0x01, "R"), (0x800, "C"), (0x4000, "E"))


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of one or many directories.

    Attributes:
        volume: name of the volume.
        fs: its file system.
        directories: paths of the directories, as strings; `links.query` counts in them.
        names: n names, as strings.
        links: n entries.
        types: uint8 (n,) `FileType`.
        rows: what is known of the files, or None where it was not asked for.
        deleted: bool (n,), the name or the file was deleted; None: none was.
        lost: bool (n,), no path leads there; None: one does everywhere.
    """

    volume: str
    fs: FileSystem
    directories: Sequence[str]
    names: Sequence[str]
    links: LinkRows
    types: NDArray[np.uint8]
    rows: FileRows | None
    deleted: NDArray[np.bool_] | None = None
    lost: NDArray[np.bool_] | None = None

    @classmethod
    def of_listing(cls, volume: str, listing: Listing, *, rows: bool) -> Entries:
        """Of one directory."""
        known = listing.rows if rows else None
        links = listing.links
        links = LinkRows(np.zeros(len(links), np.int64), links.parent, links.file, links.name, links.type, links.errors)
        return cls(volume, listing.tree.fs, [listing.path], listing.names, links, listing.types, known)

    @classmethod
    def of_batch(cls, volume: str, fs: FileSystem, batch: WalkBatch) -> Entries:
        """Of one step of a walk."""
        return cls(volume, fs, batch.directories, batch.names, batch.links, batch.types, batch.rows)

    def path(self, i: int) -> str:
        """Path of entry i."""
        return f"{self.directories[int(self.links.query[i])].rstrip('/')}/{self.names[i]}"

    def sorted_by_name(self) -> list[Int64s]:
        """The numbers of each directory's entries, by name."""
        bounds = np.searchsorted(self.links.query, np.arange(len(self.directories) + 1)).tolist()
        names = self.names
        return [
            np.array(sorted(range(first, last), key=names.__getitem__), np.int64) for first, last in pairwise(bounds)
        ]

    def targets(self, which: Int64s) -> dict[int, str | None]:
        """Where those of the entries that are links lead to; None where that could not be read (which is a finding)."""
        links = which[self.types[which] == FileType.SYMLINK]
        if not len(links):
            return {}
        answer = self.fs.readlink(self.links.file[links])
        decode = self.fs.name_encoding.decode
        found: dict[int, str | None] = dict(
            zip(links.tolist(), [decode(target) for target in answer.target], strict=True)
        )
        for row, error in answer.errors.items():
            i = int(links[row])
            found[i] = None
            shown_path = escape(self.path(i), self.fs.name_encoding)
            self.fs.findings.add_error(error, file=int(self.links.file[i]), path=shown_path)
        return found


@cache
def permissions(kind: int, mode: int, flags: int) -> str:
    """ "drwxr-xr-x", or "d A-HR--" by the attributes where the file system has no modes."""
    if mode >= 0:
        return stat.filemode(mode)
    return _LETTERS[FileType(kind)] + "".join(letter if flags & bit else "-" for bit, letter in _ATTRIBUTES)


def long_lines(
    entries: Entries,
    which: Int64s,
    labels: Sequence[str],
    *,
    colour: bool = False,
    human: bool = False,
    widths: list[int] | None = None,
) -> list[str]:
    """As `ls -l` prints them, columns aligned over the entries given.

    Args:
        entries: with rows.
        which: numbers of the entries.
        labels: what stands for each in the last column, printable.
        colour: whether for a terminal.
        human: whether sizes are rounded.
        widths: the least widths of the columns, and afterwards those that were used: for batches of one listing.
    """
    rows = entries.rows
    if rows is None or not len(which):
        return []
    targets = entries.targets(which)
    encoding = entries.fs.name_encoding
    kinds, modes = entries.types[which].tolist(), rows.mode[which].tolist()
    flags = (rows.flags[which] & np.uint64(0xFFFF)).tolist() if bool((rows.mode[which] < 0).any()) else [0] * len(which)
    columns = (
        [permissions(kind, mode, flag) for kind, mode, flag in zip(kinds, modes, flags, strict=True)],
        _numbers(rows.links[which]),
        _numbers(rows.uid[which]),
        _numbers(rows.gid[which]),
        [human_size(size) for size in rows.size[which].tolist()] if human else _numbers(rows.size[which]),
        iso_minutes(rows.modified.take(which)),
    )
    for column, blank in zip(columns, ("?" * 10, *"?????"), strict=True):
        for i in _failed(rows, which):
            column[i] = blank
    sizes = [max(map(len, column)) for column in columns]
    if widths is not None:
        sizes = [max(pair) for pair in zip_longest(sizes, widths, fillvalue=0)]
        widths[:] = sizes
    form = f"{{:<{sizes[0]}}} {{:>{sizes[1]}}} {{:>{sizes[2]}}} {{:>{sizes[3]}}} {{:>{sizes[4]}}} {{:<{sizes[5]}}} {{}}"
    if colour:
        labels = [
            paint(label, type_colour(kind, mode), True) for label, kind, mode in zip(labels, kinds, modes, strict=True)
        ]
    lines = [form.format(*cells) for cells in zip(*columns, labels, strict=True)]
    if targets:
        for at, i in enumerate(which.tolist()):
            if i in targets:
                target = targets[i]
                lines[at] += " -> " + ("?" if target is None else shown(target, encoding))
    return lines


def _failed(rows: FileRows, which: Int64s) -> list[int]:
    """Positions in `which` of the rows that could not be read."""
    if not rows.errors:
        return []
    return np.flatnonzero(np.isin(which, np.fromiter(rows.errors, np.int64, len(rows.errors)))).tolist()


def _numbers(column: Int64s) -> list[str]:
    return ["-" if value < 0 else str(value) for value in column.tolist()]


def json_lines(entries: Entries, which: Int64s) -> list[str]:
    """Each entry as a JSON object, all that is known of it included; `entries` has rows."""
    rows = entries.rows
    if rows is None or not len(which):
        return []
    targets = entries.targets(which)
    encoding = entries.fs.name_encoding
    known = _columns(rows, which)
    keys = tuple(known)
    folders = [escape(path, encoding).rstrip("/") for path in entries.directories]
    words = {int(kind): kind.word for kind in FileType}
    dumps: Callable[[object], str] = json.JSONEncoder().encode
    lines = []
    for i, folder, kind, values in zip(
        which.tolist(),
        entries.links.query[which].tolist(),
        entries.types[which].tolist(),
        zip(*known.values(), strict=True),
        strict=True,
    ):
        name = entries.names[i]
        escaped = escape(name, encoding)
        path = None if entries.lost is not None and entries.lost[i] else f"{folders[folder]}/{escaped}"
        item: dict[str, object] = {"volume": entries.volume, "path": path, "name": escaped}
        if entries.deleted is not None and entries.deleted[i]:
            item["deleted"] = True
        raw = raw_if_escaped(name, escaped, encoding)
        if raw is not None:
            item["name_raw"] = raw
        item["type"] = words[kind]
        if i in rows.errors:
            item["error"] = str(rows.errors[i])
        else:
            item.update(zip(keys, values, strict=True))
        if i in targets:
            target = targets[i]
            item["target"] = None if target is None else escape(target, encoding)
            raw = target and raw_if_escaped(target, escape(target, encoding), encoding)
            if raw:
                item["target_raw"] = raw
        lines.append(dumps(item))
    return lines


def _columns(rows: FileRows, which: Int64s) -> dict[str, list[object]]:
    """What JSON says of each row, by key."""

    def known(column: Int64s) -> list[object]:
        return [None if value < 0 else value for value in column[which].tolist()]

    kinds, modes, flags = rows.type[which].tolist(), rows.mode[which].tolist(), rows.flags[which].tolist()
    found: dict[str, list[object]] = {
        "size": known(rows.size),
        "allocated": known(rows.allocated),
        "mode": known(rows.mode),
        "permissions": [
            permissions(kind, mode, 0 if mode >= 0 else flag & 0xFFFF)
            for kind, mode, flag in zip(kinds, modes, flags, strict=True)
        ],
        "uid": known(rows.uid),
        "gid": known(rows.gid),
        "links": known(rows.links),
        "inode": rows.inode[which].tolist(),
        "generation": known(rows.generation),
        "subvolume": rows.subvolume[which].tolist(),
        "flags": flags,
    }
    for name in ("created", "modified", "changed", "accessed"):
        column = getattr(rows, name).take(which)
        texts, numbers = iso_nanoseconds(column)
        found[name], found[f"{name}_ns"] = list(texts), list(numbers)
    return found
