# ruff: noqa: D102  (a test says by its name what it tests)
"""What every FileSystem must do, as a suite to subclass. Needs pytest.

    class TestMyParser(FileSystemConformance):
        def parser(self) -> Parser:
            return MyParser()

        def device(self) -> BlockDevice:
            return MemoryDevice(Path("image").read_bytes())

        def manifest(self) -> Mapping[bytes, Expected]:      # what another reader saw in the same image
            return {b"etc/fstab": Expected("file", size=31, sha256="…"), …}

Without a manifest the suite compares the file system with itself: batches with single questions, data runs with what
`open` gives, many threads with one; and it damages the image to see that only a `PseudomountError` leaves the parser,
and in bounded time and memory. The image should be small (up to some 32 MiB), for it is copied into memory often.
"""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, Layer, TraceDevice
from pseudomount.device.contract import Int64s, UInt8s
from pseudomount.errors import NotASymlinkError, PathIsDirectoryError, PathNotFoundError, PseudomountError
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Parser,
    RunKind,
    TimeColumn,
    escape,
    unescape,
)
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import FaultDevice, MemoryDevice

__all__ = ["BoundedDevice", "Expected", "FileSystemConformance"]

UInt64s = NDArray[np.uint64]
Link = tuple[int, bytes, int]

_WHOLE = 8 << 20  # files up to this many bytes are read to the end, of larger ones some parts
_PART = 64 << 10


@dataclass(frozen=True, slots=True)
class Expected:
    """What another reader saw of one path; None is not compared.

    Attributes:
        type: as `FileType.word`.
        size: bytes.
        sha256: of the content, in hexadecimal; compared for files of up to 8 MiB.
        target: of a symbolic link.
        mode: permission bits and type.
        modified_ns: nanoseconds since 1970.
    """

    type: str
    size: int | None = None
    sha256: str | None = None
    target: bytes | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    links: int | None = None
    modified_ns: int | None = None


class OverBudgetError(Exception):
    """A parser read more than a bounded one would. No `PseudomountError`, so that nothing takes it for damage."""


class BoundedDevice(Layer):
    """Raises `OverBudgetError` once more than so many ranges or bytes were asked for: an endless walk ends here."""

    def __init__(self, inner: BlockDevice, *, ranges: int, bytes_: int) -> None:
        super().__init__(inner)
        self.ranges_left, self.bytes_left = ranges, bytes_
        self.exceeded = False

    def _spend(self, ranges: int, count: int) -> None:
        self.ranges_left -= ranges
        self.bytes_left -= count
        if self.ranges_left < 0 or self.bytes_left < 0:
            self.exceeded = True
            raise OverBudgetError(f"{self.ranges_left} ranges and {self.bytes_left} bytes are left")

    def _read(self, offset: int, length: int) -> bytes:
        self._spend(1, length)
        return self.inner.read(offset, length)

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        self._spend(len(offsets), int(lengths.sum()))
        return self.inner.read_into(offsets, lengths, buffer, positions)


@dataclass(frozen=True, slots=True)
class _Tree:
    """Everything that `children` lists: paths (the root is b"") → id and type as the entry says, and errors."""

    ids: dict[bytes, int]
    types: dict[bytes, FileType]
    errors: list[PseudomountError]

    def of_type(self, kind: FileType) -> list[int]:
        return list(dict.fromkeys(self.ids[path] for path, found in self.types.items() if found is kind))

    def files(self) -> list[int]:
        return list(dict.fromkeys(self.ids.values()))


def _ids(values: Sequence[int]) -> UInt64s:
    return np.array(values, np.uint64)


def _walk(filesystem: FileSystem, limit: int = 200_000) -> _Tree:
    """Level by level; each directory once, whatever the disk says."""
    root = int(filesystem.root)
    ids, types = {b"": root}, {b"": FileType.DIRECTORY}
    errors: list[PseudomountError] = []
    level, seen = [b""], {root}
    while level and len(ids) < limit:
        links = filesystem.children(_ids([ids[path] for path in level]))
        errors += links.errors.values()
        kinds = _known_types(filesystem, links)
        below = []
        for query, file, name, kind in zip(
            links.query.tolist(), links.file.tolist(), links.name, kinds.tolist(), strict=True
        ):
            path = level[query] + b"/" + name if level[query] else name
            ids[path], types[path] = int(file), FileType(kind)
            if kind == FileType.DIRECTORY and file not in seen:
                seen.add(file)
                below.append(path)
        level = below
    return _Tree(ids, types, errors)


