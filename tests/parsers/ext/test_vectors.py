"""Checksums, hashes, times, names and access control lists against published values and debugfs."""

from __future__ import annotations

import datetime as dt
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudomount.device import BlockDevice
from pseudomount.filesystem.columns import TimeColumn
from pseudomount_ext import _crc, _htree, _names, _super, _xattr
from pseudomount_ext._catalogue import parse_inodes
from tests.parsers.ext.images import FileDevice, debugfs, file_id, mkfs, open_image, run

# RFC 3720, appendix B.4, and the usual check value; CRC catalogues give these with the register inverted at the end.
CRC32C = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
]


@pytest.mark.parametrize(("data", "value"), CRC32C)
def test_crc32c_of_the_rfc(data: bytes, value: int) -> None:
    assert _crc.crc32c(_crc.START, data) ^ 0xFFFFFFFF == value


def test_crc16_check_values() -> None:
    rows = np.frombuffer(b"123456789", np.uint8).reshape(1, -1)
    # CRC-16/MODBUS starts with all bits set, CRC-16/ARC with none.
    assert int(_crc.crc16_rows(np.array([_crc.START], np.uint32), rows)[0]) == 0x4B37
    assert int(_crc.crc16_rows(np.array([0], np.uint32), rows)[0]) == 0xBB3D


def bit_by_bit(register: int, data: bytes) -> int:
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register


@given(st.binary(max_size=300), st.integers(0, 0xFFFFFFFF))
def test_crc32c_is_the_polynomial_division(data: bytes, seed: int) -> None:
    assert _crc.crc32c(seed, data) == bit_by_bit(seed, data)


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
def test_crc32c_of_a_word(seed: int, word: int) -> None:
    got = _crc.crc32c_words(np.array([seed], np.uint32), np.array([word], np.uint32))
    assert int(got[0]) == bit_by_bit(seed, struct.pack("<I", word))


def test_crc32c_of_long_rows_equals_the_chained_one() -> None:
    rows = np.random.default_rng(7).integers(0, 256, (3, 65_524), dtype=np.uint8)
    whole = _crc.crc32c_rows(np.full(3, 5, np.uint32), rows)
    for row, value in zip(rows, whole.tolist(), strict=True):
        assert _crc.crc32c(_crc.crc32c(5, row[:1000].tobytes()), row[1000:].tobytes()) == value


@pytest.mark.parametrize("length", [1, 63, 64, 65, 256, 1000])
def test_crc32c_of_many_rows_equals_that_of_each(length: int) -> None:
    rng = np.random.default_rng(length)
    rows = rng.integers(0, 256, (1500, length), dtype=np.uint8) * (rng.random(length) < 0.4)
    rows[7] = 0
    seeds = rng.integers(0, 1 << 32, 1500, dtype=np.uint32)
    got = _crc.crc32c_rows(seeds, rows.astype(np.uint8))
    assert got.tolist()[:20] == [bit_by_bit(int(seeds[i]), rows[i].tobytes()) for i in range(20)]
    assert got.tolist() == [_crc.crc32c(int(seeds[i]), rows[i].tobytes()) for i in range(1500)]


@pytest.mark.tools("mke2fs", "debugfs")
@pytest.mark.parametrize(("word", "version"), [("legacy", 0), ("half_md4", 1), ("tea", 2)])
def test_hashes_are_those_of_debugfs(tmp_path: Path, word: str, version: int) -> None:
    image = mkfs(tmp_path / "image", "1M")
    names = ["a", "hello", "x" * 15, "y" * 16, "z" * 17, "w" * 31, "v" * 32, "u" * 33, "q" * 255, "größe-✓", "ÿ" * 40]
    for seed_text in ("", "01020304-0506-0708-890a-bb0c0d0e0ff0"):
        seed = struct.unpack("<4I", bytes.fromhex(seed_text.replace("-", ""))) if seed_text else (0, 0, 0, 0)
        option = f"-s {seed_text}" if seed_text else ""
        told = debugfs(image, *(f"dx_hash -h {word} {option} {name}" for name in names), write=False)
        expected = [line.split(" is ")[1] for line in told.splitlines() if line.startswith("Hash of")]
        got = [_htree.name_hash(name.encode(), version, (seed[0], seed[1], seed[2], seed[3])) for name in names]
        assert [f"0x{major:08x} (minor 0x{minor:08x})" for major, minor in got] == [
            f"0x{int(line.split()[0], 16):08x} (minor 0x{int(line.split()[2].rstrip(')'), 16):08x})"
            for line in expected
        ]


