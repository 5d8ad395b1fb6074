"""Content, links and metadata of single files, against what was written through ntfs-3g and what it reads back."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import (
    EncryptedError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    UnsupportedError,
)
from pseudomount.filesystem import NAT, FileType, RunKind
from pseudomount.testing import MemoryDevice
from pseudomount_ntfs import Ntfs
from tests.parsers.ntfs.conftest import LONG, NOISE, OUT_OF_RANGE, TEXT
from tests.support.browse import browse_tree
from tests.support.entries import assert_same
from tests.support.ntfs import Image, content, find, fuse_tree, get_xattr, names, ntfs3g, open_ntfs

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]

_MAIN = ["type", "size", "sha256", "target", "nlink", "mtime_ns", "atime_ns", "ctime_ns", "ino", "rdev"]


def _row(ntfs: Ntfs, path: str) -> dict[str, int]:
    rows = ntfs.rows(np.array([find(ntfs, path)], np.uint64))
    assert not rows.errors
    names = ("type", "size", "allocated", "mode", "uid", "gid", "links", "flags", "inode", "generation")
    return {name: int(getattr(rows, name)[0]) for name in names} | {k: int(v[0]) for k, v in rows.extra.items()}


def test_the_whole_tree_is_what_ntfs_3g_shows(ntfs: Ntfs, sample_path: Path) -> None:
    with ntfs3g(sample_path, "ro,streams_interface=none") as top:
        truth = fuse_tree(top)
    ours = browse_tree(ntfs).entries
    # What ntfs-3g cannot decode is a link to it, with a message for a target; what these are, the tests below say.
    opaque = [path for path, entry in truth.items() if entry.target and entry.target.startswith(b"unsupported reparse")]
    assert sorted(opaque) == [b"app", b"away", b"cloud", b"dedup", b"elsewhere", b"wof"]
    # Windows' own targets it rewrites as paths from its mount point.
    rewritten = [b"absolute", b"junction", b"symlink", b"volume"]
    assert {truth[path].type for path in rewritten} == {ours[path].type for path in rewritten} == {"symlink"}
    for path in (*opaque, *rewritten):
        del truth[path], ours[path]
    # An 8.3 alias is no second link: ntfs-3g counts it as one.
    alias = b"A long name.text"
    assert (truth[alias].nlink, ours[alias].nlink) == (2, 1)
    truth[alias] = replace(truth[alias], nlink=1)
    assert_same(truth, ours, only=_MAIN)
    # A lower bound for what was compared.
    assert {entry.type for entry in truth.values()} == {"file", "dir", "symlink", "fifo", "char", "block"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("small", b"resident"),
        ("long", LONG),
        ("empty", b""),
        ("packed/text", TEXT),
        ("packed/noise", NOISE),
        ("packed/mixed", NOISE[:70_000] + bytes(150_000) + TEXT[:100_000] + NOISE[:3]),
        ("sparse", bytes(2_000_000) + b"end"),
    ],
)
def test_content_is_what_was_written(ntfs: Ntfs, path: str, expected: bytes) -> None:
    assert content(ntfs, path) == expected


def test_parts_of_a_compressed_file_are_read_in_a_batch(ntfs: Ntfs) -> None:
    expected = NOISE[:70_000] + bytes(150_000) + TEXT[:100_000] + NOISE[:3]
    row = _row(ntfs, "packed/mixed")
    assert 0 < row["allocated"] < row["size"] * 3 // 4, "it is not compressed, the test shows nothing"
    device = ntfs.open(find(ntfs, "packed/mixed"))
    offsets = np.array([320_000, 0, 65_530, 65_536, 219_990, 1], np.int64)
    lengths = np.array([3, 10, 12, 1, 70_000, 200_000], np.int64)
    batch = device.read_many(offsets, lengths)
    assert not batch.errors
    for i, (offset, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
        assert batch.view(i).tobytes() == expected[offset : offset + length]
    runs = ntfs.runs(np.array([find(ntfs, "packed/mixed")], np.uint64))
    assert runs.encoded.tolist() == [True]


def test_named_streams(ntfs: Ntfs) -> None:
    file = find(ntfs, "streams")
    assert {stream.name: stream.size for stream in ntfs.streams(file)} == {"one": 5, "Zwei": len(NOISE)}
    assert content(ntfs, "streams") == b""
    assert content(ntfs, "streams", "one") == b"first"
    assert content(ntfs, "streams", "zWEI") == NOISE
    with pytest.raises(PathNotFoundError, match="drei"):
        ntfs.open(file, "drei")
    assert ntfs.streams(find(ntfs, "small")) == []


def test_directories_have_no_content_and_files_no_entries(ntfs: Ntfs) -> None:
    with pytest.raises(PathIsDirectoryError):
        ntfs.open(find(ntfs, "many"))
    asked = np.array([find(ntfs, path) for path in ("small", "many", "junction")], np.uint64)
    links = ntfs.children(asked)
    assert {row: type(error) for row, error in links.errors.items()} == {
        0: PathNotDirectoryError,
        2: PathNotDirectoryError,
    }
    assert len(links) == 5
    assert links.query.tolist() == [1] * 5


@pytest.mark.parametrize(
    ("path", "target", "parts"),
    [
        ("symlink", rb"many\..\small", (False, [b"many", b"..", b"small"])),
        ("absolute", rb"C:\many\x", (True, [b"many", b"x"])),
        ("junction", rb"C:\many", (True, [b"many"])),
        ("volume", b"\\\\?\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\", (True, [])),
        ("elsewhere", rb"\\server\share\x", (True, [rb"\\server", b"share", b"x"])),
        ("interix", b"many/../small", (False, [b"many", b"..", b"small"])),
        ("wsl", b"many/../small", (False, [b"many", b"..", b"small"])),
    ],
)
def test_links_of_all_kinds(ntfs: Ntfs, path: str, target: bytes, parts: tuple[bool, list[bytes]]) -> None:
    file = find(ntfs, path)
    row = _row(ntfs, path)
    assert row["type"] == FileType.SYMLINK
    assert row["size"] == len(target)
    answer = ntfs.readlink(np.array([file, find(ntfs, "small")], np.uint64))
    assert answer.target[0] == target
    assert list(answer.errors) == [1]
    assert isinstance(answer.errors[1], NotASymlinkError)
    assert ntfs.link_parts(target) == parts


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (rb"\??\C:\a\b", (True, [b"a", b"b"])),
        (rb"\\?\C:\a", (True, [b"a"])),
        (rb"\a\..\b", (True, [b"a", b"..", b"b"])),
        (rb".\a", (False, [b".", b"a"])),
        (rb"\\?\UNC\host\share", (True, [rb"\\host", b"share"])),
        (b"", (False, [])),
        (b"/mnt/c/x", (True, [b"mnt", b"c", b"x"])),
    ],
)
def test_parts_of_targets(ntfs: Ntfs, target: bytes, parts: tuple[bool, list[bytes]]) -> None:
    assert ntfs.link_parts(target) == parts


def test_special_files(ntfs: Ntfs) -> None:
    assert _row(ntfs, "pipe")["type"] == FileType.FIFO
    assert _row(ntfs, "wsl pipe")["type"] == FileType.FIFO
    node, wsl = _row(ntfs, "node"), _row(ntfs, "wsl node")
    assert (node["type"], node["rdev_major"], node["rdev_minor"]) == (FileType.CHAR_DEVICE, 5, 300)
    assert (wsl["type"], wsl["rdev_major"], wsl["rdev_minor"]) == (FileType.BLOCK_DEVICE, 8, 77)
    assert wsl["reparse_tag"] == 0x80000026
    assert _row(ntfs, "small")["rdev_major"] == -1


def test_other_reparse_points_are_shown_with_their_tag(ntfs: Ntfs) -> None:
    row = _row(ntfs, "app")
    assert (row["type"], row["reparse_tag"]) == (FileType.FILE, 0x8000001B)
    assert ntfs.xattrs(find(ntfs, "app"))["system.ntfs_reparse_data"][8:] == b"\3\0\0\0abcd"
    assert content(ntfs, "app") == b""


@pytest.mark.parametrize(("path", "match"), [("wof", "WOF"), ("dedup", "dedup"), ("away", "cloud")])
def test_content_that_lies_elsewhere_is_refused(ntfs: Ntfs, path: str, match: str) -> None:
    with pytest.raises(UnsupportedError, match=match):
        ntfs.open(find(ntfs, path))
    if path != "away":
        assert ntfs.runs(np.array([find(ntfs, path)], np.uint64)).encoded.tolist() == [True]


def test_a_cloud_file_that_is_here_is_read(ntfs: Ntfs) -> None:
    assert content(ntfs, "cloud") == LONG
    assert content(ntfs, "wof", "WofCompressedData") == NOISE[:5000]


def test_efs_is_refused(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    at = sample.attribute(find(ntfs, "long"), 0x80)
    sample.poke(at + 12, b"\x00\x40")
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    with pytest.raises(EncryptedError, match="EFS"):
        ntfs.open(find(ntfs, "long"))
    assert ntfs.runs(np.array([find(ntfs, "long")], np.uint64)).encoded.tolist() == [True]


def test_bytes_behind_the_valid_data_are_zeros(sample: Image, tmp_path: Path) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    file = find(ntfs, "long")
    at = sample.attribute(file, 0x80)
    assert struct.unpack_from("<Q", sample.data, at + 56)[0] == len(LONG)
    sample.poke(at + 56, struct.pack("<Q", 5001))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    image = tmp_path / "short.img"
    image.write_bytes(sample.data)
    with ntfs3g(image) as top:
        truth = (top / "long").read_bytes()
    assert truth == LONG[:5001] + bytes(len(LONG) - 5001)
    assert content(ntfs, "long") == truth
    runs = ntfs.runs(np.array([file], np.uint64))
    assert runs.kind.tolist() == [RunKind.DATA, RunKind.UNWRITTEN]
    assert runs.offset.tolist() == [0, 5001]


def test_times_beyond_what_int64_holds_are_exact(ntfs: Ntfs) -> None:
    rows = ntfs.rows(np.array([find(ntfs, "times")], np.uint64))
    created, modified, accessed, changed = OUT_OF_RANGE
    for column, ticks in (
        (rows.created, created),
        (rows.modified, modified),
        (rows.accessed, accessed),
    ):
        seconds, rest = divmod(ticks, 10_000_000)
        assert column.exact(0) == (seconds - 11_644_473_600, rest * 100)
    assert rows.created.ns[0] == (created - 116_444_736_000_000_000) * 100
    assert rows.modified.ns[0] == NAT
    assert rows.accessed.ns[0] == NAT
    assert changed == 0


@pytest.mark.tools("istat")
def test_both_sets_of_times_are_what_istat_shows(ntfs: Ntfs, sample_path: Path) -> None:
    file = find(ntfs, "long")
    said = subprocess.run(
        ["istat", "-i", "raw", "-f", "ntfs", sample_path, str(file & (1 << 48) - 1)],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "TZ": "UTC"},
    ).stdout
    shown = re.findall(r"^(Created|File Modified|MFT Modified|Accessed):\t\S+ \S+?\.(\d{9})", said, re.MULTILINE)
    assert len(shown) == 8
    assert [word for word, _ in shown] == ["Created", "File Modified", "MFT Modified", "Accessed"] * 2
    rows = ntfs.rows(np.array([file], np.uint64))
    info = [int(column.ns[0]) for column in (rows.created, rows.modified, rows.changed, rows.accessed)]
    own = [int(rows.extra[f"fn_{word}"][0]) for word in ("created", "modified", "changed", "accessed")]
    assert [f"{ns % 1_000_000_000:09d}" for ns in info + own] == [part for _, part in shown]


def test_security_descriptors_are_what_ntfs_3g_gives(ntfs: Ntfs, sample_path: Path) -> None:
    with ntfs3g(sample_path) as top:
        truth = {path: get_xattr(top / path, "system.ntfs_acl") for path in ("small", "many", "packed/text")}
    ours = {path: ntfs.xattrs(find(ntfs, path))["system.ntfs_acl"] for path in truth}
    assert ours == truth
    assert _row(ntfs, "small")["security_id"] == 0  # ntfs-3g gave it a descriptor of its own, ntfsinfo shows no id


def test_extended_attributes(ntfs: Ntfs) -> None:
    assert ntfs.xattrs(find(ntfs, "attributes"))["user.NAME"] == b"value"


def test_nobody_owns_files(ntfs: Ntfs) -> None:
    row = _row(ntfs, "small")
    assert (row["mode"], row["uid"], row["gid"]) == (-1, -1, -1)
    assert row["links"] == 41
    file = find(ntfs, "small")
    assert (row["inode"], row["generation"]) == (file & (1 << 48) - 1, file >> 48)


def test_aliases_are_found_and_not_listed(ntfs: Ntfs) -> None:
    assert "A long name.text" in names(ntfs)
    assert not [name for name in names(ntfs) if "~" in name]
    assert find(ntfs, "alongn~1.TEX") == find(ntfs, "A long name.text")
    assert _row(ntfs, "A long name.text")["links"] == 1


def test_metafiles_are_hidden_and_found(ntfs: Ntfs, sample: Image) -> None:
    assert not [name for name in names(ntfs) if name.startswith("$")]
    assert find(ntfs, "$mft") & 0xFFFF == 0
    assert find(ntfs, "$Extend/$ObjId") & (1 << 48) - 1 >= 24
    shown = names(open_ntfs(MemoryDevice(bytes(sample.data)), system_files="yes"))
    assert {"$MFT", "$MFTMirr", "$LogFile", "$Volume", "$Boot", "$Secure", "$UpCase", "$Extend"} <= set(shown)
    assert "." not in shown
    assert content(ntfs, "$Secure") == b""
    assert len(content(ntfs, "$UpCase")) == 128 << 10
    assert content(ntfs, "$MFTMirr")[:4] == b"FILE"
