"""How stored bytes become disk bytes: a decoder for each codec.

A decoder takes the stored bytes, the length that they must decode to, and the codec's parameters. The stored bytes may
have anything behind their end: formats such as qcow2 know only an upper bound. It never produces more than it was asked
for, whatever the bytes claim, and raises `CorruptionError` where they do not decode to exactly that.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from pseudomount.errors import CorruptionError, UnsupportedError

if TYPE_CHECKING:
    from backports import zstd
elif sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["DECODERS", "Decoder", "Parameters", "decode_deflate", "decode_raw", "decode_zlib", "decode_zstd"]

Parameters: TypeAlias = Mapping[str, int | str | bytes]
Decoder: TypeAlias = Callable[[bytes, int, Parameters], bytes]

#: Magic number of a zstd frame, and of the sixteen kinds of skippable frames (RFC 8878, sections 3.1.1 and 3.1.2).
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = tuple(bytes([low]) + b"\x2a\x4d\x18" for low in range(0x50, 0x60))


def decode_raw(stored: bytes, decoded_length: int, parameters: Parameters) -> bytes:
    """Stored as it is."""
    if len(stored) < decoded_length:
        raise CorruptionError(f"{len(stored)} of {decoded_length} stored bytes", structure="extent")
    return stored[:decoded_length]


def decode_zlib(stored: bytes, decoded_length: int, parameters: Parameters) -> bytes:
    """A zlib stream (RFC 1950), its Adler-32 checked."""
    return _inflate(stored, decoded_length, zlib.MAX_WBITS, "zlib")


def decode_deflate(stored: bytes, decoded_length: int, parameters: Parameters) -> bytes:
    """A raw deflate stream (RFC 1951). Parameter `window_bits`, 8 to 15, default 15.

    A stream that gives all the bytes and then breaks off before its end mark is taken.
    """
    bits = parameters.get("window_bits", zlib.MAX_WBITS)
    if not isinstance(bits, int) or not 8 <= bits <= zlib.MAX_WBITS:
        raise UnsupportedError(f"a deflate stream with window_bits {bits!r}")
    return _inflate(stored, decoded_length, -bits, "deflate")


def _inflate(stored: bytes, decoded_length: int, bits: int, name: str) -> bytes:
    inflater = zlib.decompressobj(bits)
    try:
        data = inflater.decompress(stored, decoded_length)
        # Asking for a byte too many makes the stream come to its end, and its checksum, or show that it is longer.
        more = b"" if inflater.eof else inflater.decompress(inflater.unconsumed_tail, 1)
    except zlib.error as error:
        raise CorruptionError(f"{name} data is damaged: {error}", structure=f"{name} stream") from error
    _exactly(data, more, decoded_length, name)
    if not inflater.eof and bits > 0:
        raise CorruptionError("zlib data breaks off before its checksum", structure="zlib stream")
    return data


def decode_zstd(stored: bytes, decoded_length: int, parameters: Parameters) -> bytes:
    """Zstandard frames (RFC 8878), one after the other until the length is reached, checksums checked."""
    data, rest = b"", stored
    while True:
        if rest[:4] != _ZSTD_FRAME and rest[:4] not in _ZSTD_SKIPPABLE:
            if data or rest is not stored:
                break  # what lies behind the last frame
            raise CorruptionError("zstd data has no frame", structure="zstd frame")
        frame = zstd.ZstdDecompressor()
        try:
            # A limit of 0 would mean none; a byte too many is seen below.
            data += frame.decompress(rest, max(decoded_length - len(data), 1))
            more = b"" if frame.eof or frame.needs_input else frame.decompress(b"", 1)
        except zstd.ZstdError as error:
            raise CorruptionError(f"zstd data is damaged: {error}", structure="zstd frame") from error
        _exactly(data, more, decoded_length, "zstd", last=False)
        if not frame.eof:
            raise CorruptionError("zstd data breaks off within a frame", structure="zstd frame")
        if len(data) >= decoded_length:
            break
        rest = frame.unused_data
    _exactly(data, b"", decoded_length, "zstd")
    return data


def _exactly(data: bytes, more: bytes, decoded_length: int, name: str, *, last: bool = True) -> None:
    if more or len(data) > decoded_length:
        raise CorruptionError(f"{name} data holds more than its {decoded_length} bytes", structure=f"{name} stream")
    if last and len(data) < decoded_length:
        raise CorruptionError(f"{name} data holds {len(data)} of {decoded_length} bytes", structure=f"{name} stream")


#: The codecs that every pseudo-disk knows.
DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {"raw": decode_raw, "zlib": decode_zlib, "deflate": decode_deflate, "zstd": decode_zstd}
)
