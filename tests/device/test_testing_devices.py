"""The devices that tests rely on must themselves be right."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError, ReadError
from pseudomount.testing import CounterDevice, FaultDevice, LatencyDevice, PatternDevice, pattern

SIZE = 50_000
SPANS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(1, 3000)), max_size=8)


def outcome(device: BlockDevice, offset: int, length: int) -> bytes | str:
    try:
        return device.read(offset, length)
    except PseudomountError as error:
        return f"{type(error).__name__} {error}"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), SPANS, SPANS, SPANS, st.sampled_from([0.0, 0.1]), SPANS, st.integers(1, 5000))
def test_faults_are_the_same_however_asked(
    seed: int,
    errors: list[tuple[int, int]],
    shorts: list[tuple[int, int]],
    flips: list[tuple[int, int]],
    rate: float,
    asked: list[tuple[int, int]],
    grain: int,
) -> None:
    device = FaultDevice(
        PatternDevice(SIZE),
        seed=seed,
        errors=errors,
        shorts=shorts,
        flips=flips,
        error_rate=rate,
        short_rate=rate,
        flip_rate=rate,
        grain=grain,
    )
    asked = [(offset, min(length, SIZE - offset)) for offset, length in asked]
    batch = device.read_many([o for o, _ in asked], [n for _, n in asked])
    for i, (offset, length) in enumerate(asked):
        alone = outcome(device, offset, length)
        if i in batch.errors:
            assert alone == f"{type(batch.errors[i]).__name__} {batch.errors[i]}"
            assert device.bad(offset, length)
        else:
            assert alone == batch.view(i).tobytes()
            assert length == 0 or not device.bad(offset, length)
        touched = any(offset < o + n and o < offset + length for o, n in errors + shorts)
        assert not (touched and length) or i in batch.errors
        if not rate and not touched:
            clean = bytearray(pattern(offset, length))
            for at in range(offset, offset + length):
                clean[at - offset] ^= any(o <= at < o + n for o, n in flips)
            assert alone == bytes(clean)
    device.heal()
    assert device.read(0, SIZE) == pattern(0, SIZE)


def test_rates() -> None:
    grains = 20_000
    for rate in (0.0, 0.01, 0.3, 1.0):
        bad = FaultDevice(PatternDevice(grains * 512), error_rate=rate, seed=3)
        assert abs(len(bad.read_many(np.arange(grains) * 512, 512).errors) / grains - rate) < 0.02
        flipped = FaultDevice(PatternDevice(grains * 512), flip_rate=rate, seed=3)
        got = np.frombuffer(flipped.read(0, grains * 512), np.uint8)
        change = got ^ np.frombuffer(pattern(0, grains * 512), np.uint8)
        bits = np.unpackbits(change).reshape(grains, -1).sum(axis=1)
        assert set(bits.tolist()) <= {0, 1}, "one bit a grain"
        assert abs(bits.sum() / grains - rate) < 0.02
    other = FaultDevice(PatternDevice(grains * 512), error_rate=0.3, seed=4)
    same = FaultDevice(PatternDevice(grains * 512), error_rate=0.3, seed=4)
    lists = [sorted(d.read_many(np.arange(grains) * 512, 512).errors) for d in (other, same)]
    assert lists[0] == lists[1]
    bad = FaultDevice(PatternDevice(grains * 512), error_rate=0.3, seed=3)
    assert sorted(bad.read_many(np.arange(grains) * 512, 512).errors) != lists[0]


def test_where_faults_say_they_are() -> None:
    device = FaultDevice(PatternDevice(SIZE), errors=[(100, 5)], shorts=[(200, 5)], name="bad disk")
    with pytest.raises(ReadError, match="bad disk: an injected fault at 100") as caught:
        device.read(90, 20)
    assert (caught.value.device, caught.value.offset) == ("bad disk", 100)
    with pytest.raises(ReadError, match="10 of 20 bytes at 190"):
        device.read(190, 20)
    with pytest.raises(ReadError, match="0 of 2 bytes at 203"):
        device.read(203, 2)


def test_counting() -> None:
    device = CounterDevice(PatternDevice(SIZE))
    device.read(0, 10)
    device.read(0, 0)
    device.read_many([0, 5, 9], [10, 20, 0])
    assert (device.requests, device.ranges, device.bytes) == (2, 3, 40)
    device.reset()
    assert (device.requests, device.ranges, device.bytes) == (0, 0, 0)

    def work() -> None:
        for _ in range(500):
            device.read(3, 4)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (device.requests, device.bytes) == (4000, 16_000)


def test_latency_is_once_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr("time.sleep", naps.append)
    device = LatencyDevice(PatternDevice(SIZE), 0.25)
    assert device.read(5, 6) == pattern(5, 6)
    device.read_many(np.arange(1000), 3)
    assert naps == [0.25, 0.25]


def test_the_devices_need_no_test_tools() -> None:
    code = (
        "import sys; sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from pseudomount.testing import MemoryDevice\n"
        "assert MemoryDevice(b'abc').read(1, 2) == b'bc'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
