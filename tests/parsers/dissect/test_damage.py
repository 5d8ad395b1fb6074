"""Damage on which the library by itself would hang, or would take memory without end."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem import FileType
from pseudomount.findings import FindingLog
from pseudomount.testing import CounterDevice, MemoryDevice
from pseudomount_dissect import DissectParser
from tests.parsers.dissect.images import small_btrfs, small_ntfs, small_xfs
from tests.support.ntfs import content, find

pytest.importorskip("dissect.xfs", reason="needs the extra: pip install 'pseudomount[dissect]'")

_NODE = 16384


def _nodes(image: bytearray, owner: int) -> list[int]:
    """Where the nodes of a tree of Btrfs begin: by the volume's id in their headers, and their owner."""
    fsid = bytes(image[0x10020:0x10030])
    return [
        at
        for at in range(0, len(image) - _NODE, 4096)
        if image[at + 32 : at + 48] == fsid and struct.unpack_from("<Q", image, at + 88)[0] == owner and at != 0x10000
    ]


@pytest.mark.loop
@pytest.mark.tools("mkfs.btrfs", "btrfs", "fallocate")
@pytest.mark.parametrize("damage", ["no items", "too many items", "points to itself"])
def test_nodes_of_btrfs(damage: str) -> None:
    image = bytearray(small_btrfs().path.read_bytes())
    nodes = _nodes(image, 5)
    assert nodes
    for at in nodes:
        if damage == "points to itself":
            address = struct.unpack_from("<Q", image, at + 48)[0]
            struct.pack_into("<IB", image, at + 96, 3, 1)
            for pointer in range(3):
                struct.pack_into("<QBQQQ", image, at + 101 + 33 * pointer, pointer, 0, 0, address, 1)
        else:
            struct.pack_into("<I", image, at + 96, 0 if damage == "no items" else 0xFFFFFFFF)
    device = CounterDevice(MemoryDevice(bytes(image)))
    filesystem = DissectParser().open(device, FindingLog())
    links = filesystem.children(np.array([filesystem.root], np.uint64))
    assert isinstance(links.errors[0], CorruptionError)
    assert "end" not in str(links.errors[0]), "the clock broke it off"
    assert device.ranges < 500


@pytest.mark.loop
@pytest.mark.tools("mkntfs", "ntfs-3g")
@pytest.mark.parametrize("kind", [0x10, 0x30])
def test_attributes_of_ntfs_that_would_be_read_whole(kind: int) -> None:
    """Standard information and names that claim to be elsewhere, and 16 GiB."""
    image = bytearray(small_ntfs().path.read_bytes())
    with MemoryDevice(bytes(image)) as device:
        file = find(DissectParser().open(device, FindingLog()), "size 60") & 0xFFFFFFFF
    mft = struct.unpack_from("<Q", image, 48)[0] * 4096
    at = mft + file * 1024
    assert image[at : at + 4] == b"FILE"
    at += struct.unpack_from("<H", image, at + 20)[0]
    while struct.unpack_from("<I", image, at)[0] != kind:
        at += struct.unpack_from("<I", image, at + 4)[0]
    image[at + 8] = 1
    struct.pack_into("<q", image, at + 48, 16 << 30)
    with MemoryDevice(bytes(image)) as device:
        filesystem = DissectParser().open(device, FindingLog())
        rows = filesystem.rows(np.array([file], np.uint64))
        assert "too large" in str(rows.errors[0])
        assert content(filesystem, "deep/er/still/bottom") == b"deep down"


@pytest.mark.loop
@pytest.mark.tools("mkfs.xfs", "fallocate")
def test_an_inode_of_xfs_that_is_another_one() -> None:
    image = bytearray(small_xfs().path.read_bytes())
    with MemoryDevice(bytes(image)) as device:
        filesystem = DissectParser().open(device, FindingLog())
        file = find(filesystem, "size 60")
    # Allocation group 0 has the small numbers; an inode of version 3 says which one it is.
    places = [at for at in range(0, len(image), 512) if image[at : at + 2] == b"IN"]
    (at,) = (at for at in places if struct.unpack_from(">Q", image, at + 152)[0] == file)
    struct.pack_into(">Q", image, at + 152, file + 1)
    with MemoryDevice(bytes(image)) as device:
        filesystem = DissectParser().open(device, FindingLog())
        rows = filesystem.rows(np.array([file, find(filesystem, "size 700")], np.uint64))
        assert isinstance(rows.errors[0], CorruptionError)
        assert FileType(int(rows.type[1])) is FileType.FILE
        with pytest.raises(PseudomountError):
            filesystem.open(file)