def _known_types(filesystem: FileSystem, links: LinkRows) -> UInt8s:
    """The types of entries; of those that do not tell, the files' own."""
    kinds = links.type.copy()
    silent = np.flatnonzero(kinds == FileType.UNKNOWN)
    if len(silent):
        kinds[silent] = filesystem.rows(links.file[silent]).type
    return kinds


def _links_of(links: LinkRows, count: int) -> list[list[Link]]:
    """The entries of each directory asked for."""
    found: list[list[Link]] = [[] for _ in range(count)]
    assert (np.diff(links.query) >= 0).all(), "query is not ascending"
    for query, file, name, kind in zip(
        links.query.tolist(), links.file.tolist(), links.name, links.type.tolist(), strict=True
    ):
        found[query].append((file, name, kind))
    return found


_COLUMNS = (
    "file",
    "subvolume",
    "inode",
    "generation",
    "type",
    "size",
    "allocated",
    "mode",
    "uid",
    "gid",
    "links",
    "flags",
    "created",
    "modified",
    "changed",
    "accessed",
)


def _row(rows: FileRows, i: int) -> dict[str, object]:
    """Row i as plain values; of a row with an error that it has one."""
    if i in rows.errors:
        return {"file": int(rows.file[i]), "error": type(rows.errors[i])}
    values: dict[str, object] = {}
    for name in _COLUMNS:
        column = getattr(rows, name)
        values[name] = column.exact(i) if isinstance(column, TimeColumn) else column[i].item()
    values.update((name, column[i].item()) for name, column in rows.extra.items())
    return values


def _runs_of(runs: DataRuns, i: int) -> list[tuple[int, int, int, int]]:
    """(offset, length, position, kind) of file i."""
    first, last = np.searchsorted(runs.query, [i, i + 1]).tolist()
    columns = (runs.offset, runs.length, runs.position, runs.kind)
    return list(zip(*(column[first:last].tolist() for column in columns), strict=True))


