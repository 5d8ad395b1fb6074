"""How tests run the command line, and what independent readers saw of the sample (`fixtures/make/demo.sh`)."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from pseudomount.cli.app import app

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "pseudomount" / "samples" / "demo.img.gz"
MANIFEST = ROOT / "fixtures" / "demo.manifest.jsonl"
#: First byte and size of its volumes, as the recipe told sgdisk.
BOOT, SYSTEM, DATA = (2048 << 9, 67_584 << 9), (69_632 << 9, 36_864 << 9), (106_496 << 9, 16_384 << 9)
LETTER = "/home/ada/letters/to-babbage.txt"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command printed."""

    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode("utf-8").replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def objects(self) -> list[dict[str, Any]]:
        """JSON, one object a line; the lines must be ASCII."""
        self.out.decode("ascii")
        found = [json.loads(line) for line in self.lines]
        assert all(isinstance(item, dict) for item in found)
        return found

    def findings(self) -> list[dict[str, Any]]:
        return [item["finding"] for item in self.objects() if "finding" in item]


def pm(*args: str | Path) -> Ran:
    """Runs a command in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], prog_name="pseudomount")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout_bytes, result.stderr_bytes.decode("utf-8").replace("\r\n", "\n"))


def pm_process(*args: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pseudomount", *map(str, args)],
        capture_output=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONUTF8": "1", **(env or {})},
    )
    return Ran(done.returncode, done.stdout, done.stderr.decode("utf-8").replace("\r\n", "\n"))


@cache
def sample_bytes() -> bytes:
    return gzip.decompress(SAMPLE.read_bytes())


@cache
def _rows() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(line) for line in MANIFEST.read_text("utf-8").splitlines())


def seen_header() -> dict[str, Any]:
    return _rows()[0]


def seen(volume: str, below: str = "", *, direct: bool = False) -> dict[str, dict[str, Any]]:
    """Absolute path → what the reader saw there, for everything (right, with `direct`) below a folder."""
    top = below.strip("/") + "/" if below.strip("/") else ""
    found = {
        "/" + row["path"]: row
        for row in _rows()[1:]
        if row["volume"] == volume and row["path"] and row["path"].startswith(top)
    }
    return {path: row for path, row in found.items() if not direct or "/" not in path[1 + len(top) :]}


def cut_disk(target: Path, size: int | None = None) -> Path:
    """The sample as a sparse file, or its first `size` bytes."""
    data = memoryview(sample_bytes())[:size]
    with target.open("wb") as file:
        for at in range(0, len(data), 1 << 16):
            piece = bytes(data[at : at + (1 << 16)])
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))
    return target


def tool(*args: str | Path, stdin: str = "") -> str:
    """Runs a program of the system."""
    done = subprocess.run([str(arg) for arg in args], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
