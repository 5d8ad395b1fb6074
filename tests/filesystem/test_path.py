"""BackupPath against pathlib: the same tree, once in a folder and once in an image that mke2fs made of it."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.device import BlockDevice
from pseudomount.errors import (
    ClosedError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    SymlinkLoopError,
    UnsupportedError,
    UsageError,
)
from pseudomount.filesystem.path import BackupPath

pytestmark = pytest.mark.tools("mke2fs")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree")
    (top / "etc" / "deep" / "er").mkdir(parents=True)
    (top / "etc" / "fstab").write_text("# fstab\nUUID=1 / ext4\n")
    (top / "etc" / "app.conf").write_text("a=1\n")
    (top / "etc" / "deep" / "x.conf").write_bytes(b"x" * 5000)
    (top / "etc" / "deep" / "er" / "y.conf").write_text("y\r\nz\r\n")
    (top / "etc" / "deep" / "er" / ".hidden.conf").write_text("h")
    (top / "empty").mkdir()
    (top / "Größe [1].txt").write_text("ö")
    (top / os.fsdecode(b"caf\xe9")).write_bytes(b"latin-1 name")
    (top / "rel").symlink_to("etc/fstab")
    (top / "abs").symlink_to("/etc/deep")
    (top / "etc" / "deep" / "up").symlink_to("../../etc")
    (top / "dangling").symlink_to("nowhere")
    (top / "loop").symlink_to("loop")
    (top / "etc" / "deep" / "er" / "round").symlink_to("..")
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"island")
    if hasattr(os, "mkfifo"):
        os.mkfifo(top / "pipe")
    return top


@pytest.fixture(scope="module")
def root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupPath]:
    image = tmp_path_factory.mktemp("image") / "vm.img"
    command = ["mke2fs", "-q", "-t", "ext4", "-L", "paths", "-d", str(folder), str(image), "8M"]
    subprocess.run(command, check=True, capture_output=True)
    with open_backup(image) as backup:
        yield backup.volumes["paths"].root


def _all(folder: Path) -> list[Path]:
    return sorted(Path(top) / name for top, folders, files in os.walk(folder) for name in [*folders, *files])


def _relative(paths: list[Path], folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in paths)


def _ours(paths: Iterator[BackupPath]) -> list[str]:
    return sorted(text for text in (str(p).lstrip("/") for p in paths) if not text.startswith("lost+found"))


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.txt",
        "etc/*",
        "etc/*.conf",
        "**/*.conf",
        "**/*",
        "**/er/*",
        "*/deep/*.conf",
        "etc/fstab",
        "nothing/*",
        "**/deep/**/*.conf",
        "Größe ?1?.txt",
        "Größe [[]1].txt",
        "[!e]*",
        "abs/*.conf",
        "*/",
        "etc/*/",
        "**/.hid*",
    ],
)
def test_glob_finds_what_pathlib_finds(root: BackupPath, folder: Path, pattern: str) -> None:
    # The one link that is absolute leads, on the host, out of the folder; it is compared by hand below.
    if pattern.startswith("abs/"):
        expected = ["abs/x.conf"]
    else:
        expected = _relative(list(folder.glob(pattern)), folder)
        if pattern in ("*/", "etc/*/"):
            expected = sorted([*expected, *(["abs"] if pattern == "*/" else [])])
    assert _ours(root.glob(pattern)) == expected


def test_two_stars_enter_no_link_and_end(root: BackupPath, folder: Path) -> None:
    assert _ours(root.glob("**")) == sorted(["", *_relative(_all(folder), folder)])
    assert _ours(root.rglob("round")) == ["etc/deep/er/round"]
    followed = {str(p) for p in root.glob("**/y.conf", recurse_symlinks=True)}
    assert "/etc/deep/er/y.conf" in followed or "/abs/er/y.conf" in followed


def test_walk_equals_os_walk(root: BackupPath, folder: Path) -> None:
    expected = {
        str(Path(top).relative_to(folder)).lstrip("."): (
            sorted(d for d in folders if not Path(top, d).is_symlink()),
            sorted([*files, *(d for d in folders if Path(top, d).is_symlink())]),
        )
        for top, folders, files in os.walk(folder)
    }
    found = {
        str(top).lstrip("/"): (sorted(d for d in folders if d != "lost+found"), sorted(files))
        for top, folders, files in root.walk()
        if top.name != "lost+found"
    }
    assert found == expected


def test_walk_can_be_pruned_and_turned_round(root: BackupPath) -> None:
    seen = []
    for top, folders, _files in root.walk():
        seen.append(str(top))
        if "deep" in folders:
            folders.remove("deep")
    assert "/etc" in seen
    assert "/etc/deep" not in seen
    upward = [str(top) for top, _, _ in root.walk(top_down=False)]
    assert upward.index("/etc/deep/er") < upward.index("/etc/deep") < upward.index("/etc")


def test_every_file_is_what_the_host_says(root: BackupPath, folder: Path) -> None:
    for path in _all(folder):
        ours = root / str(path.relative_to(folder))
        theirs = path.lstat()
        mine = ours.lstat()
        assert stat.S_IFMT(mine.st_mode) == stat.S_IFMT(theirs.st_mode), path
        assert ours.is_symlink() == path.is_symlink()
        if path.is_symlink():
            assert str(ours.readlink()) == str(path.readlink())
            continue
        assert mine.st_mtime_ns is not None
        assert (mine.st_mode, mine.st_mtime_ns // 10**9) == (theirs.st_mode, theirs.st_mtime_ns // 10**9)
        assert ours.is_file() == path.is_file()
        assert ours.is_dir() == path.is_dir()
        if path.is_file():
            assert mine.st_size == theirs.st_size
            assert ours.read_bytes() == path.read_bytes()


def test_iterdir_gives_the_same_as_joining(root: BackupPath) -> None:
    for child in (root / "etc").iterdir():
        again = root / "etc" / child.name
        assert child == again
        assert hash(child) == hash(again)
        assert child.lstat() == again.lstat()
        assert child.is_dir() == again.is_dir()


def test_links_are_followed_inside_the_volume(root: BackupPath) -> None:
    assert (root / "rel").read_text().startswith("# fstab")
    assert (root / "abs" / "x.conf").stat().st_size == 5000
    assert (root / "abs" / "up" / "fstab").is_file()
    assert str((root / "abs" / "up" / "deep" / ".." / "fstab").resolve()) == "/etc/fstab"
    assert (root / "etc" / "deep" / "er" / "round" / "er" / "round" / "x.conf").is_file()
    assert (root / ".." / ".." / "etc").is_dir()
    assert not (root / "dangling").exists()
    assert (root / "dangling").exists(follow_symlinks=False)
    assert not (root / "loop").exists()


def test_errors_have_names_of_their_own_and_those_of_the_builtins(root: BackupPath) -> None:
    with pytest.raises(PathNotFoundError, match=r"^/nowhere: no such file or directory$") as missing:
        (root / "nowhere").stat()
    assert isinstance(missing.value, FileNotFoundError)
    assert missing.value.filename == "/nowhere"
    with pytest.raises(PathNotDirectoryError):
        (root / "etc" / "fstab" / "x").stat()
    with pytest.raises(PathNotDirectoryError):
        list((root / "etc" / "fstab").iterdir())
    with pytest.raises(PathNotDirectoryError):
        (root / "etc" / "fstab/").stat()
    with pytest.raises(PathIsDirectoryError):
        (root / "etc").read_bytes()
    with pytest.raises(SymlinkLoopError):
        (root / "loop").read_bytes()
    with pytest.raises(NotASymlinkError):
        (root / "etc").readlink()
    with pytest.raises(UsageError):
        (root / "etc" / "fstab").open("w")
    with pytest.raises(UsageError):
        list(root.glob(""))
    with pytest.raises(UsageError):
        list(root.glob("/etc/*"))
    if (root / "pipe").exists():
        with pytest.raises(UnsupportedError, match="fifo"):
            (root / "pipe").read_bytes()


def test_a_file_is_a_file_object(root: BackupPath) -> None:
    path = root / "etc" / "deep" / "er" / "y.conf"
    with path.open() as text:
        assert isinstance(text, io.TextIOWrapper)
        assert text.readlines() == ["y\n", "z\n"]
    with path.open("r", newline="") as text:
        assert text.read() == "y\r\nz\r\n"
    with path.open("rb") as binary:
        assert binary.read(1) == b"y"
        assert binary.seek(-3, os.SEEK_END) == 3
        assert binary.read() == b"z\r\n"
    assert path.read_text() == "y\nz\n"


def test_content_is_a_device_that_knows_its_holes(root: BackupPath) -> None:
    device = (root / "sparse").device()
    assert isinstance(device, BlockDevice)
    assert device.size == 3 << 20
    kinds = [(offset, kind.name) for offset, _, kind in device.extents()]
    assert kinds[0] == (0, "HOLE")
    assert (1 << 20, "DATA") in kinds
    assert kinds[-1][1] == "HOLE"
    assert device.read(1 << 20, 6) == b"island"


def test_names_that_are_no_text(root: BackupPath) -> None:
    (found,) = (p for p in root.iterdir() if p.name.startswith("caf"))
    assert found.name == "caf\udce9"
    assert found.escaped == "/caf\\xe9"
    assert found.read_bytes() == b"latin-1 name"


def test_pure_parts_are_pathlibs(root: BackupPath) -> None:
    path = root / "etc" / "deep" / "x.tar.gz"
    assert (path.name, path.stem, path.suffix, path.suffixes) == ("x.tar.gz", "x.tar", ".gz", [".tar", ".gz"])
    assert path.parts == ("/", "etc", "deep", "x.tar.gz")
    assert str(path.parent) == "/etc/deep"
    assert [str(p) for p in path.parents] == ["/etc/deep", "/etc", "/"]
    assert str(path.relative_to(root / "etc")) == "deep/x.tar.gz"
    assert path.full_match("/etc/**/*.gz")
    assert sorted([root / "b", root / "a"])[0] == root / "a"


def test_a_closed_backup_says_so(folder: Path, tmp_path: Path) -> None:
    image = tmp_path / "vm.img"
    subprocess.run(["mke2fs", "-q", "-d", str(folder), str(image), "8M"], check=True, capture_output=True)
    with open_backup(image) as backup:
        path = backup.volumes[0].root / "etc" / "fstab"
    with pytest.raises(ClosedError):
        path.read_bytes()
    with pytest.raises(ClosedError):
        list(path.parent.iterdir())
