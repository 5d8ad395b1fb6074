"""Text and JSON on standard output, in bulk."""

from __future__ import annotations

import base64
import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from pseudomount.filesystem.contract import FileType, NameEncoding
from pseudomount.filesystem.names import escape, printable

__all__ = [
    "FAINT",
    "RED",
    "YELLOW",
    "Output",
    "aligned",
    "grid",
    "human_size",
    "paint",
    "raw_if_escaped",
    "shown",
    "use_colour",
    "width",
]

FAINT, RED, YELLOW = "2", "1;31", "33"

_COLOURS = {
    FileType.DIRECTORY: "1;34",
    FileType.SYMLINK: "1;36",
    FileType.CHAR_DEVICE: "33",
    FileType.BLOCK_DEVICE: "33",
    FileType.FIFO: "33",
    FileType.SOCKET: "35",
    FileType.UNKNOWN: "1;31",
}


class Output:
    """Where a command prints.

    Attributes:
        json: whether it prints JSON.
        colour: whether standard output is a terminal that shows colours.
    """

    def __init__(self, *, json: bool) -> None:
        """For one command."""
        self.json = json
        self.colour = not json and use_colour(sys.stdout)

    def lines(self, texts: Iterable[str]) -> None:
        """Lines of text, in one write."""
        sys.stdout.write("".join([f"{text}\n" for text in texts]))

    def text(self, text: str) -> None:
        """Lines that are one text already."""
        sys.stdout.write(text)

    def object(self, value: Mapping[str, object]) -> None:
        """One JSON object on a line, in ASCII: no reader's code page can spoil it."""
        sys.stdout.write(json.dumps(value, default=str) + "\n")


def use_colour(stream: object) -> bool:
    """Whether a stream is a terminal that understands escape sequences, and nobody objects."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform == "win32" and not any(os.environ.get(name) for name in ("WT_SESSION", "ANSICON", "TERM")):
        return False
    isatty = getattr(stream, "isatty", None)
    return bool(isatty and isatty())


def paint(text: str, code: str, colour: bool) -> str:
    """The text in a colour."""
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def type_colour(kind: int, mode: int = 0) -> str:
    """The colour code of a kind of file."""
    if kind == FileType.FILE:
        return "1;32" if mode > 0 and mode & 0o111 else ""
    return _COLOURS[FileType(kind)]


def shown(name: str, encoding: NameEncoding) -> str:
    """A name or path as a terminal may have it."""
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    return printable(escape(name, encoding))


def raw_if_escaped(name: str, escaped: str, encoding: NameEncoding) -> str | None:
    """Base64 of the name's own bytes, where the escaped form is not the name itself."""
    return None if name == escaped else base64.b64encode(encoding.encode(name)).decode("ascii")


def human_size(size: int) -> str:
    """Bytes as "559 B", "1.2 MiB", "24 GiB"."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024 or unit == "PiB":
            break
        value /= 1024
    if unit == "B" or value >= 100 or value == int(value):
        return f"{value:.0f} {unit}"
    return f"{value:.1f} {unit}"


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def aligned(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Rows of cells as lines with aligned columns; those in `right` to the right."""
    if not rows:
        return []
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for i, cell in enumerate(row):
            space = " " * (widths[i] - width(cell))
            cells.append(space + cell if i in right else cell + space)
        lines.append("  ".join(cells).rstrip())
    return lines


def grid(names: Sequence[str], painted: Sequence[str], columns: int) -> list[str]:
    """Names side by side, down and then across, as many as fit on a terminal of so many columns."""
    if not names:
        return []
    sizes = [width(name) for name in names]
    count = len(names)
    for rows in range(1, count + 1):
        starts = range(0, count, rows)
        widths = [max(sizes[at : at + rows]) for at in starts]
        if sum(widths) + 2 * (len(widths) - 1) <= columns or rows == count:
            break
    lines = []
    for row in range(rows):
        cells = []
        for column, at in enumerate(starts):
            if at + row < count:
                i = at + row
                cells.append(painted[i] + " " * (widths[column] - sizes[i]))
        lines.append("  ".join(cells).rstrip())
    return lines
