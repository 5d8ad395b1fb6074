"""Hash tree directories ("Hash Tree Directories"): the hashes of names, and the nodes of the tree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from pseudomount_ext import _layout as lay
from pseudomount_ext._crc import crc32c
from pseudomount_ext._read import Int64s, UInt8s

__all__ = ["Node", "checksum_fits", "is_interior", "name_hash", "parse_interior", "parse_root"]

_MASK: Final = 0xFFFFFFFF
_SEED: Final = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_END: Final = 0x7FFFFFFF << 1  # marks the end of a directory, so no name may have it

LEGACY, HALF_MD4, TEA = 0, 1, 2
UNSIGNED: Final = 3  # added to a version whose names are hashed as unsigned bytes
KNOWN_VERSIONS: Final = range(6)


def name_hash(name: bytes, version: int, seed: tuple[int, int, int, int]) -> tuple[int, int]:
    """The hash of a name, and its minor part.

    Args:
        name: as it lies in the directory.
        version: 0 legacy, 1 half MD4, 2 TEA, and 3 more for unsigned bytes.
        seed: `s_hash_seed`; all zeros is the built-in one.
    """
    values = list(name) if version >= UNSIGNED else [byte - 256 if byte >= 128 else byte for byte in name]
    kind = version % UNSIGNED
    if kind == LEGACY:
        major, minor = _legacy(values), 0
    else:
        state = list(seed) if any(seed) else list(_SEED)
        words, step = (8, _half_md4) if kind == HALF_MD4 else (4, _tea)
        for first in range(0, len(values), words * 4):
            step(state, _pack(values[first:], words))
        major, minor = (state[1], state[2]) if kind == HALF_MD4 else (state[0], state[1])
    major &= ~1
    return (_END - 2 if major == _END else major), minor


def _pack(values: list[int], words: int) -> list[int]:
    """The next bytes as words, filled up with the length."""
    pad = len(values) & 0xFF
    pad |= len(values) << 8
    pad = (pad | pad << 16) & _MASK
    out: list[int] = []
    taken = values[: words * 4]
    for first in range(0, len(taken), 4):
        word = pad
        for value in taken[first : first + 4]:
            word = (value + (word << 8)) & _MASK
        out.append(word)
    return out + [pad] * (words - len(out))


def _rol(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> (32 - bits)) & _MASK


def _half_md4(state: list[int], words: list[int]) -> None:
    rounds: tuple[tuple[Callable[[int, int, int], int], int, tuple[int, ...], tuple[int, ...]], ...] = (
        (lambda x, y, z: z ^ (x & (y ^ z)), 0, (0, 1, 2, 3, 4, 5, 6, 7), (3, 7, 11, 19)),
        (lambda x, y, z: (x & y) + ((x ^ y) & z), 0x5A827999, (1, 3, 5, 7, 0, 2, 4, 6), (3, 5, 9, 13)),
        (lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (3, 7, 2, 6, 1, 5, 0, 4), (3, 9, 11, 15)),
    )
    a, b, c, d = state
    for mix, constant, order, shifts in rounds:
        for i, word in enumerate(order):
            mixed = _rol(a + mix(b, c, d) + words[word] + constant, shifts[i % 4])
            a, b, c, d = d, mixed, b, c
    for i, value in enumerate((a, b, c, d)):
        state[i] = (state[i] + value) & _MASK


def _tea(state: list[int], words: list[int]) -> None:
    x, y = state[0], state[1]
    a, b, c, d = words
    total = 0
    for _ in range(16):
        total = (total + 0x9E3779B9) & _MASK
        x = (x + (((y << 4) + a) ^ (y + total) ^ ((y >> 5) + b))) & _MASK
        y = (y + (((x << 4) + c) ^ (x + total) ^ ((x >> 5) + d))) & _MASK
    state[0] = (state[0] + x) & _MASK
    state[1] = (state[1] + y) & _MASK


def _legacy(values: list[int]) -> int:
    now, before = 0x12A3FE2D, 0x37ABE8F9
    for value in values:
        following = (before + (now ^ (value * 7152373))) & _MASK
        if following & 0x80000000:
            following -= 0x7FFFFFFF
        before, now = now, following
    return now << 1 & _MASK


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the tree.

    Attributes:
        hashes: int64 (n,), ascending, the first 0; entry i holds the hashes from its own up to the next entry's.
            An odd one means that names of the hash before it go on there.
        blocks: int64 (n,), blocks of the directory.
        levels: how many levels of interior nodes are below the root; -1 for interior nodes.
        version: of the hash, for the root; -1 for interior nodes.
        counts: where in the block limit and count are.
        limit: room for entries.
    """

    hashes: Int64s
    blocks: Int64s
    levels: int
    version: int
    counts: int
    limit: int

    def find(self, value: int) -> int:
        """The entry that a hash belongs to."""
        return int(np.searchsorted(self.hashes, value, side="right")) - 1


def parse_root(block: UInt8s) -> Node | None:
    """The root, which is the directory's block 0; None where it makes no sense."""
    info = block[lay.DX_INFO : lay.DX_INFO + 8].tolist()
    if any(info[:4]) or info[5] != 8 or info[6] > lay.DX_MAX_LEVELS:
        return None
    return _parse(block, lay.DX_INFO + 8, info[6], info[4])


def parse_interior(block: UInt8s) -> Node | None:
    """Any other node; None where it makes no sense."""
    return _parse(block, lay.DX_NODE_COUNTS, -1, -1)


def _parse(block: UInt8s, counts: int, levels: int, version: int) -> Node | None:
    words = block[counts:].view("<u4")
    limit, count = int(words[0]) & 0xFFFF, int(words[0]) >> 16
    room = len(words) // 2
    if not 0 < count <= limit or limit not in (room, room - 1):  # the last one makes room for a checksum
        return None
    records = words[: count * 2].reshape(count, 2).astype(np.int64)
    hashes = records[:, 0].copy()
    hashes[0] = 0
    if (np.diff(hashes) < 0).any():
        return None
    return Node(hashes, records[:, 1] & lay.DX_BLOCK_MASK, levels, version, counts, limit)


def is_interior(block: UInt8s) -> bool:
    """Whether a block of an indexed directory is a node: one unused entry covers all of it."""
    length = int(block[4]) | int(block[5]) << 8
    return not block[:4].any() and (length == len(block) or (len(block) == 1 << 16 and length in (0, 0xFFFF)))


def checksum_fits(block: UInt8s, node: Node, seed: int) -> bool:
    """Whether a node fits the checksum behind its last possible entry."""
    tail = node.counts + node.limit * lay.DX_RECORD
    if tail + 8 > len(block):
        return False
    used = block[: node.counts + len(node.hashes) * lay.DX_RECORD].tobytes()
    crc = crc32c(seed, used + block[tail : tail + 4].tobytes() + bytes(4))
    return crc == int.from_bytes(block[tail + 4 : tail + 8].tobytes(), "little")
