"""Times as text: ISO 8601, always UTC, whatever the century."""

from __future__ import annotations

import numpy as np

from pseudomount.filesystem.columns import NAT, TimeColumn

__all__ = ["iso_minutes", "iso_nanoseconds", "iso_of_ns"]

_NS = 1_000_000_000


def iso_of_ns(ns: int | None) -> str | None:
    """ "2024-03-01T02:30:59.123456789Z" from nanoseconds since 1970; years beyond 9999 begin with "+"."""
    if ns is None:
        return None
    seconds, fraction = divmod(ns, _NS)
    return f"{_seconds(seconds)}.{fraction:09d}Z"


def _seconds(seconds: int) -> str:
    text = str(np.datetime64(seconds, "s"))
    return "+" + text if not text.startswith("-") and text.index("-") > 4 else text


def iso_nanoseconds(column: TimeColumn) -> tuple[list[str | None], list[int | None]]:
    """Each time as `iso_of_ns` writes it, and as exact nanoseconds since 1970; None where there is none."""
    texts: list[str | None] = [
        text + "Z" for text in np.datetime_as_string(column.ns.view("M8[ns]"), unit="ns").tolist()
    ]
    numbers: list[int | None] = column.ns.tolist()
    for i in np.flatnonzero(column.ns == NAT).tolist():
        exact = column.exact(i)
        numbers[i] = None if exact is None else exact[0] * _NS + exact[1]
        texts[i] = iso_of_ns(numbers[i])
    return texts, numbers


def iso_minutes(column: TimeColumn) -> list[str]:
    """Each time as "2024-03-01T02:30Z", "-" where there is none."""
    minutes = np.floor_divide(np.where(column.ns == NAT, 0, column.ns), 60 * _NS).view("M8[m]")
    texts: list[str] = [text + "Z" for text in np.datetime_as_string(minutes).tolist()]
    for i in np.flatnonzero(column.ns == NAT).tolist():
        exact = column.exact(i)
        texts[i] = "-" if exact is None else _seconds(exact[0])[:-3] + "Z"
    return texts
