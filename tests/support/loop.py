# ruff: noqa: PTH115, PTH118, PTH208
"""The Linux kernel and debugfs as oracles: loop mounts that are always undone, and trees as they show them.

Paths are bytes here, so pathlib is of no use.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.entries import VISIBLE_FLAGS, WHOLE_LIMIT, Entry, digest

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

_INLINE = 0x10000000  # EXT4_INLINE_DATA_FL
_GETFLAGS, _GETVERSION = 0x80086601, 0x80087601  # FS_IOC_GETFLAGS, FS_IOC_GETVERSION on 64-bit Linux


def run(*command: str | Path, stdin: bytes | None = None) -> str:
    """Runs a program; its standard output, or an error with what it said."""
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {said}")
    return done.stdout.decode("utf-8", "surrogateescape")


def mkfs(image: Path, kind: str, size: str, *options: str, dirty: bool = False) -> Path:
    """A new sparse file with a file system made by mke2fs. `size` as truncate takes it, such as "16M".

    A `dirty` disk held garbage before, so that blocks that were never written show where they are read; mke2fs keeps
    it there if `options` say "-E nodiscard".
    """
    image.unlink(missing_ok=True)
    run("truncate", "-s", size, image)
    if dirty:
        left = image.stat().st_size
        with image.open("r+b") as file:
            while left > 0:
                left -= file.write((b"\xa5\x5a\xff\x01" * (1 << 18))[:left])
    run("mke2fs", "-q", "-F", "-t", kind, *options, image)
    return image


@contextlib.contextmanager
def loop(image: Path, *, offset: int = 0, size: int = 0, writable: bool = False) -> Iterator[str]:
    """A loop device over (a part of) a file."""
    options = ["--offset", str(offset)] if offset else []
    options += ["--sizelimit", str(size)] if size else []
    options += [] if writable else ["--read-only"]
    device = run("losetup", "--find", "--show", *options, image).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


@contextlib.contextmanager
def mounted(
    image: Path, options: str = "ro,noload", *, kind: str = "ext4", offset: int = 0, size: int = 0
) -> Iterator[Path]:
    """A mount of an image in a folder of its own. "ro,noload" leaves the journal alone, as a reader of copies must."""
    writable = "rw" in options.split(",")
    with (
        tempfile.TemporaryDirectory(prefix="pseudomount-test-") as folder,
        loop(image, offset=offset, size=size, writable=writable) as device,
    ):
        run("mount", "-t", kind, "-o", options, device, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)


def kernel_tree(mountpoint: Path, *, births: bool = True) -> dict[bytes, Entry]:
    """Every path below a mount and the root itself (as b""), as the kernel shows them."""
    top = os.fsencode(mountpoint)
    tree = {b"": _kernel_entry(top)}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        for name in os.listdir(os.path.join(top, folder) if folder else top):
            path = os.path.join(folder, name) if folder else name
            tree[path] = entry = _kernel_entry(os.path.join(top, path))
            if entry.type == "dir":
                waiting.append(path)
    return _with_births(mountpoint, tree) if births else tree


def _kernel_entry(path: bytes) -> Entry:
    if sys.platform != "linux":
        raise OSError("needs Linux")
    info = os.lstat(path)
    kind = TYPES[stat.S_IFMT(info.st_mode)]
    sha256 = target = error = flags = generation = rdev = None
    if kind in {"char", "block"}:
        rdev = (os.major(info.st_rdev), os.minor(info.st_rdev))
    elif kind == "symlink":
        target = os.readlink(path)
    elif kind in {"file", "dir"}:
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as failure:  # encrypted, and no key
            error = failure.strerror
        else:
            try:
                flags, generation = _ioctl(file, _GETFLAGS), _ioctl(file, _GETVERSION)
                if kind == "file":
                    parts = _data_extents(file, info.st_size) if info.st_size > WHOLE_LIMIT else None
                    sha256 = digest(info.st_size, lambda at, n: os.pread(file, n, at), parts)
            except OSError as failure:
                error = failure.strerror
            finally:
                os.close(file)
    xattrs = {
        os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
        for name in os.listxattr(path, follow_symlinks=False)
    }
    return Entry(
        type=kind,
        size=info.st_size,
        mode=info.st_mode,
        uid=info.st_uid,
        gid=info.st_gid,
        nlink=info.st_nlink,
        mtime_ns=info.st_mtime_ns,
        atime_ns=info.st_atime_ns,
        ctime_ns=info.st_ctime_ns,
        ino=info.st_ino,
        # The kernel adds what inline data would use if it were not inline.
        allocated=None if flags and flags & _INLINE else info.st_blocks * 512,
        rdev=rdev,
        target=target,
        sha256=sha256,
        xattrs=xattrs,
        flags=flags,
        generation=generation,
        error=error,
    )


def _ioctl(file: int, request: int) -> int | None:
    if sys.platform != "linux":
        raise OSError("needs Linux")
    import fcntl

    try:
        return int(struct.unpack("I", fcntl.ioctl(file, request, b"\0" * 8)[:4])[0])
    except OSError:
        return None


def _data_extents(file: int, size: int) -> list[tuple[int, int]]:
    if sys.platform != "linux":
        raise OSError("needs Linux")
    found, at = [], 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            break  # only a hole is left
        at = os.lseek(file, start, os.SEEK_HOLE)
        found.append((start, at - start))
    return found


def _with_births(mountpoint: Path, tree: dict[bytes, Entry]) -> dict[bytes, Entry]:
    """Adds creation times, which Python's `stat` does not give on Linux but find does."""
    from dataclasses import replace

    said = subprocess.run(["find", ".", "-printf", r"%B@ %P\0"], cwd=mountpoint, capture_output=True, check=True).stdout
    for record in said.split(b"\0")[:-1]:
        when, _, path = record.partition(b" ")
        match = re.fullmatch(rb"(-?\d+)\.(\d{9})\d?", when)
        if match and path in tree:
            seconds, part = int(match[1]), int(match[2])
            negative = when.startswith(b"-")
            # find prints the fraction without regard to the sign of the seconds
            ns = seconds * 1_000_000_000 + (-part if negative else part)
            if ns >= 0:
                tree[path] = replace(tree[path], btime_ns=ns)
    return tree


