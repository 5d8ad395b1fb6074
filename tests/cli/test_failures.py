"""Each kind of trouble: its exit status, its one line, and the rest still there."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import BOOT, DATA, SYSTEM, cut_disk, pm, pm_process, seen, tool

NUMBERS = "".join(f"{i}\n" for i in range(5000))


def one_line(err: str, *parts: str) -> None:
    """Exactly one line that says "pseudomount:", with these parts in it, and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("pseudomount: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "good").write_text("good\n")
    (top / "bad").write_text(NUMBERS)
    (top / "sub" / "other").write_text("other\n")
    return top


# -- nothing there ---------------------------------------------------------------------------------------------------

COMMANDS = [["info"], ["ls"], ["find"], ["ls", "-lR"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_source_that_is_not_there(command: list[str], tmp_path: Path) -> None:
    ran = pm(*command, tmp_path / "missing.img")
    assert ran.status == 1
    one_line(ran.err, "missing.img", "no such file")
    [item] = pm(*command, "--json", tmp_path / "missing.img").objects()
    assert item["kind"] == "ObjectNotFoundError"


@pytest.mark.parametrize("command", [["ls"], ["stat"], ["cat"], ["find"], ["ls", "-R"]])
def test_a_path_that_is_not_there(command: list[str], disk: Path) -> None:
    ran = pm(*command, disk, "system:/no/such/file")
    assert ran.status == 1
    assert ran.out == b""
    one_line(ran.err, "/no/such/file", "no such file")


def test_a_path_through_a_file_and_a_folder_for_a_file(disk: Path) -> None:
    ran = pm("cat", disk, "system:/etc/hostname/x")
    assert ran.status == 1
    one_line(ran.err, "not a directory")
    ran = pm("cat", disk, "system:/etc")
    assert ran.status == 1
    one_line(ran.err, "is a directory")


def test_one_of_several_paths_missing_costs_itself(disk: Path) -> None:
    ran = pm("cat", disk, "system:/etc/hostname", "system:/nope", "system:/etc/motd")
    assert ran.status == 1
    assert ran.text.startswith("engine\nThe Analytical Engine")
    one_line(ran.err, "/nope")
    items = pm("stat", "--json", disk, "system:/nope", "system:/etc/motd").objects()
    assert items[0]["kind"] == "PathNotFoundError"
    assert items[0]["path"] == "system:/nope"
    assert items[1]["path"] == "/etc/motd"


# -- no disk image ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [b"just a letter, no disk\n" * 300, bytes(1 << 20), b"\xff" * 100_000])
def test_not_a_disk_image(command: list[str], content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    ran = pm(*command, path)
    assert ran.status == 3
    one_line(ran.err, "letter.txt", "disk image")


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.img"
    path.touch()
    ran = pm("ls", path)
    assert ran.status == 3
    one_line(ran.err)


def test_a_volume_without_a_known_file_system(disk: Path, tmp_path: Path) -> None:
    path = cut_disk(tmp_path / "blank.img")
    with path.open("r+b") as file:
        for start, size in (BOOT, DATA):
            file.seek(start)
            file.write(bytes(size))
    ran = pm("ls", path, "disk0p1:/")
    assert ran.status == 3
    one_line(ran.err, "disk0p1", "no file system")
    assert pm("cat", path, "/etc/hostname").text == "engine\n"  # the only one left needs no name
    volumes = [item for item in pm("info", path, "--json").objects() if "volume" in item]
    assert [volume["filesystem"] for volume in volumes] == [None, "ext4", None]
    assert pm("info", path).status == 0  # a swap partition is no damage


# -- damage ----------------------------------------------------------------------------------------------------------


def test_a_truncated_image_is_browsed_as_far_as_it_goes(tmp_path: Path) -> None:
    size = SYSTEM[0] + 7_000_000
    path = cut_disk(tmp_path / "cut.img", size)
    ran = pm("info", path, "--json")
    assert ran.status == 3
    [finding] = [item for item in ran.findings() if item["volume"] == "disk0p2"]
    assert str(sum(SYSTEM) - size) in finding["message"]  # bytes of the partition past the end
    assert finding["severity"] == "degraded"
    assert pm("ls", path, "boot:/grub").lines == ["grub.cfg"]
    assert pm("cat", path, "system:/etc/hostname").text == "engine\n"
    ran = pm("ls", path, "system:/etc")
    assert ran.status == 0  # all that was asked for is there
    assert "past the disk" in ran.err  # but whoever looks at this volume is told


def test_content_beyond_the_cut_is_lost_and_says_so(tmp_path: Path) -> None:
    # The cut goes through the file system's data: what is before is whole, what is behind is an error of its file.
    path = cut_disk(tmp_path / "cut.img", SYSTEM[0] + 700_000)
    truth = {p: row for p, row in seen("disk0p2", "/home/ada").items() if row["type"] == "file"}
    whole, lost = 0, 0
    for p, row in truth.items():
        ran = pm("cat", path, f"system:{p}")
        if ran.status == 0:
            assert hashlib.sha256(ran.out).hexdigest() == row["sha256"]
            whole += 1
        else:
            assert ran.status == 3
            assert hashlib.sha256(ran.out).hexdigest() != row["sha256"]
            one_line(ran.err)
            lost += 1
    assert whole + lost == len(truth)
    assert lost


@pytest.mark.tools("mke2fs", "debugfs")
def test_a_damaged_file_in_a_sound_volume(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "damaged.img"
    tool("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, image, "4M")
    tool("debugfs", "-w", "-R", "set_inode_field /bad block[3] 9999999", image)
    assert pm("ls", "-l", image).status == 0
    assert pm("cat", image, "/good").text == "good\n"
    ran = pm("cat", image, "/bad", "/sub/other")
    assert ran.status == 3
    # What is before the damage, three blocks, and the next file.
    assert ran.text == NUMBERS[:3072] + "other\n"
    one_line(ran.err, "/bad")
    assert ran.err.count("outside the volume") == 1  # what the error said is not said again as a finding
    out = tmp_path / "out"
    ran = pm("get", image, "/", "--to", out, "--json")
    assert ran.status == 3
    assert any(item["path"] == "/bad" and item["severity"] == "lost" for item in ran.findings())
    assert (out / "good").read_text() == "good\n"
    assert (out / "sub" / "other").read_text() == "other\n"
    assert not (out / "bad").exists()
    assert not list(out.glob(".*"))
    assert {item["path"] for item in ran.objects() if "destination" in item} == {
        "/good", "/sub", "/sub/other", "/lost+found",
    }  # fmt: skip


@pytest.mark.tools("mke2fs", "debugfs")
def test_a_damaged_folder_costs_itself(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "damaged.img"
    tool("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, image, "4M")
    tool("debugfs", "-w", "-R", "set_inode_field /sub block[0] 9999999", image)
    ran = pm("find", image, "--type", "f", "--json")
    assert ran.status == 3
    assert sorted(item["path"] for item in ran.objects() if "path" in item) == ["/bad", "/good"]
    assert any(item["path"] == "/sub" for item in ran.findings())
    ran = pm("find", image, "--type", "f")
    assert sorted(ran.lines) == ["/bad", "/good"]
    assert "/sub" in ran.err


@pytest.mark.tools("mke2fs", "debugfs")
def test_a_journal_that_was_not_replayed_is_a_note(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "journal.img"
    tool("mke2fs", "-q", "-t", "ext4", "-d", tree, image, "8M")
    tool("debugfs", "-w", "-R", "feature needs_recovery", image)
    for command, *paths in (["info"], ["ls", "/"], ["cat", "/good"], ["find"], ["stat", "/good"]):
        ran = pm(command, image, *paths)
        assert ran.status == 0
        [line] = ran.err.splitlines()
        assert line.startswith("note: ")
        assert "journal" in line
        [finding] = pm(command, "--json", image, *paths).findings()
        assert finding["severity"] == "note"
        assert finding["volume"] == "disk0"


@pytest.mark.tools("mke2fs", "debugfs")
def test_encrypted_content_is_an_error_of_its_file(tree: Path, tmp_path: Path) -> None:
    image = tmp_path / "encrypted.img"
    tool("mke2fs", "-q", "-t", "ext4", "-O", "encrypt", "-d", tree, image, "4M")
    tool("debugfs", "-w", "-R", "set_inode_field /bad flags 0x80800", image)  # EXT4_ENCRYPT_FL
    ran = pm("cat", image, "/bad", "/good")
    assert ran.status == 3
    assert ran.text == "good\n"
    one_line(ran.err, "/bad", "encrypted")
    ran = pm("get", image, "/", "--to", tmp_path / "out")
    assert ran.status == 3
    assert "encrypted" in ran.err
    assert not (tmp_path / "out" / "bad").exists()
    assert (tmp_path / "out" / "good").read_text() == "good\n"
    assert pm("ls", "-l", image).status == 0


# -- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ["ls"],
        ["nonsense"],
        ["ls", "--nonsense", "x"],
        ["get", "x", "/y"],
        ["find", "x", "--min-size", "big"],
        ["find", "x", "--newer", "yesterday"],
        ["find", "x", "--type", "q"],
        ["find", "x", "--regex", "("],
        ["ls", "x", "-o", "novalue"],
        ["ls", "x", "--parser", "nonsense"],
    ],
)
def test_wrong_usage(args: list[str]) -> None:
    ran = pm(*args)
    assert ran.status == 2
    assert ran.out == b""
    one_line(ran.err)


# -- how it ends -----------------------------------------------------------------------------------------------------


def test_a_defect_of_ours_is_one_line(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("a wheel\ncame off")

    monkeypatch.setattr("pseudomount.cli.session.find_place", broken)
    ran = pm("ls", disk, "boot:/")
    assert ran.status == 70
    one_line(ran.err, "internal error", "report", "RuntimeError: a wheel came off")
    monkeypatch.setenv("PSEUDOMOUNT_DEBUG", "1")
    ran = pm("ls", disk, "boot:/")
    assert ran.status == 70
    assert "Traceback" in ran.err


def test_interrupting_is_quiet(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pseudomount.cli.session.find_place", interrupted)
    ran = pm("ls", disk, "boot:/")
    assert ran.status == 130
    assert ran.err == "pseudomount: interrupted\n"


@pytest.mark.parametrize(
    "args", [["cat", "system:/var/lib/engine/store.db"], ["find", "--json"], ["ls", "-lR", "system:/"]]
)
def test_a_reader_that_goes_away_is_no_error(args: list[str], disk: Path) -> None:
    command, *rest = args
    paths = [rest.pop()] if rest and ":" in rest[-1] else []
    words = [sys.executable, "-m", "pseudomount", command, *rest, str(disk), *paths]
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(words, stdout=write_end, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write_end)
    assert done.stderr == b""
    assert done.returncode == 141


def test_a_terminal_that_cannot_show_a_name_shows_an_escape(disk: Path) -> None:
    ran = pm_process("ls", disk, "system:/home/ada", env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert ran.status == 0
    assert b"\\xdcbersicht \\u2013 R\\xe4der.txt" in ran.out


@pytest.mark.tools("mke2fs", "debugfs")
def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    top = tmp_path / "tree"
    top.mkdir()
    (top / "evil\x1b[2J\nname").write_text("x")
    image = tmp_path / "evil.img"
    tool("mke2fs", "-q", "-t", "ext4", "-d", top, image, "1M")
    escaped = "evil\\x1b[2J\\x0aname"
    assert escaped in pm("ls", image).lines
    assert "/" + escaped in pm("find", image).lines
    assert "\x1b" not in pm("ls", "-lR", image).text
    assert pm("cat", image, "/" + escaped).text == "x"
    for ran in (pm("cat", image, "/evil\x1b[2J\nnome"), pm("ls", tmp_path / "evil\x1b[2J\nnome.img")):
        assert ran.status == 1
        assert "\x1b" not in ran.err
        assert len(ran.err.splitlines()) == 1
    item = next(item for item in pm("ls", "--json", image).objects() if item["type"] == "file")
    assert item["name"] == "evil\x1b[2J\nname"
