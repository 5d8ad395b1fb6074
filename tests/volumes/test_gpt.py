"""GPT disks packed by hand: damage, odd shapes and sizes, and what is beside a GPT on a disk."""

from __future__ import annotations

import pytest

from pseudomount.findings import Severity
from pseudomount.testing.devices import CounterDevice, FaultDevice
from tests.volumes.craft import ESP, LINUX, Gpt, SparseDevice, mbr, severities, spans, volumes

MIB = 1 << 20
A = "00112233-4455-6677-8899-aabbccddeeff"
B = "deadbeef-0000-4000-8000-0123456789ab"
NAME = "root ü 😀".encode("utf-16-le")
PARTS = [(1, ESP, A, 2048, 4095, 0, b""), (3, LINUX, B, 4096, 8000, 4, NAME)]
SPANS = [("disk0p1", MIB, MIB), ("disk0p3", 2 * MIB, 3905 * 512)]


def test_partitions() -> None:
    device = CounterDevice(Gpt(16384, PARTS).device())
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert [(s.scheme, s.type, s.type_name, s.label, s.uuid, s.bootable) for s in slots] == [
        ("gpt", ESP, "EFI system", "", A, False),
        ("gpt", LINUX, "Linux file system", "root ü 😀", B, True),
    ]
    assert not log
    assert device.requests == 2  # the beginning, the array; never the far end of a sound disk
    assert device.bytes == 8192 + 16384


def test_guid_bytes_are_mixed_endian() -> None:
    """UEFI 2.10, appendix A: the GUID 00112233-4455-6677-8899-aabbccddeeff as it is stored."""
    gpt = Gpt(16384, PARTS)
    pieces = gpt.pieces()
    assert bytes.fromhex("33221100554477668899aabbccddeeff") in pieces[1024]
    assert volumes(gpt.device())[0][0].uuid == A


def test_the_last_sector_belongs_to_the_partition() -> None:
    device = Gpt(16384, PARTS).device()
    device.pieces[8000 * 512] = b"end of partition".rjust(512, b".")
    slots, _ = volumes(device)
    assert slots[1].device.read(slots[1].size - 16, 16) == b"end of partition"


@pytest.mark.parametrize("claimed", [512, 4096])
def test_sectors_of_4096(claimed: int) -> None:
    """Found in a raw image too, whatever sector size that claims."""
    parts = [(1, ESP, A, 256, 511, 0, b""), (2, LINUX, B, 512, 1000, 0, b"")]
    device = Gpt(4096, parts, unit=4096).device(claimed)
    slots, log = volumes(device)
    assert spans(slots) == [("disk0p1", MIB, MIB), ("disk0p2", 2 * MIB, 489 * 4096)]
    assert not log
    del device.pieces[4096]
    slots, log = volumes(device)
    assert spans(slots) == [("disk0p1", MIB, MIB), ("disk0p2", 2 * MIB, 489 * 4096)]
    assert severities(log) == [Severity.NOTE]


def test_sectors_of_512_on_a_device_that_claims_4096() -> None:
    slots, log = volumes(Gpt(16384, PARTS).device(4096))
    assert spans(slots) == SPANS
    assert not log


def test_partitioned_again_with_another_sector_size() -> None:
    """The old header is still there, in a sector that the new table does not use; its array is not."""
    new = Gpt(2048, [(1, LINUX, A, 256, 511, 0, b"")], unit=4096)
    pieces = new.pieces()
    pieces[512] = Gpt(16384, PARTS).head()
    slots, log = volumes(SparseDevice(2048 * 4096, pieces))
    assert spans(slots) == [("disk0p1", MIB, MIB)]
    assert not log


@pytest.mark.parametrize("entry_size", [128, 256, 4096])
@pytest.mark.parametrize("count", [4, 128, 200])
def test_other_shapes_of_the_array(entry_size: int, count: int) -> None:
    slots, log = volumes(Gpt(16384, PARTS, count=count, entry_size=entry_size).device())
    assert spans(slots) == SPANS
    assert slots[1].label == "root ü 😀"
    assert not log


