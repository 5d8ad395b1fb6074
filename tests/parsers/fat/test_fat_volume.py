"""FAT volumes forged after the specification: names, chains, copies, attributes, each with what must come of it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import (
    CorruptionError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    ReadError,
    TruncatedError,
    UsageError,
)
from pseudomount.filesystem import FileType, NameEncoding
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing.devices import FaultDevice, MemoryDevice
from pseudomount_fat import FatParser
from tests.support.fat import (
    BAD,
    END,
    ForgedFat,
    browse,
    checksum,
    content,
    entry,
    find,
    ids,
    long_entries,
    messages,
    names_of,
    read_all,
)

ALL_BITS = pytest.mark.parametrize("bits", [12, 16, 32])


def forged(bits: int, *, root_entries: int = 512, flags: int = 0, state: int = 0) -> ForgedFat:
    clusters = {12: 400, 16: 5000, 32: 70000}[bits]
    return ForgedFat(bits, clusters, root_entries=root_entries, flags=flags, state=state)


def read(volume: ForgedFat, name: str = "A.BIN") -> bytes:
    filesystem = volume.open()
    return read_all(filesystem.open(find(filesystem, name)))


def failure(volume: ForgedFat, name: str = "A.BIN") -> str:
    """The error of the file's content; the part before the damage must still be right."""
    filesystem = volume.open()
    file = find(filesystem, name)
    device = filesystem.open(file)
    with pytest.raises(CorruptionError) as caught:
        read_all(device)
    assert filesystem.runs(ids(file)).errors.keys() == {0}
    return str(caught.value)


@pytest.mark.tools("fsck.fat", "mtype")
@ALL_BITS
def test_the_forgery_is_what_others_take_for_a_sound_volume(bits: int, tmp_path: Path) -> None:
    volume = forged(bits)
    data = content(5 * volume.cluster - 7)
    short = b"LONGNA~1BIN"
    volume.root = long_entries("Long name of the file.bin", short) + entry(
        short, volume.file(data, 9, 8, 300, 12, 13), len(data)
    )
    path = tmp_path / "image"
    path.write_bytes(volume.image())
    subprocess.run(["fsck.fat", "-n", path], check=True, capture_output=True)
    shown = subprocess.run(["mtype", "-i", path, "::Long name of the file.bin"], check=True, capture_output=True)
    assert shown.stdout == data
    filesystem = volume.open()
    assert filesystem.name == f"fat{bits}"
    assert names_of(filesystem) == ["Long name of the file.bin"]
    assert read_all(filesystem.open(find(filesystem, "long NAME of the file.bin"))) == data
    assert list(filesystem.findings) == []


# -- chains --------------------------------------------------------------------------------------------------------


@ALL_BITS
def test_a_chain_that_steps_back_one_cluster(bits: int) -> None:
    # dissect.fat 3.13 takes "next is this one less one" for a run that goes on.
    volume = forged(bits)
    data = content(6 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 20, 19, 18, 21, 22, 10), len(data))
    assert read(volume) == data


@ALL_BITS
def test_a_file_in_many_fragments_over_the_whole_table(bits: int) -> None:
    volume = forged(bits)
    order = np.random.default_rng(3).permutation(volume.clusters - 2)[:300] + 3
    data = content(300 * volume.cluster - 100, 1)
    volume.root = entry(b"A       BIN", volume.file(data, *order.tolist()), len(data))
    filesystem = volume.open()
    file = find(filesystem, "a.bin")
    device = filesystem.open(file)
    assert read_all(device) == data
    rng = np.random.default_rng(4)
    offsets = rng.integers(0, len(data) - 1, 200)
    lengths = rng.integers(0, len(data) - offsets)[:200]
    lengths = np.minimum(lengths, 9000)
    batch = device.read_many(offsets, lengths)
    for i, (a, n) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        assert batch.view(i).tobytes() == data[a : a + n] == device.read(a, n)


@ALL_BITS
@pytest.mark.parametrize("loop", [(5, 5), (5, 6, 5), (5, 6, 7, 8, 7), (10, 11, 12, 13, 20, 12), (12, 13, 10, 11, 12)])
def test_a_cyclic_chain_ends_where_it_comes_back(bits: int, loop: tuple[int, ...]) -> None:
    volume = forged(bits)
    data = content(len(set(loop)) * volume.cluster)
    volume.file(data, *loop[:-1])
    volume.entries[loop[-2]] = loop[-1]
    claimed = min(volume.clusters * volume.cluster, 0xFFFFFFFF)
    volume.root = entry(b"A       BIN", loop[0], claimed) + entry(b"B       BIN", volume.file(b"other", 50), 5)
    assert "comes back to itself" in failure(volume)
    filesystem = volume.open()
    device = filesystem.open(find(filesystem, "A.BIN"))
    assert device.read(0, len(data)) == data  # what is before the damage is read, each cluster once
    runs = filesystem.runs(ids(find(filesystem, "A.BIN"), find(filesystem, "B.BIN")))
    assert int(runs.length[runs.query == 0].sum()) == len(data)
    assert runs.errors.keys() == {0}
    assert read(volume, "B.BIN") == b"other"


