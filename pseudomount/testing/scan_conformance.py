# ruff: noqa: D102  (a test says by its name what it tests)
"""What every `FileSystem.scan` must do, as a suite to subclass, beside or together with `FileSystemConformance`.

    class TestMyScan(ScanConformance):
        def parser(self) -> Parser:
            return MyParser()

        def device(self) -> BlockDevice:
            return MemoryDevice(Path("image").read_bytes())

The measure is `scan_by_walk`, which asks the same file system directory by directory; so a parser that does not have a
scan of its own passes. The image must be sound. Needs pytest.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, TraceDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileRows, FileSystem, FileType, Parser, TimeColumn
from pseudomount.filesystem.scan import ScanBatch, scan_by_walk
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import FaultDevice, MemoryDevice
from pseudomount.testing.filesystem_conformance import BoundedDevice

__all__ = ["ScanConformance"]

UInt64s = NDArray[np.uint64]

_NUMBERS = ("subvolume", "inode", "generation", "type", "size", "allocated", "mode", "uid", "gid", "links", "flags")
_TIMES = ("created", "modified", "changed", "accessed")


@dataclass(slots=True)
class _Scan:
    """The parts of a scan as plain values: files by id, names and streams with how often they came."""

    files: dict[int, dict[str, object]] = field(default_factory=dict)
    twice: list[int] = field(default_factory=list)
    links: Counter[tuple[int, int, bytes]] = field(default_factory=Counter)
    said: dict[tuple[int, int, bytes], int] = field(default_factory=dict)
    deleted_files: set[int] = field(default_factory=set)
    deleted_links: Counter[tuple[int, int, bytes]] = field(default_factory=Counter)
    streams: Counter[tuple[int, bytes, int, int]] = field(default_factory=Counter)
    errors: dict[int, str] = field(default_factory=dict)
    done: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, parts: Iterable[ScanBatch]) -> _Scan:
        scan = cls()
        for part in parts:
            assert part.deleted.shape == (len(part.files),)
            for i, file in enumerate(part.files.file.tolist()):
                if file in scan.files:
                    scan.twice.append(file)
                scan.files[file] = _row(part.files, i)
                if part.deleted[i]:
                    scan.deleted_files.add(file)
            links = part.links
            for parent, file, name, kind, deleted in zip(
                links.parent.tolist(),
                links.file.tolist(),
                links.name,
                links.type.tolist(),
                links.deleted.tolist(),
                strict=True,
            ):
                (scan.deleted_links if deleted else scan.links)[parent, file, name] += 1
                if not deleted:
                    scan.said[parent, file, name] = kind
            streams = part.streams
            sizes = zip(streams.size.tolist(), streams.allocated.tolist(), strict=True)
            for file, name, (size, allocated) in zip(streams.file.tolist(), streams.name, sizes, strict=True):
                scan.streams[file, name, size, allocated] += 1
            scan.errors.update((file, str(error)) for file, error in part.errors.items())
            scan.done.append(part.done)
        return scan


def _row(rows: FileRows, i: int) -> dict[str, object]:
    if i in rows.errors:
        return {"error": type(rows.errors[i])}
    values: dict[str, object] = {name: getattr(rows, name)[i].item() for name in _NUMBERS}
    for name in _TIMES:
        column: TimeColumn = getattr(rows, name)
        values[name] = column.exact(i)
    return values | {name: column[i].item() for name, column in rows.extra.items()}


class ScanConformance(ABC):
    """Tests of one parser's scan on one sound image.

    Attributes:
        scan_rounds: how many damaged images of each kind are tried.
    """

    scan_rounds: int = 12

    @abstractmethod
    def parser(self) -> Parser:
        """The parser."""

    @abstractmethod
    def device(self) -> BlockDevice:
        """A new device with a sound volume."""

    def open(self, device: BlockDevice) -> FileSystem:
        """The file system on a device; override to pass options."""
        return self.parser().open(device, FindingLog("disk0"))

    @contextmanager
    def _scanned(self, *, deleted: bool = False) -> Iterator[tuple[FileSystem, _Scan]]:
        with self.device() as device:
            filesystem = self.open(device)
            try:
                yield filesystem, _Scan.of(filesystem.scan(deleted=deleted))
            finally:
                filesystem.close()

    def _walked(self, *, streams: bool = True) -> _Scan:
        with self.device() as device:
            filesystem = self.open(device)
            try:
                return _Scan.of(scan_by_walk(filesystem, streams=streams))
            finally:
                filesystem.close()

    # -- sound images ------------------------------------------------------------------------------------------------

    def test_scan_gives_each_file_once(self) -> None:
        with self._scanned() as (filesystem, scan):
            assert not scan.twice, f"{len(scan.twice)} files came twice, among them {scan.twice[0]}"
            assert filesystem.root in scan.files
            assert scan.files[filesystem.root]["type"] == FileType.DIRECTORY

    def test_scan_names_what_a_walk_finds(self) -> None:
        walk = self._walked(streams=False)
        with self._scanned() as (_, scan):
            assert max(scan.links.values(), default=1) == 1, "a name twice"
            missing, more = walk.links - scan.links, scan.links - walk.links
            assert not missing, f"{len(missing)} names that only the walk finds, among them {next(iter(missing))}"
            assert not more, f"{len(more)} names that the walk does not find, among them {next(iter(more))}"
            for link, kind in scan.said.items():
                theirs = scan.files[link[1]]["type"]
                assert kind in (FileType.UNKNOWN, theirs), f"{link} is said to be {kind}, the file is {theirs}"

    def test_scan_says_of_each_file_what_rows_says(self) -> None:
        walk = self._walked(streams=False)
        with self._scanned() as (_, scan):
            for file, values in walk.files.items():
                assert file in scan.files, f"file {file} is missing"
                theirs = scan.files[file]
                wrong = {
                    k: (theirs.get(k), values.get(k)) for k in {*values, *theirs} if theirs.get(k) != values.get(k)
                }
                assert not wrong, f"file {file}: (scan, rows) {wrong}"
            named = {file for _, file, _ in scan.links}
            nameless = [file for file in scan.files if file not in walk.files and file in named]
            assert not nameless, f"files that the walk does not find: {nameless[:5]}"

    def test_scan_has_the_named_streams(self) -> None:
        with self._scanned() as (filesystem, scan):
            wanted = self._walked(streams=type(filesystem).streams is not FileSystem.streams)
            assert scan.streams == wanted.streams

    def test_scan_is_without_errors_and_deleted_files(self) -> None:
        with self._scanned() as (_, scan):
            assert not scan.errors
            assert not [file for file, row in scan.files.items() if "error" in row]
            assert not scan.deleted_files
            assert not scan.deleted_links
            assert all(0 <= done <= 1 for done in scan.done)

    def test_scan_may_be_left_and_begun_anew(self) -> None:
        with self.device() as device:
            filesystem = self.open(device)
            first = next(iter(filesystem.scan()), None)
            assert first is not None
            both = [_Scan.of(filesystem.scan()) for _ in range(2)]
            assert both[0].files == both[1].files
            assert both[0].links == both[1].links
            filesystem.close()

    # -- what was deleted --------------------------------------------------------------------------------------------

    def test_deleted_files_are_marked_and_mixed_with_nothing(self) -> None:
        with self._scanned() as (_, live), self._scanned(deleted=True) as (filesystem, every):
            assert not every.twice, "a deleted file has the id of another one"
            assert every.links == live.links
            rest = {file: row for file, row in every.files.items() if file not in every.deleted_files}
            assert rest.keys() >= live.files.keys()
            assert {file: rest[file] for file in live.files} == live.files
            ids = np.array(sorted(every.deleted_files), np.uint64)
            rows = filesystem.rows(ids)
            for i, file in enumerate(ids.tolist()):
                assert _row(rows, i) == every.files[file], f"deleted file {file}"
            filesystem.runs(ids)
            for file in ids[:200].tolist():
                if every.files[file].get("type") == FileType.FILE:
                    with suppress(PseudomountError), filesystem.open(file) as content:
                        content.read(0, min(content.size, 1 << 16))

    # -- damaged images ----------------------------------------------------------------------------------------------

    def test_scan_of_damaged_images(self) -> None:
        """Only a `PseudomountError` leaves it, in bounded reads."""
        content = self._content()
        with TraceDevice(MemoryDevice(content)) as trace:
            filesystem = self.open(trace)
            for _ in filesystem.scan(deleted=True):
                pass
            filesystem.close()
            places = trace.ranges()[0].tolist()
        damaged = bytearray(content)
        for seed in range(self.scan_rounds * 3):
            dice = random.Random(seed)
            saved = []
            for _ in range(1 + seed % 5 * 6):
                at = min(dice.choice(places) + dice.randrange(4096), len(content) - 8)
                saved.append((at, bytes(damaged[at : at + 8])))
                value = dice.choice([b"\xff" * 8, b"\0" * 8, b"\xff\xff\xff\x7f", b"\1\0\0\0", dice.randbytes(8)])
                damaged[at : at + len(value)] = value
            self._scan_damaged(MemoryDevice(bytes(damaged)), len(content))
            for at, before in reversed(saved):
                damaged[at : at + 8] = before

    def test_scan_of_unreadable_places(self) -> None:
        content = self._content()
        for seed in range(self.scan_rounds):
            rate = (0.001, 0.01, 0.1, 0.5)[seed % 4]
            self._scan_damaged(FaultDevice(MemoryDevice(content), seed=seed, error_rate=rate), len(content))

    def _scan_damaged(self, device: BlockDevice, size: int) -> None:
        with (
            BoundedDevice(device, ranges=500_000, bytes_=40 * size + (64 << 20)) as bounded,
            suppress(PseudomountError),
        ):
            filesystem = self.open(bounded)
            for deleted in (False, True):
                with suppress(PseudomountError):
                    for part in filesystem.scan(deleted=deleted):
                        assert isinstance(part, ScanBatch)
            filesystem.close()

    def _content(self) -> bytes:
        with self.device() as device:
            return bytes(device.read(0, device.size))
