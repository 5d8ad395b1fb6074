"""ext2, ext3 and ext4 against the Linux kernel: every mkfs option that changes the layout, with trees that are hard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import EncryptedError, PseudomountError
from pseudomount.findings import Severity
from pseudomount.testing import CounterDevice
from pseudomount_ext import ExtParser
from tests.support import loop, trees
from tests.support.browse import browse_tree, open_filesystem
from tests.support.encrypt import encrypted_folder
from tests.support.entries import Entry, assert_same
from tests.support.images import ImageDevice

pytestmark = [pytest.mark.loop, pytest.mark.tools("mke2fs", "tune2fs", "debugfs", "setfacl", "chattr", "fallocate")]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to make a file system.

    Attributes:
        options: of mke2fs.
        later: features that tune2fs sets after the kernel wrote the tree, as it could not write with them.
        blind: the kernel cannot even read it then, so its truth is from before.
        features: what dumpe2fs must list, so that the case tests what it says.
        optional: the kernel or mke2fs at hand may be too old or built without it: skip.
        dirty: the disk held garbage before.
        prepare: debugfs commands before the kernel writes.
    """

    name: str
    kind: str = "ext4"
    block: int = 4096
    size: str = "64M"
    options: tuple[str, ...] = ()
    later: tuple[str, ...] = ()
    blind: bool = False
    features: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    entries: int = 300
    pieces: int = 30
    extents: bool = True
    big_xattr: int = 0
    optional: bool = False
    dirty: bool = False
    prepare: tuple[str, ...] = ()


def _o(*features: str) -> tuple[str, ...]:
    return ("-O", ",".join(features))


