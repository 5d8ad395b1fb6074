"""Data runs: mapping pairs decoded in lockstep, and streams as gapless maps of segments that are read in batches.

Source: [LN] Concept: data runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, MappedDevice
from pseudomount.device.ranges import cut
from pseudomount.errors import CorruptionError, PseudomountError, TruncatedError

__all__ = ["BAD", "ZERO", "BytesDevice", "Segments", "decode_pairs", "read_segments", "stretches"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

#: Positions that are none: a hole, and a place of which nothing is known because its runs are lost.
ZERO: Final = -1
BAD: Final = -2

_LONGEST = 1 << 40  # clusters; the geometry allows no larger volume, a hole may be as long


def decode_pairs(
    flat: UInt8s, starts: Int64s, ends: Int64s, lowest: Int64s, clusters: int
) -> tuple[Int64s, Int64s, Int64s, Int64s, Bools]:
    """The runs of many attributes.

    Args:
        flat: uint8, the buffer; starts, ends: int64 (n,), where the pairs of each attribute lie in it.
        lowest: int64 (n,), first cluster of the stream that attribute i describes.
        clusters: of the volume; a run outside of it is damage.

    Returns:
        int64 (m,) each: attribute, first cluster within the stream, number of clusters, cluster on the volume or
        `ZERO` for a hole; ordered by attribute, then ascending. And bool (n,): which were sound to their end.
    """
    n = len(starts)
    sound = np.ones(n, np.bool_)
    which, at, until = np.arange(n, dtype=np.int64), starts, ends
    vcn, lcn = lowest.astype(np.int64), np.zeros(n, np.int64)
    columns: list[tuple[Int64s, Int64s, Int64s, Int64s]] = [(np.empty(0, np.int64),) * 4]
    places = np.arange(8, dtype=np.int64)
    while len(which):
        inside = at < until
        sound[which[~inside]] = False  # no end mark
        head = flat[np.minimum(at, len(flat) - 1)].astype(np.int64)
        live = inside & (head != 0)
        which, at, until, vcn, lcn, head = which[live], at[live], until[live], vcn[live], lcn[live], head[live]
        if not len(which):
            break
        wide, far = head & 15, head >> 4
        length = _integers(flat, at + 1, wide, places)
        delta = _integers(flat, at + 1 + wide, far, places)
        hole = far == 0
        to = lcn + np.where(hole | (abs(delta) > _LONGEST), 0, delta)
        fits = (wide >= 1) & (wide <= 8) & (far <= 8) & (at + 1 + wide + far <= until)
        fits &= (length > 0) & (length <= _LONGEST) & (vcn <= _LONGEST) & (abs(delta) <= _LONGEST)
        fits &= hole | ((to >= 0) & (to + length <= clusters))
        sound[which[~fits]] = False
        which, at, until, vcn = which[fits], at[fits], until[fits], vcn[fits]
        length, to, hole, lcn = length[fits], to[fits], hole[fits], to[fits]
        columns.append((which, vcn, length, np.where(hole, ZERO, to)))
        at = at + (1 + wide + far)[fits]
        vcn = vcn + length
    attribute, first, count, cluster = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.argsort(attribute, kind="stable")
    return attribute[order], first[order], count[order], cluster[order], sound


def _integers(flat: UInt8s, at: Int64s, widths: Int64s, places: Int64s) -> Int64s:
    """Signed little-endian integers of 0 to 8 bytes; whatever follows them is not looked at."""
    index = np.minimum(at[:, None] + places, len(flat) - 1)
    data = np.where(places < widths[:, None], flat[index], np.uint8(0))
    value = np.ascontiguousarray(data).view("<i8")[:, 0].astype(np.int64)
    shift = np.clip(64 - 8 * widths, 0, 63)
    return (value << shift) >> shift


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the bytes of a stream lie: gapless from 0 to its end.

    Attributes:
        starts: int64 (m + 1,), bytes; segment i is `starts[i]` to `starts[i + 1]`, none is empty.
        positions: int64 (m,), bytes from the start of the device; `ZERO` or `BAD` where there is none.
    """

    starts: Int64s
    positions: Int64s

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.starts[-1])

    @classmethod
    def of(cls, starts: Int64s, lengths: Int64s, positions: Int64s, size: int) -> Segments:
        """From ascending disjoint runs; what they leave out below `size` is BAD, what lies beyond is cut off."""
        inside = starts < size
        starts, positions = starts[inside], positions[inside]
        ends = np.minimum(starts + lengths[inside], size)
        # Each run, and before it the gap to the one before; empty gaps fall out.
        edges = np.empty(2 * len(starts) + 2, np.int64)
        edges[0] = 0
        edges[1:-1:2], edges[2:-1:2], edges[-1] = starts, ends, size
        places = np.full(2 * len(starts) + 1, BAD, np.int64)
        places[1::2] = positions
        keep = np.diff(edges) > 0
        return cls(np.append(edges[:-1][keep], size), places[keep])

    def cut(self, at: int) -> Segments:
        """The same with zeros from byte `at` on."""
        if at >= self.size:
            return self
        keep = self.starts[:-1] < at
        starts, positions = self.starts[:-1][keep], self.positions[keep]
        return Segments(np.append(starts, [at, self.size]), np.append(positions, ZERO))

    @staticmethod
    def chain(parts: list[Segments]) -> tuple[Segments, Int64s]:
        """Many streams as one, and int64 (n,) where in it each begins."""
        sizes = np.fromiter((part.size for part in parts), np.int64, len(parts))
        ends = np.cumsum(sizes)
        starts = [part.starts[:-1] + base for part, base in zip(parts, (ends - sizes).tolist(), strict=True)]
        end = [int(ends[-1])] if len(parts) else [0]
        positions = [np.empty(0, np.int64), *(part.positions for part in parts)]
        return Segments(np.concatenate([*starts, end]).astype(np.int64), np.concatenate(positions)), ends - sizes

    def pieces(self, offsets: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Ranges (inside, not empty) cut where segments end: int64 (k,) range, length, position or `ZERO` or `BAD`."""
        pieces = cut(offsets, lengths, self.starts)
        position = self.positions[pieces.cells]
        inside = pieces.offsets - self.starts[pieces.cells]
        return pieces.rows, pieces.lengths, np.where(position >= 0, position + inside, position)

    def device(self, inner: BlockDevice, name: str, lost: str = "") -> BlockDevice:
        """The stream as a device: holes and what was never written are zeros, what is lost is an error where read.

        `lost` says why it is.
        """
        lengths = np.diff(self.starts)
        if not lost:
            return MappedDevice(inner, self.starts[:-1], lengths, self.positions, self.size, name)

        def why(run: int) -> PseudomountError:
            message = f"{name}: {int(lengths[run])} bytes from {int(self.starts[run])} on are lost, {lost}"
            return CorruptionError(message, device=inner.name, structure="data runs")

        bad = self.positions == BAD
        where = np.where(bad, ZERO, self.positions)
        return MappedDevice(inner, self.starts[:-1], lengths, where, self.size, name, damaged=bad, why=why)

    def counter(self, which: Bools) -> Callable[[Int64s], Int64s]:
        """A function that says how many bytes before each of some places belong to the segments `which`."""
        have = np.zeros(len(self.starts), np.int64)
        np.cumsum(np.where(which, np.diff(self.starts), 0), out=have[1:])
        if not len(which):
            return np.zeros_like

        def count(at: Int64s) -> Int64s:
            segment = np.clip(np.searchsorted(self.starts, at, side="right") - 1, 0, len(which) - 1)
            within = np.minimum(at, self.size) - self.starts[segment]
            return have[segment] + np.where(which[segment], within, 0)

        return count


def read_segments(
    device: BlockDevice, segments: Segments, offsets: Int64s, lengths: Int64s, what: str
) -> tuple[UInt8s, dict[int, PseudomountError]]:
    """Ranges of a stream (inside, not empty), one after the other, and the errors of those that failed.

    Args:
        what: names the stream in messages.
    """
    which, counts, position = segments.pieces(offsets, lengths)
    errors: dict[int, PseudomountError] = {}
    there = position >= 0
    beyond = there & (position + counts > device.size)
    wanted = np.flatnonzero(there & ~beyond)
    for piece in np.flatnonzero(position == BAD).tolist():
        message = f"{what}: {int(counts[piece])} bytes are lost, nothing says where they lie"
        errors.setdefault(int(which[piece]), CorruptionError(message, device=device.name, structure="data runs"))
    for piece in np.flatnonzero(beyond).tolist():
        at = int(position[piece])
        message = f"{what}: its data at {at} lies beyond the end of the device"
        errors.setdefault(int(which[piece]), TruncatedError(message, device=device.name, offset=at))
    batch = device.read_many(position[wanted], counts[wanted])
    for i, error in batch.errors.items():
        errors.setdefault(int(which[wanted[i]]), error)
    if len(wanted) == len(which):
        return batch.buffer, errors
    mask = np.zeros(len(which), np.bool_)
    mask[wanted] = True
    out = np.zeros(int(counts.sum()), np.uint8)
    out[np.repeat(mask, counts)] = batch.buffer
    return out, errors


def stretches(group: Int64s) -> Iterator[tuple[int, int]]:
    """(first, end) of each stretch of equal numbers."""
    if len(group):
        firsts = np.flatnonzero(np.concatenate(([True], group[1:] != group[:-1]))).tolist()
        yield from zip(firsts, [*firsts[1:], len(group)], strict=True)


class BytesDevice(BlockDevice):
    """Content that the metadata holds."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._data = data

    @property
    def size(self) -> int:
        return len(self._data)

    def _read(self, offset: int, length: int) -> bytes:
        return self._data[offset : offset + length]
