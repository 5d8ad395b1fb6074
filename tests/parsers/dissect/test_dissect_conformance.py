"""The conformance suite over the adapters. What the libraries are known to get wrong must fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from pseudomount.device import BlockDevice
from pseudomount.filesystem import Parser
from pseudomount.testing import MemoryDevice
from pseudomount.testing.filesystem_conformance import Expected, FileSystemConformance
from pseudomount_dissect import DissectParser
from tests.conformance.test_ext_fixtures import volume_device
from tests.parsers.dissect.images import Image, manifest_of, small_btrfs, small_ntfs, small_xfs
from tests.support.fixtures import fixture_tree

pytest.importorskip("dissect.xfs", reason="needs the extra: pip install 'pseudomount[dissect]'")


class _Dissect(FileSystemConformance):
    rounds = 5
    sample = 40

    def parser(self) -> Parser:
        return DissectParser()


class _Made(_Dissect):
    def image(self) -> Image:
        raise NotImplementedError

    def device(self) -> BlockDevice:
        return MemoryDevice(self.image().path.read_bytes())

    def manifest(self) -> Mapping[bytes, Expected]:
        return manifest_of(self.image().truth)


@pytest.mark.loop
@pytest.mark.tools("mkfs.xfs", "fallocate")
class TestXfs(_Made):
    def image(self) -> Image:
        return small_xfs()


@pytest.mark.loop
@pytest.mark.tools("mkfs.btrfs", "btrfs", "fallocate")
class TestBtrfs(_Made):
    def image(self) -> Image:
        return small_btrfs()


@pytest.mark.loop
@pytest.mark.tools("mkntfs", "ntfs-3g")
class TestNtfs(_Made):
    def image(self) -> Image:
        return small_ntfs()


class _Ext(_Dissect):
    """A fixture: no tool is needed."""

    fixture: str

    def device(self) -> BlockDevice:
        return volume_device(self.fixture, "disk0")

    def manifest(self) -> Mapping[bytes, Expected]:
        return manifest_of(fixture_tree(self.fixture))


class TestExt3(_Ext):
    fixture = "ext3"


class TestExt2(_Ext):
    fixture = "ext2-1k"
    rounds = 2
    known_failures: ClassVar[Mapping[str, str]] = {"test_manifest": "times before 1970 are read as of 2038 to 2106"}


class TestExt4(_Ext):
    fixture = "ext4"
    rounds = 2
    known_failures: ClassVar[Mapping[str, str]] = {
        "test_manifest": "inline_data: names and bytes beyond the first 60 of a file or directory are lost",
        "test_runs_of_many_are_those_of_each": "inline_data: files of over 60 bytes are refused",
        "test_runs_and_open_give_the_same_bytes": "inline_data: files of over 60 bytes are refused",
    }