def test_names_are_always_valid_text() -> None:
    def label(raw: bytes) -> str:
        return volumes(Gpt(16384, [(1, LINUX, A, 2048, 4095, 0, raw)]).device())[0][0].label

    assert label(b"\x41\x00\x00\xd8\x42\x00") == r"A\ud800B"
    assert label(b"\x00\xdc") == r"\udc00"
    assert label(b"\x3d\xd8\x00\xde") == "😀"
    assert label(b"a\0b\0\0\0c\0") == "ab"
    assert label(b"x\0" * 36) == "x" * 36
    assert label(b"x\0" * 35 + b"\x3d\xd8") == "x" * 35 + r"\ud83d"


def test_gpt_without_partitions_has_no_volumes() -> None:
    slots, log = volumes(Gpt(16384, []).device())
    assert slots == []
    assert severities(log) == [Severity.NOTE]
    slots, log = volumes(Gpt(16384, [], count=0).device())
    assert slots == []


# -- damage ----------------------------------------------------------------------------------------------------------


def _flip(device: SparseDevice, piece: int, at: int) -> None:
    raw = bytearray(device.pieces[piece])
    raw[at] ^= 0x10
    device.pieces[piece] = bytes(raw)


LAST = 16383
BACKUP_HEADER, BACKUP_ARRAY = LAST * 512, (LAST - 32) * 512


@pytest.mark.parametrize("at", [0, 9, 12, 16, 24, 32, 40, 48, 56, 72, 80, 84, 88, 91])
def test_any_damage_to_the_primary_header_brings_in_the_backup(at: int) -> None:
    device = Gpt(16384, PARTS).device()
    _flip(device, 512, at)
    counted = CounterDevice(device)
    slots, log = volumes(counted)
    assert spans(slots) == SPANS
    assert [slot.label for slot in slots] == ["", "root ü 😀"]
    assert severities(log) == [Severity.NOTE]
    assert counted.requests == 3  # the beginning, all places where a backup header may be, its array


def test_damage_to_the_array_brings_in_the_backup() -> None:
    device = Gpt(16384, PARTS).device()
    _flip(device, 1024, 5000)
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]


def test_backup_where_the_primary_says() -> None:
    """Not in the last sector, since the disk grew; and the protective row is full and does not tell."""
    device = SparseDevice(20000 * 512, Gpt(16384, PARTS, guard=[(0, 0xEE, 1, 0xFFFFFFFF)]).pieces())
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]  # it grew
    for piece, at in ((1024, 5), (512, 90)):
        damaged = SparseDevice(20000 * 512, device.pieces)
        _flip(damaged, piece, at)
        slots, log = volumes(damaged)
        assert spans(slots) == SPANS
        assert severities(log) == [Severity.NOTE]


def test_backup_of_a_grown_disk_by_the_protective_row() -> None:
    device = SparseDevice(20000 * 512, Gpt(16384, PARTS).pieces())
    del device.pieces[512]
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]


def test_each_header_can_vouch_for_either_array() -> None:
    device = Gpt(16384, PARTS).device()
    _flip(device, 512, 30)
    _flip(device, BACKUP_ARRAY, 16000)
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]
    device = Gpt(16384, PARTS).device()
    _flip(device, 1024, 16000)
    _flip(device, BACKUP_HEADER, 30)
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]


def test_both_arrays_damaged_in_one_byte() -> None:
    """The other entries are still there, and nothing else is: they are taken, with a finding."""
    device = Gpt(16384, PARTS).device()
    _flip(device, 1024, 16000)
    _flip(device, BACKUP_ARRAY, 8 * 128 + 3)  # an entry that was not in use, and now seems to be
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.DEGRADED] * 2


def test_both_headers_damaged() -> None:
    device = Gpt(16384, PARTS).device()
    _flip(device, 512, 30)
    _flip(device, BACKUP_HEADER, 30)
    counted = CounterDevice(device)
    slots, log = volumes(counted)
    assert spans(slots) == [("disk0", 0, device.size)]
    assert slots[0].scheme == "whole"
    assert severities(log) == [Severity.LOST]
    assert counted.requests == 2


def test_a_header_in_the_wrong_place_is_none() -> None:
    device = Gpt(16384, PARTS).device()
    device.pieces[512] = device.pieces[BACKUP_HEADER]  # its checksum fits, its sector does not
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]
    assert "belongs into sector 16383" in log[0].message


