"""How long a whole volume takes to enumerate, beside other readers.

    python benchmarks/catalogue.py [--family ntfs,ext4,fat32,exfat] [--files 200000] [--runs 5] [--keep FOLDER]
                                   [--peers 7z,fls,mdir,dissect]

Makes an image of each family (40 files in a directory; a fifth of the files for FAT and exFAT), reads it once, so that
it is in memory, and then times, in turns so that a busy machine is busy for all of them:

- in process: `volume.catalogue()` with all columns, and the paths of all files, in a fresh process after the imports
  and the opening; and the same of dissect's libraries, once (they take minutes);
- whole processes, imports and all: `pseudomount find IMAGE`, `7z l`, `fls -r -l`, `mdir -/`.

Prints medians, processor time beside the time on the clock, and how many times as long each peer takes. Several numbers
of files (`--files 20000,200000,2000000`) show how time and memory grow. Peers that are missing are said and left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from benchmarks.images import make_ntfs, make_tree  # noqa: E402
from benchmarks.images_fat import make_exfat, make_fat32  # noqa: E402

EACH = 40
#: What a process of its own does; it prints how long that took, on the clock and of the processor, and its memory.
_OURS = """
import json, resource, sys, time
from pseudomount import open_backup
import pseudomount.filesystem.catalogue
with open_backup(sys.argv[1]) as backup:
    volume = backup.browsable()[0]
    volume.fs
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    catalogue = volume.catalogue()
    paths = catalogue.paths()
    took = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([took, cpu, len(catalogue), (after.ru_maxrss - before.ru_maxrss) * 1024]))
"""
_DISSECT_NTFS = """
import json, sys, time
from dissect.ntfs import NTFS
with open(sys.argv[1], "rb") as file:
    fs = NTFS(file)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    for record in fs.mft.segments():
        if record.filename is None:
            continue
        record.full_path()
        times = record.attributes.STANDARD_INFORMATION[0].attribute
        times.creation_time, times.last_modification_time, times.last_change_time, times.last_access_time
        if not record.is_dir() and record.attributes.DATA:
            try:
                record.size()
            except Exception:  # a record with named streams alone
                pass
        count += 1
    print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, count, 0]))
"""
_DISSECT_EXT = """
import json, sys, time
from dissect.extfs import ExtFS
with open(sys.argv[1], "rb") as file:
    fs = ExtFS(file)
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    todo = [("", fs.root)]
    while todo:
        path, folder = todo.pop()
        for name, inode in folder.listdir().items():
            if name in (".", ".."):
                continue
            here = path + "/" + name
            inode.size, inode.mtime, inode.inode.i_mode
            count += 1
            if inode.filetype == 0x4000:
                todo.append((here, inode))
    print(json.dumps([time.perf_counter() - start, time.process_time() - cpu, count, 0]))
"""


@dataclass(frozen=True)
class Timed:
    """One way to enumerate: its name, whether in process, seconds on the clock and of the processor, memory, rows."""

    name: str
    inside: bool
    clock: float
    cpu: float
    memory: int = 0
    rows: int = 0


def make(path: Path, family: str, files: int) -> None:
    """An image of so many files, `EACH` in a directory."""
    folders = max(1, files // EACH)
    size = max(1 << 30, files * 10_000)
    if family == "ntfs":
        make_ntfs(path, size, files, folders)
    elif family == "fat32":
        make_fat32(path, size, files, folders)
    elif family == "exfat":
        make_exfat(path, size, files, folders)
    else:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            make_tree(Path(folder), files, folders)
            with path.open("wb") as image:
                image.truncate(size)
            inodes = str(files + folders + files // 20 + 1000)
            subprocess.run(["mke2fs", "-q", "-F", "-t", family, "-d", folder, "-N", inodes, str(path)], check=True)


def whole(name: str, command: Sequence[str]) -> Timed | None:
    """A command as a process of its own, its output thrown away; None where it fails."""
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    took, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    if done.returncode:
        return None
    return Timed(name, False, took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def inside(name: str, script: str, image: Path) -> Timed | None:
    """A script that times itself, in a process of its own; None where it fails."""
    done = subprocess.run([sys.executable, "-c", script, str(image)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    took, cpu, rows, memory = json.loads(done.stdout)
    return Timed(name, True, took, cpu, memory, rows)


def measure(image: Path, family: str, runs: int, peers: Sequence[str]) -> Iterator[Timed]:
    """Medians of all ways, those of one round after the other."""
    ours = Path(sys.executable).with_name("pseudomount")
    commands = {"pseudomount find": [str(ours), "find", str(image)]}
    if "7z" in peers:
        commands["7z l"] = ["7z", "l", str(image)]
    if "fls" in peers and family != "exfat":
        commands["fls -r -l"] = ["fls", "-r", "-l", str(image)]
    if "mdir" in peers and family == "fat32":
        commands["mdir -/"] = ["mdir", "-/", "-i", str(image), "::"]
    for name in [name for name, command in commands.items() if shutil.which(command[0]) is None]:
        print(f"{name}: {commands.pop(name)[0]} is not installed", file=sys.stderr)
    taken: dict[str, list[Timed]] = {}
    for _ in range(runs):
        for found in (
            inside("pseudomount, in process", _OURS, image),
            *(whole(name, command) for name, command in commands.items()),
        ):
            if found is not None:
                taken.setdefault(found.name, []).append(found)
    script = {"ntfs": _DISSECT_NTFS, "ext4": _DISSECT_EXT}.get(family)
    if script is not None and "dissect" in peers:
        found = inside("dissect, in process, once", script, image)
        if found is not None:
            taken[found.name] = [found]
    for name, several in taken.items():
        yield Timed(
            name,
            several[0].inside,
            statistics.median(one.clock for one in several),
            statistics.median(one.cpu for one in several),
            max(one.memory for one in several),
            several[0].rows,
        )


def report(family: str, files: int, found: list[Timed]) -> None:
    """A table, and how many times as long as ours each peer takes: in process, and as a whole process."""
    by_name = {one.name: one for one in found}
    process, command = by_name.get("pseudomount, in process"), by_name.get("pseudomount find")
    print(f"\n{family}, {files:,} files")
    print(f"{'':28} {'clock s':>9} {'cpu s':>9} {'x in process':>13} {'x whole':>9}  {'rows':>9} {'MiB':>6}")
    for one in found:
        times = [f"{one.clock / ours.clock:.1f}" if ours is not None else "" for ours in (process, command)]
        rows, memory = (f"{one.rows:,}" if one.rows else ""), (f"{one.memory >> 20:,}" if one.memory else "")
        print(f"{one.name:28} {one.clock:9.3f} {one.cpu:9.3f} {times[0]:>13} {times[1]:>9}  {rows:>9} {memory:>6}")


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """The folder for images: one that stays, or one for now."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="time the enumeration of whole volumes")
    parser.add_argument("--family", default="ntfs,ext4,fat32,exfat")
    parser.add_argument("--files", default="200000")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--peers", default="7z,fls,mdir,dissect")
    given = parser.parse_args()
    with kept(given.keep) as folder:
        for family in given.family.split(","):
            for asked in map(int, given.files.split(",")):
                files = asked // 5 if family in ("fat32", "exfat") else asked
                image = folder / f"{family}-{files}.img"
                if not image.exists():
                    make(image, family, files)
                with image.open("rb") as file:
                    while file.read(64 << 20):
                        pass
                report(family, files, list(measure(image, family, given.runs, given.peers.split(","))))
                if given.keep is None:
                    image.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