@ALL_BITS
def test_cyclic_chains_of_many_files_and_directories(bits: int) -> None:
    volume = forged(bits, root_entries=4096)
    volume.chain(5, 6, 7)
    volume.entries[7] = 5
    many = 150  # more than are followed one by one
    entries = b"".join(entry(b"F%07dBIN" % i, 5 + i % 3, 1 << 20) for i in range(many))
    entries += b"".join(entry(b"D%07d   " % i, 5 + i % 3, attributes=0x10) for i in range(many))
    if bits == 32:
        pieces = [entries[i : i + 512] for i in range(0, len(entries), 512)]
        volume.data.update({2 if i == 0 else 100 + i: piece for i, piece in enumerate(pieces)})
        volume.chain(2, *range(101, 100 + len(pieces)))
    else:
        volume.root = entries
    filesystem = volume.open()
    seen = browse(filesystem)
    files = [s for s in seen.values() if s.type == "file"]
    assert len(files) == many
    assert all("comes back to itself" in s.error for s in files)
    runs = filesystem.runs(np.array([s.file for s in files], np.uint64))
    assert len(runs.errors) == many
    assert all("itself" in s.error or "other" in s.error for s in seen.values() if s.type == "dir")


@ALL_BITS
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda bits: 0, "runs into a free cluster"),
        (lambda bits: 1, "goes on at cluster 1, which the volume does not have"),
        (lambda bits: BAD[bits], "runs into a cluster marked bad"),
        (lambda bits: END[bits] - 15, "which the volume does not have"),
        (lambda bits: END[bits] - 7, "ends before its size does"),
    ],
)
def test_a_chain_that_breaks_off(bits: int, value: Callable[[int], int], message: str) -> None:
    volume = forged(bits)
    data = content(4 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 6, 9, 7), len(data))
    volume.entries[6] = value(bits)
    assert message in failure(volume)
    filesystem = volume.open()
    device = filesystem.open(find(filesystem, "A.BIN"))
    assert device.read(0, 2 * volume.cluster) == data[: 2 * volume.cluster]
    with pytest.raises(CorruptionError):
        device.read(2 * volume.cluster - 1, 2)


@ALL_BITS
@pytest.mark.parametrize("first", [0, 1, "after"])
def test_a_first_cluster_that_is_none(bits: int, first: int | str) -> None:
    volume = forged(bits)
    volume.root = entry(b"A       BIN", volume.clusters + 2 if first == "after" else int(first), 10)
    filesystem = volume.open()
    with pytest.raises(CorruptionError, match="first cluster"):
        filesystem.open(find(filesystem, "A.BIN"))


@ALL_BITS
def test_the_last_cluster_is_one(bits: int) -> None:
    volume = forged(bits)
    volume.root = entry(b"A       BIN", volume.file(b"the end", volume.clusters + 1), 7)
    assert read(volume) == b"the end"


@ALL_BITS
def test_files_that_share_clusters_are_each_read(bits: int) -> None:
    volume = forged(bits)
    data = content(4 * volume.cluster)
    volume.file(data, 5, 6, 7, 8)
    volume.data[9] = b"own"
    volume.entries[9] = 7
    volume.root = entry(b"A       BIN", 5, len(data)) + entry(b"B       BIN", 9, 3 * volume.cluster)
    assert read(volume) == data
    assert read(volume, "B.BIN") == b"own".ljust(volume.cluster, b"\0") + data[2 * volume.cluster :]


@ALL_BITS
def test_a_chain_longer_than_its_file(bits: int) -> None:
    volume = forged(bits)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 6, 7), volume.cluster + 1)
    volume.root += entry(b"EMPTY      ", volume.file(b"x", 30), 0) + entry(b"NONE       ", 0, 0)
    assert read(volume) == data[: volume.cluster + 1]
    assert read(volume, "EMPTY") == read(volume, "NONE") == b""


def test_a_fat32_entry_keeps_its_upper_four_bits_to_itself() -> None:
    volume = forged(32)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 9, 7), len(data))
    for cluster in (5, 9, 7):
        volume.entries[cluster] |= 0xA0000000
    assert read(volume) == data


def test_the_upper_half_of_a_first_cluster_is_fat32s_alone() -> None:
    small = forged(16)
    raw = bytearray(entry(b"A       BIN", small.file(b"hello", 5), 5))
    raw[20:22] = b"\x77\x66"  # an OS/2 handle
    small.root = bytes(raw)
    assert read(small) == b"hello"
    large = forged(32)
    large.root = entry(b"A       BIN", large.file(b"far", 66000), 3)
    assert read(large) == b"far"


# -- directories ---------------------------------------------------------------------------------------------------


