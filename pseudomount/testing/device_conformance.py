# ruff: noqa: D102  (the names of tests say what they demand)
"""What every BlockDevice must do, as a suite to subclass. Needs pytest and Hypothesis.

    class TestMyDevice(DeviceConformance):
        def make(self, content: bytes) -> BlockDevice:
            return MyDevice(content)

    class TestMyLayer(LayerConformance):
        def wrap(self, inner: BlockDevice) -> BlockDevice:
            return MyLayer(inner)

The expected bytes come from the content that the suite itself made, never from the device.
"""

from __future__ import annotations

import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import BlockDevice, ExtentKind, stream_many
from pseudomount.errors import BatchTooLargeError, ClosedError, OutOfRangeError, PseudomountError, UsageError
from pseudomount.testing.devices import CounterDevice, FaultDevice, MemoryDevice

__all__ = ["DeviceConformance", "LayerConformance"]

Ranges = list[tuple[int, int]]


class DeviceConformance(ABC):
    """Tests of one device.

    Attributes:
        granularity: bytes; the device can only have sizes that are multiples of this.
        size: bytes of content for most tests.
        examples: how many cases Hypothesis tries.
    """

    granularity: int = 1
    size: int = 150_003
    examples: int = 50

    @abstractmethod
    def make(self, content: bytes) -> BlockDevice:
        """A new device that holds `content`."""

    def content(self, size: int | None = None, seed: int = 1) -> bytes:
        """Random bytes with runs of zeros among them, the same for the same arguments."""
        dice = random.Random(seed)
        size = self.size if size is None else size
        size -= size % self.granularity
        data = bytearray(dice.randbytes(size))
        for _ in range(size // 20_000):
            begin = dice.randrange(size)
            length = dice.randrange(1, 9000)
            data[begin : begin + length] = bytes(len(data[begin : begin + length]))
        return bytes(data)

    def ranges(self, size: int, count: int, seed: int = 2) -> Ranges:
        """Ranges inside `size` bytes: small and large ones, both ends, empty ones, neighbours and doubles."""
        dice = random.Random(seed)
        found: Ranges = [(0, size), (0, min(size, 1)), (max(size - 1, 0), min(size, 1)), (0, 0), (size, 0)]
        while len(found) < count:
            offset = dice.randint(0, size)
            length = min(dice.choice((0, 1, 7, 512, 4096, 65_536)) + dice.randint(0, 3), size - offset)
            found += [(offset, length), (offset + length, min(size - offset - length, 512)), (offset, length)]
        dice.shuffle(found)
        return found

    # -- one range ---------------------------------------------------------------------------------------------------

    def test_size(self) -> None:
        content = self.content()
        with self.make(content) as device:
            assert device.size == len(content)
            assert device.sector_size in (512, 1024, 2048, 4096)
            assert device.batch_budget > 0
            assert device.name

    def test_read_equals_content(self) -> None:
        content = self.content()
        with self.make(content) as device:
            for offset, length in self.ranges(len(content), 300):
                data = device.read(offset, length)
                assert type(data) is bytes
                assert data == content[offset : offset + length], (offset, length)

    def test_read_takes_numpy_integers(self) -> None:
        content = self.content()
        with self.make(content) as device:
            assert device.read(np.int64(512), np.int64(99)) == content[512:611]  # type: ignore[arg-type]
            assert device.read(np.uint64(512), np.uint64(99)) == content[512:611]  # type: ignore[arg-type]
            with pytest.raises(OutOfRangeError):
                device.read(np.int64(2**62), np.int64(2**62))  # type: ignore[arg-type]

    def test_read_outside(self) -> None:
        content = self.content()
        size = len(content)
        outside = [(-1, 1), (0, -1), (size, 1), (size - 1, 2), (0, size + 1), (size + 1, 0), (2**63, 1), (1, 2**64)]
        with self.make(content) as device:
            for offset, length in outside:
                with pytest.raises(OutOfRangeError):
                    device.read(offset, length)
            assert device.read(size - 1, 1) == content[-1:]

    def test_empty_device(self) -> None:
        with self.make(b"") as device:
            assert device.size == 0
            assert device.read(0, 0) == b""
            assert len(device.extents()) == 0
            assert len(device.read_many([], [])) == 0
            batch = device.read_many([0, 0], [0, 1])
            assert list(batch.errors) == [1]
            with pytest.raises(OutOfRangeError):
                device.read(0, 1)

    def test_one_byte_or_sector(self) -> None:
        content = self.content(self.granularity)
        with self.make(content) as device:
            assert device.read(0, len(content)) == content
            assert device.read_many([0, 0], len(content)).buffer.tobytes() == content * 2
            assert sum(length for _, length, _ in device.extents()) == len(content)

    # -- batches -----------------------------------------------------------------------------------------------------

    def test_read_many_equals_read(self) -> None:
        content = self.content()
        ranges = self.ranges(len(content), 400)
        offsets, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
        with self.make(content) as device, self.make(content) as other:
            batch = device.read_many(offsets, lengths)
            assert not batch.errors
            assert len(batch) == len(ranges)
            assert batch.buffer.dtype == np.uint8
            assert batch.positions.dtype == batch.lengths.dtype == np.int64
            assert batch.lengths.tolist() == lengths
            assert batch.positions.tolist() == [sum(lengths[:i]) for i in range(len(lengths))]
            assert len(batch.buffer) == sum(lengths)
            assert bool(batch.ok().all())
            for i, (offset, length) in enumerate(ranges):
                data = batch.view(i).tobytes()
                assert data == content[offset : offset + length], (offset, length)
                assert data == other.read(offset, length), "the fast path differs from the general one"

    def test_read_many_argument_types(self) -> None:
        content = self.content()
        wanted = content[512:522] + content[0:10] + content[99:109]
        with self.make(content) as device:
            for kind in (np.int16, np.int32, np.int64, np.uint16, np.uint32, np.uint64, ">i8", ">u4"):
                offsets = np.array([512, 0, 99], kind)
                assert device.read_many(offsets, np.full(3, 10, kind)).buffer.tobytes() == wanted
                assert device.read_many(offsets, 10).buffer.tobytes() == wanted
            strided = np.array([512, -1, 0, -1, 99, -1], np.int64)[::2]
            assert device.read_many(strided, 10).buffer.tobytes() == wanted
            assert device.read_many((512, 0, 99), (10, 10, 10)).buffer.tobytes() == wanted
            assert device.read_many(range(0, 30, 10), 10).buffer.tobytes() == content[:30]
            frozen = np.array([512, 0, 99], np.int64)
            frozen.flags.writeable = False
            assert device.read_many(frozen, 10).buffer.tobytes() == wanted
            assert len(device.read_many([], 5)) == 0

    def test_read_many_bad_arguments(self) -> None:
        with self.make(self.content()) as device:
            for offsets, lengths in (([0, 1], [1]), ([[0]], [[1]]), ([0.5], [1]), ([0], [1.0]), (0, 1), ([True], [1])):
                with pytest.raises(UsageError):
                    device.read_many(offsets, lengths)

    def test_read_many_outside_costs_only_that_range(self) -> None:
        content = self.content()
        size = len(content)
        good = [(0, 100), (size - 10, 10), (512, 0), (size, 0), (33, 77)]
        bad = [(-1, 2), (3, -1), (size, 1), (size - 1, 2), (2**63 - 1, 2**63 - 1), (2**62, 2**62), (-(2**63), 5)]
        ranges = [r for pair in zip(good, bad, strict=False) for r in pair] + bad[len(good) :]
        offsets = np.array([r[0] for r in ranges], np.int64)
        lengths = np.array([r[1] for r in ranges], np.int64)
        with self.make(content) as device:
            batch = device.read_many(offsets, lengths)
            assert sorted(batch.errors) == [i for i, r in enumerate(ranges) if r in bad]
            for i, (offset, length) in enumerate(ranges):
                if (offset, length) in bad:
                    assert isinstance(batch.errors[i], OutOfRangeError)
                    with pytest.raises(OutOfRangeError):
                        batch.view(i)
                else:
                    assert batch.view(i).tobytes() == content[offset : offset + length]
            assert batch.ok().tolist() == [r not in bad for r in ranges]
            with pytest.raises(OutOfRangeError):
                batch.raise_first()
            forged = device.read_many(np.array([2**64 - 1, 0, 2**63], np.uint64), 4)
            assert sorted(forged.errors) == [0, 2]
            assert forged.view(1).tobytes() == content[:4]

    def test_budget(self) -> None:
        content = self.content()
        with self.make(content) as device:
            budget = device.batch_budget
            with pytest.raises(BatchTooLargeError):
                device.read_many(np.zeros(budget // len(content) + 1, np.int64), len(content))
            # What is outside counts nothing.
            assert len(device.read_many([0, 0], [1, budget + len(content)]).errors) == 1

    def test_stream_many(self) -> None:
        content = self.content()
        size = len(content)
        ranges = [*self.ranges(size, 60), (size, 5), (-1, 2), (0, 2**62), (0, 2**62), (0, 2**63 - 1), (7, 0)]
        random.Random(9).shuffle(ranges)
        bad = {i for i, (offset, length) in enumerate(ranges) if offset < 0 or offset + length > size}
        for budget in (1000, 65_536, 10**9):
            got = [bytearray() for _ in ranges]
            failed: dict[int, PseudomountError] = {}
            with self.make(content) as device:
                for step in stream_many(device, [r[0] for r in ranges], [r[1] for r in ranges], budget):
                    assert len(step.batch.buffer) <= budget
                    for j, i in enumerate(step.ranges.tolist()):
                        if j in step.batch.errors:
                            failed[i] = step.batch.errors[j]
                        else:
                            assert int(step.within[j]) == len(got[i])
                            got[i] += step.batch.view(j).tobytes()
            assert set(failed) == bad
            for i, (offset, length) in enumerate(ranges):
                assert i in bad or got[i] == content[offset : offset + length]

    def test_read_into_leaves_the_rest_alone(self) -> None:
        content = self.content()
        buffer = np.full(10_000, 0xA5, np.uint8)
        offsets, lengths = np.array([5000, 9, len(content)]), np.array([3000, 40, 1])
        with self.make(content) as device:
            errors = device.read_into(offsets, lengths, buffer, np.array([6000, 10, 9999]))
        assert list(errors) == [2]
        assert buffer[6000:9000].tobytes() == content[5000:8000]
        assert buffer[10:50].tobytes() == content[9:49]
        buffer[6000:9000] = buffer[10:50] = 0xA5
        assert bool((buffer[:9999] == 0xA5).all())

    def test_property(self) -> None:
        content = self.content(10_000)
        size = len(content)
        edges = st.sampled_from([0, 1, 511, 512, 4095, 4096, 4097, size - 1, size])
        number = st.integers(-2, size + 2) | edges
        length = st.integers(-1, 700) | edges

        with self.make(content) as device:

            @settings(max_examples=self.examples, deadline=None, database=None)
            @given(st.lists(st.tuples(number, length), max_size=12))
            def check(ranges: Sequence[tuple[int, int]]) -> None:
                batch = device.read_many([r[0] for r in ranges], [r[1] for r in ranges])
                for i, (offset, n) in enumerate(ranges):
                    if offset < 0 or n < 0 or offset + n > size:
                        assert isinstance(batch.errors[i], OutOfRangeError)
                        with pytest.raises(OutOfRangeError):
                            device.read(offset, n)
                    else:
                        assert i not in batch.errors
                        assert batch.view(i).tobytes() == content[offset : offset + n] == device.read(offset, n)

            check()

    # -- extents -----------------------------------------------------------------------------------------------------

    def test_extents_cover_without_gaps(self) -> None:
        content = self.content()
        with self.make(content) as device:
            for offset, length in [*self.ranges(len(content), 40), (0, len(content))]:
                known = device.extents(offset, length)
                assert known.offsets.dtype == known.lengths.dtype == np.int64
                assert known.kinds.dtype == np.uint8
                at, before = offset, None
                for begin, run, kind in known:
                    assert begin == at
                    assert run > 0
                    assert kind is not before, "neighbours of one kind are one run"
                    if kind is not ExtentKind.DATA:
                        assert content[begin : begin + run] == bytes(run), "a hole that holds something"
                    at, before = begin + run, kind
                assert at == offset + length
            everything = device.extents()
            assert int(everything.lengths.sum()) == len(content)

    def test_extents_outside(self) -> None:
        content = self.content()
        size = len(content)
        with self.make(content) as device:
            for offset, length in ((-1, 1), (0, -1), (size, 1), (0, size + 1), (2**63, 1)):
                with pytest.raises(OutOfRangeError):
                    device.extents(offset, length)
            with pytest.raises(OutOfRangeError):
                device.extents(size + 1)
            assert len(device.extents(size)) == 0

    # -- life --------------------------------------------------------------------------------------------------------

    def test_closing(self) -> None:
        device = self.make(self.content())
        device.read(0, 1)
        device.close()
        device.close()
        for use in (
            lambda: device.read(0, 1),
            lambda: device.read_many([0], [1]),
            device.extents,
            lambda: device.read_into(np.zeros(1, int), np.ones(1, int), np.zeros(1, np.uint8), np.zeros(1, int)),
        ):
            with pytest.raises(ClosedError):
                use()

    def test_repr(self) -> None:
        content = self.content()
        with self.make(content) as device:
            assert device.name in repr(device)
            assert str(len(content)) in repr(device)
            assert "\n" not in repr(device)

    def test_threads(self) -> None:
        content = self.content()
        failures: list[str] = []
        gate = threading.Barrier(8)

        with self.make(content) as device:

            def hammer(seed: int) -> None:
                ranges = self.ranges(len(content), 60, seed)
                offsets, lengths = [r[0] for r in ranges], [r[1] for r in ranges]
                gate.wait()
                try:
                    for turn, (offset, length) in enumerate(ranges):
                        if device.read(offset, length) != content[offset : offset + length]:
                            failures.append(f"read {offset} {length}")
                        if turn % 10 == 0:
                            batch = device.read_many(offsets, lengths)
                            if batch.errors or batch.buffer.tobytes() != b"".join(
                                content[o : o + n] for o, n in ranges
                            ):
                                failures.append("read_many")
                            device.extents(offset, length)
                except Exception as error:
                    failures.append(repr(error))

            threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not failures


class LayerConformance(DeviceConformance):
    """Tests of one layer that shows its inner device's content unchanged.

    Attributes:
        most_requests: calls of the inner device that one batch may cost, when nothing fails.
    """

    most_requests: int = 1

    @abstractmethod
    def wrap(self, inner: BlockDevice) -> BlockDevice:
        """The layer over `inner`, with the same size and bytes."""

    def make(self, content: bytes) -> BlockDevice:
        """The layer over bytes in memory."""
        return self.wrap(MemoryDevice(content))

    def test_a_batch_stays_a_batch(self) -> None:
        content = self.content()
        counter = CounterDevice(MemoryDevice(content))
        with self.wrap(counter) as device:
            counter.reset()
            ranges = self.ranges(len(content), 500)
            batch = device.read_many([r[0] for r in ranges], [r[1] for r in ranges])
            assert batch.buffer.tobytes() == b"".join(content[o : o + n] for o, n in ranges)
            assert counter.requests <= self.most_requests

    @pytest.mark.parametrize("kind", ["errors", "shorts"])
    def test_a_fault_costs_what_touches_it(self, kind: str) -> None:
        content = self.content()
        faults = [(40_000, 1), (70_000, 5000), (len(content) - 3, 3)]
        ranges = [r for r in self.ranges(len(content), 300) if r[1] < 30_000]
        inner = FaultDevice(MemoryDevice(content), **{kind: faults})  # type: ignore[arg-type]
        with self.wrap(inner) as device:
            for _ in range(2):  # the second time out of caches
                batch = device.read_many([r[0] for r in ranges], [r[1] for r in ranges])
                for i, (offset, length) in enumerate(ranges):
                    touched = any(offset < b + n and b < offset + length for b, n in faults) and length > 0
                    assert (i in batch.errors) == touched, (offset, length)
                    if touched:
                        with pytest.raises(OSError, match=" "):
                            device.read(offset, length)
                    else:
                        assert batch.view(i).tobytes() == content[offset : offset + length]
                        assert device.read(offset, length) == content[offset : offset + length]
                    assert not touched or not batch.buffer[batch.positions[i] :][:length].any()
            inner.heal()  # failures are not kept
            assert device.read(0, len(content)) == content

    def test_random_faults(self) -> None:
        content = self.content()
        for seed in range(3):
            inner = FaultDevice(MemoryDevice(content), seed=seed, error_rate=0.05, short_rate=0.05)
            ranges = [r for r in self.ranges(len(content), 100, seed) if 0 < r[1] < 9000]
            with self.wrap(inner) as device:
                batch = device.read_many([r[0] for r in ranges], [r[1] for r in ranges])
                assert batch.errors
                for i, (offset, length) in enumerate(ranges):
                    assert (i in batch.errors) == inner.bad(offset, length)
                    assert i in batch.errors or batch.view(i).tobytes() == content[offset : offset + length]

    def test_a_closed_inner_device(self) -> None:
        inner = MemoryDevice(self.content())
        with self.wrap(inner) as device:
            inner.close()
            with pytest.raises(ClosedError):
                device.read(0, 1)
            with pytest.raises(ClosedError):
                device.read_many([0, 9], [1, 1])
