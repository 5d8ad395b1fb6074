"""Forged and broken volumes: whatever they hold, only PseudomountErrors leave, in bounded work and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileSystem
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import FaultDevice, MemoryDevice
from pseudomount_fat import ExfatParser, FatParser
from tests.support.fat import BAD, ForgedFat, content, entry, find, ids, long_entries
from tests.support.fat_exfat import ForgedExfat, entry_set


def fat_image(bits: int) -> bytes:
    volume = ForgedFat(bits, clusters={12: 400, 16: 4200, 32: 600}[bits])
    data = content(9 * 512, bits)
    short = b"LONGNA~1BIN"
    listing = entry(b".          ", 40, attributes=0x10) + entry(b"..         ", 0, attributes=0x10)
    listing += b"".join(entry(b"F%07d   " % i, volume.file(b"%d" % i, 100 + i), 3) for i in range(20))
    listing += entry(b"SUB        ", volume.file(entry(b"LEAF       "), 60), attributes=0x10)
    below = entry(b".          ", 70, attributes=0x10) + entry(b"..         ", 40, attributes=0x10)
    volume.data[70] = below + entry(b"\xe5HERE   TXT", 71, 600) + entry(b"ALIVE   TXT", 74, 100)
    listing += entry(b"\xe5ONE       ", 70, attributes=0x10) + entry(b"\xe5ONE    BIN", 80, 3000)
    gone = bytearray(
        long_entries("Another long name, of a deleted file", b"ANOTHE~1BIN") + entry(b"\xe5NOTHE~1BIN", 90, 99)
    )
    gone[::32] = b"\xe5" * len(gone[::32])
    listing += bytes(gone)
    volume.root = entry(b"LABEL      ", attributes=8)
    volume.root += long_entries("Long name of a file.bin", short)
    volume.root += entry(short, volume.file(data, 9, 8, 300, 12, 13, 14, 15, 20, 19), len(data))
    volume.root += entry(b"DIR        ", volume.file(listing, 40, 43), attributes=0x10)
    return bytes(volume.image())


def exfat_image() -> bytes:
    volume = ForgedExfat(clusters=300)
    f, c = volume.free, volume.cluster
    data = content(5 * c)
    volume.root = entry_set("a.bin", volume.file(data, f, f + 5, f + 6, f + 2, f + 9), len(data))
    volume.root += entry_set("b.bin", volume.put(data, *range(f + 20, f + 25)), len(data), contiguous=True, valid=c + 3)
    listing = b"".join(entry_set(f"file {i}", volume.file(b"%d" % i, f + 50 + i), 1) for i in range(15))
    gone = bytearray(entry_set("deleted.bin", f + 100, 5 * c, contiguous=True))
    gone += entry_set("deleted", f + 110, c, contiguous=True, attributes=0x10)
    gone[::32] = bytes(kind & 0x7F for kind in gone[::32])
    volume.data[f + 110] = entry_set("below", f + 120, 100) + bytes(gone[: len(gone) // 2])
    volume.root += bytes(gone)
    volume.root += entry_set("dir", volume.file(listing, f + 30, f + 33), 2 * c, attributes=0x10)
    return bytes(volume.image())


IMAGES: dict[str, Callable[[], bytes]] = {
    "fat12": lambda: fat_image(12),
    "fat16": lambda: fat_image(16),
    "fat32": lambda: fat_image(32),
    "exfat": exfat_image,
}


def exercise(device: BlockDevice) -> int:
    """Everything that a caller does; gives how many entries there were."""
    log = FindingLog()
    parser = ExfatParser if ExfatParser().probe(device) is not None else FatParser
    FatParser().probe(device)
    filesystem = parser().open(device, log)
    count = 0
    visited = {0}
    level = np.zeros(1, np.uint64)
    while len(level):
        links = filesystem.children(level)
        rows = filesystem.rows(links.file)
        filesystem.runs(links.file)
        filesystem.lookup(links.parent, links.name.tolist())
        filesystem.readlink(links.file)
        count += len(links)
        for file in links.file[:40].tolist():
            try:
                opened = filesystem.open(file)
                step = max(opened.size - 3000, 0)
                opened.read_many([0, step], [min(3000, opened.size), min(3000, opened.size - step)])
                opened.extents(0, min(opened.size, 1 << 20))
            except PseudomountError:
                continue
        fresh = [file for file in links.file[(links.type == 2) & (rows.type == 2)].tolist() if file not in visited]
        visited.update(fresh)
        level = np.array(fresh, np.uint64)
        assert count < 200_000
    scanned(filesystem)
    return count


def scanned(filesystem: FileSystem) -> int:
    """The whole enumeration, with what was deleted, which is asked about; gives how many names are not deleted."""
    names, live = 0, 0
    for part in filesystem.scan(deleted=True):
        names += len(part.links)
        live += int((~part.links.deleted).sum())
        assert names < 200_000
        gone = part.files.file[part.deleted]
        filesystem.rows(gone)
        filesystem.runs(gone)
        for file in gone[:40].tolist():
            try:
                opened = filesystem.open(file)
                opened.read(max(opened.size - 3000, 0), min(3000, opened.size))
            except PseudomountError:
                continue
    return live


def tolerant(device: BlockDevice) -> None:
    """Runs `exercise`; an error of ours is an answer, any other a bug."""
    try:
        exercise(device)
    except PseudomountError:
        return


@pytest.mark.parametrize("kind", IMAGES)
def test_the_images_themselves_are_sound(kind: str) -> None:
    device = MemoryDevice(IMAGES[kind]())
    assert exercise(device) in (24, 18)
    parser = ExfatParser if kind == "exfat" else FatParser
    assert scanned(parser().open(device, FindingLog())) == exercise(device)


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("seed", range(40))
def test_mutations(kind: str, seed: int) -> None:
    image = bytearray(IMAGES[kind]())
    rng = np.random.default_rng([seed, len(kind), ord(kind[-1])])
    used = np.flatnonzero(np.frombuffer(image, np.uint8))
    for _ in range(int(rng.integers(1, 60))):
        at = int(rng.choice(used)) if rng.random() < 0.7 else int(rng.integers(0, 512))
        how = rng.random()
        if how < 0.4:
            image[at] = int(rng.integers(0, 256))
        elif how < 0.6:
            image[at] ^= 1 << int(rng.integers(0, 8))
        elif how < 0.8:
            image[at : at + 4] = bytes(rng.choice([0, 0xFF, 0x7F, 0x80], 4).astype(np.uint8))[: len(image) - at]
        else:
            source = int(rng.integers(0, len(image) - 64))
            image[at : at + 32] = image[source : source + 32][: len(image) - at]
    tolerant(MemoryDevice(bytes(image)))


@pytest.mark.parametrize("kind", IMAGES)
def test_every_byte_of_the_boot_sector(kind: str) -> None:
    image = bytearray(IMAGES[kind]())
    for at in range(128):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            old, image[at] = image[at], value
            for parser in (FatParser(), ExfatParser()):
                try:
                    parser.open(MemoryDevice(bytes(image)), FindingLog()).children(ids(0))
                except PseudomountError:
                    continue
            image[at] = old


@pytest.mark.parametrize("kind", IMAGES)
def test_images_cut_off_anywhere(kind: str) -> None:
    image = IMAGES[kind]()
    for length in [0, 1, 511, 512, 513, 1024, 3000, *np.linspace(4096, len(image), 40).astype(int).tolist()]:
        tolerant(MemoryDevice(image[:length]))


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("seed", range(8))
def test_devices_that_fail(kind: str, seed: int) -> None:
    inner = MemoryDevice(IMAGES[kind]())
    tolerant(FaultDevice(inner, seed=seed, error_rate=0.02 * (seed + 1)))
    tolerant(FaultDevice(inner, seed=seed, short_rate=0.02, flip_rate=0.05))


def test_an_unreadable_piece_of_a_directory_costs_that_piece() -> None:
    for kind in ("fat16", "fat32"):
        volume = ForgedFat(int(kind[3:]), clusters=5000)
        pieces = [b"".join(entry(b"F%d%06d   " % (k, i)) for i in range(16)) for k in range(5)]
        volume.root = entry(b"DIR        ", volume.file(b"".join(pieces), 50, 60, 70, 80, 90), attributes=0x10)
        image = bytes(volume.image())
        device = FaultDevice(MemoryDevice(image), errors=[(volume.position(70), 512)])
        filesystem = FatParser().open(device, FindingLog())
        links = filesystem.children(ids(find(filesystem, "DIR"), 0))
        names = [name.decode() for name in links.name]
        assert names == [*(f"F{k}{i:06}" for k in (0, 1, 3, 4) for i in range(16)), "DIR"]
        assert links.errors.keys() == {0}


def test_an_unreadable_entry_costs_that_file() -> None:
    volume = ForgedFat(16, clusters=5000)
    entries = b"".join(entry(b"F%07d   " % i, 0, 0) for i in range(64))
    volume.root = entries
    device = FaultDevice(MemoryDevice(bytes(volume.image())))
    filesystem = FatParser().open(device, FindingLog())
    files = filesystem.children(ids(0)).file
    bad = FaultDevice(MemoryDevice(bytes(volume.image())), errors=[(volume.root_start + 512, 512)])
    filesystem = FatParser().open(bad, FindingLog())
    rows = filesystem.rows(np.append(files[:4], files[20]))
    assert 4 in rows.errors
    alone = filesystem.rows(files[20:21])
    assert alone.errors.keys() == {0}


def measured(work: Callable[[], object]) -> int:
    """Peak of bytes that Python and numpy hold while it works."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many_into_one_chain() -> FileSystem:
    """Thousands of directories whose clusters are those of one chain of 16 MiB."""
    volume = ForgedFat(16, clusters=40000, root_entries=8192)
    chain = list(range(10000, 39000))
    full = b"".join(entry(b"F%07d   " % i) for i in range(16))
    volume.file(full * len(chain), *chain)
    volume.root = b"".join(entry(b"D%07d   " % i, chain[i % 7], attributes=0x10) for i in range(4000))
    return volume.open()


