"""Small images made by mke2fs from a tree, and what that tree holds."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError, TruncatedError
from pseudomount.filesystem.contract import FileType
from pseudomount.findings import Finding, FindingLog, Severity
from pseudomount_ext import ExtFileSystem, ExtParser


class FileDevice(BlockDevice):
    """A file of any size, opened for each read, so that a failing test leaves nothing open."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self._size = path.stat().st_size

    @property
    def size(self) -> int:
        return self._size

    def _read(self, offset: int, length: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
        if len(data) != length:
            raise TruncatedError(f"{self.name} ends before {offset + length}")
        return data


def run(*command: str | Path) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8", "surrogateescape")


def mkfs(image: Path, size: str, *options: str, kind: str = "ext4", tree: Path | None = None) -> Path:
    image.unlink(missing_ok=True)
    run("truncate", "-s", size, image)
    run("mke2fs", "-q", "-F", "-t", kind, *options, *(["-d", str(tree)] if tree else []), image)
    return image


def debugfs(image: Path, *requests: str, write: bool = True) -> str:
    """Runs requests of debugfs; its standard output without the echoed requests."""
    script = "\n".join(requests)
    command = ["debugfs", *(["-w"] if write else []), "-f", "-", str(image)]
    done = subprocess.run(command, input=script.encode(), capture_output=True, check=True)
    lines = done.stdout.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("debugfs: "))


@dataclass(frozen=True)
class Seen:
    """One file, as the tree on this machine or our parser has it."""

    type: str
    size: int = 0
    content: str = ""  # sha256, or a link's target
    mode: int = 0
    mtime: int = 0


def sample_tree(root: Path) -> Path:
    """Files of the sizes at which layouts change, links, names, a directory of many blocks."""
    root.mkdir()
    pattern = bytes(range(251)) * 1100
    for size in (0, 1, 59, 60, 61, 100, 155, 160, 200, 1023, 1024, 4096, 4097, 70_000, 270_000):
        (root / f"file-{size}").write_bytes(pattern[:size])
    sparse = root / "sparse"
    with sparse.open("wb") as file:
        file.seek(3_000_000)
        file.write(b"in the middle")
        file.truncate(9_000_001)
    (root / "all-hole").touch()
    os.truncate(root / "all-hole", 123_456)
    (root / "fast").symlink_to("file-1")
    (root / "edge59").symlink_to("x" * 59)
    (root / "edge60").symlink_to("y" * 60)
    (root / "slow").symlink_to("../" + "a-long-target/" * 20)
    (root / "käse ✓").write_text("utf-8")
    Path(os.fsdecode(os.fsencode(root) + b"/stray-\xff\xfe")).write_bytes(b"not utf-8")
    (root / ("n" * 255)).write_bytes(b"longest name")
    many = root / "many"
    many.mkdir()
    for i in range(600):
        (many / f"entry-{i:04}-{'p' * (i % 40)}").write_bytes(b"%d" % i)
    deep = root / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "leaf").write_bytes(b"leaf")
    (root / "empty").mkdir()
    if sys.platform != "win32":
        os.mkfifo(root / "fifo", 0o640)
    (root / "file-100").chmod(0o4711)
    for i, path in enumerate(sorted(root.rglob("*"))):
        if not path.is_symlink():
            os.utime(path, (1_600_000_000 + i, 1_500_000_000 + i))
    return root


def on_disk(root: Path) -> dict[str, Seen]:
    """What a tree of this machine holds, by path."""
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        content = ""
        kind = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}[
            stat.S_IFMT(info.st_mode)
        ]
        size = 0
        if kind == "file":
            data = path.read_bytes()
            size, content = len(data), hashlib.sha256(data).hexdigest()
        elif kind == "symlink":
            content = os.readlink(path)  # noqa: PTH115  Path.readlink would drop a slash at the end
            size = len(content)
        mtime = 0 if kind == "symlink" else int(info.st_mtime)
        found[str(path.relative_to(root))] = Seen(kind, size, content, stat.S_IMODE(info.st_mode), mtime)
    return found


@dataclass
class Walked:
    """What the parser found, by path, and all errors."""

    files: dict[str, Seen] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    errors: list[PseudomountError] = field(default_factory=list)


def walk(fs: ExtFileSystem, *, read: bool = True, limit: int = 100_000) -> Walked:
    """The whole tree by batches; loops of directories are followed once."""
    out = Walked()
    seen = {fs.root}
    level = [(fs.root, "")]
    while level and len(out.files) < limit:
        links = fs.children(np.array([entry[0] for entry in level], np.uint64))
        rows = fs.rows(links.file)
        targets = fs.readlink(links.file)
        out.errors += [*links.errors.values(), *rows.errors.values()]
        out.errors += [error for i, error in targets.errors.items() if rows.type[i] == FileType.SYMLINK]
        following = []
        for i, (query, file) in enumerate(zip(links.query.tolist(), links.file.tolist(), strict=True)):
            path = level[query][1] + fs.name_encoding.decode(links.name[i])
            kind = FileType(int(rows.type[i]))
            size, content, mtime = 0, "", rows.modified.exact(i)
            if kind is FileType.DIRECTORY and file not in seen:
                seen.add(file)
                following.append((file, path + "/"))
            elif kind is FileType.SYMLINK:
                content = fs.name_encoding.decode(targets.target[i])
                size = int(rows.size[i])
            elif kind is FileType.FILE:
                size = int(rows.size[i])
                content = digest(fs, file, out) if read else ""
            seconds = mtime[0] if mtime and kind is not FileType.SYMLINK else 0
            out.files[path] = Seen(kind.word, size, content, int(rows.mode[i]) & 0o7777, seconds)
            out.ids[path] = file
        level = following
    return out


def digest(fs: ExtFileSystem, file: int, out: Walked) -> str:
    try:
        with fs.open(file) as content:
            return hashlib.sha256(content.read(0, min(content.size, 16 << 20))).hexdigest()
    except PseudomountError as error:
        out.errors.append(error)
        return ""


def open_image(image: Path | BlockDevice) -> tuple[ExtFileSystem, FindingLog]:
    log = FindingLog()
    device = image if isinstance(image, BlockDevice) else FileDevice(image)
    return ExtParser().open(device, log), log


def doubts(log: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in log if finding.severity > Severity.NOTE]


def file_id(fs: ExtFileSystem, path: str) -> int:
    """The id of a path, by lookup alone."""
    at = fs.root
    for part in path.split("/"):
        looked = fs.lookup(np.array([at], np.uint64), [part.encode("utf-8", "surrogateescape")])
        assert bool(looked.found[0]), (path, dict(looked.errors))
        at = int(looked.file[0])
    return at
