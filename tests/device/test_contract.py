"""The guard, extent maps and streams."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import BlockDevice, ExtentKind, ExtentMap, stream_many
from pseudomount.device.contract import Int64s, UInt8s, as_ranges
from pseudomount.errors import (
    BatchTooLargeError,
    ClosedError,
    OutOfRangeError,
    PseudomountError,
    ReadError,
    TransientStorageError,
    UsageError,
)
from pseudomount.testing import CounterDevice, MemoryDevice, PatternDevice, pattern


class Answers(BlockDevice):
    """Answers with whatever it was given, right or wrong."""

    def __init__(self, answer: bytes | PseudomountError) -> None:
        self.answer = answer

    @property
    def size(self) -> int:
        return 100

    def _read(self, offset: int, length: int) -> bytes:
        if isinstance(self.answer, PseudomountError):
            raise self.answer
        return self.answer


class FailsWhole(Answers):
    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        assert isinstance(self.answer, PseudomountError)
        raise self.answer


@pytest.mark.parametrize("answer", [b"", b"123", b"12345"])
def test_wrong_lengths_are_errors(answer: bytes) -> None:
    device = Answers(answer)
    with pytest.raises(ReadError, match=f"{len(answer)} of 4 bytes at 7") as caught:
        device.read(7, 4)
    assert (caught.value.device, caught.value.offset) == ("device", 7)
    batch = device.read_many([7, 8], [4, len(answer)])
    assert list(batch.errors) == [0]
    assert batch.buffer.tobytes() == bytes(4) + answer


def test_an_error_of_a_device_keeps_its_type() -> None:
    error = TransientStorageError("the network is gone")
    with pytest.raises(TransientStorageError):
        Answers(error).read(0, 1)
    assert Answers(error).read_many([0, 5], [1, 0]).errors == {0: error}


def test_a_batch_never_fails_as_a_whole() -> None:
    error = TransientStorageError("the network is gone")
    batch = FailsWhole(error).read_many([0, 1, 200, 2], [1, 0, 1, 3])
    assert sorted(batch.errors) == [0, 2, 3]
    assert batch.errors[0] is batch.errors[3] is error
    assert batch.buffer.tobytes() == bytes(4)
    with pytest.raises(ClosedError):
        FailsWhole(ClosedError("closed below")).read_many([0], [1])


def test_as_ranges() -> None:
    offsets, lengths = as_ranges([1, 2], 3)
    assert offsets.dtype == lengths.dtype == np.int64
    assert lengths.tolist() == [3, 3]
    offsets, _ = as_ranges(np.array([2**63, 7, 2**64 - 1], np.uint64), 1)
    assert offsets.tolist() == [2**63 - 1, 7, 2**63 - 1]
    assert [c.tolist() for c in as_ranges([], [])] == [[], []]
    for bad in ([1.5], ["a"], [None], [2**64], [[1]]):
        with pytest.raises(UsageError):
            as_ranges(bad, 1)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        as_ranges([1, 2], [1])


def test_errors_in_a_batch() -> None:
    batch = MemoryDevice(b"abcdef").read_many([0, 9, 8, 2], [2, 1, 1, 2])
    assert batch.view(0).tobytes() == b"ab"
    assert batch.view(3).tobytes() == b"cd"
    with pytest.raises(OutOfRangeError, match="1 bytes at 9"):
        batch.raise_first()
    MemoryDevice(b"abc").read_many([0], [3]).raise_first()


def test_a_budget_of_its_own() -> None:
    device = MemoryDevice(bytes(100))
    device.batch_budget = 50
    assert len(device.read_many([0, 50], 25).buffer) == 50
    with pytest.raises(BatchTooLargeError, match="51 bytes is over the budget of 50"):
        device.read_many([0, 0], [50, 1])
    with pytest.raises(BatchTooLargeError):
        device.read_into(np.array([0, 0]), np.array([50, 1]), np.empty(51, np.uint8), np.array([0, 50]))


def test_a_sum_that_would_wrap_is_too_large() -> None:
    device = PatternDevice(2**62)
    with pytest.raises(BatchTooLargeError):
        device.read_many(np.zeros(4, np.int64), 2**62)  # 2**64, which is 0 in int64
    with pytest.raises(BatchTooLargeError):
        next(stream_many(device, np.zeros(4, np.int64), 2**62))


# -- extent maps -----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(list(ExtentKind))), max_size=12), st.integers(0, 2**62))
def test_merged_equals_a_byte_map(runs: list[tuple[int, ExtentKind]], start: int) -> None:
    lengths = np.array([n for n, _ in runs], np.int64)
    got = ExtentMap.merged(start + np.cumsum(lengths) - lengths, lengths, np.array([k for _, k in runs], np.uint8))
    flat = [kind for n, kind in runs for _ in range(n)]
    told = [kind for _, n, kind in got for _ in range(n)]
    assert told == flat
    assert all(a[2] is not b[2] for a, b in zip(got, list(got)[1:], strict=False))
    assert [o for o, _, _ in got] == [start + sum(n for _, n, _ in list(got)[:i]) for i in range(len(got))]


def test_single() -> None:
    assert list(ExtentMap.single(7, 0)) == []
    assert list(ExtentMap.single(7, 3, ExtentKind.HOLE)) == [(7, 3, ExtentKind.HOLE)]


# -- streams ---------------------------------------------------------------------------------------------------------

STREAMED = st.lists(st.tuples(st.integers(-3, 70), st.integers(-2, 40)), max_size=15)


@settings(max_examples=500, deadline=None)
@given(STREAMED, st.integers(1, 90))
def test_stream_gives_each_byte_once(ranges: list[tuple[int, int]], budget: int) -> None:
    device = CounterDevice(MemoryDevice(bytes(range(60))))
    got = [b""] * len(ranges)
    failed = set()
    inside = [o >= 0 and n >= 0 and o + n <= 60 for o, n in ranges]
    order: list[int] = []
    for step in stream_many(device, [r[0] for r in ranges], [r[1] for r in ranges], budget):
        assert 0 < len(step.ranges) == len(step.within) == len(step.batch)
        order += step.ranges.tolist()
        for j, i in enumerate(step.ranges.tolist()):
            if j in step.batch.errors:
                failed.add(i)
            else:
                assert len(got[i]) == step.within[j]
                got[i] += step.batch.view(j).tobytes()
    assert sorted(order) == order
    assert set(order) == set(range(len(ranges)))
    assert failed == {i for i, good in enumerate(inside) if not good}
    total = sum(n for (_, n), good in zip(ranges, inside, strict=True) if good)
    assert device.requests == -(-total // budget), "every step but the last is full"
    for i, (offset, length) in enumerate(ranges):
        assert not inside[i] or got[i] == bytes(range(60))[offset : offset + length]


def test_stream_of_nothing() -> None:
    assert list(stream_many(MemoryDevice(b""), [], [])) == []
    steps = list(stream_many(MemoryDevice(b"abc"), np.zeros(100_000, np.int64), 0, 1))
    assert len(steps) == 1
    assert len(steps[0].ranges) == 100_000


def test_stream_of_forged_lengths_ends() -> None:
    steps = list(stream_many(MemoryDevice(b"abc"), [0, 0, 1, 2**63 - 1], [2**62, 2**63 - 1, 2, 2**63 - 1], 1))
    assert len(steps) == 2
    errors = {int(s.ranges[j]) for s in steps for j in s.batch.errors}
    assert errors == {0, 1, 3}


def test_stream_keeps_to_the_device_budget() -> None:
    device = PatternDevice(1 << 40)
    device.batch_budget = 1000
    steps = list(stream_many(device, [1 << 39], [2500], 10**9))
    assert [len(s.batch.buffer) for s in steps] == [1000, 1000, 500]
    assert b"".join(s.batch.buffer.tobytes() for s in steps) == pattern(1 << 39, 2500)
