"""Images of many layouts; the truth is the tree that mke2fs copied into them."""

from __future__ import annotations

import os
import string
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pseudomount.device.contract import BlockDevice
from pseudomount.errors import PathIsDirectoryError, PathNotDirectoryError, PathNotFoundError
from pseudomount.filesystem.contract import RunKind
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import CounterDevice
from pseudomount_ext import ExtParser
from tests.parsers.ext.images import (
    FileDevice,
    Walked,
    debugfs,
    doubts,
    file_id,
    mkfs,
    on_disk,
    open_image,
    run,
    sample_tree,
    walk,
)

pytestmark = pytest.mark.tools("mke2fs", "debugfs")

LAYOUTS = {
    "ext2-1k": ("ext2", "16M", "-b", "1024"),
    "ext2-revision-0": ("ext2", "16M", "-b", "1024", "-r", "0"),
    "ext2-inode-128": ("ext2", "16M", "-b", "2048", "-I", "128"),
    "ext3": ("ext3", "16M", "-b", "1024"),
    "ext3-4k": ("ext3", "16M", "-b", "4096"),
    "ext4-1k": ("ext4", "16M", "-b", "1024"),
    "ext4-4k": ("ext4", "16M", "-b", "4096"),
    "ext4-8k": ("ext4", "32M", "-b", "8192"),
    "ext4-16k": ("ext4", "64M", "-b", "16384"),
    "ext4-64k": ("ext4", "192M", "-b", "65536"),
    "ext2-64k": ("ext2", "192M", "-b", "65536"),
    "inode-128": ("ext4", "16M", "-b", "1024", "-I", "128"),
    "inode-512": ("ext4", "16M", "-b", "4096", "-I", "512"),
    "inode-1024": ("ext4", "16M", "-b", "4096", "-I", "1024"),
    "inode-is-block": ("ext4", "24M", "-b", "4096", "-I", "4096", "-N", "1000"),
    "inline": ("ext4", "16M", "-b", "1024", "-O", "inline_data"),
    "inline-1k-inodes": ("ext4", "16M", "-b", "4096", "-I", "1024", "-O", "inline_data"),
    "meta_bg": ("ext4", "32M", "-b", "1024", "-O", "meta_bg,^resize_inode"),
    "meta_bg-32-bit": ("ext4", "32M", "-b", "1024", "-O", "meta_bg,^resize_inode,^64bit"),
    "no-flex_bg": ("ext4", "32M", "-b", "1024", "-O", "^flex_bg"),
    "bigalloc": ("ext4", "32M", "-b", "4096", "-O", "bigalloc", "-C", "16384"),
    "bigalloc-1k": ("ext4", "32M", "-b", "1024", "-O", "bigalloc", "-C", "8192"),
    "bigalloc-meta_bg-1k": ("ext4", "32M", "-b", "1024", "-O", "bigalloc,meta_bg,^resize_inode", "-C", "4096"),
    "sparse_super2": ("ext4", "32M", "-b", "1024", "-O", "sparse_super2,^resize_inode"),
    "no-sparse_super": ("ext4", "32M", "-b", "1024", "-O", "^sparse_super,^resize_inode"),
    "gdt_csum": ("ext4", "16M", "-b", "1024", "-O", "^metadata_csum,uninit_bg"),
    "no-checksums": ("ext4", "16M", "-b", "1024", "-O", "^metadata_csum,^uninit_bg"),
    "no-extents": ("ext4", "16M", "-b", "1024", "-O", "^extent,^64bit"),
    "no-filetype": ("ext4", "16M", "-b", "1024", "-O", "^filetype"),
    "no-dir_index": ("ext4", "16M", "-b", "1024", "-O", "^dir_index"),
    "csum-seed-and-more": ("ext4", "16M", "-b", "1024", "-O", "metadata_csum_seed,large_dir,ea_inode,project,quota"),
    "casefold": ("ext4", "16M", "-b", "1024", "-E", "encoding=utf8-12.1"),
    "few-inodes-a-group": ("ext4", "16M", "-b", "1024", "-g", "1024", "-N", "900"),
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_tree(tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def image(request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kind, size, *options = LAYOUTS[request.param]
    made = mkfs(tmp_path_factory.mktemp("image") / request.param, size, *options, kind=kind, tree=tree)
    yield made
    made.unlink()


def test_the_tree_comes_back_whole(image: Path, tree: Path) -> None:
    fs, log = open_image(image)
    found = walk(fs)
    assert found.errors == []
    assert doubts(log) == []
    del found.files["lost+found"]
    truth = on_disk(tree)
    if "inline" in image.name:  # mke2fs 1.47.0 cuts the hole at the end off there, as its debugfs shows
        del truth["sparse"], found.files["sparse"]
    assert found.files == truth
    fs.device.close()


def test_the_name_and_features_are_blkids(image: Path) -> None:
    told = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", image).splitlines() if "=" in line)
    with FileDevice(image) as device:
        match = ExtParser().probe(device)
    assert match is not None
    assert (match.filesystem, match.uuid, match.label) == (told["TYPE"], told["UUID"], told.get("LABEL", ""))
    assert match.score == 100


def test_every_name_is_found_by_lookup(image: Path) -> None:
    fs, _ = open_image(image)
    found = walk(fs, read=False)
    parents = {path: found.ids.get(path.rpartition("/")[0], fs.root) for path in found.files}
    names = [path.rpartition("/")[2].encode("utf-8", "surrogateescape") for path in found.files]
    looked = fs.lookup(np.array(list(parents.values()), np.uint64), names)
    assert dict(looked.errors) == {}
    assert looked.file.tolist() == list(found.ids.values())
    missing = fs.lookup(np.array([fs.root, found.ids["many"]], np.uint64), [b"nothing here", b"entry-9999"])
    assert missing.found.tolist() == [False, False]
    fs.device.close()


def test_one_name_of_a_large_directory_costs_a_few_blocks(tmp_path: Path, tree: Path) -> None:
    image = mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree)
    run("e2fsck", "-fyD", image)  # mke2fs makes linear directories; this makes them hash trees
    with FileDevice(image) as below:
        counter = CounterDevice(below)
        fs, log = open_image(counter)
        many = file_id(fs, "many")
        numbers = {name: found for name, found in walk(fs, read=False).ids.items() if name.startswith("many/")}
        for path, number in list(numbers.items())[::37]:
            counter.reset()
            assert file_id(fs, path) == number
            assert counter.bytes < 30_000
        counter.reset()
        looked = fs.lookup(np.array([many], np.uint64), [b"no such entry"])
        assert (looked.found.tolist(), dict(looked.errors)) == ([False], {})
        assert counter.bytes < 20_000  # the directory has 40 blocks
        assert doubts(log) == []


def test_names_hashed_as_unsigned_bytes_are_found_by_the_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for i in range(400):
        (tree / "d" / f"ÿé-{i}-ünsigned-names-in-a-tree").touch()
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", tree=tree)
    debugfs(image, "set_super_value flags 2")
    run("e2fsck", "-fyD", image)
    with FileDevice(image) as below:
        counter = CounterDevice(below)
        fs, _ = open_image(counter)
        directory = np.array([file_id(fs, "d")], np.uint64)
        for i in (0, 199, 399):
            counter.reset()
            assert bool(fs.lookup(directory, [f"ÿé-{i}-ünsigned-names-in-a-tree".encode()]).found[0])
            assert counter.bytes < 20_000


def test_names_of_a_casefolded_tree(tmp_path: Path) -> None:
    """e2fsck makes the tree, of the hashes of folded names."""
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for i in range(600):
        (tree / "d" / f"{'Straße' if i % 3 else 'Strasse'} {i} IN A Folder Of Many Entries").touch()
    image = mkfs(tmp_path / "image", "8M", "-b", "1024", "-E", "encoding=utf8-12.1", tree=tree)
    debugfs(image, "set_inode_field d flags 0x40080000")
    run("e2fsck", "-fyD", image)
    assert "0x40081000" in debugfs(image, "stat d", write=False)
    with FileDevice(image) as below:
        counter = CounterDevice(below)
        fs, log = open_image(counter)
        directory = np.array([file_id(fs, "d")], np.uint64)
        numbers = {path: number for path, number in walk(fs, read=False).ids.items() if path.startswith("d/")}
        folded = {path.partition("/")[2].casefold(): number for path, number in numbers.items()}
        assert len(folded) == 600
        for name, number in list(folded.items())[::29]:
            for form in (name, name.upper(), name.replace("ss", "ß").title()):
                counter.reset()
                assert int(fs.lookup(directory, [form.encode()]).file[0]) == number, form
                assert counter.bytes < 20_000
        for i in range(100):
            counter.reset()
            assert not fs.lookup(directory, [b"Nothing of the name %d" % i]).found[0]
            assert counter.bytes < 20_000
        assert not fs.lookup(directory, ["Straße".encode()]).found[0]
        assert doubts(log) == []


@pytest.mark.parametrize("summed", ["metadata_csum", "^metadata_csum"])
@pytest.mark.parametrize("at", [1024 + 0x1C, 1024 + 0x1D, 1024 + 0x20, 1024 + 0x28, 1024 + 0x2C])
def test_lookup_survives_a_damaged_tree(tmp_path: Path, tree: Path, at: int, summed: str) -> None:
    image = mkfs(tmp_path / "image", "16M", "-b", "1024", "-O", summed, tree=tree)
    run("e2fsck", "-fyD", image)
    fs, _ = open_image(image)
    numbers = {path: number for path, number in walk(fs, read=False).ids.items() if path.startswith("many/")}
    many = file_id(fs, "many")
    root = int(fs.runs(np.array([many], np.uint64)).position[0])
    fs.device.close()
    with image.open("r+b") as file:
        file.seek(root + at - 1024)
        byte = file.read(1)
        file.seek(root + at - 1024)
        file.write(bytes([byte[0] ^ 0x5A]))
    fs, log = open_image(image)
    directories = np.full(len(numbers), many, np.uint64)
    for i, (path, number) in enumerate(numbers.items()):
        if i % 23 == 0:  # one by one goes through the tree, all at once does not
            assert int(fs.lookup(directories[:1], [path.partition("/")[2].encode()]).file[0]) == number
    # Without checksums one wrong hash or block shows only to who comes upon it.
    if summed == "metadata_csum" or at < 1024 + 0x28:
        assert any("hash tree" in finding.message and finding.file == many for finding in log)
    assert fs.lookup(directories, [path.partition("/")[2].encode() for path in numbers]).found.all()
    assert not fs.lookup(directories[:1], [b"no such entry"]).found[0]
    fs.device.close()


def test_batches_keep_the_order_of_the_question(tmp_path: Path, tree: Path) -> None:
    fs, _ = open_image(mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree))
    ids = walk(fs, read=False).ids
    asked = [ids["many"], ids["a"], fs.root, ids["a"], ids["file-1"], ids["empty"]]
    links = fs.children(np.array(asked, np.uint64))
    assert list(links.errors) == [4]
    assert isinstance(links.errors[4], PathNotDirectoryError)
    counts = np.bincount(links.query, minlength=6).tolist()
    assert counts[0] == 600
    assert counts[1] == counts[3] == 1
    assert counts[4:] == [0, 0]
    assert links.parent.tolist() == [asked[query] for query in links.query.tolist()]
    rows = fs.rows(np.array([ids["file-1024"], ids["file-1"], ids["file-1024"]], np.uint64))
    assert rows.size.tolist() == [1024, 1, 1024]
    runs = fs.runs(np.array([ids["file-4097"], ids["a"], ids["file-4097"]], np.uint64))
    first, last = runs.query == 0, runs.query == 2
    assert runs.position[first].tolist() == runs.position[last].tolist()
    assert runs.length[first].sum() == 5120
    fs.device.close()


def test_runs_lie_where_debugfs_says(image: Path) -> None:
    fs, _ = open_image(image)
    ids = walk(fs, read=False).ids
    size = fs.details["block size"]
    assert isinstance(size, int)
    for name in ("file-270000", "sparse", "all-hole"):
        number = ids[name]
        runs = fs.runs(np.array([number], np.uint64))
        assert dict(runs.errors) == {}
        if 0 in runs.resident:
            continue
        data = runs.kind == RunKind.DATA
        blocks = [
            at // size + i
            for at, length in zip(runs.position[data].tolist(), runs.length[data].tolist(), strict=True)
            for i in range(length // size)
        ]
        told = debugfs(image, f"blocks <{number}>", write=False).split()
        # debugfs names the indirect blocks too; of the data blocks none is missing, and all are in its order
        rest = iter(told)
        assert all(str(block) in rest for block in blocks)
    fs.device.close()


def test_what_is_no_file_says_so(tmp_path: Path, tree: Path) -> None:
    fs, _ = open_image(mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree))
    ids = walk(fs, read=False).ids
    with pytest.raises(PathIsDirectoryError):
        fs.open(ids["a"])
    with pytest.raises(PathNotFoundError):
        fs.open(ids["file-1"], "stream")
    assert fs.streams(ids["file-1"]) == []
    fs.device.close()


def test_the_highest_inode_is_a_file_like_any_other(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for i in range(200):
        (tree / f"f{i:03}").write_bytes(b"%d" % i)
    image = mkfs(tmp_path / "image", "4M", "-b", "1024", "-N", "24", kind="ext2")
    free = int(debugfs(image, "show_super_stats -h", write=False).split("Free inodes:")[1].split()[0])
    requests = [f"write {tree}/f{i:03} f{i:03}" for i in range(free)]
    debugfs(image, *requests)
    fs, _ = open_image(image)
    found = walk(fs)
    highest = fs.details["inodes"]
    assert highest in found.ids.values()
    assert found.errors == []
    assert len(found.files) == free + 1
    fs.device.close()


def test_an_entry_of_12_bytes_at_the_end_of_a_block_is_listed(tmp_path: Path) -> None:
    # "." and ".." take 24 bytes, a name of five letters 16, and 82 of one letter 12 each: a block of 1024.
    image = mkfs(tmp_path / "image", "4M", "-b", "1024", "-O", "^metadata_csum,^dir_index,^has_journal")
    letters = list(string.ascii_letters + string.digits + "!,%+-=@^_~:;[]{}()$&")[:82]
    source = tmp_path / "source"
    source.write_bytes(b"here")
    script = tmp_path / "script"
    script.write_text("\n".join(["mkdir d", "cd d", *(f"write {source} {name}" for name in ("first", *letters))]))
    run("debugfs", "-w", "-f", str(script), str(image))
    fs, _ = open_image(image)
    assert fs.rows(np.array([file_id(fs, "d")], np.uint64)).size[0] == 1024
    links = fs.children(np.array([file_id(fs, "d")], np.uint64))
    assert {name.decode() for name in links.name} == {"first", *letters}
    fs.device.close()


def test_listing_the_root_of_a_large_image_reads_little(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for i in range(40):
        (tree / f"dir{i}").mkdir(parents=True)
        for j in range(100):
            (tree / f"dir{i}" / f"{j}").touch()
    image = mkfs(tmp_path / "image", "4G", "-N", "250000", tree=tree)
    with FileDevice(image) as below:
        counter = CounterDevice(below)
        fs, _ = open_image(counter)
        links = fs.children(np.array([fs.root], np.uint64))
        rows = fs.rows(links.file)
        assert len(rows) == 41
        assert counter.ranges <= 64
        assert counter.bytes <= 8 << 20


def test_a_sparse_file_of_16_terabytes_costs_nothing(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image", "16M", "-b", "4096")
    source = tmp_path / "source"
    source.write_bytes(b"x")
    debugfs(image, f"write {source} big", "set_inode_field big size 0xfffffffe000")
    fs, _ = open_image(image)
    with fs.open(file_id(fs, "big")) as content:
        assert content.size == 0xFFFFFFFE000
        assert content.read(0, 2) == b"x\0"
        assert content.read(content.size - 5, 5) == bytes(5)
    debugfs(image, "set_inode_field big size 0x7fffffffffffffff")
    with fs.open(file_id(fs, "big")) as content:
        assert content.size == (1 << 63) - 1
        assert content.read(content.size - 5, 5) == bytes(5)
    fs.device.close()


def test_unwritten_extents_read_as_zeros(tmp_path: Path) -> None:
    image = mkfs(tmp_path / "image", "16M", "-b", "1024")
    source = tmp_path / "source"
    source.write_bytes(b"A" * 3000)
    debugfs(image, f"write {source} file", "fallocate file 0 20", "set_inode_field file size 21504")
    fs, log = open_image(image)
    number = file_id(fs, "file")
    runs = fs.runs(np.array([number], np.uint64))
    assert runs.kind.tolist() == [RunKind.DATA, RunKind.UNWRITTEN]
    assert runs.length.tolist() == [3072, 18432]
    with fs.open(number) as content:
        assert content.read(0, content.size) == b"A" * 3000 + bytes(21504 - 3000)
    assert doubts(log) == []
    fs.device.close()


def test_deep_extent_trees(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "holes").open("wb") as file:
        for i in range(700):
            file.seek(i * 2048)
            file.write(b"%d" % i * 20)
    image = mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree)
    depth = debugfs(image, "extents holes", write=False)
    assert " 0/ 2" in depth  # the tree has two levels below its root
    fs, log = open_image(image)
    found = walk(fs)
    assert found.files["holes"] == on_disk(tree)["holes"]
    assert (found.errors, doubts(log)) == ([], [])
    fs.device.close()


def test_device_numbers(tmp_path: Path) -> None:
    if sys.platform == "win32":
        pytest.skip("device numbers are POSIX's")
    image = mkfs(tmp_path / "image", "4M", "-b", "1024")
    debugfs(image, "mknod b b 8 17", "mknod c c 300 60000", "mknod p p")
    fs, _ = open_image(image)
    files = np.array([file_id(fs, name) for name in "bcp"], np.uint64)
    rows = fs.rows(files)
    assert rows.extra["rdev"].tolist() == [os.makedev(8, 17), os.makedev(300, 60000), -1]
    fs.device.close()


def test_findings_are_none_for_a_sound_volume(image: Path) -> None:
    device: BlockDevice = FileDevice(image)
    log = FindingLog()
    ExtParser().open(device, log)
    assert list(log) == []
    device.close()


def test_walked_helper_reads_what_it_says(tmp_path: Path, tree: Path) -> None:
    fs, _ = open_image(mkfs(tmp_path / "image", "16M", "-b", "1024", tree=tree))
    out = Walked()
    assert walk(fs).files["file-0"].content.startswith("e3b0c44298fc1c14")
    assert out.errors == []
    fs.device.close()
