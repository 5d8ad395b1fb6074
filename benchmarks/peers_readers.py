"""How pseudomount and its peers are asked for everything in a volume: each reader gives rows by path.

    python benchmarks/peers_readers.py READER IMAGE FILESYSTEM     # prints them, a JSON array a line

Readers: "ours", "dissect" (dissect.extfs, dissect.ntfs, dissect.fat), "tsk" (fls and icat), "7z". A reader runs in a
process of its own, so that one that hangs or takes all memory costs itself. Paths are bytes, written as in the
manifests of `fixtures/`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from tests.support.entries import Digest, escape  # noqa: E402

__all__ = ["READERS", "Seen", "version"]

_STEP = 1 << 20
#: Seconds that icat is waited for, a file.
_PATIENCE = 10.0
_SECOND = 10**9
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reader says of a path. None is "it does not tell".

    Attributes:
        type: as in manifests.
        size: bytes of a file.
        sha256: of a file's content, as in manifests.
        mtime: seconds since 1970.
        target: where a link leads, escaped.
        error: why the content could not be read.
    """

    type: str
    size: int | None = None
    sha256: str | None = None
    mtime: int | None = None
    target: str | None = None
    error: str | None = None


Rows = Iterator[tuple[str, Seen]]


def _text(name: str, *, wide: bool = False) -> str:
    """As manifests write it. Stray bytes of ext are surrogate escapes; lone surrogates of UTF-16 are themselves."""
    return escape(name.encode("utf-8", "surrogatepass" if wide else "surrogateescape"))


class _BrokenFolderError(Exception):
    """Some folders could not be listed to their end; the others were."""


class _Folders:
    """Lists folders so that one that breaks off costs itself."""

    def __init__(self) -> None:
        self._errors: list[str] = []

    def entries(self, listing: Callable[[], Iterable[Any]]) -> Iterator[Any]:
        """What a folder gives until it breaks off."""
        try:
            yield from listing()
        except GeneratorExit:
            raise
        except Exception as error:
            self._errors.append(f"{type(error).__name__} in a folder")

    def check(self) -> None:
        """Raises if one broke off."""
        if self._errors:
            raise _BrokenFolderError(self._errors[0])


def _summed(size: int, parts: Iterable[bytes]) -> str:
    """The digest of a content that comes in parts of 1 MiB."""
    made, at = Digest(size), 0
    for part in parts:
        made.feed(at, part)
        at += len(part)
        if at > size:
            break
    if at != size:
        raise ValueError(f"{at} of {size} bytes")
    return made.text()


def _parts(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, _STEP), b"")


def _content(size: int, open_it: Callable[[], IO[bytes]]) -> tuple[str | None, str | None]:
    """(digest, None) or (None, why not)."""
    try:
        return _summed(size, _parts(open_it())), None
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"[:200]


# -- pseudomount ------------------------------------------------------------------------------------------------------


def ours(image: Path, filesystem: str) -> Rows:
    """This project, through its public interface."""
    from pseudomount import BackupPath, open_backup

    wide, folders = not filesystem.startswith("ext"), _Folders()
    with open_backup(image) as backup:
        waiting: list[tuple[str, BackupPath]] = [("", backup.volumes["disk0"].root)]
        while waiting:
            above, folder = waiting.pop()
            for path in folders.entries(folder.iterdir):
                shown = f"{above}/{_text(path.name, wide=wide)}" if above else _text(path.name, wide=wide)
                info = path.stat(follow_symlinks=False)
                kind = _KINDS.get(stat.S_IFMT(info.st_mode), "?")
                mtime = None if info.st_mtime_ns is None else info.st_mtime_ns // _SECOND
                if kind == "file":
                    digest, error = _content(info.st_size, partial(path.open, "rb"))
                    yield shown, Seen(kind, info.st_size, digest, mtime, error=error)
                elif kind == "symlink":
                    yield shown, Seen(kind, target=_text(str(path.readlink()), wide=wide), mtime=mtime)
                else:
                    yield shown, Seen(kind, mtime=mtime)
                if kind == "dir":
                    waiting.append((shown, path))
    folders.check()


