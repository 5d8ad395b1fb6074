"""Tests on damaged images."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np

from pseudomount.device import BlockDevice, TraceDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import (
    FileSystem,
)
from pseudomount.testing.devices import FaultDevice, MemoryDevice
from pseudomount.testing.filesystem_conformance._base import Suite
from pseudomount.testing.filesystem_conformance._kit import (
    PART,
    BoundedDevice,
    ids_of,
    walk,
)

__all__ = ["HostileTests"]


class HostileTests(Suite):
    """Only a `PseudomountError` leaves the parser, in bounded time and memory."""

    def test_truncated(self) -> None:
        content = self._content()
        dice = random.Random(7)
        metadata = self._metadata()
        cuts = [dice.choice(metadata) + dice.randint(-1, 64) for _ in range(self.rounds)]
        cuts += [dice.randrange(len(content)) for _ in range(self.rounds)]
        for cut in (0, 1, 512, 1024, 2048, len(content) - 1, *cuts):
            self._browse_damaged(MemoryDevice(content[: max(cut, 0)]), f"cut at {cut}")

    def test_flipped_bits(self) -> None:
        """Bits of what browsing reads, where they can do harm."""
        content = bytearray(self._content())
        metadata = self._metadata()
        for seed in range(self.rounds * 3):
            dice = random.Random(seed)
            count = 1 + seed % 5 * 8
            places = [dice.choice(metadata) + dice.randrange(64) for _ in range(count)]
            flips = [(at, 1 << dice.randrange(8)) for at in places if at < len(content)]
            for at, bit in flips:
                content[at] ^= bit
            self._browse_damaged(MemoryDevice(bytes(content)), f"seed {seed}: bits {flips}")
            for at, bit in flips:
                content[at] ^= bit

    def test_overwritten(self) -> None:
        """Numbers that are as large, or as small, as can be."""
        content = bytearray(self._content())
        metadata = self._metadata()
        for seed in range(self.rounds * 2):
            dice = random.Random(1000 + seed)
            saved = []
            for _ in range(1 + seed % 4 * 4):
                at = min(dice.choice(metadata) + dice.randrange(0, 64, 4), len(content) - 8)
                saved.append((at, bytes(content[at : at + 8])))
                extremes = [b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"\xff\xff", b"\1\0\0\0"]
                value = dice.choice([*extremes, dice.randbytes(8)])
                content[at : at + len(value)] = value
            self._browse_damaged(MemoryDevice(bytes(content)), f"seed {seed}: {[at for at, _ in saved]}")
            for at, before in reversed(saved):
                content[at : at + 8] = before

    def test_unreadable(self) -> None:
        content = MemoryDevice(self._content())
        for seed in range(self.rounds):
            rate = (0.001, 0.01, 0.1, 0.5)[seed % 4]
            self._browse_damaged(FaultDevice(content, seed=seed, error_rate=rate), f"seed {seed}")
            self._browse_damaged(FaultDevice(content, seed=seed, short_rate=rate, grain=4096), f"seed {seed}, short")

    def test_damage_leaves_no_memory_behind(self) -> None:
        """Memory follows what is asked for, not what the disk claims."""
        content = bytearray(self._content())
        metadata = self._metadata()
        peak = 0
        for seed in range(4):
            dice = random.Random(2000 + seed)
            at = [min(dice.choice(metadata) + dice.randrange(64), len(content) - 4) for _ in range(24)]
            before = [bytes(content[place : place + 4]) for place in at]
            for place in at:
                content[place : place + 4] = b"\xff\xff\xff\x3f"
            device = MemoryDevice(bytes(content))
            tracemalloc.start()
            try:
                self._browse_damaged(device, f"seed {seed}")
                peak = max(peak, tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            for place, old in zip(reversed(at), reversed(before), strict=True):
                content[place : place + 4] = old
        assert peak <= self.memory

    def _content(self) -> bytes:
        with self.device() as device:
            return device.read(0, device.size)

    def _metadata(self) -> list[int]:
        """Offsets, 64 bytes apart, of bytes that are not zeros and that browsing reads."""
        with self.device() as device:
            traced = TraceDevice(device)
            filesystem = self.open(traced)
            files = ids_of(walk(filesystem).files())
            filesystem.rows(files)
            filesystem.runs(files)
            filesystem.readlink(files)
            filesystem.close()
            places: list[int] = []
            for offset, length in zip(*(column.tolist() for column in traced.merged()), strict=True):
                data = np.frombuffer(device.read(offset, length), np.uint8)
                data = np.pad(data, (0, -len(data) % 64)).reshape(-1, 64)
                places += (offset + np.flatnonzero(data.any(axis=1)) * 64).tolist()
        assert places
        return places

    def _browse_damaged(self, device: BlockDevice, what: str) -> None:
        """Asks for everything; only a PseudomountError may come of it, and only so much may be read."""
        bounded = BoundedDevice(device, ranges=3_000_000, bytes_=64 * device.size + (256 << 20))
        try:
            self._browse_all(bounded)
        except PseudomountError:
            pass
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        assert not bounded.exceeded, f"{what}: read without end"

    def _browse_all(self, device: BlockDevice) -> None:
        self.parser().probe(device)
        filesystem = self.open(device)
        tree = walk(filesystem)
        files = tree.files()
        asked = ids_of(files)
        assert len(filesystem.rows(asked)) == len(files)
        filesystem.runs(asked)
        assert len(filesystem.readlink(asked).target) == len(files)
        folders = self._some(files, 100)
        filesystem.lookup(ids_of(folders), [b"name"] * len(folders))
        for file in self._some(files, 40):
            self._only_ours(lambda file=file: filesystem.xattrs(file))  # type: ignore[misc]
            self._only_ours(lambda file=file: filesystem.streams(file))  # type: ignore[misc]
            self._only_ours(lambda file=file: self._read_some(filesystem, file))  # type: ignore[misc]
        filesystem.close()

    def _read_some(self, filesystem: FileSystem, file: int) -> None:
        with filesystem.open(file) as content:
            for at in (0, content.size // 2, max(content.size - PART, 0)):
                content.read_many([at], [min(PART, content.size - at)])
