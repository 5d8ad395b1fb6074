"""File content by data runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import ExtentKind, MappedDevice
from pseudomount.errors import CorruptionError, ReadError, UsageError
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice, PatternDevice, pattern

DISK = bytes(range(1, 251))

#: A gap before the run, its length, its position, and whether it was ever written.
RUN = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(-1, 230), st.booleans())


@settings(max_examples=400, deadline=None)
@given(st.lists(RUN, max_size=10), st.integers(0, 150), st.data())
def test_equals_a_byte_model(runs: list[tuple[int, int, int, bool]], size: int, data: st.DataObject) -> None:
    content, kinds = bytearray(400), [ExtentKind.HOLE] * 400
    offsets, lengths, at = [], [], 0
    for gap, length, position, unwritten in runs:
        at += gap
        offsets.append(at)
        lengths.append(length)
        if position >= 0:
            kinds[at : at + length] = [ExtentKind.ZERO if unwritten else ExtentKind.DATA] * length
            if not unwritten:
                content[at : at + length] = DISK[position : position + length]
        at += length
    device = MappedDevice(
        MemoryDevice(DISK),
        offsets,
        lengths,
        [r[2] for r in runs],
        size,
        unwritten=np.array([r[3] for r in runs], np.bool_),
    )
    assert device.read(0, size) == content[:size]
    assert [kind for _, n, kind in device.extents() for _ in range(n)] == kinds[:size]
    spans = data.draw(st.lists(st.tuples(st.integers(0, size), st.integers(0, size)), max_size=8))
    asked = [(min(a, b), abs(a - b)) for a, b in spans]
    batch = device.read_many([a for a, _ in asked], [n for _, n in asked])
    assert batch.buffer.tobytes() == b"".join(content[a : a + n] for a, n in asked)
    for a, n in asked:
        assert device.read(a, n) == content[a : a + n]


def test_a_fragmented_file_is_one_request() -> None:
    n = 50_000
    places = np.random.default_rng(3).permutation(n).astype(np.int64) * 512
    disk = CounterDevice(PatternDevice(n * 512))
    file = MappedDevice(disk, np.arange(n, dtype=np.int64) * 512, np.full(n, 512, np.int64), places, n * 512 - 100)
    batch = file.read_many([0], [file.size])
    assert disk.requests == 1
    assert disk.bytes == file.size
    assert batch.buffer[512 * 777 : 512 * 778].tobytes() == pattern(int(places[777]), 512)
    disk.reset()
    assert file.read(512 * 777 + 5, 300) == pattern(int(places[777]) + 5, 300)
    assert (disk.requests, disk.bytes) == (1, 300)
    disk.reset()
    assert file.read(512 * 777, 2048)[512:1024] == pattern(int(places[778]), 512)
    assert disk.requests == 1


def test_holes_cost_no_read() -> None:
    disk = CounterDevice(MemoryDevice(DISK))
    file = MappedDevice(disk, [0, 100], [50, 50], [10, 20], 10_000, unwritten=np.array([False, True]))
    assert file.read(50, 9000) == bytes(9000)
    assert not file.read_many([60, 100, 9000], [40, 50, 1000]).buffer.any()
    assert disk.requests == 0


WILD = [-2, -(2**63), 245, 250, 251, 2**62, 2**63 - 1]


@pytest.mark.parametrize("position", WILD)
def test_a_position_outside_costs_what_touches_it(position: int) -> None:
    file = MappedDevice(MemoryDevice(DISK, name="disk0p1"), [0, 10, 20], [10, 10, 10], [0, position, 100], 35)
    inside = max(0, min(10, 250 - position)) if position >= 0 else 0
    asked = [(0, 10), (19, 1), (20, 15), (0, 35), (10, 0)]
    batch = file.read_many([a for a, _ in asked], [n for _, n in asked])
    assert sorted(batch.errors) == [1, 3]
    error = batch.errors[1]
    assert isinstance(error, CorruptionError)
    assert (error.device, error.structure) == ("disk0p1", "data runs")
    assert "disk0p1" in str(error)
    assert batch.view(0).tobytes() == DISK[:10]
    assert batch.view(2).tobytes() == DISK[100:110] + bytes(5)
    for a, n in asked:
        if (a, n) in ((19, 1), (0, 35)):
            with pytest.raises(CorruptionError):
                file.read(a, n)
        else:
            file.read(a, n)
    if inside:
        assert file.read(10, inside) == DISK[position : position + inside]
        assert not file.read_many([10], [inside]).errors
        with pytest.raises(CorruptionError):
            file.read(10, inside + 1)
    assert int(file.extents().lengths.sum()) == 35


def test_a_position_of_a_forged_uint64() -> None:
    file = MappedDevice(MemoryDevice(DISK), [0], [10], np.array([2**64 - 1], np.uint64), 10)
    with pytest.raises(CorruptionError):
        file.read(0, 1)


@pytest.mark.parametrize(
    ("offsets", "lengths"),
    [
        ([0, 5], [10, 10]),
        ([10, 0], [5, 5]),
        ([-1], [5]),
        ([0], [-5]),
        ([0, 2**62], [2**63 - 1, 1]),
        ([0, 5, 6], [5, 0, -(2**63)]),
        ([5, 3], [0, 1]),
    ],
)
def test_runs_that_make_no_sense(offsets: list[int], lengths: list[int]) -> None:
    with pytest.raises(CorruptionError, match="overlaps or is out of order") as caught:
        MappedDevice(MemoryDevice(DISK, name="disk0p1"), offsets, lengths, [0] * len(offsets), 100)
    assert caught.value.structure == "data runs"


def test_runs_far_past_the_size() -> None:
    file = MappedDevice(MemoryDevice(DISK), [0, 2**62, 2**63 - 1], [2**62, 2**62 - 1, 2**63 - 1], [5, 0, 0], 20)
    assert file.read(0, 20) == DISK[5:25]
    huge = MappedDevice(MemoryDevice(DISK), [2**63 - 20], [2**62], [0], 2**63 - 1)
    assert huge.read(2**63 - 22, 21) == bytes(2) + DISK[:19]
    assert list(huge.extents()) == [(0, 2**63 - 20, ExtentKind.HOLE), (2**63 - 20, 19, ExtentKind.DATA)]


def test_arguments_that_do_not_fit() -> None:
    for arguments in (([0], [1, 2], [0], 1), ([0], [1], [0, 1], 1), ([0], [1], [0], -1), ([0], [1], [0], 2**63)):
        with pytest.raises(UsageError):
            MappedDevice(MemoryDevice(DISK), *arguments)
    with pytest.raises(UsageError):
        MappedDevice(MemoryDevice(DISK), [0], [1], [0], 1, unwritten=np.zeros(2, np.bool_))


def test_a_failing_piece_fails_its_range_alone() -> None:
    disk = FaultDevice(MemoryDevice(DISK), errors=[(55, 1)])
    file = MappedDevice(disk, [0, 10, 20], [10, 10, 10], [100, 50, 0], 30)
    batch = file.read_many([0, 5, 15, 14, 0, 16], [10, 8, 1, 2, 30, 14])
    assert sorted(batch.errors) == [2, 3, 4]
    assert isinstance(batch.errors[2], ReadError)
    assert batch.errors[2].offset == 55
    assert batch.view(1).tobytes() == DISK[105:110] + DISK[50:53]
    assert batch.view(5).tobytes() == DISK[56:60] + DISK[:10]


def test_the_arrays_handed_over_are_not_kept() -> None:
    offsets, lengths, positions = (np.array(v, np.int64) for v in ([0, 10], [10, 10], [5, 50]))
    file = MappedDevice(MemoryDevice(DISK), offsets, lengths, positions, 20)
    offsets[:] = lengths[:] = positions[:] = 3
    assert file.read(0, 20) == DISK[5:15] + DISK[50:60]


def test_damaged_runs_say_what_is_wrong() -> None:
    def why(run: int) -> CorruptionError:
        return CorruptionError(f"run {run} is lost", device="disk0p1", offset=1000 + run, structure="extent tree block")

    damaged = np.array([False, True, False, True, True])
    disk = CounterDevice(MemoryDevice(DISK, name="disk0p1"))
    # The empty run must not shift the numbers; positions of damaged runs mean nothing, not even -1.
    file = MappedDevice(
        disk, [0, 10, 15, 20, 30], [10, 5, 0, 10, 10], [0, 3, 7, -1, 2**62], 45, damaged=damaged, why=why
    )
    assert file.read(0, 10) == DISK[:10]
    assert file.read(15, 5) == bytes(5)
    assert file.read(40, 5) == bytes(5)
    batch = file.read_many([0, 9, 10, 19, 25, 30, 40, 0], [10, 2, 1, 2, 10, 1, 5, 45])
    assert {i: str(error) for i, error in batch.errors.items()} == {
        1: "run 1 is lost",
        2: "run 1 is lost",
        3: "run 3 is lost",
        4: "run 3 is lost",
        5: "run 4 is lost",
        7: "run 1 is lost",
    }
    first = batch.errors[5]
    assert isinstance(first, CorruptionError)
    assert (first.device, first.offset, first.structure) == ("disk0p1", 1004, "extent tree block")
    for offset, length, run in ((10, 1, 1), (9, 2, 1), (35, 10, 4)):
        with pytest.raises(CorruptionError, match=f"run {run} is lost"):
            file.read(offset, length)
    assert list(file.extents())[-2:] == [(20, 20, ExtentKind.DATA), (40, 5, ExtentKind.HOLE)]


def test_damaged_runs_have_an_error_without_a_reason_too() -> None:
    file = MappedDevice(MemoryDevice(DISK, name="disk0p1"), [5], [10], [0], 20, "a file", damaged=np.ones(1, np.bool_))
    with pytest.raises(
        CorruptionError, match=r"^a file: it is not known where the run at 7 lies in disk0p1$"
    ) as caught:
        file.read(7, 3)
    assert (caught.value.device, caught.value.offset, caught.value.structure) == ("disk0p1", None, "data runs")
    with pytest.raises(UsageError):
        MappedDevice(MemoryDevice(DISK), [0], [1], [0], 1, damaged=np.zeros(2, np.bool_))
