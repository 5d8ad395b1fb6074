"""Images with bytes changed at random: nothing but our own errors, in bounded time, and nothing beyond the folder."""

from __future__ import annotations

import random
import struct

import pytest

from pseudomount.device import PseudoDisk
from pseudomount.errors import ObjectNotFoundError, PseudomountError
from pseudomount.findings import FindingLog
from pseudomount.formats.detect import find_format, make_source
from pseudomount.storage import Store
from tests.formats.qcow2.test_fixtures import image_names, packed_image
from tests.support.qcow2 import FORMATS

_INTERESTING = (
    0,
    1,
    511,
    512,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 32,
    1 << 56,
    1 << 62,
    1 << 63,
    (1 << 64) - 1,
)


class _One(Store):
    """One image, and what it may refer to; whatever else is asked for is remembered."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.bytes = 0

    def size(self, name: str) -> int:
        if name not in self.objects:
            raise ObjectNotFoundError(name)
        return len(self.objects[name])

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        assert 0 <= offset < 1 << 63
        assert 0 <= length < 1 << 31
        data = self.objects[name][offset : offset + length]
        self.bytes += len(data)
        return data

    def list(self, prefix: str = "") -> list[str]:
        return sorted(self.objects)


def _mutated(image: bytes, dice: random.Random) -> bytes:
    data = bytearray(image)
    l1 = struct.unpack_from(">Q", data, 40)[0]
    for _ in range(dice.randrange(1, 6)):
        where = dice.randrange(6)
        # Mostly where tables are: in the header, the L1 table, and what it leads to.
        at = [
            dice.randrange(112),
            dice.randrange(600),
            min(l1 + dice.randrange(64), len(data) - 8),
            dice.randrange(len(data) - 8),
            dice.randrange(26) * 4,
            (l1 + 8 * dice.randrange(4)),
        ][where]
        at = min(at, len(data) - 8)
        how = dice.randrange(4)
        if how == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif how == 1:
            struct.pack_into(">I", data, at, dice.choice(_INTERESTING) & 0xFFFFFFFF)
        elif how == 2:
            struct.pack_into(">Q", data, at, dice.choice(_INTERESTING))
        else:
            data[at] = dice.randrange(256)
    return bytes(data[: dice.randrange(1, len(data))] if dice.randrange(8) == 0 else data)


@pytest.mark.parametrize("name", image_names())
def test_mutations(name: str) -> None:
    image = packed_image(name)
    others = {"base.raw": bytes(range(256)) * 4096, "vm.data": bytes(1 << 20)}
    dice = random.Random(name)
    opened = 0
    for _ in range(250):
        store = _One({"vm.qcow2": _mutated(image, dice), **others})
        findings = FindingLog()
        try:
            source = make_source(store, ["vm.qcow2"], {}, FORMATS)
            disks = find_format(source, FORMATS).open(source, findings)
        except PseudomountError:
            continue
        opened += 1
        for disk in disks:
            with PseudoDisk(disk.index, disk.store or store) as device:
                ends = [0, device.size // 2, max(device.size - 70_000, 0)]
                places = [*ends, *(dice.randrange(max(device.size, 1)) for _ in range(5))]
                lengths = [min(70_000, device.size - place) for place in places]
                batch = device.read_many(places, lengths)
                for i, (place, length) in enumerate(zip(places, lengths, strict=True)):
                    try:
                        data = device.read(place, length)
                    except PseudomountError:
                        assert i in batch.errors
                    else:
                        assert data == batch.view(i).tobytes()
                device.index.resolve([0], [min(device.size, 1 << 30)])
                if device.size < 1 << 40:
                    assert int(device.extents().lengths.sum()) == device.size
        assert store.bytes < 200 << 20
    assert opened > 20
