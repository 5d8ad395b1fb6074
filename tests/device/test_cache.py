"""The block cache: what it saves, what it holds, and what it must not hold."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest

from pseudomount.device import BlockDevice, CacheDevice
from pseudomount.errors import ReadError, UsageError
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice, PatternDevice, pattern


def counted(size: int = 1 << 30) -> CounterDevice:
    return CounterDevice(PatternDevice(size))


def test_what_is_cached_costs_nothing() -> None:
    disk = counted()
    cache = CacheDevice(disk, 1 << 20, 4096)
    for _ in range(3):
        assert cache.read(5000, 100) == pattern(5000, 100)
        assert cache.read(4096, 4096) == pattern(4096, 4096)
    assert (disk.requests, disk.bytes) == (1, 4096)
    assert cache.read(8000, 8192) == pattern(8000, 8192)  # three blocks, the first of them cached
    assert (disk.requests, disk.ranges, disk.bytes) == (2, 2, 4 * 4096 - 4096)
    batch = cache.read_many([8192, 4096, 16_000], [100, 8192, 384])
    assert batch.buffer.tobytes() == pattern(8192, 100) + pattern(4096, 8192) + pattern(16_000, 384)
    assert disk.requests == 2


def test_a_batch_fetches_what_it_misses_at_once_and_joined() -> None:
    disk = counted()
    cache = CacheDevice(disk, 1 << 20, 4096)
    cache.read(8192, 1)
    disk.reset()
    cache.read_many([4096 * i for i in (5, 0, 1, 2, 4)], 4096)
    assert (disk.requests, disk.ranges, disk.bytes) == (1, 2, 4 * 4096)  # 0 to 1 and 4 to 5
    disk.reset()
    cache.read_many([0, 4096 * 4], [3 * 4096, 2 * 4096])
    assert disk.requests == 0


def test_the_last_block_may_be_short() -> None:
    disk = counted(10_000)
    cache = CacheDevice(disk, 1 << 20, 4096)
    assert cache.read(9999, 1) == pattern(9999, 1)
    assert cache.used == 10_000 - 8192
    assert cache.read(0, 10_000) == pattern(0, 10_000)
    assert disk.bytes == cache.used == 10_000


def test_the_least_recently_used_goes_first() -> None:
    disk = counted()
    cache = CacheDevice(disk, 4 * 4096, 4096)
    for block in (0, 1, 2, 3):
        cache.read(block * 4096, 1)
    cache.read(0, 1)  # now 1 is the oldest
    cache.read_many([2 * 4096], [1])  # and then 3
    cache.read(4 * 4096, 1)
    cache.read(5 * 4096, 1)
    disk.reset()
    for block in (0, 2, 4, 5):
        cache.read(block * 4096, 1)
    assert disk.requests == 0
    cache.read(1 * 4096, 1)
    cache.read(3 * 4096, 1)
    assert disk.requests == 2


class Watching(BlockDevice):
    """Calls back at each read, to look at the cache meanwhile."""

    def __init__(self, inner: BlockDevice) -> None:
        self.inner = inner
        self.cache: CacheDevice | None = None
        self.most = 0

    @property
    def size(self) -> int:
        return self.inner.size

    def _read(self, offset: int, length: int) -> bytes:
        if self.cache is not None:
            self.most = max(self.most, self.cache.used)
        return self.inner.read(offset, length)


def test_the_bound_holds_always() -> None:
    disk = Watching(PatternDevice(1 << 24))
    cache = disk.cache = CacheDevice(disk, 100_000, 4096)
    dice = random.Random(4)
    for _ in range(300):
        offsets = [dice.randrange(1 << 23) for _ in range(dice.randint(1, 30))]
        lengths = [dice.choice((1, 4096, 30_000)) for _ in offsets]
        batch = cache.read_many(offsets, lengths)
        assert all(batch.view(i).tobytes() == pattern(o, lengths[i]) for i, o in enumerate(offsets))
        assert cache.read(offsets[0], 5000) == pattern(offsets[0], 5000)
        assert cache.used <= 100_000
        assert cache.used == sum(len(data) for data in cache._blocks.values())
    assert 90_000 < disk.most <= 100_000


def test_blocks_do_not_keep_a_batch_alive() -> None:
    cache = CacheDevice(PatternDevice(1 << 24), 1 << 20, 4096)
    cache.read_many([0], [100 * 4096])
    assert cache.used == 100 * 4096
    assert all(type(data) is bytes and len(data) == 4096 for data in cache._blocks.values())


def test_a_big_batch_goes_past_and_drives_nothing_out() -> None:
    disk = counted()
    cache = CacheDevice(disk, 40 * 4096, 4096)
    cache.read_many([0], [10 * 4096])
    disk.reset()
    offsets = np.arange(1000, dtype=np.int64) * 70_000
    batch = cache.read_many(np.append(offsets, 3 * 4096), 10)
    assert batch.buffer[-10:].tobytes() == pattern(3 * 4096, 10)
    # Not 1,000 blocks: the ranges alone, and not what was cached.
    assert (disk.requests, disk.ranges, disk.bytes) == (1, 999, 9990)
    disk.reset()
    cache.read(0, 10 * 4096)
    assert disk.requests == 0
    assert cache.used == 10 * 4096


def test_failures_are_not_cached() -> None:
    disk = FaultDevice(PatternDevice(1 << 20), errors=[(5000, 10)])
    counter = CounterDevice(disk)
    cache = CacheDevice(counter, 1 << 20, 4096)
    with pytest.raises(ReadError) as caught:
        cache.read(4990, 20)
    assert caught.value.offset == 5000
    # The rest of the bad block can be read, and so can its neighbours, which are cached.
    batch = cache.read_many([4096, 5010, 0, 5009, 8192], [904, 100, 4096, 1, 4096])
    assert sorted(batch.errors) == [3]
    assert batch.view(0).tobytes() == pattern(4096, 904)
    assert batch.view(1).tobytes() == pattern(5010, 100)
    assert cache.used == 2 * 4096
    assert cache.read(4096, 904) == pattern(4096, 904)
    disk.heal()
    assert cache.read(4990, 20) == pattern(4990, 20)
    counter.reset()
    assert cache.read(0, 3 * 4096) == pattern(0, 3 * 4096)
    assert counter.requests == 0


def test_one_bad_block_in_a_long_run() -> None:
    disk = FaultDevice(PatternDevice(1 << 20), errors=[(50 * 4096 + 7, 1)])
    counter = CounterDevice(disk)
    cache = CacheDevice(counter, 1 << 20, 4096)
    batch = cache.read_many(np.arange(100) * 4096, 4096)
    assert sorted(batch.errors) == [50]
    assert batch.view(99).tobytes() == pattern(99 * 4096, 4096)
    assert counter.requests == 3  # joined, block by block, and what was asked for of the bad one
    assert cache.used == 99 * 4096


@pytest.mark.parametrize(("capacity", "block"), [(0, 4096), (100, 4096), (4095, 4096)])
def test_too_small_to_hold_a_block(capacity: int, block: int) -> None:
    disk = counted()
    cache = CacheDevice(disk, capacity, block)
    for _ in range(2):
        assert cache.read(10, 20) == pattern(10, 20)
        assert cache.read_many([10], [20]).buffer.tobytes() == pattern(10, 20)
    assert cache.used == 0
    assert disk.bytes == 80


def test_room_for_one_block() -> None:
    disk = counted()
    cache = CacheDevice(disk, 4096, 4096)
    cache.read(0, 1)
    cache.read(1, 1)
    cache.read_many([4096], [1])
    cache.read(4097, 1)
    assert disk.requests == 2
    assert cache.used == 4096


def test_bad_arguments() -> None:
    for arguments in ((-1, 4096), (100, 0)):
        with pytest.raises(UsageError):
            CacheDevice(MemoryDevice(b""), *arguments)


def test_closing_frees() -> None:
    disk = MemoryDevice(bytes(10_000))
    cache = CacheDevice(disk)
    cache.read(0, 10)
    cache.close()
    assert cache.used == 0
    cache._keep([(0, b"late")])  # a thread that was fetching meanwhile
    assert cache.used == 0
    cache = CacheDevice(disk)
    cache.read(0, 10)
    cache.clear()
    assert cache.used == 0
    assert cache.read(0, 10) == bytes(10)


def test_threads_and_evictions() -> None:
    cache = CacheDevice(PatternDevice(1 << 22), 60_000, 1000)
    failures: list[str] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for _ in range(150):
            offsets = [dice.randrange((1 << 22) - 5000) for _ in range(8)]
            batch = cache.read_many(offsets, 3000)
            good = all(batch.view(i).tobytes() == pattern(o, 3000) for i, o in enumerate(offsets))
            if not good or cache.read(offsets[0], 700) != pattern(offsets[0], 700) or cache.used > 60_000:
                failures.append(f"{seed}: {offsets}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert cache.used == sum(len(data) for data in cache._blocks.values())