CASES = [
    Case("ext2-1k", "ext2", 1024, entries=5000, extents=False, absent=("extent", "has_journal")),
    Case("ext2-2k", "ext2", 2048, extents=False),
    Case("ext2-4k", "ext2", 4096, extents=False),
    Case("ext2-rev0", "ext2", 1024, options=("-r", "0"), extents=False, absent=("filetype", "sparse_super")),
    Case("ext2-128", "ext2", 1024, options=("-I", "128"), extents=False),
    Case("ext3-1k", "ext3", 1024, entries=2000, extents=False, features=("has_journal", "dir_index")),
    Case("ext3-4k", "ext3", 4096, extents=False, features=("has_journal",)),
    Case("ext4-1k", block=1024, entries=5000, pieces=800, features=("extent", "has_journal")),
    Case("ext4-2k", block=2048),
    Case("ext4-4k", entries=5000, pieces=1500, features=("extent", "flex_bg", "has_journal", "metadata_csum")),
    Case("64bit", options=_o("64bit"), features=("64bit",)),
    Case("no-64bit", options=_o("^64bit"), absent=("64bit",)),
    Case("meta_bg", block=1024, options=(*_o("meta_bg", "^resize_inode"), "-g", "512"), features=("meta_bg",)),
    Case(
        "meta_bg-no-64bit",
        block=1024,
        options=(*_o("meta_bg", "^resize_inode", "^64bit", "^flex_bg"), "-g", "256"),
        features=("meta_bg",),
        absent=("64bit",),
    ),
    Case("meta_bg-4k", size="256M", options=(*_o("meta_bg", "^resize_inode"), "-g", "512"), features=("meta_bg",)),
    Case("no-flex_bg", block=1024, options=_o("^flex_bg"), absent=("flex_bg",)),
    Case("flex_bg-64", block=1024, options=("-G", "64", "-g", "1024"), features=("flex_bg",)),
    Case("packed", block=1024, options=("-E", "packed_meta_blocks=1")),
    Case("bigalloc-16k", size="256M", options=(*_o("bigalloc"), "-C", "16384"), features=("bigalloc",)),
    Case("bigalloc-64k", size="512M", options=(*_o("bigalloc"), "-C", "65536"), features=("bigalloc",)),
    Case("bigalloc-1k", block=1024, size="256M", options=(*_o("bigalloc"), "-C", "16384"), features=("bigalloc",)),
    Case("sparse_super2", block=1024, options=_o("sparse_super2", "^resize_inode"), features=("sparse_super2",)),
    Case("no-sparse_super", block=1024, options=_o("^sparse_super", "^resize_inode"), absent=("sparse_super",)),
    Case("inline_data", options=_o("inline_data"), features=("inline_data",), entries=2000),
    Case("inline_data-1k", block=1024, options=_o("inline_data"), features=("inline_data",)),
    Case("inline_data-1024", options=(*_o("inline_data"), "-I", "1024"), features=("inline_data",)),
    Case("no-extents", options=_o("^extent", "^64bit"), extents=False, absent=("extent",)),
    Case("no-dir_index", options=_o("^dir_index"), absent=("dir_index",), entries=1000),
    Case("large_dir", block=1024, options=_o("large_dir"), features=("large_dir",), entries=5000),
    Case("extra_isize-8", prepare=("ssv min_extra_isize 8", "ssv want_extra_isize 8")),
    Case("extra_isize-16", options=("-I", "512"), prepare=("ssv min_extra_isize 16", "ssv want_extra_isize 16")),
    Case("extra_isize-100", options=("-I", "512"), prepare=("ssv want_extra_isize 100",)),
    Case("inode-128", options=("-I", "128")),
    Case("inode-512", options=("-I", "512")),
    Case("inode-1024", block=1024, size="64M", options=("-I", "1024")),
    Case("inode-4096", size="128M", options=("-I", "4096", "-N", "4096")),
    Case("ea_inode", options=_o("ea_inode"), features=("ea_inode",), big_xattr=60_000),
    Case("ea_inode-1k", block=1024, options=_o("ea_inode"), features=("ea_inode",), big_xattr=20_000),
    Case("no-metadata_csum", options=_o("^metadata_csum", "uninit_bg"), features=("uninit_bg",)),
    Case("no-checksums", options=_o("^metadata_csum", "^uninit_bg"), absent=("uninit_bg", "metadata_csum")),
    Case("csum-128", options=(*_o("metadata_csum"), "-I", "128"), features=("metadata_csum",)),
    Case("csum_seed", options=_o("metadata_csum_seed"), features=("metadata_csum_seed",)),
    Case("csum_seed-new-uuid", options=_o("metadata_csum_seed"), later=("-U", "random")),
    Case("no-journal", options=_o("^has_journal"), absent=("has_journal",)),
    Case("quota", later=_o("quota"), features=("quota",)),
    Case("project", later=_o("project", "quota"), features=("project",)),
    Case("orphan_file", options=_o("orphan_file"), features=("orphan_file",), optional=True),
    Case("encrypt", options=_o("encrypt"), features=("encrypt",)),
    Case("verity", options=_o("verity"), features=("verity",), optional=True),
    Case("casefold", later=_o("casefold"), blind=True, features=("casefold",)),
    Case("stable_inodes", options=_o("stable_inodes"), features=("stable_inodes",)),
    Case("no-filetype", options=_o("^filetype"), absent=("filetype",)),
    Case("no-huge_file", options=_o("^huge_file"), absent=("huge_file",)),
    Case("no-extra_isize", options=_o("^extra_isize"), absent=("extra_isize",)),
    Case("mmp", options=_o("mmp"), features=("mmp",)),
    Case("dirty-lazy", options=("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"), dirty=True),
    Case("dirty-ext2", "ext2", 1024, options=("-E", "lazy_itable_init=1,nodiscard"), dirty=True, extents=False),
]


def make(image: Path, case: Case) -> None:
    """The image of a case, with its tree."""
    try:
        loop.mkfs(image, case.kind, case.size, "-b", str(case.block), *case.options, dirty=case.dirty)
    except RuntimeError as error:
        if case.optional:
            pytest.skip(str(error))
        raise
    if case.prepare:
        loop.debugfs(image, case.prepare, writable=True)
    try:
        with loop.mounted(image, "rw", kind=case.kind) as root:
            trees.everything(
                root,
                block=case.block,
                entries=case.entries,
                pieces=case.pieces,
                extents=case.extents,
                clusters="bigalloc" in case.features,
                big_xattr=case.big_xattr,
            )
    except RuntimeError as error:
        if case.optional and "mount" in str(error):
            pytest.skip(str(error))
        raise


