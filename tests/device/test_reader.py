"""Devices as files."""

from __future__ import annotations

import gzip
import io
import os
import random
import zipfile

import pytest

from pseudomount.device import DeviceReader, open_reader
from pseudomount.errors import ClosedError, ReadError
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice, PatternDevice, pattern

CONTENT = random.Random(8).randbytes(300_000)


@pytest.mark.parametrize("buffering", [16, 5000, 1 << 20])
def test_acts_like_bytesio(buffering: int) -> None:
    dice = random.Random(buffering)
    with open_reader(MemoryDevice(CONTENT), buffering) as file, io.BytesIO(CONTENT) as other:
        assert isinstance(file, io.BufferedReader)
        for _ in range(400):
            n = dice.choice((0, 1, 100, 70_000, -1 if dice.random() < 0.1 else 7))
            match dice.randrange(6):
                case 0:
                    assert file.seek(n := dice.randint(0, 310_000)) == other.seek(n)
                case 1:
                    back = -dice.randint(0, file.tell())
                    assert file.seek(back, os.SEEK_CUR) == other.seek(back, os.SEEK_CUR)
                case 2:
                    assert file.seek(-5000, os.SEEK_END) == other.seek(-5000, os.SEEK_END)
                case 3:
                    assert file.read1(100) == other.read1(100) or buffering < 100
                    other.seek(file.tell())
                case _:
                    assert file.read(n) == other.read(n)
            assert file.tell() == other.tell()
        file.seek(0)
        assert file.read() == CONTENT
        assert file.read(1) == b""
        file.seek(0)
        assert file.readline() == CONTENT[: CONTENT.index(b"\n") + 1]


def test_raw() -> None:
    with DeviceReader(MemoryDevice(CONTENT, name="vm.img")) as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        assert (file.name, file.mode) == ("vm.img", "rb")
        buffer = bytearray(10)
        assert file.readinto(buffer) == 10
        assert buffer == CONTENT[:10]
        wide = memoryview(bytearray(16)).cast("Q")
        assert file.readinto(wide) == 16
        assert wide.tobytes() == CONTENT[10:26]
        assert file.readinto(bytearray()) == 0
        assert file.read(100_000) == CONTENT[26:100_026]
        assert file.readall() == CONTENT[100_026:]
        assert file.readinto(buffer) == 0
        assert file.seek(10**30) == 10**30
        assert file.read(1) == b""
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
    with open_reader(MemoryDevice(CONTENT)) as buffered, pytest.raises(io.UnsupportedOperation):
        buffered.write(b"x")
    for use in (file.tell, file.readable, file.seekable, lambda: file.read(1), lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_large_read_is_not_cut_into_small_ones() -> None:
    disk = CounterDevice(PatternDevice(40 << 20))
    with open_reader(disk) as file:
        assert file.read(20 << 20) == pattern(0, 20 << 20)
        assert disk.requests <= 4
        disk.reset()
        assert len(file.read()) == 20 << 20
        assert disk.requests <= 5
        disk.reset()
        file.seek(1000)
        for _ in range(100):
            file.read(4096)
        assert disk.requests == 1


def test_reading_ahead_into_damage_harms_nobody() -> None:
    bad = 300_000
    disk = FaultDevice(PatternDevice(1 << 20), errors=[(bad, 1)])
    with open_reader(disk) as file:
        assert file.read(4096) == pattern(0, 4096)
        good = bad // 512 * 512
        file.seek(100)
        assert file.read(good - 100) == pattern(100, good - 100)
        with pytest.raises(ReadError) as caught:
            file.read(600)
        assert caught.value.offset == bad
        file.seek(good + 512)
        assert file.read(5000) == pattern(good + 512, 5000)
    with DeviceReader(disk) as raw:
        raw.seek(good - 1000)
        assert raw.read(4096) == pattern(good - 1000, 1000)
        with pytest.raises(ReadError):
            raw.read(4096)
        assert raw.tell() == good


def test_a_budget_below_cuts_reads() -> None:
    disk = PatternDevice(1 << 20)
    disk.batch_budget = 100_000
    with open_reader(disk, 1 << 19) as file:
        assert file.read() == pattern(0, 1 << 20)


def test_owning() -> None:
    device = MemoryDevice(CONTENT)
    open_reader(device).close()
    assert device.read(0, 1)
    file = open_reader(device, owns=True)
    assert not file.closed
    file.close()
    file.close()
    with pytest.raises(ClosedError):
        device.read(0, 1)


def test_the_standard_library_reads_it() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", CONTENT)
    with open_reader(MemoryDevice(packed.getvalue())) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("a/b.txt") == CONTENT
    with open_reader(MemoryDevice(gzip.compress(CONTENT))) as file, gzip.open(file) as plain:
        assert plain.read() == CONTENT
    with open_reader(MemoryDevice("häuser\nzwei\n".encode())) as file, io.TextIOWrapper(file, "utf-8") as text:
        assert text.readlines() == ["häuser\n", "zwei\n"]
