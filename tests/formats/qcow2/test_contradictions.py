"""Tables that make no sense: an error where qemu has one, the same bytes where it reads; all else is still read."""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pseudomount.device import PseudoDisk
from pseudomount.errors import (
    CorruptionError,
    DamageError,
    EncryptedError,
    PseudomountError,
    TruncatedError,
    UnsupportedError,
)
from pseudomount.findings import FindingLog, Severity
from tests.support.qcow2 import create, disk_of, opened, qemu_io, raw_of

MIB = 1 << 20
CLUSTER = 65536
FLAG_COPIED, FLAG_COMPRESSED = 1 << 63, 1 << 62

pytestmark = pytest.mark.tools("qemu-img", "qemu-io")


def put(path: Path, offset: int, *words: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(f">{len(words)}Q", *words))


def get(path: Path, offset: int, count: int = 1) -> tuple[int, ...]:
    with path.open("rb") as file:
        file.seek(offset)
        return struct.unpack(f">{count}Q", file.read(8 * count))


def header32(path: Path, offset: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(">I", value))


def l1_of(path: Path) -> int:
    return get(path, 40)[0]


def l2_of(path: Path) -> int:
    return get(path, l1_of(path))[0] & 0x00FF_FFFF_FFFF_FE00


def image(folder: Path, *options: str) -> Path:
    """A disk of 2 MiB whose first 12 clusters hold their numbers."""
    path = create(folder / "vm.qcow2", 2 * MIB, *options)
    qemu_io(path, [f"write -P {i + 1} {i * CLUSTER} {CLUSTER}" for i in range(12)])
    return path


def qemu_reads(path: Path, cluster: int) -> bytes | None:
    """A cluster as qemu reads it, or None."""
    target = path.with_suffix(".part")
    source = f"driver=qcow2,file.driver=file,file.filename={path}"
    command = ["qemu-img", "dd", "--image-opts", f"if={source}", f"of={target}", "-O", "raw", f"bs={CLUSTER}"]
    command += [f"skip={cluster}", f"count={cluster + 1}"]
    if subprocess.run(command, cwd=path.parent, capture_output=True, check=False).returncode:
        return None
    return target.read_bytes()


def ours(device: PseudoDisk, cluster: int) -> bytes | None:
    try:
        return device.read(cluster * CLUSTER, CLUSTER)
    except DamageError:
        return None


