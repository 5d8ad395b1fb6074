"""How much is read: counted, not timed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import CounterDevice, MemoryDevice
from pseudomount_fat import ExfatParser, FatParser
from pseudomount_fat._pages import CACHED_PAGES, PAGE, PageCache, TableShape
from pseudomount_fat._table import AllocationTable
from tests.support.fat import ForgedFat, Sparse, browse, content, entry, find, ids, read_all
from tests.support.fat_exfat import ForgedExfat, entry_set


def fat32_of_two_terabytes(files: int = 100) -> tuple[Sparse, ForgedFat]:
    """67 million clusters of 32 KiB: a FAT of 256 MiB, never in memory here."""
    volume = ForgedFat(32, clusters=50, per_cluster=64)  # its own small FAT is not used
    volume.clusters = 67_000_000
    volume.fat_sectors = -(-(volume.clusters + 2) * 4 // 512)
    volume.root_start = volume.data_start = volume.fat_start + 2 * volume.fat_sectors * 512
    fat: dict[int, bytes] = {}
    step = volume.clusters // files
    root = b""
    for i in range(files):
        cluster = 100 + i * step
        root += entry(b"D%07d   " % i, cluster, attributes=0x10)
        fat[cluster] = (0x0FFFFFFF).to_bytes(4, "little")
    volume.root = root
    pieces = {0: volume.boot(), volume.position(2): root}
    for copy in range(2):
        base = volume.fat_start + copy * volume.fat_sectors * 512
        pieces[base] = b"\xf8\xff\xff\x0f\xff\xff\xff\x0f\xff\xff\xff\x0f"
        pieces.update({base + 4 * cluster: value for cluster, value in fat.items()})
    pieces.update({volume.position(100 + i * step): entry(b"F%07d   " % i) for i in range(files)})
    return Sparse(volume.data_start + volume.clusters * volume.cluster, pieces), volume


def test_a_directory_of_a_huge_volume_takes_a_page_of_its_fat() -> None:
    sparse, _ = fat32_of_two_terabytes()
    device = CounterDevice(sparse)
    filesystem = FatParser().open(device, FindingLog())
    links = filesystem.children(ids(0))
    rows = filesystem.rows(links.file)
    assert len(links) == 100
    assert not rows.errors
    assert device.ranges <= 16
    assert device.bytes <= 256 << 10
    device.reset()
    below = filesystem.children(links.file)
    assert len(below) == 100
    assert not below.errors
    assert device.bytes <= 100 * (2 * 16 + 8 + 4) * 1024  # a page of each copy, and the start of each directory


def test_the_root_of_a_volume_with_many_files() -> None:
    # Four gibibytes in clusters of 4 KiB have a FAT of 4 MiB; directories all over it.
    volume = ForgedFat(32, clusters=50, per_cluster=8)
    volume.clusters = 1_040_000
    volume.fat_sectors = -(-(volume.clusters + 2) * 4 // 512)
    volume.root_start = volume.data_start = volume.fat_start + 2 * volume.fat_sectors * 512
    chain = [2, *range(500_000, 500_000 + 1600 * 32 // volume.cluster)]
    root = b"".join(entry(b"D%07d   " % i, 100 + i * 600, attributes=0x10) for i in range(1600))
    volume.entries = {0: 0x0FFFFFF8, 1: 0x0FFFFFFF}
    volume.chain(*chain)
    fat = volume.fat(volume.entries)
    pieces = {0: volume.boot(), volume.fat_start: fat, volume.fat_start + len(fat): fat}
    pieces.update(
        {volume.position(c): root[i * volume.cluster : (i + 1) * volume.cluster] for i, c in enumerate(chain)}
    )
    device = CounterDevice(Sparse(volume.data_start + volume.clusters * volume.cluster, pieces))
    match = FatParser().probe(device)
    assert match is not None
    filesystem = FatParser().open(device, FindingLog())
    links = filesystem.children(ids(0))
    filesystem.rows(links.file)
    assert len(links) == 1600
    assert device.ranges <= 64
    assert device.bytes <= 8 << 20


def test_a_long_chain_is_read_ahead() -> None:
    volume = ForgedFat(32, clusters=400_000)
    data_clusters = 390_000
    volume.entries.update({c: c + 1 for c in range(10, 10 + data_clusters)})
    volume.entries[9 + data_clusters] = 0x0FFFFFFF
    volume.root = entry(b"BIG        ", 10, data_clusters * 512)
    device = CounterDevice(MemoryDevice(bytes(volume.image())))
    filesystem = FatParser().open(device, FindingLog())
    file = find(filesystem, "BIG")
    device.reset()
    runs = filesystem.runs(ids(file))
    assert runs.length.tolist() == [data_clusters * 512]
    assert device.ranges <= 32  # 96 pages, twice


def test_an_exfat_directory_is_read_to_its_end_mark() -> None:
    volume = ForgedExfat(cluster_shift=8, clusters=40)  # 128 KiB a cluster
    f = volume.free
    for i in range(20):
        volume.file(entry_set(f"inner{i}"), f + i)
        volume.root += entry_set(f"dir{i}", f + i, volume.cluster, attributes=0x10, contiguous=True)
    device = CounterDevice(MemoryDevice(bytes(volume.image())))
    filesystem = ExfatParser().open(device, FindingLog())
    directories = filesystem.children(ids(0)).file
    device.reset()
    links = filesystem.children(directories)
    assert len(links) == 20
    assert device.bytes <= 20 * (8 << 10) + (64 << 10)


def test_contiguous_content_is_one_read() -> None:
    volume = ForgedFat()
    data = content(100 * 512)
    volume.root = entry(b"A       BIN", volume.file(data, *range(10, 110)), len(data))
    device = CounterDevice(MemoryDevice(bytes(volume.image())))
    filesystem = FatParser().open(device, FindingLog())
    opened = filesystem.open(find(filesystem, "a.bin"))
    device.reset()
    assert opened.read(0, len(data)) == data
    assert device.ranges == 1
    assert (
        opened.read_many([0, 700, 40000], [600, 3, 9000]).buffer.tobytes()
        == data[:600] + data[700:703] + data[40000:49000]
    )


def shape_of(device: BlockDevice, entries: int) -> TableShape:
    return TableShape(32, 0x0FFFFFFF, entries - 2, (0,), device.size, 0x0FFFFFF7, 0x0FFFFFF8)


def test_more_pages_than_the_cache_holds() -> None:
    pages = CACHED_PAGES + 700
    rng = np.random.default_rng(1)
    # Every page has one chain of two clusters: the second lies in another page.
    first = np.arange(pages, dtype=np.int64) * PAGE + rng.integers(2, PAGE // 2, pages)
    second = rng.permutation(pages) * PAGE + rng.integers(PAGE // 2, PAGE, pages)
    table = np.zeros(pages * PAGE, "<u4")
    table[first], table[second] = second, 0x0FFFFFFF
    device = MemoryDevice(table.tobytes())
    allocation = AllocationTable(device, shape_of(device, len(table)), FindingLog())
    chains = allocation.chains(first, np.full(pages, 2, np.int64), exact=True)
    assert not chains.errors
    assert chains.start.reshape(-1, 2).tolist() == np.stack([first, second], 1).tolist()
    assert chains.logical.tolist() == [0, 1] * pages


def test_reading_ahead_of_one_chain_is_not_that_of_another() -> None:
    device = CounterDevice(MemoryDevice(bytes(500 * PAGE * 4)))
    cache = PageCache(device, shape_of(device, 500 * PAGE), FindingLog())
    pages = np.array([400, 0, 200, 0, 400])
    cache.look(pages[2:3] * PAGE + 5)
    device.reset()
    until = np.array([402, 0, 263, 1, 401])  # the page in the middle is there, and what comes after it not asked for
    _, _, there, failed = cache.look(pages * PAGE + 9, until)
    assert there.all()
    assert not failed
    assert device.bytes == (2 + 3) * PAGE * 4


@pytest.mark.parametrize("budget", [1 << 16, 1 << 20])
def test_devices_with_a_small_budget(budget: int) -> None:
    volume = ForgedFat(32, clusters=70000, fats=2)
    order = np.random.default_rng(3).permutation(60000)[:5000] + 10
    data = content(5000 * 512, 9)
    volume.root = entry(b"A       BIN", volume.file(data, *order.tolist()), len(data))
    device = MemoryDevice(bytes(volume.image()))
    device.batch_budget = budget
    filesystem = FatParser().open(device, FindingLog())
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == data
    assert browse(filesystem)["/A.BIN"].error == ""


def test_threads_share_a_volume() -> None:
    volume = ForgedFat(32, clusters=70000)
    rng = np.random.default_rng(8)
    free = rng.permutation(69000) + 10
    datas = {}
    for i in range(15):
        mine = free[i * 300 : (i + 1) * 300]
        datas[f"F{i:07}"] = content(300 * 512, i)
        volume.root += entry(b"F%07d   " % i, volume.file(datas[f"F{i:07}"], *mine.tolist()), 300 * 512)
    filesystem = volume.open()
    wrong: list[str] = []

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).permutation(15).tolist():
            name = f"F{i:07}"
            if read_all(filesystem.open(find(filesystem, name))) != datas[name]:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("bits", [12, 16, 32])
@pytest.mark.parametrize("seed", range(6))
def test_any_table_is_followed_as_a_plain_walk_would(bits: int, seed: int) -> None:
    # Random tables, sound and not, against a walk that goes cluster by cluster. Chains may cross and come back.
    rng = np.random.default_rng(seed)
    clusters = 4000 if bits == 12 else 9000
    mask = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}[bits]
    table = np.arange(1, clusters + 3)
    for where in rng.integers(2, clusters + 2, clusters // 20 if seed % 2 else 30).tolist():
        table[where] = rng.choice([0, 1, mask, mask - 8, *rng.integers(2, clusters + 2, 12).tolist()])
    volume = ForgedFat(bits, clusters=clusters)
    volume.entries = {0: mask & ~0xFF | 0xF8, 1: mask, **{c: int(table[c]) for c in range(2, clusters + 2)}}
    device = MemoryDevice(volume.fat(volume.entries))
    shape = TableShape(bits, mask, clusters, (0,), device.size, mask - 8, mask - 7)
    starts = rng.integers(2, clusters + 2, 200 if seed < 3 else 40)
    wanted = rng.integers(1, 600, len(starts))
    chains = AllocationTable(device, shape, FindingLog()).chains(starts, wanted, exact=True)
    for i, (cluster, limit) in enumerate(zip(starts.tolist(), wanted.tolist(), strict=True)):
        walked: list[int] = []
        good = True
        while good and len(walked) < limit:
            walked.append(cluster)
            cluster = int(table[cluster])
            good = (2 <= cluster < clusters + 2 and cluster not in walked) or len(walked) == limit
        rows = np.flatnonzero(chains.owner == i)
        found = [c for r in rows for c in range(int(chains.start[r]), int(chains.start[r] + chains.count[r]))]
        if i in chains.errors and "crosses" in str(chains.errors[i]):
            assert found == walked[: len(found)]
            continue
        assert found == walked
        assert (i in chains.errors) == (len(walked) < limit)
        assert chains.logical[rows].tolist() == np.cumsum([0, *chains.count[rows].tolist()])[:-1].tolist()


def test_entries_as_stored() -> None:
    for bits, mask in ((12, 0xFFF), (16, 0xFFFF), (32, 0xFFFFFFFF)):
        volume = ForgedFat(bits, clusters=300)
        volume.entries.update({1: mask & 0xABCDEF12, 7: mask & 0x13579BDF, 8: mask & 0x2468ACE0})
        device = MemoryDevice(volume.fat(volume.entries))
        shape = TableShape(bits, mask, 300, (0,), device.size, mask - 8, mask - 7)
        cache = PageCache(device, shape, FindingLog())
        assert [cache.entry(c) for c in (1, 7, 8)] == [volume.entries[c] for c in (1, 7, 8)]
        assert cache.following(np.array([7, 8, 0, 1, 302])).tolist()[:2] == [volume.entries[7], volume.entries[8]]
