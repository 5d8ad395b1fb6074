"""What indexes refuse, and what they share."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pseudomount.errors import CorruptionError, OutOfRangeError, StorageError, UnsupportedError, UsageError
from pseudomount.extents import RAW, Codec, ColumnIndex, ExtentIndex, Kind, OverlayIndex, PagedIndex, walk
from pseudomount.extents.arrow import METADATA_KEY, from_arrow, schema, to_arrow, to_batches


def index(size: int = 100, **columns: Any) -> ColumnIndex:
    values: dict[str, Any] = {
        "offset": np.array([0, 40]),
        "length": np.array([40, 20]),
        "object_offset": np.array([7, 0]),
        "objects": ["a", "b"],
        "number": np.array([0, 1]),
    }
    values.update(columns)
    return ColumnIndex(size, **values)


def ints(*values: int) -> np.typing.NDArray[np.int64]:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"offset": ints(40, 0)}, "before it"),
        ({"offset": ints(0, 39)}, "inside the one before"),
        ({"offset": ints(-1, 40)}, "reaches out"),
        ({"length": ints(40, 61)}, "reaches out"),
        ({"offset": ints(0, 2**63 - 5)}, "reaches out"),
        ({"length": ints(0, 20)}, "not longer than nothing"),
        ({"length": ints(40, -20)}, "not longer than nothing"),
        ({"number": ints(0, 2)}, "none of the 2 objects"),
        ({"number": ints(-1, 0)}, "none of the 2 objects"),
        ({"objects": []}, "none of the 0 objects"),
        ({"object_offset": ints(-1, 0)}, "beyond 2"),
        ({"object_offset": ints(0, 2**62)}, "beyond 2"),
        ({"kind": ints(0, 3)}, "no known kind"),
        ({"codec": ints(0, 1)}, "none of the 1 codecs"),
        ({"codec": ints(-1, 0)}, "none of the 1 codecs"),
        ({"stored_length": ints(40, 19)}, "not stored in as many bytes"),
        ({"stored_length": ints(-40, 20)}, "less than no"),
        ({"decoded_length": ints(40, 19)}, "longer than what is stored"),
        ({"skip": ints(-1, 0), "decoded_length": ints(99, 99)}, "longer than what is stored"),
        ({"skip": ints(8, 0), "decoded_length": ints(99, 99)}, "begins before its object"),
        ({"offset": np.array([0, 2**63], np.uint64)}, "2\\*\\*63"),
        ({"size": -1}, "a disk of"),
        ({"size": 2**63}, "a disk of"),
    ],
)
def test_columns_that_contradict_themselves(columns: dict[str, Any], why: str) -> None:
    with pytest.raises(CorruptionError, match=why):
        index(**columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"length": ints(40)},
        {"length": np.array([40.0, 20.0])},
        {"number": ints(0, 1, 0)},
        {"identity": np.zeros((2, 16), np.uint8)},
        {"codecs": ()},
        {"codecs": (Codec("zlib"),)},
        {"codecs": (RAW, RAW)},
    ],
)
def test_columns_that_do_not_fit(columns: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        index(**columns)


def test_where_it_is_no_data_storage_means_nothing() -> None:
    assert len(index(kind=ints(0, 1), number=ints(0, 99), object_offset=ints(0, -5), codec=ints(0, 44))) == 2


def test_the_last_extent_of_a_later_block_is_checked_too() -> None:
    n = (1 << 20) + 3
    offset = np.arange(n, dtype=np.int64) * 2
    for bad in (n - 1, 1 << 20):
        broken = offset.copy()
        broken[bad] -= 2
        with pytest.raises(CorruptionError, match=f"extent {bad},"):
            ColumnIndex(2 * n, broken, np.full(n, 2, np.uint8), objects=["a"])


def test_narrow_and_derived_columns_take_little_memory() -> None:
    n = 10_000
    offset = np.arange(n) * 4096
    made = ColumnIndex.from_arrays(
        n * 4096, offset, 4096, offset, objects=["a"], number=0, stored_length=np.full(n, 4096), skip=np.zeros(n, int)
    )
    assert made.nbytes == n * (8 + 2 + 4)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 101), (100, 1), (0, -1), (2**62, 2**62)])
def test_ranges_outside(offset: int, length: int) -> None:
    whole = index()
    paged = PagedIndex(100, 10, lambda p: ColumnIndex(10, ints(), ints(), objects=[]), objects=[])
    for made in (whole, OverlayIndex(whole, whole), paged):
        with pytest.raises(OutOfRangeError):
            made.resolve([0, offset], [1, length])
        with pytest.raises(OutOfRangeError):
            made.around(offset if offset < 0 else 100)


def test_single_and_concat() -> None:
    made = ColumnIndex.concat([("x.000", 10), ("x.001", 0), ("x.002", 5)])
    assert made.size == 15
    pieces = made.resolve([8], [5])
    assert pieces.offset.tolist() == [8, 10]
    assert pieces.length.tolist() == [2, 3]
    assert pieces.object_offset.tolist() == [8, 0]
    assert made.object_names(pieces.object) == ["x.000", "x.002"]
    assert ColumnIndex.single("a", 0).size == 0
    with pytest.raises(CorruptionError):
        ColumnIndex.concat([("a", 2**62), ("b", 2**62)])


def test_a_long_chain_of_overlays_is_flat_and_keeps_its_numbers() -> None:
    """Sixty backups, each of which changed one byte of the last."""
    chain: ExtentIndex = ColumnIndex.single("base", 100)
    for i in range(60):
        newer = ColumnIndex.from_arrays(100, [i], [1], objects=[f"change {i}"])
        chain = OverlayIndex(newer, chain)
    pieces = chain.resolve([0], [100])
    names = chain.object_names(pieces.object)
    assert names == [f"change {i}" for i in range(60)] + ["base"]
    assert pieces.offset.tolist() == list(range(61))
    assert pieces.object.max() < 61 * 2


def test_an_overlay_merges_codecs() -> None:
    deflate = Codec("deflate", (("window_bits", 12),))
    newer = ColumnIndex.from_arrays(30, [0], [10], objects=["n"], codec=1, stored_length=5, codecs=(RAW, Codec("zstd")))
    older = ColumnIndex.from_arrays(
        30, [10, 20], [10, 10], objects=["o"], codec=[1, 2], stored_length=5, codecs=(RAW, deflate, Codec("zstd"))
    )
    over = OverlayIndex(newer, older)
    assert over.codecs == (RAW, Codec("zstd"), deflate)
    assert [over.codecs[i].name for i in over.resolve([0], [30]).codec] == ["zstd", "deflate", "zstd"]


class Pages:
    """Loads pages of ten bytes, of which some are broken."""

    def __init__(self, broken: set[int]) -> None:
        self.broken = broken
        self.loaded: list[int] = []

    def __call__(self, number: int) -> ExtentIndex:
        self.loaded.append(number)
        if number in self.broken:
            raise StorageError(f"page {number} is gone")
        return ColumnIndex.from_arrays(10, [0], [10], [number * 10], objects=["a"])


def test_a_broken_page_costs_only_the_ranges_that_touch_it() -> None:
    load = Pages({2})
    paged = PagedIndex(100, 10, load, 3, objects=["a"])
    offsets, lengths = [0, 15, 30, 20, 55], [5, 10, 10, 1, 0]
    found = paged.resolve(offsets, lengths)
    assert sorted(found.errors) == [1, 3]
    assert all("page 2 is gone" in str(error) for error in found.errors.values())
    assert set(found.ranges.tolist()) == {0, 2}
    assert sorted(load.loaded) == [0, 1, 2, 3]
    load.broken.clear()
    again = paged.resolve(offsets, lengths)
    assert not again.errors
    assert load.loaded.count(2) == 2  # a failure is not kept
    over = OverlayIndex(ColumnIndex(100, ints(), ints(), objects=[]), PagedIndex(100, 10, Pages({2}), objects=["a"]))
    assert sorted(over.resolve(offsets, lengths).errors) == [1, 3]
    assert 0 in over.around(25).errors
    with pytest.raises(StorageError):
        to_arrow(over)


def test_few_pages_are_kept_and_only_the_needed_ones_loaded() -> None:
    load = Pages(set())
    paged = PagedIndex(10**6, 10, load, 2, objects=["a"])
    for at in (0, 10, 5, 20, 3, 12):
        paged.resolve([at], [1])
    assert load.loaded == [0, 1, 2, 1]
    paged.close()
    paged.resolve([0], [1])
    assert load.loaded[-1] == 0


def test_many_threads_load_a_page_once() -> None:
    gate = threading.Barrier(8)
    loading = threading.Event()
    loaded = []

    def load(number: int) -> ExtentIndex:
        loaded.append(number)
        loading.wait(0.2)
        return ColumnIndex.from_arrays(10, [0], [10], objects=["a"])

    paged = PagedIndex(100, 10, load, objects=["a"])
    sizes = []

    def work() -> None:
        gate.wait()
        sizes.append(int(paged.resolve([0], [10]).length.sum()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [0]
    assert sizes == [10] * 8


def test_pages_that_break_their_promise() -> None:
    short = PagedIndex(100, 10, lambda p: ColumnIndex(9, ints(), ints(), objects=[]), objects=[])
    assert isinstance(short.resolve([0], [1]).errors[0], CorruptionError)
    codecs = PagedIndex(
        100, 10, lambda p: ColumnIndex(10, ints(), ints(), objects=[], codecs=(RAW, Codec("zlib"))), objects=[]
    )
    assert isinstance(codecs.resolve([0], [1]).errors[0], UsageError)


def test_the_walk_over_a_disk_of_claimed_exabytes_is_short() -> None:
    sparse = ColumnIndex.from_arrays(2**63 - 1, [2**40, 2**62], [4096, 4096], objects=["a"])
    steps = list(walk(sparse, 0, sparse.size))
    assert len(steps) < 3000
    assert sum(length for _, length, _ in steps) == sparse.size
    assert sum(int((pieces.kind == Kind.DATA).sum()) for _, _, pieces in steps) == 2


def test_arrow_keeps_codecs_identities_and_names() -> None:
    codec = Codec("secret", (("iv", b"\0\xff"), ("level", 3), ("mode", "gcm")))
    identity = np.zeros((3, 32), np.uint8)
    identity[0] = 7
    made = ColumnIndex.from_arrays(
        1000,
        [0, 100, 500],
        [100, 50, 10],
        [5, 0, 0],
        objects=["a", "b"],
        number=[1, 0, 0],
        kind=[0, 0, 1],
        codec=[1, 0, 0],
        stored_length=[33, 50, 10],
        decoded_length=[300, 50, 10],
        skip=[200, 0, 0],
        identity=identity,
        codecs=(RAW, codec),
    )
    table = to_arrow(made)
    assert table.column("object").to_pylist() == ["b", "a", None]
    assert table.column("identity").to_pylist() == [b"\7" * 32, None, None]
    assert table.column("offset").to_pylist() == [0, 100, 500]
    back = from_arrow(table)
    one, two = made.resolve([0], [1000]), back.resolve([0], [1000])
    for name in ("offset", "length", "kind", "object_offset", "stored_length", "codec", "skip", "decoded_length"):
        assert np.array_equal(getattr(one, name), getattr(two, name)), name
    assert np.array_equal(one.identity, two.identity)  # type: ignore[arg-type]
    assert back.codecs == made.codecs
    assert back.object_names(two.object[two.kind == 0]) == ["b", "a"]
    # Through Parquet's eyes: plain strings instead of dictionaries, and sliced.
    plain = table.set_column(3, "object", table.column("object").cast(pa.string()))
    sliced = from_arrow(
        pa.Table.from_batches([b.slice(1) for b in plain.to_batches()]).replace_schema_metadata(table.schema.metadata)
    )
    assert sliced.resolve([100], [1]).object_offset.tolist() == [0]
    assert len(sliced) == 2
    assert len(list(to_batches(made, 1))) == 3


def test_no_index_in_arrow() -> None:
    good = to_arrow(index())
    meta = good.schema.metadata[METADATA_KEY]
    bad: list[tuple[pa.Table, type[Exception]]] = [
        (good.replace_schema_metadata(None), CorruptionError),
        (good.replace_schema_metadata({METADATA_KEY: b"{"}), CorruptionError),
        (good.replace_schema_metadata({METADATA_KEY: b"[]"}), CorruptionError),
        (good.replace_schema_metadata({METADATA_KEY: meta.replace(b"100", b'"x"')}), CorruptionError),
        (good.replace_schema_metadata({METADATA_KEY: meta.replace(b"raw", b"zlib")}), CorruptionError),
        (
            good.replace_schema_metadata({METADATA_KEY: meta.replace(b'"version": 1', b'"version": 2')}),
            UnsupportedError,
        ),
        (good.replace_schema_metadata({METADATA_KEY: meta.replace(b"100", b"50")}), CorruptionError),
        (good.drop_columns(["skip"]), CorruptionError),
        (good.set_column(0, "offset", pa.array(["x", "y"])), CorruptionError),
        (good.set_column(0, "offset", pa.array([None, 40], pa.int64())), CorruptionError),
        (good.set_column(3, "object", pa.array([None, "b"])), CorruptionError),
    ]
    for table, error in bad:
        with pytest.raises(error):
            from_arrow(table)
    with pytest.raises(CorruptionError):
        from_arrow([])
    assert from_arrow(pa.Table.from_batches([], schema=schema(77))).size == 77
