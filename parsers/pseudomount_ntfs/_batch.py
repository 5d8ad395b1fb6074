"""Records of many files with their extension records merged, and how their attributes are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount_ntfs._layout import AttributeType, units_of
from pseudomount_ntfs._names import wtf8
from pseudomount_ntfs._records import Attributes, first_of

__all__ = ["Batch", "Values"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Values:
    """n byte strings in one buffer: string i is `buffer[starts[i]:starts[i] + lengths[i]]`; empty where it failed."""

    buffer: UInt8s
    starts: Int64s
    lengths: Int64s
    errors: Mapping[int, PseudomountError]

    def bytes_of(self, i: int) -> bytes:
        """String i; raises its error if it has one."""
        if i in self.errors:
            raise self.errors[i]
        start = int(self.starts[i])
        return self.buffer[start : start + int(self.lengths[i])].tobytes()


@dataclass(slots=True)
class Batch:
    """Records of n files, their extension records merged.

    Attributes:
        references: uint64 (n,), as asked for.
        buffer: uint8, all the records; its length is a multiple of 8.
        attributes: of all the files, `row` is the file's place in the question.
        flags, links, sequence: int64 (n,), of the base record.
        errors: row → why there is no such file (it was not read, is stale, not in use).
        damage: row → what is wrong with a file of which other attributes are there.
    """

    references: UInt64s
    buffer: UInt8s
    attributes: Attributes
    flags: Int64s
    links: Int64s
    sequence: Int64s
    errors: dict[int, PseudomountError]
    damage: dict[int, PseudomountError]
    _rest: dict[tuple[int, int, bytes], list[int]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.references)

    def of_type(self, kind: AttributeType, name: str | None = "") -> Int64s:
        """The attributes of one type that begin a stream, in order of file; `name` None takes every name."""
        attributes = self.attributes
        mask = (attributes.type == kind) & (attributes.lowest == 0)
        if name is not None:
            mask &= attributes.name_length == len(name)
        picks = np.flatnonzero(mask)
        if name:
            wanted = np.frombuffer(name.encode("utf-16-le"), np.uint8)
            places = attributes.name_at[picks][:, None] + np.arange(len(wanted))
            picks = picks[(self.buffer[places] == wanted).all(axis=1)]
        return picks[np.argsort(attributes.row[picks], kind="stable")]

    def pick(self, kind: AttributeType, name: str = "") -> Int64s:
        """For each file the first attribute of one type and name that begins a stream, -1 where it has none."""
        picks = self.of_type(kind, name)
        first = first_of(self.attributes.row[picks], len(self))
        return np.where(first >= 0, picks[first] if len(picks) else -1, -1)

    def name_of(self, attribute: int) -> bytes:
        """An attribute's name, as WTF-8."""
        at, count = self.attributes.name_at[[attribute]], self.attributes.name_length[[attribute]]
        return wtf8(*units_of(self.buffer, at, count))[0]

    def forget(self) -> None:
        """Drops what was derived from the attributes, after more of them have come."""
        self._rest = None

    def continuations(self) -> dict[tuple[int, int, bytes], list[int]]:
        """Attributes that continue a stream, by (row, type, name), ascending. There are few: one loop over them."""
        if self._rest is None:
            rest: dict[tuple[int, int, bytes], list[int]] = {}
            later = np.flatnonzero((self.attributes.lowest > 0) & ~self.attributes.resident)
            later = later[np.argsort(self.attributes.lowest[later], kind="stable")]
            names = wtf8(*units_of(self.buffer, self.attributes.name_at[later], self.attributes.name_length[later]))
            keys = zip(self.attributes.row[later].tolist(), self.attributes.type[later].tolist(), names, strict=True)
            for attribute, key in zip(later.tolist(), keys, strict=True):
                rest.setdefault(key, []).append(attribute)
            self._rest = rest
        return self._rest
