"""The FAT and exFAT parsers on the images of `fixtures/`: needs no tool of the system, so it runs on any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.filesystem import FileSystem, Parser
from pseudomount.testing import MemoryDevice
from pseudomount.testing.filesystem_conformance import Expected, FileSystemConformance
from pseudomount_fat import ExfatParser, FatParser
from tests.support.browse import Tree, browse_tree, open_filesystem
from tests.support.fixtures import fixture_header, fixture_image, fixture_manifest

FIXTURES = ["fat12", "fat16", "fat32", "exfat"]
#: Bits of the attribute byte, by the letters that mattrib shows.
_ATTRIBUTES = {"R": 0x01, "H": 0x02, "S": 0x04, "A": 0x20}


def manifest(name: str) -> dict[bytes, dict[str, Any]]:
    """The rows of a manifest by path in UTF-8."""
    return {row["path"].encode(): row for row in fixture_manifest(name)}


def opened(name: str) -> tuple[FileSystem, Tree]:
    """The file system of a fixture, and all that is in it."""
    parser = ExfatParser() if name == "exfat" else FatParser()
    filesystem = open_filesystem(parser, MemoryDevice(fixture_image(name)))
    return filesystem, browse_tree(filesystem)


@pytest.mark.parametrize("name", FIXTURES)
def test_equal_to_the_manifest(name: str) -> None:
    header, wanted = fixture_header(name), manifest(name)
    assert hashlib.sha256(fixture_image(name)).hexdigest() == header["sha256"]
    filesystem, tree = opened(name)
    about = header["volumes"][0]
    assert (filesystem.name, filesystem.label, filesystem.uuid) == (
        about["filesystem"],
        about["label"],
        about["uuid"],
    )
    assert sorted(tree.entries) == sorted(wanted)
    for path, row in wanted.items():
        entry = tree.entries[path]
        assert entry.error is None, path
        for key in ("type", "size", "sha256", "atime_ns", "btime_ns"):
            if key in row:
                assert getattr(entry, key) == row[key], (path, key)
        if "mtime_ns" in row:
            ours = entry.mtime_ns
            # exfat-fuse knows no parts of a second.
            assert ours is not None
            assert (ours // 10**9 * 10**9 if name == "exfat" else ours) == row["mtime_ns"], path
    assert [str(finding) for finding in filesystem.findings] == []


@pytest.mark.parametrize("name", ["fat12", "fat16", "fat32"])
def test_attributes_are_those_of_mattrib(name: str) -> None:
    filesystem, tree = opened(name)
    wanted = {path: row for path, row in manifest(name).items() if "attributes" in row}
    flags = filesystem.rows(np.array([tree.ids[path] for path in wanted], np.uint64)).flags
    for (path, row), seen in zip(wanted.items(), flags.tolist(), strict=True):
        expected = sum(_ATTRIBUTES[letter] for letter in row["attributes"] if letter != "D")
        assert seen & ~0x10 == expected, path
        assert bool(seen & 0x10) == (row["type"] == "dir"), path
    assert {row["attributes"] for row in wanted.values()} >= {"A", "HR", "S"}


@pytest.mark.parametrize("name", FIXTURES)
def test_the_fixtures_hold_what_they_are_for(name: str) -> None:
    filesystem, tree = opened(name)
    file = tree.ids[b"laid in pieces.bin"]
    assert len(filesystem.runs(np.array([file], np.uint64))) > 5
    if name != "exfat":
        assert {"ÄÖÜ.DAT".encode(), "ÉÑ.BIN".encode(), b"bits2.TXT"} <= tree.entries.keys()


class _FatConformance(FileSystemConformance):
    fixture: str

    def parser(self) -> Parser:
        return FatParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(fixture_image(self.fixture))

    def manifest(self) -> Mapping[bytes, Expected]:
        exact = self.fixture != "exfat"
        return {
            path: Expected(
                row["type"], row.get("size"), row.get("sha256"), modified_ns=row.get("mtime_ns") if exact else None
            )
            for path, row in manifest(self.fixture).items()
        }


class TestFat12(_FatConformance):
    fixture = "fat12"


class TestFat16(_FatConformance):
    fixture = "fat16"


class TestFat32(_FatConformance):
    fixture = "fat32"
    rounds = 6


class TestExfat(_FatConformance):
    fixture = "exfat"

    def parser(self) -> Parser:
        return ExfatParser()