# -- dissect ----------------------------------------------------------------------------------------------------------


def dissect(image: Path, filesystem: str) -> Rows:
    """dissect's libraries, each as its own plug-ins of dissect.target use it."""
    kind = filesystem.rstrip("0123456789")
    with image.open("rb") as file:
        yield from {"ext": _dissect_ext, "ntfs": _dissect_ntfs, "fat": _dissect_fat, "exfat": _dissect_exfat}[kind](
            file
        )


def _dissect_ext(file: BinaryIO) -> Rows:
    from dissect.extfs import ExtFS

    folders = _Folders()
    waiting: list[tuple[str, Any]] = [("", ExtFS(file).root)]
    while waiting:
        above, folder = waiting.pop()
        for node in folders.entries(folder.iterdir):
            if node.filename in (".", ".."):
                continue
            shown = f"{above}/{_text(node.filename)}" if above else _text(node.filename)
            kind = _KINDS.get(node.filetype, "?")
            mtime = node.mtime_ns // _SECOND
            if kind == "file":
                digest, error = _content(node.size, node.open)
                yield shown, Seen(kind, node.size, digest, mtime, error=error)
            elif kind == "symlink":
                yield shown, Seen(kind, mtime=mtime, target=_text(node.link))
            else:
                yield shown, Seen(kind, mtime=mtime)
            if kind == "dir" and node.filename:  # it lists nameless entries that lead to the folder itself
                waiting.append((shown, node))
    folders.check()


def _dissect_ntfs(file: BinaryIO) -> Rows:
    from dissect.ntfs import NTFS

    folders = _Folders()
    waiting: list[tuple[str, Any]] = [("", NTFS(file).mft.root)]
    while waiting:
        above, folder = waiting.pop()
        for entry in folders.entries(partial(folder.iterdir, ignore_dos=True)):
            name = entry.attribute.file_name
            if name == "." or (not above and name.startswith("$")):
                continue
            shown = f"{above}/{_text(name, wide=True)}" if above else _text(name, wide=True)
            try:
                record = entry.dereference()
                [information, *_] = record.attributes.STANDARD_INFORMATION
                mtime = information.last_modification_time_ns // _SECOND
                link = record.is_symlink() or record.is_mount_point()
            except Exception as error:
                yield shown, Seen("?", error=f"{type(error).__name__}: {error}"[:200])
                continue
            if link:
                yield shown, Seen("symlink", mtime=mtime, target=_text(record.reparse_point_substitute_name, wide=True))
            elif record.is_dir():
                yield shown, Seen("dir", mtime=mtime)
                waiting.append((shown, record))
            else:
                try:
                    size = record.size()
                except FileNotFoundError:
                    yield shown, Seen("file", mtime=mtime)
                    continue
                digest, error_text = _content(size, record.open)
                yield shown, Seen("file", size, digest, mtime, error=error_text)
    folders.check()


def _dissect_fat(file: BinaryIO) -> Rows:
    from dissect.fat import FATFS

    folders = _Folders()
    waiting: list[tuple[str, Any]] = [("", FATFS(file).root)]
    while waiting:
        above, folder = waiting.pop()
        for entry in folders.entries(folder.iterdir):
            if entry.name in (".", ".."):
                continue
            shown = f"{above}/{_text(entry.name)}" if above else _text(entry.name)
            try:
                mtime = int(entry.mtime.replace(tzinfo=UTC).timestamp())
            except ValueError:
                mtime = None
            if entry.is_directory():
                yield shown, Seen("dir", mtime=mtime)
                waiting.append((shown, entry))
            else:
                digest, error = _content(entry.size, entry.open) if entry.size else (_summed(0, []), None)
                yield shown, Seen("file", entry.size, digest, mtime, error=error)
    folders.check()


