"""`pseudomount demo`: the sample disk that the package brings, browsed with the same calls that anyone would use."""

from __future__ import annotations

import gzip
import hashlib
import json as json_text
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from pseudomount.api import Backup, BackupVolume, open_backup
from pseudomount.cli.entries import Entries, long_lines
from pseudomount.cli.output import Output, aligned, human_size, paint, shown
from pseudomount.cli.status import report
from pseudomount.errors import CorruptionError, PseudomountError, StorageError, UsageError

__all__ = ["run_demo", "unpack_sample"]

_NAME = "demo.img"
_STEP = 64 << 10
_LINES = 6

#: What happened to the files, in the words of whoever calls for help; by volume.
_LOSSES = {
    "disk0p1": "The machine does not start any more, since somebody tidied up its boot volume.",
    "disk0p2": "Ada has lost a letter.",
    "disk0p3": "A contract is gone from the office's share.",
}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file that the demo gets back, as the recipe recorded it (`fixtures/make/demo.sh`).

    Attributes:
        volume: name of the volume.
        reader: who read the file when its SHA-256 was taken.
        folder: what is listed first.
        path: the file.
        size: in bytes.
        sha256: in hexadecimal.
    """

    volume: str
    reader: str
    folder: str
    path: str
    size: int
    sha256: str


def run_demo(keep: str | None, *, json: bool) -> int:
    """Unpacks the sample, lists its volumes and a folder of each, gets a file of each back and checks it."""
    out = Output(json=json)
    try:
        with ExitStack() as stack:
            if keep is None:
                # On Windows a file that a scanner holds open cannot be deleted at once: no reason to end with an error.
                temporary = tempfile.TemporaryDirectory(prefix="pseudomount-demo-", ignore_cleanup_errors=True)
                folder = Path(stack.enter_context(temporary))
            else:
                folder = Path(keep)
            disk = unpack_sample(folder)
            with open_backup(disk) as backup:
                _show(out, backup, disk, folder, kept=keep is not None)
        return 0
    except PseudomountError as error:
        return report(error)


def unpack_sample(folder: Path) -> Path:
    """Writes the sample disk, sparse where it is empty, into a folder, which is made if need be; returns its path.

    Raises:
        UsageError: another file of its name is there.
        StorageError: it cannot be written.
    """
    target = folder / _NAME
    sample = files("pseudomount") / "samples" / f"{_NAME}.gz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with sample.open("rb") as packed, gzip.open(packed) as data:
            if target.is_file():
                if not _same(data, target):
                    raise UsageError(f"{target}: exists, and is not the sample")
                return target
            with target.open("xb") as file:
                size = 0
                while piece := data.read(_STEP):
                    if piece.strip(b"\0"):
                        file.seek(size)
                        file.write(piece)
                    size += len(piece)
                file.truncate(size)
    except FileExistsError as error:
        raise UsageError(f"{target}: exists, and is not the sample") from error
    except OSError as error:
        raise StorageError(f"{target}: {error.strerror}") from error
    return target


def _same(data: gzip.GzipFile, path: Path) -> bool:
    """Whether a file holds just what the stream does."""
    with path.open("rb") as file:
        while piece := data.read(_STEP):
            if file.read(len(piece)) != piece:
                return False
        return not file.read(1)


def _wanted() -> list[_Wanted]:
    rows = json_text.loads((files("pseudomount") / "samples" / "demo.json").read_text("utf-8"))
    return [_Wanted(**row) for row in rows]


def _show(out: Output, backup: Backup, disk: Path, folder: Path, *, kept: bool) -> None:
    size = backup.disks["disk0"].size
    say = _Story(out)
    say.step(
        f"A virtual machine's disk of {human_size(size)}, as a backup tool would have stored it, is now in\n{disk}\n"
        "Opening it mounts nothing, starts no process and needs no privilege. It has these volumes:"
    )
    say.volumes(backup)
    wanted = _wanted()
    recovered = [_recover(say, backup.volumes[each.volume], each, folder / "recovered") for each in wanted]
    counted = backup.disks["disk0"].counters
    say.step(
        f"All this read {human_size(counted.bytes_fetched)} of the disk's {human_size(size)}, "
        f"in {counted.requests} requests."
    )
    say.end(wanted, disk, kept=kept)
    if out.json:
        out.object(
            {
                "disk": _text(disk),
                "size": size,
                "recovered": recovered,
                "requests": counted.requests,
                "bytes_fetched": counted.bytes_fetched,
                "bytes_delivered": counted.bytes_delivered,
                "kept": kept,
            }
        )


def _recover(say: _Story, volume: BackupVolume, wanted: _Wanted, folder: Path) -> dict[str, object]:
    """Lists a folder of a volume, brings a file back and checks it; what JSON says of that."""
    place = volume.root / wanted.folder.lstrip("/")
    say.step(
        f"{_LOSSES.get(wanted.volume, 'A file is gone.')}\n"
        f"This is {wanted.volume}:{wanted.folder}, read right from the structures of {volume.filesystem}:"
    )
    entries = Entries.of_listing(volume.name, place.listing(), rows=True)
    which = entries.sorted_by_name()[0]
    names = [shown(entries.names[i], volume.fs.name_encoding) for i in which.tolist()]
    say.plain([_cut(line) for line in long_lines(entries, which, names)])
    source = volume.root / wanted.path.lstrip("/")
    goal = folder / source.name
    content = source.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted.sha256 or len(content) != wanted.size:
        raise CorruptionError(
            f"{wanted.path}: SHA-256 {digest}, where {wanted.sha256} was recorded", structure="content"
        )
    _write(goal, content, source.stat().st_mtime_ns)
    say.more(
        f"{wanted.path} comes back\nto {goal}, {len(content)} bytes, SHA-256\n{digest},\n"
        f"which is what sha256sum said of it through {wanted.reader}. It begins:"
    )
    say.plain([f"> {line}".rstrip() for line in content.decode("utf-8").splitlines()[:_LINES]] + ["> …"])
    return {
        "volume": wanted.volume,
        "filesystem": volume.filesystem,
        "path": wanted.path,
        "destination": _text(goal),
        "size": len(content),
        "sha256": digest,
        "expected_sha256": wanted.sha256,
    }


def _write(goal: Path, content: bytes, modified: int | None) -> None:
    """A file of the sample; one that is there already and says something else stays as it is."""
    try:
        goal.parent.mkdir(parents=True, exist_ok=True)
        try:
            with goal.open("xb") as file:
                file.write(content)
        except FileExistsError:
            if not goal.is_file() or goal.read_bytes() != content:
                raise UsageError(f"{goal}: exists, and is not the sample's") from None
        if modified is not None and os.name == "posix":
            os.utime(goal, ns=(modified, modified))
    except OSError as error:
        raise StorageError(f"{goal}: {error.strerror}") from error


def _cut(line: str, width: int = 110) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _text(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


class _Story:
    """What people are told; JSON readers get the facts only."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._number = 0

    def step(self, text: str) -> None:
        """The next thing that happens."""
        self._number += 1
        first, *more = text.split("\n")
        number = paint(f"{self._number}.", "1", self._out.colour)
        self._print([("" if self._number == 1 else "\n") + f"{number} {first}", *(f"   {line}" for line in more)])

    def more(self, text: str) -> None:
        """What follows in the same step."""
        self._print(["", *(f"   {line}" for line in text.split("\n"))])

    def plain(self, lines: list[str]) -> None:
        """What there is to see."""
        self._print(["", *(f"     {line}" for line in lines)])

    def volumes(self, backup: Backup) -> None:
        """A short table."""
        self.plain(
            aligned(
                [(v.name, v.filesystem or "-", v.label or "-", human_size(v.size)) for v in backup.volumes],
                right=frozenset({3}),
            )
        )

    def end(self, wanted: list[_Wanted], disk: Path, *, kept: bool) -> None:
        """What to try next."""
        name = f'"{disk}"' if " " in str(disk) else str(disk)
        lines = [] if kept else ["pseudomount demo --keep .", ""]
        name = name if kept else _NAME
        boot, system, data = (each.volume for each in wanted)
        lines += [
            f"pseudomount info {name}",
            f"pseudomount ls -lR {name} {boot}:/EFI",
            f"pseudomount find {name} --name '*.txt' --newer 2024-02-29",
            f"pseudomount cat {name} {system}:/etc/fstab",
            f"pseudomount stat {name} {data}:/Downloads/form.txt",
            f"pseudomount get {name} {system}:/home/ada {data}:/Contracts --to recovered",
        ]
        if os.name == "nt":
            lines = [line.replace("'", '"') for line in lines]
        head = "Try next" + ("" if kept else " (the first one leaves the sample in this folder)")
        self._print([f"\n{head}:\n", *(f"     {line}".rstrip() for line in lines)])

    def _print(self, lines: list[str]) -> None:
        if not self._out.json:
            self._out.lines(lines)
            sys.stdout.flush()
