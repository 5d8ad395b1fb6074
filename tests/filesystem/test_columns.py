"""Columns of names and times."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pseudomount.filesystem import NAT, Names, TimeColumn

_LISTS = st.lists(st.binary(max_size=12), max_size=20)


@given(_LISTS, st.data())
def test_names_hold_what_was_put_in(values: list[bytes], data: st.DataObject) -> None:
    names = Names.of(values)
    assert names.tolist() == list(names) == values
    rows = data.draw(st.lists(st.integers(0, max(len(values) - 1, 0)), max_size=20 if values else 0))
    assert names.take(np.array(rows, np.int64)).tolist() == [values[i] for i in rows]
    mask = np.array([i % 2 == 0 for i in range(len(values))], np.bool_)
    assert names.take(mask).tolist() == values[::2]


@given(st.lists(_LISTS, max_size=4))
def test_names_join(parts: list[list[bytes]]) -> None:
    joined = Names.concat([Names.of(part) for part in parts])
    assert joined.tolist() == [value for part in parts for value in part]


def test_names_gather_from_a_table() -> None:
    table = np.frombuffer(b"..abc.defg", np.uint8)
    assert Names.gathered(table, np.array([2, 6, 0]), np.array([3, 4, 0])).tolist() == [b"abc", b"defg", b""]


@given(st.lists(st.tuples(st.integers(-(10**12), 10**12), st.integers(0, 999_999_999)), max_size=20))
def test_times_are_exact_whatever_the_century(values: list[tuple[int, int]]) -> None:
    seconds = np.array([s for s, _ in values], np.int64)
    column = TimeColumn.of(seconds, np.array([n for _, n in values], np.int64))
    assert [column.exact(i) for i in range(len(values))] == values
    for i, (s, n) in enumerate(values):
        assert column.ns[i] in (NAT, s * 10**9 + n)
        assert (column.ns[i] == NAT) == (i in column.odd)
    back = column.take(np.arange(len(values))[::-1])
    assert [back.exact(i) for i in range(len(values))] == values[::-1]
    twice = TimeColumn.concat([column, column])
    assert [twice.exact(i) for i in range(len(twice))] == values * 2


def test_int64_nanoseconds_end_in_2262() -> None:
    last = int(datetime(2262, 4, 11, tzinfo=UTC).timestamp())
    column = TimeColumn.of(np.array([last, last + 10**6]), np.zeros(2, np.int64), np.array([True, True]))
    assert column.ns[0] == last * 10**9
    assert column.ns[1] == NAT
    assert column.exact(1) == (last + 10**6, 0)


def test_unknown_times_are_null() -> None:
    column = TimeColumn.of(np.array([5, 6]), np.zeros(2, np.int64), np.array([True, False]))
    assert column.exact(0) == (5, 0)
    assert column.exact(1) is None