def _dissect_exfat(file: BinaryIO) -> Rows:
    from dissect.fat.exfat import ExFAT
    from dissect.util.stream import RunlistStream

    volume = ExFAT(file)

    def opened(stream: Any) -> BinaryIO:
        whole = bool(stream.flags.not_fragmented)
        runs = volume.runlist(stream.location, whole, stream.data_length if whole else None)
        made: BinaryIO = RunlistStream(file, runs, stream.data_length, volume.sector_size)
        return made

    root: Any = volume.files["/"][1]
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        above, folder = waiting.pop()
        for name, (entry, below) in folder.items():
            shown = f"{above}/{_text(name)}" if above else _text(name)
            if below is not None:
                yield shown, Seen("dir")
                waiting.append((shown, below))
            else:
                size = entry.stream.data_length
                digest, error = _content(size, partial(opened, entry.stream)) if size else (_summed(0, []), None)
                yield shown, Seen("file", size, digest, error=error)


# -- The Sleuth Kit ---------------------------------------------------------------------------------------------------

_TSK_KINDS = {"r": "file", "d": "dir", "l": "symlink", "c": "char", "b": "block", "p": "fifo", "h": "socket"}
_TSK_TYPES = {"ext": "ext", "ntfs": "ntfs", "fat": "fat", "exfat": "exfat"}
#: Files that it makes up, or that are the file system's own.
_TSK_OWN = re.compile(r"\$(MBR|FAT\d|ALLOC_BITMAP|UPCASE_TABLE|Extend|[A-Z][A-Za-z]+)(/|:|$)")


def tsk(image: Path, filesystem: str) -> Rows:
    """The Sleuth Kit: `fls` lists, `icat` reads. Deleted files are not asked for, the marked label is left out."""
    kind = _TSK_TYPES[filesystem.rstrip("0123456789")]
    said = _run("fls", "-f", kind, "-r", "-p", "-u", "-m", "", "-z", "UTC", str(image))
    for line in said.split(b"\n"):
        fields = line.split(b"|")
        if len(fields) < 11:
            continue
        path = b"|".join(fields[1:-9]).lstrip(b"/")
        address, mode = fields[-9].decode(), fields[-8].decode()
        size, mtime = int(fields[-5]), int(fields[-3])
        shown = escape(path)
        if shown.startswith("$OrphanFiles") or (kind != "ext" and _TSK_OWN.match(shown)):
            continue
        if path.endswith((b"(Volume Label Entry)", b"/.", b"/..")):
            continue
        if path in (b".", b"..") or path.endswith(b"($FILE_NAME)"):
            continue
        parts = address.split("-")
        if kind == "ntfs" and b":" in path and (len(parts) > 1 and parts[1] in ("128", "160", "144", "176")):
            continue  # a named stream
        letter = mode.split("/")[-1][:1]
        seen = _TSK_KINDS.get(letter, "file")
        if seen == "symlink":
            name, _, target = path.partition(b" -> ")
            yield escape(name), Seen(seen, mtime=mtime, target=escape(target))
        elif seen == "file":
            digest, error = _icat(image, kind, address, size)
            yield shown, Seen(seen, size, digest, mtime, error=error)
        else:
            yield shown, Seen(seen, mtime=mtime)


