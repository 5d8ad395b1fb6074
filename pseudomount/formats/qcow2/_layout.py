"""The qcow2 header: structures and constants.

Source: QEMU docs/interop/qcow2.rst, "Header", "Header extensions", "String header extensions", "Feature name table",
"L1/L2 tables". All numbers are big-endian.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from construct import Bytes, Int8ub, Int32ub, Int64ub, Struct

from pseudomount.errors import CorruptionError, EncryptedError, TruncatedError, UnsupportedError

__all__ = ["MAGIC", "MAX_L1_BYTES", "OFFSET_MASK", "Geometry", "Header", "read_header"]

MAGIC = b"QFI\xfb"
#: Bits 9 to 55 of an L1 or standard L2 entry: bytes from the start of the file ("L1 table entry", "Standard Cluster
#: Descriptor"). The bits above and below are flags or reserved; qemu ignores the reserved ones, and so do we.
OFFSET_MASK = np.uint64(0x00FF_FFFF_FFFF_FE00)
#: Bytes of an L1 table at most; qemu's own limit, enough for 2 EiB with clusters of 64 KiB.
MAX_L1_BYTES = 32 << 20

_HEADER_V2 = Struct(
    "magic" / Bytes(4),
    "version" / Int32ub,
    "backing_offset" / Int64ub,
    "backing_length" / Int32ub,
    "cluster_bits" / Int32ub,
    "size" / Int64ub,
    "crypt_method" / Int32ub,
    "l1_size" / Int32ub,
    "l1_offset" / Int64ub,
    "refcount_offset" / Int64ub,
    "refcount_clusters" / Int32ub,
    "snapshot_count" / Int32ub,
    "snapshot_offset" / Int64ub,
)
_V2_LENGTH = 72
_HEADER_V3 = Struct(
    "incompatible" / Int64ub,
    "compatible" / Int64ub,
    "autoclear" / Int64ub,
    "refcount_order" / Int32ub,
    "header_length" / Int32ub,
)
_V3_LENGTH = 104
_COMPRESSION_AT = 104
_EXTENSION = Struct("type" / Int32ub, "length" / Int32ub)
_FEATURE = Struct("kind" / Int8ub, "bit" / Int8ub, "name" / Bytes(46))

# Incompatible features.
_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = (1 << bit for bit in range(5))
_UNDERSTOOD = _DIRTY | _CORRUPT | _EXTERNAL | _COMPRESSION | _EXTENDED
#: Autoclear bit 1: the external data file is the disk's raw image, too.
_RAW_EXTERNAL = 1 << 1

# Header extensions.
_END, _BACKING_FORMAT, _FEATURE_NAMES, _DATA_FILE = 0, 0xE279_2ACA, 0x6803_F857, 0x4441_5441

_COMPRESSIONS = ("zlib", "zstd")
_CRYPT = {1: "AES", 2: "LUKS"}
#: Bytes of the backing file's name at most.
_NAME_LIMIT = 1023
#: Bytes of an extended L2 cluster at least: its 32 subclusters are no smaller than a sector.
_EXTENDED_MINIMUM = 14


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the tables of an image are to be read.

    Attributes:
        version: 2 or 3.
        cluster_bits: a cluster has `1 << cluster_bits` bytes.
        extended: whether L2 entries have 16 bytes, the second half a bitmap of 32 subclusters.
        external: whether data clusters lie in a file of their own.
    """

    version: int
    cluster_bits: int
    extended: bool
    external: bool

    @property
    def cluster_size(self) -> int:
        """Bytes."""
        return 1 << self.cluster_bits

    @property
    def entry_bits(self) -> int:
        """An L2 entry has `1 << entry_bits` bytes."""
        return 4 if self.extended else 3

    @property
    def table_bits(self) -> int:
        """An L2 table, one cluster, covers `1 << table_bits` bytes of the disk."""
        return 2 * self.cluster_bits - self.entry_bits

    def tables(self, size: int) -> int:
        """How many L2 tables a disk of `size` bytes needs."""
        return -(-size >> self.table_bits)


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says, checked.

    Attributes:
        geometry: how to read the tables.
        size: bytes of the disk.
        l1_offset, l1_size: the active L1 table: bytes from the start of the file, entries.
        snapshot_offset, snapshot_count: the table of internal snapshots.
        compression: "zlib" (raw deflate) or "zstd".
        dirty, corrupt: incompatible features 0 and 1.
        raw_external: whether the external data file is a raw image of the disk, too.
        backing, backing_format, data_file: as the image names them, or None.
    """

    geometry: Geometry
    size: int
    l1_offset: int
    l1_size: int
    snapshot_offset: int
    snapshot_count: int
    compression: str
    dirty: bool
    corrupt: bool
    raw_external: bool
    backing: str | None
    backing_format: str | None
    data_file: str | None


def read_header(name: str, read: Callable[[int, int], bytes]) -> Header:
    """Reads header and header extensions.

    Args:
        name: the image's, for messages.
        read: (offset, length) → up to so many bytes of it.

    Raises:
        CorruptionError, TruncatedError: it contradicts the specification, or ends too early.
        UnsupportedError: another version, or a feature that we do not know.
        EncryptedError: it is encrypted.
    """
    fixed = _exactly(name, read, 0, _V2_LENGTH)
    head = _HEADER_V2.parse(fixed)
    if head.magic != MAGIC:
        raise CorruptionError(f"{name} is no qcow2 image: it begins with {head.magic!r}", offset=0, structure="header")
    if head.version not in (2, 3):
        raise UnsupportedError(
            f"{name} is a QCOW image of version {head.version}; versions 2 and 3 are read; "
            f"convert it with: qemu-img convert -O qcow2 {name} {name}.qcow2"
        )
    bits = head.cluster_bits
    if not 9 <= bits <= 21:
        raise _wrong(name, f"clusters of 2**{bits} bytes; they have 2**9 to 2**21", 20)
    incompatible = autoclear = compression = 0
    length = _V2_LENGTH
    if head.version == 3:
        more = _HEADER_V3.parse(_exactly(name, read, _V2_LENGTH, _V3_LENGTH - _V2_LENGTH))
        incompatible, autoclear, length = more.incompatible, more.autoclear, more.header_length
        if length < _V3_LENGTH or length % 8 or length > 1 << bits:
            raise _wrong(name, f"a header of {length} bytes", 100)
        if length > _COMPRESSION_AT:
            compression = _exactly(name, read, _COMPRESSION_AT, 1)[0]
    end = min(head.backing_offset or 1 << bits, 1 << bits)
    texts, features = _extensions(name, read, length, end, unknown=bool(incompatible & ~_UNDERSTOOD))
    if incompatible & ~_UNDERSTOOD:
        unknown = [bit for bit in range(64) if (incompatible & ~_UNDERSTOOD) >> bit & 1]
        named = ", ".join(features.get(bit) or f"bit {bit}" for bit in unknown)
        raise UnsupportedError(f"{name} needs features that this version does not read: {named}")
    if head.crypt_method in _CRYPT:
        raise EncryptedError(f"{name} is encrypted ({_CRYPT[head.crypt_method]}); no key can be given to this version")
    if head.crypt_method:
        raise UnsupportedError(f"{name} is encrypted by unknown method {head.crypt_method}")
    if compression >= len(_COMPRESSIONS):
        raise UnsupportedError(f"{name} is compressed by unknown method {compression}")
    if bool(compression) != bool(incompatible & _COMPRESSION):
        raise _wrong(name, f"compression type {compression}, which its feature bit contradicts", _COMPRESSION_AT)
    geometry = Geometry(head.version, bits, bool(incompatible & _EXTENDED), bool(incompatible & _EXTERNAL))
    if geometry.extended and bits < _EXTENDED_MINIMUM:
        raise _wrong(name, f"extended L2 entries with clusters of only {1 << bits} bytes", 20)
    if head.size >= 1 << 63:
        raise _wrong(name, f"a disk of {head.size} bytes", 24)
    return Header(
        geometry,
        head.size,
        head.l1_offset,
        head.l1_size,
        head.snapshot_offset,
        head.snapshot_count,
        _COMPRESSIONS[compression],
        bool(incompatible & _DIRTY),
        bool(incompatible & _CORRUPT),
        bool(autoclear & _RAW_EXTERNAL),
        _backing(name, read, head.backing_offset, head.backing_length, 1 << bits),
        texts.get(_BACKING_FORMAT),
        texts.get(_DATA_FILE),
    )


def _extensions(
    name: str, read: Callable[[int, int], bytes], at: int, end: int, *, unknown: bool
) -> tuple[dict[int, str], dict[int, str]]:
    """The texts of string extensions by type, and the names of incompatible features by bit."""
    texts: dict[int, str] = {}
    features: dict[int, str] = {}
    # A loop once an extension; each is at least eight bytes of the first cluster.
    while at + 8 <= end:
        raw = read(at, 8)
        if len(raw) < 8:
            break  # a file that holds nothing behind its header: zeros, as it were
        extension = _EXTENSION.parse(raw)
        if extension.type == _END:
            break
        if extension.length > end - at - 8:
            raise _wrong(name, f"a header extension of {extension.length} bytes", at)
        at += 8
        if extension.type in (_BACKING_FORMAT, _DATA_FILE) and extension.length:
            if extension.length > _NAME_LIMIT:
                raise _wrong(name, f"a name of {extension.length} bytes", at)
            texts[extension.type] = _text(_exactly(name, read, at, extension.length))
        elif extension.type == _FEATURE_NAMES and unknown:
            table = _exactly(name, read, at, min(extension.length, 3 * 64 * 48))
            for place in range(0, len(table) - 47, 48):
                feature = _FEATURE.parse(table[place : place + 48])
                if feature.kind == 0:
                    features[feature.bit] = _text(feature.name.rstrip(b"\0"))
        at += (extension.length + 7) // 8 * 8
    return texts, features


def _backing(name: str, read: Callable[[int, int], bytes], offset: int, length: int, cluster: int) -> str | None:
    if not offset or not length:
        return None
    if length > _NAME_LIMIT or offset > cluster - length:
        raise _wrong(name, f"a backing file's name of {length} bytes at {offset}", 8)
    return _text(_exactly(name, read, offset, length))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _exactly(name: str, read: Callable[[int, int], bytes], offset: int, length: int) -> bytes:
    data = read(offset, length)
    if len(data) < length:
        raise TruncatedError(f"{name} ends within its header", offset=offset + len(data), structure="header")
    return data


def _wrong(name: str, what: str, offset: int) -> CorruptionError:
    return CorruptionError(f"{name}: its header tells of {what}", offset=offset, structure="header")
