"""The small parts: sizes, dates, columns, times, and the rules for names and links."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudomount.cli.entries import permissions
from pseudomount.cli.filters import Filters, parse_size, parse_time
from pseudomount.cli.output import aligned, grid, human_size, width
from pseudomount.cli.safety import link_refusal, local_name, name_refusal
from pseudomount.cli.times import iso_minutes, iso_nanoseconds, iso_of_ns
from pseudomount.errors import UsageError
from pseudomount.filesystem.columns import NAT, TimeColumn
from pseudomount.filesystem.contract import FileType, NameEncoding

# -- sizes and dates: as numfmt(1) and date(1) of coreutils have them --------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1500", 1500),
        ("10K", 10240),
        ("10k", 10240),
        ("10KiB", 10240),
        ("10KB", 10000),
        ("10M", 10485760),
        ("2GiB", 2147483648),
        ("2GB", 2000000000),
        ("1.5M", 1572864),
        ("1T", 1099511627776),
        ("7B", 7),
        (" 3 MiB ", 3145728),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "10X", "1.M", "10 M B", "1e3", "\u0661\u0660Q"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01", 0),
        ("2024-03-01", 1709251200),
        ("2024-03-01T02:30", 1709260200),
        ("2024-03-01 02:30:59", 1709260259),
        ("2024-03-01T02:30:59Z", 1709260259),
        ("2024-03-01T02:30:59+01:00", 1709256659),
        ("1601-01-01", -11644473600),
    ],
)
def test_dates(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds * 10**9


def test_fractions_of_dates_are_exact() -> None:
    assert parse_time("2024-03-01T02:30:59.123456") == 1709260259_123456000
    assert parse_time("1969-12-31T23:59:59.5") == -500_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "2024-02-30", "12:00"])
def test_no_dates(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text)


def parsed(types: str | None = None, min_size: str | None = None) -> Filters:
    return Filters.parse(
        name=None, iname=None, regex=None, types=types, min_size=min_size, max_size=None, newer=None, older=None
    )


def test_types() -> None:
    both = frozenset({FileType.FILE, FileType.DIRECTORY})
    assert parsed("f").types == frozenset({FileType.FILE})
    assert parsed("f,d").types == parsed("fd").types == parsed("file,dir").types == both
    assert parsed("d", "1").types == frozenset({FileType.DIRECTORY})
    assert parsed(None, "1").types == frozenset({FileType.FILE})
    assert parsed().types is None
    with pytest.raises(UsageError):
        parsed("f,q")


# -- output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (10 << 20, "10 MiB"),
        (155 << 29, "77.5 GiB"),
        (1 << 60, "1024 PiB"),
    ],
)
def test_human_sizes(size: int, text: str) -> None:
    assert human_size(size) == text


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    assert aligned([("a", "1", "x"), ("日本", "100", "y")], right=frozenset({1})) == ["a       1  x", "日本  100  y"]
    assert width("e\u0301") == 1
    assert width("日本") == 4


@given(st.lists(st.text("abc日", min_size=1, max_size=12), max_size=40), st.integers(1, 120))
def test_a_grid_has_every_name_once_and_fits(names: list[str], columns: int) -> None:
    lines = grid(names, names, columns)
    assert sorted(word for line in lines for word in line.split()) == sorted(names)
    if names:
        assert max(map(width, lines)) <= max([columns, *map(width, names)])


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1709260259_123456789, "2024-03-01T02:30:59.123456789Z"),
        (-11644473600 * 10**9, "1601-01-01T00:00:00.000000000Z"),  # where NTFS begins
        (15032385535 * 10**9, "2446-05-10T22:38:55.000000000Z"),  # where ext4 ends
        (910692730085 * 10**9, "+30828-09-14T02:48:05.000000000Z"),  # where NTFS ends
    ],
)
def test_times_of_all_centuries(ns: int | None, text: str | None) -> None:
    assert iso_of_ns(ns) == text
    known = np.array([ns is not None])
    seconds, fraction = divmod(ns or 0, 10**9)
    column = TimeColumn.of(np.array([seconds]), np.array([fraction]), known)
    assert iso_nanoseconds(column) == ([text], [ns])
    assert iso_minutes(column) == ["-" if text is None else text.rpartition(":")[0] + "Z"]


@given(st.integers(NAT + 1, (1 << 63) - 1))
def test_columns_of_times_say_what_single_times_say(ns: int) -> None:
    column = TimeColumn(np.array([ns, NAT, 0], np.int64))
    texts, numbers = iso_nanoseconds(column)
    assert numbers == [ns, None, 0]
    assert texts == [iso_of_ns(ns), None, iso_of_ns(0)]


def test_attributes_stand_in_where_there_are_no_modes() -> None:
    assert permissions(FileType.FILE, -1, 0x21) == "-A--R--"
    assert permissions(FileType.DIRECTORY, -1, 0x06) == "d-SH---"
    assert permissions(FileType.FILE, 0o100644, 0) == "-rw-r--r--"


# -- names and links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "../x", "a\0b", "\0"])
@pytest.mark.parametrize("windows", [False, True])
def test_names_that_are_refused_everywhere(name: str, windows: bool) -> None:
    assert name_refusal(name, windows=windows)


@pytest.mark.parametrize(
    "name",
    [
        "C:", "C:\\x", "a\\b", "\\\\server\\share", "file:stream", "x<y", "x|y", "what?", "*", '"', "a\nb",
        "CON", "con", "nul.txt", "Aux.tar.gz", "COM1", "LPT9.log", "COM\u00b9", "CONIN$", "con .txt", "prn ",
        "dot.", "space ", "...",
    ],
)  # fmt: skip
def test_names_that_windows_must_not_have(name: str) -> None:
    assert name_refusal(name, windows=True)
    assert not name_refusal(name, windows=False)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        ".bashrc",
        "..a",
        "a..b",
        "console",
        "com10",
        "nulls",
        "COM",
        "Übersicht \u2013 Räder.txt",
        "a b",
        "-rf",
        "~",
    ],
)
@pytest.mark.parametrize("windows", [False, True])
def test_names_that_are_fine(name: str, windows: bool) -> None:
    assert not name_refusal(name, windows=windows)


@pytest.mark.parametrize(
    ("target", "depth"),
    [("a", 0), ("a/b", 0), ("./a", 0), (".", 0), ("../a", 1), ("../../a/b", 2), ("..", 1), ("a//b/", 0)],
)
def test_links_that_stay_inside(target: str, depth: int) -> None:
    assert not link_refusal(target, depth, windows=False)
    assert not link_refusal(target.replace("/", "\\"), depth, windows=True)


@pytest.mark.parametrize(
    ("target", "depth"),
    [
        ("", 3),
        ("/", 3),
        ("/etc", 3),
        ("..", 0),
        ("../../a", 1),
        ("a/../b", 3),
        ("../a/../../b", 3),
        ("a\0", 3),
        ("//x/y", 3),
    ],
)
@pytest.mark.parametrize("windows", [False, True])
def test_links_that_lead_outside(target: str, depth: int, windows: bool) -> None:
    assert link_refusal(target, depth, windows=windows)


@pytest.mark.parametrize("target", ["C:\\x", "c:x", "\\x", "\\\\server\\share", "..\\x", "\\\\?\\C:\\x", "/??/C:/x"])
def test_links_that_lead_outside_on_windows(target: str) -> None:
    assert link_refusal(target, 0, windows=True)


def test_a_name_that_cannot_be_encoded_here_is_written_escaped() -> None:
    assert local_name("plain", NameEncoding.BYTES) == "plain"
    assert local_name("lone\ud83d", NameEncoding.WTF8) in ("lone\\ud83d", "lone\ud83d")
