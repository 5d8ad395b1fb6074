"""exFAT volumes written by hand, byte by byte as Microsoft's specification has them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from pseudomount.filesystem import FileSystem
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import MemoryDevice
from pseudomount_fat import ExfatParser

END = 0xFFFFFFFF
BAD = 0xFFFFFFF7
#: Upper case for a to z, and, unlike any real table, "+" for "-": to see that the volume's own table is used.
UPCASE = struct.pack("<2H1H2H26H2H", 0xFFFF, 0x2D, 0x2B, 0xFFFF, 0x61 - 0x2E, *range(0x41, 0x5B), 0xFFFF, 65536 - 0x7B)


def checksum32(data: bytes, skip: tuple[int, ...] = ()) -> int:
    """Figures 1 and 3 of the specification."""
    total = 0
    for i, byte in enumerate(data):
        if i not in skip:
            total = ((0x80000000 if total & 1 else 0) + (total >> 1) + byte) & 0xFFFFFFFF
    return total


def checksum16(data: bytes, skip: tuple[int, ...] = ()) -> int:
    """Figures 2 and 4 of the specification."""
    total = 0
    for i, byte in enumerate(data):
        if i not in skip:
            total = ((0x8000 if total & 1 else 0) + (total >> 1) + byte) & 0xFFFF
    return total


def _upper(name: str) -> bytes:
    text = "".join(c.upper() if "a" <= c <= "z" else "+" if c == "-" else c for c in name)
    return text.encode("utf-16-le", "surrogatepass")


def entry_set(
    name: str,
    first: int = 0,
    size: int = 0,
    *,
    valid: int | None = None,
    contiguous: bool = False,
    attributes: int = 0x20,
    times: bytes = bytes(17),
    extra: bytes = b"",
    name_hash: int | None = None,
    check: int | None = None,
) -> bytes:
    """A set: file entry, stream extension, names, and `extra` secondary entries. `times` are bytes 8 to 24."""
    units = name.encode("utf-16-le", "surrogatepass")
    parts = -(-len(units) // 30)
    names = b"".join(b"\xc1\0" + units[30 * i : 30 * i + 30].ljust(30, b"\0") for i in range(parts))
    hashed = checksum16(_upper(name)) if name_hash is None else name_hash
    flags = 1 | (2 if contiguous else 0)
    length = len(units) // 2
    real = size if valid is None else valid
    stream = struct.pack("<BBBBHHQIIQ", 0xC0, flags, 0, length, hashed, 0, real, 0, first, size)
    count = 1 + parts + len(extra) // 32
    file = struct.pack("<BBHHH17s7x", 0x85, count, 0, attributes, 0, times)
    whole = file + stream + names + extra
    total = checksum16(whole, (2, 3)) if check is None else check
    return whole[:2] + total.to_bytes(2, "little") + whole[4:]


@dataclass
class ForgedExfat:
    """An exFAT volume in memory: bitmap in cluster 2, up-case table after it, then the root directory."""

    clusters: int = 500
    sector_shift: int = 9
    cluster_shift: int = 1
    fats: int = 1
    flags: int = 0
    serial: int = 0xCAFE1234
    label: str = "forged"
    upcase: bytes = UPCASE
    upcase_checksum: int | None = None
    entries: dict[int, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    used: set[int] = field(default_factory=set)
    root: bytes = b""
    revision: int = 0x100

    def __post_init__(self) -> None:
        self.sector = 1 << self.sector_shift
        self.cluster = self.sector << self.cluster_shift
        self.fat_sectors = -(-(self.clusters + 2) * 4 // self.sector)
        self.fat_start = 24 * self.sector
        self.heap_start = self.fat_start + self.fats * self.fat_sectors * self.sector
        self.bitmap_size = -(-self.clusters // 8)
        assert self.bitmap_size <= self.cluster
        self.upcase_cluster = 3
        self.root_cluster = 3 + -(-len(self.upcase) // self.cluster)
        self.second_bitmap = self.root_cluster + 1
        self.free = self.root_cluster + 2  # the first cluster that is for files
        self.chain(2)
        self.chain(self.second_bitmap)
        self.file(self.upcase, *range(self.upcase_cluster, self.root_cluster))
        self.chain(self.root_cluster)

    def position(self, cluster: int) -> int:
        """Of a cluster, in bytes."""
        return self.heap_start + (cluster - 2) * self.cluster

    def chain(self, *clusters: int) -> int:
        """Writes a chain and gives its first cluster."""
        for a, b in zip(clusters, [*clusters[1:], END], strict=True):
            self.entries[a] = b
        self.used |= set(clusters)
        return clusters[0]

    def put(self, content: bytes, *clusters: int) -> int:
        """Puts content into clusters without a chain."""
        for i, cluster in enumerate(clusters):
            self.data[cluster] = content[i * self.cluster : (i + 1) * self.cluster]
        self.used |= set(clusters)
        return clusters[0]

    def file(self, content: bytes, *clusters: int) -> int:
        """Puts content into a chain."""
        self.put(content, *clusters)
        return self.chain(*clusters)

    def boot_region(self) -> bytes:
        """Twelve sectors."""
        heap = self.heap_start // self.sector
        boot = struct.pack(
            "<3s8s53xQQIIIIIIHHBBBBB",
            b"\xeb\x76\x90",
            b"EXFAT   ",
            0,
            heap + (self.clusters << self.cluster_shift),
            24,
            self.fat_sectors,
            heap,
            self.clusters,
            self.root_cluster,
            self.serial,
            self.revision,
            self.flags,
            self.sector_shift,
            self.cluster_shift,
            self.fats,
            0x80,
            0xFF,
        )
        sectors = boot.ljust(510, b"\0") + b"\x55\xaa" + bytes(self.sector - 512)
        sectors += (bytes(self.sector - 4) + b"\0\0\x55\xaa") * 8 + bytes(2 * self.sector)
        total = checksum32(sectors, (106, 107, 112))
        return sectors + total.to_bytes(4, "little") * (self.sector // 4)

    def system(self) -> bytes:
        """The root directory's first entries."""
        text = self.label.encode("utf-16-le")
        entries = struct.pack("<BB22s8x", 0x83, len(text) // 2, text)
        check = checksum32(self.upcase) if self.upcase_checksum is None else self.upcase_checksum
        for i in range(self.fats):
            entries += struct.pack("<BB18xIQ", 0x81, i, self.second_bitmap if i else 2, self.bitmap_size)
        return entries + struct.pack("<B3xI12xIQ", 0x82, check, self.upcase_cluster, len(self.upcase))

    def bitmap(self) -> bytes:
        """One bit a cluster."""
        bits = bytearray(self.bitmap_size)
        for cluster in self.used:
            bits[(cluster - 2) // 8] |= 1 << (cluster - 2) % 8
        return bytes(bits)

    @property
    def size(self) -> int:
        """Bytes of the volume."""
        return self.heap_start + self.clusters * self.cluster

    def pieces(self, *, second: Mapping[int, int] | None = None) -> dict[int, bytes]:
        """All that is no zeros, by position; `second` are the entries of TexFAT's second FAT."""
        region = self.boot_region()
        pieces = {0: region * 2}
        for copy in range(self.fats):
            entries = {0: 0xFFFFFFF8, 1: END, **(self.entries if copy == 0 or second is None else second)}
            at = self.fat_start + copy * self.fat_sectors * self.sector
            pieces.update({at + 4 * cluster: value.to_bytes(4, "little") for cluster, value in entries.items()})
        self.data[2] = self.data[self.second_bitmap] = self.bitmap()
        self.data.setdefault(self.root_cluster, self.system() + self.root)
        for cluster, content in self.data.items():
            assert len(content) <= self.cluster
            pieces[self.position(cluster)] = content
        return pieces

    def image(self, *, second: Mapping[int, int] | None = None) -> bytearray:
        """The whole volume."""
        raw = bytearray(self.size)
        for at, piece in self.pieces(second=second).items():
            raw[at : at + len(piece)] = piece
        return raw

    def open(self, options: Mapping[str, str] | None = None) -> FileSystem:
        """As our parser sees it."""
        return ExfatParser().open(MemoryDevice(bytes(self.image())), FindingLog("forged"), options or {})
