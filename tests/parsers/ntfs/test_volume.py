"""The volume as a whole: its label, its damage, its journal, and an MFT in pieces."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import CorruptionError, TruncatedError, UsageError
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing import MemoryDevice
from pseudomount_ntfs import Ntfs, NtfsParser
from tests.parsers.ntfs.conftest import LABEL, LONG
from tests.support.browse import browse_tree
from tests.support.entries import assert_same
from tests.support.ntfs import Image, content, find, fuse_tree, mkntfs, ntfs3g, open_ntfs

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]


def _device(image: Image) -> MemoryDevice:
    return MemoryDevice(bytes(image.data), name="disk")


@pytest.mark.tools("blkid")
def test_label_and_uuid_are_what_blkid_prints(sample: Image, sample_path: Path) -> None:
    said = {
        tag: subprocess.run(
            ["blkid", "-p", "-o", "value", "-s", tag, sample_path], capture_output=True, check=True, text=True
        ).stdout.strip()
        for tag in ("LABEL", "UUID")
    }
    match = NtfsParser().probe(_device(sample))
    assert match is not None
    assert (match.filesystem, match.label, match.uuid, match.score) == ("ntfs", LABEL, said["UUID"], 100)
    ntfs = open_ntfs(_device(sample))
    assert (ntfs.label, ntfs.uuid) == (said["LABEL"], said["UUID"]) == (LABEL, match.uuid)
    assert ntfs.details["version"] == "3.1"


def test_what_is_not_ntfs_does_not_match() -> None:
    for data in (bytes(100), bytes(1 << 20), b"\xff" * (1 << 20), b"-FVE-FS-".rjust(11, b"x").ljust(1 << 16, b"\1")):
        assert NtfsParser().probe(MemoryDevice(data)) is None
    with pytest.raises(CorruptionError, match="boot sector"):
        open_ntfs(MemoryDevice(bytes(1 << 20)))


def test_options_are_checked(sample: Image) -> None:
    with pytest.raises(UsageError, match="system_files"):
        open_ntfs(_device(sample), system_files="perhaps")
    with pytest.raises(UsageError, match="zone"):
        open_ntfs(_device(sample), zone="UTC")


@pytest.mark.parametrize("damage", [(0, bytes(512)), (3, b"FAT32   "), (13, b"\x03"), (64, b"\x7f"), (11, b"\1\1")])
def test_the_copy_of_the_boot_sector_is_used(sample: Image, damage: tuple[int, bytes]) -> None:
    expected = browse_tree(open_ntfs(_device(sample))).entries
    sample.poke(*damage)
    match = NtfsParser().probe(_device(sample))
    assert match is not None
    assert (match.score, match.label) == (50, LABEL)
    ntfs = open_ntfs(_device(sample))
    assert_same(expected, browse_tree(ntfs).entries)
    assert [(finding.severity, finding.structure) for finding in ntfs.findings] == [(Severity.NOTE, "boot sector")]


def test_both_boot_sectors_lost(sample: Image) -> None:
    for at in (0, len(sample.data) - 512):
        sample.poke(at + 13, b"\3")
    assert NtfsParser().probe(_device(sample)) is None
    with pytest.raises(CorruptionError, match="boot sector"):
        open_ntfs(_device(sample))


def test_the_mirror_stands_in_for_the_mft_and_the_volume(sample: Image) -> None:
    expected = browse_tree(open_ntfs(_device(sample))).entries
    for number in (0, 3):
        sample.poke(sample.record_at(number), b"BAAD")
    ntfs = open_ntfs(_device(sample))
    assert ntfs.label == LABEL
    assert_same(expected, browse_tree(ntfs).entries)
    assert {(finding.severity, finding.file) for finding in ntfs.findings} == {
        (Severity.NOTE, 0),
        (Severity.NOTE, 3),
    }
    match = NtfsParser().probe(_device(sample))
    assert match is not None
    assert match.score == 50
    sample.poke(sample.mirror, b"BAAD")
    with pytest.raises(CorruptionError, match="mirror"):
        open_ntfs(_device(sample))


def _notes(ntfs: Ntfs) -> list[str]:
    assert all(finding.severity == Severity.NOTE for finding in ntfs.findings)
    return [finding.structure for finding in ntfs.findings]


def test_a_dirty_volume_says_so(sample: Image) -> None:
    assert _notes(open_ntfs(_device(sample))) == []
    at = sample.attribute(3, 0x70)
    value = at + int.from_bytes(sample.data[at + 20 : at + 22], "little")
    sample.poke(value + 10, b"\1\0")
    assert _notes(open_ntfs(_device(sample))) == ["$Volume"]


@pytest.mark.parametrize(
    ("clients", "flags", "pending"), [(0xFFFF, 0, False), (0, 0, True), (0, 2, False), (0xFFFF, 2, False)]
)
def test_a_journal_that_awaits_replay_says_so(sample: Image, clients: int, flags: int, pending: bool) -> None:
    # [LN] $LogFile: a restart page whose area has a client in use and no mark of a clean volume.
    page = bytearray(4096)
    struct.pack_into("<4sHH", page, 0, b"RSTR", 30, 9)
    struct.pack_into("<II H", page, 16, 4096, 4096, 48)
    struct.pack_into("<QHHHH", page, 48, 12345, 1, 0, clients, flags)
    for stride in range(8):
        page[stride * 512 + 510 : stride * 512 + 512] = b"\7\0"
    page[30:32] = b"\7\0"
    at = sample.attribute(2, 0x80)
    sample.poke(sample.first_run(at), bytes(page))
    assert _notes(open_ntfs(_device(sample))) == (["$LogFile"] if pending else [])


def test_a_device_that_ends_early(sample: Image) -> None:
    whole = open_ntfs(_device(sample))
    runs = whole.runs(np.array([find(whole, "long")], np.uint64))
    cut = int(runs.position[0]) + 4096
    ntfs = NtfsParser().open(MemoryDevice(bytes(sample.data[:cut])), FindingLog())
    assert Severity.DEGRADED in {finding.severity for finding in ntfs.findings}
    links = ntfs.children(np.array([ntfs.root], np.uint64))
    if not links.errors:
        device = ntfs.open(find(ntfs, "long"))
        assert device.read(0, 4096) == LONG[:4096]
        with pytest.raises(TruncatedError):
            device.read(0, 4097)


def _pieces_of_the_mft(ntfs: Ntfs) -> int:
    return len(ntfs.runs(np.array([find(ntfs, "$MFT")], np.uint64)))


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume whose MFT lies in so many pieces that its record 0 needs an attribute list."""
    image = mkntfs(tmp_path_factory.mktemp("mft") / "scattered.img", "8M", "-c", "512")
    with ntfs3g(image, "rw") as top:
        # Small files that take clusters of their own, until nothing is free; then every second one gives them back, and
        # new files have to find room for their records in the holes.
        made = 0
        with (top / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            for made in range(3000):
                (top / f"{made:04d}").write_bytes(b"%04d" % made * 250)
            while True:
                filler.write(os.urandom(512))
        for i in range(0, made, 2):
            os.truncate(top / f"{i:04d}", 0)
        with contextlib.suppress(OSError):
            for i in range(1500):
                (top / f"n{i:04d}").write_bytes(b"%d" % i)
    return image


def test_an_mft_in_many_pieces(scattered: Path) -> None:
    with ntfs3g(scattered, "ro,streams_interface=none") as top:
        truth = fuse_tree(top)
    image = Image(scattered.read_bytes())
    image.attribute(0, 0x20)  # fails where it has no attribute list
    ntfs = open_ntfs(_device(image))
    assert _pieces_of_the_mft(ntfs) > 100
    assert len(truth) > 1000
    fields = ("type", "size", "sha256", "nlink", "mtime_ns", "ino")
    assert_same(truth, browse_tree(ntfs).entries, only=fields)
    assert not ntfs.findings


def test_a_piece_of_the_mft_that_is_lost_costs_its_files(scattered: Path) -> None:
    image = Image(scattered.read_bytes())
    at = image.attribute(0, 0x20)
    assert image.data[at + 8] == 1, "the list is resident, the test looks for it elsewhere"
    value, last = image.first_run(at), 0
    while int.from_bytes(image.data[value : value + 4], "little"):
        if image.data[value] == 0x80 and int.from_bytes(image.data[value + 8 : value + 16], "little"):
            last = value
        value += int.from_bytes(image.data[value + 4 : value + 6], "little")
    assert last
    image.poke(last + 16, (17 | 9 << 48).to_bytes(8, "little"))
    ntfs = open_ntfs(_device(image))
    assert Severity.LOST in {finding.severity for finding in ntfs.findings}
    numbers = np.arange(24, int(ntfs.details["mft_records"]), dtype=np.uint64)  # type: ignore[call-overload]
    whole, rows = open_ntfs(MemoryDevice(scattered.read_bytes())).rows(numbers), ntfs.rows(numbers)
    now_lost = rows.errors.keys() - whole.errors.keys()
    assert 100 < len(now_lost) < len(numbers) - 1000
    # All that is behind one place in the MFT, and nothing before it.
    assert min(now_lost) + len(now_lost) + sum(row >= min(now_lost) for row in whole.errors) == len(numbers)
    assert content(ntfs, "0001") == b"0001" * 250
