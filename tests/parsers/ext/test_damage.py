"""Damaged and forged volumes: each damage costs what depends on it, is told, and the rest is read."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import (
    CorruptionError,
    DamageError,
    EncryptedError,
    NotASymlinkError,
    PseudomountError,
    UnsupportedError,
)
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing.devices import MemoryDevice
from pseudomount_ext import ExtFileSystem, ExtParser
from pseudomount_ext._crc import START, crc32c
from tests.parsers.ext.images import debugfs, doubts, file_id, mkfs, on_disk, open_image, run, sample_tree, walk

pytestmark = pytest.mark.tools("mke2fs", "debugfs")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_tree(tmp_path_factory.mktemp("source") / "tree")


def forge(raw: bytes | bytearray, name: str = "forged") -> tuple[ExtFileSystem, FindingLog]:
    log = FindingLog()
    return ExtParser().open(MemoryDevice(bytes(raw), name=name), log), log


def u32(raw: bytes | bytearray, at: int) -> int:
    return int.from_bytes(raw[at : at + 4], "little")


def small(tmp_path: Path, *options: str, tree: Path | None = None, kind: str = "ext4") -> bytearray:
    return bytearray(mkfs(tmp_path / "image", "4M", "-b", "1024", *options, kind=kind, tree=tree).read_bytes())


def inode_offset(image: Path, path: str) -> int:
    told = debugfs(image, f"imap {path}", write=False)
    block, offset = told.split("located at block ")[1].split(", offset ")
    return int(block) * 1024 + int(offset, 16)


# -- the superblock and its like ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("-b", "1024"),
        ("-b", "2048"),
        ("-b", "1024", "-O", "sparse_super2,^resize_inode"),
        ("-b", "1024", "-O", "meta_bg,^resize_inode"),
        ("-b", "1024", "-O", "^metadata_csum,^uninit_bg"),
        ("-b", "1024", "-O", "bigalloc", "-C", "4096"),
    ],
    ids=str,
)
def test_a_backup_of_the_superblock_and_the_descriptors(tmp_path: Path, tree: Path, options: tuple[str, ...]) -> None:
    image = mkfs(tmp_path / "image", "80M", *options, tree=tree)
    with image.open("r+b") as file:
        file.write(b"\xff" * 4096)
    fs, log = open_image(image)
    match = ExtParser().probe(fs.device)
    assert match is not None
    assert (match.filesystem, match.score) == ("ext4", 50)
    found = walk(fs)
    del found.files["lost+found"]
    assert found.files == on_disk(tree)
    assert found.errors == []
    assert any("backup in block group 1" in finding.message for finding in log)


def test_a_superblock_with_a_bad_checksum_yields_to_its_backup(tmp_path: Path) -> None:
    raw = bytearray(mkfs(tmp_path / "image", "12M", "-b", "1024").read_bytes())
    raw[1024 + 0x28] ^= 0x10  # inodes_per_group, which would move every inode
    fs, log = forge(raw)
    assert [finding.severity for finding in log] == [Severity.NOTE]
    assert walk(fs).errors == []


def test_a_bad_checksum_without_a_backup_is_told(tmp_path: Path) -> None:
    raw = small(tmp_path)
    raw[1024 + 0x78] ^= 1  # the label
    fs, log = forge(raw)
    assert [finding.message for finding in doubts(log)] == ["the superblock does not fit its checksum"]
    assert "lost+found" in walk(fs).files
    assert ExtParser().probe(fs.device) is not None


@pytest.mark.parametrize("options", [("-O", "metadata_csum"), ("-O", "^metadata_csum,uninit_bg")], ids=str)
def test_damaged_descriptors_are_taken_from_a_backup(tmp_path: Path, tree: Path, options: tuple[str, ...]) -> None:
    image = mkfs(tmp_path / "image", "80M", "-b", "1024", *options, tree=tree)
    raw = bytearray(image.read_bytes())
    raw[2048 + 8] ^= 0x40
    fs, log = forge(raw)
    found = walk(fs)
    del found.files["lost+found"]
    assert found.files == on_disk(tree)
    assert [finding.structure for finding in log] == ["group descriptor"] * 2
    assert log.worst is Severity.DEGRADED


def test_an_unknown_feature_is_named(tmp_path: Path) -> None:
    raw = small(tmp_path)
    for bit, name in ((1 << 12, "dirdata"), (1 << 25, "0x2000000")):
        forged = bytearray(raw)
        struct.pack_into("<I", forged, 1024 + 0x60, u32(raw, 1024 + 0x60) | bit)
        struct.pack_into("<I", forged, 1024 + 0x3FC, crc32c(START, bytes(forged[1024 : 1024 + 0x3FC])))
        with pytest.raises(UnsupportedError, match=name):
            forge(forged)


def test_a_journal_device_is_no_file_system(tmp_path: Path) -> None:
    image = tmp_path / "journal"
    run("truncate", "-s", "16M", image)
    run("mke2fs", "-q", "-F", "-O", "journal_dev", "-b", "4096", image)
    fs_device = MemoryDevice(image.read_bytes())
    assert ExtParser().probe(fs_device) is None
    with pytest.raises(CorruptionError):
        ExtParser().open(fs_device, FindingLog())


@pytest.mark.parametrize("content", [b"", bytes(100), bytes(1 << 20), b"\x53\xef" * 4096], ids=len)
def test_what_is_no_ext_at_all(content: bytes) -> None:
    device = MemoryDevice(content)
    assert ExtParser().probe(device) is None
    with pytest.raises(CorruptionError):
        ExtParser().open(device, FindingLog())


def test_the_state_of_the_volume_is_noted(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image", "4M", "-b", "1024", "-O", "^metadata_csum")
    assert list(open_image(image)[1]) == []
    debugfs(image, "feature needs_recovery")
    _, log = open_image(image)
    assert [finding.message for finding in log] == ["the journal was not replayed: the newest changes may be missing"]
    debugfs(image, "feature -needs_recovery", "set_super_value state 2")
    _, log = open_image(image)
    assert [finding.severity for finding in log] == [Severity.NOTE] * 2


def test_a_copy_that_ends_early(tmp_path: Path, tree: Path) -> None:
    raw = mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree).read_bytes()
    fs, _ = forge(raw)
    last = fs.runs(np.array([file_id(fs, "file-270000")], np.uint64))
    fs, log = forge(raw[: int(last.position[0]) + 100_000])
    assert any("cut off" in finding.message for finding in log)
    found = walk(fs)
    truth = on_disk(tree)
    good = {path for path, seen in found.files.items() if seen == truth.get(path)}
    assert {"fast", "file-1", "a/b/c/d/leaf"} <= good  # what lies in the part that is there
    assert "file-270000" not in good
    assert found.errors
    assert all(isinstance(error, DamageError) for error in found.errors)


# -- checksums ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def summed(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "many").mkdir(parents=True)
    for i in range(300):
        (tree / "many" / f"entry-{i:03}-of-many").touch()
    with (tree / "deep").open("wb") as file:
        for i in range(20):
            file.seek(i * 2048)
            file.write(b"x")
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", "-I", "128", tree=tree)
    (tmp_path / "value").write_bytes(b"v" * 100)
    debugfs(image, f"ea_set -f {tmp_path}/value deep user.x")
    run("e2fsck", "-fyD", image)
    return image


def first_block(image: Path, what: str) -> int:
    return int(debugfs(image, what, write=False).split()[0])


CHECKED: dict[str, tuple[Callable[[Path], int], int, str]] = {
    "inode": (lambda image: inode_offset(image, "deep"), 0x64, "inode"),
    "directory block": (lambda image: first_block(image, "bmap / 0") * 1024, 1023, "directory block"),
    "hash tree root": (lambda image: first_block(image, "bmap many 0") * 1024, 1023, "hash tree node"),
    "hash tree leaf": (lambda image: first_block(image, "bmap many 1") * 1024, 1023, "directory block"),
    "extent block": (
        lambda image: int(debugfs(image, "extents deep", write=False).splitlines()[1].split()[7]) * 1024,
        1023,
        "extent tree block",
    ),
    "attribute block": (
        lambda image: int(debugfs(image, "stat deep", write=False).split("File ACL: ")[1].split()[0]) * 1024,
        0x10,
        "extended attribute",
    ),
}


@pytest.mark.parametrize("what", CHECKED)
def test_a_checksum_that_does_not_fit_is_a_finding(summed: Path, what: str) -> None:
    place, within, structure = CHECKED[what]
    raw = bytearray(summed.read_bytes())
    fs, log = forge(raw)
    truth = walk(fs)
    fs.xattrs(truth.ids["deep"])
    assert list(log) == []
    at = place(summed)
    raw[at + within] ^= 0x81
    fs, log = forge(raw)
    found = walk(fs)
    assert fs.xattrs(found.ids["deep"]) == {"user.x": b"v" * 100}
    assert (found.files, found.errors) == (truth.files, [])
    told = {(finding.severity, finding.structure, finding.offset) for finding in log}
    if what == "inode":  # its generation is part of all its checksums
        assert (Severity.DEGRADED, structure, at) in told
    else:
        assert told == {(Severity.DEGRADED, structure, at)}


# -- inodes ------------------------------------------------------------------------------------------------------------


def test_a_deleted_inode_that_a_directory_names(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("gone", "here"):
        (tree / name).write_text(name)
    image = mkfs(tmp_path / "image", "4M", "-b", "1024", tree=tree)
    debugfs(image, "set_inode_field gone links_count 0", "set_inode_field gone dtime 0x60000000")
    fs, _ = open_image(image)
    number = file_id(fs, "gone")
    rows = fs.rows(np.array([file_id(fs, "here"), number, 1 << 40, 0, fs.root], np.uint64))
    assert list(rows.errors) == [1, 2, 3] or sorted(rows.errors) == [1, 2, 3]
    assert "deleted" in str(rows.errors[1])
    assert rows.type.tolist()[1:4] == [0, 0, 0]
    assert rows.size[0] == 4
    for call in (fs.open, fs.xattrs):
        with pytest.raises(CorruptionError, match="deleted"):
            call(number)
    found = walk(fs)
    assert found.files["here"].size == 4


def test_numbers_that_make_no_sense(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 5000)
    (tree / "link").symlink_to("z" * 100)
    raw = small(tmp_path, "-O", "^metadata_csum", tree=tree)
    image = tmp_path / "image"
    file, link = inode_offset(image, "file"), inode_offset(image, "link")

    huge = bytearray(raw)
    struct.pack_into("<I", huge, file + 0x6C, 0xFFFFFFFF)
    fs, log = forge(huge)
    number = file_id(fs, "file")
    assert fs.rows(np.array([number], np.uint64)).size.tolist() == [-1]
    assert "2**63" in doubts(log)[0].message
    with pytest.raises(CorruptionError):
        fs.open(number)

    extra = bytearray(raw)
    struct.pack_into("<H", extra, file + 0x80, 0xFFFF)
    fs, log = forge(extra)
    assert fs.rows(np.array([number], np.uint64)).size.tolist() == [5000]
    assert len(doubts(log)) == 1

    for size in (0, 0xFFFFFFFF, 1025):
        odd = bytearray(raw)
        struct.pack_into("<I", odd, link + 4, size)
        fs, _ = forge(odd)
        targets = fs.readlink(np.array([file_id(fs, "link"), number], np.uint64))
        assert isinstance(targets.errors[0], CorruptionError)
        assert isinstance(targets.errors[1], NotASymlinkError)
        assert targets.target.tolist() == [b"", b""]


def test_encrypted_files_are_not_given_raw(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "file").write_bytes(b"cipher" * 1000)
    (tree / "link").symlink_to("s" * 80)
    (tree / "dir" / "ciphertext-name").touch()
    image = mkfs(tmp_path / "image", "4M", "-b", "1024", "-O", "encrypt", tree=tree)
    debugfs(
        image,
        "set_inode_field file flags 0x80800",
        "set_inode_field link flags 0x80800",
        "set_inode_field dir flags 0x80800",
    )
    fs, _ = open_image(image)
    files = np.array([file_id(fs, "file"), file_id(fs, "link"), file_id(fs, "dir")], np.uint64)
    with pytest.raises(EncryptedError):
        fs.open(int(files[0]))
    assert isinstance(fs.readlink(files[1:2]).errors[0], EncryptedError)
    assert fs.runs(files[:1]).encoded.tolist() == [True]
    (name,) = fs.children(files[2:]).name
    assert b"ciphertext" not in name
    assert fs.lookup(files[2:], [name]).found.tolist() == [True]


# -- trees of blocks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def forgeable(tmp_path: Path) -> tuple[bytearray, int, int]:
    """A volume with a file of two extents without checksums, where its inode is, and its number."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "other").write_bytes(b"other")
    with (tree / "file").open("wb") as file:
        file.write(b"A" * 4096)
        file.seek(1 << 20)
        file.write(b"B" * 4096)
    raw = small(tmp_path, "-O", "^metadata_csum", tree=tree)
    fs, _ = forge(raw)
    return raw, inode_offset(tmp_path / "image", "file") + 0x28, file_id(fs, "file")


