"""What opening a large volume and printing its root costs.

    python benchmarks/open_cost.py [--image FILE] [--files 200000] [--folders 5000] [--groups 20] [--size 4G]

Makes an ext4 image with mke2fs (no privilege needed), opens it through the embedding interface with a `fetch` that
counts, and prints the root: names and types, as `ls` does, and in a second run modes and sizes too, as `ls -l` does.
Exit status 1 where the first took over 64 reads or 8 MB. (The second needs the inode of every entry; those of thousands
of folders lie far apart, each before the files of its folder.)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from pseudomount import open_backup
from pseudomount.extents import ColumnIndex

READS, BYTES = 64, 8_000_000


@dataclass(slots=True)
class Cost:
    """What was fetched, and what came of it."""

    requests: int = 0
    bytes: int = 0
    entries: int = 0
    seconds: float = 0.0


def make_image(image: Path, *, files: int, folders: int, size: str, scratch: Path, groups: int = 20) -> None:
    """An ext4 image of so many files, spread evenly over folders: in `groups` of the root, or without groups in it."""
    tree = scratch / "tree"
    per_folder, rest = divmod(files, folders)
    for number in range(folders):
        folder = (tree / f"group {number % groups:02d}" if groups else tree) / f"folder {number:05d}"
        folder.mkdir(parents=True)
        for file in range(per_folder + (number < rest)):
            os.close(os.open(folder / f"file {file:05d}.txt", os.O_CREAT | os.O_WRONLY, 0o644))
    with image.open("wb") as made:
        made.truncate(_bytes(size))
    environment = {**os.environ, "PATH": os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])}
    inodes = str(files + folders + 1000)
    command = ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-N", inodes, "-d", str(tree), str(image)]
    subprocess.run(command, check=True, env=environment)


def _bytes(size: str) -> int:
    return int(size[:-1]) << {"M": 20, "G": 30}[size[-1]]


def open_and_list(image: Path, *, long: bool = False, show: bool = False) -> Cost:
    """Opens an image and lists the root of its one volume; every byte comes through a fetch that counts.

    `long` asks for modes and sizes beside names and types.
    """
    cost, lock = Cost(), threading.Lock()
    size = image.stat().st_size
    index = ColumnIndex.from_arrays(size, [0], [size], objects=["image"])
    begin = time.monotonic()
    with image.open("rb", buffering=0) as file:

        def fetch(name: str, offset: int, length: int) -> bytes:
            with lock:
                cost.requests += 1
                cost.bytes += length
                file.seek(offset)
                return file.read(length)

        with open_backup((index, fetch)) as backup:
            volume = next(volume for volume in backup.volumes if volume.filesystem)
            for path in volume.root.iterdir():
                line = f"{'d' if path.is_dir(follow_symlinks=False) else '-'} {path.name}"
                if long:
                    info = path.stat(follow_symlinks=False)
                    line = f"{info.st_mode:o} {info.st_size:>10} {line}"
                cost.entries += 1
                if show:
                    print(line)
    cost.seconds = time.monotonic() - begin
    return cost


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", type=Path, help="one that is there already")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=5000)
    parser.add_argument("--groups", type=int, default=20, help="folders of the root; 0 puts all folders there")
    parser.add_argument("--size", default="4G")
    parser.add_argument("--scratch", type=Path, help="where to make the image; memory is best", default=None)
    parser.add_argument("--show", action="store_true", help="print the listing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        image = options.image
        if image is None:
            image = Path(folder) / "image"
            begin = time.monotonic()
            make_image(
                image,
                files=options.files,
                folders=options.folders,
                size=options.size,
                scratch=Path(folder),
                groups=options.groups,
            )
            print(f"made in {time.monotonic() - begin:.1f} s: {image.stat().st_size} bytes, {options.files} files")
        cost = open_and_list(image, show=options.show)
        detailed = open_and_list(image, long=True)
    for what, each in (("names and types", cost), ("with modes and sizes", detailed)):
        print(
            f"{what}: {each.entries} entries in {each.seconds * 1000:.0f} ms, {each.requests} reads, {each.bytes} bytes"
        )
    print(f"limit: {READS} reads, {BYTES} bytes")
    return int(cost.requests > READS or cost.bytes > BYTES)


if __name__ == "__main__":
    sys.exit(main())
