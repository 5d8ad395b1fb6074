"""Directories: names that are gone, case, stale references, and damage in an index."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import CorruptionError, DamageError
from pseudomount.filesystem import FileType
from pseudomount.testing import CounterDevice, MemoryDevice
from pseudomount_ntfs import Ntfs
from tests.parsers.ntfs.conftest import DOTLESS
from tests.support.ntfs import RECORD_MASK, Image, content, find, mkntfs, names, ntfs3g, open_ntfs

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]

_KEPT = [f"a file with a long name {i:04d}" for i in range(5)]


def _stale_blocks(data: bytes, name: str) -> int:
    """Index blocks of the volume in which a name still stands."""
    needle = name.encode("utf-16-le")
    return sum(
        data[at : at + 4] == b"INDX" and needle in data[at : at + 4096] for at in range(0, len(data) - 4095, 4096)
    )


def test_names_in_unused_blocks_of_an_index_are_not_listed(ntfs: Ntfs, sample: Image, sample_path: Path) -> None:
    stale = [i for i in range(5, 400) if _stale_blocks(bytes(sample.data), f"a file with a long name {i:04d}")]
    assert stale, "nothing stale is there, the test shows nothing"
    gone = f"a file with a long name {stale[-1]:04d}"
    with ntfs3g(sample_path) as top:
        assert sorted(path.name for path in (top / "many").iterdir()) == _KEPT
    assert names(ntfs, "many") == _KEPT
    looked = ntfs.lookup(np.array([find(ntfs, "many")], np.uint64), [gone.encode()])
    assert not looked.found[0]
    assert not looked.errors


@pytest.mark.tools("7z")
def test_7_zip_lists_the_same_names(ntfs: Ntfs, sample_path: Path) -> None:
    said = subprocess.run(["7z", "l", "-slt", "-ba", "-tNTFS", sample_path, "many"], capture_output=True, check=True)
    listed = [line[7:] for line in said.stdout.decode().splitlines() if line.startswith("Path = many/")]
    assert sorted(path.removeprefix("many/") for path in listed) == names(ntfs, "many")


def test_a_lost_bitmap_costs_certainty_and_no_names(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    directory = find(ntfs, "many")
    sample.poke(sample.attribute(directory, 0xB0) + 10, b"\xff\xff")  # its name lies nowhere
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    links = ntfs.children(np.array([directory], np.uint64))
    assert isinstance(links.errors[0], CorruptionError)
    assert set(_KEPT) <= {name.decode() for name in links.name}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("i", b"dotted"), ("I", b"dotted"), (DOTLESS, b"dotless"), ("STRASSE", None), ("sTRAßE", b"s")],
)
def test_case_is_folded_as_the_volume_does_it(ntfs: Ntfs, asked: str, expected: bytes | None) -> None:
    # str.upper makes "I" of the dotless i, and "SS" of the sharp s.
    if expected is not None:
        assert content(ntfs, asked) == expected
    else:
        looked = ntfs.lookup(np.array([ntfs.root], np.uint64), [asked.encode()])
        assert not looked.found[0]


def test_the_volumes_own_table_counts(sample: Image) -> None:
    table = np.arange(0x10000, dtype="<u2")
    at = bytes(sample.data).find(table[:97].tobytes())
    assert at > 0
    assert sample.data[at + 2 * ord("b") : at + 2 * ord("b") + 2] == b"B\0"
    sample.poke(at + 2 * ord(DOTLESS), "S".encode("utf-16-le"))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    assert content(ntfs, "S") == b"dotless"


def test_a_lost_table_is_a_finding(sample: Image) -> None:
    at = bytes(sample.data).find(np.arange(97, dtype="<u2").tobytes())
    sample.poke(at + 2 * 97, b"\0\0")
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    assert content(ntfs, "SMALL") == b"resident"
    assert [finding.structure for finding in ntfs.findings] == ["$UpCase"]


def test_an_exact_name_goes_before_one_of_another_case(tmp_path: Path) -> None:
    image = mkntfs(tmp_path / "case.img", "4M")
    with ntfs3g(image, "rw") as top:
        for name in ("name", "NAME", "Name"):
            (top / name).write_bytes(name.encode())
    ntfs = open_ntfs(MemoryDevice(image.read_bytes()))
    assert names(ntfs) == ["NAME", "Name", "name"]
    for name in ("name", "NAME", "Name"):
        assert content(ntfs, name) == name.encode()
    assert content(ntfs, "nAME").lower() == b"name"


def test_many_questions_in_one_batch(ntfs: Ntfs) -> None:
    root, many = ntfs.root, find(ntfs, "many")
    asked = [(root, b"small"), (many, b"nothing"), (many, _KEPT[3].upper().encode()), (root, b"MANY"), (root, b"\xff")]
    missing = (root & RECORD_MASK) | 77 << 48
    directories = np.array([directory for directory, _ in asked] + [missing], np.uint64)
    looked = ntfs.lookup(directories, [name for _, name in asked] + [b"small"])
    assert looked.found.tolist() == [True, False, True, True, False, False]
    assert looked.file[[0, 2, 3]].tolist() == [find(ntfs, "small"), find(ntfs, f"many/{_KEPT[3]}"), many]
    assert list(looked.errors) == [5]


def test_a_stale_reference_is_an_error_of_its_row(ntfs: Ntfs) -> None:
    small = find(ntfs, "small")
    stale = (small & RECORD_MASK) | ((small >> 48) + 1) << 48
    rows = ntfs.rows(np.array([small, stale, 1 << 40, small], np.uint64))
    assert sorted(rows.errors) == [1, 2]
    assert "sequence number" in str(rows.errors[1])
    assert rows.type.tolist() == [FileType.FILE, FileType.UNKNOWN, FileType.UNKNOWN, FileType.FILE]
    with pytest.raises(DamageError, match="sequence"):
        ntfs.open(stale)


def test_a_reused_record_is_not_what_its_old_name_leads_to(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    at = sample.record_at(find(ntfs, "long"))
    sample.poke(at + 16, struct.pack("<H", 99))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    with pytest.raises(DamageError, match="sequence number 99"):
        ntfs.open(find(ntfs, "long"))
    assert content(ntfs, "small") == b"resident"


def test_a_torn_record_costs_one_file(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    expected = names(ntfs)
    victim = find(ntfs, "long")
    at = sample.record_at(victim)
    sample.poke(at + 510, bytes(byte ^ 0xFF for byte in sample.data[at + 510 : at + 512]))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    assert names(ntfs) == expected
    links = ntfs.children(np.array([ntfs.root], np.uint64))
    rows = ntfs.rows(links.file)
    broken = [links.name[row] for row in rows.errors]
    assert broken == [b"long"]
    error = next(iter(rows.errors.values()))
    assert isinstance(error, CorruptionError)
    assert (error.offset, "update sequence" in str(error)) == (at, True)


def test_a_damaged_block_costs_its_names(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    everything = names(ntfs)
    # The root's own blocks: those that are full of hard links.
    needle = "hard link number 20".encode("utf-16-le")
    blocks = [
        at
        for at in range(0, len(sample.data) - 4095, 4096)
        if sample.data[at : at + 4] == b"INDX" and needle in sample.data[at : at + 4096]
    ]
    assert blocks
    for at in blocks:
        sample.poke(at + 510, b"\0\0\0\0")
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    links = ntfs.children(np.array([ntfs.root, find(ntfs, "packed")], np.uint64))
    assert list(links.errors) == [0]
    error = links.errors[0]
    assert isinstance(error, CorruptionError)
    assert error.offset in blocks
    left = {name.decode() for name in links.name}
    assert "hard link number 20 with a name that fills the record" not in left
    assert {"text", "noise", "mixed"} <= left
    assert len(everything) > len(left - {"text", "noise", "mixed"}) > 5


def test_a_block_in_the_place_of_another_is_damage(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    needle = "hard link number".encode("utf-16-le")
    blocks = [
        at
        for at in range(0, len(sample.data) - 4095, 4096)
        if sample.data[at : at + 4] == b"INDX" and needle in sample.data[at : at + 4096]
    ]
    assert len(blocks) > 1
    sample.poke(blocks[0], bytes(sample.data[blocks[1] : blocks[1] + 4096]))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    links = ntfs.children(np.array([ntfs.root], np.uint64))
    assert list(links.errors) == [0]
    assert len(set(links.name)) == len(links)


def test_names_that_lead_elsewhere_are_left_out(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    expected = names(ntfs, "packed")
    needle = "mixed".encode("utf-16-le")
    base = sample.record_at(find(ntfs, "packed"))
    at = bytes(sample.data[base : base + sample.record]).find(needle)
    assert at > 0
    sample.poke(base + at, "../xx".encode("utf-16-le"))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    links = ntfs.children(np.array([find(ntfs, "packed")], np.uint64))
    assert sorted(name.decode() for name in links.name) == [name for name in expected if name != "mixed"]
    assert "no file can have" in str(links.errors[0])


def test_opening_and_listing_is_little_work(sample: Image) -> None:
    device = CounterDevice(MemoryDevice(bytes(sample.data)))
    ntfs = open_ntfs(device)
    links = ntfs.children(np.array([ntfs.root], np.uint64))
    rows = ntfs.rows(links.file)
    assert len(rows) > 60
    assert device.ranges <= 64
    assert device.bytes <= 256 << 10


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_batches_of_any_size_answer_alike(ntfs: Ntfs, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    directories = np.array([ntfs.root, find(ntfs, "many"), find(ntfs, "packed"), find(ntfs, "small")], np.uint64)
    links, none = ntfs.children(directories), np.empty(0, np.uint64)
    rows, runs, targets = ntfs.rows(links.file), ntfs.runs(links.file), ntfs.readlink(links.file)
    monkeypatch.setattr("pseudomount_ntfs._volume.BATCH_RECORDS", batch)
    monkeypatch.setattr("pseudomount_ntfs._filesystem.BATCH_RECORDS", batch)
    again = ntfs.children(directories)
    assert (again.query.tolist(), again.file.tolist(), list(again.name)) == (
        links.query.tolist(),
        links.file.tolist(),
        list(links.name),
    )
    assert list(again.errors) == list(links.errors) == [3]
    looked = ntfs.lookup(links.parent, list(links.name))
    assert looked.file.tolist() == links.file.tolist()
    small = ntfs.rows(links.file)
    for column in ("type", "size", "links", "flags"):
        assert getattr(small, column).tolist() == getattr(rows, column).tolist()
    assert small.modified.ns.tolist() == rows.modified.ns.tolist()
    assert dict(small.modified.odd) == dict(rows.modified.odd)
    assert {name: values.tolist() for name, values in small.extra.items()} == {
        name: values.tolist() for name, values in rows.extra.items()
    }
    small_runs = ntfs.runs(links.file)
    assert small_runs.query.tolist() == runs.query.tolist()
    assert small_runs.position.tolist() == runs.position.tolist()
    assert small_runs.resident == runs.resident
    assert list(small_runs.errors) == list(runs.errors)
    assert list(ntfs.readlink(links.file).target) == list(targets.target)
    assert len(ntfs.children(none)) == len(ntfs.rows(none)) == len(ntfs.runs(none)) == 0
