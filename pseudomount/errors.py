"""Every error that leaves pseudomount.

The tree::

    PseudomountError
    ├── UsageError (ValueError)            the caller asked for something that has no meaning
    │   ├── OutOfRangeError                a range outside a device
    │   ├── BatchTooLargeError             a batch over its byte budget
    │   └── ClosedError                    a device or backup that was closed
    ├── StorageError (OSError)             the place where the secondary copy lies
    │   ├── ObjectNotFoundError (FileNotFoundError)
    │   ├── AccessDeniedError (PermissionError)   no credentials, or not the right ones
    │   ├── ObjectChangedError             the object is no longer the one that was opened
    │   └── TransientStorageError          retryable
    ├── UnsupportedError                   known, but not something we read
    │   ├── UnknownFormatError             not a disk image
    │   ├── NoFileSystemError              a volume without a file system that a parser knows
    │   └── EncryptedError                 readable only with a key that we do not have
    ├── DamageError (OSError, EIO)         bytes that should be there are not, or make no sense
    │   ├── ReadError                      a range of a device could not be read
    │   ├── CorruptionError                a structure contradicts its specification
    │   │   └── ChecksumError              a structure contradicts its own checksum
    │   └── TruncatedError                 the copy ends before the disk does
    ├── PathError (OSError)                a path inside a backup
    │   ├── PathNotFoundError (FileNotFoundError)
    │   ├── PathNotDirectoryError (NotADirectoryError)
    │   ├── PathIsDirectoryError (IsADirectoryError)
    │   ├── SymlinkLoopError (ELOOP)
    │   └── NotASymlinkError (EINVAL)
    ├── VolumeNotFoundError (LookupError)
    │   └── AmbiguousVolumeError           a name or label that fits several volumes, or none was named
    └── PluginError                        a parser or format could not be loaded

`retryable` says whether the same call may succeed later. Errors of damage carry where they happened:
`device` (a name), `offset` (bytes from the start of that device, or None), and `structure` (the field's term,
such as "group descriptor"). The classes that also inherit a builtin can be caught as that builtin, so code
written for `pathlib` works unchanged.
"""

import errno
from typing import ClassVar

__all__ = [
    "AccessDeniedError",
    "AmbiguousVolumeError",
    "BatchTooLargeError",
    "ChecksumError",
    "ClosedError",
    "CorruptionError",
    "DamageError",
    "EncryptedError",
    "NoFileSystemError",
    "NotASymlinkError",
    "ObjectChangedError",
    "ObjectNotFoundError",
    "OutOfRangeError",
    "PathError",
    "PathIsDirectoryError",
    "PathNotDirectoryError",
    "PathNotFoundError",
    "PluginError",
    "PseudomountError",
    "ReadError",
    "StorageError",
    "SymlinkLoopError",
    "TransientStorageError",
    "TruncatedError",
    "UnknownFormatError",
    "UnsupportedError",
    "UsageError",
    "VolumeNotFoundError",
]


class PseudomountError(Exception):
    """Root of every error that pseudomount raises on purpose."""

    retryable: bool = False


class UsageError(PseudomountError, ValueError):
    """The call has no meaning, whatever the backup holds."""


class OutOfRangeError(UsageError):
    """A range that does not lie inside its device."""


class BatchTooLargeError(UsageError):
    """A batch asks for more bytes than its budget; stream it instead."""


class ClosedError(UsageError):
    """The device or backup was closed."""


class _SystemError(PseudomountError, OSError):
    """An error with an errno, whose text is one line without the errno in front."""

    code: ClassVar[int] = errno.EIO

    def __init__(self, message: str, *, filename: str | None = None) -> None:
        if filename is None:
            super().__init__(self.code, message)
        else:
            super().__init__(self.code, message, filename)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


def _rebuild(kind: type[_SystemError], message: str, state: dict[str, object]) -> _SystemError:
    error = kind.__new__(kind)
    _SystemError.__init__(error, message)
    error.__dict__.update(state)
    return error


class StorageError(_SystemError):
    """Storage could not give what was asked."""


class ObjectNotFoundError(StorageError, FileNotFoundError):
    """There is no object of this name."""

    code = errno.ENOENT


class AccessDeniedError(StorageError, PermissionError):
    """Storage refuses: there are no credentials, or they do not suffice."""

    code = errno.EACCES


class ObjectChangedError(StorageError):
    """The object is not the one that was opened: other size or identity."""

    code = errno.ESTALE if hasattr(errno, "ESTALE") else errno.EIO


class TransientStorageError(StorageError):
    """Storage failed in a way that may pass."""

    retryable = True


class UnsupportedError(PseudomountError):
    """Recognised, but not something that this version reads."""


class UnknownFormatError(UnsupportedError):
    """The source is not a disk image in any known format."""


class NoFileSystemError(UnsupportedError):
    """No parser knows a file system on this volume."""


class EncryptedError(UnsupportedError):
    """The bytes are encrypted and no key was given."""


class DamageError(_SystemError):
    """Bytes that should be there are missing or make no sense.

    `device` is the device's name, `offset` counts bytes from its start, `structure` is the format's term.
    """

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        offset: int | None = None,
        structure: str = "",
    ) -> None:
        super().__init__(message)
        self.device = device
        self.offset = offset
        self.structure = structure


class ReadError(DamageError):
    """A range of a device could not be read. `retryable` follows the cause."""

    def __init__(
        self,
        message: str,
        *,
        device: str = "",
        offset: int | None = None,
        structure: str = "",
        retryable: bool = False,
    ) -> None:
        super().__init__(message, device=device, offset=offset, structure=structure)
        self.retryable = retryable


class CorruptionError(DamageError):
    """A structure contradicts its specification."""

    code = getattr(errno, "EUCLEAN", errno.EIO)


class ChecksumError(CorruptionError):
    """A structure or an extent contradicts its own checksum."""


class TruncatedError(DamageError):
    """The copy ends before the disk does."""


class PathError(_SystemError):
    """Something about a path inside a backup; `filename` is that path in its escaped form."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(message, filename=path or None)


class PathNotFoundError(PathError, FileNotFoundError):
    """There is nothing at this path."""

    code = errno.ENOENT


class PathNotDirectoryError(PathError, NotADirectoryError):
    """The path goes through, or should be, a directory and is not."""

    code = errno.ENOTDIR


class PathIsDirectoryError(PathError, IsADirectoryError):
    """The path is a directory where a file was needed."""

    code = errno.EISDIR


class SymlinkLoopError(PathError):
    """Too many symbolic links on the way."""

    code = errno.ELOOP


class NotASymlinkError(PathError):
    """The path is no symbolic link."""

    code = errno.EINVAL


class VolumeNotFoundError(PseudomountError, LookupError):
    """No volume has this name, label or UUID."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class AmbiguousVolumeError(VolumeNotFoundError):
    """Several volumes fit; name one."""


class PluginError(PseudomountError):
    """A parser or format plug-in could not be loaded or breaks its contract."""
