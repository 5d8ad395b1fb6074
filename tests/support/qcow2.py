"""qcow2 images as qemu-img and qemu-io make and read them, and the same through our index."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pseudomount.device import ExtentKind, PseudoDisk
from pseudomount.findings import FindingLog
from pseudomount.formats import Disk
from pseudomount.formats.detect import find_format, make_source
from pseudomount.formats.qcow2 import Qcow2Format
from pseudomount.formats.raw import RawFormat
from pseudomount.storage import LocalStore, Store

FORMATS = (Qcow2Format(), RawFormat())


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program prints."""
    done = subprocess.run([str(part) for part in command], check=False, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def create(path: Path, size: int | str | None, *options: str, backing: str | None = None, fmt: str = "qcow2") -> Path:
    """An image by `qemu-img create`; `options` as "key=value"."""
    settings = ["-o", ",".join(options)] if options else []
    beneath = ["-b", backing, "-F", fmt] if backing is not None else []
    sizes = [] if size is None else [str(size)]
    run("qemu-img", "create", "-q", "-f", "qcow2", *settings, *beneath, path.name, *sizes, cwd=path.parent)
    return path


def qemu_io(path: Path, commands: Sequence[str], fmt: str = "qcow2") -> str:
    """Commands of qemu-io, as "write -P 7 0 64k"."""
    parts = [part for command in commands for part in ("-c", command)]
    out = run("qemu-io", "-f", fmt, "--discard", "unmap", *parts, path.name, cwd=path.parent)
    assert "rror" not in out, out
    assert "failed" not in out, out
    return out


def random_writes(
    path: Path, size: int, seed: int, count: int = 40, largest: int = 200_000, zeros: bool = True
) -> None:
    """Writes patterns, and zeros and discards among them, at unaligned places."""
    dice = random.Random(seed)
    commands = []
    for _ in range(count):
        offset = dice.randrange(size // 512) * 512
        length = min(dice.randrange(1, largest // 512) * 512, size - offset)
        kind = dice.choice(["write", "write", "write", "zero", "unmap", "discard"] if zeros else ["write"])
        pattern = dice.randrange(1, 256)
        commands.append(
            {
                "write": f"write -P {pattern} {offset} {length}",
                "zero": f"write -z {offset} {length}",
                "unmap": f"write -z -u {offset} {length}",
                "discard": f"discard {offset} {length}",
            }[kind]
        )
    qemu_io(path, commands)


def raw_of(path: Path, *arguments: str) -> bytes:
    """The disk's bytes as `qemu-img convert` sees them."""
    target = path.with_suffix(".truth")
    run("qemu-img", "convert", "-O", "raw", *arguments, path.name, target.name, cwd=path.parent)
    data = target.read_bytes()
    target.unlink()
    return data


def disk_of(path: Path, findings: FindingLog | None = None, store: Store | None = None, **options: str) -> Disk:
    """The image's disk."""
    source = make_source(store or LocalStore(path.parent), [path.name], options, FORMATS)
    (disk,) = find_format(source, FORMATS).open(source, FindingLog() if findings is None else findings)
    return disk


@contextmanager
def opened(path: Path, findings: FindingLog | None = None, **options: str) -> Iterator[PseudoDisk]:
    """The image as a device."""
    store = LocalStore(path.parent)
    disk = disk_of(path, findings, store, **options)
    with PseudoDisk(disk.index, disk.store or store) as device:
        yield device
    if disk.store is not None:
        disk.store.close()
    store.close()


def whole(device: PseudoDisk, step: int = 3_000_000) -> bytes:
    """All of a device."""
    return b"".join(device.read(at, min(step, device.size - at)) for at in range(0, device.size, step))


def facts(disk: Disk) -> Mapping[str, Any]:
    """What the format says of the image."""
    return dict(json.loads(disk.metadata["qcow2.json"]))


def assert_random_reads(device: PseudoDisk, truth: bytes, seed: int, count: int = 10_000) -> None:
    """Unaligned ranges, one by one and in batches, are those of `truth`."""
    dice = np.random.default_rng(seed)
    offsets = dice.integers(0, len(truth), count)
    lengths = np.minimum(np.minimum(dice.geometric(1 / 3000, count), 300_000), len(truth) - offsets)
    lengths[::97] = 0
    pairs = list(zip(offsets.tolist(), lengths.tolist(), strict=True))
    for offset, length in pairs[: count // 2]:
        assert device.read(offset, length) == truth[offset : offset + length], (offset, length)
    for first in range(0, count, 1000):
        part = slice(first, first + 1000)
        batch = device.read_many(offsets[part], lengths[part])
        assert not batch.errors
        for i, (offset, length) in enumerate(pairs[part]):
            assert batch.view(i).tobytes() == truth[offset : offset + length], (offset, length)


def assert_map(device: PseudoDisk, path: Path) -> None:
    """`qemu-img map` agrees: on what is data, and where in the image it lies."""
    rows = json.loads(run("qemu-img", "map", "-f", "qcow2", "--output=json", path.name, cwd=path.parent))
    ours = device.extents()
    starts, ends = ours.offsets, ours.offsets + ours.lengths
    for row in rows:
        begin, length = row["start"], min(row["length"], device.size - row["start"])
        if length <= 0:
            continue
        first = int(np.searchsorted(ends, begin, side="right"))
        last = int(np.searchsorted(starts, begin + length, side="left"))
        kinds = set(ours.kinds[first:last].tolist())
        if row["data"] and not row["zero"]:
            assert kinds == {ExtentKind.DATA}, row
        elif not row["data"] and row["depth"] == 0 and row.get("offset") is None:
            assert ExtentKind.DATA not in kinds, row
        if row["data"] and row.get("offset") is not None and row["depth"] == 0:
            pieces = device.index.resolve([begin], [length])
            within = pieces.offset - begin
            kept = pieces.kind == ExtentKind.DATA
            assert (pieces.object_offset[kept] == row["offset"] + within[kept]).all(), row
