"""What `get` writes, and what it refuses to write."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pseudomount.cli.destination import Destination
from pseudomount.filesystem.walk import WalkBatch, walk_batches
from tests.cli.support import LETTER, pm, seen, tool

ADA = "/home/ada"
POSIX = os.name == "posix"
KINDS = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK}


def check_tree(top: Path, volume: str, folder: str, *, missing: frozenset[str] = frozenset()) -> None:
    """Everything below a folder of the sample is below `top`, as the kernel saw it, and nothing else is."""
    truth = seen(volume, folder)
    expected = {
        os.fsencode(top) + os.fsencode(_native(path)[len(folder.rstrip("/")) :]): row for path, row in truth.items()
    }
    got = {os.fsencode(path) for path in top.rglob("*")}
    gone = {os.fsencode(top) + os.fsencode(path[len(folder.rstrip("/")) :]) for path in missing}
    assert got == expected.keys() - gone
    for path, row in expected.items():
        if path in gone:
            continue
        found = os.lstat(path)
        assert stat.S_IFMT(found.st_mode) == KINDS[row["type"]]
        if "mtime_ns" in row:
            assert found.st_mtime_ns == row["mtime_ns"], path
        if row["type"] == "symlink":
            assert str(Path(os.fsdecode(path)).readlink()) == row["target"]
        if row["type"] == "file":
            assert hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest() == row["sha256"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _native(path: str) -> str:
    """A path of the manifest as this system has it: the sample has one stray byte."""
    return path.replace("caf\\xe9", "caf\udce9")


def hidden(folder: Path) -> list[str]:
    """Temporary files that were left behind."""
    return [name for _, _, files in os.walk(folder) for name in files if name.endswith(".part")]


@pytest.mark.skipif(not POSIX or sys.platform == "darwin", reason="needs a file system whose names are any bytes")
def test_a_folder_comes_back_as_the_kernel_saw_it(disk: Path, tmp_path: Path) -> None:
    ran = pm("get", disk, f"system:{ADA}", "--to", tmp_path / "out")
    assert ran.status == 0
    assert ran.err == ""
    truth = seen("disk0p2", ADA)
    files = sum(row["type"] == "file" for row in truth.values())
    assert f"{files} files" in ran.text
    check_tree(tmp_path / "out" / "ada", "disk0p2", ADA)
    assert hidden(tmp_path) == []


@pytest.mark.skipif(not POSIX or sys.platform == "darwin", reason="needs a file system whose names are any bytes")
def test_the_root_comes_into_the_destination_itself(disk: Path, tmp_path: Path) -> None:
    ran = pm("get", disk, "system:/", "--to", tmp_path, "--json")
    assert ran.status == 3  # a link that leads outside was not made
    [finding] = ran.findings()
    assert (finding["path"], finding["severity"]) == ("/etc/localtime", "degraded")
    check_tree(tmp_path, "disk0p2", "/", missing=frozenset({"/etc/localtime"}))
    told = {item["path"]: item for item in ran.objects() if "destination" in item}
    assert told.keys() == seen("disk0p2").keys() - {"/etc/localtime"}
    assert all(item["type"] == seen("disk0p2")[path]["type"] for path, item in told.items())
    assert told[LETTER]["destination"] == str(tmp_path / LETTER[1:])


def test_files_by_name_and_folders_made(disk: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    ran = pm("get", disk, f"system:{LETTER}", "boot:/grub", "--to", out)
    assert ran.status == 0
    assert names(out) == ["grub", "to-babbage.txt"]
    truth = seen("disk0p2")[LETTER]
    assert hashlib.sha256((out / "to-babbage.txt").read_bytes()).hexdigest() == truth["sha256"]
    assert ran.lines[0].endswith("(559 B)")
    check_tree(out / "grub", "disk0p1", "/grub")


def test_a_link_that_is_asked_for_is_followed(disk: Path, tmp_path: Path) -> None:
    assert pm("get", disk, f"system:{ADA}/latest", f"system:{ADA}/notes/letters", "--to", tmp_path).status == 0
    truth = seen("disk0p2")[f"{ADA}/notes/note-g.py"]
    assert not (tmp_path / "latest").is_symlink()
    assert hashlib.sha256((tmp_path / "latest").read_bytes()).hexdigest() == truth["sha256"]
    assert (tmp_path / "letters" / "to-babbage.txt").is_file()


@pytest.mark.skipif(not POSIX, reason="times as POSIX keeps them")
@pytest.mark.parametrize(("volume", "folder"), [("disk0p1", "/EFI"), ("disk0p3", "/Contracts"), ("disk0p3", "/Logs")])
def test_folders_of_fat_and_ntfs_come_back(volume: str, folder: str, disk: Path, tmp_path: Path) -> None:
    ran = pm("get", disk, f"{volume}:{folder}", "--to", tmp_path / "out")
    assert (ran.status, ran.err) == (0, "")
    check_tree(tmp_path / "out" / folder[1:], volume, folder)


@pytest.mark.skipif(not POSIX, reason="modes are of POSIX")
def test_modes_never_open_what_was_closed(disk: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        paths = ["/etc/shadow", f"{ADA}/notes/note-g.py", f"{ADA}/letters", "/etc/hostname"]
        pm("get", disk, *(f"system:{path}" for path in paths), "--to", tmp_path)
        modes = {path: stat.S_IMODE((tmp_path / path.rpartition("/")[2]).stat().st_mode) for path in paths}
        assert modes == {path: stat.S_IMODE(seen("disk0p2")[path]["mode"]) for path in paths}
        os.umask(0o077)
        pm("get", disk, "system:/etc/hostname", "--to", tmp_path / "private")
        assert stat.S_IMODE((tmp_path / "private" / "hostname").stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(not POSIX or sys.platform == "darwin", reason="holes as Linux counts them")
def test_holes_stay_holes(disk: Path, tmp_path: Path) -> None:
    assert pm("get", disk, "system:/var/lib/engine/store.db", "--to", tmp_path).status == 0
    found = (tmp_path / "store.db").stat()
    truth = seen("disk0p2")["/var/lib/engine/store.db"]
    assert found.st_size == truth["size"] == 8 << 20
    assert getattr(found, "st_blocks") * 512 <= 64 << 10  # noqa: B009  (Windows has none)
    assert hashlib.sha256((tmp_path / "store.db").read_bytes()).hexdigest() == truth["sha256"]


# -- what is there already -------------------------------------------------------------------------------------------


def test_a_file_that_is_there_is_not_replaced(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("mine")
    ran = pm("get", disk, "system:/etc/motd", "system:/etc/hostname", "--to", tmp_path)
    assert ran.status == 2
    assert "--force" in ran.err
    assert (tmp_path / "motd").read_text() == "mine"
    assert (tmp_path / "hostname").read_text() == "engine\n"
    assert hidden(tmp_path) == []
    assert pm("get", "--force", disk, "system:/etc/motd", "--to", tmp_path).status == 0
    assert (tmp_path / "motd").read_text().startswith("The Analytical Engine")


def test_two_files_of_one_name_do_not_replace_each_other(disk: Path, tmp_path: Path) -> None:
    args: list[str | Path] = [
        disk,
        f"system:{ADA}/notes/errata.txt",
        f"system:{ADA}/notes/drafts/errata.txt",
        "--to",
        tmp_path,
    ]
    assert pm("get", *args).status == 2
    ran = pm("get", "--force", *args)
    assert ran.status == 2
    assert "another file" in ran.err


def test_a_folder_is_merged_and_a_file_in_its_place_is_not(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "grub").mkdir()
    (tmp_path / "grub" / "mine").write_text("mine")
    assert pm("get", disk, "boot:/grub", "--to", tmp_path).status == 0
    assert names(tmp_path / "grub") == ["grub.cfg", "mine"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "grub").write_text("a file")
    ran = pm("get", "--force", disk, "boot:/grub", "--to", tmp_path / "other")
    assert ran.status == 2
    assert (tmp_path / "other" / "grub").read_text() == "a file"


@pytest.mark.skipif(not POSIX, reason="needs links")
def test_links_of_the_destination_are_not_followed(disk: Path, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "hostname").write_text("precious")
    (out / "hostname").symlink_to(outside / "hostname")
    (out / "grub").symlink_to(outside)
    ran = pm("get", disk, "system:/etc/hostname", "boot:/grub", "--to", out)
    assert ran.status == 2
    ran = pm("get", "--force", disk, "system:/etc/hostname", "boot:/grub", "--to", out)
    assert ran.status == 2  # the folder; the file's link is replaced by the file
    assert (outside / "hostname").read_text() == "precious"
    assert names(outside) == ["hostname"]
    assert not (out / "hostname").is_symlink()
    assert (out / "hostname").read_text() == "engine\n"


def test_a_destination_that_is_a_file(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ran = pm("get", disk, "system:/etc/hostname", "--to", tmp_path / "file")
    assert ran.status == 3
    assert len(ran.err.splitlines()) == 1


def test_the_root_may_be_reached_through_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    try:
        (tmp_path / "link").symlink_to(real)
    except OSError:
        pytest.skip("no links here")
    destination = Destination.at(str(tmp_path / "link"), force=False)
    assert destination.root == real.resolve()
    assert destination.shown(destination.root / "a") == tmp_path / "link" / "a"


# -- hostile backups -------------------------------------------------------------------------------------------------


def forged(tmp_path: Path, tree: Path, names: dict[bytes, bytes]) -> Path:
    """An ext2 image of a tree, in which names (and targets of links) are replaced by others of the same length."""
    image = tmp_path / "forged.img"
    tool("mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", tree, image, "2M")
    data = image.read_bytes()
    for old, new in names.items():
        assert len(old) == len(new)
        assert data.count(old) >= 1
        data = data.replace(old, new)
    image.write_bytes(data)
    return image


@pytest.mark.skipif(not POSIX, reason="needs links")
@pytest.mark.tools("mke2fs")
def test_names_that_lead_outside_are_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    for name in ("qq", "slashXYZname", "XYZabsolute", "nulXYZname", "fine"):
        (tree / "folder" / name).write_text("evil" if name != "fine" else "fine")
    image = forged(
        tmp_path,
        tree,
        {b"qq": b"..", b"slashXYZname": b"../../escape", b"XYZabsolute": b"/tmp/escape", b"nulXYZname": b"nul\0XYname"},
    )
    box = tmp_path / "box"
    out = box / "in" / "out"
    ran = pm("get", image, "/folder", "--to", out, "--json")
    assert ran.status == 3
    everything = {path.relative_to(box).as_posix() for path in box.rglob("*")}
    assert everything == {"in", "in/out", "in/out/folder", "in/out/folder/fine"}
    assert (out / "folder" / "fine").read_text() == "fine"
    assert ran.findings()
    assert not Path("/tmp/escape").exists()


def test_names_that_a_parser_let_through_are_refused(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forging(*args: Any, **more: Any) -> Iterator[WalkBatch]:
        for batch in walk_batches(*args, **more):
            yield replace(batch, names=["../escape" if name == "grub.cfg" else name for name in batch.names])

    monkeypatch.setattr("pseudomount.cli.get.walk_batches", forging)
    out = tmp_path / "out"
    ran = pm("get", disk, "boot:/grub", "--to", out, "--json")
    assert ran.status == 3
    [finding] = ran.findings()
    assert finding["message"].startswith("not written: ")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["out", "out/grub"]


@pytest.mark.tools("mke2fs", "debugfs")
def test_a_file_whose_record_is_damaged_is_lost_and_told_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "bad").write_text("bad")
    (tree / "good").write_text("good")
    image = tmp_path / "record.img"
    tool("mke2fs", "-q", "-t", "ext2", "-d", tree, image, "1M")
    tool("debugfs", "-w", "-R", "set_inode_field /bad mode 0170644", image)  # no kind of file
    ran = pm("get", image, "/", "--to", tmp_path / "out", "--json")
    assert ran.status == 3
    [finding] = ran.findings()
    assert (finding["path"], finding["severity"]) == ("/bad", "lost")
    assert names(tmp_path / "out") == ["good", "lost+found"]


@pytest.mark.skipif(not POSIX, reason="needs links")
@pytest.mark.tools("mke2fs")
def test_links_that_lead_outside_are_not_made(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("file")
    good = {"a/up": "../a/file", "a/b/two": "../../a", "a/here": ".", "a/plain": "file", "a/dangling": "b/nothing"}
    bad = {
        "a/absolute": "/etc/passwd",
        "a/b/three": "../../../x",
        "a/through": "here/here/../../..",  # goes nowhere by its text, and outside through the links
        "a/b/self": "../b/../../../x",
        "out": "..",
    }
    for name, target in (good | bad).items():
        (tree / name).symlink_to(target)
    image = tmp_path / "links.img"
    tool("mke2fs", "-q", "-t", "ext4", "-d", tree, image, "1M")
    out = tmp_path / "out"
    ran = pm("get", image, "/", "--to", out, "--json")
    assert ran.status == 3
    assert {finding["path"] for finding in ran.findings()} == {f"/{name}" for name in bad}
    made = {name: str((out / name).readlink()) for name in good | bad if (out / name).is_symlink()}
    assert made == good
    for name in made:
        assert os.path.realpath(out / name).startswith(str(out.resolve()))


@pytest.mark.skipif(not POSIX, reason="needs links")
@pytest.mark.tools("mke2fs")
def test_a_folder_of_a_links_name_does_not_go_through_the_link(tmp_path: Path) -> None:
    """A forged disk has two entries of one name: a link, and a folder whose files would be written where it leads."""
    tree = tmp_path / "tree"
    (tree / "inside").mkdir(parents=True)
    (tree / "aaaXYZ").symlink_to("inside")
    (tree / "bbbXYZ").mkdir()
    (tree / "bbbXYZ" / "evil").write_text("evil")
    image = forged(tmp_path, tree, {b"bbbXYZ": b"aaaXYZ"})
    out = tmp_path / "out"
    ran = pm("get", image, "/", "--to", out)
    assert ran.status in (2, 3)
    assert names(out / "inside") == []
    assert not (out / "evil").exists()


@pytest.mark.skipif(not POSIX, reason="needs special files")
@pytest.mark.tools("mke2fs")
def test_special_files_are_noted_and_left_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    getattr(os, "mkfifo")(tree / "pipe")  # noqa: B009  (Windows has none)
    (tree / "file").write_text("file")
    image = tmp_path / "special.img"
    tool("mke2fs", "-q", "-t", "ext4", "-d", tree, image, "1M")
    ran = pm("get", image, "/", "--to", tmp_path / "out")
    assert ran.status == 0
    assert "note: not written: a fifo has no content" in ran.err
    assert not (tmp_path / "out" / "pipe").exists()
    ran = pm("get", image, "/pipe", "--to", tmp_path / "out")
    assert ran.status == 3
    assert "fifo" in ran.err


def test_what_cannot_be_written_is_left_whole(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ends it; nothing half-written stays."""

    def full(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    ran = pm("get", disk, "boot:/grub", "system:/etc/motd", "--to", tmp_path)
    assert ran.status == 3
    assert "No space left on device" in ran.err
    assert hidden(tmp_path) == []
    assert not (tmp_path / "grub" / "grub.cfg").exists()