# -- debugfs -------------------------------------------------------------------------------------------------------


def debugfs(image: Path, commands: Sequence[str], *, writable: bool = False) -> list[str]:
    """Runs commands in one debugfs; the text that each printed."""
    with tempfile.NamedTemporaryFile("w", suffix=".debugfs", delete=False) as script:
        script.write("\n".join(commands) + "\n")
    try:
        said = run("debugfs", *(["-w"] if writable else []), "-f", script.name, image)
    finally:
        Path(script.name).unlink()
    # debugfs echoes each command as a line of its own
    answers: list[str] = []
    lines = said.split("\n")
    waiting = list(commands)
    for line in lines:
        if waiting and line == f"debugfs: {waiting[0]}":
            waiting.pop(0)
            answers.append("")
        elif answers:
            answers[-1] += line + "\n"
    if waiting:
        raise RuntimeError(f"debugfs did not get to {waiting[0]!r}")
    return answers


_PART = re.compile(r"^/(\d+)/(\d+)/-?\d+/-?\d+/(.*)/\d*/$", re.S)
_TIME = re.compile(r"^ ?(ctime|atime|mtime|crtime): 0x([0-9a-f]{8})(?::([0-9a-f]{8}))?", re.M)


def debugfs_tree(image: Path) -> dict[bytes, Entry]:
    """Every path of an unmounted image and its root (as b""), as debugfs shows them. Names may not hold a newline."""
    paths: dict[bytes, int] = {b"": 2}
    waiting = [(b"", 2)]
    while waiting:
        answers = debugfs(image, [f"ls -p <{inode}>" for _, inode in waiting])
        folders, waiting = waiting, []
        for (folder, _), text in zip(folders, answers, strict=True):
            for line in text.split("\n"):
                match = _PART.match(line)
                if not match or match[1] == "0" or match[3] in {".", ".."}:
                    continue
                name = match[3].encode("utf-8", "surrogateescape")
                path = folder + b"/" + name if folder else name
                paths[path] = int(match[1])
                if stat.S_ISDIR(int(match[2], 8)):
                    waiting.append((path, int(match[1])))
    inodes = sorted(set(paths.values()))
    with tempfile.TemporaryDirectory(prefix="pseudomount-test-") as folder_name:
        out = Path(folder_name)
        stats = debugfs(image, [f"stat <{inode}>" for inode in inodes])
        seen = {inode: _debugfs_entry(inode, text) for inode, text in zip(inodes, stats, strict=True)}
        wanted = [inode for inode, entry in seen.items() if entry.type in {"file", "symlink"} and entry.target is None]
        debugfs(image, [f"dump <{inode}> {out / str(inode)}" for inode in wanted])
        return {path: _with_content(seen[inode], out / str(inode)) for path, inode in paths.items()}


