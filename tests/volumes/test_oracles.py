"""Disks that sfdisk, sgdisk, parted and mkfs make, and what sfdisk, sgdisk and partx see on them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from pseudomount.findings import Severity
from pseudomount.volumes.contract import VolumeSlot
from tests.support.images import ImageDevice
from tests.support.loop import run
from tests.volumes.craft import severities, volumes

MIB = 1 << 20


def make(image: Path, size: int) -> Path:
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(size)
    return image


def sfdisk(target: Path | str, script: str) -> None:
    run("sfdisk", "-q", target, stdin=script.encode())


def by_sfdisk(target: Path | str) -> list[dict[str, object]]:
    """start and size in bytes, type, name, uuid and bootable of every partition that is no extended one."""
    table = json.loads(run("sfdisk", "--json", target))["partitiontable"]
    unit = table.get("sectorsize", 512)
    rows = []
    for row in table["partitions"]:
        if row["type"] in ("5", "f", "85"):
            continue
        number = int(re.sub(r".*\D", "", row["node"][len(str(target)) :].removeprefix("p")))
        kind = row["type"].lower() if table["label"] == "gpt" else f"0x{int(row['type'], 16):02x}"
        disk_id = table["id"].removeprefix("0x")
        unique = row["uuid"].lower() if table["label"] == "gpt" else f"{disk_id}-{number:02x}"
        rows.append(
            {
                "number": number,
                "start": row["start"] * unit,
                "size": row["size"] * unit,
                "type": kind,
                "label": row.get("name", ""),
                "uuid": unique,
                "bootable": row.get("bootable", False) or "LegacyBIOSBootable" in row.get("attrs", ""),
            }
        )
    return rows


def by_partx(image: Path) -> list[tuple[int, int, int, str, str, str]]:
    """libblkid's view, which numbers as the kernel does: number, start, size, type, name, uuid."""
    found = []
    for line in run("partx", "-bPo", "NR,START,SECTORS,TYPE,NAME,UUID", image).splitlines():
        row = dict(part.split("=", 1) for part in shlex.split(line))
        if row["TYPE"] in ("0x5", "0xf", "0x85"):
            continue
        kind = f"0x{int(row['TYPE'], 16):02x}" if row["TYPE"].startswith("0x") else row["TYPE"]
        start, size = int(row["START"]) * 512, int(row["SECTORS"]) * 512
        name = re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), row["NAME"].encode()).decode()
        found.append((int(row["NR"]), start, size, kind, name, row["UUID"]))
    return found


def ours(image: Path, sector_size: int = 512) -> tuple[list[VolumeSlot], list[Severity]]:
    device = ImageDevice(image)
    device.sector_size = sector_size
    with device:
        slots, log = volumes(device)
    return slots, severities(log)


def as_sfdisk(slots: list[VolumeSlot]) -> list[dict[str, object]]:
    return [
        {
            "number": int(slot.name.removeprefix("disk0p")),
            "start": slot.start,
            "size": slot.size,
            "type": slot.type,
            "label": slot.label,
            "uuid": slot.uuid,
            "bootable": slot.bootable,
        }
        for slot in slots
    ]


def as_partx(slots: list[VolumeSlot]) -> list[tuple[int, int, int, str, str, str]]:
    return [
        (int(slot.name.removeprefix("disk0p")), slot.start, slot.size, slot.type, slot.label, slot.uuid)
        for slot in slots
    ]


@pytest.mark.tools("sfdisk", "partx")
@pytest.mark.parametrize("extended", ["5", "f", "85"])
def test_mbr_with_logical_partitions(tmp_path: Path, extended: str) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    sfdisk(image, f"label: dos\n,4M,L,*\n,4M,c\n,,{extended}\n,2M,7\n,3M,82\n,1M,83\n,,8e\n")
    slots, log = ours(image)
    assert [slot.name for slot in slots] == [f"disk0p{n}" for n in (1, 2, 5, 6, 7, 8)]
    assert as_sfdisk(slots) == by_sfdisk(image)
    assert as_partx(slots) == by_partx(image)
    assert not log
    run("sfdisk", "-q", "--delete", image, "6")
    slots, log = ours(image)
    assert as_partx(slots) == by_partx(image)
    assert not log
    run("sfdisk", "-q", "--delete", image, "5")  # the chain then begins with an empty table
    slots, log = ours(image)
    assert len(slots) == 4
    assert as_partx(slots) == by_partx(image)
    assert not log
    for _ in range(2):
        run("sfdisk", "-q", "--delete", image, "5")
    slots, log = ours(image)
    assert [slot.name for slot in slots] == ["disk0p1", "disk0p2"]
    assert not log