def test_unsigned_hashes_differ_for_bytes_beyond_ascii_only() -> None:
    for version in (0, 1, 2):
        assert _htree.name_hash(b"plain", version, (0,) * 4) == _htree.name_hash(b"plain", version + 3, (0,) * 4)
        assert _htree.name_hash(b"\xff!", version, (0,) * 4) != _htree.name_hash(b"\xff!", version + 3, (0,) * 4)


# The table of "Inode Timestamps" in the kernel's ext4 documentation: epoch bits, sign bit, first and last date.
EPOCHS = [
    (0, 1, (1901, 12, 13), (1969, 12, 31)),
    (0, 0, (1970, 1, 1), (2038, 1, 19)),
    (1, 1, (2038, 1, 19), (2106, 2, 7)),
    (1, 0, (2106, 2, 7), (2174, 2, 25)),
    (2, 1, (2174, 2, 25), (2242, 3, 16)),
    (2, 0, (2242, 3, 16), (2310, 4, 4)),
    (3, 1, (2310, 4, 4), (2378, 4, 22)),
    (3, 0, (2378, 4, 22), (2446, 5, 10)),
]


def superblock(inode_size: int) -> _super.Superblock:
    raw = bytearray(1024)
    for at, form, value in (
        (0x0, "<I", 16),
        (0x4, "<I", 64),
        (0x14, "<I", 1),
        (0x20, "<I", 8192),
        (0x28, "<I", 16),
        (0x38, "<H", 0xEF53),
        (0x4C, "<I", 1),
        (0x58, "<H", inode_size),
    ):
        struct.pack_into(form, raw, at, value)
    parsed = _super.parse(bytes(raw))
    assert parsed is not None
    return parsed


def inode_times(seconds: int, extra: int, inode_size: int = 256, extra_isize: int = 32) -> list[TimeColumn]:
    raw = np.zeros((1, inode_size), np.uint8)
    view = memoryview(raw[0])
    for at in (0x8, 0xC, 0x10):
        struct.pack_into("<I", view, at, seconds)
    if inode_size > 128:
        struct.pack_into("<H", view, 0x80, extra_isize)
        struct.pack_into("<I", view, 0x90, seconds)
        for at in (0x84, 0x88, 0x8C, 0x94):
            struct.pack_into("<I", view, at, extra)
    inodes = parse_inodes(raw, np.ones(1, np.int64), superblock(inode_size))
    return [inodes.accessed, inodes.changed, inodes.modified, inodes.created]


@pytest.mark.parametrize(("epoch", "sign", "first", "last"), EPOCHS)
def test_times_of_the_documentation(
    epoch: int, sign: int, first: tuple[int, int, int], last: tuple[int, int, int]
) -> None:
    low, high = (0x80000000, 0xFFFFFFFF) if sign else (0, 0x7FFFFFFF)
    for seconds, date in ((low, first), (high, last)):
        for column in inode_times(seconds, 123_456_789 << 2 | epoch):
            exact = column.exact(0)
            assert exact is not None
            when = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=exact[0])
            assert (when.year, when.month, when.day) == date
            assert exact[1] == 123_456_789


def test_times_without_room_for_more() -> None:
    *times, created = inode_times(0xFFFFFFFF, 0, 128)
    assert [column.exact(0) for column in times] == [(-1, 0)] * 3
    assert created.exact(0) is None
    # An inode of 256 bytes may say that it uses less: here up to the extra bits of ctime.
    accessed, changed, modified, created = inode_times(5, 7 << 2 | 1, 256, 8)
    assert changed.exact(0) == (5 + (1 << 32), 7)
    assert (accessed.exact(0), modified.exact(0), created.exact(0)) == ((5, 0), (5, 0), None)


