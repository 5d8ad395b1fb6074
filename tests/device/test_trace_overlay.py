"""Recording reads, and writing over a device."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import CacheDevice, ExtentKind, ExtentMap, MappedDevice, OverlayDevice, TraceDevice
from pseudomount.errors import ClosedError, OutOfRangeError, ReadError, UsageError
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice, PatternDevice, pattern


def test_trace_notes_what_was_asked_for() -> None:
    trace = TraceDevice(CacheDevice(PatternDevice(1 << 20)))
    trace.read(100, 10)
    trace.read_many([5000, 0, 7, 2**40], [10, 100, 0, 1])
    trace.read(100, 10)
    trace.read(0, 0)
    offsets, lengths = trace.ranges()
    assert offsets.dtype == lengths.dtype == np.int64
    assert offsets.tolist() == [100, 5000, 0, 100]
    assert lengths.tolist() == [10, 10, 100, 10]
    assert [c.tolist() for c in trace.merged()] == [[0, 5000], [110, 10]]
    assert [c.tolist() for c in trace.merged(gap=5000)] == [[0], [5010]]
    trace.clear()
    assert [len(c) for c in (*trace.ranges(), *trace.merged())] == [0] * 4


def test_trace_notes_failures_too() -> None:
    trace = TraceDevice(FaultDevice(MemoryDevice(bytes(100)), errors=[(0, 100)]))
    with pytest.raises(ReadError):
        trace.read(3, 4)
    trace.read_many([5], [6])
    assert [c.tolist() for c in trace.ranges()] == [[3, 5], [4, 6]]


def test_trace_of_threads() -> None:
    trace = TraceDevice(PatternDevice(1 << 20))

    def work(base: int) -> None:
        for i in range(200):
            trace.read(base + i, base + 1)
            trace.read_many([base + i, base], [base + 1, base + 1])

    threads = [threading.Thread(target=work, args=(base,)) for base in range(1000, 9000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    offsets, lengths = trace.ranges()
    assert len(offsets) == 8 * 200 * 3
    assert ((offsets // 1000) * 1000 + 1 == lengths).all()


HOLEY = MappedDevice(
    PatternDevice(1000), [0, 40, 60], [20, 20, 20], [100, -1, 200], 90, unwritten=np.array([0, 0, 1]) > 0
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.binary(max_size=40)), max_size=10),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), max_size=6),
)
def test_overlay_equals_a_bytearray(writes: list[tuple[int, bytes]], block: int, reads: list[tuple[int, int]]) -> None:
    before = HOLEY.read(0, 90)
    model = bytearray(before)
    device = OverlayDevice(HOLEY, block)
    touched: set[int] = set()
    asked = [(min(a, b), abs(a - b)) for a, b in reads]
    for offset, data in writes:
        data = data[: 90 - offset]
        device.write(offset, data)
        model[offset : offset + len(data)] = data
        if data:
            touched.update(range(offset // block, (offset + len(data) - 1) // block + 1))
        batch = device.read_many([a for a, _ in asked], [n for _, n in asked])
        assert batch.buffer.tobytes() == b"".join(model[a : a + n] for a, n in asked)
        assert all(device.read(a, n) == model[a : a + n] for a, n in asked)
    assert device.read(0, 90) == model
    assert HOLEY.read(0, 90) == before
    below = [kind for _, n, kind in HOLEY.extents() for _ in range(n)]
    wanted = [ExtentKind.DATA if at // block in touched else below[at] for at in range(90)]
    assert [kind for _, n, kind in device.extents() for _ in range(n)] == wanted
    for a, n in asked:
        known = device.extents(a, n)
        assert [kind for _, m, kind in known for _ in range(m)] == wanted[a : a + n]
        again = ExtentMap.merged(known.offsets, known.lengths, known.kinds)
        assert len(again) == len(known)


def test_writing_reads_no_more_than_the_rest_of_blocks() -> None:
    disk = CounterDevice(PatternDevice(10_000))
    device = OverlayDevice(disk, 1000)
    device.write(2000, bytes(3000))
    device.write(9000, bytes(1000))
    assert disk.requests == 0
    device.write(5500, b"x")
    device.write(5600, b"y")  # that block is there already
    assert (disk.requests, disk.bytes) == (1, 1000)
    disk.reset()
    assert device.read(2500, 2000) == bytes(2000)
    assert not device.read_many([2000, 9999], [3000, 1]).buffer.any()
    assert disk.requests == 0
    batch = device.read_many([0, 1500, 5400], [10, 4000, 300])
    assert disk.requests == 1
    assert batch.view(1).tobytes() == pattern(1500, 500) + bytes(3000) + pattern(5000, 500)
    assert batch.view(2).tobytes() == pattern(5400, 100) + b"x" + pattern(5501, 99) + b"y" + pattern(5601, 99)


def test_writing_mends_what_is_damaged() -> None:
    device = OverlayDevice(FaultDevice(PatternDevice(10_000), errors=[(2100, 10)]), 1000)
    with pytest.raises(ReadError):
        device.write(1500, b"x" * 1000)  # would need the rest of the damaged block
    assert device.read(1500, 400) == pattern(1500, 400), "nothing of a failed write is there"
    device.write(2000, b"y" * 1000)
    assert device.read(1990, 1020) == pattern(1990, 10) + b"y" * 1000 + pattern(3000, 10)


def test_damage_below_costs_what_touches_it() -> None:
    device = OverlayDevice(FaultDevice(PatternDevice(10_000), errors=[(5100, 10)]), 1000)
    device.write(1000, b"y" * 1000)
    batch = device.read_many([500, 4000, 1500, 1200, 5000], [2000, 2000, 2000, 100, 200])
    assert sorted(batch.errors) == [1, 4]
    assert batch.view(2).tobytes() == b"y" * 500 + pattern(2000, 1500)
    assert batch.view(3).tobytes() == b"y" * 100


def test_writes_outside() -> None:
    device = OverlayDevice(MemoryDevice(bytes(100)))
    for offset, data in ((-1, b"x"), (100, b"x"), (99, b"xy"), (101, b"")):
        with pytest.raises(OutOfRangeError):
            device.write(offset, data)
    device.write(100, b"")
    device.write(99, memoryview(bytearray(b"z")))
    assert device.read(98, 2) == b"\0z"
    device.close()
    with pytest.raises(ClosedError):
        device.write(0, b"x")
    with pytest.raises(UsageError):
        OverlayDevice(MemoryDevice(b""), 0)


def test_what_is_written_is_copied() -> None:
    device = OverlayDevice(MemoryDevice(bytes(100)), 10)
    data = bytearray(b"a" * 20)
    device.write(0, data)
    data[:] = b"b" * 20
    assert device.read(0, 20) == b"a" * 20


def test_readers_beside_a_writer_see_whole_blocks() -> None:
    device = OverlayDevice(MemoryDevice(bytes(100_000)), 1000)
    stop = threading.Event()
    failures: list[str] = []

    def look() -> None:
        while not stop.is_set():
            batch = device.read_many(np.arange(100) * 1000, 1000)
            rows = batch.buffer.reshape(100, 1000)
            if batch.errors or (rows != rows[:, :1]).any():
                failures.append("a torn block")
            if len(set(device.read(5000, 1000))) != 1:
                failures.append("a torn read")

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(1, 200):
        device.write(turn * 7 % 90 * 1000, bytes([turn]) * 5000)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
