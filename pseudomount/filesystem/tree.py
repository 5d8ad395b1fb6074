"""The tree of one file system: paths to files, listings in batches, links followed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import (
    CorruptionError,
    PathError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PseudomountError,
    SymlinkLoopError,
    UnsupportedError,
    UsageError,
)
from pseudomount.filesystem.contract import FileRows, FileSystem, FileType, LinkRows, Looked, Targets
from pseudomount.filesystem.names import escape
from pseudomount.filesystem.stat import BackupStat

__all__ = ["Listing", "Node", "Tree"]

#: Links followed on the way to one file, as Linux bounds it.
MAX_LINKS = 40
#: Directories fetched ahead in one batch when a caller works through its siblings.
_AHEAD = 256


class Node:
    """A file that a path led to."""

    __slots__ = ("file", "type")

    def __init__(self, file: int, type: FileType) -> None:  # noqa: A002
        self.file = file
        self.type = type


class Listing:
    """The entries of one directory, fetched in one batch; what is known of the files behind them is a second one."""

    def __init__(self, tree: Tree, path: str, links: LinkRows, error: PseudomountError | None) -> None:
        self.tree = tree
        self.path = path
        self.links = links
        self.error = error
        self._children: dict[int, Listing] = {}
        self._asked = np.zeros(len(links), np.bool_)
        self._ahead = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.links)

    @cached_property
    def names(self) -> list[str]:
        """The entries' names, as Python strings."""
        decode = self.tree.fs.name_encoding.decode
        return [decode(name) for name in self.links.name]

    @cached_property
    def rows(self) -> FileRows:
        """What is known of the files, one row an entry; those that could not be read become findings."""
        rows = self.tree.source.rows(self.links.file)
        for i, error in rows.errors.items():
            self.tree.note(error, int(self.links.file[i]), self.child_path(i))
        return rows

    @cached_property
    def types(self) -> NDArray[np.uint8]:
        """uint8 (n,) `FileType`; read from the files where the entries do not say."""
        types = self.links.type
        unknown = types == FileType.UNKNOWN
        return np.where(unknown, self.rows.type, types) if unknown.any() else types

    def child_path(self, i: int) -> str:
        """Path of entry i."""
        return f"{self.path.rstrip('/')}/{self.names[i]}"

    def node(self, i: int) -> Node:
        """Entry i."""
        return Node(int(self.links.file[i]), FileType(int(self.types[i])))

    def child(self, i: int) -> Listing:
        """The listing of entry i, a directory.

        Whoever asks for a second one is likely to go through them all, so its neighbours are then fetched ahead.
        """
        with self._lock:
            if i not in self._children:
                wanted = [i, *self._neighbours(i)]
                self._asked[wanted] = True
                self._ahead = min(max(self._ahead * 4, 16), _AHEAD)
                found = self.tree.listings(
                    [int(self.links.file[j]) for j in wanted], [self.child_path(j) for j in wanted]
                )
                self._children.update(zip(wanted, found, strict=True))
            # Not kept once handed out: a walk over millions of directories must not hold them all.
            return self._children.pop(i)

    def _neighbours(self, i: int) -> list[int]:
        """The directories nearest to entry i that nobody asked for yet: those behind it, else those in front."""
        if not self._ahead:
            return []
        at = int(np.searchsorted(self._directories, i))
        behind = self._directories[at + 1 : at + 1 + self._ahead]
        near: list[int] = behind[~self._asked[behind]].tolist()
        if not near:
            before = self._directories[max(at - self._ahead, 0) : at]
            near = before[~self._asked[before]].tolist()
        return near

    @cached_property
    def _directories(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.types == FileType.DIRECTORY)


class Source(Protocol):
    """Who answers for directories and files: the file system itself, or its catalogue."""

    def children(self, directories: NDArray[np.uint64]) -> LinkRows:
        """As `FileSystem.children`."""
        ...

    def rows(self, files: NDArray[np.uint64]) -> FileRows:
        """As `FileSystem.rows`."""
        ...

    def lookup(self, directories: NDArray[np.uint64], names: Sequence[bytes]) -> Looked:
        """As `FileSystem.lookup`."""
        ...

    def readlink(self, files: NDArray[np.uint64]) -> Targets:
        """As `FileSystem.readlink`."""
        ...