def header(entries: int, most: int, depth: int, magic: int = 0xF30A) -> bytes:
    return struct.pack("<HHHHI", magic, entries, most, depth, 0)


def extent(logical: int, length: int, physical: int) -> bytes:
    return struct.pack("<IHHI", logical, length, physical >> 32, physical & 0xFFFFFFFF)


def index(logical: int, block: int) -> bytes:
    return struct.pack("<IIHH", logical, block & 0xFFFFFFFF, block >> 32, 0)


BAD_ROOTS = {
    "magic": header(1, 4, 0, 0xF30B) + extent(0, 1, 100),
    "more than fit": header(5, 4, 0) + extent(0, 1, 100),
    "more than the inode holds": header(5, 340, 0) + extent(0, 1, 100),
    "too deep": header(1, 4, 6) + index(0, 100),
    "no children": header(0, 4, 1),
    "overlap": header(2, 4, 0) + extent(0, 5, 100) + extent(4, 1, 200),
    "out of order": header(2, 4, 0) + extent(5, 1, 100) + extent(0, 1, 200),
    "empty extent": header(1, 4, 0) + extent(0, 0, 100),
    "past the last block": header(1, 4, 0) + extent(0xFFFFFFFF, 2, 100),
    "child outside": header(1, 4, 1) + index(0, 1 << 40),
    "child is the superblock": header(1, 4, 1) + index(0, 1),
    "child is no node": header(1, 4, 1) + index(0, 2),
    "data outside": header(1, 4, 0) + extent(0, 10, 1 << 45),
    "data over the end": header(1, 4, 0) + extent(0, 10, 4090),
}


