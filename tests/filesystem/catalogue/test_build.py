"""From the parts of a scan to rows: order, nulls, names, damage, what was deleted."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from pseudomount.errors import CorruptionError
from pseudomount.filesystem import FileType, NameEncoding
from pseudomount.filesystem.catalogue import Catalogue, scan_catalogue
from tests.support.made_up import File, Link, MadeUp, Part

DIR, LINK = FileType.DIRECTORY, FileType.SYMLINK
ROOT = File(1, DIR)
BAD = CorruptionError("torn", structure="record")


def _catalogue(*parts: Part, unlisted: tuple[File, ...] = (), deleted: bool = False, extra: bool = True) -> Catalogue:
    return scan_catalogue(MadeUp(parts, unlisted=unlisted), volume="disk0", deleted=deleted, extra=extra)


def _paths(catalogue: Catalogue) -> list[str | None]:
    found: list[str | None] = catalogue.paths().to_pylist()
    return found


def test_links_may_come_before_files_and_in_any_order() -> None:
    found = _catalogue(
        Part([File(9, size=9)], [Link(4, 7, b"b"), Link(1, 4, b"a")]),
        Part([File(4, DIR), ROOT], [Link(1, 9, b"z"), Link(4, 9, b"again")]),
        Part([File(7, size=7)]),
    )
    assert _paths(found) == ["/", "/a/b", "/a", "/z", "/a/again"]
    assert found.arrow["file"].to_pylist() == [1, 7, 4, 9, 9]
    assert found.arrow["size"].to_pylist() == [0, 7, 0, 9, 9]
    assert found.arrow["parent"].to_pylist() == [None, 4, 1, 1, 4]
    assert found.arrow["name"].to_pylist() == ["", "b", "a", "z", "again"]


def test_ids_that_fill_64_bits() -> None:
    top = (1 << 64) - 1
    found = _catalogue(
        Part([ROOT, File(top, DIR), File(1 << 63, inode=5)], [Link(1, top, b"d"), Link(top, 1 << 63, b"f")])
    )
    assert found.arrow["file"].to_pylist() == [1, top, 1 << 63]
    assert found.arrow["inode"].to_pylist() == [1, top, 5]
    assert _paths(found.children(top)) == ["/d/f"]
    assert _paths(found.find(under=top)) == ["/d/f"]
    assert _paths(found.children("/d")) == ["/d/f"]


def test_nulls_and_numbers_that_do_not_fit() -> None:
    found = _catalogue(
        Part(
            [ROOT, File(2, size=-1, mode=0o644, uid=(1 << 32) - 1), File(3, uid=1 << 32, generation=1 << 40)],
            [Link(1, 2, b"a"), Link(1, 3, b"b")],
        )
    )
    columns = {name: found.arrow[name].to_pylist()[1:] for name in ("size", "mode", "uid", "gid", "generation")}
    assert columns == {
        "size": [None, 0],
        "mode": [0o644, None],
        "uid": [(1 << 32) - 1, None],
        "gid": [None, None],
        "generation": [None, 1 << 40],
    }
    assert "subvolume" not in found.arrow.column_names
    assert found.arrow["created"].null_count == 3


def test_many_parts_make_one_column() -> None:
    """Values that stay the same for a while, and then do not; parts of one row and of thousands."""
    sizes = [1, 1, 5000, 1, 3000, 2, 70_000]
    parts, number = [Part([ROOT])], 2
    for k, n in enumerate(sizes):
        ids = range(number, number + n)
        parts.append(
            Part(
                [File(i, mode=-1 if k < 3 else i % 512, size=i if k > 1 else 7) for i in ids],
                [Link(1, i, b"same" if k < 2 else b"n%d" % i) for i in ids],
            )
        )
        number += n
    found = _catalogue(*parts)
    before = sum(sizes[:3])
    assert found.arrow["file"].to_pylist() == list(range(1, number))
    assert found.arrow["mode"].to_pylist() == [None] * (before + 1) + [i % 512 for i in range(before + 2, number)]
    assert found.arrow["size"].to_pylist()[1:] == [7, 7, *range(4, number)]
    assert found.arrow["name"].to_pylist()[1:] == ["same", "same", *(f"n{i}" for i in range(4, number))]
    assert found.arrow["name"].num_chunks == 1


def test_names_that_are_no_text() -> None:
    raw = [b"a\xffb", b"\\xff", b"plain", "é\\".encode(), b"\xed\xa0\x80"]
    links = [Link(1, i + 2, name) for i, name in enumerate(raw)]
    found = _catalogue(Part([ROOT, *(File(i + 2) for i in range(5))], links))
    assert found.arrow["name"].to_pylist()[1:] == ["a\\xffb", "\\x5cxff", "plain", "é\\", "\\xed\\xa0\\x80"]
    assert found.arrow["name_raw"].to_pylist()[1:] == [b"a\xffb", b"\\xff", None, None, b"\xed\xa0\x80"]
    assert found.path_of(1) == "/a\udcffb"
    assert found.path_of(2) == "/\\xff"
    assert found.find("a?b").arrow["file"].to_pylist() == [2]
    assert found.find("a\udcff*").arrow["file"].to_pylist() == [2]
    assert found.find("\\xff").arrow["file"].to_pylist() == [3]
    assert found.find("\\x5cxff").arrow["file"].to_pylist() == []
    wide = scan_catalogue(MadeUp([Part([ROOT, File(2)], [Link(1, 2, raw[4])])], encoding=NameEncoding.WTF8))
    assert wide.arrow["name"].to_pylist() == ["", "\\ud800"]
    assert wide.path_of(1) == "/\ud800"
    assert len(wide.find("\ud800")) == len(wide.find("?", type="file")) == 1


def test_folders_with_odd_names_are_found_by_their_escaped_paths() -> None:
    found = _catalogue(
        Part([ROOT, File(2, DIR), File(3, DIR), File(4)], [Link(1, 2, b"\xff"), Link(2, 3, b"\\xff"), Link(3, 4, b"f")])
    )
    assert _paths(found)[-1] == "/\\xff/\\x5cxff/f"
    assert _paths(found.children("/\\xff/\\x5cxff")) == ["/\\xff/\\x5cxff/f"]
    assert _paths(found.find(under="\\xff/")) == ["/\\xff/\\x5cxff", "/\\xff/\\x5cxff/f"]


def test_times_that_64_bits_do_not_hold() -> None:
    far, near = (20_000_000_000, 5), (1_700_000_000, 123_456_789)
    found = _catalogue(
        Part(
            [ROOT, File(2, modified=far), File(3, modified=near)],
            [Link(1, 3, b"n"), Link(1, 2, b"f"), Link(1, 2, b"g")],
        )
    )
    assert found.arrow["modified"].cast("int64").to_pylist() == [None, 1_700_000_000_123_456_789, None, None]
    assert found.odd == {"modified": {2: far, 3: far}}
    assert found[::-1].odd == {"modified": {1: far, 0: far}}
    assert found[1:3].odd == {"modified": {1: far}}
    assert found[np.array([False, True, False, True])].odd == {"modified": {1: far}}
    assert found.sort(descending=True).odd == {"modified": {1: far, 2: far}}
    assert found[np.array([2, 2])].odd == {"modified": {0: far, 1: far}}
    assert _paths(found.find(newer=datetime(2500, 1, 1, tzinfo=UTC))) == ["/f", "/g"]
    assert _paths(found.find(older=datetime(2500, 1, 1))) == ["/n"]
    assert _paths(found.find(newer=far[0] * 10**9 + 6)) == []


def test_damage_to_a_file_costs_that_file() -> None:
    fs = MadeUp(
        [
            Part(
                [ROOT, File(2, DIR), File(3, error=BAD, size=5, modified=(1 << 40, 0)), File(4, error=BAD), File(5)],
                [Link(1, 2, b"d"), Link(2, 3, b"f"), Link(2, 4, b"g", DIR), Link(1, 5, b"ok")],
                errors={2: BAD},
            )
        ]
    )
    found = scan_catalogue(fs)
    assert _paths(found) == ["/", "/d", "/d/f", "/d/g", "/ok"]
    assert found.arrow["type"].to_pylist() == ["dir", "dir", "unknown", "dir", "file"]
    assert found.arrow["inode"].to_pylist() == [1, 2, None, None, 5]
    assert found.arrow["size"].to_pylist() == [0, 0, None, None, 0]
    assert found.arrow["flags"].null_count == 2
    assert found.odd == {"modified": {}}
    assert found.errors == {3: BAD, 4: BAD}
    assert found.folder_errors == {2: BAD}
    assert {(f.file, f.path) for f in fs.findings} == {(2, "/d"), (3, "/d/f"), (4, "/d/g")}


def test_names_of_files_that_the_tables_do_not_have() -> None:
    found = _catalogue(
        Part([ROOT], [Link(1, 8, b"known"), Link(1, 9, b"lost"), Link(1, 8, b"too")]), unlisted=(File(8, size=88),)
    )
    assert found.arrow["size"].to_pylist() == [0, 88, None, 88]
    assert list(found.errors) == [9]
    assert found.arrow["type"].to_pylist() == ["dir", "file", "unknown", "file"]


def test_a_volume_without_anything() -> None:
    found = _catalogue()
    assert _paths(found) == ["/"]
    assert found.arrow["type"].to_pylist() == ["dir"]
    assert found.arrow["inode"].to_pylist() == [None], "nothing is known of the root"
    assert _paths(_catalogue(Part([ROOT]))) == ["/"]
    assert found.du()["path"].to_pylist() == ["/"]


def test_what_no_path_leads_to() -> None:
    parts = (
        Part(
            [ROOT, File(2, DIR), File(3, DIR), File(4), File(5), File(6, error=BAD)],
            [Link(3, 2, b"x"), Link(2, 3, b"y"), Link(2, 4, b"f"), Link(77, 4, b"g"), Link(1, 4, b"ok")],
        ),
    )
    fs = MadeUp(parts)
    found = scan_catalogue(fs)
    assert _paths(found) == ["/", "/ok"]
    assert [f.message for f in fs.findings if "4 names lie" in f.message]
    everything = scan_catalogue(MadeUp(parts), deleted=True)
    assert _paths(everything) == ["/", None, None, None, None, "/ok", None]
    assert everything.arrow["file"].to_pylist() == [1, 2, 3, 4, 4, 4, 5]
    assert everything.arrow["name"].to_pylist()[-1] is None
    assert everything.arrow["parent"].to_pylist() == [None, 3, 2, 2, 77, 1, None]


def test_deleted_files_on_request() -> None:
    parts = [
        Part(
            [ROOT, File(2, DIR, deleted=True), File(3, deleted=True, size=3), File(4), File(5, deleted=True)],
            [Link(1, 2, b"old", deleted=True), Link(2, 3, b"f"), Link(1, 4, b"new"), Link(1, 4, b"was", deleted=True)],
        )
    ]
    assert _paths(_catalogue(parts[0])) == ["/", "/new"]
    found = _catalogue(*parts, deleted=True)
    assert _paths(found) == ["/", "/old", "/old/f", "/new", "/was", None]
    assert found.arrow["deleted"].to_pylist() == [False, True, True, False, True, True]
    assert _paths(found.find(deleted=False)) == ["/", "/new"]
    assert found.find(deleted=True).arrow["file"].to_pylist() == [2, 3, 4, 5]
    assert found.du()["files"].to_pylist() == [1, 0]


def test_a_directory_that_two_claim_is_entered_once() -> None:
    fs = MadeUp(
        [Part([ROOT, File(2, DIR), File(3)], [Link(1, 2, b"a"), Link(1, 2, b"b"), Link(2, 3, b"f"), Link(2, 1, b"up")])]
    )
    assert _paths(scan_catalogue(fs)) == ["/", "/a", "/b", "/a/f", "/a/up"]
    assert sorted(f.file or 0 for f in fs.findings) == [1, 2]


def test_links_lead_somewhere() -> None:
    fs = MadeUp(
        [
            Part(
                [ROOT, File(2, LINK, target=b"/to/\xff"), File(3, LINK), File(4)],
                [Link(1, 3, b"b"), Link(1, 2, b"a"), Link(1, 4, b"c"), Link(1, 2, b"d")],
            )
        ]
    )
    assert scan_catalogue(fs).arrow["target"].to_pylist() == [None, None, "/to/\\xff", None, "/to/\\xff"]
    assert [f.file for f in fs.findings] == [3]


def test_streams() -> None:
    found = _catalogue(
        Part([ROOT, File(2)], [Link(1, 2, b"f")], [(2, b"Zone.Identifier", 26, 0), (9, b"lost", 1, 1)]),
        Part(streams=[(2, b"\xff", 1 << 40, 4096)], links=[Link(99, 2, b"nowhere")]),
    )
    assert found.streams.to_pylist() == [
        {"file": 2, "name": "Zone.Identifier", "name_raw": None, "size": 26, "allocated": 0},
        {"file": 2, "name": "\\xff", "name_raw": b"\xff", "size": 1 << 40, "allocated": 4096},
    ]
    assert len(found[:1].streams) == 0
    assert len(found[1:].streams) == 2


def test_the_parsers_own_columns() -> None:
    moment = np.datetime64("2020-01-02T03:04:05.123456789", "ns")
    nothing = np.datetime64("NaT", "ns")
    parts = (
        Part([ROOT]),
        Part([File(2, extra={"when": moment, "small": np.int32(-1), "size": np.uint32(7)})], [Link(1, 2, b"a")]),
        Part([File(3)], [Link(1, 3, b"b")]),
        Part([File(4, extra={"when": nothing, "small": np.int32(5), "size": np.uint32(8)})], [Link(1, 4, b"c")]),
    )
    table = _catalogue(*parts).arrow
    assert str(table["when"].type) == "timestamp[ns, tz=UTC]"
    assert table["when"].cast("int64").to_pylist() == [None, int(moment.astype(np.int64)), None, None]
    assert table["small"].to_pylist() == [None, None, None, 5]
    assert str(table["small"].type) == "int32"
    assert table["size_extra"].to_pylist() == [0, 7, 0, 8]
    assert "when" not in _catalogue(*parts, extra=False).arrow.column_names


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    parts = [Part([ROOT], done=0.25), Part([File(2)], [Link(1, 2, b"a")], done=0.125), Part(done=7.0)]
    scan_catalogue(MadeUp(parts), progress=told.append)
    assert told == [0.25, 0.25, 1.0, 1.0]


def test_a_mask_of_another_length_is_refused() -> None:
    found = _catalogue(Part([ROOT]))
    with pytest.raises(IndexError):
        found[np.array([True, False])]
