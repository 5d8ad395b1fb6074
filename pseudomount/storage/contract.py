"""The Store contract: immutable objects, read by ranges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

__all__ = ["Store"]


class Store(ABC):
    """A flat set of named objects. Thread-safe.

    Names are relative, with "/" between parts on every platform.

    Attributes:
        remote: whether a request takes long, so that readers make few, large ones, several at a time, and cache.
    """

    remote: bool = False

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of an object.

        Raises:
            ObjectNotFoundError: there is none of this name.
        """

    @abstractmethod
    def read(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes at `offset`; short, or empty, only where the object ends.

        Raises:
            ObjectNotFoundError, ObjectChangedError, TransientStorageError, StorageError
        """

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several (offset, length) of one object; a remote store answers them in parallel."""
        return [self.read(name, offset, length) for offset, length in ranges]

    @abstractmethod
    def list(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, sorted."""

    def close(self) -> None:  # noqa: B027  (optional to implement)
        """Frees handles. Closing twice does nothing."""
