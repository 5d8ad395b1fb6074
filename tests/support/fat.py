"""FAT volumes written by hand, byte by byte as Microsoft's specification has them, and volumes as trees."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import DataRuns, FileSystem, FileType, RunKind
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import MemoryDevice
from pseudomount_fat import FatParser

END = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}
BAD = {12: 0xFF7, 16: 0xFFF7, 32: 0x0FFFFFF7}


def entry(
    name: bytes,
    first: int = 0,
    size: int = 0,
    *,
    attributes: int = 0x20,
    case: int = 0,
    created: tuple[int, int, int] = (0, 0, 0),
    modified: tuple[int, int] = (0, 0),
    accessed: int = 0,
) -> bytes:
    """A short entry: `created` is date, time, hundredths; `modified` date and time."""
    assert len(name) == 11
    return struct.pack(
        "<11sBBBHHHHHHHI",
        name,
        attributes,
        case,
        created[2],
        created[1],
        created[0],
        accessed,
        first >> 16,
        modified[1],
        modified[0],
        first & 0xFFFF,
        size,
    )


def checksum(short: bytes) -> int:
    """The checksum of section 7.2, written as its example is."""
    total = 0
    for byte in short[:11]:
        total = ((0x80 if total & 1 else 0) + (total >> 1) + byte) & 0xFF
    return total


def long_entries(name: str, short: bytes, *, check: int | None = None) -> bytes:
    """The entries of a long name, as they lie before the short entry."""
    units = name.encode("utf-16-le", "surrogatepass")
    count = -(-len(units) // 26)
    padded = (units + b"\0\0" if len(units) % 26 else units).ljust(count * 26, b"\xff")
    parts = []
    for i in range(count):
        piece = padded[26 * i : 26 * i + 26]
        ordinal = i + 1 | (0x40 if i + 1 == count else 0)
        total = checksum(short) if check is None else check
        parts.append(struct.pack("<B10sBBB12sH4s", ordinal, piece[:10], 0x0F, 0, total, piece[10:22], 0, piece[22:]))
    return b"".join(reversed(parts))


@dataclass
class ForgedFat:
    """A FAT volume in memory. Directories and contents are put into clusters, chains into the FAT, by hand."""

    bits: int = 16
    clusters: int = 5000
    sector: int = 512
    per_cluster: int = 1
    fats: int = 2
    root_entries: int = 512
    hidden: int = 0
    flags: int = 0
    state: int = 0
    root_cluster: int = 2
    serial: int = 0x12345678
    entries: dict[int, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    root: bytes = b""

    def __post_init__(self) -> None:
        self.cluster = self.sector * self.per_cluster
        self.reserved = 32 if self.bits == 32 else 1
        self.fat_sectors = -(-((self.clusters + 2) * self.bits // 8 + 1) // self.sector)
        self.root_sectors = 0 if self.bits == 32 else -(-self.root_entries * 32 // self.sector)
        self.fat_start = self.reserved * self.sector
        self.root_start = self.fat_start + self.fats * self.fat_sectors * self.sector
        self.data_start = self.root_start + self.root_sectors * self.sector
        self.entries.setdefault(0, END[self.bits] & ~0xFF | 0xF8)
        self.entries.setdefault(1, END[self.bits])
        if self.bits == 32:
            self.entries.setdefault(self.root_cluster, END[32])

    def position(self, cluster: int) -> int:
        """Of a cluster, in bytes."""
        return self.data_start + (cluster - 2) * self.cluster

    def chain(self, *clusters: int) -> int:
        """Writes a chain and gives its first cluster."""
        for a, b in zip(clusters, [*clusters[1:], END[self.bits]], strict=True):
            self.entries[a] = b
        return clusters[0]

    def file(self, content: bytes, *clusters: int) -> int:
        """Puts content into a chain."""
        for i, cluster in enumerate(clusters):
            self.data[cluster] = content[i * self.cluster : (i + 1) * self.cluster]
        return self.chain(*clusters)

    def fat(self, entries: Mapping[int, int]) -> bytes:
        """One copy of the FAT."""
        length = self.fat_sectors * self.sector
        raw = bytearray(length + 8)
        for cluster, value in entries.items():
            if self.bits == 12:
                at = cluster * 3 // 2
                old = int.from_bytes(raw[at : at + 2], "little")
                new = old & 0x000F | value << 4 if cluster & 1 else old & 0xF000 | value
                raw[at : at + 2] = new.to_bytes(2, "little")
            else:
                width = self.bits // 8
                raw[cluster * width : (cluster + 1) * width] = value.to_bytes(width, "little")
        return bytes(raw[:length])

    def boot(self) -> bytes:
        """The boot sector."""
        sectors = self.data_start // self.sector + self.clusters * self.per_cluster
        small = sectors if sectors < 65536 and self.bits != 32 else 0
        head = struct.pack(
            "<3s8sHBHBHHBHHHII",
            b"\xeb\x58\x90",
            b"MSWIN4.1",
            self.sector,
            self.per_cluster,
            self.reserved,
            self.fats,
            0 if self.bits == 32 else self.root_entries,
            small,
            0xF8,
            0 if self.bits == 32 else self.fat_sectors,
            32,
            64,
            self.hidden,
            0 if small else sectors,
        )
        if self.bits == 32:
            head += struct.pack("<IHHIHH12x", self.fat_sectors, self.flags, 0, self.root_cluster, 1, 6)
        head += struct.pack("<BBBI11s8s", 0x80, self.state, 0x29, self.serial, b"NO NAME    ", b"FAT%-5d" % self.bits)
        return head.ljust(510, b"\0") + b"\x55\xaa"

    def image(self, *, second: Mapping[int, int] | None = None) -> bytearray:
        """The whole volume; `second` are entries that differ in the second copy of the FAT."""
        raw = bytearray(self.data_start + self.clusters * self.cluster)
        raw[:512] = self.boot()
        if self.bits == 32:
            raw[6 * self.sector : 6 * self.sector + 512] = self.boot()
            info = b"RRaA".ljust(484, b"\0") + b"rrAa" + b"\xff" * 8
            raw[self.sector : self.sector + 512] = info.ljust(508, b"\0") + b"\0\0\x55\xaa"
        for copy in range(self.fats):
            at = self.fat_start + copy * self.fat_sectors * self.sector
            fat = self.fat({**self.entries, **(second or {})} if copy == 1 else self.entries)
            raw[at : at + len(fat)] = fat
        if self.bits == 32:
            self.data.setdefault(self.root_cluster, self.root)
        else:
            raw[self.root_start : self.root_start + len(self.root)] = self.root
        for cluster, content in self.data.items():
            assert len(content) <= self.cluster
            raw[self.position(cluster) : self.position(cluster) + len(content)] = content
        return raw

    def open(self, options: Mapping[str, str] | None = None) -> FileSystem:
        """As our parser sees it."""
        return FatParser().open(MemoryDevice(bytes(self.image())), FindingLog("forged"), options or {})


class Sparse(BlockDevice):
    """A device of any size that holds a few pieces; the rest are zeros."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        self._size = size
        self._pieces = pieces

    @property
    def size(self) -> int:
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        result = bytearray(length)
        for at, piece in self._pieces.items():
            low, high = max(at, offset), min(at + len(piece), offset + length)
            if low < high:
                result[low - offset : high - offset] = piece[low - at : high - at]
        return bytes(result)


