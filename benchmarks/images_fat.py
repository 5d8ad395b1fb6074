"""FAT32 and exFAT volumes of many files, for the benchmarks to measure on.

mkfs.fat and mkfs.exfat format the (sparse) image; directories, the FAT and the bitmap are then laid onto it as arrays,
which takes a second where mcopy takes many minutes. `fsck.fat -n` and `fsck.exfat -n` find nothing wrong with them
(tests/differential/test_fat_many.py). No code of the parsers takes part, no privilege is needed.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.images import bytes_of

__all__ = ["make_exfat", "make_fat32"]

Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

_CLUSTER = 4096
_END = {"fat32": 0x0FFFFFFF, "exfat": 0xFFFFFFFF}
#: 2024-03-01 12:00:00, date and time as both formats have them.
_DATE, _TIME = 44 << 9 | 3 << 5 | 1, 12 << 11


def _run(*command: str) -> None:
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    subprocess.run(command, check=True, env={**os.environ, "PATH": search}, stdout=subprocess.DEVNULL)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which directory holds what. Directory 0 is the root, then come the groups, then the folders.

    Attributes:
        names: of the directories, without the root's.
        parents: int64 (d,), number of the directory that each is in; the root's own is 0.
        counts: int64 (d,), files in each.
        sizes: int64 (f,), bytes of the files, directory by directory.
    """

    names: list[str]
    parents: Int64s
    counts: Int64s
    sizes: Int64s

    def below(self, directory: int) -> list[int]:
        """Numbers of the directories in a directory."""
        return [i for i in np.flatnonzero(self.parents == directory).tolist() if i]


def _plan(files: int, directories: int, groups: int) -> _Plan:
    """Files spread evenly over directories, these over groups; sizes from nothing to two clusters."""
    each, rest = divmod(files, directories)
    names = [f"group {i:02d}" for i in range(groups)] + [f"folder {i:05d}" for i in range(directories)]
    parents = [0] * (1 + groups) + [1 + i % groups if groups else 0 for i in range(directories)]
    counts = np.array([0] * (1 + groups) + [each + (i < rest) for i in range(directories)])
    sizes = (np.arange(files) * 7919) % (2 * _CLUSTER + 1)
    return _Plan(names, np.array(parents), counts, sizes)