def kernel(image: Path) -> dict[bytes, Entry]:
    """What the kernel shows without replaying a journal."""
    with loop.mounted(image) as root:
        return loop.kernel_tree(root)


def check(image: Path, truth: Mapping[bytes, Entry], *, ignore: tuple[str, ...] = ()) -> None:
    """Compares every path and field, and that a sound volume has no findings."""
    with ImageDevice(image) as device:
        filesystem = open_filesystem(ExtParser(), device)
        seen = browse_tree(filesystem).entries
        assert_same(truth, seen, ignore=ignore)
        bad = [str(finding) for finding in filesystem.findings if finding.severity > Severity.NOTE]
        assert not bad, bad
        filesystem.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equal_to_the_kernel(case: Case, tmp_path: Path) -> None:
    image = tmp_path / "image"
    make(image, case)
    truth = kernel(image) if case.blind else {}
    if case.later:
        loop.run("tune2fs", "-f", *case.later, image)
    if not case.blind:
        truth = kernel(image)
    features = loop.run("dumpe2fs", "-h", image).split("Filesystem features:")[1].split("\n")[0].split()
    assert set(case.features) <= set(features)
    assert not set(case.absent) & set(features)
    assert len(truth) > 600
    check(image, truth)


def test_the_trees_are_as_hard_as_they_say(tmp_path: Path) -> None:
    """Guards the tests themselves: the images hold the structures that they are meant to."""
    image = tmp_path / "image"
    make(image, Case("ext4-4k", entries=5000, pieces=1500, options=_o("ea_inode"), big_xattr=60_000))
    answers = loop.debugfs(
        image,
        [
            "dump_extents -n /fragmented",
            'htree_dump "/crowd full"',
            "ea_list /xattrs/large",
            "stat /xattrs/many",
            "dump_extents /holes/unwritten",
        ],
    )
    assert "1/ 2" in answers[0], "a tree of extents of depth 2"
    assert "Number of entries (count):" in answers[1]
    assert "inode <" in answers[2].lower() or "ea_inode" in answers[2] or "user.large" in answers[2]
    assert "File ACL: 0" not in answers[3]
    assert "Uninit" in answers[4]


#: Of one hash of the kind "legacy", which no seed changes, behind 246 times "h": three of them fill a block of 1 KiB.
SAME_HASH = ("98DD", "98jj", "98oo", "98pp", "9855")


def cost_of_names(image: Path, names: Iterable[bytes], absent: Iterable[bytes]) -> None:
    """Finds names in the folder "crowd" and none of those absent, each for less than 64 KiB, as the kernel does."""
    seed = loop.run("dumpe2fs", "-h", image).partition("Hash Seed:")[2].split()[0]
    with loop.mounted(image) as root, ImageDevice(image) as device:
        folder = root / "crowd"
        counter = CounterDevice(device)
        filesystem = open_filesystem(ExtParser(), counter)
        crowd = filesystem.lookup(np.array([filesystem.root], np.uint64), [b"crowd"]).file
        assert folder.stat().st_size > 400 << 10
        for name in [*names, *absent]:
            try:
                truth = (folder / os.fsdecode(name)).lstat().st_ino
            except FileNotFoundError:
                truth = 0
            counter.reset()
            found = filesystem.lookup(crowd, [name])
            assert not found.errors
            assert int(found.file[0]) == truth, (name, seed)
            assert counter.bytes < 64 << 10, ("the whole folder was read", name, seed)
        assert not [str(finding) for finding in filesystem.findings if finding.severity > Severity.NOTE]
        filesystem.close()


