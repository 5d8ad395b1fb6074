"""catalogue, du, and find --deleted: against the kernel's view, fls and mactime."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pseudomount.cli import progress
from pseudomount.filesystem.catalogue import Catalogue
from tests.cli.support import pm, seen, tool
from tests.support.fixtures import fixture_manifest, fixture_path


@pytest.fixture(scope="module")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fixture_path("ext4", tmp_path_factory.mktemp("ext4"))


def _truth() -> dict[str, dict[str, Any]]:
    """Rows of the manifest by path; names that are valid text without backslashes and control characters."""
    rows = {f"/{row['path']}": row for row in fixture_manifest("ext4")}
    plain = {path: row for path, row in rows.items() if path.isprintable() and "\\" not in path}
    return {path: row for path, row in plain.items() if not any(0xD800 <= ord(char) < 0xE000 for char in path)}


def test_parquet(ext4: Path, tmp_path: Path) -> None:
    where = tmp_path / "files.parquet"
    ran = pm("catalogue", ext4, "-o", where)
    assert (ran.status, ran.lines) == (0, [f"{len(fixture_manifest('ext4'))} rows of disk0 are in {where}"])
    rows = {row["path"]: row for row in pq.read_table(where, columns=["path", "type", "size"]).to_pylist()}
    for path, truth in _truth().items():
        assert (rows[path]["type"], rows[path]["size"]) == (truth["type"], truth["size"])
    assert "rdev_major" in pq.read_schema(where).names
    assert len(Catalogue.read_parquet(where)) == len(rows) == len(fixture_manifest("ext4"))
    again = pm("catalogue", ext4, "disk0", "-o", where, "--plain", "--json")
    assert again.objects() == [{"volume": "disk0", "rows": len(rows), "output": str(where)}]
    assert "rdev_major" not in pq.read_schema(where).names
    assert [path.name for path in tmp_path.iterdir()] == ["files.parquet"]


def test_csv_and_json_lines(ext4: Path, tmp_path: Path) -> None:
    pm("catalogue", ext4, "-o", tmp_path / "files.csv")
    pm("catalogue", ext4, "-o", tmp_path / "files.JSONL")
    table = list(csv.DictReader(io.StringIO((tmp_path / "files.csv").read_bytes().decode(), newline="")))
    items = [json.loads(line) for line in (tmp_path / "files.JSONL").read_text("ascii").splitlines()]
    by_path = {row["path"]: row for row in table}
    for path, truth in _truth().items():
        assert (by_path[path]["type"], int(by_path[path]["size"])) == (truth["type"], truth["size"])
    searched = pm("find", ext4, "--json").objects()
    assert [item for item in items if item["path"] != "/"] == searched
    assert {item["path"] for item in items} == set(by_path)


def test_wrong_uses(ext4: Path, disk: Path, tmp_path: Path) -> None:
    uses: list[list[str | Path]] = [
        ["catalogue", ext4],
        ["catalogue", ext4, "-o", tmp_path / "files.xlsx"],
        ["catalogue", ext4, "--bodyfile", "--json"],
        ["catalogue", disk, "-o", tmp_path / "files.csv"],  # of which of the volumes?
        ["du", ext4, "--depth", "-1"],
    ]
    for args in uses:
        ran = pm(*args)
        assert (ran.status, ran.out) == (2, b""), args
        assert len(ran.err.splitlines()) == 1
    assert pm("catalogue", disk, "nowhere", "-o", tmp_path / "files.csv").status in (1, 2)
    assert pm("catalogue", ext4, "-o", tmp_path / "none" / "files.csv").status == 3
    assert not list(tmp_path.iterdir())


# -- body files ------------------------------------------------------------------------------------------------------


def _body(text: str) -> dict[str, list[str]]:
    rows = {}
    for line in text.splitlines():
        md5, name, *rest = line.split("|")
        assert (md5, len(rest)) == ("0", 9), line
        rows[name] = rest
    return rows


@pytest.mark.tools("fls")
def test_the_body_file_is_what_fls_says(ext4: Path) -> None:
    """Of live files; fls 4.11 reads no times beyond 2038 right, and knows nothing of inodes with inline data."""
    theirs = subprocess.run(["fls", "-r", "-u", "-m", "/", ext4], capture_output=True, check=True).stdout
    truth = _truth()
    ours = _body(pm("catalogue", ext4, "--bodyfile").text)
    named = {path + (f" -> {row['target']}" if row.get("target") else ""): row for path, row in truth.items()}
    compared = 0
    for line in theirs.decode("utf-8", "replace").splitlines():
        name = line.split("|")[1]
        if name not in named or "%" in name or "^" in name:  # which stands for a control character
            continue
        rest = line.split("|")[2:]
        times = [named[name][key] for key in ("atime_ns", "mtime_ns", "ctime_ns")]
        if all(0 < ns < 2**31 * 10**9 for ns in times):
            assert ours[name] == rest, name
            compared += 1
    assert compared > 450
    for name, row in named.items():
        if "%" in name or "|" in name or name == "/" or any(0xD800 <= ord(char) < 0xE000 for char in name):
            continue
        assert [int(text) for text in ours[name][5:8]] == [
            row[key] // 10**9 for key in ("atime_ns", "mtime_ns", "ctime_ns")
        ], name


@pytest.mark.tools("mke2fs", "mactime")
def test_mactime_reads_it(tmp_path: Path) -> None:
    """Names that hold what separates fields, and the time stamps of each."""
    top = tmp_path / "tree"
    top.mkdir()
    names = ["a|b", "100%41", "plain", 'q"uote', "new\nline", "back\\slash"]
    for i, name in enumerate(names):
        (top / name).write_text("x" * i)
    image = tmp_path / "image"
    tool("mke2fs", "-q", "-t", "ext4", "-d", top, image, "1M")
    body = tmp_path / "timeline"
    assert pm("catalogue", image, "--bodyfile", "-o", body).status == 0
    said = subprocess.run(["mactime", "-b", body, "-d", "-y"], capture_output=True, text=True, check=True).stdout
    rows = {row[7]: row for row in csv.reader(io.StringIO(said.replace('q""uote', 'q"uote'))) if len(row) == 8}
    for i, name in enumerate(names):
        shown = "/" + name.replace("\n", "\\x0a")
        if '"' in name:
            continue  # mactime itself writes quotes that no reader of CSV reads
        assert rows[shown][1] == str(i), shown
        assert rows[shown][3].startswith("r/rrw")


# -- du --------------------------------------------------------------------------------------------------------------


def _sums(rows: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Path of each folder → bytes and number of the files below it, those with several names where the first is."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    known = set()
    for path, row in rows.items():
        if row["type"] == "dir":
            sums[path][0] += 0
            continue
        if row["ino"] in known:
            continue
        known.add(row["ino"])
        for k in range(1, path.count("/") + 1):
            above = sums["/".join(path.split("/")[:k]) or "/"]
            above[0] += row["size"]
            above[1] += 1
    return {path: (size, count) for path, (size, count) in sums.items()}


def test_du(disk: Path) -> None:
    rows = {"/": {"type": "dir"}, **seen("disk0p2")}
    order = ["/", *(line.removeprefix("disk0p2:") for line in pm("find", disk, "system:/").lines)]
    truth = _sums({path: rows[path] for path in order})
    items = pm("du", "--json", disk, "system:/").objects()
    assert {item["path"]: (item["size"], item["files"]) for item in items} == truth
    assert [item["path"] for item in items] == sorted(truth)
    some = pm("du", "--json", disk, "system:/var", "--depth", "1").objects()
    assert [item["path"] for item in some] == sorted(
        path for path in truth if path == "/var" or (path.startswith("/var/") and path.count("/") == 2)
    )
    [line] = pm("du", disk, "system:/var/lib", "--depth", "0", "-h").lines
    assert line.endswith(f"{truth['/var/lib'][1]:>9}  disk0p2:/var/lib")
    assert "MiB" in line
    both = pm("du", disk, "--depth", "0").lines
    assert [line.split()[-1] for line in both] == ["disk0p1:/", "disk0p2:/", "disk0p3:/"]
    assert pm("du", disk, "system:/etc/fstab").status == 1


# -- find, ls --------------------------------------------------------------------------------------------------------


def test_a_whole_volume_and_all_its_folders_have_the_same_files(ext4: Path) -> None:
    """`find` on the root works on the catalogue, on a folder it walks: the same lines for all that is below it."""
    whole = pm("find", ext4).lines
    assert len(whole) == len(set(whole)) == len(fixture_manifest("ext4")) - 1
    folders = [line for line in whole if line.count("/") == 1]
    below = [
        line
        for folder in folders
        if pm("stat", "--json", ext4, folder).objects()[0]["type"] == "dir"
        for line in pm("find", ext4, folder).lines
    ]
    assert sorted([*folders, *below]) == sorted(whole)
    for args in (["--name", "*[0-9]"], ["--type", "l"], ["--max-size", "0"], ["--regex", "o.*/.*\\d$"]):
        some = [line for line in pm("find", ext4, *args).lines if line.startswith("/odd names/")]
        assert sorted(some) == sorted(pm("find", ext4, "/odd names", *args).lines)


@pytest.mark.tools("mke2fs", "debugfs")
def test_nothing_is_marked_where_nothing_was_deleted(ext4: Path) -> None:
    live = pm("find", ext4).lines
    assert [
        line for line in pm("find", ext4, "--deleted").lines if "(deleted)" not in line and "<no path>" not in line
    ] == live


@pytest.mark.tools("mkfs.fat", "mcopy", "mdel")
def test_deleted_files_are_marked(tmp_path: Path) -> None:
    image, text = tmp_path / "image", tmp_path / "text"
    text.write_text("gone\n")
    tool("mkfs.fat", "-C", "-F", "16", image, "16384")
    tool("mcopy", "-i", image, text, "::kept.txt")
    tool("mcopy", "-i", image, text, "::forgotten.txt")
    tool("mdel", "-i", image, "::forgotten.txt")
    assert pm("find", image).lines == ["/kept.txt"]
    ran = pm("find", image, "--deleted")
    gone = [line for line in ran.lines if line.endswith(" (deleted)")]
    items = pm("find", image, "--deleted", "--json").objects()
    assert [item["path"] for item in items if item.get("deleted")] == [line.removesuffix(" (deleted)") for line in gone]
    assert [item["path"] for item in items if "deleted" not in item] == ["/kept.txt"]


# -- progress --------------------------------------------------------------------------------------------------------


def test_no_bar_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress.progress_bar("x") as tell:
        assert tell is None


def test_a_bar_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with progress.progress_bar("Reading disk0") as tell:
        assert tell is not None
        tell(0.1)
        assert not screen.getvalue()
        now[0] += 1.5
        tell(0.5)
        tell(0.75)
    assert "Reading disk0" in screen.getvalue()
