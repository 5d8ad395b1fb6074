"""`pseudomount get`: files and folders, brought out of a backup."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pseudomount.cli.destination import Attributes, Destination, is_fatal
from pseudomount.cli.options import Common
from pseudomount.cli.output import human_size, shown, use_colour
from pseudomount.cli.places import Place
from pseudomount.cli.safety import link_refusal, local_name, name_refusal
from pseudomount.cli.session import Session, run
from pseudomount.errors import CorruptionError, PseudomountError, StorageError, UsageError
from pseudomount.filesystem.contract import FileRows, FileSystem, FileType, NameEncoding
from pseudomount.filesystem.names import escape
from pseudomount.filesystem.tree import Tree
from pseudomount.filesystem.walk import WalkBatch, walk_batches
from pseudomount.findings import Severity

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["run_get"]


def run_get(common: Common, paths: list[str], to: str, *, force: bool, verbose: bool) -> int:
    """Copies each path into the folder `to`; what cannot be had costs itself only."""

    def work(session: Session) -> None:
        places: list[tuple[str, Place]] = []
        for text in paths:
            try:
                places.append((text, session.place(text)))
            except PseudomountError as error:
                session.fail(error, text)
        if not places:
            return
        destination = Destination.at(to, force=force)
        done = []
        with _progress(session, verbose) as meter:
            for text, place in places:
                copy = _Copy(session, place, destination, verbose, meter)
                done.append(copy)
                try:
                    copy.all()
                except PseudomountError as error:
                    session.fail(error, text)
        for copy in done:
            copy.sum_up()
        for folder, problem in destination.finish():
            session.fail(StorageError(f"{destination.shown(folder)}: mode or times could not be set: {problem}"))

    return run(common, work)


class _Meter:
    """Says on a terminal how far it is; elsewhere nothing."""

    def __init__(self, progress: Progress | None = None, task: TaskID | None = None) -> None:
        self._progress = progress
        self._task = task
        self._files = 0

    def add(self, size: int) -> None:
        """One file more."""
        self._files += 1
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=size, files=f"{self._files:,} files")


@contextmanager
def _progress(session: Session, verbose: bool) -> Iterator[_Meter]:
    if session.out.json or verbose or not use_colour(sys.stderr):
        yield _Meter()
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[files]}"),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
    with progress:
        yield _Meter(progress, progress.add_task("", total=None, files="0 files"))


@dataclass(slots=True)
class _Copy:
    """The copying of one path that was asked for."""

    session: Session
    place: Place
    destination: Destination
    verbose: bool
    meter: _Meter
    counts: dict[FileType, int] = field(default_factory=dict)
    bytes: int = 0
    goal: Path | None = None

    @property
    def fs(self) -> FileSystem:
        return self.place.volume.fs

    @property
    def encoding(self) -> NameEncoding:
        return self.fs.name_encoding

    def all(self) -> None:
        """Copies it."""
        path = self.place.path
        found = path.stat()
        name = path.name
        if name in ("", ".", ".."):
            name = path.resolve().name
        start = str(path)
        if not name:  # the root: its content goes right into the destination
            self.goal = self.destination.root
            self._below(found.file, start, self.destination.root)
            return
        rows = self.fs.rows(np.array([found.file], np.uint64))
        goal = self._goal(self.destination.root, name, found.file, start)
        if goal is None:
            return
        self.goal = goal
        if found.type is FileType.DIRECTORY:
            if self._make(found.type, rows, 0, start, goal):
                self._below(found.file, start, goal)
        else:
            error = Tree(self.fs).content_error(found.type, start)
            if error is not None:
                raise error
            self._make(found.type, rows, 0, start, goal)

    def _below(self, directory: int, path: str, goal: Path) -> None:
        """Everything below a directory, level by level."""
        goals: dict[str, Path] = {path: goal}
        depth = -1
        following: dict[str, Path] = {}
        for batch in walk_batches(Tree(self.fs, self.place.volume.name), directory, path):
            if batch.depth != depth:
                goals, following, depth = (following, {}, batch.depth) if following else (goals, {}, batch.depth)
            self._batch(batch, goals, following)

    def _batch(self, batch: WalkBatch, goals: dict[str, Path], following: dict[str, Path]) -> None:
        rows = batch.rows
        if rows is None:
            raise TypeError("a copy needs rows")
        folders = [goals.get(directory) for directory in batch.directories]
        for i, (query, name) in enumerate(zip(batch.links.query.tolist(), batch.names, strict=True)):
            folder = folders[query]
            if folder is None or i in rows.errors:  # refused above; a finding of the walk
                continue
            path = batch.path(i)
            goal = self._goal(folder, name, int(batch.links.file[i]), path)
            kind = FileType(int(batch.types[i]))
            if goal is not None and self._make(kind, rows, i, path, goal) and kind is FileType.DIRECTORY:
                following[path] = goal

    def _goal(self, folder: Path, name: str, file: int, path: str) -> Path | None:
        """Where a name of the backup goes; None, and a finding, where it must not."""
        local = local_name(name, self.encoding)
        reason = name_refusal(local)
        if reason:
            self._refuse(f"not written: {reason}", file, path)
            return None
        return folder / local

    def _make(self, kind: FileType, rows: FileRows, i: int, path: str, goal: Path) -> bool:
        """Makes one file, folder or link; whether it did. What went wrong is said."""
        file = int(rows.file[i])
        attributes = _attributes(rows, i)
        try:
            if kind is FileType.DIRECTORY:
                self.destination.folder(goal, attributes)
            elif kind is FileType.FILE:
                self._content(file, path, goal, attributes)
            elif kind is FileType.SYMLINK:
                if not self._link(file, path, goal, attributes):
                    return False
            elif kind is FileType.UNKNOWN:
                raise CorruptionError("not written: no known kind of file", structure="file type")
            else:
                note = f"not written: a {kind.word} has no content"
                self.fs.findings.add(Severity.NOTE, note, file=file, path=escape(path, self.encoding))
                return False
        except UsageError as error:  # something is there
            self.session.fail(error, escape(path, self.encoding))
            return False
        except PseudomountError as error:
            self.fs.findings.add_error(error, file=file, path=escape(path, self.encoding))
            return False
        except OSError as error:
            if is_fatal(error):
                raise StorageError(f"{self.destination.shown(goal)}: {error.strerror}") from error
            self.session.fail(
                StorageError(f"{self.destination.shown(goal)}: {error.strerror or error}"), escape(path, self.encoding)
            )
            return False
        size = int(rows.size[i]) if kind is FileType.FILE else 0
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.bytes += size
        self.meter.add(size)
        self._say(kind, path, goal, size)
        return True

    def _content(self, file: int, path: str, goal: Path, attributes: Attributes) -> None:
        with self.fs.open(file) as content:
            self.destination.file(goal, content, attributes)

    def _link(self, file: int, path: str, goal: Path, attributes: Attributes) -> bool:
        tree = Tree(self.fs)
        raw = tree.target(file)
        absolute, parts = self.fs.link_parts(raw)
        target = ("/" if absolute else "") + "/".join(self.encoding.decode(part) for part in parts)
        reason = link_refusal(target, self.destination.depth(goal))
        if reason:
            self._refuse(f"link to {shown(target, self.encoding)} not made: {reason} of the destination", file, path)
            return False
        try:
            directory = tree.resolve(path).type is FileType.DIRECTORY  # Windows must know
        except PseudomountError:
            directory = False
        self.destination.link(goal, local_name(target, self.encoding), attributes, directory=directory)
        return True

    def _refuse(self, message: str, file: int, path: str) -> None:
        self.fs.findings.add(Severity.DEGRADED, message, file=file, path=escape(path, self.encoding))

    # -- what is said --------------------------------------------------------------------------------------------

    def _say(self, kind: FileType, path: str, goal: Path, size: int) -> None:
        if self.session.out.json:
            self.session.out.object(
                {
                    "volume": self.place.volume.name,
                    "path": escape(path, self.encoding),
                    "destination": escape(str(goal), NameEncoding.BYTES),
                    "type": kind.word,
                    "size": size,
                }
            )
        elif self.verbose:
            self.session.out.lines([f"{self.place.prefix}{shown(path, self.encoding)}"])

    def sum_up(self) -> None:
        """One line on what was copied."""
        if self.session.out.json or not self.counts or self.goal is None:
            return
        files, folders = self.counts.get(FileType.FILE, 0), self.counts.get(FileType.DIRECTORY, 0)
        links = self.counts.get(FileType.SYMLINK, 0)
        text = human_size(self.bytes)
        if folders or files != 1:
            text = f"{_count(files, 'file')}, {_count(folders, 'folder')}, {_count(links, 'link')}, {text}"
        goal = shown(str(self.destination.shown(self.goal)), NameEncoding.BYTES)
        source = f"{self.place.prefix}{shown(str(self.place.path), self.encoding)}"
        self.session.out.lines([f"{source} -> {goal} ({text})"])


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" + "s" * (number != 1)


def _attributes(rows: FileRows, i: int) -> Attributes:
    def exact(moment: tuple[int, int] | None) -> int | None:
        return None if moment is None else moment[0] * 1_000_000_000 + moment[1]

    return Attributes(int(rows.mode[i]), exact(rows.accessed.exact(i)), exact(rows.modified.exact(i)))