@ALL_BITS
def test_a_directory_in_fragments_with_a_long_name_across_them(bits: int) -> None:
    volume = forged(bits)
    name = "n" * 200 + ".txt"
    short = b"NNNNNN~1TXT"
    listing = entry(b".          ", 40, attributes=0x10) + entry(b"..         ", 0, attributes=0x10)
    listing += b"".join(entry(b"F%07d   " % i) for i in range(8)) + long_entries(name, short)
    listing += entry(short, volume.file(b"found", 60), 5) + b"".join(entry(b"G%07d   " % i) for i in range(30))
    pieces = [40, 39, 77, 78]
    assert len(listing) <= len(pieces) * volume.cluster
    volume.root = entry(b"DIR        ", volume.file(listing, *pieces), attributes=0x10)
    filesystem = volume.open()
    names = names_of(filesystem, find(filesystem, "dir"))
    assert names == [*(f"F{i:07}" for i in range(8)), name, *(f"G{i:07}" for i in range(30))]
    assert read_all(filesystem.open(find(filesystem, "DIR", name.upper()))) == b"found"


@ALL_BITS
def test_what_is_deleted_or_after_the_end_is_not_listed(bits: int) -> None:
    volume = forged(bits)
    short = b"LONGNA~1   "
    gone = bytearray(long_entries("Long name of a deleted file", short) + entry(short, volume.file(b"x", 5), 1))
    for at in range(0, len(gone), 32):
        gone[at] = 0xE5
    volume.root = entry(b"A       BIN") + bytes(gone) + entry(b"B       BIN") + bytes(32) + entry(b"LATE    BIN")
    volume.root += entry(b"\xe5ONE    BIN", 5, 1)
    assert names_of(volume.open()) == ["A.BIN", "B.BIN"]


def test_the_volume_label_is_no_file() -> None:
    volume = forged(16)
    volume.root = entry(b"MY LABEL   ", attributes=0x08) + entry(b"A       BIN")
    filesystem = volume.open()
    assert filesystem.label == "MY LABEL"
    assert names_of(filesystem) == ["A.BIN"]
    assert not filesystem.lookup(ids(0), [b"MY LABEL"]).found[0]
    assert FatParser().probe(filesystem.device) == FatParser().probe(MemoryDevice(bytes(volume.image())))
    match = FatParser().probe(filesystem.device)
    assert match is not None
    assert (match.filesystem, match.label, match.uuid, match.score) == ("fat16", "MY LABEL", "1234-5678", 100)


@ALL_BITS
def test_directories_that_contain_themselves_come_to_an_end(bits: int) -> None:
    volume = forged(bits)
    volume.data[30] = entry(b"ME         ", 30, attributes=0x10) + entry(b"UP         ", 31, attributes=0x10)
    volume.data[31] = entry(b"DOWN       ", 30, attributes=0x10) + entry(b"FILE       ")
    volume.chain(30)
    volume.chain(31)
    volume.root = entry(b"DIR        ", 30, attributes=0x10)
    seen = browse(volume.open())  # visits each id once, which is all it takes
    assert "/DIR/UP/FILE" in seen
    assert len(seen) < 10


@ALL_BITS
def test_crossing_directories_do_not_multiply(bits: int) -> None:
    # Many directories that all lead into one long chain: together they would have more entries than the disk bytes.
    volume = forged(bits, root_entries=4096)
    tail = list(range(200, 380))
    listing = b"".join(entry(b"T%07d   " % i) for i in range(len(tail) * 16))
    volume.file(listing, *tail)
    heads = list(range(20, 190))
    for head in heads:
        volume.entries[head] = tail[0]
        volume.data[head] = entry(b"H%07d   " % head) * 16
    names = b"".join(entry(b"D%07d   " % head, head, attributes=0x10) for head in heads)
    pieces = [names[i : i + 512] for i in range(0, len(names), 512)]
    if bits == 32:
        volume.data.update({2 if i == 0 else 1000 + i: piece for i, piece in enumerate(pieces)})
        volume.chain(2, *range(1001, 1000 + len(pieces)))
    else:
        volume.root = names
    filesystem = volume.open()
    directories = filesystem.children(ids(0)).file
    assert len(directories) == len(heads)
    links = filesystem.children(directories)
    whole = len(heads) * (len(tail) + 1) * 16
    if bits != 32:  # more entries than there is room for: some are cut, and say so
        assert len(links) < whole
        assert any("other directories" in str(error) for error in links.errors.values())
    else:
        assert len(links) == whole
    alone = filesystem.children(directories[-1:])
    assert len(alone) == (len(tail) + 1) * 16


@ALL_BITS
def test_a_directory_without_an_end_mark_is_bounded(bits: int) -> None:
    volume = forged(bits)
    full = b"".join(entry(b"F%07d   " % i) for i in range(16))
    volume.file(full * 3, 40, 41, 42)
    volume.entries[42] = 0
    volume.root = entry(b"DIR        ", 40, attributes=0x10)
    filesystem = volume.open()
    links = filesystem.children(ids(find(filesystem, "DIR")))
    assert len(links) == 48
    assert "free cluster" in str(links.errors[0])


