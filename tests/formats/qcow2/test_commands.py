"""What the command line says of qcow2 images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.formats.qcow2.test_fixtures import unpacked


def pseudomount(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pseudomount", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


def test_backing_root_and_facts(tmp_path: Path) -> None:
    image = unpacked("chain", tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "base.raw").rename(tmp_path / "elsewhere" / "base.raw")
    failed = pseudomount("info", image)
    assert failed.returncode == 1
    assert "--backing-root" in failed.stderr
    done = pseudomount("info", "--backing-root", tmp_path / "elsewhere", image)
    assert "disk0: 3 MiB" in done.stdout, done.stderr
    assert "backing chain: " in done.stdout
    said = json.loads(
        pseudomount("info", "--json", f"--backing-root={tmp_path / 'elsewhere'}", image).stdout.split("\n")[0]
    )
    assert said["format"] == "qcow2"
    assert said["facts"]["version"] == 3
    assert said["facts"]["backing chain"][0].endswith("base.raw (raw)")


def test_snapshots_are_listed(tmp_path: Path) -> None:
    image = unpacked("snapshots", tmp_path)
    assert "snapshots: first (id 1, 20" in pseudomount("info", image).stdout
    wrong = pseudomount("info", "-o", "snapshot=third", image)
    assert wrong.returncode == 2
    assert "there are first (id 1), second (id 2)" in wrong.stderr