def _debugfs_entry(inode: int, text: str) -> Entry:
    def number(pattern: str, base: int = 10) -> int:
        match = re.search(pattern, text)
        if not match:
            raise RuntimeError(f"inode {inode}: no {pattern!r} in {text!r}")
        return int(match[1], base)

    kinds = {
        "regular": "file",
        "directory": "dir",
        "symlink": "symlink",
        "character special": "char",
        "block special": "block",
        "FIFO": "fifo",
        "socket": "socket",
    }
    word = re.search(r"Type: (character special|block special|\S+)", text)
    kind = kinds[word[1]] if word else "unknown"
    bits = {name: value for value, name in TYPES.items()}[kind]
    times: dict[str, int] = {}
    for match in _TIME.finditer(text):
        seconds = struct.unpack(">i", bytes.fromhex(match[2]))[0]
        extra = int(match[3], 16) if match[3] else 0
        times[match[1]] = (seconds + ((extra & 3) << 32)) * 1_000_000_000 + (extra >> 2)
    fast = re.search(r'Fast link dest: "(.*)"\n', text, re.S)
    node = re.search(r"Device major/minor number: (\d+):(\d+)", text)
    return Entry(
        type=kind,
        size=number(r"Size: (\d+)"),
        mode=bits | number(r"Mode: +(\d+)", 8),
        uid=number(r"User: +(-?\d+)") % (1 << 32),
        gid=number(r"Group: +(-?\d+)") % (1 << 32),
        nlink=number(r"Links: (\d+)"),
        mtime_ns=times["mtime"],
        atime_ns=times["atime"],
        ctime_ns=times["ctime"],
        btime_ns=times.get("crtime"),
        ino=inode,
        allocated=number(r"Blockcount: (\d+)") * 512,
        rdev=(int(node[1]), int(node[2])) if node else None,
        target=fast[1].encode("utf-8", "surrogateescape") if fast else None,
        flags=number(r"Flags: 0x([0-9a-f]+)", 16) & VISIBLE_FLAGS if kind in {"file", "dir"} else None,
        generation=number(r"Generation: (\d+)"),
    )


def _with_content(entry: Entry, dumped: Path) -> Entry:
    from dataclasses import replace

    if entry.type == "symlink" and entry.target is None:
        return replace(entry, target=dumped.read_bytes())
    if entry.type != "file":
        return entry
    with dumped.open("rb") as file:
        size = entry.size or 0

        def read(at: int, length: int) -> bytes:
            file.seek(at)
            return file.read(length)

        return replace(entry, sha256=digest(size, read, _data_extents(file.fileno(), size)))
