"""find, children, du, sort, slices: against plain Python over the rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudomount import open_backup
from pseudomount.errors import PathNotFoundError, UsageError
from pseudomount.filesystem import FileType
from pseudomount.filesystem.catalogue import Catalogue, scan_catalogue
from tests.support.made_up import File, Link, MadeUp, Part

Row = dict[str, Any]
Test = Callable[[Row], bool]


@pytest.fixture(scope="module")
def catalogue(ext4: Path) -> Iterator[Catalogue]:
    with open_backup(ext4) as backup:
        yield backup.volumes[0].catalogue()


def _rows(catalogue: Catalogue) -> list[Row]:
    table = catalogue.to_arrow()
    for name in ("created", "modified", "changed", "accessed"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast("int64"))
    rows: list[Row] = table.to_pylist()
    for name, known in catalogue.odd.items():
        for row, (seconds, fraction) in known.items():
            rows[row][name] = seconds * 10**9 + fraction
    return rows


NOW = int(datetime(2030, 1, 1, tzinfo=UTC).timestamp()) * 10**9
CONDITIONS: list[tuple[dict[str, Any], Test]] = [
    ({}, lambda row: True),
    ({"name": "size-*"}, lambda row: row["name"].startswith("size-")),
    ({"name": "SIZE-*", "ignore_case": True}, lambda row: row["name"].startswith("size-")),
    ({"name": "SIZE-*"}, lambda row: False),
    ({"type": "dir"}, lambda row: row["type"] == "dir"),
    ({"type": ["symlink", FileType.FIFO]}, lambda row: row["type"] in ("symlink", "fifo")),
    ({"min_size": 4096}, lambda row: row["size"] >= 4096),
    ({"max_size": 10, "type": "file"}, lambda row: row["size"] <= 10 and row["type"] == "file"),
    ({"min_size": 11, "max_size": 4095}, lambda row: 11 <= row["size"] <= 4095),
    ({"max_size": 1 << 70}, lambda row: True),
    ({"min_size": 1 << 70}, lambda row: False),
    ({"newer": NOW}, lambda row: row["modified"] >= NOW),
    ({"older": datetime(1970, 1, 1, tzinfo=UTC)}, lambda row: row["modified"] < 0),
    ({"older": datetime(1950, 1, 1), "time": "accessed"}, lambda row: row["accessed"] < -20 * 365.25 * 86400 * 10**9),
    ({"newer": 0, "older": NOW, "time": "changed"}, lambda row: 0 <= row["changed"] < NOW),
    ({"newer": 1 << 70}, lambda row: row["modified"] >= 1 << 70),
    ({"older": 1 << 70}, lambda row: True),
    ({"newer": -(1 << 70)}, lambda row: True),
    ({"older": -(1 << 70)}, lambda row: False),
    ({"regex": "/crowd.*/.*7$"}, lambda row: re.search("/crowd.*/.*7$", row["path"]) is not None),
    ({"under": "/odd names"}, lambda row: row["path"].startswith("/odd names/")),
    ({"under": 2}, lambda row: row["path"] != "/"),
    ({"under": "/", "type": "char"}, lambda row: row["type"] == "char"),
    ({"deleted": False, "name": "*.*"}, lambda row: "." in row["name"]),
    ({"deleted": True}, lambda row: False),
]


@pytest.mark.parametrize(("options", "test"), CONDITIONS, ids=[str(options) for options, _ in CONDITIONS])
def test_find(catalogue: Catalogue, options: dict[str, Any], test: Test) -> None:
    rows = _rows(catalogue)
    if "name" in options:
        rows = [row for row in rows if row["name_raw"] is None]
    found = catalogue.find(**options)
    if "name" in options:
        found = found[found.arrow["name_raw"].is_null().to_numpy()]
    assert _rows(found) == [row for row in rows if test(row)]


def test_some_conditions_find_some(catalogue: Catalogue) -> None:
    """Or the test above shows nothing."""
    rows = _rows(catalogue)
    few = [options for options, test in CONDITIONS if not 0 < sum(map(test, rows)) < len(rows)]
    assert len(few) <= 11


def test_found_in_what_was_found(catalogue: Catalogue) -> None:
    once = catalogue.find(type="file", under="/odd names", min_size=1)
    twice = catalogue.find(under="/odd names").find(min_size=1)[::-1].find(type="file")
    assert _rows(twice)[::-1] == _rows(once)
    assert len(once)


@pytest.mark.parametrize(
    "options", [{"type": "directory"}, {"regex": "("}, {"newer": 0, "time": "size"}], ids=["type", "regex", "time"]
)
def test_conditions_without_a_meaning(catalogue: Catalogue, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        catalogue.find(**options)


def test_children_of_each_directory(catalogue: Catalogue) -> None:
    wanted = defaultdict(list)
    for row in _rows(catalogue):
        wanted[row["parent"]].append(row)
    folders = [row for row in _rows(catalogue) if row["type"] == "dir"]
    for folder in folders:
        assert _rows(catalogue.children(folder["file"])) == wanted[folder["file"]]
        assert _rows(catalogue.children(folder["path"])) == wanted[folder["file"]]
    assert sum(map(len, wanted.values())) == len(catalogue)
    for place in ("/nowhere", "/size-0", -1, 1 << 64, 99_999, "/\ud800"):
        with pytest.raises(PathNotFoundError):
            catalogue.children(place)


def test_case_does_not_matter_where_the_volume_says_so() -> None:
    fs = MadeUp(
        [
            Part(
                [File(1, FileType.DIRECTORY), File(2, FileType.DIRECTORY), File(3)],
                [Link(1, 2, b"\xc3\x84"), Link(2, 3, b"f")],
            )
        ]
    )
    with pytest.raises(PathNotFoundError):
        scan_catalogue(fs).children("/ä")
    fs.case_sensitive = False
    assert scan_catalogue(fs).children("/ä").paths().to_pylist() == ["/Ä/f"]
    assert len(scan_catalogue(fs).find("F")) == 1


@pytest.mark.parametrize("depth", [None, 0, 1, 2])
def test_du_sums_what_lies_below(catalogue: Catalogue, depth: int | None) -> None:
    seen: set[int] = set()
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for row in _rows(catalogue):
        if row["type"] == "dir":
            sums[row["path"]]
        if row["file"] in seen or row["path"] == "/":
            continue
        seen.add(row["file"])
        folder = row["type"] == "dir"
        parts = row["path"].split("/")[1:-1]
        for k in range(len(parts) + 1):
            mine = sums["/" + "/".join(parts[:k])]
            for i, value in enumerate((not folder, folder, 0 if folder else row["size"], row["allocated"])):
                mine[i] += value
    wanted = [
        (path, *values)
        for path, values in sorted(sums.items(), key=lambda item: item[0].encode())
        if depth is None or (path != "/" and path.count("/") <= depth) or path == "/"
    ]
    table = catalogue.du(depth)
    assert table.column_names == ["path", "files", "directories", "size", "allocated"]
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == wanted


def test_du_of_forged_sizes_is_as_much_as_fits() -> None:
    most = (1 << 63) - 1
    files = [File(1, FileType.DIRECTORY), File(2, FileType.DIRECTORY), *(File(i, size=most) for i in range(3, 9))]
    links = [Link(1, 2, b"d"), *(Link(2 if i > 3 else 1, i, b"f%d" % i) for i in range(3, 9))]
    found = scan_catalogue(MadeUp([Part(files, links)])).du()
    assert found["size"].to_pylist() == [most, most]
    exact = [File(1, FileType.DIRECTORY), File(2, size=most - 7), File(3, size=7)]
    found = scan_catalogue(MadeUp([Part(exact, [Link(1, 2, b"a"), Link(1, 3, b"b")])])).du()
    assert found["size"].to_pylist() == [most]


def test_sort(catalogue: Catalogue) -> None:
    rows = _rows(catalogue)
    by_path = sorted(rows, key=lambda row: row["path"].encode())
    assert _rows(catalogue.sort()) == by_path
    assert _rows(catalogue.sort(["type", "size", "path"])) == sorted(
        rows, key=lambda row: (row["type"], row["size"], row["path"].encode())
    )
    assert [row["size"] for row in _rows(catalogue.sort("size", descending=True))] == sorted(
        (row["size"] for row in rows), reverse=True
    )
    with pytest.raises(UsageError):
        catalogue.sort("colour")


def test_slices(catalogue: Catalogue) -> None:
    rows = _rows(catalogue)
    n = len(rows)
    for cut in (slice(5, 9), slice(None, None, -1), slice(0, 0), slice(-3, None), slice(1, n, 100)):
        assert _rows(catalogue[cut]) == rows[cut]
    picked = np.array([n - 1, 0, 7, 7])
    assert _rows(catalogue[picked]) == [rows[i] for i in picked.tolist()]
    assert _rows(catalogue[np.array([-1])]) == rows[-1:]
    mask = np.arange(n) % 3 == 0
    assert _rows(catalogue[mask]) == rows[::3]
    with pytest.raises(IndexError):
        catalogue[np.array([n])]
