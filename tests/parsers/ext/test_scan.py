"""The scan of the inode tables: equal to the walk, bounded in reads, and what it makes of damage and of deleted files.

What was deleted is known beforehand: content by its SHA-256, names by what `fls` of The Sleuth Kit says.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PathIsDirectoryError, PseudomountError
from pseudomount.filesystem import FileType, Parser
from pseudomount.filesystem.catalogue import scan_catalogue
from pseudomount.filesystem.scan import ScanBatch, scan_by_walk
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice
from pseudomount.testing.scan_conformance import ScanConformance
from pseudomount_ext import ExtFileSystem, ExtParser, _inodes
from pseudomount_ext import _layout as lay
from tests.parsers.ext.images import debugfs, mkfs, open_image, sample_tree
from tests.support.catalogues import assert_equals_walk
from tests.support.loop import run

pytestmark = pytest.mark.tools("mke2fs", "debugfs")

Link = tuple[int, int, bytes]


@dataclass
class Found:
    """What a scan or walk found, as plain values."""

    files: dict[int, tuple[int, ...] | type[PseudomountError]] = field(default_factory=dict)
    links: Counter[Link] = field(default_factory=Counter)
    deleted: set[int] = field(default_factory=set)
    deleted_links: Counter[Link] = field(default_factory=Counter)

    @property
    def errors(self) -> set[int]:
        return {file for file, row in self.files.items() if isinstance(row, type)}


def gather(batches: Iterable[ScanBatch]) -> Found:
    found = Found()
    for batch in batches:
        rows, links = batch.files, batch.links
        for i, file in enumerate(rows.file.tolist()):
            assert file not in found.files, f"{file} came twice"
            columns = (rows.type, rows.size, rows.allocated, rows.mode, rows.uid, rows.links, rows.modified.ns)
            error = rows.errors.get(i)
            found.files[file] = tuple(int(column[i]) for column in columns) if error is None else type(error)
            if batch.deleted[i]:
                found.deleted.add(file)
        rows_of_links = zip(links.parent.tolist(), links.file.tolist(), links.name.tolist(), strict=True)
        for link, deleted in zip(rows_of_links, links.deleted.tolist(), strict=True):
            (found.deleted_links if deleted else found.links)[link] += 1
    return found


def opened(data: bytes | bytearray) -> ExtFileSystem:
    return ExtParser().open(MemoryDevice(bytes(data)), FindingLog())


def assert_equal(data: bytes | bytearray) -> tuple[Found, ExtFileSystem]:
    """The same names as the walk, and the same of every file that has one."""
    fs = opened(data)
    scan, walk = gather(fs.scan()), gather(scan_by_walk(opened(data), streams=False))
    assert scan.links == walk.links
    assert {file: scan.files[file] for file in walk.files} == walk.files
    return scan, fs


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = sample_tree(tmp_path_factory.mktemp("source") / "tree")
    for i in range(40):
        os.link(root / "file-100", root / "many" / f"hard link {i}")
    deep = root / "deep"
    for level in range(150):
        deep /= str(level)
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep")
    return root


# -- sound volumes -----------------------------------------------------------------------------------------------------


class TestScanOfATree(ScanConformance):
    scan_rounds = 6

    @pytest.fixture(autouse=True)
    def _image(self, tmp_path: Path, tree: Path) -> None:
        self.image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree).read_bytes()

    def parser(self) -> Parser:
        return ExtParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(self.image)


OPTIONS = {
    "ext2": ("ext2", "-b", "1024", "-I", "128"),
    "ext3": ("ext3", "-b", "2048"),
    "4 KiB": ("ext4", "-b", "4096", "-O", "^metadata_csum,uninit_bg"),
    "inline": ("ext4", "-b", "1024", "-O", "inline_data"),
    "bigalloc": ("ext4", "-b", "1024", "-O", "bigalloc", "-C", "4096"),
    "few inodes a group": ("ext4", "-b", "1024", "-g", "256", "-N", "1600"),
    "large inodes": ("ext4", "-b", "4096", "-I", "1024"),
}


@pytest.mark.parametrize("kind", OPTIONS)
def test_scan_equals_the_walk(tmp_path: Path, tree: Path, kind: str) -> None:
    name, *options = OPTIONS[kind]
    data = mkfs(tmp_path / "image", "16M", *options, kind=name, tree=tree).read_bytes()
    scan, fs = assert_equal(data)
    assert len(scan.links) > 800
    assert not scan.errors
    assert not scan.deleted
    assert_equals_walk(fs)


def test_a_scan_reads_tables_and_directories_once(tmp_path: Path, tree: Path) -> None:
    data = mkfs(tmp_path / "image", "16M", "-b", "4096", tree=tree).read_bytes()
    with CounterDevice(MemoryDevice(data)) as device:
        fs = ExtParser().open(device, FindingLog())
        device.reset()
        gather(fs.scan())
        assert device.requests <= 8
        directories = int(run("find", tree, "-type", "d").count("\n")) + 30
        used = int(debugfs(tmp_path / "image", "stats", write=False).split("Inode count:")[1].split()[0]) * 256
        assert device.bytes <= used + directories * 4096 + (1 << 16)


def test_tables_larger_than_one_step(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_inodes, "CHUNK", 256 * 100)
    data = mkfs(tmp_path / "image", "16M", "-b", "1024", "-g", "4096", tree=tree).read_bytes()
    assert_equal(data)


# -- damage ------------------------------------------------------------------------------------------------------------


def inode_offset(image: Path, path: str, block_size: int = 1024) -> int:
    told = debugfs(image, f"imap {path}", write=False)
    block, offset = told.split("located at block ")[1].split(", offset ")
    return int(block) * block_size + int(offset, 16)


DAMAGE = {
    "zeroed": (0, bytes(256)),
    "no links": (lay.IN_LINKS, b"\0\0"),
    "no type": (lay.IN_MODE, b"\0\0"),
    "garbage": (0, random.Random(1).randbytes(256)),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("path", ["file-4096", "fast", "many/entry-0003-ppp", "a/b/c/d", "empty"])
def test_a_damaged_inode_keeps_its_name_and_its_error(tmp_path: Path, tree: Path, path: str, kind: str) -> None:
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree)
    where, what = DAMAGE[kind]
    data = bytearray(image.read_bytes())
    at = inode_offset(image, path) + where
    data[at : at + len(what)] = what
    fs = opened(data)
    scan, walk = gather(fs.scan()), gather(scan_by_walk(opened(data), streams=False))
    assert not walk.links - scan.links
    assert scan.errors >= walk.errors
    assert {file: scan.files[file] for file in walk.files} == walk.files
    if path != "a/b/c/d":
        assert scan.links == walk.links


def test_a_damaged_root(tmp_path: Path, tree: Path) -> None:
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree)
    data = bytearray(image.read_bytes())
    at = inode_offset(image, "/")
    data[at : at + 128] = bytes(128)
    scan = gather(opened(data).scan())
    assert scan.errors == {2}
    assert len(scan.links) > 700, "what the other directories have"


def test_unreadable_parts_of_a_table(tmp_path: Path, tree: Path) -> None:
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree)
    data = image.read_bytes()
    faults = [(inode_offset(image, "file-4096"), 256), (inode_offset(image, "many/entry-0100-" + "p" * 20), 4)]

    def faulty() -> ExtFileSystem:
        return ExtParser().open(FaultDevice(MemoryDevice(data), errors=faults), FindingLog())

    scan, walk = gather(faulty().scan()), gather(scan_by_walk(faulty(), streams=False))
    assert scan.links == walk.links
    assert scan.errors == walk.errors
    assert len(scan.errors) >= 2


def test_a_volume_that_is_cut_off(tmp_path: Path, tree: Path) -> None:
    data = mkfs(tmp_path / "image", "64M", "-b", "1024", "-g", "1024", tree=tree).read_bytes()
    for size in (3 << 20, 300_000, 64 << 10):
        fs = opened(data[:size])
        scan, walk = gather(fs.scan()), gather(scan_by_walk(opened(data[:size]), streams=False))
        assert scan.links == walk.links
        assert {file: scan.files[file] for file in walk.files} == walk.files
        told = [finding for finding in fs.findings if "inode table" in finding.structure]
        assert len(told) <= 2


def test_tables_that_lie_one_on_the_other(tmp_path: Path, tree: Path) -> None:
    """Forged descriptors, all of the same table, cost no more than the device has bytes."""
    options = ("-b", "1024", "-g", "1024", "-O", "^metadata_csum,^uninit_bg", "-N", "60000")
    image = mkfs(tmp_path / "image", "64M", *options, tree=tree)
    data = bytearray(image.read_bytes()[: 2 << 20])
    size = 64 if opened(data).details["descriptor size"] == 64 else 32
    first = data[2048 + lay.GD_INODE_TABLE_LO : 2048 + lay.GD_INODE_TABLE_LO + 4]
    for group in range(64):
        at = 2048 + group * size + lay.GD_INODE_TABLE_LO
        data[at : at + 4] = first
    with CounterDevice(MemoryDevice(bytes(data))) as device:
        fs = ExtParser().open(device, FindingLog())
        for _ in fs.scan():
            pass
        assert device.bytes < 3 * len(data)
        assert any("lie one on the other" in finding.message for finding in fs.findings)


# -- deleted files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gone:
    """A volume from which files were deleted: the SHA-256 of each by path, and what fls lists."""

    image: Path
    content: dict[str, str]
    listed: list[str]


def fls(image: Path) -> Iterator[str]:
    if shutil.which("fls") is None:
        return
    done = subprocess.run(["fls", "-r", "-d", "-p", str(image)], capture_output=True, check=False)
    for line in done.stdout.decode().splitlines():
        if ":\t" in line and "OrphanFile" not in line:
            yield "/" + line.split(":\t")[1]


def delete_some(folder: Path, *options: str, kind: str = "ext4") -> Gone:
    top = folder / "tree"
    chance = random.Random(5)
    content: dict[str, str] = {}

    def put(path: str, data: bytes) -> None:
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(data)
        content[path] = hashlib.sha256(data).hexdigest()

    put("keep", b"k" * 5000)
    put("small", b"a small file")
    put("big", chance.randbytes(900_000))
    put("dir/inner/deep", chance.randbytes(40_000))
    put("dir/other", chance.randbytes(3000))
    for i in range(30):
        put(f"many/entry-{i:03}", b"%d" % i)
    (top / "link").symlink_to("keep")
    (top / "long link").symlink_to("x/" * 60)
    image = mkfs(folder / "image", "16M", *options, kind=kind, tree=top)
    dead = ["small", "big", "dir/inner/deep", "dir/other", "link", "long link"]
    dead += [f"many/entry-{i:03}" for i in range(1, 30, 3)]
    debugfs(image, *[f'rm "{path}"' for path in dead], "rmdir dir/inner", "rmdir dir")
    del content["keep"]
    return Gone(image, {path: content[path] for path in dead if path in content}, sorted(fls(image)))


def deleted_paths(fs: ExtFileSystem) -> dict[str, int]:
    found = scan_catalogue(fs, volume="disk0", deleted=True).find(deleted=True)
    ids = found.arrow["file"].to_pylist()
    return dict(zip(found.paths().to_pylist(), ids, strict=True))


class TestScanOfWhatWasDeleted(ScanConformance):
    scan_rounds = 6

    @pytest.fixture(autouse=True)
    def _image(self, tmp_path: Path) -> None:
        self.image = delete_some(tmp_path, "-b", "1024", kind="ext2").image.read_bytes()

    def parser(self) -> Parser:
        return ExtParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(self.image)


@pytest.mark.tools("fls")
@pytest.mark.parametrize(
    "options",
    [
        ("ext2", "-b", "1024"),
        ("ext2", "-b", "4096", "-I", "128"),
        ("ext3", "-b", "2048"),
        ("ext4", "-b", "1024"),
        ("ext4", "-b", "4096", "-O", "^metadata_csum"),
        ("ext4", "-b", "1024", "-O", "^64bit,^flex_bg"),
    ],
    ids=str,
)
def test_deleted_files_are_found_with_their_paths_and_content(tmp_path: Path, options: tuple[str, ...]) -> None:
    kind, *more = options
    gone = delete_some(tmp_path, *more, kind=kind)
    fs, log = open_image(gone.image)
    found = deleted_paths(fs)
    assert sorted(found) == gone.listed
    assert len(found) == 18
    for path, sha256 in gone.content.items():
        file = found[f"/{path}"]
        assert file >= lay.DELETED
        with fs.open(file) as content:
            assert hashlib.sha256(content.read(0, content.size)).hexdigest() == sha256
        assert any(f.file == file and f.severity is Severity.DEGRADED and "deleted" in f.message for f in log)
    with pytest.raises(PathIsDirectoryError):
        fs.open(found["/dir"])
    links = np.array([found["/link"], found["/long link"]], np.uint64)
    assert fs.readlink(links).target.tolist() == [b"keep", b"x/" * 60]


def test_deleted_files_of_clusters_and_inline_data(tmp_path: Path) -> None:
    for number, options in enumerate([("-O", "bigalloc", "-C", "4096"), ("-O", "inline_data")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        gone = delete_some(folder, "-b", "1024", *options)
        fs, _ = open_image(gone.image)
        every = gather(fs.scan(deleted=True))
        read = set()
        for file in every.deleted:
            if file < lay.NAME_ONLY and every.files[file][0] == FileType.FILE:  # type: ignore[index]
                with fs.open(file) as content:
                    read.add(hashlib.sha256(content.read(0, content.size)).hexdigest())
        assert read == set(gone.content.values())


def test_deleted_files_come_only_when_asked_for(tmp_path: Path) -> None:
    gone = delete_some(tmp_path, "-b", "1024")
    scan, fs = assert_equal(gone.image.read_bytes())
    assert not scan.deleted
    every = gather(fs.scan(deleted=True))
    assert every.links == scan.links
    assert {file: row for file, row in every.files.items() if file not in every.deleted} == scan.files
    assert len(every.deleted) == 18


def test_a_name_whose_inode_is_another_files_is_a_name_alone(tmp_path: Path) -> None:
    """`fls` says "realloc" of it."""
    gone = delete_some(tmp_path, "-b", "1024", kind="ext2")
    fs, _ = open_image(gone.image)
    number = deleted_paths(fs)["/many/entry-028"] & lay.NUMBER_MASK
    (tmp_path / "new").write_bytes(b"another file")
    old = debugfs(gone.image, f"stat <{number}>", write=False)
    assert "Links: 0" in old
    debugfs(gone.image, f"set_inode_field <{number}> links_count 1", f"link <{number}> reborn")
    fs, log = open_image(gone.image)
    found = deleted_paths(fs)
    file = found["/many/entry-028"]
    assert file == number | lay.NAME_ONLY
    rows = fs.rows(np.array([file, number], np.uint64))
    assert not rows.errors
    assert rows.inode.tolist() == [number, number]
    assert rows.size.tolist() == [-1, 2]
    assert rows.modified.exact(0) is None
    for asked in (file, number | lay.DELETED):
        with pytest.raises(CorruptionError):
            fs.open(asked)
    table = scan_catalogue(fs, volume="disk0", deleted=True)
    named = [row for row in table.arrow.to_pylist() if row["file"] in (file, number)]
    assert sorted((row["name"], row["deleted"], row["size"]) for row in named) == [
        ("entry-028", True, None),
        ("reborn", False, 2),
    ]
    assert not [finding for finding in log if finding.severity > Severity.NOTE]


def test_blocks_that_others_have_are_not_the_deleted_files(tmp_path: Path) -> None:
    """Also those that hold its map: an indirect block of which nothing may be believed."""
    for kind in ("ext2", "ext4"):
        folder = tmp_path / kind
        folder.mkdir()
        gone = delete_some(folder, "-b", "1024", kind=kind)
        fs, _ = open_image(gone.image)
        file = deleted_paths(fs)["/big"]
        with fs.open(file) as content:
            whole = content.read(0, content.size)
        runs = fs.runs(np.array([file], np.uint64))
        taken = [int(runs.position[0]) // 1024 + 3, int(runs.position[-1] + runs.length[-1]) // 1024 - 1]
        debugfs(gone.image, *[f"setb {block}" for block in taken])
        fs, log = open_image(gone.image)
        with fs.open(file) as content:
            assert content.read(0, 3 * 1024) == whole[: 3 * 1024]
            assert content.read(4 * 1024, 200_000) == whole[4 * 1024 :][:200_000]
            for at in (3 * 1024, content.size - 1):
                with pytest.raises(CorruptionError, match="given to another file"):
                    content.read(at, 1)
        left = fs.runs(np.array([file], np.uint64))
        assert 0 in left.errors
        assert int(left.length.sum()) == int(runs.length.sum()) - 2 * 1024
        free = [int(p) // 1024 + i for p, n in zip(runs.position, runs.length, strict=True) for i in range(n // 1024)]
        debugfs(gone.image, *[f"setb {block}" for block in free])
        fs, log = open_image(gone.image)
        with pytest.raises(CorruptionError, match="given to another file"):
            fs.open(file)
        assert not [finding for finding in log if finding.file == file]


def test_a_cluster_that_another_file_has(tmp_path: Path) -> None:
    """With bigalloc a bit stands for a cluster of blocks."""
    gone = delete_some(tmp_path, "-b", "1024", "-O", "bigalloc", "-C", "4096")
    fs, _ = open_image(gone.image)
    file = deleted_paths(fs)["/big"]
    with fs.open(file) as content:
        whole = content.read(0, content.size)
    start = int(fs.runs(np.array([file], np.uint64)).position[0]) // 1024
    debugfs(gone.image, f"setb {start + 5}")
    fs, _ = open_image(gone.image)
    with fs.open(file) as content:
        assert content.read(0, 4096) == whole[:4096]
        assert content.read(8192, 300_000) == whole[8192:][:300_000]
        for at in range(4096, 8192, 1024):
            with pytest.raises(CorruptionError, match="given to another file"):
                content.read(at, 1)


def test_an_indirect_block_that_another_file_has(tmp_path: Path) -> None:
    gone = delete_some(tmp_path, "-b", "1024", kind="ext2")
    fs, _ = open_image(gone.image)
    file = deleted_paths(fs)["/big"]
    number = file & lay.NUMBER_MASK
    shown = debugfs(gone.image, f"stat <{number}>", write=False)
    indirect = int(shown.split("(IND):")[1].split(",")[0].split("\n")[0])
    debugfs(gone.image, f"setb {indirect}")
    fs, _ = open_image(gone.image)
    with fs.open(file) as content:
        assert len(content.read(0, 12 * 1024)) == 12 * 1024
        with pytest.raises(CorruptionError, match="given to another file"):
            content.read(12 * 1024, 1)
        content.read(300 * 1024, 1024)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    run("mount", "-o", "loop", image, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


@pytest.mark.loop
@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_what_the_kernel_deletes(tmp_path: Path, kind: str) -> None:
    """Where it wipes the map of a file's blocks, nothing is left, and that is said; what it leaves can be read."""
    image = mkfs(tmp_path / "image", "16M", "-b", "1024", kind=kind)
    data = random.Random(9).randbytes(50_000)
    with mounted(image, tmp_path / "mnt") as top:
        (top / "keep").write_bytes(b"kept")
        (top / "gone").write_bytes(data)
        number = (top / "gone").stat().st_ino
        run("sync")
        (top / "gone").unlink()
    fs, _ = open_image(image)
    every = gather(fs.scan(deleted=True))
    file = number | lay.DELETED
    assert file in every.deleted
    size = every.files[file][1]  # type: ignore[index]
    if size:
        with fs.open(file) as content:
            assert content.read(0, content.size) == data
    else:
        with pytest.raises(CorruptionError, match="no content is left"):
            fs.open(file)
    assert_equals_walk(fs, deleted=True)


