"""LZNT1, the compression of NTFS's own compressed files. Source: [MS-XCA] 2.5 LZNT1 Algorithm Details.

A buffer is a row of chunks that hold 4,096 bytes each when decoded. In a chunk each token is a literal or a reference
back within the same chunk; the more of it is decoded, the more bits a reference has for the distance.
"""

from __future__ import annotations

from typing import Final

from pseudomount.errors import CorruptionError

__all__ = ["decompress"]

CHUNK: Final = 4096


def _shifts() -> bytes:
    """For each length decoded so far, how many bits of a reference are its length."""
    table = bytearray(CHUNK + 1)
    bits = 12
    for done in range(CHUNK + 1):
        while done > 1 << (16 - bits):
            bits -= 1
        table[done] = bits
    return bytes(table)


_SHIFT: Final = _shifts()


def decompress(data: bytes, size: int) -> bytes:
    """`size` bytes; what the chunks do not fill is zeros.

    The work is bounded by `size`: each chunk ends at 4,096 bytes, and no chunk is begun beyond `size`.

    Raises:
        CorruptionError: the tokens make no sense.
    """
    out = bytearray()
    at, end = 0, len(data)
    while at + 2 <= end and len(out) < size:
        header = data[at] | data[at + 1] << 8
        if not header:
            break
        at += 2
        stop = at + (header & 0x0FFF) + 1
        if stop > end:
            raise CorruptionError("a compressed chunk reaches past its unit", structure="LZNT1")
        chunk = _chunk(data, at, stop) if header & 0x8000 else data[at:stop]
        at = stop
        out += chunk
        short = CHUNK - len(chunk)
        if short > 0:
            out += bytes(short)
    if len(out) < size:
        out += bytes(size - len(out))
    return bytes(out[:size])


def _chunk(data: bytes, at: int, stop: int) -> bytes:
    """One compressed chunk."""
    out = bytearray()
    while at < stop:
        flags = data[at]
        at += 1
        if not flags:
            out += data[at : min(at + 8, stop)]
            at += 8
        else:
            for bit in range(8):
                if at >= stop:
                    break
                if not flags >> bit & 1:
                    out.append(data[at])
                    at += 1
                    continue
                if at + 2 > stop:
                    raise CorruptionError("a compressed chunk ends inside a reference", structure="LZNT1")
                token = data[at] | data[at + 1] << 8
                at += 2
                done = len(out)
                if not 0 < done < CHUNK:
                    raise CorruptionError("a reference where a compressed chunk has no bytes for it", structure="LZNT1")
                shift = _SHIFT[done]
                distance, length = (token >> shift) + 1, (token & (1 << shift) - 1) + 3
                start = done - distance
                if start < 0:
                    raise CorruptionError("a reference to before its compressed chunk", structure="LZNT1")
                if distance >= length:
                    out += out[start : start + length]
                else:
                    out += (out[start:] * (length // distance + 1))[:length]
        if len(out) > CHUNK:
            raise CorruptionError("a compressed chunk holds more than 4,096 bytes", structure="LZNT1")
    return bytes(out)
