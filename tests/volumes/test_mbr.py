"""MBR tables packed by hand: what no tool makes, and what must not be taken for a table."""

from __future__ import annotations

import pytest

from pseudomount.findings import Severity
from pseudomount.testing.devices import CounterDevice, FaultDevice
from tests.volumes.craft import SparseDevice, mbr, severities, spans, volumes

MIB = 1 << 20
EBR = 0x05


def test_primaries_keep_their_row_as_number() -> None:
    table = mbr((0, 0, 0, 0), (0x80, 0x83, 2048, 100), (0, 0, 0, 0), (0, 0x07, 4096, 200), signature=0x1B2C3D4E)
    slots, log = volumes(SparseDevice(4 * MIB, {0: table}))
    assert spans(slots) == [("disk0p2", 2048 * 512, 100 * 512), ("disk0p4", 4096 * 512, 200 * 512)]
    assert [(s.scheme, s.type, s.type_name, s.uuid, s.bootable) for s in slots] == [
        ("mbr", "0x83", "Linux", "1b2c3d4e-02", True),
        ("mbr", "0x07", "NTFS or exFAT", "1b2c3d4e-04", False),
    ]
    assert slots[0].device.size == slots[0].size
    assert slots[0].device.name == "disk0p2"
    assert not log


def test_without_signature_no_uuid_and_unknown_type_no_words() -> None:
    slots, _ = volumes(SparseDevice(4 * MIB, {0: mbr((0, 0x99, 1, 100))}))
    assert [(s.uuid, s.type, s.type_name) for s in slots] == [("", "0x99", "")]


def test_uuid_numbers_are_hexadecimal() -> None:
    """As libblkid writes PARTUUID: the tenth partition of a disk is -0a."""
    pieces = {0: mbr((0, EBR, 100, 5000), signature=0xA)}
    for i in range(7):
        link = (0, EBR, (i + 1) * 100, 100) if i < 6 else (0, 0, 0, 0)
        pieces[(100 + i * 100) * 512] = mbr((0, 0x83, 1, 50), link)
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert [slot.name for slot in slots] == [f"disk0p{n}" for n in range(5, 12)]
    assert [slot.uuid for slot in slots][-2:] == ["0000000a-0a", "0000000a-0b"]
    assert not log


@pytest.mark.parametrize("kind", [0x05, 0x0F, 0x85])
def test_chain_of_logical_partitions(kind: int) -> None:
    pieces = {
        0: mbr((0, 0x83, 10, 10), (0, kind, 1000, 3000), signature=7),
        # A link is relative to the extended partition, a partition to the table that names it.
        1000 * 512: mbr((0, 0x83, 1, 99), (0, EBR, 500, 200)),
        1500 * 512: mbr((0, 0x82, 2, 98), (0, EBR, 1000, 200)),
        2000 * 512: mbr((0, 0, 0, 0), (0, EBR, 2000, 200)),  # empty: takes no number
        3000 * 512: mbr((0x80, 0x07, 3, 97)),
    }
    device = CounterDevice(SparseDevice(4 * MIB, pieces))
    slots, log = volumes(device)
    assert spans(slots) == [
        ("disk0p1", 10 * 512, 10 * 512),
        ("disk0p5", 1001 * 512, 99 * 512),
        ("disk0p6", 1502 * 512, 98 * 512),
        ("disk0p7", 3003 * 512, 97 * 512),
    ]
    assert [slot.bootable for slot in slots] == [False, False, False, True]
    assert [slot.uuid for slot in slots] == ["00000007-01", "00000007-05", "00000007-06", "00000007-07"]
    assert not log
    assert device.requests == 1 + 4  # the beginning, and each table of the chain


def test_two_extended_partitions_number_on() -> None:
    pieces = {
        0: mbr((0, EBR, 1000, 1000), (0, 0x0F, 3000, 1000)),
        1000 * 512: mbr((0, 0x83, 1, 9)),
        3000 * 512: mbr((0, 0x83, 1, 9)),
    }
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert spans(slots) == [("disk0p5", 1001 * 512, 9 * 512), ("disk0p6", 3001 * 512, 9 * 512)]
    assert not log