def test_a_root_directory_without_entries() -> None:
    assert names_of(ForgedFat(16, clusters=5000, root_entries=0).open()) == []


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
@pytest.mark.parametrize(("bits", "per_cluster"), [(12, 1), (16, 2), (32, 1)])
def test_sector_sizes(bits: int, sector: int, per_cluster: int) -> None:
    clusters = {12: 400, 16: 5000, 32: 1000}[bits]
    volume = ForgedFat(bits, clusters=clusters, sector=sector, per_cluster=per_cluster, hidden=63)
    data = content(3 * volume.cluster - 1)
    volume.root = entry(b"A       BIN", volume.file(data, 9, 8, 100), len(data))
    filesystem = volume.open()
    assert filesystem.details["sector_size"] == sector
    assert filesystem.details["hidden_sectors"] == 63
    assert read(volume) == data


@pytest.mark.parametrize("per_cluster", [64, 128])
def test_large_clusters(per_cluster: int) -> None:
    volume = ForgedFat(12, clusters=20, per_cluster=per_cluster, sector=2048)
    data = content(2 * volume.cluster + 5)
    volume.root = entry(b"A       BIN", volume.file(data, 9, 4, 5), len(data))
    assert volume.cluster in (128 << 10, 256 << 10)
    assert read(volume) == data


@pytest.mark.parametrize(("clusters", "name"), [(4084, "fat12"), (4085, "fat16")])
def test_which_fat_it_is(clusters: int, name: str) -> None:
    volume = ForgedFat(int(name[3:]), clusters=clusters)
    volume.root = entry(b"A       BIN", volume.file(b"last", clusters + 1), 4)
    assert volume.open().name == name
    assert read(volume) == b"last"


def test_a_small_fat32_is_one() -> None:
    volume = ForgedFat(32, clusters=100)
    volume.root = entry(b"A       BIN", volume.file(b"small", 90), 5)
    assert volume.open().name == "fat32"
    assert read(volume) == b"small"


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_long_name_counts_only_with_the_right_checksum_and_ordinals() -> None:
    volume = forged(16)
    short = b"LONGNA~1TXT"
    good = long_entries("a long name of three parts, as it has to be", short)
    assert len(good) == 128
    wrong = checksum(short) ^ 1
    parts = [good[i : i + 32] for i in range(0, 128, 32)]

    def with_ordinal(part: bytes, ordinal: int) -> bytes:
        return bytes([ordinal]) + part[1:]

    volume.root = b"".join(
        [
            good + entry(short),
            long_entries("wrong checksum here", b"WRONGC~1   ", check=wrong) + entry(b"WRONGC~1   "),
            b"".join([parts[0], parts[2], parts[1], parts[3]]) + entry(b"ORDER      "),
            b"".join(parts[1:]) + entry(b"NOLAST     "),
            b"".join(parts[:3]) + entry(b"NOFIRST    "),
            good + entry(b"\xe5DELETED   ") + entry(b"ALONE      "),
            with_ordinal(long_entries("x", b"ZERO       "), 0x40) + entry(b"ZERO       "),
            b"".join(part[:12] + b"\1" + part[13:] for part in parts) + entry(short),  # LDIR_Type, reserved
            good,
        ]
    )
    filesystem = volume.open()
    assert names_of(filesystem) == [
        "a long name of three parts, as it has to be",
        "WRONGC~1",
        "ORDER",
        "NOLAST",
        "NOFIRST",
        "ALONE",
        "ZERO",
        "LONGNA~1.TXT",
    ]
    assert any("long name" in text and text.startswith("note") for text in messages(filesystem.findings))
    assert filesystem.findings.worst == Severity.NOTE


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "thirteen char",
        "fourteen chars",
        "L" * 255,
        "Ünïcode 日本語.txt",
        "😀 pair of surrogates 🎉.dat",
        "lone \ud83d high",
        "\ude00 lone low",
        "trailing dot.",
        " leading space",
        ".hidden",
        "many.dots.in.it",
        "...",
    ],
)
def test_long_names(name: str) -> None:
    volume = forged(16)
    short = b"SHORT~1    "
    volume.root = long_entries(name, short) + entry(short, volume.file(b"data", 5), 4)
    filesystem = volume.open()
    assert filesystem.name_encoding is NameEncoding.WTF8
    assert names_of(filesystem) == [name]
    assert read(volume, name) == read(volume, "short~1") == b"data"


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "a/b", "/"])
def test_a_long_name_that_would_lead_elsewhere_is_not_shown(name: str) -> None:
    volume = forged(16)
    volume.root = long_entries(name, b"SHORT~1    ") + entry(b"SHORT~1    ") + entry(b"A/B     C/D")
    volume.root += entry(b"           ") + entry(b"        .  ") + entry(b"..      .  ")
    filesystem = volume.open()
    shown = names_of(filesystem)
    assert shown[:2] == ["SHORT~1", "A\u2215B.C\u2215D"]
    assert not {"", ".", ".."} & set(shown)
    assert filesystem.findings.worst == Severity.DEGRADED