class Mapped(MemoryDevice):
    """An image on disk, sparse as it is."""

    def __init__(self, path: Path) -> None:
        super().__init__(b"", name=path.name)
        self._map = np.memmap(path, np.uint8, "r")

    @property
    def size(self) -> int:
        return len(self._map)

    def _read(self, offset: int, length: int) -> bytes:
        return self._map[offset : offset + length].tobytes()


@dataclass(frozen=True, slots=True)
class Seen:
    """One path: "dir" or "file", its size, the digest of its content or the message of the error, its id."""

    type: str
    size: int
    sha256: str
    file: int
    error: str = ""


def by_runs(filesystem: FileSystem, runs: DataRuns, number: int, size: int) -> bytes:
    """Content put together from the data runs of one file of those asked for."""
    rows = slice(*np.searchsorted(runs.query, [number, number + 1]).tolist())
    content = bytearray(size)
    for offset, length, position, kind in zip(
        runs.offset[rows].tolist(),
        runs.length[rows].tolist(),
        runs.position[rows].tolist(),
        runs.kind[rows].tolist(),
        strict=True,
    ):
        if kind == RunKind.DATA and offset < size:
            count = min(length, size - offset)
            content[offset : offset + count] = filesystem.device.read(position, count)
    return bytes(content)


def browse(filesystem: FileSystem) -> dict[str, Seen]:
    """All paths, level by level, each directory once. Content is read by `open` and by `runs`, which must agree."""
    seen: dict[str, Seen] = {}
    visited = {int(filesystem.root)}
    level = [("", int(filesystem.root))]
    while level:
        links = filesystem.children(np.array([file for _, file in level], np.uint64))
        for query, error in links.errors.items():
            path = level[query][0]
            old = seen.get(path, Seen("dir", -1, "", level[query][1]))
            seen[path] = Seen(old.type, old.size, old.sha256, old.file, str(error))
        rows = filesystem.rows(links.file)
        runs = filesystem.runs(links.file)
        below = []
        for i, raw in enumerate(links.name):
            path = f"{level[int(links.query[i])][0]}/{filesystem.name_encoding.decode(raw)}"
            file = int(links.file[i])
            if i in rows.errors:
                seen[path] = Seen("unknown", -1, "", file, str(rows.errors[i]))
            elif rows.type[i] == FileType.DIRECTORY:
                seen[path] = Seen("dir", int(rows.size[i]), "", file)
                if file not in visited:
                    visited.add(file)
                    below.append((path, file))
            else:
                seen[path] = _content(filesystem, runs, i, file, int(rows.size[i]))
        level = below
    return seen


def _content(filesystem: FileSystem, runs: DataRuns, number: int, file: int, size: int) -> Seen:
    try:
        with filesystem.open(file) as device:
            assert device.size == size
            content = device.read(0, size)
        assert by_runs(filesystem, runs, number, size) == content
        return Seen("file", size, hashlib.sha256(content).hexdigest(), file)
    except PseudomountError as error:
        return Seen("file", size, "", file, str(error))


def names_of(filesystem: FileSystem, directory: int = 0) -> list[str]:
    """Names in one directory."""
    links = filesystem.children(np.array([directory], np.uint64))
    return [filesystem.name_encoding.decode(name) for name in links.name]


def find(filesystem: FileSystem, *parts: str) -> int:
    """The id at a path, part by part."""
    file = int(filesystem.root)
    for part in parts:
        looked = filesystem.lookup(np.array([file], np.uint64), [filesystem.name_encoding.encode(part)])
        assert looked.found[0], part
        file = int(looked.file[0])
    return file


def ids(*files: int) -> NDArray[np.uint64]:
    """As the contract takes them."""
    return np.array(files, np.uint64)


def messages(log: FindingLog | Sequence[object]) -> list[str]:
    """Findings as text."""
    return [str(finding) for finding in log]


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that nowhere repeat at a distance of clusters."""
    return np.random.default_rng(seed).bytes(size)


def read_all(device: BlockDevice) -> bytes:
    """A device's bytes."""
    return device.read(0, device.size)