def test_link_may_come_first_and_rubbish_in_later_rows_is_passed_over() -> None:
    pieces = {
        0: mbr((0, EBR, 1000, 3000)),
        1000 * 512: mbr((0, EBR, 500, 200), (0, 0x83, 1, 99), (0, 0x83, 5000, 10), (0, 0x83, 200, 10)),
        1500 * 512: mbr((0, 0x83, 1, 9), (0, 0, 0, 0), (0, 0x83, 150, 100)),  # longer than this table's part
    }
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert spans(slots) == [
        ("disk0p5", 1001 * 512, 99 * 512),
        ("disk0p6", 1200 * 512, 10 * 512),
        ("disk0p7", 1501 * 512, 9 * 512),
    ]
    assert not log


def test_circle_in_a_chain_ends_with_a_finding() -> None:
    pieces = {
        0: mbr((0, EBR, 1000, 3000)),
        1000 * 512: mbr((0, 0x83, 1, 99), (0, EBR, 500, 200)),
        1500 * 512: mbr((0, 0x83, 1, 99), (0, EBR, 500, 200)),
    }
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert [slot.name for slot in slots] == ["disk0p5", "disk0p6"]
    assert severities(log) == [Severity.DEGRADED]
    assert (log[0].structure, log[0].offset) == ("EBR", 1500 * 512)


def test_extended_partition_at_the_mbr_itself_is_a_circle() -> None:
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 10, 10), (0, EBR, 0, 3000))}))
    assert [slot.name for slot in slots] == ["disk0p1"]
    assert severities(log) == [Severity.DEGRADED]


def test_endless_chain_is_bounded() -> None:
    pieces = {0: mbr((0, EBR, 1000, 1 << 20))}
    for i in range(1000):
        pieces[(1000 + i) * 512] = mbr((0, 0, 0, 0), (0, EBR, i + 1, 1))
    device = CounterDevice(SparseDevice(1 << 30, pieces))
    slots, log = volumes(device)
    assert [slot.scheme for slot in slots] == ["whole"]
    assert severities(log) == [Severity.DEGRADED]
    assert device.requests < 300


def test_chain_broken_or_leading_off_the_disk() -> None:
    first = {0: mbr((0, 0x83, 10, 10), (0, EBR, 1000, 30000))}
    slots, log = volumes(SparseDevice(4 * MIB, {**first, 512000: mbr((0, 0x83, 1, 9), (0, EBR, 500, 200))}))
    assert [slot.name for slot in slots] == ["disk0p1", "disk0p5"]
    assert severities(log) == [Severity.LOST]
    slots, log = volumes(SparseDevice(4 * MIB, {**first, 512000: mbr((0, 0x83, 1, 9), (0, EBR, 20000, 200))}))
    assert [slot.name for slot in slots] == ["disk0p1", "disk0p5"]
    assert severities(log) == [Severity.LOST]


def test_unreadable_link_costs_what_follows_it() -> None:
    pieces = {
        0: mbr((0, 0x83, 10, 10), (0, EBR, 1000, 3000)),
        1000 * 512: mbr((0, 0x83, 1, 99), (0, EBR, 500, 200)),
        1500 * 512: mbr((0, 0x83, 1, 99)),
    }
    device = FaultDevice(SparseDevice(4 * MIB, pieces), errors=[(1500 * 512, 512)])
    slots, log = volumes(device)
    assert [slot.name for slot in slots] == ["disk0p1", "disk0p5"]
    assert log.worst is Severity.LOST


def test_logical_partition_outside_of_its_extended_one() -> None:
    pieces = {
        0: mbr((0, EBR, 1000, 100)),
        1000 * 512: mbr((0, 0x83, 50, 200)),
    }
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert spans(slots) == [("disk0p5", 1050 * 512, 200 * 512)]
    assert severities(log) == [Severity.DEGRADED]
    pieces[1000 * 512] = mbr((0x41, 0x83, 50, 200))
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert [slot.scheme for slot in slots] == ["whole"]
    assert severities(log) == [Severity.DEGRADED]


def test_extended_bsd_and_lvm_are_plain_partitions() -> None:
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0, 0xA5, 63, 100), (0, 0x8E, 200, 100))}))
    assert [slot.type_name for slot in slots] == ["FreeBSD", "Linux LVM"]
    assert not log


# -- past the end, and over each other -------------------------------------------------------------------------------


