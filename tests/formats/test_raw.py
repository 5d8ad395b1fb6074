"""Raw images, whole and in pieces: pieces made by split(1), containers by qemu-img and the compressors."""

from __future__ import annotations

import hashlib
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pseudomount.device import PseudoDisk
from pseudomount.errors import CorruptionError, ObjectNotFoundError, UnknownFormatError, UnsupportedError, UsageError
from pseudomount.findings import FindingLog, Severity
from pseudomount.formats import Disk, Format, Source
from pseudomount.formats.detect import find_format, make_source
from pseudomount.formats.known import KNOWN, recognise
from pseudomount.formats.pieces import numbered
from pseudomount.formats.raw import RawFormat
from pseudomount.storage import LocalStore

DATA = random.Random(9).randbytes(40_960 + 77)


def opened(folder: Path, *names: str, **options: str) -> tuple[list[bytes], list[str]]:
    """The bytes of each disk, and the findings."""
    findings = FindingLog()
    store = LocalStore(folder)
    source = make_source(store, names, options)
    disks = find_format(source, [RawFormat()]).open(source, findings)
    contents = []
    for disk in disks:
        with PseudoDisk(disk.index, store, sector_size=disk.sector_size) as device:
            contents.append(device.read(0, device.size))
    store.close()
    return contents, [str(finding) for finding in findings]


def run(*command: str | Path) -> str:
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True).stdout


def written(folder: Path, sizes: dict[str, int]) -> bytes:
    """Files filled from one stream of bytes, which is returned."""
    whole = b""
    for name, size in sizes.items():
        part = random.Random(name).randbytes(size)
        (folder / name).write_bytes(part)
        whole += part
    return whole


@pytest.mark.parametrize("size", [1, 511, 512, 513, 40_960 + 77])
def test_an_image_of_any_size(tmp_path: Path, size: int) -> None:
    (tmp_path / "vm.img").write_bytes(DATA[:size])
    assert opened(tmp_path, "vm.img") == ([DATA[:size]], [])


def test_nothing_to_open(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UnknownFormatError, match="empty is empty"):
        opened(tmp_path, "empty")
    source = make_source(LocalStore(tmp_path), ["empty"])
    with pytest.raises(UnknownFormatError, match="empty is empty"):
        RawFormat().open(source, FindingLog())
    with pytest.raises(ObjectNotFoundError):
        opened(tmp_path, "none")
    with pytest.raises(UsageError):
        opened(tmp_path)


def test_sector_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(DATA)
    source = make_source(LocalStore(tmp_path), ["a"], {"sector_size": "4096"})
    assert RawFormat().open(source, FindingLog())[0].sector_size == 4096
    with pytest.raises(UsageError):
        opened(tmp_path, "a", sector_size="1000")


# -- pieces --------------------------------------------------------------------------------------------------------


@pytest.mark.tools("split", "sha256sum")
@pytest.mark.parametrize(
    ("arguments", "first", "pieces"),
    [
        (["-b", "1000", "-d", "-a", "3"], "vm.000", 42),
        (["-b", "1000", "--numeric-suffixes=1", "-a", "3"], "vm.001", 42),
        (["-b", "1000", "-d"], "vm.00", 42),
        (["-b", "1000"], "vm.aa", 42),
        (["-b", "1000", "-a", "3"], "vm.aaa", 42),
        (["-b", "400", "-d"], "vm.00", 103),  # widens: 89, 9000
        (["-b", "60"], "vm.aa", 684),  # widens: yz, zaaa
        (["-b", "4", "-d"], "vm.00", 10260),  # widens twice: 9899, 990000
        (["-n", "7", "-d"], "vm.00", 7),
    ],
)
def test_split_is_undone_from_its_first_piece(
    tmp_path: Path, arguments: Sequence[str], first: str, pieces: int
) -> None:
    image = tmp_path / "whole"
    image.write_bytes(DATA)
    run("split", *arguments, image, tmp_path / "vm.")
    expected = run("sha256sum", image).split()[0]
    assert len(list(tmp_path.glob("vm.*"))) == pieces
    contents, _ = opened(tmp_path, first)
    assert [hashlib.sha256(content).hexdigest() for content in contents] == [expected]


def test_pieces_named_all(tmp_path: Path) -> None:
    whole = written(tmp_path, {"x.000": 1000, "x.001": 1000, "x.002": 10})
    assert opened(tmp_path, "x.000", "x.001", "x.002") == ([whole], [])


