"""Range arithmetic against models that go byte by byte or range by range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pseudomount.device.ranges import blame, clear, coalesce, cut, cut_even
from pseudomount.errors import PseudomountError, ReadError

Ranges = list[tuple[int, int]]
RANGES = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 25)), max_size=20)
FULL = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), max_size=12)


def columns(ranges: Ranges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    table = np.array(ranges, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def model(ranges: Ranges, gap: int, limit: int | None) -> Ranges:
    """Atoms (ranges that overlap), then joined one after the other while gap and limit allow."""
    atoms: Ranges = []
    for offset, length in sorted(r for r in ranges if r[1]):
        if atoms and offset < atoms[-1][1]:
            atoms[-1] = (atoms[-1][0], max(atoms[-1][1], offset + length))
        else:
            atoms.append((offset, offset + length))
    joined: Ranges = []
    for begin, end in atoms:
        fits = bool(joined) and begin - joined[-1][1] <= gap and (limit is None or end - joined[-1][0] <= limit)
        if fits:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return [(begin, end - begin) for begin, end in joined]


@settings(max_examples=600, deadline=None)
@given(RANGES, st.integers(0, 12), st.none() | st.integers(1, 60))
def test_coalesce_equals_the_model(ranges: Ranges, gap: int, limit: int | None) -> None:
    got = coalesce(*columns(ranges), gap=gap, limit=limit)
    assert list(zip(got.offsets.tolist(), got.lengths.tolist(), strict=True)) == model(ranges, gap, limit)
    assert got.group.shape == (len(ranges),)
    for (offset, length), group in zip(ranges, got.group.tolist(), strict=True):
        if length:
            assert got.offsets[group] <= offset
            assert offset + length <= got.offsets[group] + got.lengths[group]
        else:
            assert group == -1


@pytest.mark.parametrize(
    ("ranges", "gap", "limit", "wanted"),
    [
        ([], 0, None, []),
        ([(5, 0)], 0, None, []),
        ([(10, 5), (0, 10)], 0, None, [(0, 15)]),
        ([(0, 10), (11, 5)], 0, None, [(0, 10), (11, 5)]),
        ([(0, 10), (11, 5)], 1, None, [(0, 16)]),
        ([(0, 10), (10, 10), (20, 10)], 0, 20, [(0, 20), (20, 10)]),
        ([(0, 10), (10, 10), (20, 10)], 0, 19, [(0, 10), (10, 10), (20, 10)]),
        ([(0, 100)], 0, 10, [(0, 100)]),  # one range is never cut
        ([(0, 10), (10, 10), (15, 15)], 0, 25, [(0, 10), (10, 20)]),  # cut before the overlap, not after it
        ([(0, 10), (5, 30), (35, 5)], 0, 20, [(0, 35), (35, 5)]),
        ([(0, 50), (10, 5), (50, 5)], 0, 52, [(0, 50), (50, 5)]),
    ],
)
def test_coalesce_by_hand(ranges: Ranges, gap: int, limit: int | None, wanted: Ranges) -> None:
    got = coalesce(*columns(ranges), gap=gap, limit=limit)
    assert list(zip(got.offsets.tolist(), got.lengths.tolist(), strict=True)) == wanted


def test_coalesce_many_under_a_limit() -> None:
    n = 200_000
    got = coalesce(np.arange(n, dtype=np.int64) * 4096, np.full(n, 4096, np.int64), limit=1 << 20)
    assert len(got.offsets) == -(-n // 256)
    assert int(got.lengths.max()) == 1 << 20
    assert int(got.lengths.sum()) == n * 4096


@settings(max_examples=300, deadline=None)
@given(FULL, st.lists(st.integers(0, 200), max_size=15))
def test_cut_equals_the_model(ranges: Ranges, bounds: list[int]) -> None:
    starts = [0, *sorted(bounds)]
    pieces = cut(*columns(ranges), np.array(starts, np.int64))
    wanted = []
    for row, (offset, length) in enumerate(ranges):
        for cell, start in enumerate(starts):
            end = starts[cell + 1] if cell + 1 < len(starts) else 10**9
            low, high = max(start, offset), min(end, offset + length)
            if low < high:
                wanted.append((row, cell, low, low - offset, high - low))
    columns_of = (pieces.rows, pieces.cells, pieces.offsets, pieces.within, pieces.lengths)
    assert list(zip(*(c.tolist() for c in columns_of), strict=True)) == wanted


@settings(max_examples=300, deadline=None)
@given(FULL, st.integers(1, 50))
def test_cut_even_equals_cut(ranges: Ranges, block: int) -> None:
    even = cut_even(*columns(ranges), block)
    plain = cut(*columns(ranges), np.arange(0, 400, block, dtype=np.int64))
    for name in ("rows", "cells", "offsets", "within", "lengths"):
        assert getattr(even, name).tolist() == getattr(plain, name).tolist()


def test_cut_far_out() -> None:
    top = (1 << 63) - 1
    pieces = cut(np.array([top - 10]), np.array([10]), np.array([0, top - 4]))
    assert pieces.lengths.tolist() == [6, 4]
    assert cut_even(np.array([top - 10]), np.array([10]), 4096).lengths.tolist() == [10]


def test_clear() -> None:
    buffer = np.full(20, 7, np.uint8)
    clear(buffer, np.array([12, 0, 2]), np.array([3, 2, 3]))
    assert buffer.tolist() == [0] * 5 + [7] * 7 + [0] * 3 + [7] * 5


def test_blame_keeps_the_first_piece() -> None:
    errors = [ReadError(str(i)) for i in range(4)]
    into: dict[int, PseudomountError] = {9: errors[3]}
    blame({2: errors[2], 1: errors[1], 0: errors[0]}, np.array([5, 5, 9]), into)
    assert into == {5: errors[0], 9: errors[3]}
