"""Extent indexes against plain bytes: whatever the extents, resolving, fetching and pasting gives the disk."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.extents import RAW, Codec, ColumnIndex, ExtentIndex, Kind, OverlayIndex, PagedIndex, Resolved
from pseudomount.extents.arrow import from_arrow, to_arrow, to_batches

ZLIB = Codec("zlib")
OBJECTS = ["a", "b/c", "ü"]


@dataclass
class Model:
    """A disk, what it looks like, and where it shows: built a byte at a time, with no index."""

    index: ExtentIndex
    content: bytearray
    holes: bytearray  # 1 where the byte is a hole
    store: dict[str, bytes]


@st.composite
def models(draw: st.DrawFn, size: int | None = None, prefix: str = "") -> Model:
    disk = draw(st.integers(0, 200)) if size is None else size
    cuts = sorted(draw(st.sets(st.integers(0, disk), max_size=12))) if disk else []
    content, hole = bytearray(disk), bytearray(b"\1" * disk)
    objects = {name: bytearray(draw(st.binary(max_size=3))) for name in OBJECTS}
    rows = []
    for start, stop in pairwise(cuts):
        what = draw(st.sampled_from(["gap", "hole", "zero", "raw", "zlib"]))
        n = stop - start
        if what == "gap":
            continue
        if what in ("hole", "zero"):
            rows.append((start, n, 0, 0, Kind.HOLE if what == "hole" else Kind.ZERO, 0, 0, 0, 0))
            if what == "zero":
                hole[start:stop] = bytes(n)
            continue
        number = draw(st.integers(0, len(OBJECTS) - 1))
        target = objects[OBJECTS[number]]
        front, back = draw(st.integers(0, 5)), draw(st.integers(0, 5))
        whole = draw(st.binary(min_size=front + n + back, max_size=front + n + back))
        stored = whole if what == "raw" else zlib.compress(whole)
        at = len(target) + (front if what == "raw" else 0)
        target += stored
        length = n if what == "raw" else len(stored) + draw(st.integers(0, 4))
        rows.append((start, n, number, at, Kind.DATA, length, int(what == "zlib"), front, front + n + back))
        content[start:stop] = whole[front : front + n]
        hole[start:stop] = bytes(n)
    table = np.array(draw(st.permutations(rows)) if rows else np.empty((0, 9)), np.int64)
    index = ColumnIndex.from_arrays(
        disk,
        table[:, 0],
        table[:, 1],
        table[:, 3],
        objects=[prefix + name for name in OBJECTS],
        number=table[:, 2],
        kind=table[:, 4],
        stored_length=table[:, 5],
        codec=table[:, 6],
        skip=table[:, 7],
        decoded_length=table[:, 8],
        codecs=(RAW, ZLIB),
    )
    return Model(index, content, hole, {prefix + name: bytes(data) for name, data in objects.items()})


def ranges_of(draw: Callable[[st.SearchStrategy[Any]], Any], size: int) -> list[tuple[int, int]]:
    starts = draw(st.lists(st.integers(0, size), max_size=6))
    return [(start, draw(st.integers(0, size - start))) for start in starts] + [(0, size)]


def paste(index: ExtentIndex, store: dict[str, bytes], pieces: Resolved, i: int) -> tuple[bytes, bytes]:
    """Bytes of range i and which of them are holes, taken from the store by what the index says."""
    content, holes = b"", b""
    rows = np.flatnonzero(pieces.ranges == i)
    data_rows = np.flatnonzero(pieces.kind == Kind.DATA)
    names = dict(zip(data_rows.tolist(), index.object_names(pieces.object[data_rows]), strict=True))
    for row in rows.tolist():
        n = int(pieces.length[row])
        if pieces.kind[row] != Kind.DATA:
            content += bytes(n)
            holes += bytes([int(pieces.kind[row] == Kind.HOLE)]) * n
            continue
        start, stored = int(pieces.object_offset[row]), int(pieces.stored_length[row])
        data = store[names[row]][start : start + stored]
        if index.codecs[int(pieces.codec[row])].name == "zlib":
            whole = zlib.decompressobj().decompress(data)
            assert len(whole) == pieces.decoded_length[row]
            skip = int(pieces.skip[row])
            data = whole[skip : skip + n]
        else:
            assert stored == n
        content += data
        holes += bytes(n)
    return content, holes


def check(model: Model, ranges: list[tuple[int, int]]) -> None:
    pieces = model.index.resolve([start for start, _ in ranges], [length for _, length in ranges])
    assert not pieces.errors
    assert (pieces.length > 0).all()
    assert (np.diff(pieces.ranges) >= 0).all()
    for i, (start, length) in enumerate(ranges):
        mine = pieces.take(np.flatnonzero(pieces.ranges == i))
        assert mine.length.sum() == length
        assert np.array_equal(mine.offset, start + np.cumsum(mine.length) - mine.length)
        content, holes = paste(model.index, model.store, pieces, i)
        assert content == model.content[start : start + length]
        assert holes == model.holes[start : start + length]
        assert np.array_equal(mine.object[mine.kind != Kind.DATA], np.zeros((mine.kind != Kind.DATA).sum()))


def check_around(model: Model) -> None:
    for offset in range(model.index.size):
        piece = model.index.around(offset)
        assert len(piece) == 1
        start, length = int(piece.offset[0]), int(piece.length[0])
        assert start <= offset < start + length
        content, holes = paste(model.index, model.store, piece, 0)
        assert content == model.content[start : start + length]
        assert holes == model.holes[start : start + length]


def laid_over(newer: Model, older: Model) -> Model:
    content, holes = bytearray(newer.content), bytearray(newer.holes)
    for i in range(len(content)):
        if holes[i] and i < len(older.content):
            content[i], holes[i] = older.content[i], older.holes[i]
    return Model(OverlayIndex(newer.index, older.index), content, holes, newer.store | older.store)


@given(st.data())
def test_columns(data: st.DataObject) -> None:
    model = data.draw(models())
    check(model, ranges_of(data.draw, model.index.size))
    check_around(model)


@given(st.data())
def test_a_newer_index_over_an_older_one(data: st.DataObject) -> None:
    """Of any sizes, and overlays of overlays on both sides."""
    layers = [data.draw(models(prefix=str(i))) for i in range(4)]
    shapes = [
        laid_over(layers[0], layers[1]),
        laid_over(layers[0], laid_over(layers[1], layers[2])),
        laid_over(laid_over(layers[0], layers[1]), layers[2]),
        laid_over(laid_over(layers[0], layers[1]), laid_over(layers[2], layers[3])),
    ]
    for model in shapes:
        check(model, ranges_of(data.draw, model.index.size))
        check_around(model)


class Plain(ExtentIndex):
    """An index with nothing but what the contract makes it have."""

    def __init__(self, inner: ExtentIndex) -> None:
        self.inner = inner

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def codecs(self) -> tuple[Codec, ...]:
        return tuple(self.inner.codecs)

    def object_names(self, numbers: np.typing.NDArray[np.int64]) -> list[str]:
        return self.inner.object_names(numbers)

    def resolve(self, offsets: np.typing.ArrayLike, lengths: np.typing.ArrayLike) -> Resolved:
        return self.inner.resolve(offsets, lengths)


@given(st.data())
def test_pages_equal_the_whole(data: st.DataObject) -> None:
    model = data.draw(models())
    page = data.draw(st.integers(1, 60))
    whole = model.index
    assert isinstance(whole, ColumnIndex)

    def load(number: int) -> ColumnIndex:
        start = number * page
        size = min(page, whole.size - start)
        cut = whole.resolve([start], [size])
        return ColumnIndex(
            size,
            cut.offset - start,
            cut.length,
            cut.object_offset,
            objects=whole.objects,
            number=cut.object,
            kind=cut.kind,
            stored_length=cut.stored_length,
            codec=cut.codec,
            skip=cut.skip,
            decoded_length=cut.decoded_length,
            codecs=whole.codecs,
        )

    paged = PagedIndex(
        whole.size,
        page,
        load,
        data.draw(st.integers(1, 4)),
        objects=whole.objects,
        codecs=whole.codecs,
    )
    model = Model(paged, model.content, model.holes, model.store)
    check(model, ranges_of(data.draw, whole.size))
    check_around(model)
    check_around(Model(Plain(whole), model.content, model.holes, model.store))


@settings(deadline=None)
@given(st.data())
def test_through_arrow_and_back(data: st.DataObject) -> None:
    older, newer = data.draw(models(prefix="0")), data.draw(models(prefix="1"))
    for model in (newer, laid_over(newer, older)):
        for back in (
            from_arrow(to_arrow(model.index)),
            from_arrow(to_arrow(Plain(model.index))),
            from_arrow(to_arrow(model.index).to_reader()),
        ):
            assert back.codecs == model.index.codecs
            check(Model(back, model.content, model.holes, model.store), ranges_of(data.draw, back.size))
        if len(to_arrow(model.index)):
            streamed = from_arrow(to_batches(model.index, 2))
            check(Model(streamed, model.content, model.holes, model.store), [(0, streamed.size)])
