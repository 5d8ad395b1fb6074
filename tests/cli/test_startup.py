"""What is loaded for what: help must be there at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import pm, pm_process

HEAVY = {"numpy", "pyarrow", "obstore", "dissect", "construct", "fastapi"}

CODE = """
import json, runpy, sys
sys.argv = ["pseudomount", *sys.argv[1:]]
try:
    runpy.run_module("pseudomount", run_name="__main__")
except SystemExit as end:
    status = end.code
print("\\n" + json.dumps([status, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def loaded(*args: str | Path) -> tuple[int, set[str]]:
    """The exit status of a command, and the packages that it loaded."""
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, args)], capture_output=True, text=True, check=True)
    status, names = json.loads(done.stdout.splitlines()[-1])
    return status or 0, set(names)


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["ls", "--help"], ["get", "--help"], ["info", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    status, names = loaded(*args)
    assert status == 0
    assert "typer" in names
    assert not names & HEAVY


def test_wrong_usage_loads_nothing_heavy() -> None:
    status, names = loaded("ls", "--nonsense")
    assert status == 2
    assert not names & HEAVY


def test_listing_a_folder_loads_no_arrow(disk: Path) -> None:
    commands: tuple[list[str | Path], ...] = (
        ["ls", "-l", disk, "system:/etc"],
        ["info", disk],
        ["cat", disk, "system:/etc/fstab"],
    )
    for args in commands:
        status, names = loaded(*args)
        assert status == 0
        assert "numpy" in names
        assert not names & {"pyarrow", "obstore", "dissect"}


def test_only_a_url_loads_what_speaks_to_object_stores(disk: Path) -> None:
    status, names = loaded("ls", disk, "system:/")
    assert (status, "obstore" in names) == (0, False)
    status, names = loaded("ls", disk.as_uri(), "system:/")
    assert (status, "obstore" in names) == (0, False)
    status, names = loaded("ls", "memory://none/vm.img")
    assert (status, "obstore" in names) == (1, True)
    assert not names & {"boto3", "moto", "pyarrow"}


def test_help_names_every_command() -> None:
    text = pm("--help").text
    for command in ("info", "ls", "stat", "cat", "find", "get", "parsers", "demo"):
        assert f" {command} " in text
        assert pm(command, "--help").status == 0


def test_no_command_is_help_and_wrong_usage() -> None:
    ran = pm()
    assert ran.status == 2
    assert "Usage" in ran.text


def test_python_m_pseudomount_runs_it(disk: Path) -> None:
    ran = pm_process("ls", disk, "boot:/grub")
    assert (ran.status, ran.text, ran.err) == (0, "grub.cfg\n", "")