@pytest.mark.parametrize("kind", BAD_ROOTS)
def test_forged_extents(forgeable: tuple[bytearray, int, int], kind: str) -> None:
    raw, at, number = forgeable
    raw[at : at + 60] = BAD_ROOTS[kind].ljust(60, b"\0")
    fs, _ = forge(raw)
    runs = fs.runs(np.array([number], np.uint64))
    assert isinstance(runs.errors[0], CorruptionError)
    assert len(runs) == 0
    with pytest.raises(CorruptionError):
        fs.open(number)
    with fs.open(file_id(fs, "other")) as content:
        assert content.read(0, 5) == b"other"


def test_damage_to_a_part_of_a_file_costs_that_part(forgeable: tuple[bytearray, int, int]) -> None:
    raw, at, number = forgeable
    good = fs_position(raw, number)
    raw[at : at + 60] = (header(2, 4, 0) + extent(0, 4, good) + extent(1024, 4, 1 << 33)).ljust(60, b"\0")
    fs, log = forge(raw)
    with fs.open(number) as content:
        assert content.read(0, 4096) == b"A" * 4096
        assert content.read(4096, 1000) == bytes(1000)
        with pytest.raises(CorruptionError):
            content.read(1 << 20, 1)
        batch = content.read_many([0, 1 << 20, 5000], 10)
        assert list(batch.errors) == [1]
        assert str(batch.errors[1]) == (
            "4 blocks from block 1024 of the file on cannot be found: they are said to lie at block 8589934592, "
            "outside the volume"
        )
    assert doubts(log)[0].file == number
    # Reading it anew tells nothing new.
    log.add_error(batch.errors[1], file=number, path="/file")
    assert [(finding.file, finding.path) for finding in doubts(log)] == [(number, "/file")]