@pytest.mark.tools("mke2fs", "debugfs")
def test_times_as_debugfs_shows_them(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image", "2M", "-I", "256")
    source = tmp_path / "source"
    source.touch()
    wanted = {"before": 0x90000000, "after": 0x12345678}
    debugfs(
        image,
        *(f"write {source} {name}" for name in wanted),
        *(f"set_inode_field {name} mtime @{seconds:#x}" for name, seconds in wanted.items()),
        "set_inode_field before mtime_extra 0x0",
        "set_inode_field after mtime_extra 0x1",
    )
    fs, _ = open_image(image)
    rows = fs.rows(np.array([file_id(fs, name) for name in wanted], np.uint64))
    assert rows.modified.exact(0) == (0x90000000 - (1 << 32), 0)
    told = debugfs(image, "stat after", write=False)
    assert "mtime: 0x12345678:00000001" in told
    assert rows.modified.exact(1) == (0x12345678 + (1 << 32), 0)


def test_acl_of_the_documentation() -> None:
    # user::rwx, user:1000:rw-, group::r-x, mask::rwx, other::r-x
    disk = struct.pack("<I HH HHI HH HH HH", 1, 1, 7, 2, 6, 1000, 4, 5, 0x10, 7, 0x20, 5)
    none = 0xFFFFFFFF
    rows = [(1, 7, none), (2, 6, 1000), (4, 5, none), (0x10, 7, none), (0x20, 5, none)]
    shown = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    assert _xattr.acl_as_xattr(disk) == shown
    assert _xattr.acl_as_xattr(disk[:-1]) is None
    assert _xattr.acl_as_xattr(b"\x02" + disk[1:]) is None


@pytest.mark.tools("mke2fs", "setfacl", "setfattr")
@pytest.mark.parametrize("options", [("-I", "256"), ("-I", "128"), ("-I", "1024"), ("-O", "ea_inode")], ids=str)
def test_attributes_are_what_the_kernel_gives(tmp_path: Path, options: tuple[str, ...]) -> None:
    if sys.platform != "linux":
        pytest.skip("the oracle is Linux's own extended attributes")
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    (tree / "f").touch()
    try:
        run("setfacl", "-m", "u:1000:rw,u:5:r,g:70000:rx", tree / "f")
        run("setfacl", "-d", "-m", "u:7:rwx", tree / "d")
        run("setfattr", "-n", "user.comment", "-v", "hello", tree / "f")
        run("setfattr", "-n", "user.long", "-v", "0x" + "ab" * 700, tree / "f")
        run("setfattr", "-n", "user.empty", tree / "f")
    except AssertionError as error:
        pytest.skip(f"the folder for temporary files has no such attributes: {error}")
    image = mkfs(tmp_path / "image", "8M", "-b", "4096", *options, tree=tree)
    if "ea_inode" in options:  # too long for a block, and so in an inode of its own; debugfs writes no longer ones
        (tmp_path / "value").write_bytes(b"\xcd" * 4090)
        debugfs(image, f"ea_set -f {tmp_path}/value d user.own-inode")
    fs, log = open_image(image)
    for name in ("d", "f"):
        truth = {key: os.getxattr(tree / name, key) for key in os.listxattr(tree / name)}
        if "ea_inode" in options and name == "d":
            truth["user.own-inode"] = b"\xcd" * 4090
        assert fs.xattrs(file_id(fs, name)) == truth
    assert list(log) == []


def test_folding() -> None:
    # CaseFolding.txt, status C and F, and UAX 15: canonical equivalence; the kernel's fold ignores U+00AD.
    same = [
        ("README", "readme"),
        ("Straße", "STRASSE"),
        ("\u00c5ngstro\u0308m", "a\u030angstr\u00f6m"),
        ("\u1e9e", "ss"),
        ("\u03a3\u03c2", "\u03c3\u03c3"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\u0130", "i\u0307"),
    ]
    for a, b in same:
        assert _names.fold(a.encode()) == _names.fold(b.encode())
    for a, b in [("i", "\u0131"), ("\ufb01x", "f-x"), ("K", "k\u0301"), ("\u2460", "1")]:
        assert _names.fold(a.encode()) != _names.fold(b.encode())
    assert _names.fold(b"\xffA") == b"\xffA"


@pytest.mark.tools("mke2fs", "debugfs")
def test_lookup_in_a_casefolded_directory(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "plain").mkdir(parents=True)
    (tree / "folded").mkdir()
    for folder in ("plain", "folded"):
        (tree / folder / "Straße.TXT").touch()
    image = mkfs(tmp_path / "image", "4M", "-E", "encoding=utf8-12.1", tree=tree)
    debugfs(image, "set_inode_field folded flags 0x40080000")
    fs, _ = open_image(image)
    folders = np.array([file_id(fs, "plain"), file_id(fs, "folded")], np.uint64)
    assert fs.lookup(folders, [b"STRASSE.txt"] * 2).found.tolist() == [False, True]
    assert fs.lookup(folders, ["Straße.TXT".encode()] * 2).found.tolist() == [True, True]


def test_no_key_names() -> None:
    # base64url of two words of hash, up to 149 bytes, and SHA-256 of what is left.
    short = _names.no_key_name(b"\x01" * 16, 1, (1, 2, 3, 4))
    assert len(short) == 32
    assert not set(short) & set(b"+/=")
    long = _names.no_key_name(b"\x02" * 250, 1, (1, 2, 3, 4))
    assert len(long) == 252
    assert long[:11] != short[:11]
    assert _names.no_key_name(b"..", 1, (1, 2, 3, 4)) == b".."


def test_the_file_device_of_these_tests_is_a_device(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    device: BlockDevice = FileDevice(tmp_path / "x")
    assert device.read(3, 4) == b"3456"
