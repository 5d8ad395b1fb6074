"""Completion, as the scripts of the shells ask for it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from pseudomount.cli.complete import complete_path
from tests.cli.support import pm_process, seen


def in_bash(*words: str) -> list[str]:
    """What bash is told when the last of these words is completed; bash cuts words at colons."""
    env = {
        "_PSEUDOMOUNT_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(("pseudomount", *words)),
        "COMP_CWORD": str(len(words)),
    }
    ran = pm_process(env=env)
    assert ran.err == ""
    return ran.lines


def test_commands_and_options() -> None:
    assert in_bash("f") == ["find"]
    assert in_bash("ls", "--js") == ["--json"]


def test_volumes(disk: Path) -> None:
    assert in_bash("ls", str(disk), "") == [
        "disk0p1:/", "BOOT:/", "disk0p2:/", "system:/", "disk0p3:/", "Data:/",
    ]  # fmt: skip


def test_the_only_volume_that_fits_goes_on_inside(disk: Path) -> None:
    lines = in_bash("ls", str(disk), "sys")
    assert "system:/etc/" in lines
    assert all(line.startswith("system:/") for line in lines)


def test_entries_of_a_folder_where_bash_cut_the_word(disk: Path) -> None:
    lines = in_bash("cat", str(disk), "disk0p2", ":", "/etc/")
    truth = {path + "/" * (row["type"] == "dir") for path, row in seen("disk0p2", "/etc", direct=True).items()}
    assert set(lines) == truth
    assert in_bash("cat", str(disk), "disk0p2", ":", "/etc/fs") == ["/etc/fstab"]
    assert in_bash("get", str(disk), "boot", ":", "/grub", "disk0p2", ":", "/etc/fs") == ["/etc/fstab"]


def test_a_folder_alone_shows_its_entries(disk: Path) -> None:
    assert in_bash("ls", str(disk), "boot", ":", "/gr") == ["/grub/grub.cfg"]
    lines = in_bash("ls", str(disk), "system", ":", "/ho")  # /home holds nothing but ada
    assert "/home/ada/notes/" in lines
    assert all(line.startswith("/home/ada/") for line in lines)


def test_spaces_are_escaped_for_bash_and_understood(disk: Path) -> None:
    name = "/home/ada/Übersicht \u2013 Räder.txt"
    [line] = in_bash("cat", str(disk), "system", ":", "/home/ada/Ü")
    assert shlex.split(line) == [name]
    [line] = in_bash("cat", str(disk), "system", ":", "/home/ada/Übersicht\\ \u2013\\ R")
    assert shlex.split(line) == [name]


@pytest.mark.parametrize("words", [("ls", "no-such-file", ""), ("ls", __file__, "x"), ("ls", "", "")])
def test_trouble_is_silent(words: tuple[str, ...]) -> None:
    assert in_bash(*words) == []


def test_trouble_inside_is_silent(disk: Path) -> None:
    assert in_bash("ls", str(disk), "nosuch", ":", "/") == []
    assert in_bash("ls", str(disk), "system", ":", "/no/such/fol") == []


def test_zsh_and_fish(disk: Path) -> None:
    line = f"pseudomount cat {shlex.quote(str(disk))} system:/etc/fs"
    zsh = pm_process(env={"_PSEUDOMOUNT_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line})
    assert "/etc/fstab" in zsh.text
    assert "hostname" not in zsh.text
    fish = pm_process(
        env={
            "_PSEUDOMOUNT_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
    )
    assert fish.lines == ["system:/etc/fstab"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_is_given_a_script(shell: str) -> None:
    ran = pm_process(env={"_PSEUDOMOUNT_COMPLETE": f"source_{shell}"})
    assert ran.status == 0
    assert "_PSEUDOMOUNT_COMPLETE" in ran.text


def test_without_a_context_nothing_is_said() -> None:
    assert complete_path(None, [], "x") == []
