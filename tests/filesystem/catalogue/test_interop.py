"""To pandas, polars, DuckDB and Parquet, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pseudomount import open_backup
from pseudomount.errors import UnsupportedError
from pseudomount.filesystem import FileType, NameEncoding
from pseudomount.filesystem.catalogue import Catalogue, scan_catalogue
from tests.support.fixtures import fixture_path
from tests.support.made_up import File, Link, MadeUp, Part

DIR = FileType.DIRECTORY


@pytest.fixture(scope="module")
def catalogue(ext4: Path) -> Iterator[Catalogue]:
    with open_backup(ext4) as backup:
        yield backup.volumes[0].catalogue()


@pytest.fixture(scope="module")
def odd() -> Catalogue:
    """Everything that a table can get wrong: streams, odd times, raw names, deleted ones, two claims, an orphan."""
    part = Part(
        [File(1, DIR), File(2, DIR), File(3, modified=(1 << 40, 5)), File(4, deleted=True), File(5, deleted=True)],
        [
            Link(1, 2, b"\xed\xa0\x80"),
            Link(1, 2, b"b"),
            Link(2, 3, b"\\xff"),
            Link(2, 4, b"gone", deleted=True),
            Link(77, 3, b"lost"),
        ],
        [(3, b"s", 1, 2), (3, b"\xed\xb0\x80", 3, 4)],
    )
    return scan_catalogue(MadeUp([part], encoding=NameEncoding.WTF8), volume="disk0", deleted=True)


def _same(one: Catalogue, other: Catalogue) -> None:
    assert one.arrow.schema.equals(other.arrow.schema)
    assert one.arrow.equals(other.arrow)
    assert one.streams.equals(other.streams)
    assert one.odd == other.odd
    for name in ("encoding", "case_sensitive", "filesystem", "volume"):
        assert getattr(one, name) == getattr(other, name)
    assert one.paths().equals(other.paths())
    assert one.du().equals(other.du())
    assert one.find(type="dir").arrow.equals(other.find(type="dir").arrow)


@pytest.mark.parametrize("paths", [True, False])
@pytest.mark.parametrize("which", ["catalogue", "odd"])
def test_parquet_and_back(which: str, paths: bool, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    catalogue: Catalogue = request.getfixturevalue(which)
    where = tmp_path / "disk=0" / "files.parquet"
    where.parent.mkdir()
    catalogue.to_parquet(where, paths=paths)
    again = Catalogue.read_parquet(where)
    _same(again, catalogue)
    assert ("path" in pq.read_schema(where).names) == paths
    assert not again.errors
    assert b"pseudomount.catalogue.directories" not in pq.read_schema(where).metadata


@pytest.mark.parametrize("which", ["catalogue", "odd"])
def test_a_selection_keeps_its_paths_and_times(which: str, request: pytest.FixtureRequest) -> None:
    catalogue: Catalogue = request.getfixturevalue(which)
    for some in (catalogue.find(type="file")[::-1], catalogue.sort("size"), catalogue[:0]):
        file = io.BytesIO()
        some.to_parquet(file)
        again = Catalogue.read_parquet(io.BytesIO(file.getvalue()))
        _same(again, some)
        assert again.directories.ids.tolist() == catalogue.directories.ids.tolist()


def test_files_that_are_no_catalogue(tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), str(other))
    text = tmp_path / "text"
    text.write_text("no Parquet")
    for where in (other, text):
        with pytest.raises(UnsupportedError):
            Catalogue.read_parquet(where)


def test_versions_and_forged_metadata(odd: Catalogue) -> None:
    file = io.BytesIO()
    odd[::-1].to_parquet(file)
    table = pq.read_table(io.BytesIO(file.getvalue()))
    meta = table.schema.metadata
    head = json.loads(meta[b"pseudomount.catalogue"])
    for wrong in (
        {b"pseudomount.catalogue": json.dumps({**head, "version": 99}).encode()},
        {b"pseudomount.catalogue": json.dumps({**head, "encoding": "EBCDIC"}).encode()},
        {b"pseudomount.catalogue": b"[]"},
        {b"pseudomount.catalogue.streams": b"none"},
        {b"pseudomount.catalogue.directories": b"none"},
    ):
        forged = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({**meta, **wrong}), forged)
        with pytest.raises(UnsupportedError):
            Catalogue.read_parquet(io.BytesIO(forged.getvalue()))


def test_the_arrow_interface(catalogue: Catalogue) -> None:
    assert pa.table(catalogue).equals(catalogue.arrow)
    assert pa.schema(catalogue).equals(catalogue.arrow.schema)
    assert catalogue.to_arrow()["path"].to_pylist() == catalogue.paths().to_pylist()


def test_pandas(catalogue: Catalogue) -> None:
    pandas = pytest.importorskip("pandas")
    frame = catalogue.to_pandas()
    assert len(frame) == len(catalogue)
    assert frame["path"].tolist() == catalogue.paths().to_pylist()
    assert frame["size"].sum() == sum(catalogue.arrow["size"].to_pylist())
    assert str(frame["modified"].dt.tz) == "UTC"
    assert frame["modified"].isna().sum() == catalogue.arrow["modified"].null_count
    assert set(frame["type"].unique()) == set(catalogue.arrow["type"].to_pylist())
    assert isinstance(frame, pandas.DataFrame)


def test_polars(catalogue: Catalogue) -> None:
    polars = pytest.importorskip("polars")
    frame = catalogue.to_polars()
    assert frame["path"].to_list() == catalogue.paths().to_pylist()
    assert frame.filter(polars.col("type") == "dir").height == len(catalogue.find(type="dir"))
    assert frame["modified"].dtype == polars.Datetime("ns", "UTC")
    assert polars.DataFrame(catalogue).shape == (len(catalogue), len(catalogue.arrow.column_names))


def test_duckdb(catalogue: Catalogue) -> None:
    """By the name of a variable: of the catalogue itself, or of its table."""
    duckdb = pytest.importorskip("duckdb")
    cat = catalogue
    sizes = cat.arrow["size"].to_pylist()
    assert duckdb.sql("select count(*), sum(size) from cat").fetchall() == [(len(sizes), sum(sizes))]
    arrow = cat.to_arrow()
    assert arrow.column_names[0] == "path"
    said = duckdb.sql("select path from arrow where type = 'dir' order by path").fetchall()
    assert [row[0] for row in said] == sorted(cat.find(type="dir").paths().to_pylist())
    # DuckDB takes "cat" for a schema and looks for a variable called "arrow": which there is.
    assert duckdb.sql("select count(*) from cat.arrow").fetchall() == [(len(cat),)]
    late = "select count(*) from cat where modified::timestamptz >= timestamptz '2020-01-01 00:00:00+00'"
    since = datetime(2020, 1, 1, tzinfo=UTC)
    known = cat.find(newer=since).arrow["modified"]
    assert duckdb.sql(late).fetchall() == [(len(known) - known.null_count,)]
    raw = duckdb.sql("select count(*) from cat where name_raw is not null").fetchall()
    assert raw == [(len(cat) - cat.arrow["name_raw"].null_count,)]


def test_a_volume_without_owners_and_modes(tmp_path: Path) -> None:
    """Null, not 0 and not 4294967295."""
    with open_backup(fixture_path("fat32", tmp_path)) as backup:
        volume = backup.volumes[0]
        catalogue = volume.catalogue()
        for name in ("mode", "uid", "gid", "changed"):
            assert catalogue.arrow[name].null_count == len(catalogue), name
        assert str(catalogue.arrow["first_cluster"].type) == "uint32"
        some = next(path for path in volume.root.rglob("*") if path.is_file())
        assert some.stat().st_uid is None
        assert not some.stat().has_mode
        assert some.stat().extra["first_cluster"] is not None
