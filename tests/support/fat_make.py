"""FAT and exFAT volumes that other programs make and read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.fat import content

ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "MTOOLS_SKIP_CHECK": "1"}


def run(*command: str | Path, timeout: float = 60) -> str:
    """Runs a program that must not fail; its standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
        timeout=timeout,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")


#: Names as people and programs make them, all of the Basic Multilingual Plane.
NAMES = [
    "README.TXT",
    "lower.txt",
    "lower.EXT",
    "UPPER.ext",
    "MiXeD.TxT",
    "A long name with spaces.document",
    "n" * 255,
    "é" * 100 + ".txt",
    "日本語のファイル.txt",
    "Ünïcödé Straße.dat",
    "thirteen chrs",
    "twenty-six characters here",
    ".hidden",
    "many.dots.in.a.name",
    "+,;=[]",
    "no_extension",
    "x",
]


def nasty_tree(top: Path, *, cluster: int, many: int = 120) -> None:
    """A tree of odd names and sizes around the cluster's."""
    top.mkdir()
    for i, name in enumerate(NAMES):
        (top / name).write_bytes(content(i * 333, i))
    sizes = top / "Sizes"
    sizes.mkdir()
    for i, size in enumerate([0, 1, cluster - 1, cluster, cluster + 1, 3 * cluster, 10 * cluster + 7]):
        (sizes / f"size{size}").write_bytes(content(size, 100 + i))
    deep = top
    for i in range(12):
        deep = deep / f"deeper {i}"
        deep.mkdir()
        (deep / "leaf.bin").write_bytes(content(50 + i, 200 + i))
    (top / "empty dir").mkdir()
    crowd = top / "crowd"
    crowd.mkdir()
    for i in range(many):
        (crowd / f"File number {i} of the crowd.txt").write_bytes(b"%d" % i)
    for i, path in enumerate(sorted(top.rglob("*"))):
        if path.is_file():
            os.utime(path, (1_000_000_000 + 86400 * i, 1_000_000_000 + 98_766 * i))


def host_tree(top: Path) -> dict[str, tuple[str, int, str]]:
    """Path → (type, size of a file, digest), of a folder of this machine."""
    seen: dict[str, tuple[str, int, str]] = {}
    for folder, folders, files in os.walk(top):
        base = "/" + os.path.relpath(folder, top) + "/" if folder != str(top) else "/"
        for name in folders:
            seen[base + name] = ("dir", 0, "")
        for name in files:
            data = Path(folder, name).read_bytes()
            seen[base + name] = ("file", len(data), hashlib.sha256(data).hexdigest())
    return seen


@contextlib.contextmanager
def exfat_mounted(image: Path, at: Path) -> Iterator[Path]:
    """The volume as exfat-fuse shows it, which is undone whatever happens."""
    loop = run("losetup", "-f", "--show", image).strip()
    try:
        run("mount.exfat-fuse", loop, at)
        try:
            yield at
        finally:
            run("umount", at)
            for _ in range(100):  # the FUSE process goes on for a moment, and holds the device
                if subprocess.run(["fuser", "-s", loop], check=False, capture_output=True).returncode:
                    break
                time.sleep(0.02)
    finally:
        run("losetup", "-d", loop)
