"""How fast and how large is an extent index in memory?

    python benchmarks/extents.py --extents 10000000 --ranges 1000000

Extents of 4 to 64 KiB of one backup in 1000 objects, a tenth of the disk in gaps, in shuffled order with --shuffle,
zstd-compressed with --compressed. Prints times and the peak of the process's resident memory.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from pseudomount.extents import RAW, Codec, ColumnIndex, OverlayIndex


def peak_mb() -> float:
    """Peak resident memory in MB, or nan where the system does not tell."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Builds, resolves, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extents", type=int, default=10_000_000)
    parser.add_argument("--ranges", type=int, default=1_000_000)
    parser.add_argument("--length", type=int, default=4096, help="bytes of a range")
    parser.add_argument("--shuffle", action="store_true", help="hand the extents over in no order")
    parser.add_argument("--compressed", action="store_true")
    parser.add_argument("--overlay", action="store_true", help="resolve through an overlay over an equal index, too")
    options = parser.parse_args()

    random = np.random.default_rng(1)
    n = options.extents * 10 // 9  # with the gaps
    length = random.integers(1, 17, n, np.uint32) * np.uint32(4096)
    offset = np.cumsum(length, dtype=np.int64)
    size = int(offset[-1])
    offset -= length
    number = (np.arange(n, dtype=np.uint32) // np.uint32(n // 1000 + 1)).astype(np.uint16)
    keep = np.arange(n, dtype=np.uint32) % np.uint32(10) > 0
    offset, length, number = offset[keep], length[keep], number[keep]
    del keep
    if options.shuffle:
        order = random.permutation(len(offset))
        offset, length, number = offset[order], length[order], number[order]
        del order
    stored = length // np.uint32(2) if options.compressed else None
    print(f"{len(offset):,} extents of a disk of {size / 1e9:,.0f} GB; peak before {peak_mb():,.0f} MB")

    start = time.perf_counter()
    index = ColumnIndex.from_arrays(
        size,
        offset,
        length,
        offset,
        objects=[f"chunk-{i:04}" for i in range(1000)],
        number=number,
        stored_length=stored,
        codec=1 if options.compressed else None,
        codecs=(RAW, Codec("zstd")),
    )
    elapsed = time.perf_counter() - start
    print(f"build    {elapsed:6.2f} s, columns {index.nbytes / 1e6:,.0f} MB, peak {peak_mb():,.0f} MB")

    at = random.integers(0, size - options.length, options.ranges)
    start = time.perf_counter()
    pieces = index.resolve(at, np.full(len(at), options.length))
    print(
        f"resolve  {time.perf_counter() - start:6.2f} s, {len(at):,} random ranges, {len(pieces):,} pieces, "
        f"peak {peak_mb():,.0f} MB"
    )
    if options.overlay:
        over = OverlayIndex(index, index)
        start = time.perf_counter()
        pieces = over.resolve(at, np.full(len(at), options.length))
        print(
            f"overlay  {time.perf_counter() - start:6.2f} s, {len(at):,} random ranges, {len(pieces):,} pieces, "
            f"peak {peak_mb():,.0f} MB"
        )
    del pieces
    start = time.perf_counter()
    for i in at[:10_000].tolist():
        index.around(i)
    print(f"around   {(time.perf_counter() - start) / 1e4 * 1e6:6.1f} µs each")


if __name__ == "__main__":
    main()
