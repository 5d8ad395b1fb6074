"""exFAT volumes forged after the specification."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import CorruptionError, PathNotFoundError, UnsupportedError
from pseudomount.filesystem import FileType, RunKind
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing.devices import CounterDevice, FaultDevice, MemoryDevice
from pseudomount_fat import ExfatParser
from tests.support.fat import Sparse, browse, content, find, ids, messages, names_of, read_all
from tests.support.fat_exfat import BAD, END, ForgedExfat, entry_set


def read(volume: ForgedExfat, *parts: str) -> bytes:
    filesystem = volume.open()
    return read_all(filesystem.open(find(filesystem, *(parts or ("a.bin",)))))


def severities(log: FindingLog) -> list[Severity]:
    return [finding.severity for finding in log]


@pytest.mark.tools("fsck.exfat", "fls", "icat")
def test_the_forgery_is_what_others_take_for_a_sound_volume(tmp_path: Path) -> None:
    volume = ForgedExfat()
    data = content(5 * volume.cluster - 7)
    f = volume.free
    times = b"\0\x60\x5d\x58" * 3 + bytes(5)  # The Sleuth Kit takes an entry without times for none
    first = volume.file(data, f + 9, f + 8, f + 3, f + 12, f + 13)
    volume.root = entry_set("A file of ours.bin", first, len(data), times=times)
    first = volume.put(data, *range(f + 20, f + 25))
    volume.root += entry_set("straight.bin", first, len(data), contiguous=True, times=times)
    path = tmp_path / "image"
    path.write_bytes(volume.image())
    subprocess.run(["fsck.exfat", "-n", path], check=True, capture_output=True)
    listed = subprocess.run(["fls", "-f", "exfat", path], check=True, capture_output=True, text=True).stdout
    for name in ("A file of ours.bin", "straight.bin"):
        line = next(line for line in listed.splitlines() if line.endswith(name))
        inode = line.split()[1].rstrip(":")
        assert subprocess.run(["icat", "-f", "exfat", path, inode], check=True, capture_output=True).stdout == data
    filesystem = volume.open()
    assert names_of(filesystem) == ["A file of ours.bin", "straight.bin"]
    assert read_all(filesystem.open(find(filesystem, "a FILE of ours.bin"))) == data
    assert read_all(filesystem.open(find(filesystem, "straight.bin"))) == data
    assert list(filesystem.findings) == []
    match = ExfatParser().probe(filesystem.device)
    assert match is not None
    assert (match.filesystem, match.label, match.uuid, match.score) == ("exfat", "forged", "CAFE-1234", 100)


# -- content -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contiguous", [True, False])
def test_what_was_never_written_reads_as_zeros(contiguous: bool) -> None:
    volume = ForgedExfat()
    f, c = volume.free, volume.cluster
    data = content(4 * c)
    clusters = range(f, f + 4) if contiguous else (f + 5, f + 2, f + 9, f + 8)
    first = (volume.put if contiguous else volume.file)(data, *clusters)
    cases = {"none": 0, "byte": 1, "odd": c + 77, "edge": 2 * c, "most": 4 * c - 11, "all": 4 * c - 10}
    size = 4 * c - 10
    for name, valid in cases.items():
        volume.root += entry_set(name, first, size, valid=valid, contiguous=contiguous)
    filesystem = volume.open()
    for name, valid in cases.items():
        file = find(filesystem, name)
        assert read_all(filesystem.open(file)) == data[:valid] + bytes(size - valid), name
        runs = filesystem.runs(ids(file))
        assert int(runs.length[runs.kind == RunKind.UNWRITTEN].sum()) == (4 * c - valid if valid < size else 0)
        assert int(runs.length.sum()) == 4 * c
        assert filesystem.rows(ids(file)).extra["valid_data_length"].tolist() == [valid]
    assert {s.error for s in browse(filesystem).values()} == {""}  # runs and open agree


def test_the_fat_says_nothing_of_a_contiguous_file() -> None:
    volume = ForgedExfat()
    f = volume.free
    data = content(3 * volume.cluster)
    volume.put(data, f, f + 1, f + 2)
    volume.entries.update({f: f + 50, f + 1: BAD, f + 2: 0})
    volume.root = entry_set("a.bin", f, len(data), contiguous=True)
    assert read(volume) == data


def test_a_contiguous_file_that_leaves_the_volume() -> None:
    volume = ForgedExfat()
    data = content(2 * volume.cluster)
    first = volume.put(data, volume.clusters, volume.clusters + 1)
    volume.root = entry_set("a.bin", first, 100 * volume.cluster, contiguous=True)
    volume.root += entry_set("b.bin", volume.clusters + 2, 5, contiguous=True)
    filesystem = volume.open()
    device = filesystem.open(find(filesystem, "a.bin"))
    assert device.read(0, len(data)) == data
    with pytest.raises(CorruptionError, match="outside the volume"):
        device.read(len(data) - 1, 2)
    with pytest.raises(CorruptionError):
        filesystem.open(find(filesystem, "b.bin"))


@pytest.mark.parametrize("broken", [0, 1, BAD, 502, 0xFFFFFFFF, "loop"])
def test_chains_that_break_off(broken: int | str) -> None:
    volume = ForgedExfat()
    f, c = volume.free, volume.cluster
    data = content(4 * c)
    volume.root = entry_set("a.bin", volume.file(data, f + 4, f + 3, f + 9, f + 7), 4 * c)
    volume.entries[f + 3] = f + 4 if broken == "loop" else int(broken)
    filesystem = volume.open()
    device = filesystem.open(find(filesystem, "a.bin"))
    assert device.read(0, 2 * c) == data[: 2 * c]
    with pytest.raises(CorruptionError):
        device.read(2 * c - 1, 2)
    assert filesystem.runs(ids(find(filesystem, "a.bin"))).errors.keys() == {0}


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_sizes_that_cannot_be(size: int) -> None:
    volume = ForgedExfat()
    f = volume.free
    volume.root = entry_set("a.bin", volume.file(b"x", f), size, contiguous=True)
    volume.root += entry_set("b.bin", f, size) + entry_set("dir", f, size, attributes=0x10)
    volume.root += entry_set("ok", volume.file(b"fine", f + 3), 4)
    filesystem = volume.open()
    links = filesystem.children(ids(0))
    rows = filesystem.rows(links.file)
    assert rows.errors.keys() == (set() if size < 1 << 63 else {0, 1, 2})
    for file in links.file[:2].tolist():
        with pytest.raises(CorruptionError):
            filesystem.open(file).read(size - 10, 10)
    assert filesystem.children(links.file[2:3]).errors.keys() == {0}
    assert read(volume, "ok") == b"fine"


def test_valid_data_past_the_size() -> None:
    volume = ForgedExfat()
    volume.root = entry_set("a.bin", volume.file(b"12345", volume.free), 3, valid=5)
    filesystem = volume.open()
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"123"
    assert Severity.DEGRADED in severities(filesystem.findings)


# -- directories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("shift", range(32))
def test_sets_that_lie_across_clusters(contiguous: bool, shift: int) -> None:
    volume = ForgedExfat(cluster_shift=0)  # 16 entries a cluster
    f = volume.free
    listing = b"\x05".ljust(32, b"\0") * shift  # entries that are not in use
    names = [f"{'n' * (8 * i + 1)}{i}" for i in range(12)]
    for i, name in enumerate(names):
        listing += entry_set(name, volume.file(b"%02d" % i, f + 100 + i), 2)
    count = -(-len(listing) // volume.cluster)
    if contiguous:
        clusters = list(range(f, f + count))
        for cluster in clusters:  # what the FAT has of them must not be looked at
            volume.entries[cluster] = f + 100
        volume.put(listing, *clusters)
    else:
        clusters = [f + 2 * (count - i) for i in range(count)]
        volume.file(listing, *clusters)
    volume.root = entry_set("dir", clusters[0], count * volume.cluster, attributes=0x10, contiguous=contiguous)
    filesystem = volume.open()
    directory = find(filesystem, "dir")
    links = filesystem.children(ids(directory))
    assert [name.decode() for name in links.name] == names
    rows = filesystem.rows(links.file)
    assert not rows.errors
    assert rows.extra["first_cluster"].tolist() == [f + 100 + i for i in range(12)]
    assert [read_all(filesystem.open(file)) for file in links.file.tolist()] == [b"%02d" % i for i in range(12)]
    found = filesystem.lookup(ids(*[directory] * 12), [name.upper().encode() for name in names])
    assert found.file.tolist() == links.file.tolist()
    assert list(filesystem.findings) == []


def test_a_directory_is_as_long_as_its_entry_says() -> None:
    volume = ForgedExfat()
    f = volume.free
    volume.put(entry_set("inside") + b"\x05".ljust(32, b"\0") * 29, f)
    volume.put(entry_set("outside"), f + 1)
    volume.root = entry_set("dir", f, volume.cluster, attributes=0x10, contiguous=True)
    volume.root += entry_set("none", 0, 0, attributes=0x10)
    filesystem = volume.open()
    assert names_of(filesystem, find(filesystem, "dir")) == ["inside"]
    assert names_of(filesystem, find(filesystem, "none")) == []
    rows = filesystem.rows(ids(find(filesystem, "dir"), 0))
    assert rows.type.tolist() == [FileType.DIRECTORY] * 2
    assert rows.size.tolist() == [volume.cluster, -1]


def test_what_is_listed() -> None:
    volume = ForgedExfat(cluster_shift=3)
    vendor = b"\xe0\x01".ljust(32, b"\x77")
    allocation = b"\xe1\x01".ljust(32, b"\0")
    deleted = bytearray(entry_set("deleted"))
    for at in range(0, len(deleted), 32):
        deleted[at] &= 0x7F
    volume.root = b"".join(
        [
            entry_set("plain"),
            bytes(deleted),
            entry_set("with a vendor's extension", extra=vendor + allocation),
            b"\xa0".ljust(32, b"\0"),  # a GUID
            b"\xa5".ljust(32, b"\0"),  # a benign primary entry that nobody knows
            vendor,
            entry_set("lone \ud800 surrogate \U0001f600"),
            entry_set("n" * 255),
            bytes(32),
            entry_set("after the end"),
        ]
    )
    filesystem = volume.open()
    wanted = ["plain", "with a vendor's extension", "lone \ud800 surrogate \U0001f600", "n" * 255]
    assert names_of(filesystem) == wanted
    assert all(find(filesystem, name) for name in wanted)
    assert list(filesystem.findings) == []


def test_sets_that_are_not_whole_are_left_out_with_a_finding() -> None:
    volume = ForgedExfat(cluster_shift=4)
    good = entry_set("good name of two parts")
    no_stream = good[:32] + good[64:]
    no_names = good[:64]
    few = bytes([0x85, 1]) + good[2:]
    many = bytes([0x85, 19]) + good[2:]
    zero = good[:32] + good[32:35] + b"\0" + good[36:]
    long = good[:32] + good[32:35] + b"\xff" + good[36:]
    sep = b"\x05".ljust(32, b"\0")
    bad = [no_stream, no_names, few, many, zero, long]
    volume.root = sep.join([*bad, entry_set("last"), good[:96]])
    filesystem = volume.open()
    assert names_of(filesystem) == ["last"]
    assert severities(filesystem.findings).count(Severity.LOST) == 7


def test_a_set_does_not_reach_from_one_directory_into_another() -> None:
    volume = ForgedExfat(cluster_shift=0)
    f, c = volume.free, volume.cluster
    whole = entry_set("a name of two parts, cut")
    volume.file(b"\x05".ljust(32, b"\0") * 14 + whole[:64], f)
    volume.file(whole[64:] + entry_set("own"), f + 1)
    volume.root = b"".join(entry_set(name, f + i, c, attributes=0x10) for i, name in enumerate("ab"))
    filesystem = volume.open()
    links = filesystem.children(filesystem.children(ids(0)).file)
    assert links.name.tolist() == [b"own"]
    assert severities(filesystem.findings) == [Severity.LOST]


def test_a_wrong_checksum_of_a_set_is_a_finding() -> None:
    volume = ForgedExfat()
    volume.root = entry_set("a.bin", volume.file(b"still", volume.free), 5, check=0x1234) + entry_set("b.bin")
    filesystem = volume.open()
    assert names_of(filesystem) == ["a.bin", "b.bin"]
    assert read(volume) == b"still"
    finding = filesystem.findings[0]
    assert (finding.severity, finding.file) == (Severity.DEGRADED, find(filesystem, "a.bin"))
    assert finding.offset == volume.position(volume.root_cluster) + 96
    assert "checksum" in finding.message


def test_a_wrong_name_hash_is_a_note() -> None:
    volume = ForgedExfat()
    volume.root = entry_set("a.bin", name_hash=1) + entry_set("b.bin")
    filesystem = volume.open()
    assert names_of(filesystem) == ["a.bin", "b.bin"]
    assert severities(filesystem.findings) == [Severity.NOTE]
    assert find(filesystem, "A.BIN")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x"])
def test_names_that_would_lead_elsewhere(name: str) -> None:
    volume = ForgedExfat()
    volume.root = entry_set(name) + entry_set("ok") + entry_set("nul\0here")
    filesystem = volume.open()
    shown = names_of(filesystem)
    assert shown == (["ok", "nul"] if "/" not in name else [name.replace("/", "\u2215"), "ok", "nul"])
    assert Severity.DEGRADED in severities(filesystem.findings)


def test_directories_that_contain_themselves_come_to_an_end() -> None:
    volume = ForgedExfat()
    f, c = volume.free, volume.cluster
    me = entry_set("me", f, c, attributes=0x10) + entry_set("root", volume.root_cluster, c, attributes=0x10)
    volume.file(me, f)
    volume.root = entry_set("dir", f, c, attributes=0x10)
    seen = browse(volume.open())
    assert "/dir/me" in seen
    assert len(seen) < 12


def test_crossing_directories_do_not_multiply() -> None:
    volume = ForgedExfat(clusters=4000, cluster_shift=3)
    f, c = volume.free, volume.cluster
    entries = b"".join(entry_set(f"{i:06}") for i in range(c // 96))
    volume.put(entries * 200, *range(f, f + 200))
    names = [entry_set(f"d{i}", f + i % 2, 198 * c, attributes=0x10, contiguous=True) for i in range(40)]
    volume.root = b"".join(names)
    filesystem = volume.open()
    links = filesystem.children(filesystem.children(ids(0)).file)
    assert len(links) <= 4000 * c // 96
    assert len(links.errors) == 39


# -- what the volume says of itself --------------------------------------------------------------------------------


def test_lookup_uses_the_volumes_own_table() -> None:
    volume = ForgedExfat()
    volume.root = entry_set("Name-1 é") + entry_set("É")
    filesystem = volume.open()
    names = ["NAME-1 é", "name+1 é", "NAME-1 É", "é", "É"]  # this table has no upper case for "é", but "+" for "-"
    looked = filesystem.lookup(ids(*[0] * len(names)), [name.encode() for name in names])
    assert looked.found.tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("damage", ["checksum", "size", "chain"])
def test_a_damaged_up_case_table_is_replaced(damage: str) -> None:
    volume = ForgedExfat()
    if damage == "checksum":
        volume.upcase_checksum = 77
    elif damage == "size":
        volume.upcase = b""
    else:
        volume.entries[volume.upcase_cluster] = 0
        volume.upcase_cluster = 400
    volume.root = entry_set("Name-é")
    filesystem = volume.open()
    looked = filesystem.lookup(ids(0, 0), ["name-É".encode(), b"name+"])
    assert looked.found.tolist() == [True, False]
    assert any("up-case table is not used" in text for text in messages(filesystem.findings))


@pytest.mark.parametrize("damage", ["zeros", "checksum", "unreadable", "extended"])
@pytest.mark.parametrize("shift", [9, 12])
def test_the_backup_boot_region(damage: str, shift: int) -> None:
    volume = ForgedExfat(sector_shift=shift)
    volume.root = entry_set("a.bin", volume.file(b"saved", volume.free), 5)
    image = volume.image()
    if damage == "zeros":
        image[: 12 << shift] = bytes(12 << shift)
    elif damage == "checksum":
        image[100] ^= 0xFF  # the serial number
    elif damage == "extended":
        image[5 << shift] ^= 0xFF
    device = MemoryDevice(bytes(image))
    faulty = FaultDevice(device, errors=[(0, 512)]) if damage == "unreadable" else device
    match = ExfatParser().probe(faulty)
    assert match is not None
    assert (match.uuid, match.score) == ("CAFE-1234", 50)
    log = FindingLog()
    filesystem = ExfatParser().open(faulty, log)
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"saved"
    assert severities(log) == [Severity.NOTE]
    assert log[0].offset == 12 << shift


def test_both_boot_regions_with_wrong_checksums() -> None:
    volume = ForgedExfat()
    volume.root = entry_set("a.bin", volume.file(b"saved", volume.free), 5)
    image = volume.image()
    image[11 * 512] ^= 1
    image[23 * 512] ^= 1
    log = FindingLog()
    filesystem = ExfatParser().open(MemoryDevice(bytes(image)), log)
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"saved"
    assert severities(log) == [Severity.DEGRADED]


def test_flags_and_percentage_are_no_part_of_the_checksum() -> None:
    image = ForgedExfat().image()
    image[106] |= 2
    image[112] = 33
    log = FindingLog()
    filesystem = ExfatParser().open(MemoryDevice(bytes(image)), log)
    assert [(f.severity, f.message) for f in log] == [
        (Severity.NOTE, "the volume was in use: not unmounted cleanly"),
    ]
    assert filesystem.details["dirty"] is True


def test_a_revision_of_the_future() -> None:
    image = bytes(ForgedExfat(revision=0x200).image())
    with pytest.raises(UnsupportedError):
        ExfatParser().open(MemoryDevice(image), FindingLog())


def test_what_is_no_exfat() -> None:
    for image in (bytes(100), bytes(1 << 16), b"\xeb\x76\x90EXFAT   " + bytes(60000)):
        assert ExfatParser().probe(MemoryDevice(image)) is None
        with pytest.raises(CorruptionError):
            ExfatParser().open(MemoryDevice(image), FindingLog())


@pytest.mark.parametrize("active", [0, 1])
def test_texfat_has_two_tables(active: int) -> None:
    volume = ForgedExfat(fats=2, flags=active)
    f = volume.free
    data = content(3 * volume.cluster)
    volume.root = entry_set("a.bin", volume.file(data, f, f + 5, f + 2), len(data))
    right = dict(volume.entries)
    wrong = {**right, f: 0, f + 5: BAD}
    if active:
        volume.entries = wrong
    image = volume.image(second=right if active else wrong)
    log = FindingLog()
    filesystem = ExfatParser().open(MemoryDevice(bytes(image)), log)
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == data
    assert list(log) == []


def test_clusters_that_are_marked_free_are_a_finding() -> None:
    volume = ForgedExfat()
    f = volume.free
    data = content(9 * volume.cluster)
    volume.root = entry_set("a.bin", volume.file(data, *range(f, f + 9)), len(data))
    volume.root += entry_set("b.bin", volume.file(b"x", f + 20), 1)
    volume.used.remove(f + 8)
    filesystem = volume.open()
    a, b = find(filesystem, "a.bin"), find(filesystem, "b.bin")
    runs = filesystem.runs(ids(a, b))
    assert not runs.errors
    assert [(x.severity, x.file, x.structure) for x in filesystem.findings] == [
        (Severity.DEGRADED, a, "allocation bitmap")
    ]
    assert read_all(filesystem.open(a)) == data


def test_a_volume_without_a_bitmap() -> None:
    volume = ForgedExfat()
    volume.data[volume.root_cluster] = volume.system()[:32] + entry_set("a.bin", volume.file(b"there", volume.free), 5)
    filesystem = volume.open()
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"there"
    assert any("no allocation bitmap" in text for text in messages(filesystem.findings))


@pytest.mark.parametrize("shift", [9, 10, 11, 12])
def test_sector_sizes(shift: int) -> None:
    volume = ForgedExfat(sector_shift=shift, clusters=100)
    data = content(3 * volume.cluster)
    f = volume.free
    volume.root = entry_set("a.bin", volume.file(data, f + 4, f + 3, f + 9), len(data))
    assert volume.open().details["sector_size"] == 1 << shift
    assert read(volume) == data


# -- times and ids -------------------------------------------------------------------------------------------------


def test_times_with_and_without_an_offset_of_their_own() -> None:
    stamp = (2024 - 1980) << 25 | 2 << 21 | 29 << 16 | 12 << 11 | 30 << 5 | 7  # 2024-02-29 12:30:14, local time
    stamps = stamp.to_bytes(4, "little") * 3

    def times(*zones: int) -> bytes:
        return stamps + bytes([150, 7, *zones])

    volume = ForgedExfat()
    volume.root = entry_set("east", times=times(0x80 | 4, 0x80 | 56, 0x80))  # +1:00, +14:00, +0:00
    volume.root += entry_set("west", times=times(0x80 | (128 - 20), 0xFF, 0x80 | 64))  # -5:00, -0:15, -16:00
    volume.root += entry_set("unknown", times=times(4, 0x7F, 0))  # not valid: local time
    volume.root += entry_set("never")
    utc = 1709209814_000_000_000  # date -u -d "2024-02-29 12:30:14" +%s
    hour = 3600_000_000_000
    for option, east in (("UTC", 0), ("-90", -1.5), ("Europe/Berlin", 1)):
        filesystem = volume.open({"timezone": option})
        rows = filesystem.rows(filesystem.children(ids(0)).file)
        create, modify = 1_500_000_000, 70_000_000
        away = int(utc - east * hour)
        assert rows.created.ns[:3].tolist() == [utc - hour + create, utc + 5 * hour + create, away + create]
        assert rows.modified.ns[:3].tolist() == [utc - 14 * hour + modify, utc + hour // 4 + modify, away + modify]
        assert rows.accessed.ns[:3].tolist() == [utc, utc + 16 * hour, away]
        assert [rows.created.exact(3), rows.modified.exact(3), rows.accessed.exact(3)] == [None] * 3
        assert [rows.changed.exact(i) for i in range(4)] == [None] * 4


def test_rows_and_ids() -> None:
    volume = ForgedExfat()
    f = volume.free
    volume.root = entry_set("a.bin", volume.file(content(3000), f, f + 1, f + 2), 3000, attributes=0x23)
    volume.root += entry_set("empty")
    filesystem = volume.open()
    base = volume.position(volume.root_cluster) + 96
    files = filesystem.children(ids(0)).file
    assert files.tolist() == [base, base + 96]
    rows = filesystem.rows(files)
    assert rows.size.tolist() == [3000, 0]
    assert rows.allocated.tolist() == [3 * volume.cluster, 0]
    assert rows.flags.tolist() == [0x23, 0x20]
    wrong = [base + 32, base + 64, base + 1, base - 32, 32, volume.heap_start - 32, 1 << 63, (1 << 64) - 32]
    rows = filesystem.rows(ids(*wrong))
    assert all(isinstance(error, PathNotFoundError) for error in rows.errors.values())
    assert len(rows.errors) == len(wrong)
    last = volume.position(volume.clusters + 2) - 32
    assert 0 in filesystem.rows(np.array([last], np.uint64)).errors


def test_a_chain_that_goes_on_past_its_size_is_a_note() -> None:
    volume = ForgedExfat()
    f, c = volume.free, volume.cluster
    volume.root = entry_set("fits", volume.file(content(2 * c), f, f + 1), 2 * c - 5)
    volume.root += entry_set("longer", volume.file(content(3 * c), f + 4, f + 9, f + 6), 2 * c)
    volume.root += entry_set("straight", volume.put(content(2 * c), f + 20, f + 21), c, contiguous=True)
    filesystem = volume.open()
    assert not filesystem.runs(filesystem.children(ids(0)).file).errors
    assert [(x.severity, x.file, x.structure) for x in filesystem.findings] == [
        (Severity.NOTE, find(filesystem, "longer"), "FAT")
    ]


def test_system_entries_far_down_in_the_root() -> None:
    volume = ForgedExfat(cluster_shift=6)
    filler = b"".join(entry_set(f"{i}") for i in range(150))
    assert len(filler) > 8 << 10
    system = volume.system()
    volume.data[volume.root_cluster] = system[:32].replace(b"\x83", b"\x03") + filler + system
    filesystem = volume.open()
    assert filesystem.label == "forged"
    assert not any("bitmap" in text for text in messages(filesystem.findings))
    assert find(filesystem, "149")


def test_the_bitmap_is_read_in_pages_and_once() -> None:
    # 300,000 clusters: five pages of the bitmap; runs in one page, across two, and one in a page that cannot be read.
    volume = ForgedExfat(clusters=300_000, sector_shift=9, cluster_shift=7)
    f = volume.free
    page = 8 << 13
    spots = {"a": (f + 5, 3), "across": (page + 2 - 10, 20), "third": (2 * page + 100, 2), "last": (300_001, 1)}
    free = {"across": page + 2 + 3, "last": 300_001, "third": 2 * page + 101}
    for name, (first, count) in spots.items():
        volume.used |= set(range(first, first + count))
        volume.root += entry_set(name, first, count * volume.cluster, contiguous=True)
    volume.used -= set(free.values())
    pieces = volume.pieces()
    log = FindingLog()
    bad = volume.position(2) + 2 * 8192
    device = CounterDevice(FaultDevice(Sparse(volume.size, pieces), errors=[(bad, 512)]))
    filesystem = ExfatParser().open(device, log)
    links = filesystem.children(ids(0))
    device.reset()
    filesystem.runs(links.file)
    told = {find(filesystem, name) for name in ("across", "last")}
    assert {x.file for x in log} == told
    assert {x.structure for x in log} == {"allocation bitmap"}
    device.reset()
    for _ in range(3):
        filesystem.runs(links.file[:2])
    assert device.bytes <= 3 * 4096  # the entries; the bitmap is known


def test_a_bitmap_of_many_files_takes_few_reads() -> None:
    volume = ForgedExfat(clusters=8000, cluster_shift=3)
    f = volume.free
    listing = b"".join(entry_set(f"{i:05}", volume.put(b"x", f + 200 + 3 * i), 1, contiguous=True) for i in range(2000))
    count = -(-len(listing) // volume.cluster)
    volume.root = entry_set(
        "dir", volume.put(listing, *range(f, f + count)), count * volume.cluster, attributes=0x10, contiguous=True
    )
    device = CounterDevice(MemoryDevice(bytes(volume.image())))
    filesystem = ExfatParser().open(device, FindingLog())
    links = filesystem.children(ids(find(filesystem, "dir")))
    assert len(links) == 2000
    device.reset()
    assert not filesystem.runs(links.file).errors
    assert list(filesystem.findings) == []
    assert device.ranges <= 24  # and not one a file: entries, those cut by a cluster's end, one page of the bitmap


@pytest.mark.parametrize("active", [0, 1])
def test_the_second_bitmap_of_texfat_far_down_in_the_root(active: int) -> None:
    volume = ForgedExfat(cluster_shift=6, fats=2, flags=active)
    filler = b"".join(entry_set(f"{i}") for i in range(150))
    system = volume.system()  # label, two bitmaps, up-case table
    volume.data[volume.root_cluster] = system[:64] + system[96:] + filler + system[64:96]
    filesystem = volume.open()
    assert names_of(filesystem) == [str(i) for i in range(150)]
    assert list(filesystem.findings) == []


@pytest.mark.parametrize("chained", [True, False])
def test_a_set_across_clusters_goes_on_where_its_checksum_says(chained: bool) -> None:
    # Both the next cluster and the one that the FAT names begin with a stream entry: one of them is another file's.
    volume = ForgedExfat(cluster_shift=0)
    f, c = volume.free, volume.cluster
    mine = entry_set("mine", volume.file(b"right", f + 20), 5)
    other = entry_set("other", volume.file(b"wrong", f + 21), 5)
    filler = b"\x05".ljust(32, b"\0") * 15
    volume.put(filler + mine[:32], f)
    after, decoy = (f + 9, f + 1) if chained else (f + 1, f + 9)
    volume.put(mine[32:] + bytes(32), after)
    volume.put(other[32:] + bytes(32), decoy)
    volume.entries.update({f: f + 9, f + 9: END})
    volume.root = entry_set("dir", f, 2 * c, attributes=0x10, contiguous=not chained)
    filesystem = volume.open()
    assert names_of(filesystem, find(filesystem, "dir")) == ["mine"]
    assert read_all(filesystem.open(find(filesystem, "dir", "mine"))) == b"right"