def test_memory_follows_the_disk_and_not_what_it_claims() -> None:
    filesystem = many_into_one_chain()
    directories = filesystem.children(ids(0)).file
    links = None

    def work() -> None:
        nonlocal links
        links = filesystem.children(directories)

    assert measured(work) < 400 << 20
    assert links is not None
    assert len(links) <= 40000 * 16


def test_a_claimed_size_takes_no_memory() -> None:
    volume = ForgedExfat()
    f = volume.free
    sizes = [1 << 40, 1 << 62, (1 << 63) - 1]
    for i, size in enumerate(sizes):
        volume.root += entry_set(f"a{i}", volume.file(b"x", f + i), size)
        volume.root += entry_set(f"b{i}", f + i, size, contiguous=True)
    filesystem = volume.open()
    links = filesystem.children(ids(0))

    def work() -> None:
        filesystem.runs(links.file)
        for file in links.file.tolist():
            opened = filesystem.open(file)
            opened.extents(0, 1 << 30)
            assert opened.read(0, 1) == b"x"

    assert measured(work) < 32 << 20


def test_a_million_steps_back() -> None:
    # Each cluster's successor is the one before it: as many runs as clusters, followed in one go.
    volume = ForgedFat(32, clusters=500_000, sector=512)
    chain = np.arange(499_000, 10, -1)
    volume.entries.update(zip(chain[:-1].tolist(), chain[1:].tolist(), strict=True))
    volume.entries[int(chain[-1])] = 0x0FFFFFFF
    volume.root = entry(b"BACK       ", int(chain[0]), len(chain) * 512)
    volume.root += entry(b"ROUND      ", int(chain[5]), 0xFFFFFFFF)
    volume.data[int(chain[-1])] = b"the end"
    filesystem = volume.open()
    file = find(filesystem, "BACK")
    runs = filesystem.runs(ids(file))
    assert not runs.errors
    assert len(runs) == len(chain)
    assert filesystem.open(file).read((len(chain) - 1) * 512, 7) == b"the end"
    volume.entries[int(chain[-1])] = int(chain[7])
    filesystem = volume.open()
    runs = filesystem.runs(ids(find(filesystem, "ROUND")))
    assert "comes back to itself" in str(runs.errors[0])
    assert len(runs) == len(chain) - 5


@pytest.mark.parametrize("files", [1, 200])
def test_a_small_cycle_is_not_walked_as_far_as_the_size_goes(files: int) -> None:
    volume = ForgedFat(16, clusters=60_000)
    volume.entries.update({50: 60, 60: 70, 70: 60})
    volume.root = b"".join(entry(b"F%07d   " % i, 50, 0xFFFFFFFF) for i in range(files))
    filesystem = volume.open()
    links = filesystem.children(ids(0))
    filesystem.runs(links.file)  # the table's pages are in memory from here on
    assert measured(lambda: filesystem.runs(links.file)) < 1 << 20


def test_a_forged_table_of_bad_clusters() -> None:
    for bits in (12, 16, 32):
        volume = ForgedFat(bits, clusters=1000)
        volume.entries = dict.fromkeys(range(1002), BAD[bits])
        volume.root = b"".join(entry(b"F%07d   " % i, 2 + i, 1 << 20) for i in range(16))
        filesystem = volume.open()
        links = filesystem.children(ids(0))
        runs = filesystem.runs(links.file)
        assert len(runs.errors) == len(links)