@pytest.mark.parametrize("flags", ["1", "2"], ids=["signed", "unsigned"])
@pytest.mark.parametrize("algorithm", ["legacy", "half_md4", "tea"])
@pytest.mark.parametrize("summed", ["metadata_csum", "^metadata_csum"])
def test_names_are_found_by_their_hash(summed: str, algorithm: str, flags: str, tmp_path: Path) -> None:
    """The kernel made the tree; no name, and no absent one either, costs reading the whole folder."""
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "64M", "-b", "1024", *_o(summed))  # the seed of the hash is a random one
    loop.run("tune2fs", "-E", f"hash_alg={algorithm}", image)
    loop.debugfs(image, [f"ssv flags {flags}"], writable=True)
    names = [f"{number:04x}-na\u00efve \u65e5\u672c {'x' * (number % 90)}".encode() for number in range(6000)]
    names += [b"\xff\xfe%d" % number + b"\x80" * (number % 40) for number in range(2000)]
    same = [b"h" * 246 + end.encode() for end in SAME_HASH]
    with loop.mounted(image, "rw") as root:
        folder = root / "crowd"
        folder.mkdir()
        for name in [*names, *same]:
            (folder / os.fsdecode(name)).touch()
    # At least one leaf goes on with the hash of the one before it.
    odd = re.findall(r"Hash 0x[0-9a-f]{7}[13579bdf], block", loop.run("debugfs", "-R", "htree_dump /crowd", image))
    assert odd or algorithm != "legacy"
    cost_of_names(image, [*names[::97], *names[-3:], *same], [name + b"?" for name in [*names[::50], *same]])


@pytest.mark.parametrize(("block", "entries", "levels"), [(4096, 3000, 0), (1024, 6000, 1), (1024, 40_000, 2)])
def test_trees_of_every_height(block: int, entries: int, levels: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "64M", "-b", str(block), *_o("large_dir"))
    names = [b"%06d" % number + b"y" * 240 for number in range(entries)]
    with loop.mounted(image, "rw") as root:
        folder = root / "crowd"
        folder.mkdir()
        (root / "file").touch()
        for name in names:
            (folder / os.fsdecode(name)).hardlink_to(root / "file")
    assert f"Indirect levels: {levels}\n" in loop.run("debugfs", "-R", "htree_dump /crowd", image)
    cost_of_names(image, names[:: entries // 50], [b"%d?" % number for number in range(400)])


def test_a_hash_that_goes_on_in_another_node(tmp_path: Path) -> None:
    """Names of one hash can lie in two leaves under two nodes; the second node's key in the root then is odd."""
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "64M", "-b", "1024", *_o("^metadata_csum"))
    names = [b"%06d" % number + b"y" * 240 for number in range(6000)]
    with loop.mounted(image, "rw") as root:
        folder = root / "crowd"
        folder.mkdir()
        for name in names:
            (folder / os.fsdecode(name)).touch()
    said = loop.run("debugfs", "-R", "htree_dump /crowd", image)
    assert "Indirect levels: 1\n" in said
    key, node = re.findall(r"Entry #1: Hash (0x[0-9a-f]+), block (\d+)", said)[0]
    first = re.findall(rf"Hash {key}, block {node}\nNumber of.*?Entry #0: Hash \S+ block (\d+)", said, re.S)[0]
    part = re.findall(rf"Reading directory block {first}, phys \d+\n(.*?)(?:Entry #|---)", said, re.S)[0]
    held = [(int(number, 16), name.encode()) for number, name in re.findall(r"(0x\S{8})-\S+ \(\d+\) (\S+)", part)]
    lowest, name = min(held)
    assert int(key, 16) <= lowest
    root_block = int(loop.debugfs(image, ["bmap /crowd 0"])[0]) * 1024
    with image.open("r+b") as file:
        file.seek(root_block + 0x20 + 8)
        assert file.read(4) == int(key, 16).to_bytes(4, "little")
        file.seek(root_block + 0x20 + 8)
        file.write((lowest | 1).to_bytes(4, "little"))
    # The kernel finds them all, and what the test is about: the one before whose hash the key now stands.
    cost_of_names(image, [*(name for _, name in held), name, *names[::100]], [b"%d?" % number for number in range(300)])


# -- more than a mount and a tree ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "group", "where"), [(1024, 8192, 8193), (4096, 8192, 8192 * 4), (2048, 4096, 4096 * 2)]
)
@pytest.mark.parametrize("descriptors", [False, True], ids=["superblock", "descriptors-too"])
def test_backup_superblock(block: int, group: int, where: int, descriptors: bool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "160M", "-b", str(block), "-g", str(group))
    with loop.mounted(image, "rw") as root:
        trees.everything(root, block=block, huge_size=0)
    with image.open("r+b") as file:
        file.seek(1024)
        file.write(bytes(1024))
        if descriptors:
            file.seek(2048 if block == 1024 else block)
            file.write(b"\xff" * block)
    with loop.mounted(image, f"ro,noload,sb={where}") as root:
        truth = loop.kernel_tree(root)
    with ImageDevice(image) as device:
        filesystem = open_filesystem(ExtParser(), device)
        assert_same(truth, browse_tree(filesystem).entries)
        assert any("backup" in finding.message.lower() for finding in filesystem.findings)