def test_unreadable_sectors() -> None:
    device = FaultDevice(Gpt(16384, PARTS).device(), errors=[(512, 512)])
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert log.worst is Severity.DEGRADED
    device = FaultDevice(Gpt(16384, PARTS).device(), errors=[(2048, 512)])
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    device = FaultDevice(Gpt(16384, PARTS).device(), errors=[(0, 512)])
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    device = FaultDevice(Gpt(16384, PARTS).device(), errors=[(0, 9000)])
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    device = FaultDevice(Gpt(16384, PARTS).device(), errors=[(0, 9000), (BACKUP_HEADER, 512)])
    slots, log = volumes(device)
    assert [slot.scheme for slot in slots] == ["whole"]
    assert log.worst is Severity.LOST


@pytest.mark.parametrize(
    "field",
    [
        {"count": 0xFFFFFFFF},
        {"count": 40000},
        {"entry_size": 0},
        {"entry_size": 64},
        {"entry_size": 192},
        {"entry_size": 0x80000000},
        {"header_size": 91},
        {"header_size": 513},
        {"header_size": 0xFFFFFFFF},
        {"first_usable": 9, "last_usable": 8},
        {"entries_lba": 0xFFFFFFFFFFFFFFFF},
        {"entries_lba": 0},
    ],
)
def test_forged_headers_with_good_checksums(field: dict[str, int]) -> None:
    device = Gpt(16384, PARTS, header=field).device()
    slots, log = volumes(device)
    if "entries_lba" in field:  # the array is where it always is
        assert spans(slots) == SPANS
        return
    assert [slot.scheme for slot in slots] == ["whole"]
    assert severities(log) == [Severity.LOST]
    device.pieces[BACKUP_HEADER] = Gpt(16384, PARTS).head(backup=True)
    assert spans(volumes(device)[0]) == SPANS


def test_a_longer_header_is_read_whole() -> None:
    slots, log = volumes(Gpt(16384, PARTS, header={"header_size": 512}).device())
    assert spans(slots) == SPANS
    assert not log


# -- entries that make no sense --------------------------------------------------------------------------------------

TOP = (1 << 64) - 1


def test_absurd_ranges_cost_their_entry_only() -> None:
    parts = [
        (1, LINUX, A, 5000, 4999, 0, b""),
        (2, LINUX, A, TOP, TOP, 0, b""),
        (3, LINUX, A, 1 << 63, 0, 0, b""),
        (4, LINUX, A, 20000, 30000, 0, b""),  # wholly past what the table says the disk has
        (5, LINUX, B, 4096, 8000, 0, b""),
        (6, LINUX, B, 9000, TOP, 0, b""),
        (7, LINUX, B, 0, TOP, 0, b""),
    ]
    slots, log = volumes(Gpt(16384, parts).device())
    assert spans(slots) == [
        ("disk0p5", 4096 * 512, 3905 * 512),
        ("disk0p6", 9000 * 512, (16384 - 9000) * 512),
        ("disk0p7", 0, 16384 * 512),
    ]
    assert sum("left out" in finding.message for finding in log) == 4
    assert sum("was cut" in finding.message for finding in log) == 2
    assert {finding.severity for finding in log if "was" in finding.message} == {Severity.DEGRADED}


def test_largest_disk_and_beyond() -> None:
    last = (1 << 63) // 512 - 100
    parts = [(1, LINUX, A, 34, last, 0, b""), (2, LINUX, B, 1 << 50, TOP, 0, b"")]
    gpt = Gpt(16384, parts, header={"last_usable": TOP})
    slots, log = volumes(gpt.device())
    assert slots[0].size == (last - 34 + 1) * 512
    assert slots[1].start + slots[1].size < 1 << 63
    assert log.worst is Severity.LOST


def test_a_forged_number_of_partitions_is_bounded() -> None:
    parts = [(n, LINUX, A, 2048, 4095, 0, b"") for n in range(1, 3001)]
    slots, log = volumes(Gpt(16384, parts, count=4096).device())
    assert len(slots) == 1024
    assert log.worst is not None


