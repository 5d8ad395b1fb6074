"""DOS dates and times, which say the local time of a zone that the disk does not know.

Microsoft FAT specification 1.03, section 6.3: a date is year since 1980 (7 bits), month (4), day (5); a time is hour
(5), minute (6), two-second count (5). exFAT (sections 7.4.5 to 7.4.9) has the same two halves in one 32-bit number.
"""

from __future__ import annotations

import functools
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import UsageError
from pseudomount.filesystem import TimeColumn

__all__ = ["Zone", "dos_times"]

Int64s = NDArray[np.int64]

_DAY = 86400


class Zone:
    """The zone of local times: a fixed offset in minutes east of UTC, or the name of a zone with its history.

    A local time that came twice, when clocks were set back, is taken as the first of the two.

    Raises:
        UsageError: neither a whole number of minutes less than a day, nor a zone that is known here.
    """

    def __init__(self, text: str = "UTC") -> None:
        self.text = text
        self._zone: ZoneInfo | None = None
        self._minutes = 0
        try:
            self._minutes = int(text)
        except ValueError:
            if text.upper() == "UTC":
                return
            try:
                self._zone = ZoneInfo(text)
            except (LookupError, ValueError, OSError) as error:
                raise UsageError(f"timezone: {text!r} is neither minutes nor a zone that is known here") from error
        if abs(self._minutes) >= 24 * 60:
            raise UsageError(f"timezone: {text} minutes are a day or more")

    def offsets(self, local: Int64s) -> Int64s:
        """Seconds east of UTC at n local times (seconds since 1970 as a local clock shows them)."""
        zone = self._zone
        if zone is None:
            return np.full(len(local), 60 * self._minutes, np.int64)
        # A zone is asked once for each day that occurs, and for each minute of the few days in which it changes.
        days, day_of = np.unique(local // _DAY, return_inverse=True)
        begin = np.array([_offset(zone, day * _DAY) for day in days.tolist()], np.int64)
        until = np.array([_offset(zone, (day + 1) * _DAY) for day in days.tolist()], np.int64)
        result: Int64s = begin[day_of]
        rows = np.flatnonzero((begin != until)[day_of])
        if len(rows):
            minutes, minute_of = np.unique(local[rows] // 60, return_inverse=True)
            result[rows] = np.array([_offset(zone, minute * 60) for minute in minutes.tolist()], np.int64)[minute_of]
        return result


def _offset(zone: ZoneInfo, local: int) -> int:
    offset = (datetime(1970, 1, 1) + timedelta(seconds=local)).replace(tzinfo=zone).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


@functools.cache
def _calendar() -> tuple[Int64s, NDArray[np.bool_]]:
    """Of each date there can be: seconds from 1970 to its midnight, int64 (65536,), and whether a calendar has it."""
    months = (np.arange(128)[:, None] + 10) * 12 + np.arange(16) - 1
    first = months.astype("M8[M]").astype("M8[D]").astype(np.int64)
    after = (months + 1).astype("M8[M]").astype("M8[D]").astype(np.int64)
    day = np.arange(32)
    valid = (day >= 1) & (day <= (after - first)[:, :, None])
    valid[:, [0, *range(13, 16)]] = False
    return ((first[:, :, None] + day - 1) * _DAY).reshape(-1), valid.reshape(-1)


@functools.cache
def _clock() -> tuple[Int64s, NDArray[np.bool_]]:
    """Of each time there can be: seconds since midnight, int64 (65536,), and whether a clock shows it."""
    hour, minute, second = np.arange(32)[:, None, None], np.arange(64)[:, None], np.arange(32) * 2
    valid = (hour < 24) & (minute < 60) & (second < 60)
    return (hour * 3600 + minute * 60 + second).reshape(-1), valid.reshape(-1)


def dos_times(
    date: NDArray[np.integer],
    time: NDArray[np.integer],
    zone: Zone,
    hundredths: NDArray[np.integer] | None = None,
    utc_offset: NDArray[np.integer] | None = None,
) -> TimeColumn:
    """n times.

    Args:
        date, time: (n,), as stored.
        zone: what the local times are of.
        hundredths: (n,), 0 to 199, 10 ms each; others are ignored.
        utc_offset: uint8 (n,), exFAT's: bit 7 says that the rest is known, a signed count of 15 minutes east of UTC
            (section 7.4.10). It takes precedence over `zone`.

    A date of zero is no time at all. A date or time that no calendar has (month 13, second 62) is null, and its `odd`
    is what it comes to when the excess is carried, as mktime does.
    """
    midnights, dates = _calendar()
    seconds_of, clocks = _clock()
    known = date != 0
    valid = dates[date] & clocks[time]
    local = midnights[date] + seconds_of[time]
    nanoseconds = np.zeros(len(local), np.int64)
    if hundredths is not None:
        tens = hundredths.astype(np.int64)
        tens[tens > 199] = 0
        local = local + tens // 100
        nanoseconds = tens % 100 * 10_000_000
    offset = zone.offsets(local)
    if utc_offset is not None:
        stored = utc_offset.astype(np.int64)
        quarters = ((stored & 0x7F) ^ 0x40) - 0x40
        offset = np.where(stored & 0x80 != 0, quarters * 900, offset)
    seconds = local - offset
    column = TimeColumn.of(seconds, nanoseconds, known & valid)
    strange = np.flatnonzero(known & ~valid)
    if not len(strange):
        return column
    odd = {int(i): (int(seconds[i]), int(nanoseconds[i])) for i in strange}
    return TimeColumn(column.ns, {**column.odd, **odd})
