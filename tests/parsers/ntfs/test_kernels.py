"""The kernels on bytes made here: names, runs, fix-ups, LZNT1."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudomount.errors import CorruptionError
from pseudomount_ntfs._boot import Geometry, parse_boot
from pseudomount_ntfs._eas import parse_eas
from pseudomount_ntfs._lznt1 import decompress
from pseudomount_ntfs._names import default_upcase, fold_hashes, units_from_wtf8, wtf8
from pseudomount_ntfs._records import apply_fixups, list_references
from pseudomount_ntfs._reparse import reparse_target
from pseudomount_ntfs._runs import BAD, ZERO, Segments, decode_pairs

# [MS-XCA] 3.3 LZNT1 examples.
_SPEC = bytes.fromhex(
    "38b08846232000204720410010a24701a045204400084501507900c0452005241388"
    "05b4024a44ef0358028c091601484500be009e000401189000"
)
_SPEC_TEXT = (
    b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# "
    b"F# G A A G F# E D D E F# E D D\0"
)


def test_lznt1_of_the_specification() -> None:
    assert decompress(_SPEC, len(_SPEC_TEXT)) == _SPEC_TEXT


def test_lznt1_fills_with_zeros() -> None:
    assert decompress(b"", 10) == bytes(10)
    assert decompress(_SPEC, 5000) == _SPEC_TEXT + bytes(5000 - len(_SPEC_TEXT))
    # A chunk that is stored plain: its header has bit 15 clear.
    plain = random.Random(1).randbytes(4096)
    assert decompress(b"\xff\x3f" + plain + _SPEC, 8192) == plain + _SPEC_TEXT + bytes(4096 - len(_SPEC_TEXT))


@pytest.mark.parametrize(
    "data",
    [
        b"\x05\xb0\x01\x00\x00",  # its length is more than there is
        b"\x02\xb0\x01\x00\x00",  # a reference where nothing is decoded yet
        b"\x03\xb0\x02a\xff\xff",  # a reference to before the beginning
        b"\x01\xb0\x01a",  # half a reference
        b"\x05\xb0\x0ea\xfd\x0f\xfd\x0f" + bytes(2),
    ],
)
def test_lznt1_that_makes_no_sense(data: bytes) -> None:
    with pytest.raises(CorruptionError):
        decompress(data, 65536)


@given(st.binary(max_size=400), st.integers(0, 20_000))
def test_lznt1_is_bounded(data: bytes, size: int) -> None:
    with contextlib.suppress(CorruptionError):
        assert len(decompress(data, size)) == size


def _packed(
    names: list[str],
) -> tuple[np.ndarray[tuple[int], np.dtype[np.uint16]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    raw = [name.encode("utf-16-le", "surrogatepass") for name in names]
    offsets = np.cumsum([0, *(len(part) // 2 for part in raw)]).astype(np.int64)
    return np.frombuffer(b"".join(raw), "<u2").astype(np.uint16), offsets


@given(st.lists(st.text(st.characters(), max_size=12), max_size=12))
def test_names_are_encoded_as_python_does_it(names: list[str]) -> None:
    units, offsets = _packed(names)
    # A lone surrogate beside its partner is a pair in UTF-16: Python's own round trip says what the name is.
    raw = units.astype("<u2").tobytes()
    expected = [
        raw[2 * a : 2 * b].decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")
        for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    ]
    assert wtf8(units, offsets).tolist() == expected
    for name, a, b in zip(expected, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        back = units_from_wtf8(name)
        assert back is not None
        assert back.tolist() == units[a:b].tolist()


def test_surrogates_of_two_names_are_no_pair() -> None:
    units, offsets = np.array([0xD83D, 0xDE00, 0xD83D, 0xDE00], np.uint16), np.array([0, 1, 2, 4], np.int64)
    assert wtf8(units, offsets).tolist() == [b"\xed\xa0\xbd", b"\xed\xb8\x80", "😀".encode()]


def test_hashes_fold_case() -> None:
    units, offsets = _packed(["abc", "ABC", "abd", "", "ab", "cba"])
    hashes = fold_hashes(units, offsets, default_upcase())
    assert hashes[0] == hashes[1]
    assert len(set(hashes.tolist())) == 5


def _pairs(runs: list[tuple[int, int | None]]) -> bytes:
    """Runs of (clusters, cluster or None for a hole), encoded."""
    out, last = bytearray(), 0
    for count, cluster in runs:
        length = count.to_bytes((count.bit_length() + 8) // 8, "little", signed=True)
        delta = b""
        if cluster is not None:
            step = cluster - last
            delta = step.to_bytes((step.bit_length() + 8) // 8, "little", signed=True)
            last = cluster
        out += bytes([len(delta) << 4 | len(length)]) + length + delta
    return bytes(out) + b"\0"


_RUNS = st.lists(st.tuples(st.integers(1, 1 << 20), st.one_of(st.none(), st.integers(0, 1 << 33))), max_size=9)


@given(st.lists(_RUNS, max_size=6))
def test_runs_are_decoded_for_many_attributes_at_once(lists: list[list[tuple[int, int | None]]]) -> None:
    encoded = [_pairs(runs) for runs in lists]
    flat = np.frombuffer(b"".join(encoded) + bytes(8), np.uint8)
    ends = np.cumsum([len(part) for part in encoded]).astype(np.int64)
    starts = np.concatenate(([0], ends[:-1])).astype(np.int64)[: len(lists)]
    lowest = np.arange(len(lists), dtype=np.int64) * 5
    which, vcn, count, lcn, sound = decode_pairs(flat, starts, ends, lowest, 1 << 40)
    expected = []
    for i, runs in enumerate(lists):
        at = 5 * i
        for length, cluster in runs:
            expected.append((i, at, length, ZERO if cluster is None else cluster))
            at += length
    assert list(zip(which.tolist(), vcn.tolist(), count.tolist(), lcn.tolist(), strict=True)) == expected
    assert sound.all()


@pytest.mark.parametrize(
    "pairs",
    [
        b"\x11\x05",  # cut off
        b"\x11\x05\x03",  # no end mark
        b"\x10\x05\x03\0",  # a run without a length
        b"\x11\x00\x03\0",  # an empty one
        b"\x11\xff\x03\0",  # a negative one
        b"\x11\x05\xfc\0",  # before the volume
        b"\x11\x05\x7f\0",  # beyond it
        b"\x19\1\0\0\0\0\0\0\0\0\3\0",  # a length of nine bytes
        b"\x88\xff\xff\xff\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x7f\0",
    ],
)
def test_runs_that_make_no_sense_are_left_out(pairs: bytes) -> None:
    good = b"\x11\x02\x03"
    flat = np.frombuffer(good + pairs, np.uint8)
    zero = np.zeros(1, np.int64)
    which, vcn, count, lcn, sound = decode_pairs(flat, zero, zero + len(flat), zero, 100)
    assert sound.tolist() == [False]
    assert (which[0], vcn[0], count[0], lcn[0]) == (0, 0, 2, 3)
    assert len(which) == (2 if pairs == b"\x11\x05\x03" else 1)


@given(st.binary(max_size=200))
def test_any_bytes_are_runs_or_not(data: bytes) -> None:
    flat = np.frombuffer(data + bytes(1), np.uint8)
    starts = np.arange(0, len(data), 7, dtype=np.int64)
    which, vcn, count, lcn, _ = decode_pairs(flat, starts, np.full(len(starts), len(data)), starts, 1000)
    assert (count > 0).all()
    assert (vcn >= 0).all()
    assert ((lcn == ZERO) | ((lcn >= 0) & (lcn + count <= 1000))).all()
    assert (np.diff(which) >= 0).all()


def test_what_runs_leave_out_is_lost_and_not_zeros() -> None:
    at = np.array([0, 30], np.int64)
    segments = Segments.of(at, np.array([10, 10], np.int64), np.array([100, ZERO], np.int64), 50)
    assert segments.starts.tolist() == [0, 10, 30, 40, 50]
    assert segments.positions.tolist() == [100, BAD, ZERO, BAD]
    assert segments.cut(35).positions.tolist() == [100, BAD, ZERO, ZERO]
    which, lengths, positions = segments.pieces(np.array([5, 32], np.int64), np.array([10, 3], np.int64))
    assert (which.tolist(), lengths.tolist(), positions.tolist()) == ([0, 0, 1], [5, 5, 3], [105, BAD, ZERO])


def test_fixups_are_applied_or_refused_row_by_row() -> None:
    matrix = np.zeros((4, 1024), np.uint8)
    for row in matrix:
        row[4:8] = (48, 0, 3, 0)
        row[48:54] = (7, 0, 1, 2, 3, 4)
        row[510:512] = row[1022:1024] = (7, 0)
    matrix[1, 1022] = 8  # torn
    matrix[2, 6] = 4  # a wrong count
    matrix[3, 4:6] = (255, 255)  # an array that lies outside
    before = matrix.copy()
    assert apply_fixups(matrix).tolist() == [True, False, False, False]
    assert matrix[0, 510:512].tolist() == [1, 2]
    assert matrix[0, 1022:1024].tolist() == [3, 4]
    assert (matrix[1:] == before[1:]).all()


def test_attribute_lists_in_lockstep() -> None:
    entry = bytearray(32)
    entry[4:6] = (32).to_bytes(2, "little")
    parts = []
    for reference in (5, 6, 7):
        entry[16:24] = reference.to_bytes(8, "little")
        parts.append(bytes(entry))
    broken = bytearray(parts[0])
    broken[4] = 200
    flat = np.frombuffer(b"".join([*parts, bytes(broken)]), np.uint8)
    starts, ends = np.array([0, 96, 64], np.int64), np.array([64, 128, 96], np.int64)
    which, references, sound = list_references(flat, starts, ends)
    found = sorted(zip(which.tolist(), references.tolist(), strict=True))
    assert found == [(0, 5), (0, 6), (2, 7)]
    assert sound.tolist() == [True, False, True]


def _boot(sector: int, per: int, record: int) -> bytes:
    boot = bytearray(512)
    boot[3:11] = b"NTFS    "
    boot[11:13] = sector.to_bytes(2, "little")
    boot[13] = per
    boot[40:48] = (1 << 32).to_bytes(8, "little")
    boot[48:56] = (4).to_bytes(8, "little")
    boot[64] = record & 0xFF
    return bytes(boot)


@pytest.mark.parametrize(
    ("sector", "per", "record", "expected"),
    [
        (512, 1, 2, (512, 1024)),
        (512, 8, -10, (4096, 1024)),
        (512, 128, -10, (65536, 1024)),
        (512, 0xF8, -10, (131072, 1024)),
        (512, 0xF4, -10, (2 << 20, 1024)),
        (4096, 1, 1, (4096, 4096)),
        (4096, 1, -12, (4096, 4096)),
        (1024, 0xF5, -10, (2 << 20, 1024)),
    ],
)
def test_geometries(sector: int, per: int, record: int, expected: tuple[int, int]) -> None:
    geometry = parse_boot(_boot(sector, per, record))
    assert isinstance(geometry, Geometry)
    assert (geometry.cluster_size, geometry.record_size) == expected


@pytest.mark.parametrize(
    ("sector", "per", "record"),
    [
        (512, 0, -10),
        (512, 3, -10),
        (512, 0xF3, -10),
        (512, 0x90, -10),
        (513, 8, -10),
        (512, 8, -8),
        (512, 8, 0),
        (512, 8, 127),
    ],
)
def test_geometries_that_make_no_sense(sector: int, per: int, record: int) -> None:
    assert isinstance(parse_boot(_boot(sector, per, record)), str)


@given(st.binary(max_size=120))
def test_small_decoders_only_raise_their_own_error(data: bytes) -> None:
    for decode in (parse_eas, reparse_target):
        with contextlib.suppress(CorruptionError):
            decode(data)


@given(st.sampled_from([0xA000000C, 0xA0000003, 0xA000001D]), st.binary(max_size=80))
def test_links_of_any_bytes(tag: int, body: bytes) -> None:
    with contextlib.suppress(CorruptionError):
        reparse_target(tag.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body).decode(
            "utf-8", "surrogatepass"
        )
