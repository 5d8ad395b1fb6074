"""The folder that recovered files are written to.

A file is written under a temporary name beside its place and then renamed, so a place holds the whole file or what it
held before. Nothing here follows a link of the destination: folders on the way must be real ones.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pseudomount.device import BlockDevice, ExtentKind
from pseudomount.errors import StorageError, UsageError

__all__ = ["Attributes", "Destination", "is_fatal"]

_STEP = 8 << 20
_REPARSE_POINT = 0x400  # FILE_ATTRIBUTE_REPARSE_POINT: a link or junction of Windows


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a file gets besides its content.

    Attributes:
        mode: permission bits, or -1 where the backup has none.
        accessed, modified: nanoseconds since 1970, or None.
    """

    mode: int = -1
    accessed: int | None = None
    modified: int | None = None


def is_fatal(error: OSError) -> bool:
    """Whether the next file will fail as well."""
    return error.errno in {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EIO}


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


@dataclass(slots=True)
class Destination:
    """Makes files, folders and links below `root`, which is made if need be.

    Attributes:
        root: the folder, links on the way to it resolved.
        given: the same as the user wrote it, for messages.
        force: whether files that are there are replaced. What was made by this run never is.
    """

    root: Path
    given: Path
    force: bool
    _mask: int = field(default_factory=_umask)
    _made: set[tuple[int, int]] = field(default_factory=set)
    _folders: list[tuple[Path, Attributes]] = field(default_factory=list)

    @classmethod
    def at(cls, folder: str, *, force: bool) -> Destination:
        """Opens or makes the folder.

        Raises:
            StorageError: it cannot be made, or is no folder.
        """
        root = Path(folder)
        try:
            root.mkdir(parents=True, exist_ok=True)
            return cls(root.resolve(strict=True), root, force)
        except OSError as error:
            raise StorageError(f"{folder}: {error.strerror}") from error

    def shown(self, path: Path) -> Path:
        """A path below the root, as the user would write it."""
        return self.given / path.relative_to(self.root)

    def depth(self, path: Path) -> int:
        """Folders between the root and a path below it."""
        return len(path.parent.relative_to(self.root).parts)

    def folder(self, path: Path, attributes: Attributes) -> None:
        """Makes a folder, or takes the one that is there.

        Raises:
            UsageError: something else is there.
            OSError: it cannot be made.
        """
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or getattr(found, "st_file_attributes", 0) & _REPARSE_POINT:
                raise UsageError(f"{self.shown(path)}: there is something that is no folder") from None
            return  # it was there before: its mode and times are not ours
        self._folders.append((path, attributes))

    def file(self, path: Path, content: BlockDevice, attributes: Attributes) -> None:
        """Writes a file; holes and zeros of `content` become holes where the system has them.

        Raises:
            UsageError: something is there.
            DamageError, UnsupportedError: the content cannot be read; nothing is left of the file.
            OSError: it cannot be written; the same.
        """
        self._check_free(path)
        temporary = self._temporary(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.truncate(content.size)
                for offset, length, kind in content.extents():
                    if kind != ExtentKind.DATA:
                        continue
                    file.seek(offset)
                    for at in range(offset, offset + length, _STEP):
                        file.write(content.read(at, min(_STEP, offset + length - at)))
            self._place(temporary, path, attributes)
        except BaseException:
            _discard(temporary)
            raise

    def link(self, path: Path, target: str, attributes: Attributes, *, directory: bool) -> None:
        """Makes a symbolic link; that it may be made is for the caller to know.

        Raises:
            UsageError: something is there.
            OSError: it cannot be made.
        """
        self._check_free(path)
        temporary = self._temporary(path)
        temporary.symlink_to(target, target_is_directory=directory)
        try:
            if attributes.modified is not None and os.utime in os.supports_follow_symlinks:
                os.utime(temporary, ns=_times(attributes), follow_symlinks=False)
            self._move(temporary, path)
        except BaseException:
            _discard(temporary)
            raise

    def finish(self) -> list[tuple[Path, Exception]]:
        """Gives the folders that were made their modes and times, the deepest first; the ones that refused them."""
        failed: list[tuple[Path, Exception]] = []
        for path, attributes in reversed(self._folders):
            try:
                mode = attributes.mode | 0o700 if attributes.mode >= 0 else 0o777
                path.chmod(mode & 0o777 & ~self._mask)
                if attributes.modified is not None:
                    os.utime(path, ns=_times(attributes))
            except (OSError, OverflowError, ValueError) as error:
                failed.append((path, error))
        self._folders.clear()
        return failed

    def _check_free(self, path: Path) -> None:
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            raise UsageError(f"{self.shown(path)}: there is a folder of this name")
        if not self.force:
            raise UsageError(f"{self.shown(path)}: exists; --force replaces it")
        if (found.st_dev, found.st_ino) in self._made:
            raise UsageError(f"{self.shown(path)}: another file of the backup went by this name already")

    @staticmethod
    def _temporary(path: Path) -> Path:
        return path.with_name(f".pseudomount-{secrets.token_hex(6)}.part")

    def _place(self, temporary: Path, path: Path, attributes: Attributes) -> None:
        # Content that only its owner could read must not become everyone's; and the owner must be able to read it.
        mode = attributes.mode | 0o600 if attributes.mode >= 0 else 0o666
        temporary.chmod(mode & 0o777 & ~self._mask)
        if attributes.modified is not None:
            try:
                os.utime(temporary, ns=_times(attributes))
            except (OverflowError, ValueError) as error:
                raise OSError(errno.EOVERFLOW, f"no such time here ({error})", str(path)) from error
        self._move(temporary, path)

    def _move(self, temporary: Path, path: Path) -> None:
        self._check_free(path)
        if self.force:
            found = temporary.lstat()
            self._made.add((found.st_dev, found.st_ino))
        temporary.replace(path)


def _times(attributes: Attributes) -> tuple[int, int]:
    modified = attributes.modified or 0
    return (modified if attributes.accessed is None else attributes.accessed, modified)


def _discard(path: Path) -> None:
    with suppress(OSError):  # the error that led here says more
        path.unlink()
