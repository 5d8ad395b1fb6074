"""The demo: what people see first."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pseudomount.cli.demo import unpack_sample
from tests.cli.support import LETTER, SAMPLE, pm, pm_process, sample_bytes, seen

RECOVERED = {
    "disk0p1": ("fat32", "/grub/grub.cfg"),
    "disk0p2": ("ext4", LETTER),
    "disk0p3": ("ntfs", "/Contracts/Signed/Clement \u2013 Difference Engine No. 1.txt"),
}


def test_demo_tells_its_story_and_ends_well() -> None:
    ran = pm_process("demo")
    assert ran.status == 0
    assert ran.err == ""
    parts = ["BOOT    33 MiB", "system  18 MiB", "Data     8 MiB", "to-babbage.txt", "My dear Babbage", "menuentry"]
    for part in (*parts, "Mr. Charles Babbage, of Dorset Street", "requests", "Try next"):
        assert part in ran.text
    for volume, (filesystem, path) in RECOVERED.items():
        assert f"{volume}  {filesystem}" in ran.text
        assert seen(volume)[path]["sha256"] in ran.text
    for volume, folder in (("disk0p1", "/"), ("disk0p2", "/home/ada"), ("disk0p3", "/Contracts")):
        for path in seen(volume, folder, direct=True):
            assert path.rpartition("/")[2][:70] in ran.text


def test_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    env = {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}
    assert pm_process("demo", env=env).status == 0
    assert list(tmp_path.iterdir()) == []


def test_demo_keeps_the_sample_when_told(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    ran = pm("demo", "--keep", folder, "--json")
    assert ran.status == 0
    assert (folder / "demo.img").read_bytes() == sample_bytes()
    [item] = ran.objects()
    assert [each["volume"] for each in item["recovered"]] == list(RECOVERED)
    for each in item["recovered"]:
        filesystem, path = RECOVERED[each["volume"]]
        row = seen(each["volume"])[path]
        assert (each["filesystem"], each["path"], each["size"]) == (filesystem, path, row["size"])
        assert each["sha256"] == each["expected_sha256"] == row["sha256"]
        goal = folder / "recovered" / path.rpartition("/")[2]
        assert Path(each["destination"]) == goal
        assert hashlib.sha256(goal.read_bytes()).hexdigest() == row["sha256"]
        if os.name == "posix":
            assert goal.stat().st_mtime_ns // 100 == row["mtime_ns"] // 100
    assert 0 < item["bytes_fetched"] < 1 << 20
    assert pm("demo", "--keep", folder).status == 0  # a second time is no trouble


def test_what_the_demo_suggests_works(tmp_path: Path) -> None:
    text = pm("demo", "--keep", tmp_path).text
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("     pseudomount ")]
    assert len(lines) == 6
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


def test_demo_does_not_write_over_a_file_that_is_called_like_one_of_the_sample(tmp_path: Path) -> None:
    (tmp_path / "recovered").mkdir()
    (tmp_path / "recovered" / "grub.cfg").write_text("mine")
    ran = pm("demo", "--keep", tmp_path)
    assert ran.status == 2
    assert "grub.cfg" in ran.err
    assert (tmp_path / "recovered" / "grub.cfg").read_text() == "mine"


@pytest.mark.parametrize("content", [b"set timeout=5", b"Ockham Park", b"of Dorset Street"])
def test_demo_notices_a_wrong_content(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = unpack_sample(tmp_path)
    with disk.open("r+b") as file:
        file.seek(sample_bytes().index(content))
        file.write(b"Ashley")
    monkeypatch.setattr("pseudomount.cli.demo.unpack_sample", lambda folder: disk)
    ran = pm("demo", "--keep", tmp_path)
    assert ran.status == 3
    assert "SHA-256" in ran.err


def test_the_sample_is_small() -> None:
    assert SAMPLE.stat().st_size <= 300_000