class Tree:
    """Looks paths up in a file system. Thread-safe.

    Attributes:
        fs: where.
        volume: its name.
        source: who is asked for listings, names and links, and for what is known of files.
    """

    def __init__(self, fs: FileSystem, volume: str = "") -> None:
        self.fs = fs
        self.source: Source = fs
        self.volume = volume
        self.root = Node(fs.root, FileType.DIRECTORY)
        self._known: OrderedDict[tuple[int, bytes], Node] = OrderedDict()
        self._lock = threading.Lock()

    # -- errors --------------------------------------------------------------------------------------------------

    def shown(self, path: str) -> str:
        """A path in its escaped form."""
        return escape(path, self.fs.name_encoding)

    def note(self, error: Exception, file: int, path: str) -> None:
        """Turns an error of a batch into a finding that has a path."""
        self.fs.findings.add_error(error, file=file, path=self.shown(path))

    def not_found(self, path: str) -> PathNotFoundError:
        """The error for a path at which there is nothing."""
        shown = self.shown(path)
        return PathNotFoundError(f"{shown}: no such file or directory", path=shown)

    def not_directory(self, path: str) -> PathNotDirectoryError:
        """The error for a path that should be a directory."""
        shown = self.shown(path)
        return PathNotDirectoryError(f"{shown}: not a directory", path=shown)

    # -- paths ---------------------------------------------------------------------------------------------------

    def resolve(self, path: str, *, follow: bool = True) -> Node:
        """The file at a path.

        Args:
            path: parts between "/"; a relative one starts at the root as well; "." and ".." are understood.
            follow: whether a link at the end is followed; links on the way always are.

        Raises:
            PathNotFoundError, PathNotDirectoryError, SymlinkLoopError: there is no such file.
            DamageError: something on the way could not be read.
        """
        encode = self.fs.name_encoding.encode
        try:
            parts = [encode(part) for part in path.split("/") if part]
        except UnicodeEncodeError as error:
            raise self.not_found(path) from error
        need_directory = path.endswith(("/", "/."))
        node = self._walk([self.root], parts, path, follow or need_directory)
        if need_directory and node.type is not FileType.DIRECTORY:
            raise self.not_directory(path)
        return node

    def _walk(self, above: list[Node], parts: list[bytes], path: str, follow: bool) -> Node:
        """Follows `parts` from the last of `above`, the directories from the root down to where we stand."""
        todo = parts[::-1]
        links = 0
        while todo:
            part = todo.pop()
            here = above[-1]
            if here.type is not FileType.DIRECTORY:
                raise self.not_directory(path)
            if part in (b".", b""):
                continue
            if part == b"..":
                if len(above) > 1:
                    above.pop()
                continue
            node = self._child(here, part, path)
            if node.type is FileType.SYMLINK and (todo or follow):
                links += 1
                if links > MAX_LINKS:
                    shown = self.shown(path)
                    raise SymlinkLoopError(f"{shown}: too many symbolic links", path=shown)
                absolute, target = self.fs.link_parts(self.target(node.file))
                if absolute:
                    del above[1:]
                todo += target[::-1]
                if len(todo) > 100_000:  # forged links that multiply
                    shown = self.shown(path)
                    raise SymlinkLoopError(f"{shown}: symbolic links lead to an endless path", path=shown)
                continue
            above.append(node)
        return above[-1]

    def _child(self, directory: Node, name: bytes, path: str) -> Node:
        key = (directory.file, name)
        with self._lock:
            node = self._known.get(key)
            if node is not None:
                self._known.move_to_end(key)
                return node
        looked = self.source.lookup(np.array([directory.file], np.uint64), [name])
        if 0 in looked.errors:
            self.note(looked.errors[0], directory.file, path)
            raise looked.errors[0]
        if not looked.found[0]:
            raise self.not_found(path)
        node = self.node(int(looked.file[0]))
        with self._lock:
            self._known[key] = node
            while len(self._known) > 4096:
                self._known.popitem(last=False)
        return node

    def node(self, file: int) -> Node:
        """A file by its id.

        Raises:
            PseudomountError: it could not be read.
        """
        rows = self.source.rows(np.array([file], np.uint64))
        if 0 in rows.errors:
            raise rows.errors[0]
        return Node(file, FileType(int(rows.type[0])))

    def target(self, file: int) -> bytes:
        """A link's target, as the file system has it.

        Raises:
            NotASymlinkError: the file is none.
            PseudomountError: it could not be read.
        """
        targets = self.source.readlink(np.array([file], np.uint64))
        if 0 in targets.errors:
            raise targets.errors[0]
        return targets.target[0]

    def stat(self, file: int) -> BackupStat:
        """What the file system keeps about a file.

        Raises:
            PseudomountError: its record could not be read.
        """
        return BackupStat.of(self.source.rows(np.array([file], np.uint64)), 0)

    def real_path(self, path: str) -> str:
        """The path without links, "." and ".."; what does not exist is taken as it stands.

        Raises:
            SymlinkLoopError: the links on the way have no end.
        """
        decode = self.fs.name_encoding.decode
        done: list[str] = []
        todo = [part for part in path.split("/") if part][::-1]
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            candidate = "/" + "/".join([*done, part])
            try:
                node = self.resolve(candidate, follow=False)
            except PathError:
                done.append(part)
                continue
            if node.type is not FileType.SYMLINK:
                done.append(part)
                continue
            links += 1
            if links > MAX_LINKS:
                raise SymlinkLoopError(f"{self.shown(path)}: too many symbolic links", path=self.shown(path))
            absolute, target = self.fs.link_parts(self.target(node.file))
            if absolute:
                done.clear()
            todo += [decode(name) for name in target[::-1]]
        return "/" + "/".join(done)

    # -- batches -------------------------------------------------------------------------------------------------

    def listings(self, directories: Sequence[int], paths: Sequence[str]) -> list[Listing]:
        """The listings of many directories in one batch. What is wrong with one is in its `error`, and a finding."""
        links = self.source.children(np.array(directories, np.uint64))
        cuts = np.searchsorted(links.query, np.arange(len(directories) + 1))
        found = []
        for i, (a, b) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            error = links.errors.get(i)
            if error is not None:
                self.note(error, directories[i], paths[i])
            found.append(Listing(self, paths[i], links.take(np.arange(a, b)), error))
        return found

    def listing(self, directory: int, path: str) -> Listing:
        """The listing of one directory.

        Raises:
            PseudomountError: nothing of it could be read. What is wrong with a part of it is a finding only.
        """
        return whole_or_raise(self.listings([directory], [path])[0])

    def content_error(self, kind: FileType, path: str) -> PseudomountError | None:
        """Why a file of this kind has no content to open, or None."""
        shown = self.shown(path)
        if kind is FileType.DIRECTORY:
            return PathIsDirectoryError(f"{shown}: is a directory", path=shown)
        if kind is FileType.UNKNOWN:
            return CorruptionError(f"{shown}: no known kind of file", structure="file type")
        if kind is not FileType.FILE:
            return UnsupportedError(f"{shown}: a {kind.word} has no content")
        return None


def whole_or_raise(listing: Listing) -> Listing:
    """The listing, unless an error left nothing of it."""
    if listing.error is not None and not len(listing):
        raise listing.error
    return listing


def check_stream_mode(mode: str) -> bool:
    """Whether `mode` is binary.

    Raises:
        UsageError: it is not a reading mode.
    """
    if set(mode) - set("rbt") or "r" not in mode or ("b" in mode and "t" in mode) or len(set(mode)) != len(mode):
        raise UsageError(f"mode {mode!r}: a backup is read-only, use 'r' or 'rb'")
    return "b" in mode
