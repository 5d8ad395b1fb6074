"""Dates and times against the standard library, and against the vectors of Linux's own test of its FAT times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from pseudomount.errors import UsageError
from pseudomount.filesystem import NAT
from pseudomount_fat._times import Zone, dos_times
from tests.support.fat import ForgedFat, entry, find, ids

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def dos(when: datetime) -> tuple[int, int]:
    return (when.year - 1980) << 9 | when.month << 5 | when.day, when.hour << 11 | when.minute << 5 | when.second // 2


# fs/fat/fat_test.c of Linux: seconds since 1970, date, time, hundredths, minutes west of UTC.
LINUX = [
    (315532800, 33, 0, 0, 0),  # the earliest, 1980-01-01
    (4354819198, 65439, 49021, 0, 0),  # the latest, 2107-12-31 23:59:58
    (825552000, 8285, 0, 0, 0),  # 1996-02-29
    (951782400, 10333, 0, 0, 0),  # 2000-02-29
    (4102444800, 61473, 0, 0, 0),  # 2100-01-01
    (946684799, 10143, 49021, 100, 0),  # 1999-12-31 23:59:59, an odd second
]


@pytest.mark.parametrize(("seconds", "date", "time", "hundredths", "west"), LINUX)
def test_vectors_of_linux(seconds: int, date: int, time: int, hundredths: int, west: int) -> None:
    column = dos_times(np.array([date]), np.array([time]), Zone(str(-west)), np.array([hundredths]))
    assert column.exact(0) == (seconds, 0)


@pytest.mark.parametrize("zone", ["UTC", "60", "-210", "Europe/Berlin", "America/New_York", "Asia/Kolkata"])
def test_a_thousand_times_in_a_zone(zone: str) -> None:
    rng = np.random.default_rng(5)
    whens = [datetime(1980, 1, 1) + timedelta(seconds=int(s) // 2 * 2) for s in rng.integers(0, 4_000_000_000, 1000)]
    for hour in range(48):  # around the changes of 2023, in both directions
        whens += [
            datetime(2023, month, day) + timedelta(minutes=30 * hour) for month, day in ((3, 12), (3, 26), (10, 29))
        ]
    fields = np.array([dos(when) for when in whens])
    column = dos_times(fields[:, 0], fields[:, 1], Zone(zone))
    try:
        info: timezone | ZoneInfo = timezone(timedelta(minutes=int(zone)))
    except ValueError:
        info = ZoneInfo(zone)
    wanted = [(when.replace(tzinfo=info) - EPOCH).total_seconds() * 10**9 for when in whens]
    assert column.ns.tolist() == wanted


def test_every_day_of_the_format() -> None:
    days = [datetime(1980, 1, 1) + timedelta(days=i) for i in range(46751)]
    assert days[-1] == datetime(2107, 12, 31)
    date = np.array([dos(day)[0] for day in days])
    column = dos_times(date, np.zeros(len(date), np.int64), Zone())
    assert (np.diff(column.ns) == 86400 * 10**9).all()
    assert column.ns[0] == 315532800 * 10**9
    assert not column.odd


def test_ten_milliseconds() -> None:
    date, time = dos(datetime(2020, 5, 17, 10, 20, 30))
    column = dos_times(np.full(4, date), np.full(4, time), Zone(), np.array([0, 1, 199, 200]))
    assert np.diff(column.ns, prepend=column.ns[0]).tolist() == [0, 10**7, 198 * 10**7, -199 * 10**7]


@pytest.mark.parametrize(
    ("date", "time", "odd"),
    [
        (0, 0, None),
        (0, 1234, None),
        (13 << 5 | 1, 0, datetime(1981, 1, 1)),  # month 13
        (2 << 5 | 31, 0, datetime(1980, 3, 2)),  # the 31st of February of a leap year
        (1 << 5, 0, datetime(1979, 12, 31)),  # day 0
        (1, 0, datetime(1979, 12, 1)),  # month 0
        (1 << 5 | 1, 24 << 11, datetime(1980, 1, 2)),
        (1 << 5 | 1, 60 << 5, datetime(1980, 1, 1, 1)),
        (1 << 5 | 1, 31, datetime(1980, 1, 1, 0, 1, 2)),
        (0xFFFF, 0xFFFF, datetime(2108, 3, 31, 31 - 24 + 1, 4, 2) + timedelta(days=1)),
    ],
)
def test_dates_that_no_calendar_has(date: int, time: int, odd: datetime | None) -> None:
    column = dos_times(np.array([date]), np.array([time]), Zone())
    assert column.ns[0] == NAT
    if odd is None:
        assert column.exact(0) is None
    else:
        assert column.odd == {0: (int((odd.replace(tzinfo=UTC) - EPOCH).total_seconds()), 0)}


@pytest.mark.parametrize("text", ["", "Nowhere/Land", "../../etc/passwd", "1440", "-1440", "1.5", "/etc/localtime"])
def test_zones_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        Zone(text)


def test_the_three_times_of_a_file() -> None:
    volume = ForgedFat()
    created, modified, accessed = datetime(2001, 2, 3, 4, 5, 6), datetime(2010, 7, 8, 9, 10, 12), datetime(2020, 3, 4)
    volume.root = entry(
        b"A       BIN",
        created=(*dos(created), 123),
        modified=dos(modified),
        accessed=dos(accessed)[0],
    )
    volume.root += entry(b"B       BIN")
    for zone, east in (("UTC", 0), ("120", 2)):
        filesystem = volume.open({"timezone": zone})
        assert filesystem.details["timezone"] == zone
        rows = filesystem.rows(ids(find(filesystem, "a.bin"), find(filesystem, "b.bin"), 0))

        def utc(when: datetime, east: int = east) -> int:
            return int((when.replace(tzinfo=UTC) - EPOCH).total_seconds()) - 3600 * east

        assert rows.created.exact(0) == (utc(created) + 1, 230_000_000)
        assert rows.modified.exact(0) == (utc(modified), 0)
        assert rows.accessed.exact(0) == (utc(accessed), 0)
        assert rows.changed.exact(0) is None
        for column in (rows.created, rows.modified, rows.accessed):
            assert column.exact(1) is None
            assert column.exact(2) is None
