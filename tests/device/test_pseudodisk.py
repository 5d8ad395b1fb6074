"""The pseudo-disk, against plain bytes and counted fetches."""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import BlockDevice, PseudoDisk
from pseudomount.device._lru import ByteLRU
from pseudomount.device._scatter import scatter, zero
from pseudomount.errors import (
    ChecksumError,
    ClosedError,
    CorruptionError,
    ObjectChangedError,
    ObjectNotFoundError,
    PseudomountError,
    ReadError,
    StorageError,
    TransientStorageError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from pseudomount.extents import RAW, Codec, ColumnIndex, OverlayIndex, PagedIndex
from pseudomount.testing.device_conformance import DeviceConformance

CODECS = (RAW, Codec("zlib"), Codec("zstd"), Codec("reverse"))


class Memory:
    """Objects in memory; counts what is fetched, and fails where told."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.calls: list[tuple[str, int, int]] = []
        self.bad: dict[str, list[tuple[int, int]]] = {}
        self.error: Callable[[], Exception] = lambda: StorageError("bad sector")
        self.threads: set[int] = set()

    def __call__(self, name: str, offset: int, length: int, /) -> bytes:
        self.calls.append((name, offset, length))
        self.threads.add(threading.get_ident())
        for start, stop in self.bad.get(name, ()):
            if offset < stop and offset + length > start:
                raise self.error()
        return self.objects[name][offset : offset + length]


class MemoryStore(Memory):
    """The same as a store, which answers many ranges at once."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.batches = 0

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        return self(name, offset, length)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        self.batches += 1
        return [self(name, *r) for r in ranges]


def blob(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def raw_disk(size: int = 1 << 20, **options: Any) -> tuple[PseudoDisk, Memory, bytes]:
    data = blob(size)
    memory = Memory({"a": data})
    return PseudoDisk(ColumnIndex.single("a", size), memory, **options), memory, data


def packed_disk(count: int = 8, size: int = 65536, **options: Any) -> tuple[PseudoDisk, Memory, bytes]:
    """`count` zlib extents of `size` bytes, stored behind each other, their lengths rounded up as in qcow2."""
    content = [blob(size // 2, i) + bytes(size - size // 2) for i in range(count)]
    stored = [zlib.compress(part) for part in content]
    starts = np.cumsum([0] + [len(part) for part in stored])
    index = ColumnIndex.from_arrays(
        count * size,
        np.arange(count) * size,
        size,
        starts[:-1],
        objects=["z"],
        stored_length=[(len(part) + 511) // 512 * 512 for part in stored],
        codec=1,
        codecs=CODECS,
    )
    memory = Memory({"z": b"".join(stored)})
    return PseudoDisk(index, memory, **options), memory, b"".join(content)


# -- equal to plain bytes ------------------------------------------------------------------------------------------


@st.composite
def layouts(draw: st.DrawFn) -> tuple[ColumnIndex, dict[str, bytes], bytes]:
    """An index of all kinds of extents, what is stored, and what the disk must be."""
    cuts = sorted(draw(st.sets(st.integers(0, 3000), min_size=1, max_size=14)))
    size = cuts[-1]
    disk, objects = bytearray(size), {"a": bytearray(), "b": bytearray()}
    rows: list[tuple[int, ...]] = []
    identities: list[bytes] = []
    for start, stop in itertools.pairwise(cuts):
        kind = draw(st.sampled_from(["gap", "zero", "raw", "raw", "zlib", "reverse", "again"]))
        n = stop - start
        if kind == "again" and rows and rows[-1][4] == 0 and rows[-1][6] == 1:
            # Two extents of the disk that are cut from one stored extent, as a snapshot leaves them.
            last = rows[-1]
            whole = zlib.decompress(bytes(objects["ab"[last[2]]][last[3] : last[3] + last[5]]))
            m = min(n, len(whole))
            rows.append((start, m, last[2], last[3], 0, last[5], 1, len(whole) - m, len(whole)))
            identities.append(identities[-1])
            disk[start : start + m] = whole[len(whole) - m :]
            continue
        if kind in ("gap", "again"):
            continue
        if kind == "zero":
            rows.append((start, n, 0, 0, 1, 0, 0, 0, 0))
            identities.append(bytes(32))
            continue
        which = draw(st.integers(0, 1))
        front, back = draw(st.integers(0, 9)), draw(st.integers(0, 9))
        whole = blob(front + n + back, start)
        stored = {"raw": whole, "zlib": zlib.compress(whole), "reverse": whole[::-1]}[kind]
        target = objects["ab"[which]]
        target += blob(draw(st.integers(0, 50)))
        at = len(target) + (front if kind == "raw" else 0)
        target += stored
        code = {"raw": 0, "zlib": 1, "reverse": 3}[kind]
        rows.append((start, n, which, at, 0, n if kind == "raw" else len(stored), code, front, len(whole)))
        identities.append(hashlib.sha256(whole).digest())
        disk[start:stop] = whole[front : front + n]
    table = np.array(rows, np.int64).reshape(-1, 9)
    index = ColumnIndex.from_arrays(
        size,
        table[:, 0],
        table[:, 1],
        table[:, 3],
        objects=["a", "b"],
        number=table[:, 2],
        kind=table[:, 4],
        stored_length=table[:, 5],
        codec=table[:, 6],
        skip=table[:, 7],
        decoded_length=table[:, 8],
        identity=np.frombuffer(b"".join(identities), np.uint8).reshape(-1, 32),
        codecs=CODECS,
    )
    return index, {name: bytes(data) for name, data in objects.items()}, bytes(disk)


def sha256(identity: bytes, data: bytes) -> bool:
    return hashlib.sha256(data).digest() == identity


def reverse(stored: bytes, length: int, parameters: object) -> bytes:
    return stored[::-1]


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_every_way_of_reading_gives_the_disk(data: st.DataObject) -> None:
    index, objects, content = data.draw(layouts())
    memory = data.draw(st.sampled_from([Memory, MemoryStore]))(objects)
    options: dict[str, Any] = {
        "gap": data.draw(st.sampled_from([None, 0, 40])),
        "request_limit": data.draw(st.sampled_from([1, 100, 8 << 20])),
        "cache_bytes": data.draw(st.sampled_from([0, 500, 1 << 20])),
        "remote": data.draw(st.booleans()),
        "cache_raw": data.draw(st.sampled_from([None, True, False])),
        "verify": data.draw(st.sampled_from([None, sha256])),
        "threads": 2,
    }
    size = len(content)
    with PseudoDisk(index, memory, decoders={"reverse": reverse}, **options) as disk:
        for _ in range(2):
            starts = data.draw(st.lists(st.integers(0, size), max_size=8))
            lengths = [data.draw(st.integers(0, size - start)) for start in starts]
            batch = disk.read_many([*starts, 0], [*lengths, size])
            assert not batch.errors
            for i, (start, length) in enumerate(zip([*starts, 0], [*lengths, size], strict=True)):
                assert batch.view(i).tobytes() == content[start : start + length]
            for start, length in zip(starts, lengths, strict=True):
                assert disk.read(start, length) == content[start : start + length]
        runs = list(disk.extents(0, size))
        assert sum(length for _, length, _ in runs) == size
        for start, length, kind in runs:
            assert not kind or content[start : start + length] == bytes(length)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from([1, 3, 8, 8, 8, 30])), max_size=150),
    st.randoms(use_true_random=False),
)
def test_scatter_and_zero(pieces: list[tuple[int, int]], order: random.Random) -> None:
    source = np.frombuffer(blob(230), np.uint8)
    total = sum(length for _, length in pieces)
    expected, target = np.full(total + 9, 7, np.uint8), np.full(total + 9, 7, np.uint8)
    at, rows = 0, []
    for start, length in pieces:
        rows.append((start, at, length))
        expected[at : at + length] = source[start : start + length]
        at += length
    order.shuffle(rows)
    table = np.array(rows, np.int64).reshape(-1, 3)
    scatter(source, table[:, 0], target, table[:, 1], table[:, 2])
    assert np.array_equal(expected, target)
    some = table[::2]
    for _, position, length in some.tolist():
        expected[position : position + length] = 0
    zero(target, some[:, 1], some[:, 2])
    assert np.array_equal(expected, target)


# -- few requests --------------------------------------------------------------------------------------------------


def test_neighbours_become_one_request_and_far_ones_do_not() -> None:
    disk, memory, data = raw_disk(gap=4096)
    batch = disk.read_many([0, 5000, 500_000, 100], [1000, 10, 5, 1000])
    assert batch.buffer.tobytes() == data[:1000] + data[5000:5010] + data[500_000:500_005] + data[100:1100]
    assert sorted(memory.calls) == [("a", 0, 5010), ("a", 500_000, 5)]
    assert disk.counters.requests == 2
    assert disk.counters.bytes_fetched == 5015
    assert disk.counters.bytes_delivered == 2015
    assert str(disk.counters) == ("2 requests, 4.9 KiB fetched, 2.0 KiB delivered, 0 cache hits, 0 extents decoded")
    before = disk.counters
    disk.read(0, 1)
    assert (disk.counters - before).requests == 1


def test_no_request_is_longer_than_its_limit() -> None:
    disk, memory, data = raw_disk(request_limit=1000)
    assert disk.read(1, 10_500) == data[1:10_501]
    assert disk.read_many([0], [1 << 20]).buffer.tobytes() == data
    assert max(length for _, _, length in memory.calls) == 1000


def test_local_fetches_use_no_threads_and_remote_ones_do() -> None:
    disk, memory, data = raw_disk(gap=0)
    assert disk.read_many([0, 1000, 5000], [10, 10, 10]).buffer[:10].tobytes() == data[:10]
    assert memory.threads == {threading.get_ident()}
    disk, memory, data = raw_disk(gap=0, remote=True, cache_raw=False)
    with disk:
        assert disk.read_many([0, 1000, 5000], [10, 10, 10]).buffer[:10].tobytes() == data[:10]
    assert threading.get_ident() not in memory.threads


def test_a_remote_store_is_asked_for_many_ranges_at_once() -> None:
    data = blob(1 << 20)
    store = MemoryStore({"a": data})
    with PseudoDisk(ColumnIndex.single("a", 1 << 20), store, remote=True, gap=0, cache_raw=False) as disk:
        batch = disk.read_many([0, 100_000, 900_000], 16)
        assert batch.buffer.tobytes() == data[:16] + data[100_000:100_016] + data[900_000:900_016]
    assert store.batches == 1


def test_the_store_says_that_it_is_remote() -> None:
    class Far(MemoryStore):
        remote = True

    store = Far({"a": blob(1 << 20)})
    with PseudoDisk(ColumnIndex.single("a", 1 << 20), store) as disk:
        disk.read(10, 10)
        disk.read(5000, 10)
        disk.read_many([7, 60_000], 100)
    assert store.calls == [("a", 0, 65536)]
    assert disk.counters.cache_hits == 2


def test_cached_blocks_of_raw_data_up_to_a_ragged_end() -> None:
    size = 3 * 65536 + 777
    disk, memory, data = raw_disk(size, cache_raw=True)
    assert disk.read_many([65_000, size - 5], [70_000, 5]).view(1).tobytes() == data[-5:]
    fetched = len(memory.calls)
    assert disk.read(65_000, 70_000) == data[65_000:135_000]
    assert disk.read(size - 777, 777) == data[-777:]
    assert len(memory.calls) == fetched


def test_a_compressed_extent_is_fetched_and_decoded_once() -> None:
    disk, memory, data = packed_disk()
    starts = [*range(0, len(data), 512), 5, 70_000]
    batch = disk.read_many(starts, [100] * len(starts))
    assert b"".join(batch.view(i).tobytes() for i in range(len(batch))) == b"".join(data[s : s + 100] for s in starts)
    assert disk.counters.extents_decoded == 8
    assert len(memory.calls) == 1
    assert disk.read(70_000, 5000) == data[70_000:75_000]
    assert disk.read_many([0], [len(data)]).buffer.tobytes() == data
    assert disk.counters.extents_decoded == 8
    assert disk.counters.cache_hits == 1 + 8
    assert len(memory.calls) == 1


def test_the_cache_is_bounded() -> None:
    disk, _, data = packed_disk(count=8, cache_bytes=3 * 65536 + 1)
    disk.read_many([0], [len(data)])
    assert len(disk._cache) == 3
    assert disk._cache.used == 3 * 65536
    before = disk.counters
    disk.read(7 * 65536, 10)  # used last
    disk.read(0, 10)  # long gone
    assert (disk.counters - before).extents_decoded == 1


def test_the_cache_by_itself() -> None:
    cache = ByteLRU(10)
    cache.put("a", b"12345")
    cache.put("b", b"1234")
    assert cache.get("a") == b"12345"
    cache.put("c", b"12")
    assert (cache.get("b"), len(cache), cache.used) == (None, 2, 7)
    cache.put("a", b"1")
    assert cache.used == 3
    cache.put("d", bytes(11))
    assert cache.get("d") is None
    cache.clear()
    assert (len(cache), cache.used) == (0, 0)


def test_small_reads_look_up_an_extent_once() -> None:
    class Counting(ColumnIndex):
        asked = 0

        def around(self, offset: int) -> Any:
            self.asked += 1
            return super().around(offset)

        def resolve(self, *ranges: Any) -> Any:
            self.asked += 1
            return super().resolve(*ranges)

    data = blob(30_000)
    index = Counting.from_arrays(30_000, [0, 20_000], [10_000, 10_000], [0, 10_000], objects=["a"])
    disk = PseudoDisk(index, Memory({"a": data}))
    expected = data[:10_000] + bytes(10_000) + data[10_000:20_000]
    for offset in range(0, 29_000, 7):
        length = 1 if offset in (9996, 19999) else min(4, 10_000 - offset % 10_000)
        assert disk.read(offset, length) == expected[offset : offset + length]
    assert isinstance(index, Counting)
    assert index.asked == 3
    assert disk.read(9_990, 20) == expected[9_990:10_010]


def test_thousands_of_extents_do_not_grow_the_memory_of_small_reads() -> None:
    n = 5000
    data = blob(n * 16)
    index = ColumnIndex.from_arrays(n * 16, np.arange(n) * 16, 16, np.arange(n)[::-1] * 16, objects=["a"])
    disk = PseudoDisk(index, Memory({"a": data}))
    for i in random.Random(3).sample(range(n), n):
        at = (n - 1 - i) * 16
        assert disk.read(i * 16 + 3, 9) == data[at + 3 : at + 12]
    assert len(disk._memo[0]) <= 1024


# -- damage costs what it touches ----------------------------------------------------------------------------------


def test_a_bad_sector_costs_only_the_ranges_that_need_it() -> None:
    disk, memory, data = raw_disk(gap=1 << 20)
    memory.bad["a"] = [(5000, 5001)]
    starts = list(range(0, 100_000, 1000))
    batch = disk.read_many(starts, 600)
    assert set(batch.errors) == {5}
    error = batch.errors[5]
    assert isinstance(error, ReadError)
    assert (error.device, error.offset, error.retryable) == ("disk", 5000, False)
    assert "bad sector" in str(error)
    for i in set(range(100)) - {5}:
        assert batch.view(i).tobytes() == data[starts[i] : starts[i] + 600]
    with pytest.raises(ReadError):
        disk.read(4999, 2)
    assert disk.counters.bytes_delivered == 99 * 600


def test_dead_storage_is_not_asked_for_ever() -> None:
    disk, memory, _ = raw_disk(gap=1 << 20)
    memory.bad["a"] = [(0, 1 << 40)]
    batch = disk.read_many(range(0, 1 << 20, 64), 8)
    assert len(batch.errors) == 1 << 14
    assert len(memory.calls) < 200
    memory.calls.clear()
    memory.error = lambda: TransientStorageError("timeout")
    batch = disk.read_many(range(0, 1 << 20, 64), 8)
    assert all(isinstance(e, ReadError) and e.retryable for e in batch.errors.values())
    assert len(memory.calls) == 1


@pytest.mark.parametrize(
    ("raised", "seen", "retryable"),
    [
        (OSError(5, "input/output error"), ReadError, False),
        (TimeoutError("slow"), ReadError, True),
        (ConnectionResetError("gone"), ReadError, True),
        (FileNotFoundError("no"), ObjectNotFoundError, False),
        (ObjectChangedError("other"), ObjectChangedError, False),
        (KeyError("bug"), ReadError, False),
        (CorruptionError("bad"), CorruptionError, False),
    ],
)
@pytest.mark.parametrize("cache_raw", [False, True])
def test_whatever_a_fetch_raises_is_ours(
    raised: Exception, seen: type[PseudomountError], retryable: bool, cache_raw: bool
) -> None:
    disk, memory, _ = raw_disk(cache_raw=cache_raw)
    memory.bad["a"] = [(0, 10)]
    memory.error = lambda: raised
    with pytest.raises(PseudomountError) as caught:
        disk.read(5, 2)
    for error in (disk.read_many([5], [2]).errors[0], caught.value):
        assert type(error) is seen
        assert error.retryable == retryable
    assert disk.read(100_000, 1) == disk.read_many([100_000], [1]).buffer.tobytes()


def test_a_fetch_may_give_other_buffers_and_too_much() -> None:
    data = blob(100)
    for kind in (bytearray, memoryview):
        disk = PseudoDisk(ColumnIndex.single("a", 50), lambda name, at, n, kind=kind: kind(data[at:]))
        assert disk.read(3, 10) == data[3:13]
        assert disk.read_many([3, 20], [10, 30]).buffer.tobytes() == data[3:13] + data[20:50]


@pytest.mark.parametrize("options", [{}, {"cache_raw": True}, {"remote": True}, {"request_limit": 100}])
def test_an_object_that_ends_early(options: dict[str, Any]) -> None:
    data = blob(1000)
    with PseudoDisk(ColumnIndex.single("a", 5000), Memory({"a": data}), **options) as disk:
        batch = disk.read_many([0, 900, 999, 1000, 4999], [500, 200, 1, 1, 1])
        assert set(batch.errors) == {1, 3, 4}
        assert batch.view(0).tobytes() == data[:500]
        assert batch.view(2).tobytes() == data[999:]
        for i, offset in ((1, 1000), (3, 1000), (4, 4999)):
            error = batch.errors[i]
            assert isinstance(error, TruncatedError)
            assert error.offset == offset
        with pytest.raises(TruncatedError):
            disk.read(990, 20)
        assert disk.read(990, 10) == data[990:]


def test_a_stored_length_that_is_only_a_bound_may_reach_past_the_object() -> None:
    disk, memory, data = packed_disk(count=1)
    assert disk.read(0, 100) == data[:100]
    name, offset, length = memory.calls[0]
    assert offset + length > len(memory.objects[name])


def test_damaged_extents_cost_themselves() -> None:
    disk, memory, data = packed_disk(count=4)
    stored = bytearray(memory.objects["z"])
    middle = int(disk.index.resolve([65536], [1]).object_offset[0])
    stored[middle + 300] ^= 0xFF
    memory.objects["z"] = bytes(stored)
    batch = disk.read_many([0, 65536, 65536 * 2 - 1, 65536 * 2], [10, 10, 2, 10])
    assert set(batch.errors) == {1, 2}
    error = batch.errors[1]
    assert isinstance(error, CorruptionError)
    assert (error.device, error.offset) == ("disk", 65536)
    assert batch.view(0).tobytes() == data[:10]
    assert batch.view(3).tobytes() == data[65536 * 2 :][:10]
    with pytest.raises(CorruptionError):
        disk.read(65536 + 70, 2)
    assert disk.counters.extents_decoded == 3 + 1  # a failure is not kept: it was tried again


def test_forged_lengths_cost_no_memory() -> None:
    """A terabyte claimed, in all columns that can claim one."""
    index = ColumnIndex.from_arrays(
        1 << 41,
        [0, 1 << 40, (1 << 40) + 4096],
        [1 << 40, 4096, 4096],
        [0, 0, 0],
        objects=["a"],
        stored_length=[1 << 40, 1 << 45, 1 << 45],
        codec=[1, 1, 1],
        decoded_length=[1 << 40, 4096, 1 << 50],
        codecs=CODECS,
    )
    memory = Memory({"a": zlib.compress(bytes(4096))})
    disk = PseudoDisk(index, memory)
    batch = disk.read_many([0, 1 << 40, (1 << 40) + 4096], 4096)
    assert isinstance(batch.errors[0], UnsupportedError)
    assert isinstance(batch.errors[2], UnsupportedError)
    assert batch.view(1).tobytes() == bytes(4096)
    assert max(length for _, _, length in memory.calls) < 1 << 20
    with pytest.raises(UnsupportedError, match="1099511627776"):
        disk.read(5, 5)


def test_codecs_that_nobody_knows_and_decoders_that_break() -> None:
    index = ColumnIndex.from_arrays(
        40, [0, 10, 20, 30], 10, objects=["a"], stored_length=10, codec=[1, 2, 3, 4],
        codecs=(RAW, Codec("mystery"), Codec("raises"), Codec("short"), Codec("fine", (("key", b"k"),))),
    )  # fmt: skip

    def raises(stored: bytes, length: int, parameters: object) -> bytes:
        raise ZeroDivisionError

    disk = PseudoDisk(
        index,
        Memory({"a": b"0123456789"}),
        decoders={
            "raises": raises,
            "short": lambda stored, length, parameters: stored[:3],
            "fine": lambda stored, length, parameters: bytes(parameters["key"]) * length,  # type: ignore[arg-type]
        },
    )
    batch = disk.read_many([0, 10, 20, 30], 5)
    assert isinstance(batch.errors[0], UnsupportedError)
    assert "mystery" in str(batch.errors[0])
    assert isinstance(batch.errors[1], CorruptionError)
    assert isinstance(batch.errors[2], CorruptionError)
    assert batch.view(3).tobytes() == b"kkkkk"


@pytest.mark.parametrize("codec", [0, 1])
@pytest.mark.parametrize("cache_raw", [False, True])
def test_bytes_that_do_not_verify_are_an_error_never_data(codec: int, cache_raw: bool) -> None:
    """Also where only a part of the extent is asked for, and of raw extents."""
    whole = blob(3000)
    stored = whole if codec == 0 else zlib.compress(whole)
    identity = np.frombuffer(
        hashlib.sha256(whole).digest() + hashlib.sha256(b"other").digest() + bytes(32), np.uint8
    ).reshape(3, 32)
    index = ColumnIndex.from_arrays(
        9000,
        [0, 3000, 6000],
        3000,
        objects=["a"],
        stored_length=len(stored),
        codec=codec,
        decoded_length=3000,
        identity=identity,
        codecs=CODECS,
    )
    disk = PseudoDisk(index, Memory({"a": stored}), verify=sha256, cache_raw=cache_raw)
    batch = disk.read_many([100, 3100, 6100], 50)
    assert set(batch.errors) == {1}
    assert isinstance(batch.errors[1], ChecksumError)
    assert not batch.buffer[50:100].any()
    assert batch.view(0).tobytes() == batch.view(2).tobytes() == whole[100:150]
    for _ in range(2):
        assert disk.read(2990, 10) == whole[-10:]
        with pytest.raises(ChecksumError):
            disk.read(4000, 1)
        assert disk.read(6000, 1) == whole[:1]
    again = PseudoDisk(index, Memory({"a": stored}))
    assert not again.read_many([100, 3100], 50).errors


def test_a_part_of_the_index_that_cannot_be_loaded() -> None:
    def load(number: int) -> ColumnIndex:
        if number == 1:
            raise CorruptionError("a broken table")
        return ColumnIndex.from_arrays(1000, [0], [1000], objects=["a"])

    data = blob(1000)
    disk = PseudoDisk(PagedIndex(3000, 1000, load, objects=["a"]), Memory({"a": data}))
    batch = disk.read_many([0, 900, 2000], [10, 200, 10])
    assert set(batch.errors) == {1}
    assert batch.view(2).tobytes() == data[:10]
    with pytest.raises(CorruptionError, match="broken table"):
        disk.read(1500, 1)
    assert disk.read(2500, 5) == data[500:505]
    assert [tuple(run) for run in disk.extents()] == [(0, 3000, 0)]


# -- the rest ------------------------------------------------------------------------------------------------------


def test_extents_tell_data_zeros_and_holes() -> None:
    newer = ColumnIndex.from_arrays(100, [10, 20, 30], 10, objects=["n"], kind=[0, 1, 2])
    older = ColumnIndex.from_arrays(60, [0, 30], [15, 5], objects=["o"])
    disk = PseudoDisk(OverlayIndex(newer, older), Memory({}))
    assert list(disk.extents()) == [(0, 20, 0), (20, 10, 1), (30, 5, 0), (35, 65, 2)]
    assert list(disk.extents(25, 8)) == [(25, 5, 1), (30, 3, 0)]
    assert disk.read(35, 60) == bytes(60)
    assert disk.counters.requests == 0


def test_many_threads_read_one_disk() -> None:
    disk, _, data = packed_disk(count=16, cache_bytes=5 * 65536)
    failures: list[int] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(150):
            start = chance.randrange(len(data) - 3000)
            if disk.read(start, 3000) != data[start : start + 3000]:
                failures.append(start)
            starts = [chance.randrange(len(data) - 100) for _ in range(5)]
            batch = disk.read_many(starts, 100)
            if batch.buffer.tobytes() != b"".join(data[s : s + 100] for s in starts):
                failures.append(start)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert disk.counters.bytes_delivered == 6 * 150 * 3500
    disk.close()


def test_closing() -> None:
    disk, _, _ = raw_disk(remote=True)
    disk.read_many([0, 500_000], 5)
    disk.close()
    disk.close()
    with pytest.raises(ClosedError):
        disk.read(0, 1)


@pytest.mark.parametrize(
    "options", [{"request_limit": 0}, {"cache_bytes": -1}, {"max_decoded": 0}, {"gap": -1}, {"threads": 0}]
)
def test_limits_that_make_no_sense(options: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        raw_disk(**options)


def test_a_batch_of_large_units_is_worked_on_in_waves() -> None:
    """Sixty-four times 1 MiB of which a byte each is needed: never more than a wave of them in memory."""
    import tracemalloc

    one = zlib.compress(bytes(1 << 20))
    index = ColumnIndex.from_arrays(
        64 << 20, np.arange(64) << 20, 1 << 20, np.arange(64) * len(one), objects=["a"],
        stored_length=len(one), codec=1, codecs=CODECS,
    )  # fmt: skip
    disk = PseudoDisk(index, Memory({"a": one * 64}), cache_bytes=0)
    tracemalloc.start()
    try:
        assert not disk.read_many(np.arange(64) << 20, 1).errors
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
        disk.close()


# -- the conformance suite -----------------------------------------------------------------------------------------


class TestRaw(DeviceConformance):
    def make(self, content: bytes) -> BlockDevice:
        return PseudoDisk(ColumnIndex.single("a", len(content)), Memory({"a": content}))


class TestRemote(DeviceConformance):
    examples = 20

    def make(self, content: bytes) -> BlockDevice:
        store = MemoryStore({"a": content})
        return PseudoDisk(ColumnIndex.single("a", len(content)), store, remote=True, threads=2, request_limit=70_000)


class TestMixed(DeviceConformance):
    """Extents of 1000 bytes in turn raw, compressed, and left out or zero where the content is zeros."""

    def make(self, content: bytes) -> BlockDevice:
        rows, stored = [], bytearray()
        for i, start in enumerate(range(0, len(content), 1000)):
            part = content[start : start + 1000]
            if any(part):
                data = part if i % 2 else zlib.compress(part)
                rows.append((start, len(part), len(stored), 0, len(data), (i + 1) % 2))
                stored += data
            elif i % 2:
                rows.append((start, len(part), 0, 1, 0, 0))
        table = np.array(rows, np.int64).reshape(-1, 6)
        index = ColumnIndex.from_arrays(
            len(content),
            table[:, 0],
            table[:, 1],
            table[:, 2],
            objects=["a"],
            kind=table[:, 3],
            stored_length=table[:, 4],
            codec=table[:, 5],
            codecs=CODECS,
        )
        return PseudoDisk(index, Memory({"a": bytes(stored)}), cache_bytes=20_000, threads=2)
