"""Memory of a catalogue of many files, and at the peak while it is built.

    python benchmarks/catalogue_memory.py [ROWS]

Made-up parts of a scan, so that nothing but the catalogue itself is measured: 100 files a directory, times, modes,
names of 8 to 20 bytes. In one case names come in the order of the files, as FAT has them; in the other in an order of
their own, with a hard link for each hundredth file, as ext and NTFS have them. Each case runs in a process of its own;
peak and result are resident memory over what it was with everything imported (Linux tells). Promised: 10 million rows
without a parser's own columns in 1.5 GB, and a peak of at most 1.25 times the result plus 256 MB.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.filesystem.catalogue import scan_catalogue
from pseudomount.filesystem.columns import Names, TimeColumn
from pseudomount.filesystem.contract import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    Targets,
)
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import FindingLog

UInt64s = NDArray[np.uint64]

CASES = ("in order", "in order, extra", "shuffled, links", "shuffled, links, extra")
_PART = 1 << 17
_ROOT = 5
_MB = 1 << 20


class MadeUp(FileSystem):
    """A file system of `count` files that has nothing but a scan."""

    name = "made up"
    root = _ROOT

    def __init__(self, count: int, *, shuffled: bool, extra: bool) -> None:
        self.count, self.shuffled, self.extra = count, shuffled, extra
        self.findings = FindingLog()

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        """Parts of 131,072 files."""
        random = np.random.default_rng(7)
        yield self._part(np.array([_ROOT], np.uint64), np.array([2], np.uint8), ScanLinks.none(), random)
        # Multiplying by an odd number goes through all numbers below a power of two in another order.
        size = 1 << self.count.bit_length()
        for first in range(0, self.count, _PART):
            number = np.arange(first, min(first + _PART, self.count))
            kind = np.where(number % 100 == 0, FileType.DIRECTORY, FileType.FILE).astype(np.uint8)
            named = number
            if self.shuffled:
                named = np.arange(
                    first * (size // self.count + 1), min((first + _PART) * (size // self.count + 1), size)
                )
                named = named * 0x9E3779B1 % size
                named = named[named < self.count]
                named = np.concatenate([named, named[(named % 100 == 7)]])
            yield self._part((number + 16).astype(np.uint64), kind, self._links(named, random), random)

    def _links(self, named: NDArray[np.int64], random: np.random.Generator) -> ScanLinks:
        folder = named % 100 == 0
        above = np.where(folder, np.where(named < 10_000, _ROOT, named // 10_000 * 100 + 16), named // 100 * 100 + 16)
        lengths = random.integers(8, 21, len(named))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        names = Names(random.integers(97, 123, int(offsets[-1])).astype(np.uint8), offsets)
        kind = np.where(folder, FileType.DIRECTORY, FileType.FILE).astype(np.uint8)
        zeros = np.zeros(len(named), np.bool_)
        return ScanLinks(above.astype(np.uint64), (named + 16).astype(np.uint64), names, kind, zeros)

    def _part(self, ids: UInt64s, kind: NDArray[np.uint8], links: ScanLinks, random: np.random.Generator) -> ScanBatch:
        n = len(ids)
        times = [TimeColumn(random.integers(1 << 60, 1 << 61, n)) for _ in range(4)]
        rows = FileRows(
            file=ids,
            subvolume=np.zeros(n, np.uint64),
            inode=ids & np.uint64((1 << 48) - 1),
            generation=random.integers(0, 1 << 32, n),
            type=kind,
            size=random.integers(0, 1 << 40, n),
            allocated=random.integers(0, 1 << 40, n),
            mode=random.integers(0, 0o7777, n),
            uid=random.integers(0, 70_000, n),
            gid=random.integers(0, 70_000, n),
            links=random.integers(1, 3, n),
            created=times[0],
            modified=times[1],
            changed=times[2],
            accessed=times[3],
            flags=random.integers(0, 1 << 20, n).astype(np.uint64),
            extra={"second": random.integers(0, 1 << 40, n), "third": random.integers(0, 9, n).astype(np.int32)}
            if self.extra
            else {},
        )
        return ScanBatch(rows, links, np.zeros(n, np.bool_), ScanStreams.none(), done=int(ids[-1]) / self.count)

    def children(self, directories: UInt64s) -> LinkRows:
        """Not asked for."""
        raise NotImplementedError

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """Not asked for."""
        raise NotImplementedError

    def rows(self, files: UInt64s) -> FileRows:
        """Not asked for."""
        raise NotImplementedError

    def runs(self, files: UInt64s) -> DataRuns:
        """Not asked for."""
        raise NotImplementedError

    def readlink(self, files: UInt64s) -> Targets:
        """Not asked for."""
        raise NotImplementedError

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """Not asked for."""
        raise NotImplementedError


def resident(key: str) -> int:
    """Bytes of resident memory: "VmRSS" now, "VmHWM" at most so far. Linux tells."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def measure(case: str, count: int) -> None:
    """One case, in this process."""
    options = {"shuffled": "shuffled" in case, "extra": "extra" in case}
    scan_catalogue(MadeUp(1000, **options), extra=True)  # what is imported and made on first use is there now
    gc.collect()
    base = resident("VmRSS")
    begun = time.perf_counter()
    found = scan_catalogue(MadeUp(count, **options), extra=True)
    spent = time.perf_counter() - begun
    gc.collect()
    result, peak = found.arrow.nbytes, resident("VmHWM") - base
    budget = int(1.25 * result + 256 * _MB)
    kept = resident("VmRSS") - base
    print(
        f"{case:24} {len(found):>11,} rows  result {result // _MB:>5} MB (resident {kept // _MB} MB)"
        f"  peak {peak // _MB:>5} MB of {budget // _MB} MB  {spent:.1f} s  {'ok' if peak <= budget else 'TOO MUCH'}"
    )


def main() -> None:
    """Each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("rows", nargs="?", type=int, default=10_000_000)
    parser.add_argument("--case")
    given = parser.parse_args()
    if given.case:
        measure(given.case, given.rows)
        return
    for case in CASES:
        subprocess.run([sys.executable, __file__, str(given.rows), "--case", case], check=True)


if __name__ == "__main__":
    main()
