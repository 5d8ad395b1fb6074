"""What opening a large volume and printing its root costs.

    python benchmarks/open_cost.py [--family ext4,ntfs,fat32,exfat] [--container raw,qcow2] [--place local,s3]
                                   [--files 200000] [--folders 5000] [--groups 20] [--size 4G] [--keep FOLDER]

Makes an image of each family with others' tools (no privilege needed), as it is and as a qcow2 of qemu-img's, opens it
from this machine's disk and from an S3 server, and prints the root: names and types, as `ls` does, and in a second run
modes and sizes too, as `ls -l` does. Every read counts, also those of the container's own tables: on disk those of the
store, at the server the requests that it got and the bytes that it sent.

Exit status 1 where names and types took over 64 reads or 8 MB. (Modes and sizes need the record of every entry; those
of thousands of folders lie far apart, each before the files of its folder.)

Needs mke2fs, mkntfs, wimcapture and wimapply, mkfs.fat, mkfs.exfat, qemu-img; for S3 moto[server] and obstore.
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

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.images import bytes_of, make_ntfs, make_tree  # noqa: E402
from benchmarks.images_fat import make_exfat, make_fat32  # noqa: E402
from benchmarks.s3_server import S3Server  # noqa: E402
from pseudomount import Backup, open_backup  # noqa: E402
from pseudomount.storage import LocalStore, Store  # noqa: E402

READS, BYTES = 64, 8_000_000
FAMILIES = ("ext4", "ntfs", "fat32", "exfat")
CONTAINERS = ("raw", "qcow2")


@dataclass(slots=True)
class Cost:
    """What was fetched, and what came of it."""

    requests: int = 0
    bytes: int = 0
    entries: int = 0
    seconds: float = 0.0


def make_image(
    image: Path, family: str, *, files: int, folders: int, size: str, scratch: Path, groups: int = 20
) -> None:
    """An image of so many files, spread evenly over folders: in `groups` of the root, or without groups in it."""
    if family == "ntfs":
        make_ntfs(image, size, files, folders, groups=groups, scratch=scratch)
    elif family in ("fat32", "exfat"):
        (make_fat32 if family == "fat32" else make_exfat)(image, size, files, folders, groups=groups)
    else:
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            make_tree(Path(folder), files, folders, groups)
            with image.open("wb") as made:
                made.truncate(bytes_of(size))
            inodes = str(files + folders + 1000)
            _run("mke2fs", "-q", "-F", "-t", family, "-b", "4096", "-N", inodes, "-d", folder, str(image))


def contain(image: Path, container: str) -> Path:
    """The image in a container, beside it."""
    if container == "raw":
        return image
    target = image.with_suffix(f".{container}")
    _run("qemu-img", "convert", "-f", "raw", "-O", container, str(image), str(target))
    return target


def _run(*command: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, stdout=subprocess.DEVNULL)


class CountingStore(Store):
    """A store that counts what is read of another."""

    def __init__(self, inner: Store) -> None:
        self.remote = inner.remote
        self._inner = inner
        self._lock = threading.Lock()
        self._requests = self._bytes = 0

    def size(self, name: str) -> int:
        """As the other's."""
        return self._inner.size(name)

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """As the other's."""
        data = self._inner.read(name, offset, length)
        with self._lock:
            self._requests += 1
            self._bytes += len(data)
        return data

    def list(self, prefix: str = "") -> list[str]:
        """As the other's."""
        return self._inner.list(prefix)

    def counts(self) -> tuple[int, int]:
        """(reads, bytes) so far."""
        with self._lock:
            return self._requests, self._bytes


def from_disk(image: Path, *, long: bool = False, show: bool = False) -> Cost:
    """Opens an image of this machine's disk and lists its root; counted is what the store is asked for."""
    files = LocalStore(image.parent)
    store = CountingStore(files)
    begin = time.monotonic()
    try:
        with open_backup(image.name, store=store) as backup:
            cost = list_root(backup, long=long, show=show)
    finally:
        files.close()
    cost.seconds = time.monotonic() - begin
    cost.requests, cost.bytes = store.counts()
    return cost


def from_server(url: str, server: S3Server, *, long: bool = False) -> Cost:
    """Opens an image of an S3 server and lists its root; counted is what the server is asked for."""
    server.counts()
    begin = time.monotonic()
    with open_backup(url, store_options=server.options) as backup:
        cost = list_root(backup, long=long)
    cost.seconds = time.monotonic() - begin
    cost.requests, cost.bytes = server.counts()
    return cost


def list_root(backup: Backup, *, long: bool = False, show: bool = False) -> Cost:
    """Lists the root of the one volume. `long` asks for modes and sizes beside names and types."""
    cost = Cost()
    [volume] = [volume for volume in backup.volumes if volume.filesystem]
    for path in volume.root.iterdir():
        line = f"{'d' if path.is_dir(follow_symlinks=False) else '-'} {path.name}"
        if long:
            info = path.stat(follow_symlinks=False)
            line = f"{info.st_mode:o} {info.st_size:>10} {line}"
        cost.entries += 1
        if show:
            print(line)
    return cost


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--family", default=",".join(FAMILIES))
    parser.add_argument("--container", default=",".join(CONTAINERS))
    parser.add_argument("--place", default="local,s3")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--folders", type=int, default=5000)
    parser.add_argument("--groups", type=int, default=20, help="folders of the root; 0 puts all folders there")
    parser.add_argument("--size", default="4G")
    parser.add_argument("--scratch", type=Path, help="where to make the images; memory is best")
    parser.add_argument("--keep", type=Path, help="a folder for the images; those that are there are used as they are")
    parser.add_argument("--show", action="store_true", help="print the listings")
    options = parser.parse_args()
    over = False
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(
            f"{options.files} files in {options.folders} folders, {options.size}; limit: {READS} reads, {BYTES} bytes"
        )
        columns = ("family", "container", "place", "stored", "entries", "reads", "bytes", "ms", "reads -l", "bytes -l")
        form = "{:<7}{:<10}{:<6}{:>12}{:>8}{:>7}{:>10}{:>7}{:>9}{:>10}"
        print(form.format(*columns))
        for family in options.family.split(","):
            image = folder / f"{family}.img"
            if not image.exists():
                what = {"files": options.files, "folders": options.folders, "groups": options.groups}
                make_image(image, family, size=options.size, scratch=Path(scratch), **what)
            for container in options.container.split(","):
                there = image.with_suffix(f".{container}")
                stored = there if container != "raw" and there.exists() else contain(image, container)
                for place in options.place.split(","):
                    if place == "local":
                        short, long = (from_disk(stored, long=each, show=options.show) for each in (False, True))
                    elif container == "raw":
                        continue  # some thousand empty megabytes, of which moto makes a copy for every request
                    else:
                        with S3Server() as server:
                            url = server.upload(stored, stored.name)
                            short, long = (from_server(url, server, long=each) for each in (False, True))
                    print(
                        form.format(
                            family, container, place, _stored(stored), short.entries, short.requests, short.bytes,
                            round(short.seconds * 1000), long.requests, long.bytes,
                        ),
                        flush=True,
                    )  # fmt: skip
                    over = over or short.requests > READS or short.bytes > BYTES
    return int(over)


def _stored(path: Path) -> int:
    """Bytes that a file takes."""
    status = path.stat()
    return getattr(status, "st_blocks", -(-status.st_size // 512)) * 512


if __name__ == "__main__":
    sys.exit(main())