def _parts(size: int) -> list[tuple[int, int]]:
    """All of a content, or parts of a large one."""
    if size <= _WHOLE:
        return [(0, size)]
    return [(at, min(_PART, size - at)) for at in (0, size // 3, size // 2, size - _PART)]


class FileSystemConformance(ABC):
    """Tests of one parser on one sound image.

    Attributes:
        known_failures: test → why it fails. Such a test must fail: one that passes is a failure.
        sample: how many files the tests look at that ask file by file.
        rounds: how many damaged images of each kind are tried.
        memory: bytes that browsing one damaged image may take at most, beside the image itself.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    sample: int = 80
    rounds: int = 12
    memory: int = 256 << 20

    # -- what a subclass says ----------------------------------------------------------------------------------------

    @abstractmethod
    def parser(self) -> Parser:
        """The parser."""

    @abstractmethod
    def device(self) -> BlockDevice:
        """A new device with a sound volume."""

    def open(self, device: BlockDevice) -> FileSystem:
        """The file system on a device; override to pass options."""
        return self.parser().open(device, FindingLog("disk0"))

    def manifest(self) -> Mapping[bytes, Expected] | None:
        """What another reader saw: path without a leading slash, the root as b"" → `Expected`. Complete, or None."""
        return None

    # -- plumbing ----------------------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _expect_known_failures(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", None) or request.node.name
        if name in self.known_failures:
            request.applymarker(pytest.mark.xfail(reason=self.known_failures[name], strict=True))

    @contextmanager
    def _opened(self) -> Iterator[FileSystem]:
        with self.device() as device:
            filesystem = self.open(device)
            try:
                yield filesystem
            finally:
                filesystem.close()

    def _some(self, files: Sequence[int], count: int | None = None) -> list[int]:
        count = self.sample if count is None else count
        return list(files) if len(files) <= count else random.Random(1).sample(list(files), count)

    def test_known_failures_are_tests(self) -> None:
        assert {name for name in self.known_failures if not callable(getattr(self, name, None))} == set()

    # -- what it is --------------------------------------------------------------------------------------------------

    def test_probe_and_open_agree(self) -> None:
        with self.device() as device:
            match = self.parser().probe(device)
            assert match is not None
            assert 0 < match.score <= 100
            filesystem = self.open(device)
            assert (match.filesystem, match.label, match.uuid) == (filesystem.name, filesystem.label, filesystem.uuid)
            assert filesystem.device.size == device.size
            filesystem.close()

    def test_probe_knows_nothing_else(self) -> None:
        for size in (0, 1, 511, 512, 1024, 2047, 4096, 70_000):
            for content in (bytes(size), random.Random(size).randbytes(size), b"\xff" * size):
                assert self.parser().probe(MemoryDevice(content)) is None, size

    def test_root_is_a_directory(self) -> None:
        with self._opened() as filesystem:
            rows = filesystem.rows(_ids([filesystem.root]))
            assert not rows.errors
            assert FileType(int(rows.type[0])) is FileType.DIRECTORY

    def test_manifest(self) -> None:
        manifest = self.manifest()
        if manifest is None:
            pytest.skip("no manifest")
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            assert not tree.errors
            assert sorted(tree.ids) == sorted(manifest)
            paths = sorted(manifest)
            rows = filesystem.rows(_ids([tree.ids[path] for path in paths]))
            assert not rows.errors
            for i, path in enumerate(paths):
                assert self._seen(filesystem, rows, i, manifest[path]) == manifest[path], path

    def _seen(self, filesystem: FileSystem, rows: FileRows, i: int, expected: Expected) -> Expected:
        """What the file system says of row i, as far as it is expected."""
        file, kind, modified = int(rows.file[i]), FileType(int(rows.type[i])), rows.modified.exact(i)
        sha256 = expected.sha256
        if sha256 is not None and int(rows.size[i]) <= _WHOLE:
            with filesystem.open(file) as content:
                sha256 = hashlib.sha256(content.read(0, content.size)).hexdigest()
        target = None
        if kind is FileType.SYMLINK:
            target = filesystem.readlink(_ids([file])).target[0]
        seen = Expected(
            kind.word,
            int(rows.size[i]),
            sha256,
            target,
            int(rows.mode[i]),
            int(rows.uid[i]),
            int(rows.gid[i]),
            int(rows.links[i]),
            None if modified is None else modified[0] * 1_000_000_000 + modified[1],
        )
        known = {name: getattr(seen, name) for name in Expected.__slots__ if getattr(expected, name) is not None}
        return Expected(**known)

    # -- batches -----------------------------------------------------------------------------------------------------

    def test_empty_batches(self) -> None:
        none = np.empty(0, np.uint64)
        with self._opened() as filesystem:
            assert len(filesystem.children(none)) == 0
            assert len(filesystem.lookup(none, []).file) == 0
            assert len(filesystem.rows(none)) == 0
            assert len(filesystem.runs(none)) == 0
            assert len(filesystem.readlink(none).target) == 0

    def test_children_of_many_are_those_of_each(self) -> None:
        with self._opened() as filesystem:
            folders = _walk(filesystem).of_type(FileType.DIRECTORY)
            together = _links_of(filesystem.children(_ids(folders)), len(folders))
            single = {folder: _links_of(filesystem.children(_ids([folder])), 1)[0] for folder in folders}
            assert together == [single[folder] for folder in folders]
            mixed = random.Random(2).sample(folders * 2, len(folders) * 2)
            links = filesystem.children(_ids(mixed))
            assert _links_of(links, len(mixed)) == [single[folder] for folder in mixed]
            assert links.parent.tolist() == [mixed[query] for query in links.query.tolist()]
            for entries in single.values():
                names = [name for _, name, _ in entries]
                assert len(set(names)) == len(names), "a name twice"
                assert not {b"", b".", b".."} & set(names)

    def test_children_of_files_are_errors_of_their_rows(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            files = self._some(tree.of_type(FileType.FILE))
            asked = [int(filesystem.root), *files, int(filesystem.root)]
            links = filesystem.children(_ids(asked))
            assert set(links.errors) == set(range(1, len(asked) - 1))
            assert all(isinstance(error, PseudomountError) for error in links.errors.values())
            found = _links_of(links, len(asked))
            assert found[0] == found[-1] != []
            assert not any(found[1:-1])

    def test_rows_of_many_are_those_of_each(self) -> None:
        with self._opened() as filesystem:
            files = _walk(filesystem).files()
            together = filesystem.rows(_ids(files))
            assert not together.errors
            assert together.file.tolist() == files
            known = {file: _row(together, i) for i, file in enumerate(files)}
            for file in self._some(files):
                assert _row(filesystem.rows(_ids([file])), 0) == known[file]
            mixed = random.Random(3).sample(files * 2, len(files) * 2)
            rows = filesystem.rows(_ids(mixed))
            assert [_row(rows, i) for i in range(len(mixed))] == [known[file] for file in mixed]

    def test_runs_of_many_are_those_of_each(self) -> None:
        with self._opened() as filesystem:
            files = _walk(filesystem).of_type(FileType.FILE)
            mixed = random.Random(4).sample(files * 2, len(files) * 2)
            together = filesystem.runs(_ids(mixed))
            assert not together.errors
            chosen = set(self._some(files))
            for i, file in enumerate(mixed):
                if file in chosen:
                    single = filesystem.runs(_ids([file]))
                    assert _runs_of(together, i) == _runs_of(single, 0)
                    assert together.resident.get(i) == single.resident.get(0)
                    assert bool(together.encoded[i]) == bool(single.encoded[0])

    def test_types_agree(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            paths = list(tree.ids)
            rows = filesystem.rows(_ids([tree.ids[path] for path in paths]))
            for path, kind, mode in zip(paths, rows.type.tolist(), rows.mode.tolist(), strict=True):
                assert FileType(kind) is tree.types[path], path
                assert mode == -1 or mode & 0o170000 == FileType(kind).mode, path

    # -- names -------------------------------------------------------------------------------------------------------

    def test_lookup_finds_every_child(self) -> None:
        with self._opened() as filesystem:
            folders = _walk(filesystem).of_type(FileType.DIRECTORY)
            links = filesystem.children(_ids(folders))
            order = np.random.default_rng(5).permutation(len(links))[:5000]
            shuffled = links.take(order)
            found = filesystem.lookup(shuffled.parent, shuffled.name.tolist())
            assert not found.errors
            assert found.found.all()
            assert found.file.tolist() == shuffled.file.tolist()
            few = order[:20]
            for parent, name, file in zip(
                links.parent[few].tolist(), links.name.take(few), links.file[few].tolist(), strict=True
            ):
                single = filesystem.lookup(_ids([parent]), [name])
                assert (bool(single.found[0]), int(single.file[0])) == (True, file)

    def test_lookup_does_not_find_what_is_not_there(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            folders = self._some(tree.of_type(FileType.DIRECTORY), 20)
            names = [b"", b"no such name \xff\xfe", b"x" * 255, b"x" * 256, b"y" * 5000, b"a/b", b"a\0b", b"\0"]
            questions = [(folder, name) for folder in folders for name in names]
            found = filesystem.lookup(_ids([folder for folder, _ in questions]), [name for _, name in questions])
            taken = {int(row) for row in np.flatnonzero(found.found)}
            listed = _links_of(filesystem.children(_ids(folders)), len(folders))
            real = {(folder, name) for folder, entries in zip(folders, listed, strict=True) for _, name, _ in entries}
            assert {questions[row] for row in taken} <= real
            files = self._some(tree.of_type(FileType.FILE), 20)
            assert not filesystem.lookup(_ids(files), [b"name"] * len(files)).found.any()

    def test_names_round_trip(self) -> None:
        with self._opened() as filesystem:
            encoding = filesystem.name_encoding
            for path in _walk(filesystem).ids:
                for name in path.split(b"/"):
                    text = encoding.decode(name)
                    assert encoding.encode(text) == name
                    shown = escape(text, encoding)
                    shown.encode("utf-8")  # valid text
                    assert unescape(shown, encoding) == text

    # -- content -----------------------------------------------------------------------------------------------------

    def test_runs_and_open_give_the_same_bytes(self) -> None:
        with self._opened() as filesystem:
            files = _walk(filesystem).of_type(FileType.FILE)
            runs, rows = filesystem.runs(_ids(files)), filesystem.rows(_ids(files))
            for i, file in enumerate(files):
                with filesystem.open(file) as content:
                    size = int(rows.size[i])
                    assert content.size == size
                    if runs.encoded[i]:
                        continue
                    for offset, length in _parts(size):
                        assert content.read(offset, length) == self._by_runs(filesystem, runs, i, offset, length)

    def _by_runs(self, filesystem: FileSystem, runs: DataRuns, i: int, begin: int, length: int) -> bytes:
        if i in runs.resident:
            assert not _runs_of(runs, i), "a resident file has no runs"
            return bytes(runs.resident[i][begin : begin + length])
        data, end = bytearray(length), 0
        for offset, count, position, kind in _runs_of(runs, i):
            assert count > 0, "an empty run"
            assert offset >= end, "runs overlap, or are not ascending"
            assert (position == -1) == (kind == RunKind.HOLE)
            end = offset + count
            low, high = max(offset, begin), min(end, begin + length)
            if kind == RunKind.DATA and low < high:
                data[low - begin : high - begin] = filesystem.device.read(position + low - offset, high - low)
        return bytes(data)

    def test_read_many_of_content(self) -> None:
        with self._opened() as filesystem:
            dice = random.Random(6)
            for file in self._some(_walk(filesystem).of_type(FileType.FILE)):
                with filesystem.open(file) as content:
                    size = content.size
                    ranges = [(0, 0), (size, 0), (0, min(size, 5)), (max(size - 5, 0), min(size, 5))]
                    for _ in range(20):
                        offset = dice.randint(0, size)
                        ranges.append((offset, dice.randint(0, min(size - offset, 10_000))))
                    batch = content.read_many([offset for offset, _ in ranges], [length for _, length in ranges])
                    for i, (offset, length) in enumerate(ranges):
                        assert batch.view(i).tobytes() == content.read(offset, length)
                    covered = content.extents()
                    assert int(covered.lengths.sum()) == size
                    for offset, length, kind in list(covered)[:50]:
                        if kind:  # zeros or a hole
                            assert not content.read(offset, min(length, _PART)).strip(b"\0")

    def test_what_has_no_content(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            for folder in self._some(tree.of_type(FileType.DIRECTORY), 5):
                with pytest.raises(PathIsDirectoryError):
                    filesystem.open(folder)
            for file in self._some(tree.of_type(FileType.FILE), 5):
                with pytest.raises(PathNotFoundError):
                    filesystem.open(file, "no such stream")
                for stream in filesystem.streams(file):
                    with filesystem.open(file, stream.name) as content:
                        assert content.size == stream.size

    def test_readlink_is_for_links_alone(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            files = tree.files()
            targets = filesystem.readlink(_ids(files))
            links = set(tree.of_type(FileType.SYMLINK))
            for i, (file, target) in enumerate(zip(files, targets.target, strict=True)):
                if file in links:
                    assert i not in targets.errors
                    assert target
                    filesystem.link_parts(target)
                else:
                    assert isinstance(targets.errors[i], NotASymlinkError)
                    assert target == b""

    def test_xattrs_have_full_names(self) -> None:
        with self._opened() as filesystem:
            for file in self._some(_walk(filesystem).files()):
                for name, value in filesystem.xattrs(file).items():
                    assert "." in name
                    assert isinstance(value, bytes)

    # -- nonsense ----------------------------------------------------------------------------------------------------

    def test_nonsense_ids_are_errors_of_their_rows(self) -> None:
        with self._opened() as filesystem:
            root = int(filesystem.root)
            nonsense = [0, 2**64 - 1, 2**63, 2**63 - 1, 2**48 + 12_345, 2**32, 2**32 - 1]
            asked = _ids([root, *nonsense, root])
            wrong = set(range(1, len(nonsense) + 1))
            rows, links = filesystem.rows(asked), filesystem.children(asked)
            assert set(rows.errors) == wrong
            assert (rows.type[1:-1] == FileType.UNKNOWN).all()
            assert _row(rows, 0) == _row(rows, len(asked) - 1)
            assert set(links.errors) == wrong
            assert set(filesystem.runs(asked).errors) >= wrong
            assert set(filesystem.readlink(asked).errors) >= wrong
            assert not filesystem.lookup(asked[1:-1], [b"x"] * len(nonsense)).found.any()
            for file in nonsense:
                for ask in (filesystem.open, filesystem.xattrs, filesystem.streams):
                    self._only_ours(lambda ask=ask, file=file: ask(file))  # type: ignore[misc]
                with pytest.raises(PseudomountError):
                    filesystem.open(file)

    def test_threads(self) -> None:
        with self._opened() as filesystem:
            tree = _walk(filesystem)
            folders, files = tree.of_type(FileType.DIRECTORY), tree.files()
            contents = self._some(tree.of_type(FileType.FILE), 40)

            def browse(number: int) -> list[object]:
                order = random.Random(number).sample(range(len(contents)), len(contents))
                links = _links_of(filesystem.children(_ids(folders)), len(folders))
                rows = filesystem.rows(_ids(files))
                read: dict[int, str] = {}
                for i in order:
                    with filesystem.open(contents[i]) as content:
                        read[i] = hashlib.sha256(content.read(0, min(content.size, _PART))).hexdigest()
                return [links, [_row(rows, i) for i in range(len(files))], sorted(read.items())]

            alone = browse(0)
            with ThreadPoolExecutor(8) as pool:
                assert all(seen == alone for seen in pool.map(browse, range(16)))

    def test_closing(self) -> None:
        with self.device() as device:
            filesystem = self.open(device)
            root = int(filesystem.root)
            filesystem.close()
            filesystem.close()
            assert device.read(0, 1) is not None, "the device is not the file system's to close"
        other = self.device()
        filesystem = self.open(other)
        tree = _walk(filesystem)
        other.close()
        self._only_ours(lambda: filesystem.children(_ids([root])))
        for file in self._some(tree.of_type(FileType.FILE), 5):
            self._only_ours(lambda file=file: filesystem.open(file).read(0, 1))  # type: ignore[misc]
        filesystem.close()

    # -- hostile -----------------------------------------------------------------------------------------------------

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
            files = _ids(_walk(filesystem).files())
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
        tree = _walk(filesystem)
        files = tree.files()
        asked = _ids(files)
        assert len(filesystem.rows(asked)) == len(files)
        filesystem.runs(asked)
        assert len(filesystem.readlink(asked).target) == len(files)
        folders = self._some(files, 100)
        filesystem.lookup(_ids(folders), [b"name"] * len(folders))
        for file in self._some(files, 40):
            self._only_ours(lambda file=file: filesystem.xattrs(file))  # type: ignore[misc]
            self._only_ours(lambda file=file: filesystem.streams(file))  # type: ignore[misc]
            self._only_ours(lambda file=file: self._read_some(filesystem, file))  # type: ignore[misc]
        filesystem.close()

    def _read_some(self, filesystem: FileSystem, file: int) -> None:
        with filesystem.open(file) as content:
            for at in (0, content.size // 2, max(content.size - _PART, 0)):
                content.read_many([at], [min(_PART, content.size - at)])

    def _only_ours(self, ask: Callable[[], object]) -> None:
        """Calls; a PseudomountError is an answer as good as any."""
        with suppress(PseudomountError):
            ask()