def test_other_files_beside_the_pieces(tmp_path: Path) -> None:
    whole = written(tmp_path, {"x.aa": 1000, "x.ab": 500})
    written(tmp_path, {"x.gz": 10, "x.db": 10, "x.01": 10, "x.txt": 10, "y.ac": 1000, "x.aaa": 10, "x": 4})
    (tmp_path / "x.ac").mkdir()
    assert opened(tmp_path, "x.aa") == ([whole], [])
    written(tmp_path, {"z.001": 10, "z.2024": 10, "z.log": 10})
    assert len(opened(tmp_path, "z.001")[0][0]) == 10


@pytest.mark.parametrize("named", [["x.000"], ["x.000", "x.001", "x.003"]])
def test_a_missing_piece_is_named(tmp_path: Path, named: list[str]) -> None:
    written(tmp_path, {"x.000": 1000, "x.001": 1000, "x.003": 1000})
    with pytest.raises(CorruptionError, match=r"missing: x\.002 \(there is x\.003\)"):
        opened(tmp_path, *named)


def test_a_missing_piece_of_letters_is_named(tmp_path: Path) -> None:
    written(tmp_path, {"x.aa": 1000, "x.ac": 1000})
    with pytest.raises(CorruptionError, match=r"missing: x\.ab"):
        opened(tmp_path, "x.aa")


def test_a_later_piece_alone(tmp_path: Path) -> None:
    written(tmp_path, {"x.000": 1000, "x.001": 1000, "x.002": 10, "y.00": 5, "y.05": 5})
    for name in ("x.001", "x.002"):
        with pytest.raises(UsageError, match=r"name the first one, x\.000"):
            opened(tmp_path, name)
    contents, _ = opened(tmp_path, "x.001", split="no")
    assert contents == [(tmp_path / "x.001").read_bytes()]
    assert len(opened(tmp_path, "y.05")[0]) == 1  # nothing leads from y.00 to it


def test_pieces_in_another_order_are_kept_in_it_and_noted(tmp_path: Path) -> None:
    written(tmp_path, {"x.000": 100, "x.001": 100})
    contents, findings = opened(tmp_path, "x.001", "x.000")
    assert contents == [(tmp_path / "x.001").read_bytes() + (tmp_path / "x.000").read_bytes()]
    assert any("another order" in finding for finding in findings)
    with pytest.raises(UsageError, match="twice"):
        opened(tmp_path, "x.000", "x.000")


def test_pieces_that_were_left_out_are_told_of(tmp_path: Path) -> None:
    written(tmp_path, {"x.000": 100, "x.001": 100, "x.002": 100, "x.003": 100})
    _, findings = opened(tmp_path, "x.001", "x.002")
    assert any("x.001 is not the first piece" in finding for finding in findings)
    assert any("x.003 was not named" in finding for finding in findings)


def test_pieces_of_odd_sizes_are_noted(tmp_path: Path) -> None:
    whole = written(tmp_path, {"x.000": 100, "x.001": 90, "x.002": 100})
    contents, findings = opened(tmp_path, "x.000")
    assert contents == [whole]
    assert findings == ["note: the pieces of the disk differ in size: x.001 has 90 bytes, x.000 100"]


def test_several_disks(tmp_path: Path) -> None:
    a = written(tmp_path, {"a.img": 100})
    b = written(tmp_path, {"b.000": 100, "b.001": 50})
    c = written(tmp_path, {"c.001": 100, "c.002": 50})
    assert opened(tmp_path, "a.img", "b.000", "c.001", "c.002")[0] == [a, b, c]
    assert opened(tmp_path, "b.000", "a.img", split="yes")[0] == [(tmp_path / "b.000").read_bytes() + a]
    assert len(opened(tmp_path, "a.img", "b.000", "b.001", split="no")[0]) == 3
    # Endings that are two letters, and names that are not numbered, are no pieces.
    written(tmp_path, {"vm.dd": 10, "vm.qc": 10, "disk01": 10, "disk02": 10})
    assert len(opened(tmp_path, "vm.dd", "vm.qc", "disk01", "disk02")[0]) == 4
    with pytest.raises(UsageError):
        opened(tmp_path, "a.img", split="perhaps")


@pytest.mark.parametrize("name", ["vm", "vm.1", ".001", "vm.001.qcow2", "vm.A1", "vm.a1", "d/.aa"])
def test_names_that_are_no_pieces(name: str) -> None:
    assert numbered(name) is None


# -- other containers ----------------------------------------------------------------------------------------------


