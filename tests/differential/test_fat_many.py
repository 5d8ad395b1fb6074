"""Volumes of thousands of files, as the benchmarks lay them out: sound for fsck and mtools, cheap to open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.images_fat import make_exfat, make_fat32
from pseudomount.filesystem import FileSystem, FileType
from pseudomount.findings import FindingLog
from pseudomount.testing.devices import CounterDevice
from pseudomount_fat import ExfatParser, FatParser
from tests.support.fat import Mapped
from tests.support.fat_make import run

ROOT = np.zeros(1, np.uint64)


@pytest.mark.tools("mkfs.fat", "fsck.fat", "mdir")
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("groups", [0, 5])
def test_fat32(groups: int, scattered: bool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_fat32(image, "300M", 3000, 70, groups=groups, scattered=scattered)
    run("fsck.fat", "-n", image)
    device = CounterDevice(Mapped(image))
    filesystem = FatParser().open(device, FindingLog())
    assert filesystem.label == "MANY FILES"
    paths = browse_all(filesystem, device, groups, scattered=scattered)
    listed = run("mdir", "-i", image, "-b", "-/", "::").splitlines()
    assert sorted(path.removeprefix("::").rstrip("/") for path in listed) == sorted(paths)


@pytest.mark.tools("mkfs.exfat", "fsck.exfat", "fls")
@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("groups", [0, 5])
def test_exfat(groups: int, scattered: bool, tmp_path: Path) -> None:
    image = tmp_path / "image"
    make_exfat(image, "300M", 3000, 70, groups=groups, scattered=scattered)
    run("fsck.exfat", "-n", image)
    device = CounterDevice(Mapped(image))
    filesystem = ExfatParser().open(device, FindingLog())
    assert filesystem.label == "many files"
    paths = browse_all(filesystem, device, groups, scattered=scattered)
    listed = [line.split("\t")[1] for line in run("fls", "-f", "exfat", "-r", "-p", "-u", image).splitlines()]
    assert sorted("/" + path for path in listed if not path.startswith("$") and "(Volume" not in path) == sorted(paths)


def browse_all(filesystem: FileSystem, device: CounterDevice, groups: int, *, scattered: bool) -> list[str]:
    """All paths, with what it costs to list the root and to follow every chain."""
    links = filesystem.children(ROOT)
    filesystem.rows(links.file)
    assert len(links) == (groups or 70)
    assert device.ranges <= 16
    assert device.bytes <= 200_000
    paths, files, level = [], [], {0: ""}
    while level:
        links = filesystem.children(np.array(list(level), np.uint64))
        assert not links.errors
        below = {}
        for parent, file, name, kind in zip(
            links.parent.tolist(), links.file.tolist(), links.name, links.type.tolist(), strict=True
        ):
            path = f"{level[parent]}/{name.decode()}"
            paths.append(path)
            if kind == FileType.DIRECTORY:
                below[file] = path
            else:
                files.append(file)
        level = below
    asked = np.array(files, np.uint64)
    rows = filesystem.rows(asked)
    # The makers give the sizes number * 7919 modulo 8193 in the order in which the files were written.
    assert sorted(rows.size.tolist()) == sorted(number * 7919 % 8193 for number in range(3000))
    device.reset()
    runs = filesystem.runs(asked)
    assert not runs.errors
    assert device.ranges <= 400  # the table and the bitmap, entries of 75 folders, and not one a file
    assert len(np.unique(runs.position)) == len(runs)
    assert (len(runs) > 3000 + 1000) == scattered
    assert int(runs.length.sum()) == int((-(-rows.size // 4096) * 4096).sum())
    assert list(filesystem.findings) == []
    return paths