@pytest.mark.loop
@pytest.mark.parametrize("options", [("-O", "^orphan_file"), ("-O", "orphan_file"), ("-O", "^has_journal")], ids=str)
def test_files_that_were_still_open(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Unlinked, and not given up: their blocks are in use, by themselves."""
    image = mkfs(tmp_path / "image", "16M", "-b", "1024", *options)
    data = random.Random(9).randbytes(50_000)
    copy = tmp_path / "copy"
    with mounted(image, tmp_path / "mnt") as top:
        (top / "open").write_bytes(data)
        number = (top / "open").stat().st_ino
        with (top / "open").open("rb"):
            (top / "open").unlink()
            run("sync", "-f", top)
            run("sync")
            copy.write_bytes(image.read_bytes())
    fs, _ = open_image(copy)
    every = gather(fs.scan(deleted=True))
    file = number | lay.DELETED
    assert file in every.deleted
    with fs.open(file) as content:
        assert content.read(0, content.size) == data
    assert set(every.deleted) == {file} | {f for f in every.deleted if f >= lay.NAME_ONLY}


def test_names_whose_first_entry_lost_its_number(tmp_path: Path) -> None:
    """The first entry of a block has none before it that could take its room: its inode number is cleared."""
    top = tmp_path / "tree"
    top.mkdir()
    for i in range(60):
        (top / f"{i:03} {'a name that is long ' * 5}").write_bytes(b"%d" % i)
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", "-O", "^dir_index", kind="ext2", tree=top)
    for name in sorted(path.name for path in top.iterdir()):
        debugfs(image, f'rm "{name}"')
    fs, _ = open_image(image)
    every = gather(fs.scan(deleted=True))
    names = sorted({name.decode() for _, _, name in every.deleted_links})
    assert names == sorted(path.name for path in top.iterdir())
    lost = [name for _, file, name in every.deleted_links if file == lay.NAME_ONLY]
    assert 3 <= len(lost) < 20
    assert sum(every.deleted_links.values()) == 60


def test_slack_of_hash_trees_and_noise_give_no_names(tmp_path: Path, tree: Path) -> None:
    """Nodes of hash trees are no entries; bytes that are none are passed over."""
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree)
    fs, _ = open_image(image)
    assert not gather(fs.scan(deleted=True)).deleted_links
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", "-O", "^metadata_csum", kind="ext4", tree=tree)
    subprocess.run(["e2fsck", "-f", "-y", "-D", str(image)], capture_output=True, check=False)
    assert "Root node dump" in debugfs(image, "htree_dump /many", write=False)
    data = bytearray(image.read_bytes())
    at = int(debugfs(image, "blocks /empty", write=False).split()[0]) * 1024
    data[at + 24 + 4 : at + 1024] = random.Random(2).randbytes(1024 - 28)
    # The root of a hash tree, behind its own entries. mke2fs makes none, e2fsck does.
    root = int(debugfs(image, "bmap /many 0", write=False).split()[0]) * 1024
    data[root + 900 : root + 912] = struct.pack("<IHBB", 12, 12, 4, 1) + b"fake"
    every = gather(opened(data).scan(deleted=True))
    assert b"fake" not in {name for _, _, name in every.deleted_links}
    for _, _, name in every.deleted_links:
        assert b"/" not in name
        assert b"\0" not in name
    assert len(every.deleted_links) < 5


def test_copies_that_a_growing_directory_leaves_are_not_deleted(tmp_path: Path) -> None:
    """A hash tree is made by moving entries to new blocks; what is left of them where they were is no deleted name."""
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", "-O", "dir_index,^metadata_csum")
    (tmp_path / "empty").write_bytes(b"")
    names = [f"a name of some length {i}" for i in range(400)]
    debugfs(image, "mkdir many", *[f'write {tmp_path / "empty"} "many/{name}"' for name in names])
    debugfs(image, 'rm "many/a name of some length 7"')
    data = bytearray(image.read_bytes())
    fs = opened(data)
    every = gather(fs.scan(deleted=True))
    assert {name for _, _, name in every.deleted_links} == {b"a name of some length 7"}
    # The entry that follows, written once more into the room that the deleted one left: a copy.
    at = data.index(b"a name of some length 7") - 8
    live = data.index(b"a name of some length 8") - 8
    data[at : at + 32] = data[live : live + 32]
    assert not gather(opened(data).scan(deleted=True)).deleted_links
