"""Tests of batches against single questions, and of names."""

from __future__ import annotations

import random

import numpy as np

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import (
    FileType,
    escape,
    unescape,
)
from pseudomount.testing.filesystem_conformance._base import Suite
from pseudomount.testing.filesystem_conformance._kit import (
    ids_of,
    links_of,
    row_of,
    runs_of,
    walk,
)

__all__ = ["BatchTests", "NameTests"]


class BatchTests(Suite):
    """Batches answer what single questions do."""

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
            folders = walk(filesystem).of_type(FileType.DIRECTORY)
            together = links_of(filesystem.children(ids_of(folders)), len(folders))
            single = {folder: links_of(filesystem.children(ids_of([folder])), 1)[0] for folder in folders}
            assert together == [single[folder] for folder in folders]
            mixed = random.Random(2).sample(folders * 2, len(folders) * 2)
            links = filesystem.children(ids_of(mixed))
            assert links_of(links, len(mixed)) == [single[folder] for folder in mixed]
            assert links.parent.tolist() == [mixed[query] for query in links.query.tolist()]
            for entries in single.values():
                names = [name for _, name, _ in entries]
                assert len(set(names)) == len(names), "a name twice"
                assert not {b"", b".", b".."} & set(names)

    def test_children_of_files_are_errors_of_their_rows(self) -> None:
        with self._opened() as filesystem:
            tree = walk(filesystem)
            files = self._some(tree.of_type(FileType.FILE))
            asked = [int(filesystem.root), *files, int(filesystem.root)]
            links = filesystem.children(ids_of(asked))
            assert set(links.errors) == set(range(1, len(asked) - 1))
            assert all(isinstance(error, PseudomountError) for error in links.errors.values())
            found = links_of(links, len(asked))
            assert found[0] == found[-1] != []
            assert not any(found[1:-1])

    def test_rows_of_many_are_those_of_each(self) -> None:
        with self._opened() as filesystem:
            files = walk(filesystem).files()
            together = filesystem.rows(ids_of(files))
            assert not together.errors
            assert together.file.tolist() == files
            known = {file: row_of(together, i) for i, file in enumerate(files)}
            for file in self._some(files):
                assert row_of(filesystem.rows(ids_of([file])), 0) == known[file]
            mixed = random.Random(3).sample(files * 2, len(files) * 2)
            rows = filesystem.rows(ids_of(mixed))
            assert [row_of(rows, i) for i in range(len(mixed))] == [known[file] for file in mixed]

    def test_runs_of_many_are_those_of_each(self) -> None:
        with self._opened() as filesystem:
            files = walk(filesystem).of_type(FileType.FILE)
            mixed = random.Random(4).sample(files * 2, len(files) * 2)
            together = filesystem.runs(ids_of(mixed))
            assert not together.errors
            chosen = set(self._some(files))
            for i, file in enumerate(mixed):
                if file in chosen:
                    single = filesystem.runs(ids_of([file]))
                    assert runs_of(together, i) == runs_of(single, 0)
                    assert together.resident.get(i) == single.resident.get(0)
                    assert bool(together.encoded[i]) == bool(single.encoded[0])

    def test_types_agree(self) -> None:
        with self._opened() as filesystem:
            tree = walk(filesystem)
            paths = list(tree.ids)
            rows = filesystem.rows(ids_of([tree.ids[path] for path in paths]))
            for path, kind, mode in zip(paths, rows.type.tolist(), rows.mode.tolist(), strict=True):
                assert FileType(kind) is tree.types[path], path
                assert mode == -1 or mode & 0o170000 == FileType(kind).mode, path


class NameTests(Suite):
    """Looking up and escaping names."""

    def test_lookup_finds_every_child(self) -> None:
        with self._opened() as filesystem:
            folders = walk(filesystem).of_type(FileType.DIRECTORY)
            links = filesystem.children(ids_of(folders))
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
                single = filesystem.lookup(ids_of([parent]), [name])
                assert (bool(single.found[0]), int(single.file[0])) == (True, file)

    def test_lookup_does_not_find_what_is_not_there(self) -> None:
        with self._opened() as filesystem:
            tree = walk(filesystem)
            folders = self._some(tree.of_type(FileType.DIRECTORY), 20)
            names = [b"", b"no such name \xff\xfe", b"x" * 255, b"x" * 256, b"y" * 5000, b"a/b", b"a\0b", b"\0"]
            questions = [(folder, name) for folder in folders for name in names]
            found = filesystem.lookup(ids_of([folder for folder, _ in questions]), [name for _, name in questions])
            taken = {int(row) for row in np.flatnonzero(found.found)}
            listed = links_of(filesystem.children(ids_of(folders)), len(folders))
            real = {(folder, name) for folder, entries in zip(folders, listed, strict=True) for _, name, _ in entries}
            assert {questions[row] for row in taken} <= real
            files = self._some(tree.of_type(FileType.FILE), 20)
            assert not filesystem.lookup(ids_of(files), [b"name"] * len(files)).found.any()

    def test_names_round_trip(self) -> None:
        with self._opened() as filesystem:
            encoding = filesystem.name_encoding
            for path in walk(filesystem).ids:
                for name in path.split(b"/"):
                    text = encoding.decode(name)
                    assert encoding.encode(text) == name
                    shown = escape(text, encoding)
                    shown.encode("utf-8")  # valid text
                    assert unescape(shown, encoding) == text
