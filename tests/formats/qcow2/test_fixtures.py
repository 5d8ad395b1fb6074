"""The images of fixtures/qcow2, made and read by qemu-img elsewhere; needs no tool of the system."""

from __future__ import annotations

import functools
import hashlib
import lzma
from pathlib import Path

import pytest

from pseudomount import open_backup
from tests.support.fixtures import FOLDER
from tests.support.qcow2 import assert_random_reads, opened, whole

_IMAGES = FOLDER / "qcow2"


def manifest() -> list[tuple[str, str, int, str]]:
    """Image, snapshot or "-", size of the disk, SHA-256 of its bytes."""
    lines = (_IMAGES / "manifest.tsv").read_text("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if not line.startswith("#")]
    return [(name, snapshot, int(size), checksum) for name, snapshot, size, checksum in rows]


def image_names() -> list[str]:
    """All images."""
    return sorted({name for name, *_ in manifest()})


@functools.cache
def packed_image(name: str) -> bytes:
    """The bytes of an image."""
    return lzma.decompress((_IMAGES / f"{name}.qcow2.xz").read_bytes())


def unpacked(name: str, folder: Path) -> Path:
    """The image in a folder, with its backing file."""
    path = folder / f"{name}.qcow2"
    path.write_bytes(packed_image(name))
    if name == "chain":
        (folder / "base.raw").write_bytes(lzma.decompress((_IMAGES / "base.raw.xz").read_bytes()))
    return path


@pytest.mark.parametrize(("name", "snapshot", "size", "checksum"), manifest())
def test_the_bytes_are_those_that_qemu_img_saw(
    tmp_path: Path, name: str, snapshot: str, size: int, checksum: str
) -> None:
    options: dict[str, str] = {} if snapshot == "-" else {"snapshot": snapshot}
    with opened(unpacked(name, tmp_path), None, **options) as device:
        data = whole(device, 1_234_567)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, checksum)
        assert_random_reads(device, data, 1, 1000)


def test_all_in_one_backup(tmp_path: Path) -> None:
    paths = [unpacked(name, tmp_path) for name in image_names()]
    checksums = {name: checksum for name, snapshot, _, checksum in manifest() if snapshot == "-"}
    with open_backup(paths) as backup:
        assert backup.format == "qcow2"
        for name, disk in zip(image_names(), backup.disks.values(), strict=True):
            assert hashlib.sha256(disk.read(0, disk.size)).hexdigest() == checksums[name]
        assert not backup.findings
