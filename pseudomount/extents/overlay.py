"""A newer extent index laid over an older one: incremental backups, backing files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import PseudomountError
from pseudomount.extents._pieces import assemble, check_ranges, holes
from pseudomount.extents.contract import Codec, ExtentIndex, Kind, Resolved

__all__ = ["OverlayIndex"]

Int64s = NDArray[np.int64]


class OverlayIndex(ExtentIndex):
    """`newer` over `older`: where the newer one has a hole the older one shows, its zeros and data hide it.

    The disk is as large as the newer one: a shorter older one has a hole behind its end, a longer one is cut.
    Nothing is merged beforehand, and the older one is asked only for what the newer one leaves open. Chains may be
    long: overlays of overlays become one list of layers.

    Objects are numbered `number * layers + layer`, so that neither index must know how many objects it has.
    """

    def __init__(self, newer: ExtentIndex, older: ExtentIndex) -> None:
        # Each layer with where it ends: nothing of it shows through a shorter one above it.
        layers = list(newer._layers) if isinstance(newer, OverlayIndex) else [(newer, newer.size)]
        below = older._layers if isinstance(older, OverlayIndex) else [(older, older.size)]
        layers += [(index, min(end, newer.size)) for index, end in below]
        self._layers: list[tuple[ExtentIndex, int]] = layers
        self._size = newer.size
        codecs: dict[Codec, int] = {}
        self._codec_numbers = [
            np.array([codecs.setdefault(codec, len(codecs)) for codec in index.codecs], np.int64) for index, _ in layers
        ]
        self._codecs = tuple(codecs)

    @property
    def size(self) -> int:
        """Bytes of the disk: the newer one's."""
        return self._size

    @property
    def codecs(self) -> Sequence[Codec]:
        """The codecs of all layers, each once."""
        return self._codecs

    def object_names(self, numbers: NDArray[np.int64]) -> list[str]:
        """Names of objects, each by its own layer."""
        names = [""] * len(numbers)
        layer = numbers % len(self._layers)
        for n in np.unique(layer).tolist():
            rows = np.flatnonzero(layer == n)
            for row, name in zip(
                rows.tolist(), self._layers[n][0].object_names(numbers[rows] // len(self._layers)), strict=True
            ):
                names[row] = name
        return names

    def resolve(self, offsets: ArrayLike, lengths: ArrayLike) -> Resolved:
        """The pieces of many ranges; see `ExtentIndex.resolve`."""
        begin, length = check_ranges(offsets, lengths, self._size)
        ranges = np.arange(len(begin), dtype=np.int64)
        parts: list[Resolved] = []
        errors: dict[int, PseudomountError] = {}
        for layer, (index, end) in enumerate(self._layers):
            if not len(begin):
                break
            inside = np.clip(end - begin, 0, length)
            shown, beyond = inside > 0, length > inside
            owners = ranges[shown]
            found = index.resolve(begin[shown], inside[shown])
            errors.update((int(owners[i]), error) for i, error in found.errors.items())
            owner = owners[found.ranges]
            hole = found.kind == Kind.HOLE
            parts.append(self._numbered(found.take(np.flatnonzero(~hole)), owner[~hole], layer))
            # Left for the layers below: this one's holes, and what lies behind its end.
            ranges = np.concatenate((owner[hole], ranges[beyond]))
            begin, length = (
                np.concatenate((found.offset[hole], (begin + inside)[beyond])),
                np.concatenate((found.length[hole], (length - inside)[beyond])),
            )
        parts.append(holes(ranges, begin, length))
        return assemble(parts, errors)

    def around(self, offset: int) -> Resolved:
        """The piece that holds a byte; see `ExtentIndex.around`."""
        check_ranges([offset], [1], self._size)
        first, last = 0, self._size
        for layer, (index, end) in enumerate(self._layers):
            if offset >= end:
                first = max(first, end)
                continue
            piece = index.around(offset)
            if piece.errors:
                return piece
            begin, stop = int(piece.offset[0]), int(piece.offset[0] + piece.length[0])
            hole = bool(piece.kind[0] == Kind.HOLE)
            if stop < end or not hole:
                last = min(last, stop, end)
            first = max(first, begin)
            if not hole:
                # The piece as far as no layer above covers it: cut anew by the layer itself.
                cut = index.resolve([first], [last - first])
                return self._numbered(cut, cut.ranges, layer)
        none = np.zeros(1, np.int64)
        return holes(none, np.array([first], np.int64), np.array([last - first], np.int64))

    def reach(self, offset: int, pieces: int) -> int:
        """As far as all layers do; see `ExtentIndex.reach`."""
        share = max(1, pieces // len(self._layers))
        return min((index.reach(offset, share) for index, end in self._layers if offset < end), default=0)

    def close(self) -> None:
        """Closes all layers."""
        for index, _ in self._layers:
            index.close()

    def _numbered(self, pieces: Resolved, ranges: Int64s, layer: int) -> Resolved:
        """Pieces of a layer in the overlay's own numbers."""
        data = pieces.kind == Kind.DATA
        return replace(
            pieces,
            ranges=ranges,
            object=np.where(data, pieces.object * len(self._layers) + layer, 0),
            codec=np.where(data, self._codec_numbers[layer][np.where(data, pieces.codec, 0)], 0),
        )