@pytest.mark.parametrize(
    ("raw", "case", "codepage", "name"),
    [
        (b"README  TXT", 0x00, "cp437", "README.TXT"),
        (b"README  TXT", 0x08, "cp437", "readme.TXT"),
        (b"README  TXT", 0x10, "cp437", "README.txt"),
        (b"README  TXT", 0x18, "cp437", "readme.txt"),
        (b"NOEXT      ", 0x08, "437", "noext"),
        (b"A B     C D", 0x00, "cp437", "A B.C D"),
        (b"\x05BC     TXT", 0x00, "cp437", "\u03c3BC.TXT"),
        (b"\x05BC     TXT", 0x00, "cp850", "ÕBC.TXT"),
        (b"\x9a\x99\x8e     TXT", 0x08, "cp850", "üöä.TXT"),
        (b"\x8e\x99      \x9a  ", 0x18, "850", "äö.ü"),
        (b"\x80\x81      TXT", 0x00, "cp866", "АБ.TXT"),
        (b"\x83e\x83X    TXT", 0x00, "cp932", "テス.TXT"),
        (b"\x05\x40AB    TXT", 0x08, "cp932", b"\xe5\x40".decode("cp932") + "ab.TXT"),
        (b"\x81\x8dX     C  ", 0x00, "cp1252", "\udc81\udc8dX.C"),
        (b"        EXT", 0x00, "cp437", ".EXT"),
    ],
)
def test_short_names(raw: bytes, case: int, codepage: str, name: str) -> None:
    # The case bits are what dissect.fat 3.13 ignores.
    volume = forged(16)
    volume.root = entry(raw, volume.file(b"data", 5), 4, case=case)
    filesystem = volume.open({"codepage": codepage})
    assert names_of(filesystem) == [name]
    assert read_all(filesystem.open(find(filesystem, name))) == b"data"


@pytest.mark.parametrize("codepage", ["nonsense", "utf-16", "cp037", "hex", "utf-8", ""])
def test_code_pages_that_are_none(codepage: str) -> None:
    with pytest.raises(UsageError):
        forged(16).open({"codepage": codepage})


def test_lookup_knows_no_case_and_short_names_too() -> None:
    volume = forged(16)
    volume.data[30] = entry(b"README  TXT", 0, 0)
    volume.chain(30)
    volume.root = long_entries("Straße Ärger.Text", b"STRAEA~1TEX") + entry(b"STRAEA~1TEX")
    volume.root += entry(b"README  TXT", case=0x18) + entry(b"SUB        ", 30, attributes=0x10)
    filesystem = volume.open()
    sub = find(filesystem, "sub")
    names = ["STRAßE ÄRGER.TEXT", "straße ärger.text", "straea~1.tex", "ReadMe.Txt", "readme.txt", "STRASSE ÄRGER.TEXT"]
    names += ["", "readme", "x" * 5000]
    raw = [name.encode() for name in names]
    looked = filesystem.lookup(ids(0, 0, 0, 0, sub, 0, 0, 0, 0), raw)
    assert looked.found.tolist() == [True, True, True, True, True, False, False, False, False]
    assert not looked.errors
    first = filesystem.children(ids(0)).file
    assert looked.file[:4].tolist() == [first[0], first[0], first[0], first[1]]
    assert looked.file[4] == filesystem.children(ids(sub)).file[0]
    assert not filesystem.lookup(ids(0), [b"\xff\xfe"]).found[0]
    nowhere = filesystem.lookup(ids(int(first[1])), [b"x"])
    assert isinstance(nowhere.errors[0], PathNotDirectoryError)


# -- the FAT's copies, flags, boot sectors -------------------------------------------------------------------------


@ALL_BITS
def test_copies_of_the_fat_that_differ_are_a_finding(bits: int) -> None:
    volume = forged(bits)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 6, 7), len(data))
    image = volume.image(second={6: 9, 100: 101})
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(bytes(image)), log)
    assert read_all(filesystem.open(find(filesystem, "A.BIN"))) == data  # mirrored: the first counts
    assert len(log) == 1
    assert log[0].severity == Severity.DEGRADED
    assert "2 entries of the FAT differ in copy 2, the first that of cluster 6" in log[0].message
    assert log[0].offset == volume.fat_start + 6 * bits // 8


def test_flags_in_the_reserved_entries_are_no_difference() -> None:
    volume = forged(16)
    volume.root = entry(b"A       BIN", volume.file(b"x", 5), 1)
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(bytes(volume.image(second={1: 0x7FFF}))), log)
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"x"
    assert list(log) == []


@ALL_BITS
def test_a_chain_that_only_the_second_copy_has(bits: int) -> None:
    volume = forged(bits)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 9, 7), len(data))
    volume.entries.update({9: 0})
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(bytes(volume.image(second={9: 7}))), log)
    assert read_all(filesystem.open(find(filesystem, "A.BIN"))) == data
    assert log.worst == Severity.DEGRADED


@pytest.mark.parametrize("active", [0, 1])
def test_fat32_without_mirroring_follows_the_active_copy(active: int) -> None:
    volume = forged(32, flags=0x80 | active)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 6, 7), len(data))
    right, wrong = dict(volume.entries), {5: 900, 900: 6, 6: 0}
    if active:
        volume.entries.update(wrong)
    image = volume.image(second={k: right.get(k, 0) for k in wrong} if active else wrong)
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(bytes(image)), log)
    assert read_all(filesystem.open(find(filesystem, "A.BIN"))) == data
    assert list(log) == []
    assert filesystem.details["active_fat"] == active