def test_blocks_past_two_to_the_32(tmp_path: Path) -> None:
    """A sparse volume of 8 TiB with blocks of 1 KiB: tables, extents and attributes lie behind the 32nd bit."""
    image = tmp_path / "image"
    features = "bigalloc,64bit,^has_journal,^resize_inode,^flex_bg"
    options = ("-b", "1024", "-O", features, "-C", "65536", "-N", "65536", "-E", "lazy_itable_init=1,nodiscard")
    try:
        loop.mkfs(image, "ext4", "8T", *options)
    except RuntimeError as error:
        if "truncate" in str(error):
            pytest.skip(f"no room for a sparse file of 8 TiB: {error}")
        raise
    with loop.mounted(image, "rw") as root:
        for number in range(24):
            folder = root / f"folder {number}"
            folder.mkdir()
            for name in range(3):
                (folder / f"file {name}").write_bytes(trees.noise(number * 10 + name, 100_000))
            trees.attribute(folder / "file 0", "user.outside the inode", trees.noise(number, 600))
            trees.fragmented(folder, 65_536, 8)
            (folder / "link").symlink_to("t" * 100)
    truth = kernel(image)
    inodes = [entry.ino for path, entry in truth.items() if path.endswith(b"file 0")]
    said = loop.debugfs(image, [f"imap <{inode}>" for inode in inodes] + [f"blocks <{inode}>" for inode in inodes])
    numbers = [int(word) for text in said for word in re.findall(r"(?:at block |^)(\d+)", text)]
    assert max(numbers) > 1 << 32
    check(image, truth)


def test_copied_while_it_was_mounted(tmp_path: Path) -> None:
    """What a snapshot catches: the journal holds what the volume does not; the kernel's `noload` is the oracle."""
    image, copy = tmp_path / "image", tmp_path / "copy"
    loop.mkfs(image, "ext4", "64M", "-b", "4096")
    with loop.mounted(image, "rw") as root:
        trees.plain(root)
        loop.run("sync", "-f", root)
        held = (root / "deleted and open").open("wb")
        with held:
            held.write(trees.noise(1, 100_000))
            held.flush()
            (root / "deleted and open").unlink()
            (root / "size-1").unlink()
            (root / "late").write_bytes(b"late")
            loop.run("sync", "-f", root)
            loop.run("cp", "--sparse=always", image, copy)
    truth = kernel(copy)
    with ImageDevice(copy) as device:
        filesystem = open_filesystem(ExtParser(), device)
        assert_same(truth, browse_tree(filesystem).entries)
        notes = [finding for finding in filesystem.findings if "journal" in finding.message.lower()]
        assert notes, "an unreplayed journal is a finding"
        assert {finding.severity for finding in notes} == {Severity.NOTE}


