"""Tests of content, streams, links and attributes."""

from __future__ import annotations

import random

import pytest

from pseudomount.errors import NotASymlinkError, PathIsDirectoryError, PathNotFoundError
from pseudomount.filesystem import (
    DataRuns,
    FileSystem,
    FileType,
    RunKind,
)
from pseudomount.testing.filesystem_conformance._base import Suite
from pseudomount.testing.filesystem_conformance._kit import (
    PART,
    ids_of,
    parts_of,
    runs_of,
    walk,
)

__all__ = ["ContentTests"]


class ContentTests(Suite):
    """What files hold."""

    def test_runs_and_open_give_the_same_bytes(self) -> None:
        with self._opened() as filesystem:
            files = walk(filesystem).of_type(FileType.FILE)
            runs, rows = filesystem.runs(ids_of(files)), filesystem.rows(ids_of(files))
            for i, file in enumerate(files):
                with filesystem.open(file) as content:
                    size = int(rows.size[i])
                    assert content.size == size
                    if runs.encoded[i]:
                        continue
                    for offset, length in parts_of(size):
                        assert content.read(offset, length) == self._by_runs(filesystem, runs, i, offset, length)

    def _by_runs(self, filesystem: FileSystem, runs: DataRuns, i: int, begin: int, length: int) -> bytes:
        if i in runs.resident:
            assert not runs_of(runs, i), "a resident file has no runs"
            return bytes(runs.resident[i][begin : begin + length])
        data, end = bytearray(length), 0
        for offset, count, position, kind in runs_of(runs, i):
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
            for file in self._some(walk(filesystem).of_type(FileType.FILE)):
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
                            assert not content.read(offset, min(length, PART)).strip(b"\0")

    def test_what_has_no_content(self) -> None:
        with self._opened() as filesystem:
            tree = walk(filesystem)
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
            tree = walk(filesystem)
            files = tree.files()
            targets = filesystem.readlink(ids_of(files))
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
            for file in self._some(walk(filesystem).files()):
                for name, value in filesystem.xattrs(file).items():
                    assert "." in name
                    assert isinstance(value, bytes)
