"""A folder of files as a store."""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeAlias

from pseudomount.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    OutOfRangeError,
    StorageError,
    TransientStorageError,
)
from pseudomount.storage.contract import Store

__all__ = ["LocalStore"]

#: What must stay the same as long as the store is open: device and inode, size, time of change in ns.
_Identity: TypeAlias = tuple[int, int, int, int]

#: Identities remembered of files whose handles were closed.
_REMEMBERED = 1 << 16
_TRANSIENT = {errno.EAGAIN, errno.EBUSY, errno.ETIMEDOUT, errno.ENFILE, errno.EMFILE, errno.EINTR}


class LocalStore(Store):
    """The regular files (and, where named, block devices) below a folder.

    A name never leads out of the folder: not by "..", not as an absolute path, not through a link. Files named by the
    user may lie anywhere: see `for_files`. Once read, a file must stay as it was; if its size, time of change or
    inode differ later, that is an `ObjectChangedError`. An open file is looked at for that once in `check_every`
    seconds at most, and whenever it gives fewer bytes than it should.

    Args:
        root: the folder.
        handles: files kept open, those used last.
        check_every: seconds; 0 checks at every read.
        named: files outside of it, or links, by the names that they have in this store.
    """

    remote = False

    def __init__(
        self,
        root: Path | str,
        *,
        handles: int = 64,
        check_every: float = 1.0,
        named: Mapping[str, Path] | None = None,
    ) -> None:
        self.root = Path(root)
        self._named = dict(named or {})
        self._capacity = max(1, handles)
        self._check_every = check_every
        self._open: OrderedDict[str, _Handle] = OrderedDict()
        self._seen: OrderedDict[str, _Identity] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def for_file(cls, path: Path | str) -> tuple[LocalStore, str]:
        """A store in which one file lies, and its name there. Files beside it are in the store, too."""
        store, names = cls.for_files([path])
        return store, names[0]

    @classmethod
    def for_files(cls, paths: Sequence[Path | str]) -> tuple[LocalStore, tuple[str, ...]]:
        """A store in which all these files lie, and their names there, whatever folders they are in.

        The store is the folder of the first; files from elsewhere are named by their whole path. These files may be
        links: whoever named them meant what they lead to.
        """
        given = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100  (resolve() would follow links)
        if not given:
            raise StorageError("no files")
        root = given[0].parent
        named = {path.name if path.parent == root else path.as_posix().lstrip("/"): path for path in given}
        by_path = {path: name for name, path in named.items()}
        return cls(root, named=named), tuple(by_path[path] for path in given)

    def path(self, name: str) -> Path:
        """Where a file lies that was named at making the store, or is below its folder.

        Raises:
            StorageError: the name leads out of the folder.
        """
        return self._named.get(name) or self._inside(name)

    # -- the contract --------------------------------------------------------------------------------------------

    def size(self, name: str) -> int:
        """Bytes of a file; see `Store.size`."""
        return self._handle(name).size

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes at `offset`; see `Store.read`."""
        handle = self._handle(name)
        size = handle.size
        if offset < 0 or length < 0:
            raise OutOfRangeError(f"{length} bytes at {offset} of {name}")
        # Never ask the system for more than there is: it sets aside memory for what is asked.
        length = min(length, size - offset)
        if length <= 0:
            return b""
        try:
            data = handle.read(offset, length)
        except OSError as error:
            raise _translated(error, name) from error
        if len(data) < length:
            handle.check(name)
            raise StorageError(f"{name}: the file gave {len(data)} of {length} bytes at {offset}", filename=name)
        return data

    def list(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, sorted; links that lead out of the folder are left out."""
        folder, _, _ = prefix.rpartition("/")
        top = self.root
        if folder:
            try:
                top = self._inside(folder)
            except StorageError:
                return []
        names = {name for name in self._named if name.startswith(prefix)}
        names.update(self._walk(top, folder + "/" if folder else "", prefix))
        return sorted(names)

    def close(self) -> None:
        """Closes the files; they open again when read."""
        with self._lock:
            self._open.clear()

    # -- inside --------------------------------------------------------------------------------------------------

    def _walk(self, top: Path, inside: str, prefix: str) -> Iterator[str]:
        todo = [(top, inside)]
        root = None
        while todo:
            folder, before = todo.pop()
            try:
                entries = list(os.scandir(folder))
            except OSError as error:
                if folder is top and not isinstance(error, FileNotFoundError | NotADirectoryError):
                    raise _translated(error, str(top)) from error
                continue  # gone, or closed to us: the rest is still listed
            for entry in entries:
                name = before + entry.name
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if name.startswith(prefix) or prefix.startswith(name + "/"):
                            todo.append((folder / entry.name, name + "/"))
                    elif name.startswith(prefix) and entry.is_file():
                        if entry.is_symlink():
                            root = root or self.root.resolve()
                            if not Path(entry.path).resolve().is_relative_to(root):
                                continue
                        yield name
                except OSError:  # a loop of links, say
                    continue

    def _handle(self, name: str) -> _Handle:
        with self._lock:
            handle = self._open.get(name)
            if handle is not None:
                self._open.move_to_end(name)
        if handle is not None:
            now = time.monotonic()
            if now - handle.checked >= self._check_every:
                handle.check(name)
                handle.checked = now
            return handle
        path = self.path(name)
        try:
            handle = _Handle(path, name)
        except OSError as error:
            raise _translated(error, name) from error
        except ValueError as error:  # a NUL in the name
            raise ObjectNotFoundError(f"{name!r}: no such file: {error}") from error
        with self._lock:
            before = self._seen.setdefault(name, handle.identity)
            self._seen.move_to_end(name)
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            if before == handle.identity:
                self._open[name] = handle
                while len(self._open) > self._capacity:
                    # Not closed here: another thread may be reading. It closes when the last one lets go of it.
                    self._open.popitem(last=False)
                return handle
        raise _changed(name)

    def _inside(self, name: str) -> Path:
        """The path of a name, which lies below the root, links followed."""
        windows = PureWindowsPath(name)
        parts = PurePosixPath(name).parts
        bad = not name or "\0" in name or name.startswith("/") or ".." in parts or name.split("/") != list(parts)
        if sys.platform == "win32":
            # "c:x" and "\\x" lead elsewhere, "x:y" is a stream, and a backslash parts names.
            bad = bad or bool(windows.drive or windows.root) or "\\" in name or ":" in name
        if bad:
            raise StorageError(f"{name!r} is no name in a store", filename=name)
        path = self.root / name
        try:
            inside = path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError) as error:  # a loop of links
            raise StorageError(f"{name}: {error}", filename=name) from error
        if not inside:
            raise StorageError(f"{name} is a link that leads out of {self.root}; name its target itself", filename=name)
        return path