def test_times_that_only_debugfs_can_set(tmp_path: Path) -> None:
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "16M", "-b", "4096")
    with loop.mounted(image, "rw") as root:
        for number in range(12):
            (root / f"t{number}").write_bytes(b"t")
    commands = []
    for number, seconds in enumerate((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)):
        for epoch in range(2):
            path = f"/t{number * 2 + epoch}"
            for name in ("ctime", "crtime", "mtime", "atime"):
                extra = (999_999_999 << 2 | (epoch * 3)) & 0xFFFFFFFF
                commands += [
                    f"set_inode_field {path} {name} @{seconds}",
                    f"set_inode_field {path} {name}_extra {extra}",
                ]
    loop.debugfs(image, commands, writable=True)
    truth = kernel(image)
    assert {entry.ctime_ns for entry in truth.values()} >= {-1, ((3 << 32) - 1) * 1_000_000_000 + 999_999_999}
    by_debugfs = loop.debugfs_tree(image)
    for where, entry in truth.items():
        assert entry.ctime_ns == by_debugfs[where].ctime_ns
    check(image, by_debugfs, ignore=("error",))
    check(image, truth)


def test_encrypted_folder_without_its_key(tmp_path: Path) -> None:
    """Names and content are ciphertext; everything else is there, and the error says why."""
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "64M", "-b", "4096", "-O", "encrypt")
    with loop.mounted(image, "rw") as root:
        (root / "open").write_bytes(b"readable")
        secret = root / "secret"
        secret.mkdir()
        if not encrypted_folder(secret):
            pytest.skip("this kernel has no fscrypt")
        (secret / "a").write_bytes(trees.noise(5, 10_000))
        (secret / "sub").mkdir()
        (secret / "sub" / ("long " * 40)).write_bytes(b"x")
        (secret / "link").symlink_to("../open")
    truth = kernel(image)
    hidden = {entry.ino: entry for path, entry in truth.items() if path.startswith(b"secret/")}
    assert len(hidden) == 4
    with ImageDevice(image) as device:
        filesystem = open_filesystem(ExtParser(), device)
        seen = browse_tree(filesystem)
        visible = {path: entry for path, entry in truth.items() if not path.startswith(b"secret/")}
        assert_same(visible, {path: entry for path, entry in seen.entries.items() if path in visible})
        assert len(seen.entries) == len(truth)
        for path, entry in seen.entries.items():
            if entry.ino not in hidden:
                continue
            want = hidden[entry.ino]
            assert (entry.type, entry.mode, entry.mtime_ns) == (want.type, want.mode, want.mtime_ns)
            if entry.type == "file":
                assert entry.size == want.size
                assert entry.sha256 is None
                with pytest.raises(EncryptedError):
                    filesystem.open(seen.ids[path]).read(0, 1)
            if entry.type == "symlink":
                assert entry.target is None
                assert entry.error


def test_a_damaged_file_costs_itself_only(tmp_path: Path) -> None:
    """An inode with a wrong checksum: the kernel refuses it and shows all others."""
    image = tmp_path / "image"
    loop.mkfs(image, "ext4", "16M", "-b", "4096")
    with loop.mounted(image, "rw") as root:
        for number in range(20):
            (root / f"file {number}").write_bytes(trees.noise(number, 5000))
    whole = kernel(image)
    inode = whole[b"file 7"].ino or 0
    said = loop.debugfs(image, [f"imap <{inode}>"])[0]
    found = re.search(r"located at block (\d+), offset (0x[0-9a-f]+)", said)
    assert found, said
    block, offset = int(found[1]), int(found[2], 16)
    with image.open("r+b") as file:
        file.seek(block * 4096 + offset + 0x28 + 5)  # inside the extent header
        file.write(b"\xee")
    with ImageDevice(image) as device:
        filesystem = open_filesystem(ExtParser(), device)
        seen = browse_tree(filesystem).entries
        others = {path: entry for path, entry in whole.items() if path != b"file 7"}
        assert_same(others, {path: entry for path, entry in seen.items() if path != b"file 7"})
        assert b"file 7" in seen, "its name is still listed"
        findings = [finding for finding in filesystem.findings if finding.severity > Severity.NOTE]
        assert any(finding.file == inode for finding in findings)
        with pytest.raises(PseudomountError):
            filesystem.open(inode).read(0, 5000)
