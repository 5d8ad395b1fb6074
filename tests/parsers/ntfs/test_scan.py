"""The scan of a whole MFT: equal to the walk, bounded in reads, and what it makes of damage and of deleted files.

What was deleted is known beforehand: content by its SHA-256, names by what `fls` of The Sleuth Kit says.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import struct
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PathIsDirectoryError, PseudomountError
from pseudomount.filesystem import FileType, Parser
from pseudomount.filesystem.catalogue import scan_catalogue
from pseudomount.filesystem.scan import ScanBatch, scan_by_walk
from pseudomount.findings import Severity
from pseudomount.testing import CounterDevice, FaultDevice, MemoryDevice
from pseudomount.testing.scan_conformance import ScanConformance
from pseudomount_ntfs import Ntfs, NtfsParser, _scan
from pseudomount_ntfs._layout import DELETED
from tests.support.catalogues import assert_equals_walk
from tests.support.ntfs import Image, find, mkntfs, ntfs3g, open_ntfs, set_xattr

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g")]

Link = tuple[int, int, bytes]
BITMAP, DATA, LIST = 0xB0, 0x80, 0x20
SPARSE = 64 << 20


@dataclass
class Found:
    """What a scan or walk found, as plain values."""

    files: dict[int, tuple[int, ...] | type[PseudomountError]] = field(default_factory=dict)
    links: Counter[Link] = field(default_factory=Counter)
    streams: Counter[tuple[int, bytes, int, int]] = field(default_factory=Counter)
    deleted: set[int] = field(default_factory=set)

    @property
    def errors(self) -> set[int]:
        return {file for file, row in self.files.items() if isinstance(row, type)}


def gather(batches: Iterable[ScanBatch]) -> Found:
    found = Found()
    for batch in batches:
        rows, links, streams = batch.files, batch.links, batch.streams
        for i, file in enumerate(rows.file.tolist()):
            assert file not in found.files, f"{file:#x} came twice"
            columns = (rows.type, rows.size, rows.allocated, rows.links, rows.modified.ns, rows.flags)
            error = rows.errors.get(i)
            found.files[file] = tuple(int(column[i]) for column in columns) if error is None else type(error)
            if batch.deleted[i]:
                found.deleted.add(file)
        found.links.update(zip(links.parent.tolist(), links.file.tolist(), links.name.tolist(), strict=True))
        sizes = streams.name.tolist(), streams.size.tolist(), streams.allocated.tolist()
        found.streams.update(zip(streams.file.tolist(), *sizes, strict=True))
    return found


def both(image: Image | bytes) -> tuple[Found, Found, Ntfs]:
    """What the scan finds, what the walk finds, and the file system of the scan."""
    data = bytes(image.data) if isinstance(image, Image) else image
    ntfs = open_ntfs(MemoryDevice(data))
    return gather(ntfs.scan()), gather(scan_by_walk(open_ntfs(MemoryDevice(data)))), ntfs


def assert_equal(scan: Found, walk: Found) -> None:
    """The same names, and the same of every file that has one."""
    assert scan.links == walk.links
    assert {file: scan.files[file] for file in walk.files} == walk.files
    assert {stream: n for stream, n in scan.streams.items() if stream[0] in walk.files} == walk.streams


def number(image: Image, path: str) -> int:
    return find(open_ntfs(MemoryDevice(bytes(image.data))), path) & ((1 << 47) - 1)


# -- sound volumes -----------------------------------------------------------------------------------------------------


class TestScanOfTheSample(ScanConformance):
    """Hard links, streams, attribute lists, compressed and sparse files, reparse points."""

    @pytest.fixture(autouse=True)
    def _sample(self, sample_path: Path) -> None:
        self.image = sample_path.read_bytes()

    def parser(self) -> Parser:
        return NtfsParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(self.image)


def test_catalogue_of_the_sample(ntfs: Ntfs) -> None:
    assert_equals_walk(ntfs)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Odd names, deep directories, files with attribute lists that have many extension records, 8.3 aliases."""
    image = mkntfs(tmp_path_factory.mktemp("ntfs") / "odd.img", "24M")
    with ntfs3g(image, "rw,streams_interface=windows") as mounted:
        top = os.fsencode(mounted)
        names = [
            b"trailing dots...",
            b"trailing blank ",
            b" ",
            "é".encode() * 255,
            b"x" * 255,
            "😀".encode() * 127,
            "\u0301combining".encode(),
            b"back\\slash",
            b"con",
            b"tab\there",
            "\ud83d".encode("utf-8", "surrogatepass") + b"high",
            b"low" + "\ude00".encode("utf-8", "surrogatepass"),
        ]
        made = 0
        for name in names:
            try:
                with open(top + b"/" + name, "wb") as file:  # noqa: PTH123
                    file.write(name)
                made += 1
            except OSError:
                continue
        assert made >= 10
        deep = top
        for level in range(120):
            deep += b"/%d" % level
            os.mkdir(deep)  # noqa: PTH102
        with open(deep + b"/bottom", "wb") as file:  # noqa: PTH123
            file.write(b"deep")
        (mounted / "linked").write_bytes(b"many names")
        (mounted / "links").mkdir()
        for i in range(300):
            os.link(mounted / "linked", mounted / "links" / f"{i:03d} {'long name ' * 20}")
        for i in range(200):
            with Path(f"{mounted / 'linked'}:stream {i}").open("wb") as stream:
                stream.write(b"%d" % i)
        for i in range(30):
            path = mounted / f"A long name.{i:04d}"
            path.write_bytes(b"alias")
            set_xattr(path, "system.ntfs_dos_name", b"ALONGN~%d.TXT" % i)
        os.link(mounted / "A long name.0003", mounted / "links" / "second name of an aliased file")
    return Image(image.read_bytes())


