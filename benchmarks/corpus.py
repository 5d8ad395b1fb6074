"""Compares pseudomount with independent readers on a folder of disk images.

    python benchmarks/corpus.py FOLDER [--index FILE] [--filesystem ext2,ext3,ext4] [--validity valid] [--jobs 2]

FOLDER holds images, `INDEX.tsv` (columns `path`, `fs_or_volume`, `validity`, `truth_files` among others) and `truth/`,
one file of `path type size sha256` (with tabs) for each volume of each image, made by another reader. In these,
control bytes, backslash and bytes that are no UTF-8 are `\\xNN`, a symbolic link has `->target` for its sha256,
`ERR:…` is a file that the other reader could not read, and `…@pN.tsv` is partition N.

Each image is browsed whole in a process of its own, through the public interface alone. Reported for each file system:
images, files compared, files equal in path, type, size and sha256, and every difference. An image fails if it takes
over `--seconds` or `--memory`, or if an exception leaves pseudomount that is no PseudomountError; the exit status is
then 1, and 2 where images marked valid differ.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import stat
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pseudomount import BackupPath, open_backup
from pseudomount.errors import PseudomountError

STEP = 1 << 20
#: Bytes read of a file, and of all files of an image, where no truth says what they are.
FILE_LIMIT, IMAGE_LIMIT = 32 << 20, 256 << 20
ENTRY_LIMIT = 200_000

#: Control characters, the backslash, and bytes that are no UTF-8 as surrogate escapes.
_ODD = re.compile("[\x00-\x1f\x7f\\\\\udc80-\udcff]")

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a truth file, or what we see in its place; "" is not known."""

    type: str
    size: str
    content: str


@dataclass(slots=True)
class Result:
    """What came of one image."""

    image: str
    filesystem: str = ""
    validity: str = ""
    opened: bool = False
    files: int = 0
    equal: int = 0
    differences: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0
    memory: int = 0


def escape(path: bytes) -> str:
    """As truth files write paths."""
    text = path.decode("utf-8", "surrogateescape")
    return _ODD.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def read_truth(path: Path) -> tuple[dict[str, str], dict[str, Row]]:
    """(header, rows by path)."""
    header: dict[str, str] = {}
    rows: dict[str, Row] = {}
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            line = line.rstrip("\n")
            if line.startswith("# ") and ": " in line:
                key, _, value = line[2:].partition(": ")
                header.setdefault(key, value)
            elif "\t" in line and line != "path\ttype\tsize\tsha256":
                name, kind, size, content = (*line.split("\t"), "", "")[:4]
                rows[name] = Row(kind, size, content)
    return header, rows


# -- one image, in a process of its own -----------------------------------------------------------------------------


class Browser:
    """Walks a volume, and keeps count of what went wrong."""

    def __init__(self, result: Result, truth: dict[str, Row]) -> None:
        self.result = result
        self.truth = truth
        self.left = IMAGE_LIMIT
        self.entries = 0

    def note(self, error: PseudomountError) -> None:
        """Counts an error by its class."""
        name = type(error).__name__
        self.result.errors[name] = self.result.errors.get(name, 0) + 1

    def walk(self, root: BackupPath) -> Iterator[tuple[str, Row]]:
        """Everything below a folder."""
        waiting: list[tuple[str, BackupPath, frozenset[int]]] = [("", root, frozenset())]
        while waiting:
            above, folder, parents = waiting.pop()
            for name, path in self.entries_of(folder):
                self.entries += 1
                if self.entries > ENTRY_LIMIT:
                    return
                shown = f"{above}/{name}" if above else name
                row, inode = self.row(shown, path)
                yield shown, row
                if row.type == "dir" and inode not in parents:
                    waiting.append((shown, path, parents | {inode}))

    def entries_of(self, folder: BackupPath) -> Iterator[tuple[str, BackupPath]]:
        """Name and path of each entry; a folder that breaks off gives what it has."""
        try:
            for path in folder.iterdir():
                yield escape(path.name.encode("utf-8", "surrogateescape")), path
        except PseudomountError as error:
            self.note(error)

    def row(self, shown: str, path: BackupPath) -> tuple[Row, int]:
        """What we see of a path, and its inode."""
        try:
            info = path.stat(follow_symlinks=False)
        except PseudomountError as error:
            self.note(error)
            return Row("?", "", f"ERR:{type(error).__name__}"), -1
        kind = TYPES.get(stat.S_IFMT(info.st_mode), "?")
        size, content = "", ""
        try:
            if kind == "file":
                size, content = str(info.st_size), self.sha256(shown, path, info.st_size)
            elif kind == "symlink":
                size = str(info.st_size)
                content = "->" + escape(str(path.readlink()).encode("utf-8", "surrogateescape"))
        except PseudomountError as error:
            self.note(error)
            content = f"ERR:{type(error).__name__}"
        return Row(kind, size, content), info.st_ino

    def sha256(self, shown: str, path: BackupPath, size: int) -> str:
        """Of the content; "" where it is long and nobody knows what it should be."""
        known = self.truth.get(shown)
        if not (known and known.size == str(size)):
            if size > min(FILE_LIMIT, self.left):
                return ""
            self.left -= size
        made = hashlib.sha256()
        if not size:
            return made.hexdigest()
        with path.open("rb") as file:
            while part := file.read(STEP):
                made.update(part)
        return made.hexdigest()