def test_image_cut_short() -> None:
    device = SparseDevice(6000 * 512, Gpt(16384, PARTS).pieces())
    device.pieces[4096 * 512] = b"content"
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert [(f.severity, f.volume) for f in log] == [(Severity.DEGRADED, ""), (Severity.DEGRADED, "disk0p3")]
    assert slots[1].device.size == 3905 * 512
    batch = slots[1].device.read_many([0, (6000 - 4096) * 512 - 1, 3904 * 512], [7, 2, 512])
    assert batch.view(0).tobytes() == b"content"
    assert sorted(batch.errors) == [1, 2]
    device = SparseDevice(3000 * 512, Gpt(16384, PARTS).pieces())
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert log.worst is Severity.LOST


def test_overlap() -> None:
    parts = [(1, LINUX, A, 2048, 5000, 0, b""), (2, LINUX, B, 5000, 6000, 0, b""), (3, LINUX, B, 6001, 6002, 0, b"")]
    slots, log = volumes(Gpt(16384, parts).device())
    assert len(slots) == 3
    assert [(f.severity, f.volume) for f in log] == [(Severity.DEGRADED, "disk0p2")]


# -- beside a GPT ----------------------------------------------------------------------------------------------------


def test_hybrid_mbr() -> None:
    guard = [(0, 0xEE, 1, 2047), (0x80, 0x83, 4096, 3905)]
    device = Gpt(16384, PARTS, guard=guard).device()
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert {slot.scheme for slot in slots} == {"gpt"}
    assert severities(log) == [Severity.NOTE]
    assert "hybrid" in log[0].message
    # With both copies of the GPT gone, what the MBR lists is better than nothing.
    device.pieces = {0: device.pieces[0]}
    slots, log = volumes(device)
    assert spans(slots) == [("disk0p2", 2 * MIB, 3905 * 512)]
    assert slots[0].scheme == "mbr"
    assert severities(log) == [Severity.LOST]


def test_protective_mbr_is_gone() -> None:
    device = Gpt(16384, PARTS).device()
    del device.pieces[0]
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert severities(log) == [Severity.NOTE]
    _flip(device, 512, 30)
    slots, log = volumes(device)
    assert spans(slots) == SPANS
    assert log.worst is Severity.NOTE
    _flip(device, BACKUP_HEADER, 30)
    slots, log = volumes(device)
    assert [slot.scheme for slot in slots] == ["whole"]
    assert severities(log) == [Severity.LOST]


def test_mbr_without_a_protective_row_rules() -> None:
    device = Gpt(16384, PARTS, guard=[(0, 0x83, 2048, 1000)]).device()
    slots, log = volumes(device)
    assert spans(slots) == [("disk0p1", MIB, 1000 * 512)]
    assert severities(log) == [Severity.NOTE]


@pytest.mark.parametrize("start", [b"", b"\x9c\x1f\xee" * 9000])
def test_destroyed_beginning(start: bytes) -> None:
    """Overwritten with zeros, or with rubbish by ransomware: the backup may be of an earlier use, so both are shown."""
    pieces = {at: raw for at, raw in Gpt(16384, PARTS).pieces().items() if at > MIB}
    slots, log = volumes(SparseDevice(16384 * 512, {**pieces, 0: start}))
    assert spans(slots) == [("disk0", 0, 16384 * 512), *SPANS]
    assert {finding.severity for finding in log} == {Severity.NOTE}


def test_file_system_over_an_old_gpt() -> None:
    pieces = {at: raw for at, raw in Gpt(16384, PARTS).pieces().items() if at > MIB}
    slots, log = volumes(SparseDevice(16384 * 512, {**pieces, 1080: b"\x53\xef"}))
    assert spans(slots) == [("disk0", 0, 16384 * 512)]
    assert not log
    # Where the primary survived, it is mentioned.
    fat = mbr(code=b"\xeb\x3c\x90mkfs.fat\x00\x02\x04\x04\x00\x02\x00\x02\x00\x00\xf8\x80\x00")
    slots, log = volumes(SparseDevice(16384 * 512, {**Gpt(16384, PARTS).pieces(), 0: fat}))
    assert spans(slots) == [("disk0", 0, 16384 * 512)]
    assert severities(log) == [Severity.NOTE]


def test_protective_row_of_a_disk_of_2_tib_and_more() -> None:
    parts = [(1, LINUX, A, 2048, (1 << 33) - 1, 0, b"")]
    slots, log = volumes(Gpt((1 << 33) + 100, parts).device())
    assert spans(slots) == [("disk0p1", MIB, ((1 << 33) - 2048) * 512)]
    assert not log