def _icat(image: Path, kind: str, address: str, size: int) -> tuple[str | None, str | None]:
    command = ["icat", "-f", kind, str(image), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        source = process.stdout
        limit = threading.Timer(_PATIENCE, process.kill)
        limit.start()
        try:
            return _content(size, lambda: source)
        finally:
            limit.cancel()


# -- 7-Zip ------------------------------------------------------------------------------------------------------------


def seven_zip(image: Path, filesystem: str) -> Rows:
    """7-Zip: `l -slt` lists, `x` extracts."""
    kind = {"ext": "Ext", "ntfs": "NTFS", "fat": "FAT"}.get(filesystem.rstrip("0123456789"))
    if kind is None:
        raise ValueError("7-Zip does not read this file system")
    said = _run("7z", "l", "-slt", "-ba", f"-t{kind}", str(image)).decode("utf-8", "surrogateescape")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["7z", "x", "-y", "-bd", f"-t{kind}", f"-o{folder}", str(image)],
            env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        for block in said.split("\n\n"):
            row = {key: value for key, _, value in (line.partition(" = ") for line in block.strip("\n").split("\n"))}
            path = row.get("Path", "")
            if not path or re.match(r"\[(SYS|SYSTEM|DELETED|UNKNOWN)\]", path):
                continue
            if kind == "NTFS" and ":" in path.rpartition("/")[2]:
                continue  # a named stream
            yield _text(path), _seven_zip_row(row, Path(folder) / path)


def _seven_zip_row(row: dict[str, str], extracted: Path) -> Seen:
    mode = row.get("Mode", "")
    letters = {"l": "symlink", "c": "char", "b": "block", "p": "fifo", "s": "socket", "d": "dir"}
    kind = letters.get(mode[:1], "dir" if row.get("Folder") == "+" else "file")
    if row.get("Symbolic Link"):
        kind = "symlink"
    mtime = None
    if row.get("Modified"):
        mtime = int(datetime.fromisoformat(row["Modified"][:19]).replace(tzinfo=UTC).timestamp())
    if kind == "symlink":
        return Seen(kind, mtime=mtime, target=_text(row.get("Symbolic Link", "")))
    if kind != "file":
        return Seen(kind, mtime=mtime)
    size = int(row.get("Size") or 0)
    try:
        if extracted.is_symlink() or not extracted.is_file():
            raise FileNotFoundError
        with extracted.open("rb") as file:
            digest, error = _content(size, lambda: file)
    except OSError:  # also for a name that is too long here
        return Seen(kind, size, mtime=mtime, error="it was not extracted")
    return Seen(kind, size, digest, mtime, error=error)


def _run(*command: str) -> bytes:
    done = subprocess.run(command, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode and not done.stdout:
        raise RuntimeError(done.stderr.decode(errors="replace").strip()[:200] or f"exit status {done.returncode}")
    return done.stdout


# -- all of them ------------------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path, str], Rows]] = {"ours": ours, "dissect": dissect, "tsk": tsk, "7z": seven_zip}


def version(reader: str) -> str:
    """What is here of a reader, "" where it is missing."""
    if reader == "ours":
        return "pseudomount " + importlib.metadata.version("pseudomount")
    if reader == "dissect":
        found = []
        for name in ("dissect.extfs", "dissect.ntfs", "dissect.fat"):
            try:
                found.append(f"{name} {importlib.metadata.version(name)}")
            except importlib.metadata.PackageNotFoundError:
                found.append(f"{name} missing")
        return "" if all(text.endswith("missing") for text in found) else ", ".join(found)
    if shutil.which("fls" if reader == "tsk" else "7z") is None:
        return ""
    if reader == "tsk":
        return _run("fls", "-V").decode().strip().replace("ver ", "")
    match = re.search(r"7-Zip.*?(\d+\.\d+)", _run("7z", "i").decode(errors="replace"))
    return f"7-Zip {match[1]}" if match else "7-Zip"


def main() -> None:
    """One reader, one volume."""
    reader, image, filesystem = sys.argv[1:4]
    try:
        for path, seen in READERS[reader](Path(image), filesystem):
            print(json.dumps([path, asdict(seen)]), flush=True)
    except Exception as error:
        print(json.dumps({"failure": f"{type(error).__name__}: {error}"[:300]}))
    else:
        print(json.dumps({"failure": ""}))


if __name__ == "__main__":
    main()
