"""Every device and layer runs the conformance suite, alone and in random stacks."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from pseudomount.device import (
    BlockDevice,
    CacheDevice,
    ConcatDevice,
    Layer,
    MappedDevice,
    OverlayDevice,
    SliceDevice,
    TraceDevice,
)
from pseudomount.testing import CounterDevice, FaultDevice, LatencyDevice, MemoryDevice, PatternDevice, pattern
from pseudomount.testing.device_conformance import DeviceConformance, LayerConformance

Wrap = Callable[[BlockDevice], BlockDevice]


def windowed(inner: BlockDevice) -> BlockDevice:
    """The inner device amid foreign bytes, and a window onto it."""
    return SliceDevice(ConcatDevice([PatternDevice(1013), inner, PatternDevice(512)]), 1013, inner.size)


def split(inner: BlockDevice, parts: int = 7) -> BlockDevice:
    bounds = np.linspace(0, inner.size, parts + 1).astype(int).tolist()
    bounds.insert(3, bounds[3])  # an empty part
    return ConcatDevice([SliceDevice(inner, a, b - a) for a, b in pairwise(bounds)])


def shuffled(inner: BlockDevice, seed: int = 5) -> BlockDevice:
    """The inner device's pieces laid out in another order, and mapped back."""
    dice = random.Random(seed)
    bounds = sorted({0, inner.size, *(dice.randint(0, inner.size) for _ in range(40))})
    runs = list(pairwise(bounds))
    order = runs[:]
    dice.shuffle(order)
    places: dict[int, int] = {}
    at = 0
    for begin, end in order:
        places[begin] = at
        at += end - begin
    disk = ConcatDevice([SliceDevice(inner, a, b - a) for a, b in order])
    offsets = np.array([a for a, _ in runs], np.int64)
    lengths = np.array([b - a for a, b in runs], np.int64)
    return MappedDevice(disk, offsets, lengths, np.array([places[a] for a, _ in runs], np.int64), inner.size)


def overlaid(inner: BlockDevice) -> BlockDevice:
    return OverlayDevice(inner, 512)


def rewritten(inner: BlockDevice, seed: int = 3) -> BlockDevice:
    """Spoilt in places below, and set right by writing over it."""
    dice = random.Random(seed)
    places = [(at, dice.randint(1, 3000)) for at in (dice.randint(0, inner.size) for _ in range(12))]
    places = [(at, min(n, inner.size - at)) for at, n in places if at < inner.size]
    device = OverlayDevice(FaultDevice(inner, flips=places), 1000)
    for at, n in places:
        device.write(at, inner.read(at, n))
        # The rest of the blocks was taken from the spoilt device, so that is set right as well.
        begin, end = at // 1000 * 1000, min(-(-(at + n) // 1000) * 1000, inner.size)
        device.write(begin, inner.read(begin, end - begin))
    return device


LAYERS: dict[str, Wrap] = {
    "layer": Layer,
    "slice": lambda inner: SliceDevice(inner, 0, inner.size),
    "window": windowed,
    "split": split,
    "shuffled": shuffled,
    "cache": lambda inner: CacheDevice(inner, 1 << 20, 4096),
    "small cache": lambda inner: CacheDevice(inner, 20_000, 1000),
    "big blocks": lambda inner: CacheDevice(inner, 1 << 20, 1 << 18),
    "no cache": lambda inner: CacheDevice(inner, 0),
    "trace": TraceDevice,
    "overlay": overlaid,
    "counter": CounterDevice,
    "fault": lambda inner: FaultDevice(inner, grain=100),
    "latency": lambda inner: LatencyDevice(inner, 0.0),
}


class TestMemory(DeviceConformance):
    def make(self, content: bytes) -> BlockDevice:
        return MemoryDevice(content)


class TestLayer(LayerConformance):
    most_requests = 100
    examples = 25

    @pytest.fixture(autouse=True, params=LAYERS)
    def _layer(self, request: pytest.FixtureRequest) -> None:
        self.name: str = request.param
        # A part of a concatenation is a request of its own, and `split` and `shuffled` cut one device into parts.
        self.most_requests = {"split": 8, "shuffled": 41}.get(self.name, 1)

    def wrap(self, inner: BlockDevice) -> BlockDevice:
        return LAYERS[self.name](inner)


class TestRewritten(DeviceConformance):
    def make(self, content: bytes) -> BlockDevice:
        return rewritten(MemoryDevice(content))


class TestStack(LayerConformance):
    """Three to six layers, drawn by a seed."""

    most_requests = 5000
    examples = 10
    size = 100_001

    @pytest.fixture(autouse=True, params=range(10))
    def _seed(self, request: pytest.FixtureRequest) -> None:
        self.seed: int = request.param

    def wrap(self, inner: BlockDevice) -> BlockDevice:
        dice = random.Random(self.seed)
        for name in dice.choices(list(LAYERS), k=dice.randint(3, 6)):
            inner = LAYERS[name](inner)
        return inner


class TestSparse(DeviceConformance):
    """Long zeros are holes, or unwritten runs that lie where something else is."""

    def make(self, content: bytes) -> BlockDevice:
        block = 500
        data, offsets, positions, unwritten = bytearray(b"\xee" * 64), [], [], []
        for at in range(0, len(content), block):
            part = content[at : at + block]
            if any(part):
                offsets.append(at)
                positions.append(len(data))
                unwritten.append(False)
                data += part + bytes(-len(part) % block)
            elif at % 1500:  # every third one is a hole by being left out
                offsets.append(at)
                positions.append(-1 if at % 1000 else 0)
                unwritten.append(at % 1000 == 0)
        runs = np.array(offsets, np.int64)
        spans = np.full(len(runs), block, np.int64)
        flags = np.array(unwritten, np.bool_)
        return MappedDevice(MemoryDevice(bytes(data)), runs, spans, positions, len(content), unwritten=flags)

    def test_holes_are_told(self) -> None:
        with self.make(bytes(100_000) + b"x" * 1000 + bytes(70_000)) as device:
            kinds = {kind.name for _, _, kind in device.extents()}
        assert kinds == {"DATA", "ZERO", "HOLE"}


@pytest.mark.parametrize("seed", [0, 12345, 2**63 + 5])
def test_pattern(seed: int) -> None:
    import struct

    size = (1 << 60) + 5
    device = PatternDevice(size, seed)
    word = (1 << 59) ^ seed
    assert device.read(1 << 59, 8) == struct.pack("<Q", word)
    assert device.read((1 << 59) + 3, 2) == struct.pack("<Q", word)[3:5]
    assert device.read(size - 5, 5) == struct.pack("<Q", (1 << 60) ^ seed)[:5]
    assert pattern(13, 40, seed) == device.read(0, 100)[13:53]
