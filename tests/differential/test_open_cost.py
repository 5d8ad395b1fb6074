"""What opening a large volume and printing its root costs, in reads and bytes; `benchmarks/open_cost.py` prints it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.open_cost import BYTES, CONTAINERS, FAMILIES, READS, Cost, contain, from_disk, from_server, make_image
from benchmarks.s3_server import S3Server

pytestmark = pytest.mark.tools("mke2fs", "mkntfs", "wimcapture", "wimapply", "mkfs.fat", "mkfs.exfat", "qemu-img")

#: An image of a family, by files, folders, groups and size.
Made = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    images: dict[tuple[str, int, int, int, str], Path] = {}

    def image(family: str, files: int, folders: int, groups: int, size: str) -> Path:
        key = (family, files, folders, groups, size)
        if key not in images:
            folder = tmp_path_factory.mktemp("image")
            images[key] = folder / f"{family}.img"
            make_image(images[key], family, files=files, folders=folders, size=size, scratch=folder, groups=groups)
        return images[key]

    return image


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    for module in ("moto", "flask", "obstore"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs {module}")
    with S3Server() as started:
        yield started


def check(cost: Cost, family: str, folders: int, *, reads: int = READS, size: int = BYTES) -> None:
    assert cost.entries == folders + (family == "ext4")  # its lost+found
    assert 0 < cost.requests <= reads
    assert 0 < cost.bytes <= size


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_opening_is_cheap_however_many_files_there_are(family: str, container: str, made: Made) -> None:
    image = contain(made(family, 5000, 125, 20, "256M"), container)
    check(from_disk(image), family, 20)
    check(from_disk(image, long=True), family, 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_opening_is_cheap_however_large_the_volume_is(family: str, made: Made) -> None:
    image = made(family, 100, 20, 20, "4G")
    check(from_disk(image), family, 20)
    check(from_disk(image, long=True), family, 20)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_root_of_thousands_is_cheap(family: str, made: Made) -> None:
    check(from_disk(made(family, 3000, 3000, 0, "1G")), family, 3000)


@pytest.mark.parametrize("family", FAMILIES)
def test_opening_from_an_object_store_is_cheap(family: str, made: Made, server: S3Server) -> None:
    image = contain(made(family, 5000, 125, 20, "256M"), "qcow2")
    url = server.upload(image, f"{family}.qcow2")
    for long in (False, True):
        check(from_server(url, server, long=long), family, 20)
