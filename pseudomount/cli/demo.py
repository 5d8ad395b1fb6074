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

from pseudomount.api import Backup, open_backup
from pseudomount.cli.entries import Entries, long_lines
from pseudomount.cli.output import Output, aligned, human_size, paint, shown
from pseudomount.cli.status import report
from pseudomount.errors import CorruptionError, PseudomountError, StorageError, UsageError

__all__ = ["run_demo", "unpack_sample"]

_NAME = "demo.img"
_STEP = 64 << 10


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The file that the demo gets back, as the recipe recorded it (`fixtures/make/demo.sh`)."""

    volume: str
    folder: str
    path: str
    size: int
    sha256: str


def run_demo(keep: str | None, *, json: bool) -> int:
    """Unpacks the sample, lists volumes and a folder, gets a file back and checks it."""
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
    data = gzip.decompress((files("pseudomount") / "samples" / f"{_NAME}.gz").read_bytes())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and target.stat().st_size == len(data) and target.read_bytes() == data:
            return target
        with target.open("xb") as file:
            for at in range(0, len(data), _STEP):
                piece = data[at : at + _STEP]
                if piece.strip(b"\0"):
                    file.seek(at)
                    file.write(piece)
            file.truncate(len(data))
    except FileExistsError as error:
        raise UsageError(f"{target}: exists, and is not the sample") from error
    except OSError as error:
        raise StorageError(f"{target}: {error.strerror}") from error
    return target


def _wanted() -> _Wanted:
    return _Wanted(**json_text.loads((files("pseudomount") / "samples" / "demo.json").read_text("utf-8")))


def _show(out: Output, backup: Backup, disk: Path, folder: Path, *, kept: bool) -> None:
    wanted = _wanted()
    size = backup.disks["disk0"].size
    say = _Story(out)
    say.step(
        f"A virtual machine's disk of {human_size(size)}, as a backup tool would have stored it, is now in\n{disk}\n"
        "Opening it mounts nothing, starts no process and needs no privilege. It has these volumes:"
    )
    say.volumes(backup)
    volume = backup.volumes[wanted.volume]
    root = volume.root
    place = root / wanted.folder.lstrip("/")
    say.step(f"{wanted.volume}:{wanted.folder}, read right from the structures of {volume.filesystem}:")
    listing = place.listing()
    entries = Entries.of_listing(volume.name, listing, rows=True)
    which = entries.sorted_by_name()[0]
    say.plain(long_lines(entries, which, [shown(entries.names[i], volume.fs.name_encoding) for i in which.tolist()]))
    source = root / wanted.path.lstrip("/")
    goal = folder / source.name
    content = source.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted.sha256 or len(content) != wanted.size:
        raise CorruptionError(
            f"{wanted.path}: SHA-256 {digest}, where {wanted.sha256} was recorded", structure="content"
        )
    try:
        goal.write_bytes(content)
        modified = source.stat().st_mtime_ns
        if modified is not None and os.name == "posix":
            os.utime(goal, ns=(modified, modified))
    except OSError as error:
        raise StorageError(f"{goal}: {error.strerror}") from error
    say.step(
        f"Say Ada has lost a letter since. It comes back from {wanted.volume}:{wanted.path}\n"
        f"to {goal}, {len(content)} bytes, SHA-256\n{digest},\n"
        "which is what sha256sum said when the Linux kernel read this disk. It begins:"
    )
    say.plain([f"> {line}".rstrip() for line in content.decode("utf-8").splitlines()[:6]] + ["> …"])
    counted = backup.disks["disk0"].counters
    say.step(
        f"All this read {human_size(counted.bytes_fetched)} of the disk's {human_size(size)}, "
        f"in {counted.requests} requests."
    )
    say.end(wanted, disk, kept=kept)
    if out.json:
        out.object(
            {
                "disk": str(disk).encode("utf-8", "backslashreplace").decode("utf-8"),
                "size": size,
                "volume": wanted.volume,
                "path": wanted.path,
                "sha256": digest,
                "expected_sha256": wanted.sha256,
                "requests": counted.requests,
                "bytes_fetched": counted.bytes_fetched,
                "bytes_delivered": counted.bytes_delivered,
                "kept": kept,
            }
        )


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

    def end(self, wanted: _Wanted, disk: Path, *, kept: bool) -> None:
        """What to try next."""
        name = f'"{disk}"' if " " in str(disk) else str(disk)
        lines = [] if kept else ["pseudomount demo --keep .", ""]
        name = name if kept else _NAME
        lines += [
            f"pseudomount info {name}",
            f"pseudomount ls -l {name} {wanted.volume}:/etc",
            f"pseudomount find {name} --name '*.txt' --newer 2024-02-29",
            f"pseudomount cat {name} {wanted.volume}:/etc/fstab",
            f"pseudomount get {name} {wanted.volume}:{wanted.folder} --to recovered",
        ]
        if os.name == "nt":
            lines = [line.replace("'", '"') for line in lines]
        head = "Try next" + ("" if kept else " (the first one leaves the sample in this folder)")
        self._print([f"\n{head}:\n", *(f"     {line}".rstrip() for line in lines)])

    def _print(self, lines: list[str]) -> None:
        if not self._out.json:
            self._out.lines(lines)
            sys.stdout.flush()