@pytest.mark.tools("qemu-img")
@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("qcow", "", "QCOW"),
        ("qed", "", "QED"),
        ("vmdk", "", "VMDK"),
        ("vmdk", "subformat=streamOptimized", "VMDK"),
        ("vmdk", "subformat=monolithicFlat", "VMDK"),
        ("vhdx", "", "VHDX"),
        ("vpc", "", "VHD"),
        ("vpc", "subformat=fixed", "VHD"),
        ("vdi", "", "VDI"),
        ("parallels", "", "Parallels"),
    ],
)
def test_containers_are_never_taken_for_raw(tmp_path: Path, kind: str, options: str, name: str) -> None:
    raw = tmp_path / "raw.img"
    raw.write_bytes(DATA + bytes(4 << 20))
    image = tmp_path / f"vm.{kind}"
    try:
        run("qemu-img", "convert", "-O", kind, *(["-o", options] if options else []), raw, image)
    except subprocess.CalledProcessError as error:
        if "Unknown file format" in error.stderr or "Format not supported" in error.stderr:
            pytest.skip(f"this qemu-img writes no {kind}")
        raise
    with pytest.raises(UnsupportedError, match=f"is in {name}.* format, which this version does not open; .*vm.{kind}"):
        opened(tmp_path, image.name)
    assert opened(tmp_path, image.name, format="raw")[0] == [image.read_bytes()]


@pytest.mark.parametrize(
    "command", [pytest.param(name, marks=pytest.mark.tools(name)) for name in ("gzip", "xz", "zstd", "bzip2", "tar")]
)
def test_packed_images_are_never_taken_for_raw(tmp_path: Path, command: str) -> None:
    (tmp_path / "raw").write_bytes(DATA)
    if command == "tar":
        run("tar", "-C", tmp_path, "-cf", tmp_path / "packed", "raw")
    else:
        packed = subprocess.run([command, "-c", str(tmp_path / "raw")], check=True, capture_output=True).stdout
        (tmp_path / "packed").write_bytes(packed)
    with pytest.raises(UnsupportedError, match=f"packed is in {command} format"):
        opened(tmp_path, "packed")


@pytest.mark.tools("qemu-img")
def test_qcow2_is_never_taken_for_raw(tmp_path: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "vm", "1M")
    with pytest.raises(UnsupportedError, match="vm is in qcow2 format, not raw"):
        opened(tmp_path, "vm")
    assert opened(tmp_path, "vm", format="raw")[0] == [(tmp_path / "vm").read_bytes()]


def test_each_disk_is_looked_at(tmp_path: Path) -> None:
    written(tmp_path, {"a.img": 1000})
    (tmp_path / "b.img").write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1000))
    with pytest.raises(UnsupportedError, match=r"b\.img is in qcow2 format"):
        opened(tmp_path, "a.img", "b.img")


def test_every_known_magic_is_recognised() -> None:
    for known in KNOWN:
        head, tail = bytearray(512), bytearray(512)
        part, at = (head, known.offset) if known.offset >= 0 else (tail, 512 + known.offset)
        part[at : at + len(known.magic)] = known.magic
        if known.name == "bzip2":
            head[3:10] = b"91AY&SY"
        found = recognise(bytes(head), bytes(tail))
        assert found is not None
        assert found.name == known.name


def test_a_disk_that_only_begins_like_something(tmp_path: Path) -> None:
    assert recognise(b"BZh is how this boot code begins".ljust(512, b"\0"), bytes(512)) is None
    assert recognise(b"", b"") is None
    assert recognise(b"Q", b"conectix") is None


# -- finding a format ----------------------------------------------------------------------------------------------


class Picky(Format):
    def __init__(self, name: str, priority: int, magic: bytes) -> None:
        self.name = name
        self.priority = priority
        self.magic = magic

    def probe(self, source: Source) -> bool:
        return source.head.startswith(self.magic)

    def open(self, source: Source, findings: FindingLog) -> Sequence[Disk]:
        findings.add(Severity.NOTE, self.name)
        return []


def test_formats_are_asked_by_priority(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"QFI\xfb" + bytes(600))
    formats = [RawFormat(), Picky("b", 5, b"QFI"), Picky("a", 5, b"QF"), Picky("c", 9, b"XX")]
    store = LocalStore(tmp_path)

    def chosen(**options: str) -> str:
        return find_format(make_source(store, ["x"], options), formats).name

    assert chosen() == "a"
    assert chosen(format="c") == "c"
    assert chosen(format="raw") == "raw"
    with pytest.raises(UsageError, match="known are a, b, c, raw"):
        chosen(format="vmdk")
    with pytest.raises(UnknownFormatError):
        find_format(make_source(store, ["x"]), [])
