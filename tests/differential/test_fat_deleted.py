"""Deleted files as The Sleuth Kit finds them, with the content that they had before others deleted them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import CorruptionError
from pseudomount.filesystem import FileSystem
from pseudomount.findings import FindingLog
from pseudomount_fat import ExfatParser, FatParser
from tests.support.fat import Mapped, content
from tests.support.fat_make import exfat_mounted, run

SIZES = {12: "2M", 16: "20M", 32: "40M"}
#: Nearly as many bytes as a file can have on such a volume.
MOST = {12: 1960 << 10, 16: 20_180 << 10, 32: 40_270 << 10}
#: Path → size; in the order in which they are written, one after the other.
FILES = {
    "SHORT.TXT": 1000,
    "lower.txt": 2000,
    "A long name of a file.document": 9000,
    "0ne more with a long name that takes five parts of a name.bin": 7000,
    "kept.bin": 5000,
    "+plus name.x": 10,
    "gone.dat": 30_000,
    "Empty file": 0,
    "dir one/inside the first.txt": 500,
    "dir one/inside the second.txt": 600,
    "dir one/deeper/leaf with a name": 700,
    "DIR2/IN2.TXT": 800,
    "kept dir/stays.txt": 5,
    "kept dir/does not stay.txt": 6000,
}
KEPT = ("kept.bin", "kept dir/stays.txt")


def data_of(path: str) -> bytes:
    return content(FILES[path], len(path))


def deleted_paths(filesystem: FileSystem) -> dict[str, int]:
    """Path → id of what was deleted, and of nothing else."""
    names, gone = {0: ("", False)}, []
    parents: dict[int, int] = {}
    for part in filesystem.scan(deleted=True):
        links = part.links
        for parent, file, name, mark in zip(
            links.parent.tolist(), links.file.tolist(), links.name, links.deleted.tolist(), strict=True
        ):
            names[file], parents[file] = (name.decode(), mark), parent
            gone += [file] * mark

    def path(file: int) -> str:
        return f"{path(parents[file])}{names[parents[file]][0]}/" if file else ""

    return {(path(file) + names[file][0]).lstrip("/"): file for file in gone}


@pytest.mark.tools("mkfs.fat", "mcopy", "mmd", "mdel", "mdeltree", "fls", "icat")
@pytest.mark.parametrize("bits", SIZES)
def test_mtools(bits: int, tmp_path: Path) -> None:
    image, part = tmp_path / "image", tmp_path / "part"
    run("truncate", "-s", SIZES[bits], image)
    run("mkfs.fat", "-F", str(bits), *(["-s", "1"] if bits > 12 else []), image)
    made = set()
    for path in FILES:
        for above in list(Path(path).parents)[-2::-1]:
            if above not in made:
                run("mmd", "-i", image, f"::/{above}")
                made.add(above)
        part.write_bytes(data_of(path))
        run("mcopy", "-i", image, part, f"::/{path}")
    for path in FILES:
        if path not in KEPT and not path.startswith(("dir one", "DIR2")):
            run("mdel", "-i", image, f"::/{path}")
    run("mdeltree", "-i", image, "::/dir one", "::/DIR2")
    filesystem = FatParser().open(Mapped(image), FindingLog())
    found = deleted_paths(filesystem)
    listed = {
        (fields := line.split("\t"))[1]: int(fields[0].split()[2].rstrip(":"))
        for line in run("fls", "-r", "-d", "-p", image).splitlines()
        if "* " in line
    }
    assert set(found) == set(listed)
    assert len(found) == len(FILES) - len(KEPT) + 3
    contents = {data_of(path): path for path in FILES}
    types = filesystem.rows(np.array(list(found.values()), np.uint64)).type
    for (path, file), kind in zip(found.items(), types.tolist(), strict=True):
        if kind == 2:
            continue
        with filesystem.open(file) as device:
            recovered = device.read(0, device.size)
        was = contents[recovered]
        assert [a if a != "_" else b for a, b in zip(path, was, strict=True)] == list(was)
        assert run_bytes("icat", image, str(listed[path])) == recovered
    # What is written now takes almost all that is free; the files that had it are not given out any more.
    part.write_bytes(content(MOST[bits], 77))
    run("mcopy", "-i", image, part, "::/new one")
    filesystem = FatParser().open(Mapped(image), FindingLog())
    lost = 0
    for path, file in deleted_paths(filesystem).items():
        try:
            with filesystem.open(file) as device:
                assert device.read(0, device.size) in contents, path
        except (CorruptionError, IsADirectoryError) as error:
            lost += "given to other files" in str(error)
    assert lost >= 3


def run_bytes(*command: str | Path) -> bytes:
    """Its standard output, as it is."""
    return subprocess.run([str(part) for part in command], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.loop
@pytest.mark.tools("mkfs.exfat", "mount.exfat-fuse", "losetup", "fuser", "fls")
def test_exfat_fuse(tmp_path: Path) -> None:
    image, at = tmp_path / "image", tmp_path / "mounted"
    at.mkdir()
    run("truncate", "-s", "40M", image)
    run("mkfs.exfat", image)
    with exfat_mounted(image, at):
        for path in FILES:
            (at / path).parent.mkdir(parents=True, exist_ok=True)
            (at / path).write_bytes(data_of(path))
    with exfat_mounted(image, at):
        for path in FILES:
            if path not in KEPT and not path.startswith(("dir one", "DIR2")):
                (at / path).unlink()
        shutil.rmtree(at / "dir one")
        shutil.rmtree(at / "DIR2")
    filesystem = ExfatParser().open(Mapped(image), FindingLog())
    found = deleted_paths(filesystem)
    wanted = {path for path in FILES if path not in KEPT}
    assert set(found) == wanted | {"dir one", "dir one/deeper", "DIR2"}
    for path in wanted:
        with filesystem.open(found[path]) as device:
            assert device.read(0, device.size) == data_of(path), path
    listed = run("fls", "-f", "exfat", "-r", "-d", "-p", "-u", image)
    for path in wanted:
        assert path in listed
