"""Whole disks, maps and random reads against qemu-img, over what qemu-img and qemu-io can make."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pseudomount.findings import FindingLog, Severity
from tests.support.qcow2 import (
    assert_map,
    assert_random_reads,
    create,
    disk_of,
    facts,
    opened,
    qemu_io,
    random_writes,
    raw_of,
    run,
    whole,
)

pytestmark = pytest.mark.tools("qemu-img", "qemu-io")
MIB = 1 << 20


def check(path: Path, seed: int = 1, reads: int = 2000) -> FindingLog:
    """Everything about an image: whole, at random, and its map."""
    findings = FindingLog()
    truth = raw_of(path)
    with opened(path, findings) as device:
        assert device.size == len(truth)
        assert whole(device) == truth
        assert_random_reads(device, truth, seed, reads)
        assert_map(device, path)
    return findings


@pytest.mark.parametrize("cluster", ["512", "4k", "64k", "2M"])
@pytest.mark.parametrize("options", [("compat=0.10",), (), ("lazy_refcounts=on",)])
def test_cluster_sizes_and_versions(tmp_path: Path, cluster: str, options: tuple[str, ...]) -> None:
    size = 24 * MIB + 512 * 7
    path = create(tmp_path / "vm.qcow2", size, f"cluster_size={cluster}", *options)
    random_writes(path, size, seed=len(cluster), count=60, largest=600_000)
    assert not [finding for finding in check(path) if finding.severity > Severity.NOTE]
    assert facts(disk_of(path))["version"] == (2 if "compat=0.10" in options else 3)


@pytest.mark.parametrize("cluster", ["16k", "64k", "2M"])
def test_extended_l2(tmp_path: Path, cluster: str) -> None:
    size = 24 * MIB + 512 * 7
    path = create(tmp_path / "vm.qcow2", size, f"cluster_size={cluster}", "extended_l2=on")
    random_writes(path, size, seed=5, count=150, largest=60_000)
    check(path)


def test_10_000_random_reads(tmp_path: Path) -> None:
    size = 40 * MIB
    path = create(tmp_path / "vm.qcow2", size)
    random_writes(path, size, seed=77, count=120)
    truth = raw_of(path)
    with opened(path) as device:
        assert_random_reads(device, truth, 3, 10_000)


def compressible(size: int, seed: int) -> bytes:
    """Text, noise and zeros in turn: clusters that pack well, not at all, and to nothing."""
    dice = random.Random(seed)
    parts: list[bytes] = []
    have = 0
    while have < size:
        length = dice.randrange(1, 300_000)
        kind = dice.randrange(3)
        part = bytes(length) if kind == 0 else dice.randbytes(length) if kind == 1 else (b"%d cards\n" % have) * length
        parts.append(part[:length])
        have += length
    return b"".join(parts)[:size]


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
@pytest.mark.parametrize("cluster", ["512", "64k", "2M"])
@pytest.mark.parametrize("extended", [False, True])
def test_compressed(tmp_path: Path, kind: str, cluster: str, extended: bool) -> None:
    if extended and cluster == "512":
        pytest.skip("extended L2 needs clusters of 16 KiB")
    raw = tmp_path / "vm.raw"
    raw.write_bytes(compressible(9 * MIB + 5 * 512, 4))
    path = tmp_path / "vm.qcow2"
    options = f"cluster_size={cluster},compression_type={kind},extended_l2={'on' if extended else 'off'}"
    run("qemu-img", "convert", "-c", "-O", "qcow2", "-o", options, raw, path)
    qemu_io(path, ["write -P 3 1000k 5k", "write -z 3M 256k", f"write -P 9 {9 * MIB} 2k"])
    check(path)
    assert facts(disk_of(path))["compression"] == kind


@pytest.mark.parametrize("how", ["off", "metadata", "falloc", "full"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_preallocated(tmp_path: Path, how: str, extended: str) -> None:
    path = create(tmp_path / "vm.qcow2", 6 * MIB, f"preallocation={how}", f"extended_l2={extended}")
    qemu_io(path, ["write -P 5 100k 70k", "write -z 1M 1M", "discard 3M 256k"])
    check(path)


def test_zeros_and_discards(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", 4 * MIB)
    qemu_io(
        path, ["write -P 1 0 4M", "write -z 64k 64k", "write -z -u 256k 128k", "discard 1M 512k", "write -P 2 1M 1k"]
    )
    check(path)
    with opened(path) as device:
        assert device.read(64 << 10, 64 << 10) == bytes(64 << 10)


@pytest.mark.parametrize("sizes", [("20M", "40M"), ("40M", "20M"), ("3M", "70M")])
def test_resized(tmp_path: Path, sizes: tuple[str, str]) -> None:
    path = create(tmp_path / "vm.qcow2", sizes[0])
    random_writes(path, 3 * MIB, seed=8)
    run("qemu-img", "resize", "-q", "--shrink", path, sizes[1])
    qemu_io(path, ["write -P 8 2M 300k", "write -P 8 15M 300k"])
    check(path)


def test_a_disk_of_nothing_and_of_odd_sizes(tmp_path: Path) -> None:
    assert check(create(tmp_path / "a.qcow2", 0), reads=0) is not None
    path = create(tmp_path / "b.qcow2", 65536 * 3 + 512)
    qemu_io(path, [f"write -P 1 {65536 * 3} 512"])
    check(path, reads=300)


# -- more than one file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["off", "on"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_external_data_file(tmp_path: Path, raw: str, extended: str) -> None:
    path = create(
        tmp_path / "vm.qcow2", 5 * MIB, "data_file=vm.data", f"data_file_raw={raw}", f"extended_l2={extended}"
    )
    # In the very first cluster, too: its place in the data file is 0.
    qemu_io(path, ["write -P 4 0 3k", "write -P 5 700k 900k", "write -z 1M 100k", "write -P 6 4M 1M"])
    truth = raw_of(path)
    with opened(path) as device:
        assert whole(device) == truth
        assert_random_reads(device, truth, 1, 2000)
    if raw == "on":
        assert (tmp_path / "vm.data").read_bytes() == truth


def test_chain_of_three_over_a_shorter_raw(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(random.Random(1).randbytes(3 * MIB + 1000))
    create(tmp_path / "middle.qcow2", 7 * MIB, "cluster_size=4k", backing="base.raw", fmt="raw")
    random_writes(tmp_path / "middle.qcow2", 7 * MIB, seed=2, count=30)
    create(tmp_path / "upper.qcow2", 5 * MIB, "extended_l2=on", backing="middle.qcow2")
    random_writes(tmp_path / "upper.qcow2", 5 * MIB, seed=3, count=30)
    top = create(tmp_path / "top.qcow2", 9 * MIB, "compat=0.10", "cluster_size=128k", backing="upper.qcow2")
    random_writes(top, 9 * MIB, seed=4, count=10, zeros=False)
    findings = check(top)
    assert not list(findings)
    assert facts(disk_of(top))["backing_chain"] == ["upper.qcow2 (qcow2)", "middle.qcow2 (qcow2)", "base.raw (raw)"]


def test_a_shorter_image_between_hides_what_lies_beneath(tmp_path: Path) -> None:
    create(tmp_path / "base.qcow2", 4 * MIB)
    qemu_io(tmp_path / "base.qcow2", ["write -P 1 0 4M"])
    create(tmp_path / "short.qcow2", MIB + 512, backing="base.qcow2")
    top = create(tmp_path / "top.qcow2", 3 * MIB, backing="short.qcow2")
    check(top)
    with opened(top) as device:
        assert device.read(MIB + 511, 3) == b"\1\0\0"


def test_compressed_beneath_a_longer_overlay(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(compressible(2 * MIB + 512, 6))
    run("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, tmp_path / "base.qcow2")
    top = create(tmp_path / "top.qcow2", 4 * MIB, "cluster_size=4k", backing="base.qcow2")
    random_writes(top, 4 * MIB, seed=7, count=40, largest=20_000)
    check(top)


# -- snapshots -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("compat=0.10", "cluster_size=4k"), ("extended_l2=on",)])
def test_snapshots(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = create(tmp_path / "vm.qcow2", 6 * MIB, *options)
    truths = {}
    for number, name in enumerate(["first", "second one", "2"]):
        random_writes(path, 6 * MIB, seed=number, count=10)
        truths[name] = raw_of(path)
        run("qemu-img", "snapshot", "-c", name, path)
    random_writes(path, 6 * MIB, seed=10, count=10)
    check(path)
    for name, truth in truths.items():
        if name != "2":  # the id of the second, which comes before names
            with opened(path, snapshot=name) as device:
                assert whole(device) == truth
        assert raw_of(path, "-l", f"snapshot.name={name}") == truth
    for number, truth in enumerate(truths.values()):
        with opened(path, snapshot=str(number + 1)) as device:
            assert whole(device) == truth
    assert [row["name"] for row in facts(disk_of(path))["snapshots"]] == list(truths)


def test_a_snapshot_of_a_disk_that_was_resized(tmp_path: Path) -> None:
    path = create(tmp_path / "vm.qcow2", 3 * MIB)
    qemu_io(path, ["write -P 1 0 3M"])
    truth = raw_of(path)
    run("qemu-img", "snapshot", "-c", "before", path)
    run("qemu-img", "resize", "-q", path, "700M")
    qemu_io(path, ["write -P 2 600M 1M"])
    with opened(path, snapshot="before") as device:
        assert whole(device) == truth
    with opened(path) as device:
        assert device.size == 700 * MIB
        assert device.read(600 * MIB - 1, 3) == b"\0\2\2"
