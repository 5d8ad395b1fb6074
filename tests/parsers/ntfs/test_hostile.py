"""A volume with bytes changed at random: nothing but PseudomountErrors, in bounded work."""

from __future__ import annotations

import random

import numpy as np
import pytest

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileSystem, FileType
from pseudomount.testing import CounterDevice, MemoryDevice
from pseudomount_ntfs import NtfsParser
from tests.support.ntfs import Image, find, open_ntfs

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]

_EXTREMES = [b"\xff" * 4, bytes(4), b"\xff" * 8, b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\xff" * 7 + b"\x7f"]


class _Buffer(MemoryDevice):
    """Bytes that are changed between two uses."""

    def __init__(self, image: bytearray) -> None:
        super().__init__(b"", name="hostile")
        self._image = image

    @property
    def size(self) -> int:
        return len(self._image)

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._image[offset : offset + length])


def _places(image: Image) -> list[tuple[int, int]]:
    """Records in use and index blocks: (where, bytes)."""
    whole = bytes(image.data)
    found = []
    for at in range(0, len(whole) - 4096, 1024):
        magic = whole[at : at + 4]
        if magic == b"FILE" and whole[at + 22] & 1:
            found.append((at, image.record))
        elif magic == b"INDX":
            found.append((at, 4096))
    return found


def _use(filesystem: FileSystem, chance: random.Random) -> None:
    """Everything that the contract has, on all directories and some files."""
    level, seen = [int(filesystem.root)], {int(filesystem.root)}
    while level:
        links = filesystem.children(np.array(level, np.uint64))
        rows = filesystem.rows(links.file)
        filesystem.runs(links.file)
        filesystem.readlink(links.file)
        assert set(links.errors) <= set(range(len(level)))
        found = links.file[(rows.type == FileType.DIRECTORY)].tolist()
        level = [file for file in dict.fromkeys(found) if file not in seen]
        seen.update(level)
        files = links.file.tolist()
        for file in chance.sample(files, min(len(files), 6)):
            try:
                filesystem.xattrs(file)
                for name in [None, *(stream.name for stream in filesystem.streams(file)[:3])]:
                    with filesystem.open(file, name) as device:
                        device.read(0, min(device.size, 200_000))
            except PseudomountError:
                pass
        if files:
            names = [links.name[0], b"$Extend", links.name[len(links) - 1].upper()]
            filesystem.lookup(np.full(3, links.parent[0], np.uint64), names)


@pytest.mark.parametrize("seed", range(6))
def test_seeded_mutations(sample: Image, seed: int) -> None:
    places = _places(sample)
    assert len(places) > 100
    device = CounterDevice(_Buffer(sample.data))
    opened = 0
    for number in range(25):
        chance = random.Random(seed * 1000 + number)
        undo: list[tuple[int, bytes]] = []
        for _ in range(chance.choice([1, 1, 2, 5, 40])):
            base, size = chance.choice([*places[:20], *places, (0, 512)])
            at = base + int(chance.triangular(0, size, 40))
            new = chance.choice([bytes([chance.randrange(256)]), chance.choice(_EXTREMES), chance.randbytes(2)])
            undo.append((at, bytes(sample.data[at : at + len(new)])))
            sample.poke(at, new)
        device.reset()
        try:
            NtfsParser().probe(device)
            _use(open_ntfs(device), chance)
            opened += 1
        except PseudomountError:
            pass
        assert device.bytes < 60 << 20, f"mutation {number} read {device.bytes} bytes of {device.size}"
        assert device.requests < 5000
        for at, old in reversed(undo):
            sample.poke(at, old)
    assert opened > 15


def test_loops_of_directories_are_entered_once(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    # An entry of `packed` that names the root: the walk above ends all the same.
    needle = "mixed".encode("utf-16-le")
    base = sample.record_at(find(ntfs, "packed"))
    at = bytes(sample.data[base : base + sample.record]).find(needle)
    sample.poke(base + at - 66 - 16, ntfs.root.to_bytes(8, "little"))
    _use(open_ntfs(MemoryDevice(bytes(sample.data))), random.Random(1))


def test_a_claimed_size_does_not_become_memory(sample: Image) -> None:
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    file = find(ntfs, "long")
    at = sample.attribute(file, 0x80)
    sample.poke(at + 40, (1 << 61).to_bytes(8, "little") * 3)
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    rows = ntfs.rows(np.array([file], np.uint64))
    assert rows.size[0] == 1 << 61
    assert rows.allocated[0] <= len(sample.data)
    device = ntfs.open(file)
    assert device.size == 1 << 61
    assert len(device.read(0, 20_000)) == 20_000
    with pytest.raises(PseudomountError):
        device.read(1 << 60, 10)
    sample.poke(at + 48, (1 << 63).to_bytes(8, "little"))
    ntfs = open_ntfs(MemoryDevice(bytes(sample.data)))
    assert list(ntfs.rows(np.array([file], np.uint64)).errors) == [0]
