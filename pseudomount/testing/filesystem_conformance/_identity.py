"""Tests of what a volume is, and of all its files against a manifest."""

from __future__ import annotations

import hashlib
import random

import pytest

from pseudomount.filesystem import (
    FileRows,
    FileSystem,
    FileType,
)
from pseudomount.testing.devices import MemoryDevice
from pseudomount.testing.filesystem_conformance._base import Suite
from pseudomount.testing.filesystem_conformance._kit import (
    WHOLE,
    Expected,
    ids_of,
    walk,
)

__all__ = ["IdentityTests"]


class IdentityTests(Suite):
    """What it is."""

    def test_known_failures_are_tests(self) -> None:
        assert {name for name in self.known_failures if not callable(getattr(self, name, None))} == set()

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
            rows = filesystem.rows(ids_of([filesystem.root]))
            assert not rows.errors
            assert FileType(int(rows.type[0])) is FileType.DIRECTORY

    def test_manifest(self) -> None:
        manifest = self.manifest()
        if manifest is None:
            pytest.skip("no manifest")
        with self._opened() as filesystem:
            tree = walk(filesystem)
            assert not tree.errors
            assert sorted(tree.ids) == sorted(manifest)
            paths = sorted(manifest)
            rows = filesystem.rows(ids_of([tree.ids[path] for path in paths]))
            assert not rows.errors
            for i, path in enumerate(paths):
                assert self._seen(filesystem, rows, i, manifest[path]) == manifest[path], path

    def _seen(self, filesystem: FileSystem, rows: FileRows, i: int, expected: Expected) -> Expected:
        """What the file system says of row i, as far as it is expected."""
        file, kind, modified = int(rows.file[i]), FileType(int(rows.type[i])), rows.modified.exact(i)
        sha256 = expected.sha256
        if sha256 is not None and int(rows.size[i]) <= WHOLE:
            with filesystem.open(file) as content:
                sha256 = hashlib.sha256(content.read(0, content.size)).hexdigest()
        target = None
        if kind is FileType.SYMLINK:
            target = filesystem.readlink(ids_of([file])).target[0]
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