#: Name → what entry 3 becomes (from what it was), options of the image.
ENTRIES: dict[str, tuple[Callable[[int], int], tuple[str, ...]]] = {
    "unaligned": (lambda was: was + 512, ()),
    "unaligned zero": (lambda was: (was + 512) | 1, ()),
    "reserved bits 1 to 8": (lambda was: was | 0x1FE, ()),
    "reserved bits 56 to 61": (lambda was: was | (0x3F << 56), ()),
    "not copied": (lambda was: was & ~FLAG_COPIED, ()),
    "zero and allocated": (lambda was: was | 1, ()),
    "zero in version 2": (lambda was: was | 1, ("compat=0.10",)),
    "zero and nothing in version 2": (lambda was: 1, ("compat=0.10",)),
    "nothing but a flag": (lambda was: FLAG_COPIED, ()),
    "the header": (lambda was: FLAG_COPIED, ()),
    "its own table": (lambda was: 4 * CLUSTER | FLAG_COPIED, ()),
    "another's cluster": (lambda was: was + CLUSTER, ()),
    "compressed nonsense": (lambda was: was | FLAG_COMPRESSED, ()),
    "compressed zero": (lambda was: FLAG_COMPRESSED, ()),
    "compressed, all bits": (lambda was: (1 << 64) - 1, ()),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry(tmp_path: Path, name: str) -> None:
    change, options = ENTRIES[name]
    path = image(tmp_path, *options)
    at = l2_of(path) + 3 * 8
    put(path, at, change(get(path, at)[0]))
    with opened(path) as device:
        assert ours(device, 3) == qemu_reads(path, 3)
        assert ours(device, 2) == bytes([3]) * CLUSTER
        assert ours(device, 4) == bytes([5]) * CLUSTER
        batch = device.read_many([2 * CLUSTER, 3 * CLUSTER, 4 * CLUSTER], [10, 10, 10])
        assert set(batch.errors) == ({1} if qemu_reads(path, 3) is None else set())
        assert int(device.extents().lengths.sum()) == device.size


@pytest.mark.parametrize("bitmap", [0, 1, 1 << 32, 1 | 1 << 32, 0xFFFF_FFFF << 32, 0xF0F0_0000_0F0F, (1 << 64) - 1])
@pytest.mark.parametrize("entry", ["allocated", "nothing", "bit 0"])
def test_a_bitmap_of_subclusters(tmp_path: Path, entry: str, bitmap: int) -> None:
    path = image(tmp_path, "extended_l2=on")
    at = l2_of(path) + 3 * 16
    was = get(path, at)[0]
    put(path, at, {"allocated": was, "nothing": 0, "bit 0": was | 1}[entry], bitmap)
    with opened(path) as device:
        assert ours(device, 3) == qemu_reads(path, 3)
        assert ours(device, 4) == bytes([5]) * CLUSTER
        assert device.read(3 * CLUSTER - 1, 1) == b"\3"


@pytest.mark.parametrize("change", [512, 1 << 56, 1, 0x1FE])
def test_an_l1_entry(tmp_path: Path, change: int) -> None:
    path = image(tmp_path)
    put(path, l1_of(path), get(path, l1_of(path))[0] | change)
    with opened(path) as device:
        assert ours(device, 3) == qemu_reads(path, 3)


def test_an_external_data_file_has_everything_in_its_place(tmp_path: Path) -> None:
    path = image(tmp_path, "data_file=vm.data")
    at = l2_of(path)
    first, second = get(path, at, 2)
    put(path, at, second, first)
    put(path, at + 24, get(path, at + 24)[0] | FLAG_COMPRESSED)
    put(path, at + 32, 0)
    with opened(path) as device:
        for cluster in (0, 1, 3):
            with pytest.raises(CorruptionError, match="external"):
                device.read(cluster * CLUSTER, 1)
        assert device.read(2 * CLUSTER, 1) == b"\3"
        assert ours(device, 4) == bytes(CLUSTER)
    for cluster in (0, 1, 3):
        assert qemu_reads(path, cluster) is None


# -- files that end early ------------------------------------------------------------------------------------------


def test_the_last_cluster_may_break_off(tmp_path: Path) -> None:
    path = image(tmp_path)
    last = get(path, l2_of(path) + 11 * 8)[0] & ~FLAG_COPIED
    with path.open("r+b") as file:
        file.truncate(last + 1000)
    with opened(path) as device:
        assert ours(device, 11) == bytes([12]) * 1000 + bytes(CLUSTER - 1000)
        assert ours(device, 11) == qemu_reads(path, 11)
        assert device.read(11 * CLUSTER + 5000, 10) == bytes(10)
        assert device.index.resolve([11 * CLUSTER + 5000], [10]).length.tolist() == [10]
        assert device.index.resolve([11 * CLUSTER], [1000]).length.tolist() == [1000]
        assert device.index.resolve([11 * CLUSTER], [1001]).length.tolist() == [1000, 1]


def test_what_lies_beyond_the_end_is_an_error_and_not_zeros(tmp_path: Path) -> None:
    """qemu reads zeros there. Who recovers files must be told instead."""
    path = image(tmp_path)
    last = get(path, l2_of(path) + 9 * 8)[0] & ~FLAG_COPIED
    with path.open("r+b") as file:
        file.truncate(last)
    with opened(path) as device:
        assert ours(device, 8) == bytes([9]) * CLUSTER
        for cluster in (9, 10, 11):
            with pytest.raises(TruncatedError, match="beyond the end"):
                device.read(cluster * CLUSTER, 1)
        assert ours(device, 12) == bytes(CLUSTER)


@pytest.mark.parametrize("left", [0, 8, 24, 100])
def test_a_table_that_breaks_off(tmp_path: Path, left: int) -> None:
    path = image(tmp_path)
    table = l2_of(path)
    end = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(table)
        content = file.read(CLUSTER)
        file.seek(end)
        file.write(content[:left])
    put(path, l1_of(path), end | FLAG_COPIED)
    with opened(path) as device:
        for cluster in range(13):
            expected = bytes([cluster + 1]) * CLUSTER if cluster < left // 8 else None
            assert ours(device, cluster) == expected


def test_an_l1_table_that_breaks_off(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", "3G")
    qemu_io(path, ["write -P 1 0 64k", "write -P 2 1G 64k"])
    l1 = get(path, l1_of(path), 6)
    end = path.stat().st_size
    put(path, end, *l1[:2])
    put(path, 40, end)
    findings = FindingLog()
    with opened(path, findings) as device:
        assert device.read(0, 2) == b"\1\1"
        assert device.read(512 * MIB, 2) == b"\0\0"
        for offset in (1 << 30, 2 << 30):
            with pytest.raises(TruncatedError, match="L1 entry beyond the end"):
                device.read(offset, 1)
    assert findings.worst == Severity.LOST
    put(path, 40, end + 5 * CLUSTER)
    with pytest.raises(TruncatedError, match="L1 table"):
        disk_of(path)


def test_tables_shared_and_tables_that_are_no_tables(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", "2G")
    qemu_io(path, ["write -P 1 0 64k", "write -P 2 64k 64k"])
    table, l1 = l2_of(path), l1_of(path)
    put(path, l1, table, table, l1, table)
    with opened(path) as device:
        for i in (0, 1, 3):
            assert device.read(i << 29, 2) == b"\1\1"
            assert device.read((i << 29) + CLUSTER, 2) == b"\2\2"
        for cluster in range(4):  # the L1 table as an L2 table: the tables are what the disk holds
            assert ours(device, (1 << 30) // CLUSTER + cluster) == qemu_reads(path, (1 << 30) // CLUSTER + cluster)


# -- headers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "value", "kind", "message"),
    [
        (4, 1, UnsupportedError, "QCOW image of version 1"),
        (4, 4, UnsupportedError, "version 4"),
        (20, 8, CorruptionError, r"clusters of 2\*\*8"),
        (20, 63, CorruptionError, r"clusters of 2\*\*63"),
        (20, 0xFFFFFFFF, CorruptionError, "clusters"),
        (24, 0x80000000, CorruptionError, "a disk of 9223372036854775808 bytes|a disk of"),
        (24, 0x7FFFFFFF, CorruptionError, "L1 table of"),
        (32, 1, EncryptedError, "AES"),
        (32, 2, EncryptedError, "LUKS"),
        (32, 7, UnsupportedError, "method 7"),
        (36, 0, CorruptionError, "L1 table of 0 entries"),
        (44, 1, CorruptionError, "no multiple"),
        (100, 0xFFFFFFF8, CorruptionError, "a header of"),
        (100, 96, CorruptionError, "a header of 96 bytes"),
        (100, 107, CorruptionError, "a header of 107 bytes"),
        (72, 1, UnsupportedError, "bit 32"),
        (76, 1 << 3, CorruptionError, "compression type 0"),
        (104, 1 << 24, CorruptionError, "compression type 1"),
        (104, 9 << 24, UnsupportedError, "unknown method 9"),
        (8, 1, None, ""),
    ],
)
def test_a_header(tmp_path: Path, offset: int, value: int, kind: type[Exception] | None, message: str) -> None:
    path = image(tmp_path)
    header32(path, offset, value)
    if kind is None:
        assert disk_of(path).index.size == 2 * MIB
        return
    with pytest.raises(kind, match=message):
        disk_of(path)
    info = subprocess.run(
        ["qemu-io", "-r", "-f", "qcow2", "-c", "read 0 1", str(path)], capture_output=True, check=False
    )
    encrypted = kind is EncryptedError
    assert encrypted or info.returncode or b"rror" in info.stdout + info.stderr, "qemu opens it"


def test_an_unknown_feature_is_named(tmp_path: Path) -> None:
    path = image(tmp_path)
    header32(path, 76, 1 << 9)
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack(">I", 0x6803_F857)) + 8
    content[at : at + 48] = bytes([0, 9]) + b"time travel".ljust(46, b"\0")
    path.write_bytes(content)
    with pytest.raises(UnsupportedError, match="time travel"):
        disk_of(path)


def test_luks(tmp_path: Path) -> None:
    path = tmp_path / "vm.qcow2"
    how = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
    command = ["qemu-img", "create", "-q", "--object", "secret,id=s,data=word", "-f", "qcow2", "-o", how]
    for _ in range(20):  # it measures how fast the processor is, and gives up where that is busy
        made = subprocess.run([*command, str(path), "1M"], capture_output=True, check=False, text=True)
        if "CPU usage" not in made.stderr:
            break
    if made.returncode:
        pytest.skip(f"this qemu-img makes no LUKS image: {made.stderr}")
    with pytest.raises(EncryptedError, match="LUKS"):
        disk_of(path)


def test_flags_that_are_findings(tmp_path: Path) -> None:
    path = image(tmp_path, "lazy_refcounts=on")
    truth = raw_of(path)
    header32(path, 76, 1)
    findings = FindingLog()
    with opened(path, findings) as device:
        assert device.read(0, device.size) == truth
    assert [finding.severity for finding in findings] == [Severity.NOTE]
    header32(path, 76, 2)
    findings = FindingLog()
    with opened(path, findings) as device:
        assert device.read(0, device.size) == truth
    assert [finding.severity for finding in findings] == [Severity.DEGRADED]


# -- compressed clusters -------------------------------------------------------------------------------------------


def packed(path: Path, stream: bytes, cluster: int = 3) -> None:
    """Puts a stream at the end of the file and makes a cluster of it; the entry claims more sectors than there are."""
    end = path.stat().st_size + 77
    with path.open("r+b") as file:
        file.seek(end)
        file.write(stream)
    shift = 62 - (16 - 8)
    sectors = (len(stream) + 511) // 512 + 3
    put(path, l2_of(path) + cluster * 8, FLAG_COMPRESSED | (sectors << shift) | end)


def deflated(data: bytes, bits: int = 12, level: int = 9) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -bits)
    return packer.compress(data) + packer.flush()


def test_streams(tmp_path: Path) -> None:
    path = image(tmp_path)
    far = (bytes(range(256)) * 96 + b"\0" * 8192)[: CLUSTER // 2] * 2  # repeats itself 32 KiB further on
    good = {"usual": deflated(far), "wide window": deflated(far, 15), "rest behind": deflated(far) + b"\xff" * 900}
    bad = {
        "short": deflated(far[:-1]),
        "empty": b"",
        "noise": b"\x06\xff\xff" * 100,
    }
    for name, stream in {**good, **bad}.items():
        packed(path, stream)
        with opened(path) as device:
            assert ours(device, 3) == (far if name in good else None), name
            assert ours(device, 3) == qemu_reads(path, 3), name
            assert ours(device, 2) == bytes([3]) * CLUSTER


def test_only_our_errors_carry_what_is_wrong(tmp_path: Path) -> None:
    path = image(tmp_path)
    packed(path, b"nonsense")
    with opened(path) as device, pytest.raises(PseudomountError) as caught:
        device.read(3 * CLUSTER, 1)
    assert isinstance(caught.value, DamageError)
    assert caught.value.offset == 3 * CLUSTER
