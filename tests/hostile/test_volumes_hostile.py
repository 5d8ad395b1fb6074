"""Partition tables that were damaged or forged at random, always the same ones: what leaves is a PseudomountError."""

from __future__ import annotations

import random
import struct
import tracemalloc
import zlib

import pytest

from pseudomount.errors import PseudomountError
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import CounterDevice, FaultDevice
from pseudomount.volumes.contract import VolumeSlot
from pseudomount.volumes.discover import discover
from tests.volumes.craft import ESP, LINUX, Gpt, SparseDevice, mbr

SIZE = 16 << 20
A, B = "00112233-4455-6677-8899-aabbccddeeff", "deadbeef-0000-4000-8000-0123456789ab"
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def chain() -> dict[int, bytes]:
    """A table of four rows, one of them a chain of six tables."""
    rows = [(0x80, 0x83, 2048, 1000), (0, 0x05, 4000, 20000), (0, 0x07, 25000, 1000), (0, 0x83, 27000, 1000)]
    pieces = {0: mbr(*rows, signature=0xCAFE)}
    for i in range(6):
        link = (0, 0x05, (i + 1) * 1000, 1000) if i < 5 else (0, 0, 0, 0)
        pieces[(4000 + i * 1000) * 512] = mbr((0, 0x83, 10, 900), link)
    return pieces


def gpt(unit: int) -> Gpt:
    parts = [(1, ESP, A, 512, 1023, 0, b"a\0"), (2, LINUX, B, 1024, 2000, 4, b"b\0"), (9, LINUX, A, 2001, 3000, 0, b"")]
    return Gpt(SIZE // unit, parts, unit=unit)


def mutate(pieces: dict[int, bytes], random_: random.Random) -> dict[int, bytes]:
    """A few changes: bytes, fields of 1 to 8 bytes set to edge values, pieces copied over others, cut or gone."""
    out = {at: bytearray(raw) for at, raw in pieces.items()}
    for _ in range(random_.randint(1, 4)):
        at = random_.choice(list(out))
        raw = out[at]
        if not raw:
            continue
        # Half of the changes hit the fields that matter: the rows of a table, the beginning of a header or array.
        low = random_.choice((0, 446)) if len(raw) == 512 else 0
        where = (
            random_.randrange(low, min(len(raw), low + 96)) if random_.random() < 0.7 else random_.randrange(len(raw))
        )
        what = random_.randrange(6)
        if what == 0:
            raw[where] ^= 1 << random_.randrange(8)
        elif what == 1:
            raw[where] = random_.randrange(256)
        elif what == 2:
            width = random_.choice((1, 2, 4, 8))
            value = random_.choice(EDGES) & ((1 << 8 * width) - 1)
            raw[where : where + width] = value.to_bytes(width, "little")[: len(raw) - where]
        elif what == 3:
            out[at] = bytearray(out[random_.choice(list(out))])
        elif what == 4:
            del raw[where:]
        else:
            raw[where:] = random_.randbytes(len(raw) - where)
    return {at: bytes(raw) for at, raw in out.items()}


def seal(pieces: dict[int, bytes], unit: int) -> dict[int, bytes]:
    """Makes the checksums of mutated headers right again, so that what is behind them is reached."""
    out = dict(pieces)
    for at, raw in pieces.items():
        if raw[:8] != b"EFI PART" or len(raw) < 92:
            continue
        size, entries, count, width = *struct.unpack_from("<I", raw, 12), *struct.unpack_from("<QII", raw, 72)
        array = out.get(entries * unit, b"")[: min(count * width, 1 << 20)]
        head = bytearray(raw)
        head[88:92] = struct.pack("<I", zlib.crc32(array))
        head[16:20] = bytes(4)
        head[16:20] = struct.pack("<I", zlib.crc32(bytes(head[: max(92, min(size, len(head)))])))
        out[at] = bytes(head)
    return out


def look(device: SparseDevice | FaultDevice, disk: str = "disk0") -> list[VolumeSlot]:
    """Discovers, within bounds, and touches each volume at both its ends."""
    counter = CounterDevice(device)
    log = FindingLog()
    slots = discover(counter, disk, log)
    assert counter.requests <= 270
    assert counter.bytes <= 40 << 20
    assert len(slots) <= 1025
    assert len({slot.name for slot in slots}) == len(slots)
    for slot in slots:
        assert slot.scheme in ("mbr", "gpt", "whole")
        assert slot.device.size == slot.size
        assert 0 <= slot.start < 1 << 63
        assert 0 <= slot.start + slot.size < 1 << 63
        slot.label.encode()
        if slot.size:
            slot.device.read_many([0, slot.size - 1], 1)
    for finding in log:
        assert len(str(finding)) < 500
        str(finding).encode()
    return slots


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["chain", "gpt512", "gpt4096"])
def test_mutated_tables(kind: str, seed: int) -> None:
    random_ = random.Random(f"{kind} {seed}")
    unit = 4096 if kind == "gpt4096" else 512
    sound = chain() if kind == "chain" else gpt(unit).pieces()
    found = 0
    for i in range(250):
        pieces = mutate(sound, random_)
        if kind != "chain" and i % 2:
            pieces = seal(pieces, unit)
        sector_size = random_.choice((512, 512, 4096))
        size = random_.choice((SIZE, SIZE, SIZE, random_.randrange(SIZE)))
        try:
            found += len(look(SparseDevice(size, pieces, sector_size)))
        except PseudomountError:
            pytest.fail("damage is a finding, not an error")
    assert found > 250  # most mutants still have most of their volumes


@pytest.mark.parametrize("seed", range(3))
def test_faulty_devices(seed: int) -> None:
    random_ = random.Random(seed)
    for i in range(150):
        sound = (chain(), gpt(512).pieces(), gpt(4096).pieces())[i % 3]
        inner = SparseDevice(SIZE, sound)
        errors, shorts, flips = random_.random(), random_.random(), random_.random()
        look(FaultDevice(inner, seed=i, error_rate=errors, short_rate=shorts, flip_rate=flips))


def test_rubbish() -> None:
    random_ = random.Random(0)
    for _ in range(300):
        raw = bytearray(random_.randbytes(random_.choice((600, 5000, 70000))))
        raw[510:512] = b"\x55\xaa"
        if random_.random() < 0.5:
            raw[446:462] = struct.pack("<B3xB3xII", 0, 0xEE, 1, 0xFFFFFFFF)
        for row in range(4):
            raw[446 + 16 * row] &= 0x80
        raw[512:520] = b"EFI PART"
        look(SparseDevice(random_.choice((len(raw), SIZE, 1 << 60)), {0: bytes(raw)}))


def test_tables_that_point_to_each_other() -> None:
    """Every sector is a table of two chains: a walk that does not remember would never end."""
    random_ = random.Random(1)
    for _ in range(20):
        pieces = {0: mbr(*[(0, 0x05, random_.randrange(1, 64), 1 << 30) for _ in range(4)])}
        for sector in range(1, 128):
            rows = [(0, random_.choice((0x05, 0x0F, 0x83)), random_.randrange(64), 1 << 20) for _ in range(4)]
            pieces[sector * 512] = mbr(*rows)
        look(SparseDevice(SIZE, pieces))


def test_memory_follows_what_is_there() -> None:
    """A header that claims 4 GiB of entries has none of it read."""
    for fields in ({"count": 1 << 25, "entry_size": 128}, {"count": 1 << 31, "entry_size": 1 << 31}):
        device = Gpt(1 << 40, [], header=fields).device()
        tracemalloc.start()
        try:
            look(device)
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