def test_the_second_copy_stands_in_where_the_first_cannot_be_read() -> None:
    volume = forged(32)
    data = content(3 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 9, 7), len(data))
    log = FindingLog()
    device = FaultDevice(MemoryDevice(bytes(volume.image())), errors=[(volume.fat_start, 512)])
    filesystem = FatParser().open(device, log)
    assert read_all(filesystem.open(find(filesystem, "A.BIN"))) == data
    assert any("stands in" in text for text in messages(log))
    both = [(volume.fat_start, 512), (volume.fat_start + volume.fat_sectors * 512, 512)]
    filesystem = FatParser().open(FaultDevice(MemoryDevice(bytes(volume.image())), errors=both), FindingLog())
    error = filesystem.children(ids(0)).errors[0]
    assert isinstance(error, ReadError)
    assert error.offset == volume.fat_start


@pytest.mark.parametrize("damage", ["zeros", "unreadable", "other"])
@pytest.mark.parametrize("sector", [512, 4096])
def test_the_backup_boot_sector_of_fat32(damage: str, sector: int) -> None:
    volume = ForgedFat(32, clusters=1000, sector=sector)
    volume.root = entry(b"A       BIN", volume.file(b"saved", 5), 5)
    image = volume.image()
    if damage != "unreadable":
        image[:512] = bytes(512) if damage == "zeros" else b"no boot sector, but text" * 21 + bytes(8)
    device = MemoryDevice(bytes(image))
    faulty = FaultDevice(device, errors=[(0, 512)]) if damage == "unreadable" else device
    match = FatParser().probe(faulty)
    assert match is not None
    assert (match.filesystem, match.uuid, match.score) == ("fat32", "1234-5678", 50)
    log = FindingLog()
    filesystem = FatParser().open(faulty, log)
    assert read_all(filesystem.open(find(filesystem, "a.bin"))) == b"saved"
    assert [f.severity for f in log] == [Severity.NOTE]
    assert "copy is used" in log[0].message


def test_a_left_over_backup_boot_sector_is_no_volume() -> None:
    volume = forged(32)
    image = volume.image()
    image[:512] = bytes(512)
    image[volume.fat_start : volume.fat_start + 4] = b"\x12\x34\x56\x78"  # something else has been written since
    assert FatParser().probe(MemoryDevice(bytes(image))) is None


@pytest.mark.parametrize(
    ("bits", "state", "first", "dirty"),
    [
        (16, 0, 0xFFFF, False),
        (16, 0, 0x7FFF, True),
        (16, 1, 0xFFFF, True),
        (32, 0, 0x0FFFFFFF, False),
        (32, 0, 0x07FFFFFF, True),
        (32, 1, 0x0FFFFFFF, True),
        (12, 1, 0xFFF, True),
        (12, 0, 0xFFF, False),
    ],
)
def test_the_dirty_bits(bits: int, state: int, first: int, dirty: bool) -> None:
    volume = forged(bits, state=state)
    volume.entries[1] = first
    filesystem = volume.open()
    assert filesystem.details["dirty"] is dirty
    assert [f.severity for f in filesystem.findings] == [Severity.NOTE] * dirty
    assert all("not unmounted cleanly" in f.message for f in filesystem.findings)


def test_what_is_no_fat() -> None:
    parser = FatParser()
    sound = bytes(forged(16).image())
    cases = {
        "zeros": bytes(4096),
        "short": b"\xeb",
        "text": b"text" * 2000,
        "sector size": sound[:11] + b"\x00\x03" + sound[13:],
        "cluster size": sound[:13] + b"\x03" + sound[14:],
        "reserved": sound[:14] + b"\0\0" + sound[16:],
        "fats": sound[:16] + b"\0" + sound[17:],
        "media": sound[:21] + b"\x12" + sound[22:],
        "ntfs": sound[:3] + b"NTFS    " + sound[11:],
        "no sectors": sound[:19] + b"\0\0" + sound[21:],
    }
    for name, image in cases.items():
        assert parser.probe(MemoryDevice(image)) is None, name
        with pytest.raises(CorruptionError):
            parser.open(MemoryDevice(image), FindingLog())


def test_errors_of_the_device_come_through() -> None:
    device = FaultDevice(MemoryDevice(bytes(forged(16).image())), errors=[(0, 512)])
    with pytest.raises(ReadError):
        FatParser().probe(device)


# -- rows ----------------------------------------------------------------------------------------------------------