def test_each_damaged_part_says_its_own_damage(forgeable: tuple[bytearray, int, int]) -> None:
    raw, at, number = forgeable
    block = 3000  # and behind it zeros, which are no node
    raw[block * 1024 : (block + 1) * 1024] = (header(1, 84, 0) + extent(0, 4, 2000)).ljust(1024, b"\0")
    raw[at : at + 60] = (header(3, 4, 1) + index(0, block) + index(10, block + 1) + index(1000, 1 << 40)).ljust(
        60, b"\0"
    )
    fs, _ = forge(raw)
    with fs.open(number) as content:
        assert content.read(0, 4096) == bytes(raw[2000 * 1024 : 2004 * 1024])
        batch = content.read_many([0, 10 << 10, 1000 << 10], 10)
    damage = {i: error for i, error in batch.errors.items() if isinstance(error, CorruptionError)}
    assert {i: (str(error), error.offset, error.structure) for i, error in damage.items()} == {
        1: (
            f"990 blocks from block 10 of the file on cannot be found: the extent tree node in block {block + 1} makes "
            "no sense",
            (block + 1) * 1024,
            "extent tree block",
        ),
        2: (
            "4294966296 blocks from block 1000 of the file on cannot be found: their extent tree block is said to lie "
            "at block 1099511627776, outside the volume",
            None,
            "extent tree block",
        ),
    }


