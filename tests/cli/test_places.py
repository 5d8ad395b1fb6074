"""What a path on the command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import DATA, pm, sample_bytes, tool


@pytest.fixture
def single(tmp_path: Path) -> Path:
    """A disk with one volume only: the partition of the sample that is the office's data, as a disk without a table."""
    path = tmp_path / "data.img"
    path.write_bytes(sample_bytes()[DATA[0] : sum(DATA)])
    return path


@pytest.mark.parametrize("path", ["/Config", "Config", "/Config/", "disk0:/Config", "Data:/Config", "Data:Config"])
def test_one_volume_needs_no_name(single: Path, path: str) -> None:
    ran = pm("ls", single, path)
    assert (ran.status, ran.lines) == (0, ["office.ini"])


def test_no_path_is_the_root_of_the_only_volume(single: Path) -> None:
    assert "Config" in pm("ls", single).lines
    assert "/Config/office.ini" in pm("find", single).lines


def test_several_volumes_need_a_name_and_the_error_says_which(disk: Path) -> None:
    ran = pm("cat", disk, "/etc/fstab")
    assert ran.status == 2
    assert ran.out == b""
    [line] = ran.err.splitlines()
    assert "disk0p1 (fat32 BOOT)" in line
    assert "disk0p2 (ext4 system)" in line
    assert "disk0p3 (ntfs Data)" in line
    assert "disk0p2:/etc/fstab" in line  # where it is


def test_a_volume_that_is_not_there(disk: Path, single: Path) -> None:
    for source in (disk, single):
        ran = pm("ls", source, "nosuch:/etc")
        assert ran.status == 1
        [line] = ran.err.splitlines()
        assert line.startswith("pseudomount: no volume is called 'nosuch'")
        assert "Data" in line


def test_two_volumes_of_one_label(tmp_path: Path, single: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(single.read_bytes())
    ran = pm("ls", single, "--disk", other, "Data:/")
    assert ran.status == 2
    assert "several volumes are called 'Data'" in ran.err
    assert pm("ls", single, "--disk", other, "disk1:/Config").lines == ["office.ini"]


@pytest.mark.tools("debugfs", "mke2fs")
def test_a_name_with_a_colon_is_a_name_where_it_is_no_volume(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "boot:").mkdir(parents=True)
    (tree / "boot:" / "inside").write_text("in a folder whose name ends in a colon")
    (tree / "a:b").write_text("a file with a colon")
    (tree / "plain").write_text("plain")
    image = tmp_path / "colon.img"
    tool("mke2fs", "-q", "-t", "ext4", "-L", "boot", "-d", tree, image, "1M")
    assert pm("cat", image, "a:b").text == "a file with a colon"
    assert pm("cat", image, "/a:b").text == "a file with a colon"
    assert pm("cat", image, "boot:/plain").text == "plain"  # a volume first
    assert pm("cat", image, "boot:/inside").text == "in a folder whose name ends in a colon"  # then as it stands
    assert pm("cat", image, "boot:/boot:/inside").text == "in a folder whose name ends in a colon"
    assert pm("cat", image, "boot:/missing").status == 1
