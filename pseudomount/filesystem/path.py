"""BackupPath: a path inside a backup, with pathlib's interface."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Callable, Iterator, Sequence
from functools import total_ordering
from typing import IO, TYPE_CHECKING, Literal, Self, overload

from pathlib_abc import ReadablePath

from pseudomount.device import BlockDevice
from pseudomount.errors import DamageError, PathError, PathNotDirectoryError
from pseudomount.filesystem.content import NotingDevice
from pseudomount.filesystem.contract import FileType, StreamInfo
from pseudomount.filesystem.glob import select
from pseudomount.filesystem.stat import BackupStat
from pseudomount.filesystem.tree import Listing, Node, Tree, check_stream_mode, whole_or_raise

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["BackupPath"]


class _Parser:
    """How paths split and compare; "/" between parts, whatever the guest."""

    sep = "/"
    altsep: str | None = None

    def __init__(self, case_sensitive: bool) -> None:
        self._case_sensitive = case_sensitive

    def split(self, path: str) -> tuple[str, str]:
        return posixpath.split(path)

    def splitext(self, path: str) -> tuple[str, str]:
        return posixpath.splitext(path)

    def normcase(self, path: str) -> str:
        return path if self._case_sensitive else path.lower()


_PARSERS = {True: _Parser(True), False: _Parser(False)}


class _Info:
    """`pathlib_abc.PathInfo` of a path."""

    __slots__ = ("_path",)

    def __init__(self, path: BackupPath) -> None:
        self._path = path

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        return self._path.exists(follow_symlinks=follow_symlinks)

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        return self._path.is_dir(follow_symlinks=follow_symlinks)

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        return self._path.is_file(follow_symlinks=follow_symlinks)

    def is_symlink(self) -> bool:
        return self._path.is_symlink()


@total_ordering
class BackupPath(ReadablePath):
    """A file or directory of a volume, or a place where one could be.

    Making and joining paths reads nothing. Names that are no valid text come as Python's surrogate escapes (ext) or as
    the unpaired surrogates themselves (NTFS); `escaped` is the form to show and to store.

    A path that came from `iterdir`, `glob` or `walk` knows its file and shares one batch of metadata with its siblings.
    """

    __slots__ = ("_entry", "_node", "_path", "_tree")

    if TYPE_CHECKING:  # pathlib_abc has no types of its own
        name: str
        stem: str
        suffix: str
        suffixes: list[str]
        parts: tuple[str, ...]
        anchor: str

        @property
        def parent(self) -> Self: ...  # noqa: D102
        @property
        def parents(self) -> Sequence[Self]: ...  # noqa: D102
        def __truediv__(self, key: str | PathLike[str] | BackupPath) -> Self: ...
        def joinpath(self, *segments: str | PathLike[str] | BackupPath) -> Self: ...  # noqa: D102
        def with_name(self, name: str) -> Self: ...  # noqa: D102
        def with_stem(self, stem: str) -> Self: ...  # noqa: D102
        def with_suffix(self, suffix: str) -> Self: ...  # noqa: D102
        def relative_to(self, other: BackupPath, *, walk_up: bool = False) -> Self: ...  # noqa: D102
        def is_relative_to(self, other: BackupPath) -> bool: ...  # noqa: D102
        def full_match(self, pattern: str) -> bool: ...  # noqa: D102
        def walk(  # noqa: D102
            self,
            top_down: bool = True,
            on_error: Callable[[OSError], object] | None = None,
            follow_symlinks: bool = False,
        ) -> Iterator[tuple[Self, list[str], list[str]]]: ...

    def __init__(self, tree: Tree, path: str = "/", *, entry: tuple[Listing, int] | None = None) -> None:
        """For use by volumes, which hand out their `root`; join from there."""
        self._tree = tree
        self._path = path
        self._entry = entry
        self._node: Node | None = None

    # -- pure ----------------------------------------------------------------------------------------------------

    @property
    def parser(self) -> _Parser:
        """How paths of this volume split and compare."""
        return _PARSERS[self._tree.fs.case_sensitive]

    def with_segments(self, *segments: str | PathLike[str] | BackupPath) -> Self:
        """A path of the same volume from joined segments."""
        texts = [part._path if isinstance(part, BackupPath) else str(part) for part in segments]
        return type(self)(self._tree, posixpath.join(*texts) if texts else "")

    def __vfspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path

    def __repr__(self) -> str:
        return f"<BackupPath {self._tree.volume}:{self.escaped}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BackupPath):
            return NotImplemented
        return self._tree is other._tree and self._key() == other._key()

    def __hash__(self) -> int:
        return hash((id(self._tree), self._key()))

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, BackupPath):
            return NotImplemented
        return (self._tree.volume, self._key()) < (other._tree.volume, other._key())

    def _key(self) -> tuple[str, ...]:
        normcase = self.parser.normcase
        return tuple(normcase(part) for part in self.parts)

    @property
    def volume(self) -> str:
        """Name of the volume."""
        return self._tree.volume

    @property
    def escaped(self) -> str:
        """The path as valid UTF-8; see `pseudomount.filesystem.names`."""
        return self._tree.shown(self._path)

    # -- the file behind it --------------------------------------------------------------------------------------

    def _here(self) -> Node:
        """The file at this path, a link itself where it is one."""
        if self._node is None:
            if self._entry is not None:
                self._node = self._entry[0].node(self._entry[1])
            else:
                self._node = self._tree.resolve(self._path, follow=False)
        return self._node

    def _target(self) -> Node:
        """The file at the end of all links."""
        here = self._here()
        return self._tree.resolve(self._path) if here.type is FileType.SYMLINK else here

    def _type(self, follow: bool) -> FileType | None:
        try:
            return (self._target() if follow else self._here()).type
        except PathError:
            return None

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is a file. Damage on the way is an error, not a no."""
        return self._type(follow_symlinks) is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file."""
        return self._type(follow_symlinks) is FileType.FILE

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory."""
        return self._type(follow_symlinks) is FileType.DIRECTORY

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, junction or mount point."""
        return self._type(False) is FileType.SYMLINK

    @property
    def info(self) -> _Info:
        """What `pathlib_abc` asks of a path."""
        return _Info(self)

    def stat(self, *, follow_symlinks: bool = True) -> BackupStat:
        """What the file system keeps about the file.

        Raises:
            PathError: there is no such file.
            DamageError: its record could not be read.
        """
        if self._entry is not None:
            listing, i = self._entry
            if not follow_symlinks or listing.types[i] != FileType.SYMLINK:
                return BackupStat.of(listing.rows, i)
        node = self._target() if follow_symlinks else self._here()
        return self._tree.stat(node.file)

    def lstat(self) -> BackupStat:
        """`stat` of the link itself."""
        return self.stat(follow_symlinks=False)

    def readlink(self) -> Self:
        """The path a link points to, as the link has it.

        Raises:
            NotASymlinkError: it is no link.
        """
        target = self._tree.target(self._here().file)
        return self.with_segments(self._tree.fs.name_encoding.decode(target))

    def resolve(self) -> Self:
        """The path without links, "." and ".."; the file need not exist past its last directory."""
        return self.with_segments(self._tree.real_path(self._path))

    def xattrs(self, *, follow_symlinks: bool = True) -> dict[str, bytes]:
        """Extended attributes by full name, with the bytes that the guest's kernel would give."""
        return self._tree.fs.xattrs((self._target() if follow_symlinks else self._here()).file)

    def streams(self) -> list[StreamInfo]:
        """Named streams (NTFS); the main content is not among them."""
        return self._tree.fs.streams(self._target().file)

    # -- content -------------------------------------------------------------------------------------------------

    def device(self, stream: str | None = None) -> BlockDevice:
        """The content as a block device: positional, thread-safe, and knowing its holes.

        Raises:
            PathError: there is no such file, it is a directory, or it has no such stream.
            UnsupportedError: it is a kind of file without content, or encrypted, or encoded in a way we do not read.
            DamageError: nothing of the content can be found.
        """
        node = self._target()
        error = None if stream else self._tree.content_error(node.type, self._path)
        if error is not None:
            raise error
        try:
            inner = self._tree.fs.open(node.file, stream)
        except DamageError as damage:
            self._tree.note(damage, node.file, self._path)
            raise
        return NotingDevice(inner, self.escaped, lambda damage: self._tree.note(damage, node.file, self._path))

    @overload
    def open(
        self,
        mode: Literal["rb"],
        buffering: int = -1,
        encoding: None = None,
        errors: None = None,
        newline: None = None,
        *,
        stream: str | None = None,
    ) -> io.BufferedReader: ...
    @overload
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        stream: str | None = None,
    ) -> IO[str] | IO[bytes]: ...
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        stream: str | None = None,
    ) -> IO[str] | IO[bytes] | io.BufferedReader:
        """Opens the content for reading, as `pathlib.Path.open` does.

        Args:
            mode: "r" or "rb".
            buffering: bytes; 1 MiB by default.
            encoding, errors, newline: for text; UTF-8 by default.
            stream: a named stream instead of the main content.

        Raises:
            as `device`; UsageError for a mode that writes.
        """
        binary = check_stream_mode(mode)
        raw = self._reader(stream, buffering)
        return raw if binary else io.TextIOWrapper(raw, encoding or "utf-8", errors, newline)

    def _reader(self, stream: str | None = None, buffering: int = -1) -> io.BufferedReader:
        from pseudomount.device import open_reader

        device = self.device(stream)
        return open_reader(device, buffering) if buffering > 1 else open_reader(device)

    def __open_reader__(self) -> io.BufferedReader:
        return self._reader()

    def read_bytes(self) -> bytes:
        """The whole content."""
        with self._reader() as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """The whole content as text, UTF-8 by default."""
        with io.TextIOWrapper(self._reader(), encoding or "utf-8", errors, newline) as file:
            return file.read()

    # -- directories ---------------------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """The directory's entries as columns.

        Raises:
            PathNotDirectoryError: it is none.
            DamageError: nothing of it could be read; damage to a part of it is a finding.
        """
        if self._entry is not None and self._entry[0].types[self._entry[1]] == FileType.DIRECTORY:
            return whole_or_raise(self._entry[0].child(self._entry[1]))
        node = self._target()
        if node.type is not FileType.DIRECTORY:
            raise self._tree.not_directory(self._path)
        return self._tree.listing(node.file, self._path)

    def iterdir(self) -> Iterator[Self]:
        """The directory's entries, in the disk's order, in one batch; `stat` of all of them is one batch more."""
        listing = self.listing()
        base = self._path if self._path.endswith("/") else self._path + "/" if self._path else ""
        for i, name in enumerate(listing.names):
            yield type(self)(self._tree, base + name, entry=(listing, i))

    def glob(self, pattern: str, *, recurse_symlinks: bool = False) -> Iterator[Self]:
        """The paths below this one that match, as `pathlib.Path.glob` finds them.

        `**` does not follow links unless asked to; a directory that was seen on the way down is not entered again.

        Raises:
            UsageError: the pattern is empty or starts with "/".
        """
        return select(self, pattern, recurse_symlinks)

    def rglob(self, pattern: str, *, recurse_symlinks: bool = False) -> Iterator[Self]:
        """`glob` with "**/" in front."""
        return self.glob(f"**/{pattern}", recurse_symlinks=recurse_symlinks)

    def _children(self) -> list[Self]:
        """`iterdir` as a list, empty for what is no directory or cannot be read (which is then a finding)."""
        try:
            return list(self.iterdir())
        except (PathNotDirectoryError, DamageError):
            return []