@ALL_BITS
def test_rows(bits: int) -> None:
    volume = forged(bits)
    size = 2 * volume.cluster + 1
    volume.chain(30)
    volume.root = entry(b"A       BIN", volume.file(content(size), 5, 6, 7), size, attributes=0x27)
    volume.root += entry(b"DIR        ", 30, attributes=0x12) + entry(b"EMPTY      ")
    filesystem = volume.open()
    links = filesystem.children(ids(0))
    base = volume.position(2) if bits == 32 else volume.root_start
    assert links.file.tolist() == [base, base + 32, base + 64]
    rows = filesystem.rows(np.append(links.file, ids(0)))
    assert rows.type.tolist() == [FileType.FILE, FileType.DIRECTORY, FileType.FILE, FileType.DIRECTORY]
    root = -1 if bits == 32 else 512 * 32
    assert rows.size.tolist() == [size, -1, 0, root]
    assert rows.allocated.tolist() == [3 * volume.cluster, -1, 0, root]
    assert rows.flags.tolist() == [0x27, 0x12, 0x20, 0x10]
    assert rows.links.tolist() == [1] * 4
    for column in (rows.mode, rows.uid, rows.gid):
        assert column.tolist() == [-1] * 4
    assert rows.inode.tolist() == rows.file.tolist()
    assert rows.extra["first_cluster"].tolist()[:3] == [5, 30, 0]


def test_ids_that_are_no_files() -> None:
    volume = forged(16)
    volume.root = entry(b"LABEL      ", attributes=8) + entry(b"A       BIN", volume.file(b"x", 5), 1)
    volume.root += long_entries("long", b"LONG       ") + entry(b"\xe5       BIN")
    filesystem = volume.open()
    at = volume.root_start
    wrong = [at, at + 64, at + 96, at + 128, at + 33, 32, 1 << 63, (1 << 64) - 32, volume.root_start - 32]
    rows = filesystem.rows(ids(*wrong, at + 32))
    assert rows.errors.keys() == set(range(len(wrong)))
    assert all(isinstance(error, PathNotFoundError) for error in rows.errors.values())
    assert rows.type[-1] == FileType.FILE
    links = filesystem.children(ids(at + 32, 0, *wrong))
    assert isinstance(links.errors[0], PathNotDirectoryError)
    assert len(links) == 1
    for file in wrong:
        with pytest.raises(PathNotFoundError):
            filesystem.open(file)
    with pytest.raises(PathIsDirectoryError):
        filesystem.open(0)
    with pytest.raises(PathNotFoundError):
        filesystem.open(at + 32, "stream")
    assert isinstance(filesystem.readlink(ids(at + 32)).errors[0], NotASymlinkError)
    assert filesystem.streams(at + 32) == []
    assert filesystem.xattrs(at + 32) == {}


@ALL_BITS
def test_batches_answer_in_the_order_asked(bits: int) -> None:
    volume = forged(bits)
    for i, cluster in enumerate((50, 40, 60)):
        volume.data[cluster] = b"".join(entry(b"F%d%d        " % (i, k), 0, 0) for k in range(i + 1))
        volume.chain(cluster)
        volume.root += entry(b"D%d         " % i, cluster, attributes=0x10)
    filesystem = volume.open()
    d0, d1, d2 = filesystem.children(ids(0)).file.tolist()
    links = filesystem.children(ids(d2, d0, d2, d1))
    names = [name.decode() for name in links.name]
    assert names == ["F20", "F21", "F22", "F00", "F20", "F21", "F22", "F10", "F11"]
    assert links.query.tolist() == [0, 0, 0, 1, 2, 2, 2, 3, 3]
    assert links.parent.tolist() == [d2, d2, d2, d0, d2, d2, d2, d1, d1]
    assert len(filesystem.children(ids())) == len(filesystem.rows(ids())) == len(filesystem.runs(ids())) == 0
    runs = filesystem.runs(ids(d2, d0, d2, d1))
    assert runs.position.tolist() == [volume.position(c) for c in (60, 50, 60, 40)]


def test_a_long_name_does_not_reach_from_one_directory_into_another() -> None:
    volume = forged(16)
    short = b"SHORT~1    "
    filler = b"".join(entry(b"F%07d   " % i) for i in range(14))
    volume.root = entry(
        b"A          ", volume.file(filler + long_entries("a long name of b's", short), 5), attributes=0x10
    )
    volume.root += entry(b"B          ", volume.file(entry(short), 6), attributes=0x10)
    filesystem = volume.open()
    links = filesystem.children(filesystem.children(ids(0)).file)
    assert [name.decode() for name in links.name][14:] == ["SHORT~1"]


def test_a_volume_that_is_cut_short() -> None:
    volume = forged(16)
    data = content(4 * volume.cluster)
    volume.root = entry(b"A       BIN", volume.file(data, 5, 6, 900, 901), len(data))
    volume.root += entry(b"DIR        ", volume.file(entry(b"X          "), 902), attributes=0x10)
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(bytes(volume.image()[: volume.position(900)])), log)
    assert log.worst == Severity.DEGRADED
    device = filesystem.open(find(filesystem, "A.BIN"))
    assert device.read(0, 2 * volume.cluster) == data[: 2 * volume.cluster]
    with pytest.raises(TruncatedError):
        device.read(2 * volume.cluster, 10)
    batch = device.read_many([0, 100, 3 * volume.cluster], [10, 3 * volume.cluster, 5])
    assert batch.view(0).tobytes() == data[:10]
    assert batch.errors.keys() == {1, 2}
    links = filesystem.children(ids(find(filesystem, "DIR"), 0))
    assert isinstance(links.errors[0], TruncatedError)
    assert len(links) == 2


