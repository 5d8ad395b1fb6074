"""What reading qcow2 costs, beside qemu-img and qemu-io.

    python benchmarks/qcow2.py [--folder FOLDER] [--tables 4096] [--size 1024]

1. A disk of 2 TB (of `--tables` times 512 MiB) in 33 million fragments, made as a sparse file: time, requests and bytes
   of opening it, and of 1,000 reads of 4 KiB at random places; beside them qemu-io doing the same reads.
2. A disk of `--size` MiB, standard, compressed (zlib, zstd) and with extended L2: read from end to end, beside
   `qemu-img convert` to a raw file, and 2,000 times at random places, beside qemu-io.

Prints ratios: below 1 we are faster. Needs qemu-utils and, in the folder, 0.5 GB for the first and three times the size
for the second.
"""

from __future__ import annotations

import argparse
import random
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pseudomount import open_backup
from pseudomount.storage import LocalStore

CLUSTER = 65536
PER_TABLE = CLUSTER // 8


class Counting(LocalStore):
    """Counts what is read."""

    requests = fetched = 0

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """As the store's, counted."""
        data = super().read(name, offset, length)
        self.requests += 1
        self.fetched += len(data)
        return data


def make_fragmented(path: Path, tables: int) -> None:
    """Header, L1 and L2 tables of a disk each cluster of which is somewhere else; the clusters are holes."""
    l1_clusters = -(-tables * 8 // CLUSTER)
    counts = CLUSTER * (1 + l1_clusters)
    first_table = 2 + l1_clusters
    size, clusters = tables * PER_TABLE * CLUSTER, tables * PER_TABLE
    places = np.random.default_rng(1).permutation(clusters).astype(np.uint64)
    places = (places + np.uint64(first_table + tables)) * np.uint64(CLUSTER) | np.uint64(1 << 63)
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, size, 0, tables, CLUSTER, counts, 1, 0, 0)
    header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    with path.open("wb") as file:
        file.write(header.ljust(CLUSTER, b"\0"))
        l1 = (np.arange(tables, dtype=np.uint64) + np.uint64(first_table)) * np.uint64(CLUSTER)
        file.write((l1 | np.uint64(1 << 63)).astype(">u8").tobytes())
        file.seek(first_table * CLUSTER)
        for table in range(tables):
            file.write(places[table * PER_TABLE : (table + 1) * PER_TABLE].astype(">u8").tobytes())
        file.truncate((first_table + tables + clusters) * CLUSTER)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def qemu_io(path: Path, reads: list[tuple[int, int]]) -> float:
    """Seconds that qemu-io takes for reads, less those of starting it."""
    commands = "".join(f"read -q {offset} {length}\n" for offset, length in reads)

    def run(text: str) -> float:
        command = ["qemu-io", "-r", "-f", "qcow2", str(path)]
        return timed(lambda: subprocess.run(command, input=text, text=True, check=True, capture_output=True))

    return max(run(commands) - run(""), 1e-6)


def report(what: str, ours: float, theirs: float, peer: str) -> None:
    """One line."""
    print(f"{what:<52} {ours:8.3f} s   {peer} {theirs:8.3f} s   ratio {ours / theirs:5.2f}")


def fragmented(folder: Path, tables: int) -> None:
    """The first question."""
    path = folder / "fragmented.qcow2"
    make_fragmented(path, tables)
    store = Counting(folder)
    begin = time.perf_counter()
    with open_backup(path.name, store=store) as backup:
        disk = backup.disks["disk0"]
        opening = time.perf_counter() - begin
        print(f"a disk of {disk.size / 2**40:.1f} TiB in {tables * PER_TABLE:,} fragments")
        print(f"  opened in {opening * 1000:.1f} ms: {store.requests} requests, {store.fetched:,} bytes")
        store.requests = store.fetched = 0
        dice = random.Random(2)
        reads = [(dice.randrange(disk.size // 4096) * 4096, 4096) for _ in range(1000)]
        ours = timed(lambda: [disk.read(*read) for read in reads])
        print(f"  1,000 reads: {store.requests:,} requests, {store.fetched:,} bytes")
        report("  1,000 random reads of 4 KiB, one by one", ours, theirs := qemu_io(path, reads), "qemu-io")
        offsets = np.array([offset for offset, _ in reads])
        report("  the same as one batch", timed(lambda: disk.read_many(offsets, 4096)), theirs, "qemu-io")
    path.unlink()


def whole_images(folder: Path, size: int) -> None:
    """The second question."""
    raw = folder / "vm.raw"
    dice = random.Random(3)
    text = b"".join(b"%d cards of %d\n" % (i, dice.randrange(10**6)) for i in range(60_000))
    with raw.open("wb") as file:
        for number in range(size):
            file.write(dice.randbytes(1 << 20) if number % 3 == 0 else text[: 1 << 20].ljust(1 << 20, b"\0"))
    kinds = {
        "standard": [],
        "extended L2": ["-o", "extended_l2=on"],
        "zlib": ["-c"],
        "zstd": ["-c", "-o", "compression_type=zstd"],
    }
    for name, options in kinds.items():
        path = folder / "vm.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, raw, path], check=True)
        out = folder / "out.raw"
        convert = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(out)]
        theirs = timed(lambda command=convert: subprocess.run(command, check=True))  # type: ignore[misc]
        with open_backup(path) as backup:
            disk = backup.disks["disk0"]

            def copy() -> None:
                with out.open("wb") as file:  # noqa: B023  (called at once)
                    for at in range(0, disk.size, 8 << 20):  # noqa: B023
                        file.write(disk.read(at, min(8 << 20, disk.size - at)))  # noqa: B023

            report(f"{name}: {size} MiB from end to end, to a raw file", timed(copy), theirs, "qemu-img")
        with open_backup(path) as backup:
            disk = backup.disks["disk0"]
            reads = [(dice.randrange(disk.size // 512 - 8) * 512, 4096) for _ in range(2000)]
            ours = timed(lambda reads=reads, disk=disk: [disk.read(*read) for read in reads])  # type: ignore[misc]
            report(f"{name}: 2,000 random reads of 4 KiB", ours, qemu_io(path, reads), "qemu-io")
        path.unlink()
        out.unlink()
    raw.unlink()


def main() -> None:
    """Measures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, help="where images are made; a temporary folder")
    arguments.add_argument("--tables", type=int, default=4096)
    arguments.add_argument("--size", type=int, default=1024, help="MiB")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as made:
        fragmented(Path(made), given.tables)
        whole_images(Path(made), given.size)


if __name__ == "__main__":
    main()
