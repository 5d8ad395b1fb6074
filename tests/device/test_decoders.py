"""Decoders, against streams that other programs and the standard library's own writers made."""

from __future__ import annotations

import contextlib
import gzip
import random
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudomount.device.decoders import DECODERS
from pseudomount.errors import CorruptionError, UnsupportedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXT = b"".join(f"line {i} of a disk\n".encode() for i in range(4000))


def raw_deflate(data: bytes, bits: int = 15) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -bits)
    return packer.compress(data) + packer.flush()


STREAMS: dict[str, bytes] = {
    "raw": TEXT,
    "zlib": zlib.compress(TEXT),
    "deflate": raw_deflate(TEXT),
    "zstd": zstd.compress(TEXT, options={zstd.CompressionParameter.checksum_flag: 1}),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 600, b"\x28\xb5\x2f"])
def test_what_lies_behind_the_stream_does_not_matter(name: str, garbage: bytes) -> None:
    assert DECODERS[name](STREAMS[name] + garbage, len(TEXT), {}) == TEXT


@pytest.mark.parametrize("name", STREAMS)
def test_too_few_bytes(name: str) -> None:
    with pytest.raises(CorruptionError):
        DECODERS[name](STREAMS[name], len(TEXT) + 1, {})
    with pytest.raises(CorruptionError):
        DECODERS[name](STREAMS[name][: len(STREAMS[name]) // 2], len(TEXT), {})
    with pytest.raises(CorruptionError):
        DECODERS[name](b"", len(TEXT), {})


@pytest.mark.parametrize("name", ["zlib", "deflate", "zstd"])
@pytest.mark.parametrize("short", [1, 10, len(TEXT) - 1])
def test_too_many_bytes(name: str, short: int) -> None:
    with pytest.raises(CorruptionError, match="more than"):
        DECODERS[name](STREAMS[name], len(TEXT) - short, {})


@pytest.mark.parametrize("name", ["zlib", "zstd"])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_a_stream_without_all_of_its_checksum(name: str, cut: int) -> None:
    with pytest.raises(CorruptionError):
        DECODERS[name](STREAMS[name][:-cut], len(TEXT), {})


@pytest.mark.parametrize("name", ["zlib", "zstd"])
def test_a_wrong_checksum(name: str) -> None:
    broken = STREAMS[name][:-1] + bytes([STREAMS[name][-1] ^ 1])
    with pytest.raises(CorruptionError, match="damaged"):
        DECODERS[name](broken, len(TEXT), {})


@pytest.mark.parametrize("name", ["zlib", "deflate", "zstd"])
def test_a_bomb_gives_no_more_than_was_asked(name: str) -> None:
    """64 MiB of zeros in some KiB: refused after the 4 KiB that were asked for."""
    import tracemalloc

    zeros = bytes(64 << 20)
    packers: dict[str, Callable[[bytes], bytes]] = {
        "zlib": zlib.compress,
        "deflate": raw_deflate,
        "zstd": zstd.compress,
    }
    bomb = packers[name](zeros)
    del zeros
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="more than"):
            DECODERS[name](bomb, 4096, {})
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=300), st.integers(0, 1000), st.sampled_from(["zlib", "deflate", "zstd"]))
def test_noise_is_an_error_or_of_the_right_length(noise: bytes, length: int, name: str) -> None:
    for stored in (noise, STREAMS[name][:40] + noise, b"\x28\xb5\x2f\xfd" + noise):
        with contextlib.suppress(CorruptionError):
            assert len(DECODERS[name](stored, length, {})) == length


def test_windows_of_deflate() -> None:
    """qcow2 writes a window of 12 bits."""
    data = random.Random(1).randbytes(3000) * 3
    assert DECODERS["deflate"](raw_deflate(data, 12), len(data), {"window_bits": 12}) == data
    assert DECODERS["deflate"](raw_deflate(data, 12), len(data), {}) == data
    for bits in (7, 16, "12", -12):
        with pytest.raises(UnsupportedError):
            DECODERS["deflate"](b"", 1, {"window_bits": bits})


def test_deflate_that_breaks_off_after_its_last_byte() -> None:
    """No end mark: all the bytes are there, and deflate has no checksum to miss."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    open_end = packer.compress(TEXT) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert DECODERS["deflate"](open_end, len(TEXT), {}) == TEXT


def test_frames_of_zstd() -> None:
    """RFC 8878: frames follow each other, skippable ones among them."""
    frames = zstd.compress(TEXT[:1000]) + b"\x5a\x2a\x4d\x18\3\0\0\0abc" + zstd.compress(TEXT[1000:])
    assert DECODERS["zstd"](frames, len(TEXT), {}) == TEXT
    with pytest.raises(CorruptionError):
        DECODERS["zstd"](frames, 1500, {})
    assert DECODERS["zstd"](frames, 1000, {}) == TEXT[:1000]  # what follows a whole extent is not its own
    with pytest.raises(CorruptionError):
        DECODERS["zstd"](b"\x5a\x2a\x4d\x18\3\0\0\0abc", 5, {})


@pytest.mark.tools("zstd", "gzip")
def test_streams_of_other_programs(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(TEXT)
    for level in ("-1", "-19"):
        packed = subprocess.run(["zstd", "-q", level, "-c", str(plain)], check=True, capture_output=True).stdout
        assert DECODERS["zstd"](packed + b"garbage", len(TEXT), {}) == TEXT
    packed = subprocess.run(["gzip", "-nc", str(plain)], check=True, capture_output=True).stdout
    assert gzip.decompress(packed) == TEXT
    # Ten bytes of header (RFC 1952, no optional fields), then raw deflate, then eight of trailer.
    assert DECODERS["deflate"](packed[10:], len(TEXT), {}) == TEXT