def fs_position(raw: bytearray, number: int) -> int:
    fs, _ = forge(raw)
    return int(fs.runs(np.array([number], np.uint64)).position[0]) // 1024


def test_trees_that_turn_back_on_themselves(forgeable: tuple[bytearray, int, int]) -> None:
    raw, at, number = forgeable
    block = 3000
    raw[at : at + 60] = (header(1, 4, 5) + index(0, block)).ljust(60, b"\0")
    # The node is its own child, at each depth that it can claim.
    for depth in (4, 3, 0):
        body = header(2, 84, depth) + index(0, block) + index(50, block)
        raw[block * 1024 : (block + 1) * 1024] = body.ljust(1024, b"\0")
        fs, _ = forge(raw)
        assert isinstance(fs.runs(np.array([number], np.uint64)).errors[0], CorruptionError)
    # Two indexes of one node lead to the same leaf.
    raw[at : at + 60] = (header(2, 4, 1) + index(0, block) + index(100, block)).ljust(60, b"\0")
    raw[block * 1024 : (block + 1) * 1024] = (header(1, 84, 0) + extent(0, 4, 2000)).ljust(1024, b"\0")
    fs, _ = forge(raw)
    runs = fs.runs(np.array([number], np.uint64))
    assert "used twice" in str(runs.errors[0])
    assert runs.offset.tolist() == [0]


def test_indirect_blocks_that_turn_back_on_themselves(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 5000)
    raw = small(tmp_path, tree=tree, kind="ext2")
    at = inode_offset(tmp_path / "image", "file")
    block = 3000
    raw[block * 1024 : (block + 1) * 1024] = struct.pack("<256I", *[block] * 256)
    struct.pack_into("<3I", raw, at + 0x28 + 48, block, block, block)
    struct.pack_into("<II", raw, at + 4, 0xFFFFFFFF, 0)
    struct.pack_into("<I", raw, at + 0x6C, 0x3F)
    fs, _ = forge(raw)
    number = file_id(fs, "file")
    runs = fs.runs(np.array([number], np.uint64))
    assert "used twice" in str(runs.errors[0])
    assert len(runs) < 2000
    with fs.open(number) as content:
        assert content.read(0, 5000) == b"x" * 5000
        with pytest.raises(CorruptionError):
            content.read(1 << 30, 1)


# -- directories -------------------------------------------------------------------------------------------------------


def dirent(inode: int, length: int, name: bytes, kind: int = 1) -> bytes:
    return (struct.pack("<IHBB", inode, length, len(name), kind) + name).ljust(length, b"\0")


@pytest.mark.parametrize(
    ("forged", "kept"),
    [
        (dirent(12, 8, b""), []),
        (dirent(12, 13, b"odd"), []),
        (dirent(12, 12, b"toolongname"), []),
        (dirent(12, 0, b""), []),
        (dirent(12, 60_000, b"past")[:1000], []),
        (dirent(1 << 30, 16, b"number") + dirent(12, 984, b"after"), [b"after"]),
        (dirent(12, 16, b"a/b") + dirent(12, 984, b"after"), [b"after"]),
        (dirent(12, 16, b"a\0b") + dirent(12, 984, b"after"), [b"after"]),
        (dirent(12, 16, b"first") + dirent(12, 980, b"x"), [b"first", b"x"]),
    ],
    ids=["short", "unaligned", "name", "zero", "long", "inode", "slash", "nul", "gap"],
)
def test_forged_entries(tmp_path: Path, forged: bytes, kept: list[bytes]) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "file").touch()
    raw = small(tmp_path, "-O", "^metadata_csum", tree=tree)
    at = first_block(tmp_path / "image", "bmap dir 0") * 1024
    raw[at + 12 : at + 24] = dirent(2, 12, b"..", 2)
    raw[at + 24 : at + 1024] = forged.ljust(1000, b"\0")
    fs, _ = forge(raw)
    links = fs.children(np.array([file_id(fs, "dir"), fs.root], np.uint64))
    assert isinstance(links.errors[0], CorruptionError)
    assert [name for query, name in zip(links.query.tolist(), links.name, strict=True) if query == 0] == kept
    assert b"file" in list(links.name)
    error = links.errors[0]
    assert error.offset is not None
    assert at <= error.offset < at + 1024


