"""CRC-32C and CRC-16, of many rows at once.

A CRC is linear over GF(2): the CRC of a row is the exclusive or of what each byte adds at its place, and a run of zero
bytes in front of it changes nothing. So rows are cut into pieces of 64 bytes, each byte is looked up by value and
place, and pieces are joined pairwise: a step for each doubling of the length instead of one for each byte.

As ext4 uses them ("Checksums" in the kernel's ext4 documentation): the register goes in as it came out, nothing is
inverted at either end, and a chain starts with all bits set.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["START", "crc16_rows", "crc32c", "crc32c_rows", "crc32c_words"]

UInt8s = NDArray[np.uint8]
UInt32s = NDArray[np.uint32]

#: What a chain of either CRC starts with.
START: Final = 0xFFFFFFFF

_PIECE: Final = 64
_MANY: Final = 1024  # rows for which a step for each column is worth it
_STEP_BYTES: Final = 1 << 20


def _byte_table(polynomial: int) -> UInt32s:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(polynomial), table >> 1).astype(np.uint32)
    return table


_CRC32C: Final = _byte_table(0x82F63B78)
_CRC16: Final = _byte_table(0xA001)


@cache
def _place_table() -> UInt32s:
    """uint32 (64 * 256,): what a byte adds to the CRC of the piece of which it is byte i."""
    places = np.empty((_PIECE, 256), np.uint32)
    places[-1] = _CRC32C
    for i in range(_PIECE - 2, -1, -1):
        places[i] = _CRC32C[places[i + 1] & 0xFF] ^ (places[i + 1] >> 8)
    return places.reshape(-1)


@cache
def _advance_table(doublings: int) -> UInt32s:
    """uint32 (4, 256): what each byte of the register becomes after 2**doublings zero bytes."""
    values = np.arange(256, dtype=np.uint32)
    basis = np.stack([values << shift for shift in (0, 8, 16, 24)])
    if doublings == 0:
        one: UInt32s = _CRC32C[basis & 0xFF] ^ (basis >> 8)
        return one
    half = _advance_table(doublings - 1)
    return _apply(half, _apply(half, basis))


def _apply(table: UInt32s, register: UInt32s) -> UInt32s:
    out: UInt32s = table[0][register & 0xFF] ^ table[1][(register >> 8) & 0xFF]
    out ^= table[2][(register >> 16) & 0xFF]
    out ^= table[3][register >> 24]
    return out


def _advance(register: UInt32s, zeros: int) -> UInt32s:
    doublings = 0
    while zeros:
        if zeros & 1:
            register = _apply(_advance_table(doublings), register)
        zeros >>= 1
        doublings += 1
    return register


def crc32c_rows(seeds: UInt32s, rows: UInt8s, zeros: Sequence[int] = ()) -> UInt32s:
    """CRC-32C of each row.

    Args:
        seeds: uint32 (n,), the register before each row.
        rows: uint8 (n, length).
        zeros: columns that count as zeros.

    Returns:
        uint32 (n,), the register after each row.
    """
    n, length = rows.shape
    out = np.empty(n, np.uint32)
    step = max(1, _STEP_BYTES // max(length, 1))
    for first in range(0, n, step):
        part = slice(first, first + step)
        out[part] = _crc_of(rows[part], zeros) ^ _advance(seeds[part], length)
    return out


def _crc_of(rows: UInt8s, zeros: Sequence[int]) -> UInt32s:
    n, length = rows.shape
    pieces = 1
    while pieces * _PIECE < length:
        pieces *= 2
    crc = _by_columns(rows, pieces, zeros) if n >= _MANY else _by_rows(rows, pieces, zeros)
    doublings = _PIECE.bit_length() - 1
    while len(crc) > 1:
        crc = _apply(_advance_table(doublings), crc[0::2]) ^ crc[1::2]
        doublings += 1
    first: UInt32s = crc[0]
    return first


def _by_rows(rows: UInt8s, pieces: int, zeros: Sequence[int]) -> UInt32s:
    """uint32 (pieces, n): the CRC of each piece of each row, counted from the end of the row."""
    n, length = rows.shape
    padded = np.zeros((n, pieces * _PIECE), np.uint8)
    if length:
        padded[:, -length:] = rows
        padded[:, [at - length for at in zeros]] = 0
    index = padded.reshape(n, pieces, _PIECE).astype(np.uint32) + np.arange(_PIECE, dtype=np.uint32) * 256
    crc: UInt32s = np.bitwise_xor.reduce(_place_table()[index], axis=2)
    return crc.T


def _by_columns(rows: UInt8s, pieces: int, zeros: Sequence[int]) -> UInt32s:
    """As `_by_rows`, a byte of all rows at a time; most bytes of most inodes are zero, and zeros add nothing."""
    n, length = rows.shape
    before = pieces * _PIECE - length
    table = _place_table().reshape(_PIECE, 256)
    columns = np.ascontiguousarray(rows.T)
    crc = np.zeros((pieces, n), np.uint32)
    some = np.asarray(columns.any(axis=1))
    some[list(zeros)] = False
    for at in np.flatnonzero(some).tolist():
        piece, place = divmod(before + at, _PIECE)
        crc[piece] ^= table[place].take(columns[at])
    return crc


def crc32c_words(seeds: UInt32s, words: UInt32s) -> UInt32s:
    """The register after one little-endian 32-bit word more, for each row; shapes (n,)."""
    register = seeds ^ words
    return _apply(_advance_table(2), register)


def crc32c(seed: int, data: bytes) -> int:
    """CRC-32C of one string."""
    rows = np.frombuffer(data, np.uint8).reshape(1, -1)
    return int(crc32c_rows(np.array([seed], np.uint32), rows)[0])


def crc16_rows(seeds: UInt32s, rows: UInt8s) -> UInt32s:
    """CRC-16 (polynomial 0x8005, reflected) of each short row; shapes as in `crc32c_rows`."""
    crc = seeds & np.uint32(0xFFFF)
    for column in rows.T:
        crc = _CRC16[(crc ^ column) & 0xFF] ^ (crc >> 8)
    return crc
