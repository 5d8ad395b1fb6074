"""What L2 entries say, for many clusters at once.

Source: QEMU docs/interop/qcow2.rst, "L2 table entry", "Standard Cluster Descriptor", "Compressed Clusters Descriptor",
"Extended L2 Entries"; where it leaves open what a contradiction means, what qemu does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from pseudomount.extents import Kind
from pseudomount.formats.qcow2._layout import OFFSET_MASK, Geometry

__all__ = ["Clusters", "Fault", "decode", "subclusters"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

_COMPRESSED = np.uint64(1 << 62)
_COPIED = np.uint64(1 << 63)
_ZERO = np.uint64(1)
_ALL = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


class Fault(IntEnum):
    """Why a cluster cannot be read."""

    NONE = 0
    UNALIGNED = 1
    ZERO_IN_V2 = 2
    COMPRESSED_EXTERNAL = 3
    BITMAP = 4
    DISPLACED = 5
    BEYOND = 6
    TABLE_UNALIGNED = 7
    TABLE_BEYOND = 8
    L1_BEYOND = 9
    #: From here on: number of an error met when loading tables.
    LOADING = 16


@dataclass(frozen=True, slots=True)
class Clusters:
    """n clusters.

    Attributes:
        kind: uint8 (n,), values of `Kind`; of a mixed cluster that of its allocated subclusters.
        host: int64 (n,), where a DATA cluster is stored, bytes from the start of its file.
        stored: int64 (n,), bytes of a compressed cluster, an upper bound; 0 for the others.
        fault: int64 (n,), values of `Fault`.
        mixed: bool (n,), whether its subclusters differ: ask `subclusters`.
    """

    kind: NDArray[np.uint8]
    host: Int64s
    stored: Int64s
    fault: Int64s
    mixed: NDArray[np.bool_]


def decode(words: UInt64s, bitmaps: UInt64s | None, offset: Int64s, geometry: Geometry) -> Clusters:
    """Decodes L2 entries.

    Args:
        words: uint64 (n,), entries; of extended ones the first half.
        bitmaps: uint64 (n,), the second half, or None.
        offset: int64 (n,), where on the disk each cluster begins.
        geometry: of the image.
    """
    n = len(words)
    compressed = (words & _COMPRESSED) != 0
    host = (words & OFFSET_MASK).view(np.int64)
    none = host == 0
    if geometry.external:
        # Offset 0 is a place in a file that holds nothing but data; there the flag tells that it is meant.
        none &= (words & _COPIED) == 0
    zero = np.zeros(n, np.bool_) if bitmaps is not None else (words & _ZERO) != 0
    kind = np.where(zero, np.uint8(Kind.ZERO), np.where(none, np.uint8(Kind.HOLE), np.uint8(Kind.DATA)))
    fault = np.zeros(n, np.int64)
    placed = ~none & ~compressed
    fault[placed & ((host & (geometry.cluster_size - 1)) != 0)] = Fault.UNALIGNED
    if geometry.external:
        fault[placed & (host != offset)] = Fault.DISPLACED
        fault[compressed] = Fault.COMPRESSED_EXTERNAL
    if geometry.version < 3:
        fault[zero & ~compressed] = Fault.ZERO_IN_V2
    mixed = np.zeros(n, np.bool_)
    if bitmaps is not None:
        allocated, zeros = bitmaps & _ALL, bitmaps >> _HALF
        # Both at once has no meaning, nor has an allocated subcluster in a cluster that is not.
        fault[~compressed & ((allocated & np.where(none, _ALL, zeros)) != 0)] = Fault.BITMAP
        kind = np.where(zeros == _ALL, np.uint8(Kind.ZERO), kind)
        kind = np.where((allocated == 0) & (zeros == 0), np.uint8(Kind.HOLE), kind)
        uniform = (allocated == _ALL) | (zeros == _ALL) | ((allocated | zeros) == 0)
        mixed = ~compressed & ~uniform & (fault == 0)
    stored = np.zeros(n, np.int64)
    if compressed.any():
        kind[compressed] = Kind.DATA
        # Bits 0 to x-1 are the offset, x to 61 count further sectors: the last byte is anywhere in the last of them.
        x = 62 - (geometry.cluster_bits - 8)
        entry = words[compressed].view(np.int64)
        begin = entry & ((1 << x) - 1)
        sectors = ((entry & ((1 << 62) - 1)) >> x) + 1
        host[compressed] = begin
        stored[compressed] = sectors * 512 - (begin & 511)
    return Clusters(kind, host, stored, fault, mixed)


def subclusters(bitmaps: UInt64s, nth: Int64s) -> NDArray[np.uint8]:
    """The kind (m,) of subcluster `nth` (m,), 0 to 31, of a cluster with such a bitmap."""
    bits = bitmaps >> nth.astype(np.uint64)
    allocated, zero = (bits & np.uint64(1)) != 0, (bits >> _HALF & np.uint64(1)) != 0
    return np.where(zero, np.uint8(Kind.ZERO), np.where(allocated, np.uint8(Kind.DATA), np.uint8(Kind.HOLE)))