def test_directories_that_share_their_blocks_do_not_multiply(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for i in range(40):
        (tree / f"dir{i}").mkdir(parents=True)
    (tree / "dir0" / "entry").touch()
    raw = small(tmp_path, "-O", "^metadata_csum", tree=tree)
    image = tmp_path / "image"
    block = first_block(image, "bmap dir0 0")
    for i in range(40):
        at = inode_offset(image, f"dir{i}")
        forged = header(4, 4, 0) + b"".join(extent(j * 2, 1, block) for j in range(4))
        raw[at + 0x28 : at + 0x28 + 60] = forged.ljust(60, b"\0")
        struct.pack_into("<I", raw, at + 4, 8192)
    fs, _ = forge(raw)
    directories = np.array([file_id(fs, f"dir{i}") for i in range(40)], np.uint64)
    links = fs.children(directories)
    assert len(links) <= 8
    assert len(links.errors) == 40


def test_a_directory_of_endless_nonsense_is_given_up(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image", "600M", "-b", "4096", "-O", "^metadata_csum,^flex_bg")
    debugfs(image, "mkdir dir")
    fs, _ = open_image(image)
    number = file_id(fs, "dir")
    told = debugfs(image, "imap dir", write=False)
    block, offset = told.split("located at block ")[1].split(", offset ")
    with image.open("r+b") as file:
        file.seek(int(block) * 4096 + int(offset, 16) + 4)
        file.write(struct.pack("<I", 0xFFFFF000))
        file.seek(int(block) * 4096 + int(offset, 16) + 0x28)
        forged = header(4, 4, 0) + b"".join(extent(i * 32768, 32768, 2000 + i * 32768) for i in range(4))
        file.write(forged)
    fs, log = open_image(image)
    links = fs.children(np.array([number], np.uint64))
    assert isinstance(links.errors[0], CorruptionError)
    assert any("given up" in finding.message for finding in log)


# -- anything ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ext4", ("-O", "inline_data")),
        ("ext4", ("-O", "^metadata_csum,^64bit")),
        ("ext2", ("-I", "128")),
        ("ext4", ("-O", "bigalloc,ea_inode")),
    ],
    ids=str,
)
def test_mutations_raise_nothing_but_our_errors(tmp_path: Path, kind: str, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    (tree / "d" / "e").mkdir(parents=True)
    for i in range(4):
        (tree / "d" / f"file{i}").write_bytes(b"%d" % i * 300)
    (tree / "link").symlink_to("l" * 70)
    image = mkfs(tmp_path / "image", "1M", "-b", "1024", "-N", "64", *options, kind=kind, tree=tree)
    run("e2fsck", "-fyD", image)
    raw = image.read_bytes()
    used = np.flatnonzero(np.frombuffer(raw, np.uint8)).tolist()
    spots = sorted({at + shift for at in used for shift in (0, 1)} - {len(raw)})
    spots = [at for at in spots if at < 400 << 10]
    dice = random.Random(f"{kind}{options}")
    for turn in range(500):
        mutant = bytearray(raw)
        for _ in range(dice.choice((1, 2, 8, 40))):
            at = dice.choice(spots)
            value = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
            mutant[at] = value
        device = MemoryDevice(bytes(mutant))
        try:
            if ExtParser().probe(device) is None:
                continue
            fs = ExtParser().open(device, FindingLog())
            out = walk(fs, limit=2000, read=turn % 5 == 0)
            everything = np.arange(0, 30, dtype=np.uint64)
            fs.runs(everything)
            if turn % 5 == 0:
                fs.children(everything)
                fs.lookup(np.array([fs.root] * 2, np.uint64), [b"d", b"missing"])
                for number in (2, 11, 12, 20):
                    fs.xattrs(number)
        except PseudomountError:
            continue
        assert len(out.files) < 5000
