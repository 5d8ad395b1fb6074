"""What opening and reading cost: reads and bytes, counted; and a fragmented disk of 2 TB."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pseudomount.device import PseudoDisk
from pseudomount.errors import PseudomountError, TransientStorageError
from pseudomount.extents import Kind
from pseudomount.storage import LocalStore
from tests.support.qcow2 import create, disk_of, opened, qemu_io, random_writes, raw_of, run, whole

CLUSTER = 65536
TABLES = 4096  # of 512 MiB each: 2 TiB


class CountingStore(LocalStore):
    """Counts requests and bytes; fails where told."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.requests: list[tuple[int, int]] = []
        self.broken: range = range(0)

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        self.requests.append((offset, length))
        if offset < self.broken.stop and offset + length > self.broken.start:
            raise TransientStorageError(f"{name}: gone for a while")
        return super().read(name, offset, length)

    @property
    def bytes(self) -> int:
        return sum(length for _, length in self.requests)


def fragmented(path: Path, *, tables: int = TABLES, seed: int = 1, per_table: int = 8192) -> NDArray[np.int64]:
    """A sparse image of version 3, each cluster of which is somewhere else; returns where each one is.

    Header, L1 and L2 tables are written; the clusters are holes in the file but for what tests put there.
    """
    dice = np.random.default_rng(seed)
    size = tables * 8192 * CLUSTER
    l1_clusters = -(-tables * 8 // CLUSTER)
    first_table = 2 + l1_clusters  # between them a table of reference counts, all zero: qemu wants one
    first_data = first_table + tables
    places = np.full(tables * 8192, -1, np.int64)
    which = np.arange(tables * 8192).reshape(tables, 8192)[:, :per_table].ravel()
    places[which] = (dice.permutation(len(which)) + first_data) * CLUSTER
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, CLUSTER, CLUSTER * (1 + l1_clusters), 1, 0, 0
    )
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    with path.open("wb") as file:
        file.write(header.ljust(CLUSTER, b"\0"))
        l1 = (np.arange(tables) + first_table) * CLUSTER
        file.write((l1.astype(np.uint64) | np.uint64(1 << 63)).astype(">u8").tobytes())
        for table in range(tables):
            entries = places[table * 8192 : (table + 1) * 8192]
            words = np.where(entries < 0, np.uint64(0), entries.astype(np.uint64) | np.uint64(1 << 63))
            file.seek((first_table + table) * CLUSTER)
            file.write(words.astype(">u8").tobytes())
        file.truncate((first_data + len(which)) * CLUSTER)
    return places