def test_odd_names_many_names_and_many_extension_records(odd: Image) -> None:
    scan, walk, ntfs = both(odd)
    assert_equal(scan, walk)
    assert len(walk.links) > 450
    assert len(walk.streams) == 200
    linked = find(ntfs, "linked")
    assert sum(n for (_, file, _), n in scan.links.items() if file == linked) == 301
    assert not scan.errors
    assert_equals_walk(ntfs)


def test_a_scan_reads_the_mft_in_large_pieces_and_nothing_else(odd: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pieces of 64 records: one read for each of them, and a few for what has extension records."""
    monkeypatch.setattr(_scan, "BATCH_RECORDS", 64)
    with CounterDevice(MemoryDevice(bytes(odd.data))) as device:
        ntfs = open_ntfs(device)
        records = int(str(ntfs.details["mft_records"]))
        before = device.ranges
        parts = list(ntfs.scan())
        pieces = -(-records // 64)
        assert pieces > 5
        assert device.ranges - before <= pieces + 16
        assert sum(len(part.files) for part in parts) > 150
        # What the catalogue needs besides is the targets of links, of which there are none.
        after = device.ranges
        once = after - before
        catalogue = scan_catalogue(ntfs, volume="disk0")
        catalogue.paths()
        assert device.ranges - after == once


def test_metafiles_below_extend_are_hidden_in_whatever_order_they_come(tmp_path: Path) -> None:
    """Windows keeps the journal of its transactions there, in directories of directories; no driver here makes any."""
    path = mkntfs(tmp_path / "extend.img", "8M")
    with ntfs3g(path, "rw") as top:
        (top / "first").write_bytes(b"a record before its directory's")
        (top / "shared").write_bytes(b"has a name elsewhere, too")
        below = top / "meta" / "log"
        below.mkdir(parents=True)
        (top / "first").rename(below / "tops")
        os.link(top / "shared", below / "shared")
        (below / "last").write_bytes(b"")
    image = Image(path.read_bytes())
    meta = find(open_ntfs(MemoryDevice(bytes(image.data))), "meta")
    own, root, extend = (struct.pack("<Q", ref) for ref in (meta, 5 | 5 << 48, 11 | 11 << 48))
    # Its own record says that it is in $Extend, the entry of another metafile there leads to it, and the root's to
    # what a listing leaves out.
    image.poke(image.attribute(meta, 0x30) + 24, extend)
    data = bytes(image.data)
    name = "$ObjId".encode("utf-16-le")
    entry = (
        next(
            at for at in _every(data, name) if data[at - 66 : at - 58] == extend and data[at - 82 : at - 76] != bytes(6)
        )
        - 82
    )
    image.poke(entry, own)
    listed = next(at for at in _every(data, own) if data[at + 16 : at + 24] == root)
    image.poke(listed, extend)
    scan, walk, ntfs = both(image)
    assert {name for _, _, name in walk.links} == {b"shared"}
    assert_equal(scan, walk)
    assert set(scan.files) == set(walk.files)
    scan_catalogue(ntfs, volume="disk0")
    assert not ntfs.findings
    system = gather(open_ntfs(MemoryDevice(bytes(image.data)), system_files="yes").scan())
    assert {b"meta", b"log", b"tops", b"last"} <= {name for _, _, name in system.links}


def _every(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


# -- damage ------------------------------------------------------------------------------------------------------------

DAMAGE = {
    "zeroed": (0, bytes(1024)),
    "no signature": (0, b"BAAD"),
    "torn": (510, b"\xde\xad"),
    "not in use": (22, b"\0\0"),
    "no attributes": (20, b"\xff\xff"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(
    "path", ["small", "many/a file with a long name 0003", "symlink", "streams", "A long name.text"]
)
def test_a_damaged_record_keeps_its_name_and_its_error(sample: Image, path: str, kind: str) -> None:
    where, what = DAMAGE[kind]
    at = sample.record_at(number(sample, path))
    sample.poke(at + where, what)
    scan, walk, _ = both(sample)
    assert_equal(scan, walk)
    assert len(walk.errors) == 1
    assert scan.errors == walk.errors


@pytest.mark.parametrize("kind", ["zeroed", "torn"])
def test_a_damaged_directory_loses_nothing_below_it(sample: Image, kind: str) -> None:
    where, what = DAMAGE[kind]
    sample.poke(sample.record_at(number(sample, "many")) + where, what)
    scan, walk, ntfs = both(sample)
    assert not walk.links - scan.links
    assert len(scan.links - walk.links) == 5, "the directory's own files, which the walk does not reach"
    assert scan.errors == walk.errors
    assert {file: scan.files[file] for file in walk.files} == walk.files
    catalogue = scan_catalogue(ntfs, volume="disk0", deleted=True)
    assert sum("a file with a long name" in str(path) for path in catalogue.arrow["name"].to_pylist()) >= 5


def test_a_damaged_root(sample: Image) -> None:
    sample.poke(sample.record_at(5), bytes(1024))
    scan, walk, ntfs = both(sample)
    assert list(walk.files) == [ntfs.root]
    assert scan.errors == {ntfs.root}
    assert sum(parent == ntfs.root for parent, _, _ in scan.links) > 50


def test_a_damaged_extension_record(sample: Image) -> None:
    """A file that lost some of its names is an error, and has all its names in the directory."""
    at = sample.attribute(number(sample, "small"), LIST)
    entries = sample.first_run(at) if sample.data[at + 8] else at + 24
    base = number(sample, "small")
    extension = next(
        reference & ((1 << 48) - 1)
        for entry in range(entries, entries + 32 * 40, 32)
        if (reference := int.from_bytes(sample.data[entry + 16 : entry + 24], "little")) & ((1 << 48) - 1) != base
        and reference
    )
    sample.poke(sample.record_at(extension), bytes(1024))
    scan, walk, _ = both(sample)
    assert_equal(scan, walk)
    assert len(scan.errors) == 1
    assert sum(file in scan.errors for _, file, _ in scan.links) == 41


def test_damaged_records_where_the_bitmap_of_the_mft_is_lost(sample: Image) -> None:
    sample.poke(sample.record_at(number(sample, "long")), b"BAAD")
    bitmap = sample.attribute(0, BITMAP)
    for damage in (b"\0" * 40, b"\xff" * 40):
        sample.poke(sample.first_run(bitmap) if sample.data[bitmap + 8] else bitmap + 32, damage)
        scan, walk, _ = both(sample)
        assert_equal(scan, walk)
        assert len(scan.errors) == 1


def test_unreadable_parts_of_the_mft(sample: Image) -> None:
    """A bad sector costs its records, and these keep their names."""
    data = bytes(sample.data)
    at = sample.record_at(number(sample, "empty"))
    faults = [(at, 512), (sample.record_at(number(sample, "long")) + 600, 4)]
    scan = gather(open_ntfs(FaultDevice(MemoryDevice(data), errors=faults)).scan())
    walk = gather(scan_by_walk(open_ntfs(FaultDevice(MemoryDevice(data), errors=faults))))
    assert_equal(scan, walk)
    assert len(scan.errors) == 2


def test_a_volume_that_is_cut_off(sample: Image) -> None:
    data = bytes(sample.data)
    for size in (sample.record_at(80), sample.record_at(70) + 100, sample.mft + 8 * 1024):
        device = MemoryDevice(data[:size])
        scan, walk = gather(open_ntfs(device).scan()), gather(scan_by_walk(open_ntfs(device)))
        assert not walk.links - scan.links
        assert {file: scan.files[file] for file in walk.files} == walk.files


@pytest.mark.parametrize("claimed", [1 << 40, 1 << 60, (1 << 62) - 1])
def test_an_mft_that_claims_any_size(sample: Image, claimed: int) -> None:
    at = sample.attribute(0, DATA)
    sample.poke(at + 40, struct.pack("<QQQ", claimed, claimed, claimed))
    for mirror in (sample.mft, sample.mirror):
        assert sample.data[mirror : mirror + 4] == b"FILE"
    with CounterDevice(MemoryDevice(bytes(sample.data))) as device:
        ntfs = open_ntfs(device)
        scan = gather(ntfs.scan(deleted=True))
        assert len(scan.links) > 60
        assert device.bytes < 20 * len(sample.data)


def test_a_file_in_a_directory_that_nothing_says_is_a_metafile(sample: Image) -> None:
    """What $Extend claims and does not say so itself stays where it is."""
    scan, walk, _ = both(sample)
    assert_equal(scan, walk)
    assert not [name for _, _, name in scan.links if name.startswith(b"$")]
    system = gather(open_ntfs(MemoryDevice(bytes(sample.data)), system_files="yes").scan())
    assert {b"$MFT", b"$Extend", b"$ObjId", b"$Quota"} <= {name for _, _, name in system.links}
    assert not scan.links - system.links


# -- deleted files -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gone:
    """A volume from which files were deleted: the SHA-256 of each by name."""

    image: bytes
    content: dict[str, str]
    listed: list[str]  # by fls, as paths
    sparse: str  # of the first `SPARSE` bytes of a file whose runs fill several records


def _fls(image: Path) -> Iterator[str]:
    if shutil.which("fls") is None:
        return
    done = subprocess.run(["fls", "-r", "-d", "-p", str(image)], capture_output=True, check=True)
    for line in done.stdout.decode().splitlines():
        kind, path = line.split(":\t")
        if "OrphanFile" not in path and ":" not in path and kind:
            yield "/" + path


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Gone:
    image = mkntfs(tmp_path_factory.mktemp("ntfs") / "gone.img", "32M")
    chance = random.Random(3)
    content: dict[str, str] = {}

    def put(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        content[path.name] = hashlib.sha256(data).hexdigest()

    with ntfs3g(image, "rw,compression,streams_interface=windows") as top:
        (top / "keep").write_bytes(b"k" * 50_000)
        inner = top / "gone dir" / "inner"
        inner.mkdir(parents=True)
        put(inner / "deep file", chance.randbytes(70_000))
        put(top / "resident", b"in the record")
        put(top / "big", chance.randbytes(3_000_000))
        packed = top / "packed"
        packed.mkdir()
        set_xattr(packed, "system.ntfs_attrib_be", struct.pack(">I", 0x810))
        put(packed / "text", b"".join(b"line %d of a text\n" % i for i in range(9000)))
        with Path(f"{top / 'streams'}:one").open("wb") as stream:
            stream.write(b"first" * 2000)
        files = [(top / f"fragments {i}").open("wb") for i in range(2)]
        parts = [[chance.randbytes(4096) for _ in range(300)] for _ in range(2)]
        for pair in zip(*parts, strict=True):
            for file, part in zip(files, pair, strict=True):
                file.write(part)
                file.flush()
                os.fsync(file.fileno())
        for file in files:
            file.close()
        # More runs than a record holds: a deleted file with extension records.
        with (top / "sparse").open("wb") as file:
            for i in range(900):
                file.seek(i * 131072)
                file.write(chance.randbytes(4096))
        with (top / "sparse").open("rb") as source:
            sparse = hashlib.sha256(source.read(SPARSE)).hexdigest()
        content["fragments 0"] = hashlib.sha256(b"".join(parts[0])).hexdigest()
    with ntfs3g(image, "rw,compression,streams_interface=windows") as top:
        for path in ("resident", "big", "packed/text", "fragments 0", "sparse", "gone dir/inner/deep file", "streams"):
            (top / path).unlink()
        (top / "gone dir" / "inner").rmdir()
        (top / "gone dir").rmdir()
    return Gone(image.read_bytes(), content, sorted(_fls(image)), sparse)


def _deleted(ntfs: Ntfs) -> dict[str, int]:
    """Path → id of deleted files, "" for the one without a name."""
    found = scan_catalogue(ntfs, volume="disk0", deleted=True).find(deleted=True)
    ids = found.arrow["file"].to_pylist()
    return {path or "": file for path, file in zip(found.paths().to_pylist(), ids, strict=True)}


class TestScanOfWhatWasDeleted(ScanConformance):
    scan_rounds = 6

    @pytest.fixture(autouse=True)
    def _gone(self, gone: Gone) -> None:
        self.image = gone.image

    def parser(self) -> Parser:
        return NtfsParser()

    def device(self) -> BlockDevice:
        return MemoryDevice(self.image)


@pytest.mark.tools("fls")
def test_deleted_files_are_found_with_their_paths_and_content(gone: Gone) -> None:
    ntfs = open_ntfs(MemoryDevice(gone.image))
    found = _deleted(ntfs)
    # ntfs-3g takes the name from a file of several records, and the end of its list; fls does not know it any more.
    sparse = found.pop("")
    assert sorted(found) == gone.listed
    assert len(found) == 8
    with ntfs.open(sparse) as content:
        assert hashlib.sha256(content.read(0, SPARSE)).hexdigest() == gone.sparse
        with pytest.raises(CorruptionError, match="nothing says any more"):
            content.read(content.size - 1, 1)
    read = {}
    for path, file in found.items():
        assert file & DELETED
        if path in ("/gone dir", "/gone dir/inner"):
            with pytest.raises(PathIsDirectoryError):
                ntfs.open(file)
            continue
        with ntfs.open(file) as content:
            read[path.rpartition("/")[2]] = hashlib.sha256(content.read(0, content.size)).hexdigest()
        assert any(f.file == file and f.severity is Severity.DEGRADED and "deleted" in f.message for f in ntfs.findings)
    assert {name: read[name] for name in gone.content} == gone.content
    with ntfs.open(found["/streams"], "one") as content:
        assert content.read(0, content.size) == b"first" * 2000


def test_deleted_files_come_only_when_asked_for(gone: Gone) -> None:
    scan, walk, ntfs = both(gone.image)
    assert_equal(scan, walk)
    assert not scan.deleted
    every = gather(ntfs.scan(deleted=True))
    assert not [file for file in scan.files if every.files[file] != scan.files[file]]
    assert len(every.deleted) == 9


def _clusters_of(ntfs: Ntfs, file: int) -> list[int]:
    runs = ntfs.runs(np.array([file], np.uint64))
    size = 4096
    return [
        at // size + i
        for at, n in zip(runs.position, runs.length, strict=True)
        if at >= 0
        for i in range(-(-n // size))
    ]


def _give_away(image: Image, clusters: Iterable[int]) -> None:
    bitmap = image.first_run(image.attribute(6, DATA))
    for cluster in clusters:
        image.data[bitmap + cluster // 8] |= 1 << cluster % 8


@pytest.mark.parametrize("path", ["/big", "/fragments 0", "/packed/text", "/gone dir/inner/deep file"])
def test_clusters_that_others_have_are_not_the_deleted_files(gone: Gone, path: str) -> None:
    ntfs = open_ntfs(MemoryDevice(gone.image))
    file = _deleted(ntfs)[path]
    clusters = _clusters_of(ntfs, file)
    image = Image(gone.image)
    _give_away(image, clusters)
    ntfs = open_ntfs(MemoryDevice(bytes(image.data)))
    with pytest.raises(CorruptionError, match="given to other files"):
        ntfs.open(file)
    runs = ntfs.runs(np.array([file], np.uint64))
    assert not (runs.position >= 0).any()
    assert 0 in runs.errors


def test_what_is_still_free_of_a_deleted_file_can_be_read(gone: Gone) -> None:
    ntfs = open_ntfs(MemoryDevice(gone.image))
    file = _deleted(ntfs)["/big"]
    clusters = _clusters_of(ntfs, file)
    with ntfs.open(file) as content:
        whole = content.read(0, content.size)
    image = Image(gone.image)
    _give_away(image, [clusters[7], clusters[8], clusters[-1]])
    ntfs = open_ntfs(MemoryDevice(bytes(image.data)))
    with ntfs.open(file) as content:
        assert content.read(0, 7 * 4096) == whole[: 7 * 4096]
        assert content.read(9 * 4096, 100_000) == whole[9 * 4096 :][:100_000]
        for at in (7 * 4096, 9 * 4096 - 1, len(whole) - 1):
            with pytest.raises(CorruptionError, match="given to other files"):
                content.read(at, 1)
    assert sorted(_clusters_of(ntfs, file)) == sorted({*clusters} - {clusters[7], clusters[8], clusters[-1]})


def test_nothing_is_free_where_the_bitmap_is_lost(gone: Gone) -> None:
    image = Image(gone.image)
    image.poke(image.record_at(6), bytes(1024))
    ntfs = open_ntfs(MemoryDevice(bytes(image.data)))
    found = _deleted(ntfs)
    with pytest.raises(CorruptionError):
        ntfs.open(found["/big"])
    with ntfs.open(found["/resident"]) as content:
        assert content.read(0, content.size) == b"in the record"


def test_ids_of_deleted_files_are_no_others(gone: Gone) -> None:
    ntfs = open_ntfs(MemoryDevice(gone.image))
    found = _deleted(ntfs)
    keep = find(ntfs, "keep")
    asked = np.array([found["/big"] & ~DELETED, keep | DELETED, found["/big"], keep], np.uint64)
    rows = ntfs.rows(asked)
    assert set(rows.errors) == {0, 1}
    assert rows.size.tolist()[2:] == [3_000_000, 50_000]
    assert rows.type.tolist()[2:] == [FileType.FILE, FileType.FILE]