def test_partition_past_the_end_is_listed_and_read_as_far_as_it_goes() -> None:
    pieces = {0: mbr((0, 0x83, 2048, 8192), (0, 0x83, 10240, 100)), 2048 * 512: b"hello"}
    slots, log = volumes(SparseDevice(4 * MIB, pieces))
    assert spans(slots) == [("disk0p1", MIB, 4 * MIB), ("disk0p2", 5 * MIB, 51200)]
    assert [(f.severity, f.volume, f.offset) for f in log] == [
        (Severity.DEGRADED, "disk0p1", 3 * MIB),
        (Severity.LOST, "disk0p2", 0),
    ]
    assert slots[0].device.size == 4 * MIB
    batch = slots[0].device.read_many([0, 3 * MIB - 5, 3 * MIB], [5, 5, 5])
    assert batch.view(0).tobytes() == b"hello"
    assert batch.view(1).tobytes() == bytes(5)
    assert list(batch.errors) == [2]


def test_overlaps() -> None:
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 100, 200), (0, 0x83, 250, 200))}))
    assert len(slots) == 2
    assert [(f.severity, f.volume) for f in log] == [(Severity.DEGRADED, "disk0p2")]
    # One inside the other, from sector 0: hybrid installation media.
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0x80, 0, 0, 8000), (0, 0xEF, 100, 200))}))
    assert [(slot.name, slot.start) for slot in slots] == [("disk0p1", 0), ("disk0p2", 51200)]
    assert [(f.severity, f.volume) for f in log] == [(Severity.NOTE, "disk0p2")]
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 100, 200), (0, 0x83, 300, 200))}))
    assert not log


def test_largest_numbers() -> None:
    row = (0, 0x83, 0xFFFFFFFF, 0xFFFFFFFF)
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr(row)}))
    assert spans(slots) == [("disk0p1", 0xFFFFFFFF * 512, 0xFFFFFFFF * 512)]
    assert severities(log) == [Severity.LOST]
    slots, log = volumes(SparseDevice(0x2000000000 * 512, {0: mbr(row)}))
    assert not log


# -- what is no table ------------------------------------------------------------------------------------------------


def _whole(device: SparseDevice, log_empty: bool = True) -> None:
    slots, log = volumes(device, "disk1")
    assert [(s.name, s.start, s.size, s.scheme, s.type, s.uuid) for s in slots] == [
        ("disk1", 0, device.size, "whole", "", "")
    ]
    assert slots[0].device.size == device.size
    if log_empty:
        assert not log


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1024, 4095, 4096, 4097, 8192, 10000, 4 * MIB])
def test_blank_disk_of_any_size(size: int) -> None:
    _whole(SparseDevice(size))
    _whole(SparseDevice(size, sector_size=4096))


def test_no_magic_no_table() -> None:
    _whole(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 2048, 100), magic=b"\x55\xab")}))


def test_empty_table() -> None:
    _whole(SparseDevice(4 * MIB, {0: mbr(signature=0x12345678)}))
    _whole(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 2048, 0))}))


def test_boot_code_where_the_table_would_be() -> None:
    code = b"Remove disks or other media.\xff\r\nDisk error\xff\r\nPress any key to restart\r\n"[:64]
    sector = bytes(446) + code.ljust(64, b"\0") + b"\x55\xaa"
    _whole(SparseDevice(4 * MIB, {0: sector}))


FAT = b"\xeb\x3c\x90mkfs.fat\x00\x02\x04\x04\x00\x02\x00\x02\x00\x00\xf8\x80\x00"
NTFS = b"\xeb\x52\x90NTFS    \x00\x02\x08\x00\x00"
EXFAT = b"\xeb\x76\x90EXFAT   "


@pytest.mark.parametrize("boot", [FAT, NTFS, EXFAT])
def test_table_in_a_boot_sector_must_be_without_fault(boot: bytes) -> None:
    # Written over a file system later: the disk was partitioned and its old boot sector left.
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr((0x80, 0x83, 2048, 100), code=boot)}))
    assert spans(slots) == [("disk0p1", MIB, 51200)]
    assert not log
    for rows in (
        [(0x80, 0x06, 0, 8192)],  # as mkfs.fat --mbr writes it: the file system itself
        [(0x80, 0x83, 2048, 100000)],  # past the end
        [(0x80, 0x83, 2048, 100), (0x6F, 0x65, 3000, 100)],  # a flag that is none
        [(0x80, 0x83, 2048, 100), (0x6F, 0x65, 0, 0)],
        [(0x80, 0x83, 2048, 100), (0, 0x83, 2100, 100)],  # over each other
        [(0x80, 0x00, 2048, 100)],  # no type
        [(0x80, 0xEE, 1, 100), (0x6F, 0x65, 3000, 100)],  # boot code that happens to hold a protective row
    ):
        _whole(SparseDevice(4 * MIB, {0: mbr(*rows, code=boot)}))