class _Handle:
    """An open file. It closes when nobody holds it any more, so one thread may let go while others still read."""

    __slots__ = ("_lock", "_pread", "checked", "device", "fd", "identity", "size")

    def __init__(self, path: Path, name: str) -> None:
        self.fd = -1
        status = path.stat()
        _refuse(status.st_mode, name)
        # Not to wait where the file has become a pipe since; to no effect on files.
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        self.fd = os.open(path, flags)
        status = os.fstat(self.fd)
        _refuse(status.st_mode, name)
        self.device = stat.S_ISBLK(status.st_mode)
        self.size = os.lseek(self.fd, 0, os.SEEK_END) if self.device else status.st_size
        self.identity = self._identify(status)
        self.checked = time.monotonic()
        self._lock = threading.Lock()
        # Windows has no pread.
        self._pread: Callable[[int, int, int], bytes] | None = getattr(os, "pread", None)

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes; fewer only at the end of the file."""
        data = self._once(offset, length)
        if len(data) == length or not data:
            return data
        # Systems give at most some 2 GiB at a time.
        parts = [data]
        done = len(data)
        while done < length:
            data = self._once(offset + done, length - done)
            if not data:
                break
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def check(self, name: str) -> None:
        """Raises ObjectChangedError if the file is no longer what it was."""
        try:
            status = os.fstat(self.fd)
        except OSError as error:
            raise _translated(error, name) from error
        if self._identify(status) != self.identity:
            raise _changed(name)

    def _identify(self, status: os.stat_result) -> _Identity:
        if self.device:  # its times tell of the node, not of what it holds
            return status.st_dev, status.st_ino, self.size, 0
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns

    def _once(self, offset: int, length: int) -> bytes:
        if self._pread is not None:
            return self._pread(self.fd, length, offset)
        with self._lock:
            os.lseek(self.fd, offset, os.SEEK_SET)
            return os.read(self.fd, length)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def _refuse(mode: int, name: str) -> None:
    if stat.S_ISDIR(mode):
        raise StorageError(f"{name} is a directory, not a file", filename=name)
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise StorageError(f"{name} is neither a file nor a block device", filename=name)


def _changed(name: str) -> ObjectChangedError:
    return ObjectChangedError(f"{name} has changed since it was first read", filename=name)


def _translated(error: OSError, name: str) -> StorageError:
    if isinstance(error, StorageError):
        return error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ObjectNotFoundError(f"{name}: no such file", filename=name)
    kind = TransientStorageError if error.errno in _TRANSIENT else StorageError
    return kind(f"{name}: {(error.strerror or str(error)).lower()}", filename=name)
