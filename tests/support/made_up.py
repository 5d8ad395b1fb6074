"""A file system that is nothing but the parts of a scan, for what no maker of images makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    NameEncoding,
    Names,
    Targets,
    TimeColumn,
)
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import FindingLog

UInt64s = NDArray[np.uint64]


@dataclass(frozen=True)
class File:
    """A file; `error` is why nothing is known of it."""

    id: int
    type: FileType = FileType.FILE
    size: int = 0
    mode: int = -1
    uid: int = -1
    generation: int = -1
    inode: int | None = None
    modified: tuple[int, int] | None = None
    error: PseudomountError | None = None
    deleted: bool = False
    target: bytes = b""
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A name."""

    parent: int
    file: int
    name: bytes
    type: FileType = FileType.UNKNOWN
    deleted: bool = False


@dataclass(frozen=True)
class Part:
    """A part of a scan."""

    files: Sequence[File] = ()
    links: Sequence[Link] = ()
    streams: Sequence[tuple[int, bytes, int, int]] = ()
    errors: Mapping[int, PseudomountError] = field(default_factory=dict)
    done: float = 0.0


class MadeUp(FileSystem):
    """Its `rows` knows `unlisted` files, its `readlink` the targets of all; root 1."""

    name = "made up"
    root = 1

    def __init__(
        self, parts: Sequence[Part], *, unlisted: Sequence[File] = (), encoding: NameEncoding = NameEncoding.BYTES
    ) -> None:
        self.findings = FindingLog("disk0")
        self.name_encoding = encoding
        self._parts = parts
        self._unlisted = {file.id: file for file in unlisted}
        self._all = {file.id: file for part in parts for file in part.files}

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        for part in self._parts:
            files = [file for file in part.files if deleted or not file.deleted]
            links = [link for link in part.links if deleted or not link.deleted]
            yield ScanBatch(
                file_rows(files),
                ScanLinks(
                    np.array([link.parent for link in links], np.uint64),
                    np.array([link.file for link in links], np.uint64),
                    Names.of(link.name for link in links),
                    np.array([link.type for link in links], np.uint8),
                    np.array([link.deleted for link in links], np.bool_),
                ),
                np.array([file.deleted for file in files], np.bool_),
                ScanStreams(
                    np.array([stream[0] for stream in part.streams], np.uint64),
                    Names.of(stream[1] for stream in part.streams),
                    np.array([stream[2] for stream in part.streams], np.int64),
                    np.array([stream[3] for stream in part.streams], np.int64),
                ),
                part.errors,
                part.done,
            )

    def rows(self, files: UInt64s) -> FileRows:
        none = CorruptionError("no such file", structure="made up")
        return file_rows([self._unlisted.get(file, File(file, error=none)) for file in files.tolist()])

    def readlink(self, files: UInt64s) -> Targets:
        found = [self._all[file].target for file in files.tolist()]
        error = CorruptionError("no target", structure="made up")
        return Targets(Names.of(found), {i: error for i, target in enumerate(found) if not target})

    def children(self, directories: UInt64s) -> LinkRows:
        raise PathNotFoundError("not asked for")

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        raise PathNotFoundError("not asked for")

    def runs(self, files: UInt64s) -> DataRuns:
        raise PathNotFoundError("not asked for")

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        raise PathNotFoundError("not asked for")


def file_rows(files: Sequence[File]) -> FileRows:
    """What `rows` says of such files."""
    n = len(files)
    none = np.full(n, -1, np.int64)
    moments = [file.modified for file in files]
    modified = TimeColumn.of(
        np.array([0 if moment is None else moment[0] for moment in moments], np.int64),
        np.array([0 if moment is None else moment[1] for moment in moments], np.int64),
        np.array([moment is not None for moment in moments], np.bool_),
    )
    return FileRows(
        file=np.array([file.id for file in files], np.uint64),
        subvolume=np.zeros(n, np.uint64),
        inode=np.array([file.id if file.inode is None else file.inode for file in files], np.uint64),
        generation=np.array([file.generation for file in files], np.int64),
        type=np.array([FileType.UNKNOWN if file.error else file.type for file in files], np.uint8),
        size=np.array([file.size for file in files], np.int64),
        allocated=np.array([file.size for file in files], np.int64),
        mode=np.array([file.mode for file in files], np.int64),
        uid=np.array([file.uid for file in files], np.int64),
        gid=none,
        links=none,
        created=TimeColumn.null(n),
        modified=modified,
        changed=TimeColumn.null(n),
        accessed=TimeColumn.null(n),
        flags=np.zeros(n, np.uint64),
        extra={key: np.array([file.extra[key] for file in files]) for key in (files[0].extra if files else ())},
        errors={i: file.error for i, file in enumerate(files) if file.error},
    )
