"""The ExtentIndex contract: disk offset → extent.

Every format, ours and foreign, becomes an extent index and nothing else. An index is asked in batches and answers for
the ranges asked for only; nothing may assume that a whole index is in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import PseudomountError

__all__ = ["RAW", "Codec", "ExtentIndex", "Kind", "Resolved"]

Int64s = NDArray[np.int64]

#: Bytes that an index which knows nothing better looks at around a byte.
_AROUND = 1 << 16


class Kind(IntEnum):
    """What an extent holds. The values are those of `pseudomount.device.ExtentKind`."""

    DATA = 0
    ZERO = 1
    HOLE = 2


@dataclass(frozen=True, slots=True)
class Codec:
    """How stored bytes become disk bytes.

    Attributes:
        name: "raw", or a name registered with the pseudo-disk's decoders: "zlib", "deflate", "zstd" …
        parameters: what the decoder needs besides the bytes, as sorted (key, value) pairs, so that it can be hashed.
    """

    name: str
    parameters: tuple[tuple[str, int | str | bytes], ...] = ()


#: Stored as it is: a piece of the extent can be fetched alone.
RAW = Codec("raw")


@dataclass(frozen=True, slots=True)
class Resolved:
    """The pieces that answer `resolve`: for each range asked for, in order, pieces that cover it without gaps.

    m pieces. A piece of a raw extent names just its own bytes (`object_offset` is moved to where the piece begins, and
    `stored_length` is its length). A piece of any other extent names the whole extent as stored, and where the
    piece lies in it once decoded.

    Attributes:
        ranges: int64 (m,), number of the range asked for that the piece belongs to, ascending.
        offset: int64 (m,), bytes from the start of the disk.
        length: int64 (m,), bytes, all positive.
        kind: uint8 (m,), values of `Kind`. Columns below mean nothing where it is not DATA.
        object: int64 (m,), number of the object, for `ExtentIndex.object_names`.
        object_offset: int64 (m,), bytes from the start of the object.
        stored_length: int64 (m,), bytes to fetch; may reach past the stored data where only an upper bound is known.
        codec: int64 (m,), position in `ExtentIndex.codecs`.
        skip: int64 (m,), where the piece begins within the decoded extent, bytes.
        decoded_length: int64 (m,), bytes of the whole decoded extent.
            For a raw extent, too, `skip` and `decoded_length` tell where the piece lies in its extent: the whole of it
            begins at `object_offset - skip`.
        identity: uint8 (m, 32), checksum or identity of the decoded extent, or None where the index has none; a row
            of zeros is an extent without one.
        errors: range number → why it could not be resolved; such a range has no pieces.
    """

    ranges: Int64s
    offset: Int64s
    length: Int64s
    kind: NDArray[np.uint8]
    object: Int64s
    object_offset: Int64s
    stored_length: Int64s
    codec: Int64s
    skip: Int64s
    decoded_length: Int64s
    identity: NDArray[np.uint8] | None = None
    errors: Mapping[int, PseudomountError] = field(default_factory=lambda: MappingProxyType({}))

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, rows: NDArray[np.int64]) -> Resolved:
        """Some of the pieces, without the errors."""
        return Resolved(
            self.ranges[rows],
            self.offset[rows],
            self.length[rows],
            self.kind[rows],
            self.object[rows],
            self.object_offset[rows],
            self.stored_length[rows],
            self.codec[rows],
            self.skip[rows],
            self.decoded_length[rows],
            None if self.identity is None else self.identity[rows],
        )


class ExtentIndex(ABC):
    """The map of a whole disk. Thread-safe, immutable."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes of the disk. What no extent covers is a hole."""

    @property
    @abstractmethod
    def codecs(self) -> Sequence[Codec]:
        """The codecs that `Resolved.codec` counts in; the first is `RAW`."""

    @abstractmethod
    def object_names(self, numbers: NDArray[np.int64]) -> list[str]:
        """Names of objects, as `fetch` takes them."""

    @abstractmethod
    def resolve(self, offsets: ArrayLike, lengths: ArrayLike) -> Resolved:
        """The pieces of many ranges.

        Args:
            offsets: int64 (n,), bytes; any order, overlaps allowed.
            lengths: int64 (n,), bytes.

        A part of the index that cannot be loaded is an error of the ranges that need it.

        Raises:
            OutOfRangeError: a range is not inside the disk.
        """

    def around(self, offset: int) -> Resolved:
        """The one piece that holds a byte, as wide as can be told without loading more than that byte needs.

        What a reader of small ranges remembers, so that the next one near by needs no `resolve`. The piece belongs to
        range 0; `errors[0]` is there instead where the index could not be loaded.

        Raises:
            OutOfRangeError: the byte is not inside the disk.
        """
        begin = offset // _AROUND * _AROUND
        pieces = self.resolve([begin, offset], [min(_AROUND, self.size - begin), 1])
        wide = (pieces.ranges == 0) & (pieces.offset <= offset) & (pieces.offset + pieces.length > offset)
        if wide.any():
            return pieces.take(np.flatnonzero(wide))
        exact = pieces.take(np.flatnonzero(pieces.ranges == 1))
        errors = {0: pieces.errors[1]} if 1 in pieces.errors else {}
        return replace(exact, ranges=np.zeros(len(exact), np.int64), errors=errors)

    def reach(self, offset: int, pieces: int) -> int:
        """Bytes from `offset` on that `resolve` answers in not many more than so many pieces; all the rest if unsure.

        For those who resolve long ranges in steps: told without loading anything, from what is known at opening.
        """
        return max(self.size - offset, 0)

    def close(self) -> None:  # noqa: B027  (optional to implement)
        """Frees what the index holds."""
