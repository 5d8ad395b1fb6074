"""FAT volumes that pyfatfs makes, without a program or privilege: names beyond mtools' reach."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import pytest

from pseudomount.findings import FindingLog
from pseudomount.testing.devices import MemoryDevice
from pseudomount_fat import FatParser
from tests.support.fat import browse, content

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    PyFat = pytest.importorskip("pyfatfs.PyFat").PyFat
    PyFatFS = pytest.importorskip("pyfatfs.PyFatFS").PyFatFS

NAMES = [
    "😀 smile.txt",
    "\U0001d518\U0001d52b\U0001d526",
    "plain.txt",
    "UPPER.TXT",
    "a" * 100 + "😀",
    "日本.文字",
    "ÄÖÜ",
    "sharp ß",
]


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_names_and_contents(bits: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    size = {12: 4 << 20, 16: 20 << 20, 32: 40 << 20}[bits]
    with image.open("wb") as file:
        file.truncate(size)
    wanted = {"/dir": "", "/dir/below": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maker = PyFat(encoding="ibm437")
        maker.mkfs(str(image), bits, size=size, label="PYFATFS")
        maker.close()
        volume = PyFatFS(str(image), encoding="ibm437")
        volume.makedirs("/dir/below")
        for i, name in enumerate(NAMES):
            for folder in ("", "/dir", "/dir/below"):
                data = content(i * 1777 + len(folder), i)
                volume.writebytes(f"{folder}/{name}", data)
                wanted[f"{folder}/{name}"] = hashlib.sha256(data).hexdigest()
        for i in range(40):
            volume.writebytes(f"/dir/many {i}", b"%d" % i)
        for i in range(0, 40, 2):
            volume.remove(f"/dir/many {i}")
        for i in range(1, 40, 2):
            wanted[f"/dir/many {i}"] = hashlib.sha256(b"%d" % i).hexdigest()
        shown = {path for path, _ in volume.walk.info()}
        volume.close()
    assert shown == set(wanted)  # pyfatfs sees what it wrote
    log = FindingLog()
    filesystem = FatParser().open(MemoryDevice(image.read_bytes()), log)
    assert filesystem.name == f"fat{bits}"
    assert filesystem.label == "PYFATFS"
    assert {path: seen.sha256 for path, seen in browse(filesystem).items()} == wanted
    assert [finding for finding in log if finding.severity > 1] == []
