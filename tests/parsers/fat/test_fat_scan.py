"""The enumeration in bulk: equal to the plain walk whatever the volume holds, and each directory read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileRows, FileSystem, ScanBatch, TimeColumn
from pseudomount.filesystem.scan import scan_by_walk
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import CounterDevice, MemoryDevice
from pseudomount_fat import ExfatParser, FatParser
from tests.parsers.fat.test_fat_hostile import IMAGES
from tests.support.fat import ForgedFat, entry, ids, long_entries, messages
from tests.support.fat_exfat import ForgedExfat, entry_set

COLUMNS = [name for name in FileRows.__dataclass_fields__ if name not in ("extra", "errors")]


class Found:
    """What a scan gave: files with all their columns, names, errors of directories."""

    def __init__(self, parts: Iterable[ScanBatch]) -> None:
        self.files: dict[int, dict[str, Any]] = {}
        self.links: Counter[tuple[int, int, bytes, int, bool]] = Counter()
        self.errors: dict[int, str] = {}
        self.deleted: set[int] = set()
        self.done: list[float] = []
        for part in parts:
            for file, row in as_rows(part.files).items():
                assert file not in self.files
                self.files[file] = row
            self.deleted.update(part.files.file[part.deleted].tolist())
            links = part.links
            columns = (links.parent.tolist(), links.file.tolist(), links.name, links.type.tolist())
            self.links.update(zip(*columns, links.deleted.tolist(), strict=True))
            self.errors.update((file, str(error)) for file, error in part.errors.items())
            self.done.append(part.done)

    def live(self) -> tuple[object, ...]:
        """All but what was deleted."""
        files = {file: row for file, row in self.files.items() if file not in self.deleted}
        return files, Counter({link: n for link, n in self.links.items() if not link[4]}), self.errors


def as_rows(rows: FileRows) -> dict[int, dict[str, Any]]:
    """File → all that is known of it, or its error."""
    result: dict[int, dict[str, Any]] = {}
    for i, file in enumerate(rows.file.tolist()):
        if i in rows.errors:
            result[file] = {"error": str(rows.errors[i])}
            continue
        columns = {name: getattr(rows, name) for name in COLUMNS} | dict(rows.extra)
        result[file] = {
            name: column.exact(i) if isinstance(column, TimeColumn) else (column.dtype, column[i].item())
            for name, column in columns.items()
        }
    return result


def opened(device: BlockDevice) -> FileSystem | None:
    """By whichever parser takes it."""
    for parser in (ExfatParser(), FatParser()):
        try:
            return parser.open(device, FindingLog("forged"))
        except PseudomountError:
            continue
    return None


def assert_as_walked(image: bytes) -> int:
    """Compares, all columns, links and errors and what was noted on the way; gives how many names there were."""
    one, other = opened(MemoryDevice(image)), opened(MemoryDevice(image))
    if one is None or other is None:
        return 0
    found, walked = Found(one.scan()), Found(scan_by_walk(other, streams=False))
    assert found.files == walked.files
    assert found.links == walked.links
    assert found.errors == walked.errors
    assert set(messages(one.findings)) == set(messages(other.findings))
    assert found.done == sorted(found.done)
    every = Found(one.scan(deleted=True))
    assert every.live() == found.live()
    gone = np.array(sorted(every.deleted), np.uint64)
    assert as_rows(one.rows(gone)) == {file: every.files[file] for file in gone.tolist()}
    return len(found.links)


@pytest.mark.parametrize("kind", IMAGES)
def test_sound(kind: str) -> None:
    assert assert_as_walked(IMAGES[kind]()) in (24, 18)


@pytest.mark.parametrize("kind", IMAGES)
def test_damaged(kind: str) -> None:
    names = 0
    for seed in range(60):
        image = bytearray(IMAGES[kind]())
        rng = np.random.default_rng([seed, 7, ord(kind[-1])])
        used = np.flatnonzero(np.frombuffer(image, np.uint8))
        used = used[used >= 512 if kind != "exfat" else used >= 12 * 512]
        for _ in range(int(rng.integers(1, 40))):
            at = int(rng.choice(used))
            if rng.random() < 0.5:
                image[at] ^= 1 << int(rng.integers(0, 8))
            else:
                source = int(rng.choice(used)) & ~31
                image[at & ~31 : (at & ~31) + 32] = image[source : source + 32]
        names += assert_as_walked(bytes(image))
    assert names > 200


def test_directories_that_claim_each_other() -> None:
    volume = ForgedFat(16)
    volume.root = entry(b"A          ", 50, attributes=0x10) + entry(b"B          ", 50, attributes=0x10)
    inside = entry(b"C          ", 60, attributes=0x10) + entry(b"FILE       ", 70, 5)
    volume.file(inside, 50)
    volume.file(entry(b"D          ", 50, attributes=0x10) + entry(b"LEAF       "), 60)
    volume.chain(70)
    assert assert_as_walked(bytes(volume.image())) == 2 + 2 * 2 + 2 + 2
    found = Found(volume.open().scan())
    assert len(found.files) == 1 + 2 + 2 + 2


def test_sets_that_a_cluster_cuts() -> None:
    volume = ForgedExfat(clusters=300)
    f, c = volume.free, volume.cluster
    sets = [entry_set(f"name number {i:03}", f + 100, 5, check=1 if i % 4 == 1 else None) for i in range(60)]
    listing = b"".join(sets)
    clusters = [f + 2 * i for i in range(-(-len(listing) // c))]
    volume.root = entry_set("dir", volume.file(listing, *clusters), len(clusters) * c, attributes=0x10)
    volume.root += entry_set("flat", f + 120, len(clusters) * c, attributes=0x10, contiguous=True)
    volume.put(listing, *range(f + 120, f + 120 + len(clusters)))
    for i in range(len(clusters)):  # what the FAT says of a contiguous directory's clusters is a leftover
        volume.entries[f + 120 + i] = f + 150 + i
        volume.data[f + 150 + i] = entry_set("another", f + 99, 7)[32:]
    assert assert_as_walked(bytes(volume.image())) == 122


@pytest.mark.parametrize("kind", ["fat16", "exfat"])
def test_each_directory_is_read_once(kind: str) -> None:
    device = CounterDevice(MemoryDevice(IMAGES[kind]()))
    filesystem = opened(device)
    assert filesystem is not None
    device.reset()
    found = Found(filesystem.scan(deleted=True))
    assert device.ranges <= 20
    assert found.deleted


def test_a_table_that_a_root_lies_all_over_is_read_in_few_parts() -> None:
    volume = ForgedFat(32, clusters=600_000, sector=512)
    chain = np.random.default_rng(5).permutation(np.arange(1000, 600_000, 4096))[:100].tolist()
    volume.entries[2] = chain[0]
    volume.chain(*chain)
    pieces = b"".join(entry(b"F%07d   " % i, 0) for i in range(16 * 100))
    volume.file(pieces, *chain)
    volume.root = (entry(b"LABEL      ", attributes=8) + pieces[:480]).replace(b"F0", b"E0")
    device = CounterDevice(MemoryDevice(bytes(volume.image())))
    filesystem = FatParser().open(device, FindingLog())
    device.reset()
    assert len(filesystem.children(ids(0))) == 16 * 101 - 1
    assert device.ranges <= 101 + 20
    assert device.bytes <= 8 << 20


# -- deleted -----------------------------------------------------------------------------------------------------------


def gone(raw: bytes) -> bytes:
    """Entries of FAT with their marks."""
    marked = bytearray(raw)
    marked[::32] = b"\xe5" * len(marked[::32])
    return bytes(marked)


def cleared(raw: bytes) -> bytes:
    """Entries of exFAT, no longer in use."""
    marked = bytearray(raw)
    marked[::32] = bytes(kind & 0x7F for kind in marked[::32])
    return bytes(marked)


def deleted_names(filesystem: FileSystem) -> dict[str, int]:
    """Name → id."""
    found = Found(filesystem.scan(deleted=True))
    return {link[2].decode(): link[1] for link in found.links if link[4]}


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_names_of_deleted_files(bits: int) -> None:
    volume = ForgedFat(bits, clusters={12: 400, 16: 5000, 32: 5000}[bits], per_cluster=8)
    text = "A long name of a file.document"
    volume.root = entry(b"LABEL      ", attributes=8)
    volume.root += gone(long_entries(text, b"ALONGN~1DOC") + entry(b"ALONGN~1DOC", 50, 10))
    volume.root += gone(entry(b"SHORT   TXT", 51, 10)) + gone(entry(b"LOWER   TXT", 52, 10, case=0x18))
    volume.root += gone(long_entries("thirteen chrs", b"THIRTE~1   ") + entry(b"THIRTE~1   ", 53, 10))
    volume.root += gone(long_entries("x" * 26, b"XXXXXX~1   ") + entry(b"XXXXXX~1   ", 54, 10))
    volume.root += gone(long_entries("Wrong name.txt", b"WRONGN~1TXT", check=7) + entry(b"WRONGN~1TXT", 55, 10))
    volume.root += gone(long_entries("Other name.txt", b"ATHERN~1TXT") + entry(b"ATHERN~1TXT", 55, 10))
    volume.root += gone(long_entries("++ [x].y", b"_____X~1Y  ") + entry(b"_____X~1Y  ", 56, 10))
    volume.root += gone(long_entries("été", b"\x90T\x82       ".ljust(11)) + entry(b"\x90T\x82        ", 57, 10))
    volume.root += gone(long_entries("été two", b"*T\x82TWO     ") + entry(b"*T\x82TWO     ", 57, 10))
    volume.root += gone(entry(b"BAD*CHARTXT", 58, 10) + entry(b"FAR     TXT", 0xFFF0, 10))
    volume.root += gone(entry(b"VOLUME     ", attributes=8)) + bytes([0xE5] * 32) + entry(b"ALIVE      ")
    volume.root += gone(long_entries("orphan of none", b"ORPHAN~1   ")) + entry(b"AFTER      ")
    names = deleted_names(volume.open())
    wanted = [
        text,
        "_HORT.TXT",
        "_ower.txt",
        "thirteen chrs",
        "x" * 26,
        "_RONGN~1.TXT",
        "_THERN~1.TXT",
        "++ [x].y",
        "été",
        "_TéTWO",
    ]
    assert list(names) == wanted
    assert all(file >> 63 for file in names.values())


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_content_of_deleted_files(bits: int) -> None:
    volume = ForgedFat(bits, clusters={12: 400, 16: 5000, 32: 5000}[bits], root_entries=64)
    c = volume.cluster
    for cluster in range(40, 50):
        volume.data[cluster] = b"%d" % cluster * (c // 2)
    volume.root = gone(entry(b"FREE       ", 40, 3 * c - 5) + entry(b"TAKEN      ", 43, 3 * c))
    volume.root += gone(entry(b"EMPTY      ", 0, 0) + entry(b"OUTSIDE    ", volume.clusters, 5 * c))
    volume.root += gone(entry(b"NOWHERE    ", 0, 5)) + entry(b"OWNER      ", volume.chain(45), 3)
    filesystem = volume.open()
    file = deleted_names(filesystem)
    with filesystem.open(file["_REE"]) as content:
        assert content.read(0, content.size) == b"".join(b"%d" % k * (c // 2) for k in (40, 41, 42))[:-5]
    assert [(f.severity.name, f.file) for f in filesystem.findings] == [("DEGRADED", file["_REE"])]
    assert filesystem.open(file["_MPTY"]).size == 0
    with pytest.raises(PseudomountError, match="its clusters have been given to other files"):
        filesystem.open(file["_AKEN"])
    for name in ("_UTSIDE", "_OWHERE"):
        with pytest.raises(PseudomountError, match="its clusters lie outside the volume"):
            filesystem.open(file[name])
    runs = filesystem.runs(ids(*file.values()))
    assert runs.query.tolist() == [0]
    assert runs.position.tolist() == [volume.position(40)]
    assert runs.length.tolist() == [3 * c]
    assert runs.errors.keys() == {1, 3, 4}
    live = filesystem.children(ids(0))
    assert live.name.tolist() == [b"OWNER"]
    assert filesystem.rows(ids(*(number & ~(1 << 63) for number in file.values()))).errors.keys() == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("bits", [16, 32])
def test_deleted_directories(bits: int) -> None:
    volume = ForgedFat(bits, clusters=5000)

    def dots(own: int, above: int = 0) -> bytes:
        return entry(b".          ", own, attributes=0x10) + entry(b"..         ", above, attributes=0x10)

    volume.root = gone(b"".join(entry(b"%c          " % k, 50 + i, attributes=0x10) for i, k in enumerate(b"ABCD")))
    volume.root = volume.root.replace(b"\xe5  ", b"\xe5DI")  # not all the same
    volume.data[50] = dots(50) + gone(entry(b"MARKED     ", 70, 5)) + entry(b"NOT        ", 71, 5)
    volume.data[50] += gone(entry(b"SUB        ", 60, attributes=0x10)) + entry(b"LOOP       ", 50, attributes=0x10)
    volume.data[60] = dots(60, 50) + entry(b"LEAF       ", 72, 5)
    volume.data[51] = dots(99) + entry(b"WRONG      ", 70, 5)  # names another cluster
    volume.file(dots(52) + entry(b"TAKEN      ", 70, 5), 52)  # in use again
    volume.data[53] = entry(b"NODOTS     ", 70, 5)
    volume.data[71] = b"hello"
    filesystem = volume.open()
    found = Found(filesystem.scan(deleted=True))
    names = {link[2].decode(): link for link in found.links if link[4]}
    assert set(names) == {"_DI", "_ARKED", "NOT", "_UB", "LOOP", "LEAF"}
    assert names["LEAF"][0] == names["_UB"][1]
    assert filesystem.open(names["NOT"][1]).read(0, 5) == b"hello"
    assert not found.errors
    assert "deleted" in str(filesystem.children(ids(names["_UB"][1])).errors[0])


def test_deleted_in_exfat() -> None:
    volume = ForgedExfat(clusters=400)
    f, c = volume.free, volume.cluster
    data = [bytes([65 + i]) * c for i in range(4)]
    for i, piece in enumerate(data):
        volume.data[f + 100 + i] = piece
        volume.data[f + 110 + 2 * i] = piece
    volume.root = cleared(entry_set("Contiguous é gone.bin", f + 100, 3 * c - 1, contiguous=True, valid=c))
    volume.root += cleared(entry_set("chained", f + 110, 4 * c))
    volume.chain(*range(f + 110, f + 118, 2))
    volume.used -= set(range(f + 110, f + 118))
    volume.root += cleared(entry_set("guessed", f + 100, 2 * c)) + cleared(entry_set("damaged", f + 100, 5, check=5))
    volume.root += cleared(entry_set("taken", f + 200, 2 * c, contiguous=True)) + entry_set("alive", f + 201, 5)
    volume.chain(f + 201)
    volume.root += cleared(entry_set("dir", f + 210, 2 * c, attributes=0x10, contiguous=True))
    many = b"".join(cleared(entry_set(f"inside number {i}", f + 100, 7)) for i in range(12)) + entry_set(
        "not", f + 100, 9
    )
    volume.data[f + 210], volume.data[f + 211] = many[:c], many[c:]
    volume.root += cleared(entry_set("junk", f + 213, c, attributes=0x10))
    volume.data[f + 213] = b"\x05" * 96
    filesystem = volume.open()
    names = deleted_names(filesystem)
    inside = {f"inside number {i}" for i in range(12)}
    assert set(names) == {"Contiguous é gone.bin", "chained", "guessed", "taken", "dir", "junk", "not"} | inside
    with filesystem.open(names["Contiguous é gone.bin"]) as content:
        assert content.read(0, content.size) == (data[0] + bytes(2 * c))[:-1]
    with filesystem.open(names["chained"]) as content:
        assert content.read(0, content.size) == b"".join(data)
    with filesystem.open(names["guessed"]) as content:
        assert content.read(0, content.size) == data[0] + data[1]
    with pytest.raises(PseudomountError, match="its clusters have been given to other files"):
        filesystem.open(names["taken"])
    assert filesystem.open(names["inside number 11"]).read(0, 7) == b"A" * 7
    told = [f for f in filesystem.findings if f.file is not None and f.file >> 63]
    assert len(told) == 4
    assert all(f.severity.name == "DEGRADED" and "is a guess" in f.message for f in told)


def test_deleted_directories_that_claim_one_cluster_are_read_once() -> None:
    volume = ForgedFat(16, root_entries=2048)
    volume.root = gone(b"".join(entry(b"D%07d   " % i, 50, attributes=0x10) for i in range(2000)))
    volume.data[50] = entry(b".          ", 50, attributes=0x10) + entry(b"..         ", 0, attributes=0x10)
    volume.data[50] += entry(b"FILE       ", 60, 5) * 14
    found = Found(volume.open().scan(deleted=True))
    assert len(found.links) == 2000 + 14
