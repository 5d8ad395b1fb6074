"""exFAT volumes that mkfs.exfat and exfat-fuse make: exfat-fuse's view of them against ours."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from pseudomount.findings import FindingLog
from pseudomount.testing.devices import MemoryDevice
from pseudomount_fat import ExfatParser
from tests.support.fat import browse, content
from tests.support.fat_make import exfat_mounted, host_tree, nasty_tree, run

pytestmark = [
    pytest.mark.tools("mkfs.exfat", "fsck.exfat", "mount.exfat-fuse", "blkid", "fuser"),
    pytest.mark.loop,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="the kernel has no FUSE"),  # noqa: PTH110
]

VOLUMES = {
    "512": (["-c", "512"], 8 << 20, 512),
    "4096": (["-c", "4K", "-L", "Étiquette"], 16 << 20, 4096),
    "32768": (["-c", "32K", "--pack-bitmap"], 32 << 20, 32768),
    "262144": (["-c", "256K", "-b", "1M"], 160 << 20, 262144),
}


@pytest.mark.parametrize("volume", VOLUMES)
def test_a_nasty_tree(volume: str, tmp_path: Path) -> None:
    options, size, cluster = VOLUMES[volume]
    image, tree, mount = tmp_path / "image", tmp_path / "tree", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(size)
    run("mkfs.exfat", *options, image)
    mount.mkdir()
    nasty_tree(tree, cluster=min(cluster, 65536), many=400 if cluster < 65536 else 40)
    times: dict[str, tuple[int, int]] = {}
    with exfat_mounted(image, mount):
        run("cp", "-a", "--no-preserve=ownership,mode", f"{tree}/.", mount)
        for i in range(40):
            (mount / f"h{i}").write_bytes(content(2 * cluster, 300 + i))
        for i in range(0, 40, 2):
            (mount / f"h{i}").unlink()
        (mount / "laid in pieces.bin").write_bytes(content(30 * min(cluster, 32768) + 5, 400))
        for name in ("😀 smile.txt", "\U0001d518\U0001d52b\U0001d526", "u\u0308 combining", "n" * 255):
            (mount / name).write_bytes(name.encode())
        with (mount / "grown.bin").open("wb") as file:
            file.write(b"begin")
            file.truncate(5 * cluster + 3)
        (mount / "cut.bin").write_bytes(content(5 * cluster))
        os.truncate(mount / "cut.bin", cluster + 1)
    with exfat_mounted(image, mount):
        wanted = host_tree(mount)
        for path in wanted:
            status = (mount / path[1:]).stat()
            times[path] = (int(status.st_mtime), status.st_size)
    run("fsck.exfat", "-n", image)
    log = FindingLog()
    device = MemoryDevice(image.read_bytes())
    filesystem = ExfatParser().open(device, log)
    seen = browse(filesystem)
    assert {path: (s.type, s.size if s.type == "file" else 0, s.sha256) for path, s in seen.items()} == wanted
    assert [finding for finding in log if finding.severity > 1] == []
    files = np.array([seen[path].file for path in wanted], np.uint64)
    rows = filesystem.rows(files)
    assert [(rows.modified.exact(i) or (0,))[0] for i in range(len(files))] == [times[path][0] for path in wanted]
    assert rows.size.tolist() == [times[path][1] for path in wanted]
    assert len(filesystem.runs(files[list(wanted).index("/laid in pieces.bin")][None])) > 1
    match = ExfatParser().probe(device)
    assert match is not None
    shown = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", image).splitlines())
    assert match.uuid == shown["UUID"]
    assert match.label == ("Étiquette" if volume == "4096" else "")
    assert ("LABEL" in shown) == bool(match.label)


def test_a_directory_of_five_thousand(tmp_path: Path) -> None:
    image, mount = tmp_path / "image", tmp_path / "mount"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.exfat", "-c", "4K", image)
    mount.mkdir()
    with exfat_mounted(image, mount):
        (mount / "large").mkdir()
        for i in range(5000):
            (mount / "large" / f"File number {i} in a large directory").touch()
        for i in range(0, 5000, 7):
            (mount / "large" / f"File number {i} in a large directory").unlink()
        for i in range(50):
            (mount / "large" / f"late {i}").write_bytes(b"%d" % i)
        wanted = host_tree(mount)
    log = FindingLog()
    filesystem = ExfatParser().open(MemoryDevice(image.read_bytes()), log)
    seen = browse(filesystem)
    assert {path: (s.type, s.size if s.type == "file" else 0, s.sha256) for path, s in seen.items()} == wanted
    assert list(log) == []