@pytest.mark.tools("sfdisk", "partx")
def test_gpt(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    sfdisk(
        image,
        "label: gpt\nfirst-lba: 34\n"
        'start=2048, size=4M, type=U, name="EFI"\n'
        'size=8M, type=L, attrs="LegacyBIOSBootable"\n'
        "start=34, size=1007K, type=S\n"
        'type=H, name="user data"\n',
    )
    slots, log = ours(image)
    assert len(slots) == 4
    assert [slot.label for slot in slots] == ["EFI", "", "", "user data"]
    assert as_sfdisk(slots) == by_sfdisk(image)
    assert as_partx(slots) == by_partx(image)
    assert not log


@pytest.mark.tools("sgdisk", "partx")
def test_gpt_by_sgdisk_to_the_last_sector(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    for command in (
        ("-S", "256"),
        ("-n", "200:66:4095", "-t", "200:ef02", "-c", "200:boot"),
        ("-n", "7:4096:0", "-t", "7:a502", "-c", r"7:Größe \xff", "-A", "7:set:2"),
    ):
        run("sgdisk", *command, image)
    slots, log = ours(image)
    assert as_partx(slots) == by_partx(image)
    for slot in slots:
        said = run("sgdisk", "-i", slot.name.removeprefix("disk0p"), image)
        seen = dict(re.findall(r"^([A-Z][\w ]+): (\S+)", said, re.M))
        assert seen["Partition GUID code"].lower() == slot.type
        assert seen["Partition unique GUID"].lower() == slot.uuid
        assert int(seen["First sector"]) * 512 == slot.start
        assert (int(seen["Last sector"]) + 1) * 512 == slot.start + slot.size
        assert bool(int(seen["Attribute flags"], 16) & 4) == slot.bootable
    assert [slot.type_name for slot in slots] == ["FreeBSD swap", "BIOS boot"]
    assert not log


@pytest.mark.tools("sgdisk", "partx")
@pytest.mark.parametrize(
    "damage", [512, 600, 604, 1024, 16000], ids=["header", "its end", "after it", "array", "its last part"]
)
def test_damaged_primary(tmp_path: Path, damage: int) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", "-c", "1:one", "-n", "2:0:0", "-c", "2:two", image)
    sound, log = ours(image)
    assert not log
    with image.open("r+b") as file:
        file.seek(damage)
        file.write(bytes.fromhex("0badc0de"))
    slots, log = ours(image)
    if damage == 604:  # past the 92 bytes that have a meaning
        assert not log
    else:
        assert log == [Severity.NOTE]
    assert as_sfdisk(slots) == as_sfdisk(sound)
    assert as_partx(slots) == by_partx(image)


@pytest.mark.tools("sgdisk", "truncate")
def test_grown_and_cut_disks(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", "-n", "2:0:0", image)
    sound, _ = ours(image)
    run("truncate", "-s", "80M", image)
    slots, log = ours(image)
    assert as_sfdisk(slots) == as_sfdisk(sound) == by_sfdisk(image)
    assert log == [Severity.NOTE]
    run("truncate", "-s", "20M", image)
    slots, log = ours(image)
    assert as_sfdisk(slots) == as_sfdisk(sound)
    assert log == [Severity.DEGRADED, Severity.DEGRADED]


@pytest.mark.tools("sgdisk", "partx")
def test_hybrid(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", "-t", "1:0700", "-n", "2:0:+4M", "-n", "3:0:0", image)
    run("sgdisk", "-h", "1:2", image)
    slots, log = ours(image)
    assert len(slots) == 3
    assert as_sfdisk(slots) == by_sfdisk(image)
    assert as_partx(slots) == by_partx(image)
    assert log == [Severity.NOTE]


@pytest.mark.tools("parted", "partx")
def test_parted(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    run(
        "parted", "-s", image, "mklabel", "msdos", "mkpart", "primary", "ext4", "1MiB", "9MiB",
        "mkpart", "extended", "9MiB", "100%", "mkpart", "logical", "fat32", "10MiB", "20MiB",
        "mkpart", "logical", "ntfs", "21MiB", "30MiB", "set", "5", "boot", "on",
    )  # fmt: skip
    slots, log = ours(image)
    assert [(slot.name, slot.type, slot.bootable) for slot in slots] == [
        ("disk0p1", "0x83", False),
        ("disk0p5", "0x0c", True),
        ("disk0p6", "0x07", False),
    ]
    assert as_partx(slots) == by_partx(image)
    assert not log
    run("parted", "-s", image, "mklabel", "gpt", "mkpart", "data", "1MiB", "100%", "set", "1", "lvm", "on")
    slots, log = ours(image)
    assert [(slot.label, slot.type_name) for slot in slots] == [("data", "Linux LVM")]
    assert as_partx(slots) == by_partx(image)
    assert not log


@pytest.mark.loop
@pytest.mark.tools("sfdisk")
@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_sectors_of_4096(tmp_path: Path, label: str) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    device = run("losetup", "--find", "--show", "--sector-size", "4096", image).strip()
    try:
        last = ",,L" if label == "gpt" else ",,5\n,4M,L\n,5M,L"
        sfdisk(device, f"label: {label}\n,4M,U\n,8M,L\n{last}\n")
        run("sync")
        expected = by_sfdisk(device)
    finally:
        run("losetup", "--detach", device)
    assert len(expected) == (3 if label == "gpt" else 4)
    for claimed in (4096, 512):
        slots, log = ours(image, claimed)
        assert as_sfdisk(slots) == expected
        assert not log


@pytest.mark.loop
@pytest.mark.tools("sgdisk")
def test_partitioned_anew_with_the_other_sector_size(tmp_path: Path) -> None:
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", image)
    device = run("losetup", "--find", "--show", "--sector-size", "4096", image).strip()
    try:
        run("sgdisk", "-Z", device)
        run("sgdisk", "-n", "1:256:+4M", "-n", "2:0:0", device)
        expected = by_sfdisk(device)
    finally:
        run("losetup", "--detach", device)
    slots, _ = ours(image)
    assert as_sfdisk(slots) == expected
    # And back again, as a plain file.
    run("sgdisk", "-Z", image)
    run("sgdisk", "-n", "1:2048:+8M", image)
    slots, _ = ours(image)
    assert as_sfdisk(slots) == by_sfdisk(image)


MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "ext2": ("mkfs.ext2", "-q", "-F", "-b", "1024"),
    "fat16": ("mkfs.fat", "-F", "16", "--mbr=n"),
    "fat32": ("mkfs.fat", "-F", "32"),
    "fat with a row": ("mkfs.fat", "--mbr=y"),
    "exfat": ("mkfs.exfat",),
    "ntfs": ("mkntfs", "-q", "-F", "-f"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "swap": ("mkswap", "-q"),
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=pytest.mark.tools(MAKERS[kind][0])) for kind in MAKERS])
def test_file_system_on_the_whole_disk(tmp_path: Path, kind: str) -> None:
    image = make(tmp_path / "disk.img", 320 * MIB)
    run(*MAKERS[kind], image)
    slots, log = ours(image)
    assert [(slot.name, slot.scheme, slot.size) for slot in slots] == [("disk0", "whole", 320 * MIB)]
    assert not log


@pytest.mark.tools("mkfs.fat", "sgdisk")
def test_file_system_made_over_a_gpt(tmp_path: Path) -> None:
    """mkfs.fat overwrites the beginning and leaves the backup GPT at the end."""
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("sgdisk", "-n", "1:2048:+8M", image)
    run("mkfs.fat", "--mbr=n", image)
    with image.open("rb") as file:
        file.seek(-512, 2)
        assert file.read(8) == b"EFI PART"
    slots, log = ours(image)
    assert [slot.scheme for slot in slots] == ["whole"]
    assert not log


@pytest.mark.tools("mkfs.fat", "sfdisk")
def test_table_made_over_a_file_system(tmp_path: Path) -> None:
    """sfdisk leaves the boot code, and with it what looks like a FAT boot sector."""
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("mkfs.fat", image)
    sfdisk(image, "label: dos\n2048,8M,83\n,8M,c,*\n")
    with image.open("rb") as file:
        assert file.read(11)[3:] == b"mkfs.fat"
    slots, log = ours(image)
    assert len(slots) == 2
    assert as_sfdisk(slots) == by_sfdisk(image)
    assert not log


@pytest.mark.tools("sgdisk", "mkfs.ext4", "debugfs")
def test_what_is_in_a_partition(tmp_path: Path) -> None:
    """The bytes of a volume are the bytes of the file system that was put there."""
    image = make(tmp_path / "disk.img", 64 * MIB)
    inner = make(tmp_path / "inner.img", 16 * MIB)
    run("mkfs.ext4", "-q", "-F", inner)
    run("sgdisk", "-n", "1:2048:+4M", "-n", f"2:0:+{16 * MIB // 1024}K", image)
    slots, _ = ours(image)
    start = slots[1].start
    with image.open("r+b") as file:
        file.seek(start)
        file.write(inner.read_bytes())
    with ImageDevice(image) as device:
        found, _ = volumes(device)
        assert found[1].size == 16 * MIB
        assert found[1].device.read(0, found[1].size) == inner.read_bytes()


@pytest.mark.tools("mke2fs", "sfdisk")
def test_table_in_the_boot_sector_of_an_ext_file_system(tmp_path: Path) -> None:
    """Both are whole: blkid calls the disk ext2, sfdisk lists the partitions. So both are offered."""
    image = make(tmp_path / "disk.img", 64 * MIB)
    run("mke2fs", "-q", "-t", "ext2", image)
    sfdisk(image, "2048,8M,83\n")
    slots, log = ours(image)
    assert [(slot.name, slot.start, slot.size) for slot in slots] == [
        ("disk0", 0, 64 * MIB),
        ("disk0p1", 2048 * 512, 8 * MIB),
    ]
    assert log == [Severity.NOTE]