# -- sizes and chains that do not fit ------------------------------------------------------------------------------


@ALL_BITS
@pytest.mark.parametrize("files", [1, 200])
def test_a_chain_that_goes_on_past_its_size_is_a_note(bits: int, files: int) -> None:
    volume = ForgedFat(bits, clusters={12: 4000, 16: 5000, 32: 70000}[bits], root_entries=4096)
    names = b""
    for i in range(files):
        at = 300 + 12 * i
        volume.file(content(2 * volume.cluster), at, at + 1)
        volume.file(content(3 * volume.cluster), at + 2, at + 4, at + 6)
        volume.file(content(3 * volume.cluster), at + 7, at + 8, at + 9)
        volume.chain(at + 10)
        names += entry(b"F%07d   " % i, at, volume.cluster + 1) + entry(b"L%07d   " % i, at + 2, volume.cluster + 1)
        names += entry(b"M%07d   " % i, at + 7, volume.cluster) + entry(b"E%07d   " % i, at + 10, 0)
    if bits == 32:
        pieces = [names[i : i + 512] for i in range(0, len(names), 512)]
        volume.data.update({2 if i == 0 else 10 + i: piece for i, piece in enumerate(pieces)})
        volume.chain(2, *range(11, 10 + len(pieces)))
    else:
        volume.root = names
    filesystem = volume.open()
    found = filesystem.children(ids(0)).file
    fits, longer, middle, empty = (found[i::4] for i in range(4))
    assert not filesystem.runs(fits).errors
    assert list(filesystem.findings) == []
    assert not filesystem.runs(found).errors
    told = {f.file for f in filesystem.findings if f.file is not None}
    assert told <= {*longer.tolist(), *middle.tolist(), *empty.tolist()}
    assert len(told) == min(3 * files, 100)
    assert {(f.severity, f.structure) for f in filesystem.findings} == {(Severity.NOTE, "FAT")}
    more = [f.message for f in filesystem.findings if f.file is None]
    assert more == ([f"its chain of clusters goes on past its size ({3 * files - 100} more)"] if files > 100 else [])


@pytest.mark.parametrize("files", [1, 200])
def test_broken_chains_are_no_longer_ones(files: int) -> None:
    volume = ForgedFat(16, clusters=5000, root_entries=4096)
    volume.root = entry(b"A       BIN", volume.file(b"x" * 600, 5, 6), 1200)
    volume.root += entry(b"B       BIN", 1, 10) + entry(b"C       BIN", 7, 0) + entry(b"\xe5       BIN", 8, 0)
    volume.entries.update({7: BAD[16], 8: 9, 20: 21, 21: 20})
    volume.root += b"".join(entry(b"D%07d   " % i, 20, 3 * volume.cluster) for i in range(files))
    filesystem = volume.open()
    deleted = filesystem.runs(ids(volume.root_start + 96))
    assert deleted.errors.keys() == {0}
    errors = filesystem.runs(filesystem.children(ids(0)).file).errors
    assert errors.keys() == {0, 1, *range(3, 3 + files)}
    assert [f.file for f in filesystem.findings] == [find(filesystem, "C.BIN")]


def test_a_label_far_down_in_the_root() -> None:
    volume = ForgedFat(16, clusters=5000, root_entries=1024)
    volume.root = entry(b"F          ") * 900 + entry(b"DEEP DOWN  ", attributes=0x08)
    assert volume.open().label == "DEEP DOWN"
    volume.root = entry(b"F          ") * 1024
    assert volume.open().label == ""
    volume.root = entry(b"F          ") * 300 + bytes(32) + entry(b"AFTER END  ", attributes=0x08)
    assert volume.open().label == ""


@pytest.mark.parametrize("codepage", ["cp932", "cp936", "cp949", "cp950", "gb18030"])
def test_double_byte_names_of_a_whole_directory(codepage: str) -> None:
    # Each name decoded by Python alone, against all of them together; a name with a line feed among them or not.
    rng = np.random.default_rng(5)
    volume = forged(16)
    raws = [
        bytes(
            a | 0x80 if double else 0x41 + a % 26 for a, double in zip(rng.bytes(11), rng.random(11) < 0.6, strict=True)
        )
        for _ in range(200)
    ]
    raws = [raw for raw in raws if raw[0] not in (0xE5, 0x05)]
    for extra in ([], [b"A\nB     T\nT"]):
        every = raws + extra
        volume.root = b"".join(entry(raw) for raw in every)
        wanted = []
        for raw in every:
            base, extension = (part.rstrip(b" ").decode(codepage, "surrogateescape") for part in (raw[:8], raw[8:]))
            wanted.append(f"{base}.{extension}" if extension else base)
        assert names_of(volume.open({"codepage": codepage})) == wanted
