"""The demo: what people see first."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pseudomount.cli.demo import unpack_sample
from tests.cli.support import LETTER, SAMPLE, pm, pm_process, sample_bytes, seen


def test_demo_tells_its_story_and_ends_well() -> None:
    ran = pm_process("demo")
    assert ran.status == 0
    assert ran.err == ""
    truth = seen("disk0p2")[LETTER]["sha256"]
    for part in ("disk0p1  ext2", "disk0p2  ext4", "to-babbage.txt", truth, "My dear Babbage", "requests", "Try next"):
        assert part in ran.text
    for path in seen("disk0p2", "/home/ada", direct=True):
        assert path.rpartition("/")[2] in ran.text


def test_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    assert pm_process("demo", env=env).status == 0
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_the_sample_when_told(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    ran = pm("demo", "--keep", folder, "--json")
    assert ran.status == 0
    assert (folder / "demo.img").read_bytes() == sample_bytes()
    letter = (folder / "to-babbage.txt").read_bytes()
    truth = seen("disk0p2")[LETTER]["sha256"]
    assert hashlib.sha256(letter).hexdigest() == truth
    [item] = ran.objects()
    assert item["sha256"] == item["expected_sha256"] == truth
    assert item["path"] == LETTER
    assert 0 < item["bytes_fetched"] < 1 << 20
    assert pm("demo", "--keep", folder).status == 0  # a second time is no trouble


def test_what_the_demo_suggests_works(tmp_path: Path) -> None:
    text = pm("demo", "--keep", tmp_path).text
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("     pseudomount ")]
    assert len(lines) == 5
    for words in lines:
        args = [word.strip("'\"") for word in words]
        if "--to" in args:
            args[-1] = str(tmp_path / "recovered")
        ran = pm(*args)
        assert ran.status == 0, ran.err
        assert ran.out


def test_demo_does_not_write_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "demo.img").write_text("mine")
    ran = pm("demo", "--keep", tmp_path)
    assert ran.status == 2
    assert "demo.img" in ran.err
    assert (tmp_path / "demo.img").read_text() == "mine"


def test_demo_notices_a_wrong_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = unpack_sample(tmp_path)
    data = bytearray(disk.read_bytes())
    at = data.index(b"Ockham Park")
    data[at : at + 6] = b"Ashley"
    disk.write_bytes(data)
    monkeypatch.setattr("pseudomount.cli.demo.unpack_sample", lambda folder: disk)
    ran = pm("demo", "--keep", tmp_path)
    assert ran.status == 3
    assert "SHA-256" in ran.err


def test_the_sample_is_small() -> None:
    assert SAMPLE.stat().st_size <= 300_000
