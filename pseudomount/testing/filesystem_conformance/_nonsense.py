"""Tests of questions that make no sense, of threads, and of closing."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import (
    FileType,
)
from pseudomount.testing.filesystem_conformance._base import Suite
from pseudomount.testing.filesystem_conformance._kit import (
    PART,
    ids_of,
    links_of,
    row_of,
    walk,
)

__all__ = ["NonsenseTests"]


class NonsenseTests(Suite):
    """Wrong ids, many threads, closed devices."""

    def test_nonsense_ids_are_errors_of_their_rows(self) -> None:
        with self._opened() as filesystem:
            root = int(filesystem.root)
            nonsense = [0, 2**64 - 1, 2**63, 2**63 - 1, 2**48 + 12_345, 2**32, 2**32 - 1]
            nonsense = [file for file in nonsense if file != root]
            asked = ids_of([root, *nonsense, root])
            wrong = set(range(1, len(nonsense) + 1))
            rows, links = filesystem.rows(asked), filesystem.children(asked)
            assert set(rows.errors) == wrong
            assert (rows.type[1:-1] == FileType.UNKNOWN).all()
            assert row_of(rows, 0) == row_of(rows, len(asked) - 1)
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
            tree = walk(filesystem)
            folders, files = tree.of_type(FileType.DIRECTORY), tree.files()
            contents = self._some(tree.of_type(FileType.FILE), 40)

            def browse(number: int) -> list[object]:
                order = random.Random(number).sample(range(len(contents)), len(contents))
                links = links_of(filesystem.children(ids_of(folders)), len(folders))
                rows = filesystem.rows(ids_of(files))
                read: dict[int, str] = {}
                for i in order:
                    with filesystem.open(contents[i]) as content:
                        read[i] = hashlib.sha256(content.read(0, min(content.size, PART))).hexdigest()
                return [links, [row_of(rows, i) for i in range(len(files))], sorted(read.items())]

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
        tree = walk(filesystem)
        other.close()
        self._only_ours(lambda: filesystem.children(ids_of([root])))
        for file in self._some(tree.of_type(FileType.FILE), 5):
            self._only_ours(lambda file=file: filesystem.open(file).read(0, 1))  # type: ignore[misc]
        filesystem.close()
