"""The NTFS parser on the images of `fixtures/`: needs no tool of the system, so it runs on any."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import EncryptedError, UnsupportedError
from pseudomount.filesystem import NAT, FileSystem, FileType, Parser
from pseudomount.findings import Severity
from pseudomount.testing import MemoryDevice
from pseudomount.testing.filesystem_conformance import Expected, FileSystemConformance
from pseudomount_ntfs import NtfsParser
from tests.support.browse import Tree, browse_tree, open_filesystem
from tests.support.entries import assert_same, unescape
from tests.support.fixtures import FOLDER, fixture_header, fixture_image, fixture_tree
from tests.support.ntfs import Image, content, find, open_ntfs

FIXTURES = ["ntfs-4k", "ntfs-512", "ntfs-64k"]


@functools.cache
def _rows(name: str) -> dict[bytes, dict[str, Any]]:
    lines = (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()[1:]
    return {unescape(row["path"]): row for row in map(json.loads, lines)}


def _opened(name: str) -> tuple[FileSystem, Tree]:
    filesystem = open_filesystem(NtfsParser(), MemoryDevice(fixture_image(name)))
    return filesystem, browse_tree(filesystem)


@pytest.mark.parametrize("name", FIXTURES)
def test_equal_to_the_manifest(name: str) -> None:
    header = fixture_header(name)
    assert hashlib.sha256(fixture_image(name)).hexdigest() == header["sha256"]
    filesystem, tree = _opened(name)
    about = header["volumes"][0]
    assert (filesystem.name, filesystem.label, filesystem.uuid) == ("ntfs", about["label"], about["uuid"])
    assert_same(fixture_tree(name), tree.entries)
    assert not [finding for finding in filesystem.findings if finding.severity > Severity.NOTE]


@pytest.mark.parametrize("name", FIXTURES)
def test_attributes_security_and_times_are_those_of_others(name: str) -> None:
    filesystem, tree = _opened(name)
    seen = dict.fromkeys(("attributes", "security_id", "acl_sha256", "name_times_ns"), 0)
    wanted = {path: row for path, row in _rows(name).items() if "attributes" in row}
    files = np.array([tree.ids[path] for path in wanted], np.uint64)
    rows = filesystem.rows(files)
    for i, (path, row) in enumerate(wanted.items()):
        # ntfs-3g adds the bit that says directory, which only names have, and hides compression of what has no runs.
        assert int(rows.flags[i]) & 0xFFF == row["attributes"] & 0xFEF, path
        assert int(rows.extra["security_id"][i]) == row.get("security_id", 0), path
        if "acl_sha256" in row:
            descriptor = filesystem.xattrs(int(files[i]))["system.ntfs_acl"]
            assert hashlib.sha256(descriptor).hexdigest() == row["acl_sha256"], path
        for word, ns in row.get("name_times_ns", {}).items():
            assert int(rows.extra[f"fn_{word}"].view(np.int64)[i]) in {ns, NAT}, (path, word)
        for key in seen:
            seen[key] += key in row
    if name == "ntfs-512":
        del seen["security_id"]  # ntfs-3g gave each file a descriptor of its own
    assert min(seen.values()) > 2, seen


@pytest.mark.parametrize("name", FIXTURES)
def test_named_streams_are_those_of_others(name: str) -> None:
    filesystem, tree = _opened(name)
    rows = _rows(name)
    assert sum("streams" in row for row in rows.values()) >= 2
    for path, row in rows.items():
        streams = {stream.name: stream.size for stream in filesystem.streams(tree.ids[path])}
        assert streams.keys() == row.get("streams", {}).keys(), path
        for stream, sha256 in row.get("streams", {}).items():
            with filesystem.open(tree.ids[path], stream) as device:
                assert device.size == streams[stream]
                assert hashlib.sha256(device.read(0, device.size)).hexdigest() == sha256, (path, stream)


def test_the_fixtures_hold_what_is_hard() -> None:
    """Else the comparisons above show little."""
    filesystem, tree = _opened("ntfs-4k")
    kinds = {entry.type for entry in tree.entries.values()}
    assert kinds == {"file", "dir", "symlink", "char", "block", "fifo", "socket"}
    runs = filesystem.runs(np.array([tree.ids[b"packed/mixed"], tree.ids[b"size-4097"]], np.uint64))
    assert runs.encoded.tolist() == [True, False]
    assert 2 in runs.kind.tolist(), "no data behind the valid length"
    assert filesystem.rows(np.array([tree.ids[b"many"]], np.uint64)).allocated[0] > 16 * 4096
    scattered = Image(fixture_image("ntfs-512"))
    scattered.attribute(0, 0x20)
    assert scattered.cluster == 512
    filesystem, tree = _opened("ntfs-512")
    assert len(filesystem.runs(np.array([tree.ids[b"fragmented"]], np.uint64))) > 50
    large = Image(fixture_image("ntfs-64k"))
    assert (large.sector, large.cluster, large.record) == (4096, 65_536, 4096)


@pytest.mark.parametrize(
    ("tag", "match"),
    [(0x80000017, "WOF"), (0x80000013, "dedup"), (0xC0000004, "kept elsewhere"), (0x9000001C, "kept elsewhere")],
)
def test_content_that_the_main_stream_does_not_hold_is_refused(tag: int, match: str) -> None:
    image = Image(fixture_image("ntfs-4k"))
    file = find(open_ntfs(MemoryDevice(bytes(image.data))), "streams")
    # An attribute that every file has, and nobody misses here, becomes a reparse point.
    at = image.attribute(file, 0x50)
    value = at + struct.unpack_from("<H", image.data, at + 20)[0]
    image.poke(at, struct.pack("<I", 0xC0))
    image.poke(value, struct.pack("<IHH", tag, 16, 0))
    filesystem = open_ntfs(MemoryDevice(bytes(image.data)))
    with pytest.raises(UnsupportedError, match=match):
        filesystem.open(file)
    assert filesystem.runs(np.array([file], np.uint64)).encoded.tolist() == [True]
    assert content(filesystem, "streams", "one") == b"00000"
    rows = filesystem.rows(np.array([file], np.uint64))
    assert (rows.type[0], rows.extra["reparse_tag"][0]) == (FileType.FILE, tag)


def test_encrypted_content_is_refused() -> None:
    image = Image(fixture_image("ntfs-4k"))
    file = find(open_ntfs(MemoryDevice(bytes(image.data))), "size-65537")
    image.poke(image.attribute(file, 0x80) + 12, b"\x00\x40")
    filesystem = open_ntfs(MemoryDevice(bytes(image.data)))
    with pytest.raises(EncryptedError, match="EFS"):
        filesystem.open(file)


def test_a_damaged_security_descriptor_costs_itself() -> None:
    image = Image(fixture_image("ntfs-4k"))
    filesystem = open_ntfs(MemoryDevice(bytes(image.data)))
    names = ("owned/by 1000 600", "owned/by 1000 640")
    first, second = (find(filesystem, name) for name in names)
    damaged, whole = (filesystem.xattrs(file)["system.ntfs_acl"] for file in (first, second))
    assert damaged != whole
    at = bytes(image.data).find(damaged)
    image.poke(at - 16, b"\xff\xff")  # its own id, in the header before it
    filesystem = open_ntfs(MemoryDevice(bytes(image.data)))
    assert "system.ntfs_acl" not in filesystem.xattrs(first)
    assert [finding.structure for finding in filesystem.findings] == ["$SDS"]
    assert filesystem.xattrs(second)["system.ntfs_acl"] == whole


class _NtfsConformance(FileSystemConformance):
    fixture: str

    def parser(self) -> Parser:
        return NtfsParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(fixture_image(self.fixture))

    def manifest(self) -> Mapping[bytes, Expected]:
        return {
            path: Expected(
                entry.type,
                entry.size,
                entry.sha256,
                entry.target,
                entry.mode,
                entry.uid,
                entry.gid,
                entry.nlink,
                entry.mtime_ns,
            )
            for path, entry in fixture_tree(self.fixture).items()
        }


class TestNtfs(_NtfsConformance):
    fixture = "ntfs-4k"


class TestClustersOf512(_NtfsConformance):
    fixture = "ntfs-512"


class TestClustersOf64KiB(_NtfsConformance):
    fixture = "ntfs-64k"
    rounds = 6
