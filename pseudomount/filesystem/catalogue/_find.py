"""What rows of a catalogue meet a set of conditions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import translate
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pseudomount.errors import UsageError
from pseudomount.filesystem.catalogue._arrow import arrow, is_null, numbers
from pseudomount.filesystem.catalogue._patterns import glob_to_re2
from pseudomount.filesystem.rows import FileType

if TYPE_CHECKING:
    from pseudomount.filesystem.catalogue import Catalogue

__all__ = ["Conditions", "select"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES = {kind.word: kind for kind in FileType}


@dataclass(frozen=True, slots=True)
class Conditions:
    """As `Catalogue.find` takes them."""

    name: str | None
    ignore_case: bool
    regex: str | re.Pattern[str] | None
    type: str | FileType | Sequence[str | FileType] | None
    min_size: int | None
    max_size: int | None
    newer: datetime | int | None
    older: datetime | int | None
    time: str
    deleted: bool | None


def select(catalogue: Catalogue, conditions: Conditions, inside: Bools | None) -> Int64s:
    """Numbers of the rows, ascending; `inside` says which directories they must be in."""
    table = catalogue.arrow
    keep = np.ones(len(catalogue), np.bool_)
    if inside is not None:
        above = catalogue.directories.find(_filled(table["parent"], 0))
        keep &= (above >= 0) & inside[above] & ~is_null(table["parent"])
    if conditions.type is not None:
        keep &= np.isin(catalogue.type_codes, [int(kind) for kind in _kinds(conditions.type)])
    if conditions.deleted is not None:
        keep &= numbers(table["deleted"]) == conditions.deleted
    size = _filled(table["size"], -1) if conditions.min_size is not None or conditions.max_size is not None else None
    if size is not None:
        keep &= size >= max(conditions.min_size or 0, 0)
        if conditions.max_size is not None:
            keep &= size <= conditions.max_size
    if conditions.newer is not None or conditions.older is not None:
        keep &= _in_time(catalogue, conditions)
    if conditions.name is not None:
        keep &= _named(catalogue, conditions.name, conditions.ignore_case)
    rows = np.flatnonzero(keep)
    if conditions.regex is not None:
        # Python's own expressions, searched a path at a time: that is what they are.
        try:
            search = re.compile(conditions.regex).search
        except re.error as error:
            raise UsageError(f"{conditions.regex!r} is no regular expression: {error}") from error
        paths = catalogue[rows].paths().to_pylist()
        rows = rows[[path is not None and search(path) is not None for path in paths]] if len(rows) else rows
    return rows


def _filled(column: pa.ChunkedArray, null: int) -> NDArray[Any]:
    return numbers(column, null)


def _kinds(given: str | FileType | Sequence[str | FileType]) -> list[FileType]:
    kinds = []
    for kind in [given] if isinstance(given, str | FileType) else given:
        if isinstance(kind, str) and kind not in _TYPES:
            raise UsageError(f"there is no type {kind!r}; there are {', '.join(_TYPES)}")
        kinds.append(_TYPES[kind] if isinstance(kind, str) else kind)
    return kinds


def _nanoseconds(moment: datetime | int) -> int:
    if isinstance(moment, int):
        return moment
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * _NS + since.microseconds * 1000


def _in_time(catalogue: Catalogue, conditions: Conditions) -> Bools:
    if conditions.time not in ("created", "modified", "changed", "accessed"):
        raise UsageError(f"there is no time {conditions.time!r}")
    column = catalogue.arrow[conditions.time]
    known = ~is_null(column)
    ns = _filled(pc.cast(column, pa.int64()), 0)
    least = None if conditions.newer is None else _nanoseconds(conditions.newer)
    most = None if conditions.older is None else _nanoseconds(conditions.older)
    top, bottom = (1 << 63) - 1, -(1 << 63)
    keep: Bools = known.copy()
    if least is not None:
        keep &= (ns >= max(min(least, top), bottom)) & (least <= top)
    if most is not None:
        keep &= (ns < min(most, top)) if most <= top else known
        keep &= most > bottom
    for row, (seconds, fraction) in catalogue.odd.get(conditions.time, {}).items():
        exact = seconds * _NS + fraction
        keep[row] = (least is None or exact >= least) and (most is None or exact < most)
    return keep


def _named(catalogue: Catalogue, pattern: str, ignore_case: bool) -> Bools:
    table = catalogue.arrow
    match = pc.match_substring_regex(table["name"], glob_to_re2(pattern), ignore_case=ignore_case)
    keep: Bools = numbers(match, 0)
    raw = table["name_raw"]
    if raw.null_count < len(raw):  # their names are not what the column shows
        keep = keep.copy()
        test = re.compile(translate(pattern), re.IGNORECASE if ignore_case else 0).match
        odd = np.flatnonzero(~is_null(raw))
        for row, name in zip(odd.tolist(), raw.take(arrow(odd)).to_pylist(), strict=True):
            keep[row] = test(catalogue.encoding.decode(name)) is not None
    return keep
