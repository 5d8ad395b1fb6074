"""Images of many files, made by others' tools and without privileges, for the benchmarks to measure on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

__all__ = ["bytes_of", "make_ntfs", "make_tree"]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


def bytes_of(size: int | str) -> int:
    """Bytes, of a number or of words such as "4G"."""
    if isinstance(size, int):
        return size
    unit = _UNITS.get(size[-1:].upper())
    return int(size) if unit is None else int(size[:-1]) << unit


def make_tree(top: Path, files: int, directories: int, groups: int = 20) -> None:
    """So many empty files, spread evenly over directories: in `groups` of the root, or in the root without groups."""
    each, rest = divmod(files, directories)
    for number in range(directories):
        folder = (top / f"group {number % groups:02d}" if groups else top) / f"folder {number:05d}"
        folder.mkdir(parents=True)
        for file in range(each + (number < rest)):
            os.close(os.open(folder / f"file {file:05d}.txt", os.O_CREAT | os.O_WRONLY, 0o644))


def make_ntfs(
    path: Path, size: int | str, files: int, directories: int, *, groups: int = 20, scratch: Path | None = None
) -> None:
    """An NTFS image, sparse where the host has sparse files: mkntfs formats it, wimlib fills it.

    Needs mkntfs (ntfs-3g), wimcapture and wimapply (wimtools); no root, no mount. 200,000 files in 5,000 directories
    take about a minute.

    Args:
        path: the image, made anew.
        size: bytes, or as "4G".
        groups: directories of the root that hold the others; 0 puts all of them into the root.
        scratch: where the tree and the WIM file may lie meanwhile; memory is best.
    """
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    environment = {**os.environ, "PATH": search}
    path.unlink(missing_ok=True)
    with path.open("wb") as image:
        image.truncate(bytes_of(size))
    geometry = ("-s", "512", "-p", "0", "-H", "255", "-S", "63")  # a file has none that mkntfs could ask for
    format_ = ["mkntfs", "-Q", "-F", "-q", "-L", "many files", *geometry, str(path)]
    subprocess.run(format_, check=True, env=environment, capture_output=True)
    with tempfile.TemporaryDirectory(dir=scratch or path.parent) as folder:
        tree, wim = Path(folder) / "tree", Path(folder) / "tree.wim"
        tree.mkdir()
        make_tree(tree, files, directories, groups)
        for command in (
            ["wimcapture", str(tree), str(wim), "--compress=none", "--no-acls", "--quiet"],
            ["wimapply", str(wim), "1", str(path), "--no-acls", "--quiet"],
        ):
            subprocess.run(command, check=True, env=environment, capture_output=True)