class _Clusters:
    """Clusters given out: to each directory some, and after them to its files, as a copying program does.

    Scattered, every cluster lies somewhere else, and each chain jumps at every step.
    """

    def __init__(self, plan: _Plan, bytes_of_directories: Sequence[int], clusters: int, used: int, *, scattered: bool):
        self.of_directories = np.array([-(-n // _CLUSTER) for n in bytes_of_directories], np.int64)
        self.of_files = -(-plan.sizes // _CLUSTER)
        ends = np.cumsum(plan.counts)
        begins = ends - plan.counts
        # The order of owners: directory, its files, next directory …; the root has its first cluster already.
        wanted = np.concatenate([self.of_directories, self.of_files])
        place = np.concatenate([begins + np.arange(len(ends)), np.arange(len(plan.sizes))])
        place[len(ends) :] += np.repeat(np.arange(len(ends)), plan.counts) + 1
        order = np.argsort(place)
        wanted = wanted[order]
        wanted[0] -= 1
        self.total = int(wanted.sum())
        if self.total > clusters - used:
            raise ValueError(f"{self.total} clusters are needed, {clusters - used} are free")
        spread = np.random.default_rng(1).permutation(clusters - used)[: self.total] if scattered else None
        self.sequence = (np.arange(self.total) if spread is None else spread) + used + 2
        starts = np.empty_like(wanted)
        starts[order] = np.cumsum(wanted) - wanted
        self.starts_of_directories, self.starts_of_files = starts[: len(ends)], starts[len(ends) :]

    def directory(self, number: int) -> Int64s:
        """The clusters of a directory; of the root without its first."""
        begin = int(self.starts_of_directories[number])
        return self.sequence[begin : begin + int(self.of_directories[number]) - (number == 0)]

    def first_of_files(self) -> Int64s:
        """The first cluster of each file, 0 for an empty one."""
        inside = np.minimum(self.starts_of_files, max(self.total - 1, 0))
        return np.where(self.of_files > 0, self.sequence[inside] if self.total else 0, 0)

    def link(self, table: NDArray[np.uint32], root: int, end: int) -> None:
        """Writes every chain into a table."""
        begins = np.concatenate([self.starts_of_directories, self.starts_of_files])
        lengths = np.concatenate([self.of_directories, self.of_files])
        lengths[0] -= 1
        table[self.sequence[:-1]] = self.sequence[1:]
        some = lengths > 0
        table[self.sequence[(begins + lengths)[some] - 1]] = end
        more = self.directory(0)
        table[root] = more[0] if len(more) else end


def _write_directory(image: BinaryIO, heap: int, clusters: Int64s, table: bytes) -> None:
    """Entries into clusters; neighbours in one go."""
    first = np.flatnonzero(np.diff(clusters, prepend=-2) != 1)
    stop = np.append(first[1:], len(clusters))
    for a, b in zip(first.tolist(), stop.tolist(), strict=True):
        image.seek(heap + (int(clusters[a]) - 2) * _CLUSTER)
        image.write(table[a * _CLUSTER : b * _CLUSTER])


def _new_image(path: Path, size: int | str) -> None:
    path.unlink(missing_ok=True)
    with path.open("wb") as image:
        image.truncate(bytes_of(size))


# -- FAT32 ------------------------------------------------------------------------------------------------------------


def _short_checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


def _fat_entries(name: str, short: bytes, first: int, size: int, *, directory: bool) -> bytes:
    """The entries of one name, its long form first."""
    units = name.encode("utf-16-le")
    count = -(-len(units) // 26)
    units = (units + b"\0\0" if len(units) % 26 else units).ljust(26 * count, b"\xff")
    check = _short_checksum(short)
    parts = [
        struct.pack(
            "<B10sBBB12sH4s",
            i + 1 | (0x40 if i + 1 == count else 0),
            units[26 * i : 26 * i + 10],
            0x0F,
            0,
            check,
            units[26 * i + 10 : 26 * i + 22],
            0,
            units[26 * i + 22 : 26 * i + 26],
        )
        for i in range(count)
    ]
    return b"".join(reversed(parts)) + _short_entry(short, first, size, directory=directory)


def _short_entry(short: bytes, first: int, size: int, *, directory: bool) -> bytes:
    attributes = 0x10 if directory else 0x20
    stamp = (_TIME, _DATE, _DATE, first >> 16, _TIME, _DATE, first & 0xFFFF, size)
    return struct.pack("<11sBBBHHHHHHHI", short, attributes, 0, 0, *stamp)


def make_fat32(
    path: Path, size: int | str, files: int, directories: int, *, groups: int = 20, scattered: bool = False
) -> None:
    """A FAT32 image with clusters of 4 KiB, sparse where the host has sparse files. Needs mkfs.fat (dosfstools).

    Files are named "file 00000.txt" in "folder 00000" in "group 00"; they have sizes from 0 to 8 KiB, all zeros.

    Args:
        path: the image, made anew.
        size: bytes, or as "4G".
        files: how many, spread evenly over the directories.
        directories: how many, without the groups.
        groups: directories of the root that hold the others; 0 puts all of them into the root.
        scattered: every cluster lies in a random place.

    Raises:
        ValueError: they do not fit.
    """
    plan = _plan(files, directories, groups)
    _new_image(path, size)
    _run("mkfs.fat", "-F", "32", "-s", str(_CLUSTER // 512), "-i", "5eed5eed", "-n", "MANY FILES", str(path))
    # Every file of a folder has the same entries but for cluster and size.
    most = int(plan.counts.max(initial=0))
    shape = [_fat_entries(f"file {i:05d}.txt", b"F%07dTXT" % i, 0, 0, directory=False) for i in range(most)]
    template = np.frombuffer(b"".join(shape), np.uint8).reshape(most, -1, 32)
    per_name = template.shape[1]
    listed = [plan.below(i) for i in range(len(plan.counts))]
    lengths = [
        32 * (2 + 2 * len(below) + per_name * int(count))
        for below, count in zip(listed, plan.counts.tolist(), strict=True)
    ]
    with path.open("r+b") as image:
        boot = image.read(512)
        sectors, fats = int.from_bytes(boot[14:16], "little"), boot[16]
        fat_length = int.from_bytes(boot[36:40], "little") * 512
        heap = sectors * 512 + fats * fat_length
        count = (int.from_bytes(boot[32:36], "little") * 512 - heap) // _CLUSTER
        clusters = _Clusters(plan, lengths, count, 1, scattered=scattered)
        firsts, ends = clusters.first_of_files(), np.cumsum(plan.counts)
        own = [2, *(int(clusters.directory(i)[0]) for i in range(1, len(listed)))]
        for number, below in enumerate(listed):
            parts = [] if number else [_short_entry(b"MANY FILES ", 0, 0, directory=False)]
            if number:
                parent = int(plan.parents[number])
                parts.append(_short_entry(b".".ljust(11), own[number], 0, directory=True))
                parts.append(_short_entry(b"..".ljust(11), own[parent] if parent else 0, 0, directory=True))
            else:
                parts = [parts[0][:11] + b"\x08" + parts[0][12:]]
            parts += [_fat_entries(plan.names[i - 1], b"D%07d   " % i, own[i], 0, directory=True) for i in below]
            mine = slice(int(ends[number] - plan.counts[number]), int(ends[number]))
            table = template[: mine.stop - mine.start].copy()
            table[:, -1, 20:22] = (firsts[mine] >> 16).astype("<u2")[:, None].view(np.uint8)
            table[:, -1, 26:28] = (firsts[mine] & 0xFFFF).astype("<u2")[:, None].view(np.uint8)
            table[:, -1, 28:32] = plan.sizes[mine].astype("<u4")[:, None].view(np.uint8)
            mine_all = clusters.directory(number) if number else np.append(2, clusters.directory(0))
            _write_directory(image, heap, mine_all, b"".join([*parts, table.tobytes()]))
        fat = np.zeros(count + 2, np.uint32)
        image.seek(sectors * 512)
        fat[:2] = np.frombuffer(image.read(8), "<u4")
        clusters.link(fat, 2, _END["fat32"])
        for copy in range(fats):
            image.seek(sectors * 512 + copy * fat_length)
            image.write(fat.astype("<u4").tobytes())
        info = int.from_bytes(boot[48:50], "little") * 512
        image.seek(info + 488)
        image.write(struct.pack("<II", int((fat[2:] == 0).sum()), int(np.flatnonzero(fat).max())))


# -- exFAT ------------------------------------------------------------------------------------------------------------


def _rotated(total: NDArray[np.uint16], byte: NDArray[np.integer] | int) -> NDArray[np.uint16]:
    turned: NDArray[np.uint16] = (total << 15 | total >> 1).astype(np.uint16)
    return turned + np.asarray(byte, np.uint16)


def _name_hash(name: str) -> int:
    total = np.zeros(1, np.uint16)
    for byte in name.upper().encode("utf-16-le"):
        total = _rotated(total, byte)
    return int(total[0])


def _exfat_set(name: str, *, directory: bool) -> bytes:
    """The entries of one ASCII name, without cluster, sizes and checksum."""
    units = name.encode("utf-16-le")
    count = -(-len(units) // 30)
    stamp = _DATE << 16 | _TIME
    head = struct.pack(
        "<BBHHHIIIBBBBB7x", 0x85, 1 + count, 0, 0x10 if directory else 0x20, 0, *[stamp] * 3, 0, 0, *[0x80] * 3
    )
    stream = struct.pack("<BBBBHHQIIQ", 0xC0, 1, 0, len(name), _name_hash(name), 0, 0, 0, 0, 0)
    names = [b"\xc1\0" + units[30 * i : 30 * i + 30].ljust(30, b"\0") for i in range(count)]
    return b"".join([head, stream, *names])


def _filled_sets(sets: UInt8s, first: Int64s, sizes: Int64s, *, contiguous: bool) -> UInt8s:
    """Sets uint8 (n, entries, 32) with cluster, sizes and checksum put in."""
    sets = sets.copy()
    sets[:, 1, 1] = np.where(contiguous & (sizes > 0), 3, 1)
    sets[:, 1, 8:16] = sets[:, 1, 24:32] = sizes.astype("<u8")[:, None].view(np.uint8)
    sets[:, 1, 20:24] = first.astype("<u4")[:, None].view(np.uint8)
    flat = sets.reshape(len(sets), sets.shape[1] * 32)
    total = np.zeros(len(sets), np.uint16)
    for i in range(flat.shape[1]):
        if i not in (2, 3):
            total = _rotated(total, flat[:, i])
    sets[:, 0, 2:4] = total.astype("<u2")[:, None].view(np.uint8)
    return sets


def make_exfat(
    path: Path, size: int | str, files: int, directories: int, *, groups: int = 20, scattered: bool = False
) -> None:
    """An exFAT image with clusters of 4 KiB, as `make_fat32`. Needs mkfs.exfat (exfatprogs).

    Contiguous files and directories have no chain in the FAT; scattered ones have.

    Raises:
        ValueError: they do not fit.
    """
    plan = _plan(files, directories, groups)
    _new_image(path, size)
    _run("mkfs.exfat", "-c", str(_CLUSTER), "-L", "many files", str(path))
    most = int(plan.counts.max(initial=0))
    of_files = np.frombuffer(b"".join(_exfat_set(f"file {i:05d}.txt", directory=False) for i in range(most)), np.uint8)
    of_files = of_files.reshape(most, -1, 32)
    of_directories = np.frombuffer(b"".join(_exfat_set(name, directory=True) for name in plan.names), np.uint8)
    of_directories = of_directories.reshape(len(plan.names), -1, 32)
    listed = [plan.below(i) for i in range(len(plan.counts))]
    with path.open("r+b") as image:
        boot = image.read(512)
        shift = boot[108]
        fat_start, _, heap_start, count, root = struct.unpack_from("<IIIII", boot, 80)
        heap = heap_start << shift
        image.seek(heap + (root - 2) * _CLUSTER)
        system = image.read(_CLUSTER)
        system = system[: 32 * next(i for i in range(_CLUSTER // 32) if not system[32 * i])]
        bitmap = next(system[at : at + 32] for at in range(0, len(system), 32) if system[at] == 0x81)
        lengths = [
            32 * (of_directories.shape[1] * len(below) + of_files.shape[1] * int(n)) + (0 if i else len(system))
            for i, (below, n) in enumerate(zip(listed, plan.counts.tolist(), strict=True))
        ]
        clusters = _Clusters(plan, lengths, count, root - 1, scattered=scattered)
        firsts, ends = clusters.first_of_files(), np.cumsum(plan.counts)
        own = np.array([root, *(int(clusters.directory(i)[0]) for i in range(1, len(listed)))])
        room = clusters.of_directories * _CLUSTER
        contiguous = not scattered
        folders = _filled_sets(of_directories, own[1:], room[1:], contiguous=contiguous)
        for number, below in enumerate(listed):
            mine = slice(int(ends[number] - plan.counts[number]), int(ends[number]))
            sets = _filled_sets(
                of_files[: mine.stop - mine.start], firsts[mine], plan.sizes[mine], contiguous=contiguous
            )
            inside = folders[np.array(below, np.int64) - 1]
            table = b"".join([b"" if number else system, inside.tobytes(), sets.tobytes()])
            where = clusters.directory(number) if number else np.append(root, clusters.directory(0))
            _write_directory(image, heap, where, table)
        image.seek(fat_start << shift)
        fat = np.zeros(count + 2, np.uint32)
        fat[: root + 1] = np.frombuffer(image.read(4 * (root + 1)), "<u4")
        clusters.link(fat, root, _END["exfat"])
        if contiguous:  # only the root's chain counts; what the FAT has of the others is never looked at
            more = clusters.directory(0)
            kept = fat[more].copy()
            fat[root + 1 :] = 0
            fat[more] = kept
        image.seek(fat_start << shift)
        image.write(fat.astype("<u4").tobytes())
        bits = np.zeros(-(-count // 8) * 8, np.uint8)
        bits[: root - 1] = 1
        bits[clusters.sequence - 2] = 1
        image.seek(heap + (int.from_bytes(bitmap[20:24], "little") - 2) * _CLUSTER)
        image.write(np.packbits(bits, bitorder="little").tobytes())
        image.seek(112)
        image.write(bytes([int(bits.sum()) * 100 // count]))
