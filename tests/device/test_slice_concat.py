"""Windows, and devices one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from pseudomount.device import CacheDevice, ConcatDevice, ExtentKind, MappedDevice, OverlayDevice, SliceDevice
from pseudomount.errors import (
    BatchTooLargeError,
    ClosedError,
    OutOfRangeError,
    PseudomountError,
    TruncatedError,
    UsageError,
)
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice, PatternDevice, pattern


def test_a_window_past_the_end() -> None:
    disk = MemoryDevice(bytes(range(100)), name="short.img")
    part = SliceDevice(disk, 90, 1000, name="disk0p1")
    assert part.size == 1000
    assert part.read(0, 10) == bytes(range(90, 100))
    with pytest.raises(TruncatedError, match=r"disk0p1: of 4 bytes at 8, those from 10 lie past the end") as caught:
        part.read(8, 4)
    assert (caught.value.device, caught.value.offset) == ("disk0p1", 10)
    with pytest.raises(TruncatedError) as caught:
        part.read(500, 4)
    assert caught.value.offset == 500
    batch = part.read_many([0, 8, 2, 999, 10, 1000], [10, 4, 3, 1, 0, 1])
    assert [type(batch.errors.get(i)) for i in range(6)] == [
        type(None),
        TruncatedError,
        type(None),
        TruncatedError,
        type(None),
        OutOfRangeError,
    ]
    assert isinstance(batch.errors[1], TruncatedError)
    assert (batch.errors[1].device, batch.errors[1].offset) == ("disk0p1", 10)
    assert batch.view(2).tobytes() == bytes([92, 93, 94])
    assert list(part.extents()) == [(0, 1000, ExtentKind.DATA)]


@pytest.mark.parametrize("start", [100, 101, 2**62])
def test_a_window_behind_the_end(start: int) -> None:
    part = SliceDevice(MemoryDevice(bytes(100)), start, 10)
    with pytest.raises(TruncatedError):
        part.read(0, 1)
    assert len(part.read_many([0, 5], [1, 1]).errors) == 2
    assert list(part.extents(3, 4)) == [(3, 4, ExtentKind.DATA)]


def test_what_is_known_of_a_window() -> None:
    disk = MappedDevice(MemoryDevice(bytes(100)), [10, 30], [10, 10], [0, -1], 50)
    assert list(SliceDevice(disk, 15, 100).extents()) == [
        (0, 5, ExtentKind.DATA),
        (5, 30, ExtentKind.HOLE),
        (35, 65, ExtentKind.DATA),  # past the end: unknown
    ]


@pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1), (2**63, 0), (2**62, 2**62)])
def test_windows_that_mean_nothing(offset: int, size: int) -> None:
    with pytest.raises(UsageError):
        SliceDevice(MemoryDevice(b""), offset, size)
    if offset + size < 2**63 or offset == 2**62:  # numpy's numbers, whose sums wrap around, too
        with pytest.raises(UsageError):
            SliceDevice(MemoryDevice(b""), np.int64(offset), np.int64(size))  # type: ignore[arg-type]


def test_a_window_takes_over_the_sector_and_budget() -> None:
    disk = MemoryDevice(bytes(8192), name="disk0")
    disk.sector_size, disk.batch_budget = 4096, 12345
    part = SliceDevice(disk, 0, 10)
    assert (part.sector_size, part.batch_budget, part.name) == (4096, 12345, "disk0")


def test_who_owns_whom() -> None:
    disk, other = MemoryDevice(b"abc"), MemoryDevice(b"def")
    SliceDevice(disk, 0, 3).close()
    ConcatDevice([disk, other]).close()
    assert disk.read(0, 1) + other.read(0, 1) == b"ad"
    ConcatDevice([SliceDevice(disk, 0, 3, owns=True), other], owns=True).close()
    for device in (disk, other):
        with pytest.raises(ClosedError):
            device.read(0, 1)


def test_a_batch_asks_each_part_once() -> None:
    parts = [CounterDevice(PatternDevice(1000, seed)) for seed in range(50)]
    disk = ConcatDevice(parts)
    whole = b"".join(pattern(0, 1000, seed) for seed in range(50))
    offsets = np.random.default_rng(1).integers(0, 47_000, 3000)
    batch = disk.read_many(offsets, 2500)
    assert all(batch.view(i).tobytes() == whole[o : o + 2500] for i, o in enumerate(offsets.tolist()))
    assert {part.requests for part in parts} == {1}


def test_a_bad_part_costs_what_touches_it() -> None:
    bad = FaultDevice(MemoryDevice(bytes(10)), errors=[(0, 10)], name="second file")
    disk = ConcatDevice([MemoryDevice(b"a" * 10), bad, MemoryDevice(b"c" * 10)])
    batch = disk.read_many([0, 5, 20, 0], [10, 6, 10, 30])
    assert sorted(batch.errors) == [1, 3]
    assert "second file" in str(batch.errors[1])
    assert batch.view(2).tobytes() == b"c" * 10
    with pytest.raises(PseudomountError, match="second file"):
        disk.read(5, 6)


def test_no_parts_and_empty_parts() -> None:
    assert ConcatDevice([]).size == 0
    disk = ConcatDevice(
        [MemoryDevice(b""), MemoryDevice(b"ab"), MemoryDevice(b""), MemoryDevice(b"c"), MemoryDevice(b"")]
    )
    assert disk.read(0, 3) == b"abc"
    assert disk.read_many([1, 0], [2, 3]).buffer.tobytes() == b"bcabc"
    assert list(disk.extents()) == [(0, 3, ExtentKind.DATA)]
    with pytest.raises(UsageError):
        ConcatDevice([PatternDevice(2**62), PatternDevice(2**62)])


def test_what_is_known_of_parts() -> None:
    hole = MappedDevice(MemoryDevice(b""), [], [], [], 100)
    disk = ConcatDevice([hole, hole, MemoryDevice(bytes(5)), hole])
    assert list(disk.extents(50, 200)) == [
        (50, 150, ExtentKind.HOLE),
        (200, 5, ExtentKind.DATA),
        (205, 45, ExtentKind.HOLE),
    ]


def test_a_small_budget_below() -> None:
    disk = MemoryDevice(bytes(range(200)))
    disk.batch_budget = 64
    layers = (
        SliceDevice(disk, 0, 200),
        ConcatDevice([disk, SliceDevice(disk, 0, 0)]),
        ConcatDevice([SliceDevice(disk, 0, 60), SliceDevice(disk, 60, 140)]),
        CacheDevice(disk, 10_000, 100),
        CacheDevice(disk, 10_000, 16),
        OverlayDevice(disk, 50),
        MappedDevice(disk, [0, 50], [50, 150], [0, 50], 200),
    )
    layers[5].write(20, bytes(range(20, 30)))
    for device in layers:
        assert device.batch_budget == 64
        for _ in range(2):
            assert device.read_many([0, 100], 32).buffer.tobytes() == bytes(range(32)) + bytes(range(100, 132))
            assert device.read(10, 150) == bytes(range(10, 160)), "a single read has no budget"
        with pytest.raises(BatchTooLargeError):
            device.read_many([0, 0], 33)
