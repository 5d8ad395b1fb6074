"""How long does one small read take, through each layer and through stacks of them?

    python benchmarks/small_reads.py --length 4096 --rounds 20000

Prints microseconds a `read`, the median of several runs, for reads of data that lie in memory or in a cache; and, for
comparison, what the same number of ranges costs each when asked for as one `read_many`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from pseudomount.device import (
    BlockDevice,
    CacheDevice,
    ConcatDevice,
    Layer,
    MappedDevice,
    OverlayDevice,
    PseudoDisk,
    SliceDevice,
    TraceDevice,
    open_reader,
)
from pseudomount.extents import ColumnIndex
from pseudomount.storage import LocalStore
from pseudomount.testing import MemoryDevice

MIB = 1 << 20
SIZE = 32 * MIB


def mapped(inner: BlockDevice, run: int = 4096) -> MappedDevice:
    """A file of runs of `run` bytes in random order: the worst that a file system does to a file."""
    runs = inner.size // run
    places = np.random.default_rng(1).permutation(runs).astype(np.int64) * run
    return MappedDevice(inner, np.arange(runs) * run, np.full(runs, run), places, runs * run)


def overlaid(inner: BlockDevice) -> OverlayDevice:
    """Every eighth block was written."""
    device = OverlayDevice(inner)
    for offset in range(0, inner.size - 4096, 8 * 4096):
        device.write(offset, inner.read(offset, 4096))
    return device


def devices(path: Path, content: bytes, opened: ExitStack) -> dict[str, BlockDevice]:
    """What is measured."""
    memory = MemoryDevice(content)
    cache = CacheDevice(memory, 2 * SIZE)

    def pseudo() -> PseudoDisk:
        whole = np.array([SIZE], np.int64)
        index = ColumnIndex(SIZE, np.zeros(1, np.int64), whole, objects=[path.name])
        store = LocalStore(path.parent)
        opened.callback(store.close)
        return opened.enter_context(PseudoDisk(index, store))

    return {
        "memory": memory,
        "layer": Layer(memory),
        "slice": SliceDevice(memory, 0, SIZE),
        "concat of 2": ConcatDevice([SliceDevice(memory, 0, SIZE // 2), SliceDevice(memory, SIZE // 2, SIZE // 2)]),
        "mapped, 8,192 runs": mapped(memory),
        "cache": cache,
        "trace": TraceDevice(memory),
        "overlay, 1 in 8 written": overlaid(memory),
        "slice over cache": SliceDevice(cache, 0, SIZE),
        "mapped over slice over cache": mapped(SliceDevice(cache, 0, SIZE)),
        "mapped, overlay, slice, cache": mapped(overlaid(SliceDevice(cache, 0, SIZE))),
        "pseudo-disk, local file": pseudo(),
        "slice over pseudo-disk": SliceDevice(pseudo(), 0, SIZE),
        "cache over pseudo-disk": CacheDevice(pseudo(), 2 * SIZE),
    }


def median(run: Callable[[], object], rounds: int, repeats: int = 5) -> float:
    """Microseconds a round."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) / rounds * 1e6)
    return statistics.median(times)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096, help="bytes of a read")
    parser.add_argument("--rounds", type=int, default=20_000, help="reads of a run")
    options = parser.parse_args()
    length, rounds = options.length, options.rounds

    content = random.Random(1).randbytes(SIZE)
    offsets = np.random.default_rng(2).integers(0, (SIZE - length) // 4096, rounds) * 4096
    numbers = offsets.tolist()
    print(f"{length} bytes a read, {rounds} reads at random multiples of 4096, of {SIZE // MIB} MiB")
    print(f"{'':32}{'µs a read':>12}{'µs a range of a batch':>24}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        path = Path(folder) / "disk.img"
        path.write_bytes(content)
        for name, device in devices(path, content, opened).items():

            def single(device: BlockDevice = device) -> None:
                for offset in numbers:
                    device.read(offset, length)

            def batch(device: BlockDevice = device) -> None:
                step = max(1, device.batch_budget // length)
                for first in range(0, rounds, step):
                    device.read_many(offsets[first : first + step], length).raise_first()

            single()  # what can be cached is
            print(f"{name:32}{median(single, rounds):12.2f}{median(batch, rounds, 3):24.2f}", flush=True)
            with open_reader(device) as file:
                assert file.read(MIB) == device.read(0, MIB)


if __name__ == "__main__":
    main()