@pytest.mark.parametrize(
    ("at", "magic"), [(1080, b"\x53\xef"), (512, b"LABELONE"), (1024, b"H+\0\x04"), (4086, b"SWAPSPACE2")]
)
def test_magic_behind_the_boot_sector_counts_too(at: int, magic: bytes) -> None:
    table = mbr((0x80, 0x83, 0, 8192))
    slots, _ = volumes(SparseDevice(4 * MIB, {0: table}))
    assert [slot.name for slot in slots] == ["disk0p1"]
    _whole(SparseDevice(4 * MIB, {0: table, at: magic}))


def test_one_bad_flag_in_a_sound_table_costs_nothing_else() -> None:
    rows = [(0x80, 0x83, 2048, 100), (0x21, 0x83, 3000, 100), (0x22, 0x83, 3050, 9000000), (0, 0x83, 4000, 50)]
    slots, log = volumes(SparseDevice(4 * MIB, {0: mbr(*rows)}))
    assert [slot.name for slot in slots] == ["disk0p1", "disk0p2", "disk0p4"]
    assert [(f.severity, f.offset) for f in log] == [(Severity.DEGRADED, 462), (Severity.DEGRADED, 478)]


def test_unreadable_start() -> None:
    device = FaultDevice(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 2048, 100))}), errors=[(0, 512)])
    slots, log = volumes(device)
    assert [slot.scheme for slot in slots] == ["whole"]
    assert log.worst is Severity.LOST


def test_bad_sector_beside_the_table_does_not_hide_it() -> None:
    device = FaultDevice(SparseDevice(4 * MIB, {0: mbr((0, 0x83, 2048, 100))}), errors=[(1024, 512)])
    slots, log = volumes(device)
    assert [slot.name for slot in slots] == ["disk0p1"]
    assert log.worst is Severity.DEGRADED


# -- sectors of 4096 bytes -------------------------------------------------------------------------------------------

EXT = b"\0" * 1080 + b"\x53\xef"


def test_the_device_says_4096() -> None:
    pieces = {0: mbr((0, 0x83, 256, 256), (0, EBR, 1000, 1000)), 1000 * 4096: mbr((0, 0x83, 1, 9))}
    slots, log = volumes(SparseDevice(16 * MIB, pieces, sector_size=4096))
    assert spans(slots) == [("disk0p1", MIB, MIB), ("disk0p5", 1001 * 4096, 9 * 4096)]
    assert not log
    # Also where nothing is found at the starts that would bear it out.
    slots, log = volumes(SparseDevice(16 * MIB, {0: mbr((0, 0x83, 256, 256))}, sector_size=4096))
    assert spans(slots) == [("disk0p1", MIB, MIB)]


def test_raw_image_of_a_disk_with_4096() -> None:
    """Nothing says so but what is found at the starts."""
    pieces = {0: mbr((0, 0x83, 256, 256), (0, EBR, 1000, 1000)), 1000 * 4096: mbr((0, 0x83, 1, 9))}
    slots, _ = volumes(SparseDevice(16 * MIB, pieces))
    assert spans(slots) == [("disk0p1", MIB, MIB), ("disk0p5", 1001 * 4096, 9 * 4096)]
    slots, _ = volumes(SparseDevice(16 * MIB, {0: mbr((0, 0x83, 256, 256)), MIB: EXT}))
    assert spans(slots) == [("disk0p1", MIB, MIB)]


def test_little_used_disk_with_512_stays_one() -> None:
    table = mbr((0, 0x83, 256, 256))
    slots, _ = volumes(SparseDevice(16 * MIB, {0: table, 256 * 512: EXT}))
    assert spans(slots) == [("disk0p1", 256 * 512, 256 * 512)]
    slots, _ = volumes(SparseDevice(16 * MIB, {0: table}))
    assert spans(slots) == [("disk0p1", 256 * 512, 256 * 512)]
    # And a device that claims 4096 is not believed against what is found.
    slots, _ = volumes(SparseDevice(16 * MIB, {0: table, 256 * 512: EXT}, sector_size=4096))
    assert spans(slots) == [("disk0p1", 256 * 512, 256 * 512)]


def test_a_full_disk_is_not_probed_for_its_sector_size() -> None:
    device = CounterDevice(SparseDevice(16 * MIB, {0: mbr((0, 0x83, 2048, 30000))}))
    volumes(device)
    assert device.requests == 1
