"""Data runs of whole volumes: the content put together from them is what an independent reader hashed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from pseudomount import open_backup
from pseudomount.filesystem.names import unescape
from tests.support.fixtures import fixture_image, fixture_manifest, fixture_path

FIXTURES = [
    *("ext2-1k", "ext3", "ext4", "ext4-64k"),
    *("fat12", "fat16", "fat32", "exfat"),
    *("ntfs-4k", "ntfs-512", "ntfs-64k"),
]


@pytest.mark.parametrize("name", FIXTURES)
def test_the_content_lies_where_the_runs_say(name: str, tmp_path: Path) -> None:
    image = fixture_image(name)
    truth = {
        b"/" + row["path"].encode("utf-8", "surrogateescape"): row
        for row in fixture_manifest(name)
        if row["type"] == "file" and row.get("sha256") and "sparse" not in row["sha256"]
    }
    with open_backup(fixture_path(name, tmp_path)) as backup:
        [volume] = backup.browsable()
        catalogue = volume.catalogue()
        files = catalogue.find(type="file")
        sizes = dict(zip(files.arrow["file"].to_pylist(), files.arrow["size"].to_pylist(), strict=True))
        encoding = volume.fs.name_encoding
        ids = {
            encoding.encode(unescape(path, encoding)): file
            for path, file in zip(files.paths().to_pylist(), files.arrow["file"].to_pylist(), strict=True)
        }
        runs: dict[int, list[dict[str, Any]]] = {}
        for run in volume.data_runs(catalogue).to_pylist():
            runs.setdefault(run["file"], []).append(run)
        # File by file, in the order of the question, also those whose content the metadata hold.
        told = volume.data_runs(catalogue)["file"].to_pylist()
        starts = [file for file, before in zip(told, [None, *told[:-1]], strict=True) if file != before]
        assert starts == [file for file in catalogue.regular_files().tolist() if file in runs]
    checked = 0
    for path, row in truth.items():
        file = ids[path]
        mine = runs.get(file, [])
        assert [run["offset"] for run in mine] == sorted(run["offset"] for run in mine)
        if any(run["encoded"] or run["kind"] == "resident" for run in mine):
            continue  # what lies there is not the content, or there is no place on the volume
        content = bytearray(sizes[file])
        for run in mine:
            if run["kind"] == "data":
                length = min(run["length"], len(content) - run["offset"])
                content[run["offset"] : run["offset"] + length] = image[run["position"] : run["position"] + length]
            else:
                assert run["kind"] == "unwritten" or run["position"] is None
        assert hashlib.sha256(content).hexdigest() == row["sha256"], path
        checked += 1
    assert checked > 10


def test_a_selection_and_damage(tmp_path: Path) -> None:
    with open_backup(fixture_path("ext4", tmp_path)) as backup:
        [volume] = backup.browsable()
        whole = volume.catalogue()
        some = whole.find(type="file")[:10]
        runs = volume.data_runs(some)
        assert set(runs["file"].to_pylist()) <= set(some.arrow["file"].to_pylist())
        assert runs.column_names == ["file", "offset", "length", "position", "kind", "encoded"]
        assert volume.data_runs(whole[:0]).num_rows == 0