def compare(result: Result, name: str, truth: dict[str, Row], seen: dict[str, Row]) -> None:
    """Counts and lists; a file that both readers fail at is equal."""
    for path in sorted(truth.keys() | seen.keys()):
        result.files += 1
        want, got = truth.get(path), seen.get(path)
        where = f"{name}: {path}"
        if want is None or got is None:
            result.differences.append(f"{where}: {'only ours' if want is None else 'missing'}: {got or want}")
        elif want.type == "?" and got.content.startswith("ERR:"):
            result.equal += 1
        elif want.type != got.type:
            result.differences.append(f"{where}: type {want.type} expected, {got.type} {got.content}")
        elif want.size and want.size != got.size and want.type in {"file", "symlink"}:
            result.differences.append(f"{where}: size {want.size} expected, {got.size}")
        elif want.content.startswith("ERR:") and got.content.startswith("ERR:"):
            result.equal += 1
        elif want.content and want.content != got.content:
            result.differences.append(f"{where}: content {want.content} expected, {got.content or '(not read)'}")
        else:
            result.equal += 1


def browse_image(image: Path, truths: list[Path]) -> Result:
    """Opens, browses and compares one image."""
    result = Result(str(image))
    wanted: dict[str, dict[str, Row]] = {}
    for path in truths:
        header, rows = read_truth(path)
        result.filesystem = header.get("fs", "")
        part = path.stem.rpartition("@p")[2] if "@p" in path.stem else ""
        wanted[f"disk0p{part}" if part else "disk0"] = rows
    begin = time.monotonic()
    try:
        with open_backup(image) as backup:
            result.opened = True
            for volume in backup.volumes:
                if volume.filesystem is None and volume.name not in wanted:
                    continue
                truth = wanted.pop(volume.name, None)
                browser = Browser(result, truth or {})
                try:
                    seen = dict(browser.walk(volume.root))
                except PseudomountError as error:
                    browser.note(error)
                    if truth is not None:
                        result.files += len(truth)
                        result.differences.append(f"{volume.name}: {error}")
                    continue
                if truth is not None:
                    compare(result, volume.name, truth, seen)
            for finding in backup.findings:
                str(finding)
            for name, rows in wanted.items():
                result.files += len(rows)
                result.differences.append(f"{name}: there is no such volume")
    except PseudomountError as error:
        result.errors[type(error).__name__] = 1
        result.files += sum(map(len, wanted.values()))
        result.differences.append(f"not opened: {error}")
    except Exception:
        result.failure = traceback.format_exc()
    result.seconds = time.monotonic() - begin
    result.memory = peak_memory()
    return result


def peak_memory() -> int:
    """Bytes this process took at most; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def limit_memory(size: int) -> None:
    """Keeps a run-away process from taking the machine with it."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


# -- all of them ------------------------------------------------------------------------------------------------------