@pytest.mark.tools("qemu-img", "qemu-io")
def test_opening_and_the_first_read(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", "4G")
    qemu_io(path, [f"write -P {i + 1} {i * 200}M 64k" for i in range(20)])
    store = CountingStore(tmp_path)
    disk = disk_of(path, store=store)
    assert len(store.requests) == 2  # the header, the L1 table
    assert store.requests[1][1] == 64
    with PseudoDisk(disk.index, store) as device:
        store.requests.clear()
        assert device.read(0, 512) == b"\1" * 512
        assert len(store.requests) == 2  # an L2 table, the data
        store.requests.clear()
        assert device.read(50 << 20, 512) == bytes(512)
        assert store.requests == []
        batch = device.read_many(np.arange(20, dtype=np.int64) * (200 << 20), 512)
        assert [int(batch.view(i)[0]) for i in range(20)] == list(range(1, 21))
        assert len(store.requests) <= 7 + 20
        store.requests.clear()
        list(device.extents())
        assert store.requests == []


@pytest.mark.tools("qemu-img", "qemu-io")
def test_2_tb_in_fragments(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    places = fragmented(path, tables=TABLES, per_table=64)  # a small part of 2 TB, so that the test is quick
    dice = np.random.default_rng(2)
    chosen = dice.choice(np.flatnonzero(places >= 0), 1000, replace=False)
    with path.open("r+b") as file:
        for cluster in chosen.tolist():
            file.seek(int(places[cluster]))
            file.write(struct.pack(">Q", cluster) * 64)
    store = CountingStore(tmp_path)
    disk = disk_of(path, store=store)
    assert len(store.requests) == 2
    assert store.bytes < 200_000
    with PseudoDisk(disk.index, store) as device:
        store.requests.clear()
        for cluster in chosen.tolist():
            assert device.read(cluster * CLUSTER, 512) == struct.pack(">Q", cluster) * 64
        # Never more than one slice of a table and the data for a read.
        assert len(store.requests) <= 2000
        assert store.bytes <= 1000 * (CLUSTER + 512)
        store.requests.clear()
        batch = device.read_many(np.sort(chosen) * CLUSTER, 8)
        assert [int.from_bytes(batch.view(i).tobytes(), "big") for i in range(1000)] == np.sort(chosen).tolist()
    commands = [f"read -v {cluster * CLUSTER} 16" for cluster in chosen[:20].tolist()]
    seen = run("qemu-io", "-r", "-f", "qcow2", *(part for c in commands for part in ("-c", c)), path)
    for cluster in chosen[:20].tolist():
        shown = " ".join(f"{byte:02x}" for byte in struct.pack(">Q", cluster) * 2)
        assert f"{cluster * CLUSTER:08x}:  {shown}" in seen


def test_resolving_agrees_with_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    places = fragmented(path, tables=5, per_table=3000, seed=4)
    index = disk_of(path).index
    pieces = index.resolve([0], [index.size])
    data = pieces.kind == Kind.DATA
    clusters = pieces.offset[data] // CLUSTER
    assert int(pieces.length.sum()) == index.size
    assert (pieces.object_offset[data] == places[clusters]).all()
    assert int(pieces.length[data].sum()) == int((places >= 0).sum()) * CLUSTER
    assert int((~data).sum()) == 5
    dice = np.random.default_rng(5)
    for offset in dice.integers(0, index.size, 300).tolist():
        piece = index.around(offset)
        begin = int(piece.offset[0])
        assert len(piece) == 1
        assert begin <= offset < begin + int(piece.length[0])
        cluster = offset // CLUSTER
        if places[cluster] >= 0:
            assert int(piece.object_offset[0]) - begin == int(places[cluster]) - cluster * CLUSTER
        else:
            assert piece.kind[0] == Kind.HOLE
            assert int(piece.length[0]) == 5192 * CLUSTER


def test_long_ranges_are_walked_in_steps(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    fragmented(path, tables=40, per_table=8192)
    index = disk_of(path).index
    assert 30 * 8192 <= index.reach(0, 1 << 18) // CLUSTER <= (1 << 18)
    assert index.reach(index.size - 5, 10) == 5
    assert index.reach(index.size, 10) == 0
    store = LocalStore(tmp_path)
    with PseudoDisk(disk_of(path).index, store) as device:
        extents = device.extents()
    assert extents.lengths.tolist() == [device.size]


def test_a_vast_and_empty_disk_is_one_hole(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    fragmented(path, tables=4096, per_table=0)
    content = bytearray(path.read_bytes()[: 2 * CLUSTER])
    content[CLUSTER:] = bytes(CLUSTER)
    path.write_bytes(content)
    index = disk_of(path).index
    assert index.around(1 << 40).length.tolist() == [index.size]
    assert len(index.resolve([0, 5], [index.size, index.size - 5])) == 2
    assert index.reach(0, 10) == index.size


def test_a_table_that_cannot_be_loaded_costs_what_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    fragmented(path, tables=8, per_table=8192)
    store = CountingStore(tmp_path)
    index = disk_of(path, store=store).index
    third = (3 + 3) * CLUSTER
    store.broken = range(third, third + CLUSTER)
    span = 8192 * CLUSTER
    asked = np.arange(8) * span
    answer = index.resolve(asked, np.full(8, 3 * CLUSTER))
    assert list(answer.errors) == [3]
    assert isinstance(answer.errors[3], TransientStorageError)
    assert sorted(set(answer.ranges.tolist())) == [0, 1, 2, 4, 5, 6, 7]
    piece = index.around(3 * span + 5)
    assert list(piece.errors) == [0]
    store.broken = range(0)
    assert not index.resolve(asked, np.full(8, 3 * CLUSTER)).errors


def test_tables_that_are_neighbours_come_in_one_request(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    fragmented(path, tables=64, per_table=8192)
    store = CountingStore(tmp_path)
    index = disk_of(path, store=store).index
    store.requests.clear()
    index.resolve(np.arange(64) * (8192 * CLUSTER), np.full(64, CLUSTER))
    assert len(store.requests) <= 5
    assert store.bytes == 64 * CLUSTER
    store.requests.clear()
    index.resolve(np.arange(64) * (8192 * CLUSTER), np.full(64, CLUSTER))
    assert store.requests == []


def test_memory_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    fragmented(path, tables=600, per_table=8192)
    index = disk_of(path).index
    slices = index._slices  # type: ignore[attr-defined]
    for table in range(0, 600, 50):
        index.resolve(np.arange(table, table + 50) * (8192 * CLUSTER), np.full(50, CLUSTER))
        assert slices._used == sum(entries.nbytes for entries in slices._kept.values()) <= 32 << 20


@pytest.mark.tools("qemu-img", "qemu-io")
def test_threads(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", 30 << 20, "cluster_size=512")
    random_writes(path, 30 << 20, seed=6, count=100)
    truth = raw_of(path)
    wrong: list[PseudomountError | int] = []
    with opened(path) as device:

        def read(seed: int) -> None:
            dice = np.random.default_rng(seed)
            try:
                offsets = dice.integers(0, len(truth) - 5000, 150).tolist()
                wrong.extend(at for at in offsets if device.read(at, 5000) != truth[at : at + 5000])
            except PseudomountError as error:
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        assert whole(device) == truth


@pytest.mark.tools("qemu-img", "qemu-io")
@pytest.mark.parametrize("options", [(), ("compat=0.10", "cluster_size=4k"), ("extended_l2=on",)])
def test_what_is_around_a_byte_is_what_resolving_says(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = create(tmp_path / "vm.qcow2", 20 << 20, *options)
    random_writes(path, 20 << 20, seed=9, count=60)
    index = disk_of(path).index
    for offset in np.random.default_rng(1).integers(0, index.size, 400).tolist():
        piece = index.around(offset)
        begin, length = int(piece.offset[0]), int(piece.length[0])
        assert len(piece) == 1
        assert begin <= offset < begin + length
        general = index.resolve([begin], [length])
        columns = "offset length kind object object_offset stored_length codec decoded_length"
        for column in columns.split():
            assert getattr(piece, column).tolist() == getattr(general, column).tolist(), (offset, column)
        # Nor could it be wider, but for where a table ends.
        for outside in (begin - 1, begin + length):
            if 0 <= outside < index.size and max(outside, begin) % (2 << 20):
                assert len(index.resolve([min(outside, begin)], [length + 1])) == 2
