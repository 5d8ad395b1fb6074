"""What `find` looks for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import numpy as np

from pseudomount.cli.entries import Entries, Int64s
from pseudomount.errors import UsageError
from pseudomount.filesystem.columns import NAT
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.glob import matcher

__all__ = ["Filters", "parse_size", "parse_time"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGTP])(i?B)?|B)?", re.IGNORECASE)
_TYPES = {
    "f": FileType.FILE,
    "file": FileType.FILE,
    "d": FileType.DIRECTORY,
    "dir": FileType.DIRECTORY,
    "l": FileType.SYMLINK,
    "symlink": FileType.SYMLINK,
    "c": FileType.CHAR_DEVICE,
    "char": FileType.CHAR_DEVICE,
    "b": FileType.BLOCK_DEVICE,
    "block": FileType.BLOCK_DEVICE,
    "p": FileType.FIFO,
    "fifo": FileType.FIFO,
    "s": FileType.SOCKET,
    "socket": FileType.SOCKET,
}
_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_size(text: str) -> int:
    """Bytes of "1500", "10M", "10MiB" (both 1024²) or "10MB" (1000²).

    Raises:
        UsageError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is no size; write 1500, 10M, 2GiB or the like")
    number, unit, tail = match.groups()
    base = 1000 if (tail or "").lower() == "b" else 1024
    whole, _, fraction = number.partition(".")
    scale = int(base ** (" KMGTP".index(unit.upper()) if unit else 0))
    return int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)


def parse_time(text: str) -> int:
    """Nanoseconds since 1970 of a date or an ISO 8601 time; UTC where it does not say.

    Raises:
        UsageError: it is none.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no date; write 2024-03-01, 2024-03-01T02:30 or 2024-03-01T02:30+01:00"
        ) from error
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * _NS + since.microseconds * 1000


@dataclass(frozen=True, slots=True)
class Filters:
    """Conditions, all of which an entry must meet.

    Attributes:
        name: pattern for the name, matched as the file system compares names.
        iname: the same, whatever the case.
        regex: searched in the path.
        types: kinds of file, or None for all. Conditions on the size concern regular files unless types are given.
        min_size, max_size: bytes, both included.
        newer, older: nanoseconds since 1970; modified at or after, and before.
    """

    name: str | None = None
    iname: str | None = None
    regex: re.Pattern[str] | None = None
    types: frozenset[FileType] | None = None
    min_size: int | None = None
    max_size: int | None = None
    newer: int | None = None
    older: int | None = None

    @classmethod
    def parse(
        cls,
        *,
        name: str | None,
        iname: str | None,
        regex: str | None,
        types: str | None,
        min_size: str | None,
        max_size: str | None,
        newer: str | None,
        older: str | None,
    ) -> Self:
        """From the texts of the command line.

        Raises:
            UsageError: one of them has no meaning.
        """
        try:
            pattern = None if regex is None else re.compile(regex)
        except re.error as error:
            raise UsageError(f"{regex!r} is no regular expression: {error}") from error
        sized = min_size is not None or max_size is not None
        return cls(
            name,
            iname,
            pattern,
            _types(types) if types is not None else frozenset({FileType.FILE}) if sized else None,
            None if min_size is None else parse_size(min_size),
            None if max_size is None else parse_size(max_size),
            None if newer is None else parse_time(newer),
            None if older is None else parse_time(older),
        )

    @property
    def need_rows(self) -> bool:
        """Whether more than names and types must be known."""
        return any(value is not None for value in (self.min_size, self.max_size, self.newer, self.older))

    def select(self, entries: Entries) -> Int64s:
        """Numbers of the entries that meet all conditions, in the order of the disk."""
        keep = np.ones(len(entries.names), np.bool_)
        if self.types is not None:
            keep &= np.isin(entries.types, np.array(sorted(self.types), np.uint8))
        if self.need_rows:
            keep &= self._by_rows(entries)
        which = np.flatnonzero(keep)
        for match, subject in self._texts(entries):
            which = np.array([i for i in which.tolist() if match(subject(i))], np.int64)
        return which

    def _by_rows(self, entries: Entries) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        rows = entries.rows
        if rows is None:
            raise TypeError("these conditions need rows")
        keep = np.ones(len(rows), np.bool_)
        if rows.errors:
            keep[list(rows.errors)] = False
        if self.min_size is not None:
            keep &= rows.size >= min(self.min_size, (1 << 63) - 1)
        if self.max_size is not None:
            keep &= (rows.size >= 0) & (rows.size <= min(self.max_size, (1 << 63) - 1))
        if self.newer is None and self.older is None:
            return keep
        lowest, highest = self.newer, self.older
        ns = rows.modified.ns
        timed = ns != NAT
        if lowest is not None:
            timed &= ns >= np.int64(max(min(lowest, (1 << 63) - 1), NAT))
        if highest is not None:
            timed &= ns < np.int64(max(min(highest, (1 << 63) - 1), NAT))
        for i, (seconds, fraction) in rows.modified.odd.items():  # too far from 1970 for the column
            exact = seconds * _NS + fraction
            timed[i] = (lowest is None or exact >= lowest) and (highest is None or exact < highest)
        keep &= timed
        return keep

    def _texts(self, entries: Entries) -> list[tuple[Callable[[str], object], Callable[[int], str]]]:
        found: list[tuple[Callable[[str], object], Callable[[int], str]]] = []
        if self.name is not None:
            found.append((matcher(self.name, entries.fs.case_sensitive), entries.names.__getitem__))
        if self.iname is not None:
            found.append((matcher(self.iname, False), entries.names.__getitem__))
        if self.regex is not None:
            found.append((self.regex.search, entries.path))
        return found


def _types(text: str) -> frozenset[FileType]:
    words = [word.strip().lower() for word in text.split(",")]
    if len(words) == 1 and words[0] not in _TYPES and all(letter in _TYPES for letter in words[0]):
        words = list(words[0])  # "fl" for "f,l"
    for word in words:
        if word not in _TYPES:
            raise UsageError(f"--type {text!r}: the types are f, d, l, c, b, p and s")
    return frozenset(_TYPES[word] for word in words)