def run_one(image: Path, truths: list[Path], options: argparse.Namespace, row: dict[str, str]) -> Result:
    """One image in a process of its own, under the limits."""
    command = [sys.executable, __file__, "--one", str(image), *map(str, truths)]
    result = Result(row["path"], row["fs_or_volume"], row["validity"])
    begin = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds, check=False)
    except subprocess.TimeoutExpired:
        result.failure = f"over {options.seconds} s"
        result.seconds = time.monotonic() - begin
        return result
    try:
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        result.failure = f"exit status {done.returncode}: {done.stderr[-2000:]}"
        return result
    made = Result(**said)
    made.image, made.validity = row["path"], row["validity"]
    made.filesystem = made.filesystem or row["fs_or_volume"]
    made.seconds = time.monotonic() - begin
    if not made.failure and made.memory > options.memory << 20:
        made.failure = f"{made.memory >> 20} MiB of memory"
    return made


def selected(options: argparse.Namespace) -> list[dict[str, str]]:
    """The rows of the index that were asked for."""
    kinds = set(filter(None, options.filesystem.split(",")))
    validities = set(filter(None, options.validity.split(",")))
    with options.index.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [
        row
        for row in rows
        if (not kinds or kinds & set(row["fs_or_volume"].split(",")))
        and (not validities or row["validity"] in validities)
        and options.match in row["path"]
    ]


def report(results: list[Result], options: argparse.Namespace) -> int:
    """Prints the tables; the exit status."""
    names = sorted({result.filesystem for result in results})
    print(f"{'file system':<12}{'images':>8}{'opened':>8}{'files':>9}{'equal':>9}{'differ':>8}{'failed':>8}")
    for name in [*names, "all"]:
        these = [result for result in results if name in {result.filesystem, "all"}]
        files, equal = sum(result.files for result in these), sum(result.equal for result in these)
        print(
            f"{name:<12}{len(these):>8}{sum(result.opened for result in these):>8}{files:>9}{equal:>9}"
            f"{files - equal:>8}{sum(bool(result.failure) for result in these):>8}"
        )
    slowest = max(results, key=lambda result: result.seconds, default=None)
    if slowest:
        print(f"slowest: {slowest.seconds:.1f} s, {slowest.image}")
        largest = max(results, key=lambda result: result.memory)
        print(f"most memory: {largest.memory >> 20} MiB, {largest.image}")
    errors = Counter[str]()
    for result in results:
        errors.update(result.errors)
    print("errors, all of them PseudomountErrors:", dict(errors.most_common()) or "none")
    for result in results:
        if result.failure:
            print(f"FAILED {result.image}: {result.failure.strip()}")
    for result in results:
        if result.differences and (result.validity == "valid" or options.differences):
            print(f"{result.image} ({result.filesystem}, {result.validity}):")
            for line in result.differences:
                print(f"  {line}")
    if any(result.failure for result in results):
        return 1
    return 2 if any(result.differences for result in results if result.validity == "valid") else 0


def main() -> int:
    """The command line."""
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        limit_memory(8 << 30)
        print(json.dumps(asdict(browse_image(Path(sys.argv[2]), [Path(path) for path in sys.argv[3:]]))))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--index", type=Path, help="the index, where it is not FOLDER/INDEX.tsv")
    parser.add_argument("--filesystem", default="", help="only these, separated by commas")
    parser.add_argument("--validity", default="valid", help="only images marked so (separated by commas); '' for all")
    parser.add_argument("--match", default="", help="only images with this in their path")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0, help="limit for an image")
    parser.add_argument("--memory", type=int, default=512, help="limit for an image, MiB")
    parser.add_argument("--differences", action="store_true", help="list those of images that are not valid, too")
    options = parser.parse_args()
    options.index = options.index or options.folder / "INDEX.tsv"

    def one(row: dict[str, str]) -> Result:
        truths = [options.folder / "truth" / name for name in row["truth_files"].split(",") if name]
        return run_one(
            options.folder / row["path"],
            [path for path in truths if not path.name.endswith(".ads.tsv")],
            options,
            row,
        )

    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(one, selected(options)))
    return report(results, options)


if __name__ == "__main__":
    sys.exit(main())
