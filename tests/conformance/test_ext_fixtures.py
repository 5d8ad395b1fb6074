"""The ext parser on the images of `fixtures/`: needs no tool of the system, so it runs on any."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from pseudomount.device import BlockDevice, SliceDevice
from pseudomount.filesystem import Parser
from pseudomount.findings import Severity
from pseudomount.testing import MemoryDevice
from pseudomount.testing.filesystem_conformance import Expected, FileSystemConformance
from pseudomount_ext import ExtParser
from tests.support.browse import browse_tree, open_filesystem
from tests.support.entries import assert_same
from tests.support.fixtures import fixture_header, fixture_image, fixture_names, fixture_tree

VOLUMES = [
    (name, about["name"])
    for name in fixture_names()
    for about in fixture_header(name)["volumes"]
    if about["filesystem"].startswith("ext")
]


def volume_device(name: str, volume: str) -> BlockDevice:
    """A volume of a fixture."""
    about = next(about for about in fixture_header(name)["volumes"] if about["name"] == volume)
    return SliceDevice(MemoryDevice(fixture_image(name)), about["start"], about["size"])


def test_there_are_fixtures() -> None:
    assert {"ext2-1k", "ext3", "ext4", "ext4-64k", "gpt", "mbr"} <= set(fixture_names())


@pytest.mark.parametrize("name", fixture_names())
def test_the_image_is_the_one_that_was_read(name: str) -> None:
    assert hashlib.sha256(fixture_image(name)).hexdigest() == fixture_header(name)["sha256"]


@pytest.mark.parametrize(("name", "volume"), VOLUMES)
def test_equal_to_the_manifest(name: str, volume: str) -> None:
    about = next(about for about in fixture_header(name)["volumes"] if about["name"] == volume)
    with volume_device(name, volume) as device:
        filesystem = open_filesystem(ExtParser(), device)
        assert (filesystem.name, filesystem.label, filesystem.uuid) == (
            about["filesystem"],
            about["label"],
            about["uuid"],
        )
        assert_same(fixture_tree(name, volume), browse_tree(filesystem).entries)
        assert not [finding for finding in filesystem.findings if finding.severity > Severity.NOTE]


class _ExtConformance(FileSystemConformance):
    fixture: str
    volume: str = "disk0"

    def parser(self) -> Parser:
        return ExtParser()

    def device(self) -> BlockDevice:
        return volume_device(self.fixture, self.volume)

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
            for path, entry in fixture_tree(self.fixture, self.volume).items()
        }


class TestExt2(_ExtConformance):
    fixture = "ext2-1k"


class TestExt3(_ExtConformance):
    fixture = "ext3"


class TestExt4(_ExtConformance):
    fixture = "ext4"


class TestBlocksOf64KiB(_ExtConformance):
    fixture = "ext4-64k"
    rounds = 6


class TestPartition(_ExtConformance):
    fixture = "mbr"
    volume = "disk0p6"
