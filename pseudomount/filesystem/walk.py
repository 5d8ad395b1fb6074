"""Whole subtrees, a level at a time: thousands of directories are one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError
from pseudomount.filesystem.contract import FileRows, FileType, LinkRows
from pseudomount.filesystem.tree import Tree

__all__ = ["WalkBatch", "walk_batches"]

#: Directories that are asked for in one batch.
BATCH = 4096
#: Levels below which nobody goes: the longest path that any of our file systems allows has fewer.
MAX_DEPTH = 4096


@dataclass(frozen=True, slots=True)
class WalkBatch:
    """The entries of many directories of one level.

    Attributes:
        depth: levels below the directory that the walk began in; its own entries are 0.
        directories: paths of the directories, as strings; `links.query` counts in them.
        links: their entries.
        names: the entries' names, as strings.
        types: uint8 (n,) `FileType` of each entry.
        rows: what is known of each entry's file, where it was asked for.
    """

    depth: int
    directories: list[str]
    links: LinkRows
    names: list[str]
    types: NDArray[np.uint8]
    rows: FileRows | None

    def path(self, i: int) -> str:
        """Path of entry i."""
        return f"{self.directories[int(self.links.query[i])].rstrip('/')}/{self.names[i]}"


def walk_batches(
    tree: Tree, directory: int, path: str, *, recursive: bool = True, rows: bool = True
) -> Iterator[WalkBatch]:
    """Everything below a directory, level by level.

    A directory is entered once, however many entries claim it: the second claim is a finding. What cannot be read is a
    finding, and the walk goes on.

    Args:
        tree: where.
        directory: id of the directory to begin in.
        path: its path.
        recursive: whether to go below its own entries.
        rows: whether what is known of each file is wanted.
    """
    fs = tree.fs
    decode = fs.name_encoding.decode
    seen = {directory}
    level_ids, level_paths = [directory], [path]
    depth = 0
    while level_ids:
        next_ids: list[int] = []
        next_paths: list[str] = []
        for first in range(0, len(level_ids), BATCH):
            ids, paths = level_ids[first : first + BATCH], level_paths[first : first + BATCH]
            links = tree.source.children(np.array(ids, np.uint64))
            for i, error in links.errors.items():
                tree.note(error, ids[i], paths[i])
            names = [decode(name) for name in links.name]
            known = tree.source.rows(links.file) if rows or bool((links.type == FileType.UNKNOWN).any()) else None
            types = links.type
            if known is not None:
                types = np.where(types == FileType.UNKNOWN, known.type, types)
            batch = WalkBatch(depth, paths, links, names, types, known if rows else None)
            if known is not None:
                for i, error in known.errors.items():
                    tree.note(error, int(links.file[i]), batch.path(i))
            yield batch
            if not recursive:
                continue
            for i in np.flatnonzero(types == FileType.DIRECTORY).tolist():
                file = int(links.file[i])
                if file in seen:
                    tree.note(
                        CorruptionError("a directory that several entries claim", structure="directory"),
                        file,
                        batch.path(i),
                    )
                    continue
                seen.add(file)
                next_ids.append(file)
                next_paths.append(batch.path(i))
        depth += 1
        if depth > MAX_DEPTH and next_ids:
            tree.note(CorruptionError("directories nest too deep", structure="directory"), next_ids[0], next_paths[0])
            return
        level_ids, level_paths = next_ids, next_paths
