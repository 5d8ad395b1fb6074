"""Scans of all fixtures against the plain walk; needs no tool of the system."""

from __future__ import annotations

import pytest

from pseudomount.device import BlockDevice, SliceDevice
from pseudomount.filesystem import Parser
from pseudomount.testing import MemoryDevice
from pseudomount.testing.scan_conformance import ScanConformance
from pseudomount_ext import ExtParser
from pseudomount_fat import ExfatParser, FatParser
from pseudomount_ntfs import NtfsParser
from tests.support.catalogues import assert_equals_walk
from tests.support.fixtures import fixture_header, fixture_image, fixture_names

PARSERS: dict[str, type[Parser]] = {"ext": ExtParser, "fat": FatParser, "exf": ExfatParser, "ntf": NtfsParser}


def _parser(fixture: str, volume: str) -> Parser:
    about = next(about for about in fixture_header(fixture)["volumes"] if about["name"] == volume)
    return PARSERS[about["filesystem"][:3]]()


def _device(fixture: str, volume: str) -> BlockDevice:
    about = next(about for about in fixture_header(fixture)["volumes"] if about["name"] == volume)
    return SliceDevice(MemoryDevice(fixture_image(fixture)), about["start"], about["size"])


class _Scan(ScanConformance):
    fixture: str
    volume = "disk0"

    def parser(self) -> Parser:
        return _parser(self.fixture, self.volume)

    def device(self) -> BlockDevice:
        return _device(self.fixture, self.volume)

    @pytest.mark.parametrize("deleted", [False, True])
    def test_catalogue(self, deleted: bool) -> None:
        with self.device() as device:
            filesystem = self.open(device)
            assert_equals_walk(filesystem, deleted=deleted)
            filesystem.close()


class TestExt2(_Scan):
    fixture = "ext2-1k"


class TestExt3(_Scan):
    fixture = "ext3"


class TestExt4(_Scan):
    fixture = "ext4"


class TestExtWithBlocksOf64KiB(_Scan):
    fixture = "ext4-64k"
    scan_rounds = 4


class TestExtPartition(_Scan):
    fixture = "mbr"
    volume = "disk0p6"


class TestFat12(_Scan):
    fixture = "fat12"


class TestFat16(_Scan):
    fixture = "fat16"


class TestFat32(_Scan):
    fixture = "fat32"
    scan_rounds = 4


class TestExfat(_Scan):
    fixture = "exfat"


class TestNtfs512(_Scan):
    fixture = "ntfs-512"


class TestNtfs4k(_Scan):
    fixture = "ntfs-4k"


class TestNtfs64k(_Scan):
    fixture = "ntfs-64k"
    scan_rounds = 4


def test_every_fixture_is_here() -> None:
    here = {case.fixture for case in _Scan.__subclasses__()}
    assert {*here, "gpt"} == set(fixture_names())
