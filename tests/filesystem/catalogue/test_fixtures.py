"""Catalogues of real volumes: what the kernel saw in them, and what the plain walk finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.api import BackupVolume
from pseudomount.filesystem.names import unescape
from pseudomount.findings import Severity
from tests.support.catalogues import assert_equals_walk, rows_of_catalogue
from tests.support.entries import Entry
from tests.support.fixtures import fixture_header, fixture_names, fixture_path, fixture_tree

VOLUMES = [(name, about["name"]) for name in fixture_names() for about in fixture_header(name)["volumes"]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("fixtures")
    return {name: fixture_path(name, folder) for name in fixture_names()}


@pytest.fixture(params=VOLUMES, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def known(request: pytest.FixtureRequest, images: dict[str, Path]) -> Iterator[tuple[BackupVolume, dict[bytes, Entry]]]:
    name, volume = request.param
    with open_backup(images[name]) as backup:
        yield backup.volumes[volume], fixture_tree(name, volume)


def _ns(value: object) -> int | None:
    return value[0] * 1_000_000_000 + value[1] if isinstance(value, tuple) else None


def test_the_catalogue_is_what_the_kernel_saw(known: tuple[BackupVolume, dict[bytes, Entry]]) -> None:
    volume, truth = known
    catalogue = volume.catalogue()
    encoding = volume.fs.name_encoding
    paths = [unescape(path, encoding) for path in catalogue.paths().to_pylist()]
    assert [catalogue.path_of(row) for row in range(0, len(catalogue), 50)] == paths[::50]
    names = [encoding.encode(path).strip(b"/") for path in paths]
    ours = dict(zip(names, rows_of_catalogue(catalogue), strict=True))
    assert ours.keys() == truth.keys()
    assert len(ours) == len(catalogue), "a path twice"
    for path, entry in truth.items():
        row = ours[path]
        told = {
            "type": row.get("type"),
            "size": row.get("size"),
            "mode": row.get("mode"),
            "uid": row.get("uid"),
            "gid": row.get("gid"),
            "nlink": row.get("links"),
            "ino": row.get("inode"),
            "mtime_ns": _ns(row.get("modified")),
            "atime_ns": _ns(row.get("accessed")),
            "ctime_ns": _ns(row.get("changed")),
            "btime_ns": _ns(row.get("created")),
            "allocated": row.get("allocated"),
        }
        for key, value in told.items():
            expected = getattr(entry, key)
            assert expected is None or value == expected, (path, key)
        if entry.target is not None:
            assert row["target"] == entry.target.decode("utf-8", "backslashreplace"), path
        else:
            assert "target" not in row
        above = path.rpartition(b"/")[0]
        assert row.get("parent") == (ours[above]["file"] if path else None), path
    assert not [finding for finding in volume.findings if finding.severity > Severity.NOTE]


def test_each_hard_link_is_a_row(images: dict[str, Path]) -> None:
    several = 0
    for name in fixture_names():
        with open_backup(images[name]) as backup:
            for volume in backup.browsable():
                truth = [e for e in fixture_tree(name, volume.name).values() if e.type == "file" and (e.nlink or 1) > 1]
                rows = [
                    row for row in rows_of_catalogue(volume.catalogue()) if row["type"] == "file" and row["links"] != 1
                ]
                assert sorted(row["inode"] for row in rows) == sorted(entry.ino or 0 for entry in truth)  # type: ignore[type-var]
                several += len(rows)
    assert several >= 4, "the fixtures hold hard links"


def test_the_catalogue_equals_the_plain_walk(known: tuple[BackupVolume, dict[bytes, Entry]]) -> None:
    assert_equals_walk(known[0])
