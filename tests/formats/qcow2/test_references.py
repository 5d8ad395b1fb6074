"""Backing files and external data files: where they are looked for, and where never."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.errors import (
    CorruptionError,
    ObjectNotFoundError,
    PseudomountError,
    StorageError,
    UnsupportedError,
    UsageError,
)
from pseudomount.findings import FindingLog, Severity
from pseudomount.formats import Disk
from pseudomount.formats.detect import find_format, make_source
from pseudomount.formats.members import MAX_DEPTH
from pseudomount.storage import Store
from tests.support.qcow2 import FORMATS, disk_of, facts, opened

CLUSTER = 65536
SECRET = b"root:*:19783" * 50


def overlay(
    path: Path, backing: str | None = None, fmt: str | None = "raw", *, size: int = 4096, data: str | None = None
) -> Path:
    """An image of version 3 that holds nothing, made by hand: qemu-img would look for what it names."""
    extensions = b""
    for kind, text in ((0xE279_2ACA, fmt if backing is not None else None), (0x4441_5441, data)):
        if text is not None:
            raw = text.encode()
            extensions += struct.pack(">II", kind, len(raw)) + raw + bytes(-len(raw) % 8)
    extensions += bytes(8)
    name = (backing or "").encode()
    at = 104 + len(extensions)
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, at if name else 0, len(name), 16, size, 0, 1, CLUSTER, 0, 0, 0, 0
    )
    header += struct.pack(">QQQII", 4 if data is not None else 0, 0, 0, 4, 104)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((header + extensions + name).ljust(CLUSTER, b"\0") + bytes(CLUSTER))
    return path


def content(path: Path, findings: FindingLog | None = None, **options: str) -> bytes:
    with opened(path, findings, **options) as device:
        return device.read(0, device.size)


def secret(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(SECRET.ljust(4096, b"."))
    return path


WHOLE = SECRET.ljust(4096, b".")


@pytest.mark.parametrize("how", ["backing", "data"])
@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../out/secret", "x/../../out/secret", "{out}/secret", "link", "link/../secret", "folder/secret"],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, name: str, how: str) -> None:
    secret(tmp_path / "out" / "secret")
    home = tmp_path / "vms"
    home.mkdir()
    if hasattr(Path, "symlink_to") and sys.platform != "win32":
        (home / "link").symlink_to(tmp_path / "out" / "secret")
        (home / "folder").symlink_to(tmp_path / "out", target_is_directory=True)
    reference = name.format(out=tmp_path / "out")
    path = home / "vm.qcow2"
    overlay(path, reference if how == "backing" else None, data=reference if how == "data" else None)
    with pytest.raises(StorageError, match=r"backing file|external data file") as caught:
        disk_of(path)
    if isinstance(caught.value, ObjectNotFoundError):
        assert "--backing-root" in str(caught.value)


@pytest.mark.parametrize("name", ["base.raw", "./base.raw", "sub/deep/base.raw", "x/../base.raw", "{home}/base.raw"])
def test_what_lies_in_the_folder_is_found(tmp_path: Path, name: str) -> None:
    secret(tmp_path / "base.raw")
    secret(tmp_path / "sub" / "deep" / "base.raw")
    findings = FindingLog()
    assert content(overlay(tmp_path / "vm.qcow2", name.format(home=tmp_path)), findings) == WHOLE
    assert not list(findings)


@pytest.mark.parametrize("name", ["/var/lib/libvirt/images/base.raw", "../templates/base.raw", "C:\\VMs\\base.raw"])
def test_a_chain_that_was_copied_together_is_found_by_name_and_noted(tmp_path: Path, name: str) -> None:
    secret(tmp_path / "base.raw")
    findings = FindingLog()
    assert content(overlay(tmp_path / "vm.qcow2", name), findings) == WHOLE
    assert [(f.severity, "base.raw" in f.message) for f in findings] == [(Severity.NOTE, True)]


def test_a_reference_counts_from_the_image_that_has_it(tmp_path: Path) -> None:
    secret(tmp_path / "base.raw")
    overlay(tmp_path / "sub" / "middle.qcow2", "../base.raw")
    findings = FindingLog()
    assert content(overlay(tmp_path / "vm.qcow2", "sub/middle.qcow2", "qcow2"), findings) == WHOLE
    assert not list(findings)


@pytest.mark.parametrize("name", ["{out}/base.raw", "../out/base.raw", "base.raw", "/srv/base.raw"])
def test_backing_root(tmp_path: Path, name: str) -> None:
    secret(tmp_path / "out" / "base.raw")
    path = overlay(tmp_path / "vms" / "vm.qcow2", name.format(out=tmp_path / "out"))
    with pytest.raises(ObjectNotFoundError):
        disk_of(path)
    assert content(path, backing_root=str(tmp_path / "out")) == WHOLE
    if ".." in name or "{" in name:  # these lead into a wider root, too; the others do not
        assert content(path, backing_root=str(tmp_path)) == WHOLE
    with pytest.raises(UsageError, match="no folder"):
        disk_of(path, backing_root=str(tmp_path / "none"))


def test_backing_root_through_the_api(tmp_path: Path) -> None:
    secret(tmp_path / "out" / "deep" / "base.raw")
    overlay(tmp_path / "out" / "middle.qcow2", "deep/base.raw")
    path = overlay(tmp_path / "vms" / "vm.qcow2", str(tmp_path / "out" / "middle.qcow2"), "qcow2")
    with pytest.raises(ObjectNotFoundError, match="--backing-root"):
        open_backup(path)
    with open_backup(path, options={"backing_root": str(tmp_path / "out")}) as backup:
        assert backup.format == "qcow2"
        assert backup.disks["disk0"].read(0, 4096) == WHOLE


def test_images_of_several_folders_each_with_its_own(tmp_path: Path) -> None:
    secret(tmp_path / "a" / "base.raw")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "base.raw").write_bytes(b"other".ljust(4096))
    (tmp_path / "c.raw").write_bytes(b"raw".ljust(4096))
    paths = [overlay(tmp_path / name / "vm.qcow2", "base.raw") for name in ("a", "b")]
    with open_backup([*paths, tmp_path / "c.raw"]) as backup:
        contents = [disk.read(0, 4096) for disk in backup.disks.values()]
    assert contents == [WHOLE, b"other".ljust(4096), b"raw".ljust(4096)]


@pytest.mark.parametrize(
    "name",
    ["nbd:localhost:10809", "nbd://localhost/x", "https://example.org/base", 'json:{"driver":"file"}', "ssh://h/x"],
)
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedError, match="is no file"):
        disk_of(overlay(tmp_path / "vm.qcow2", name))


def test_file_as_a_protocol(tmp_path: Path) -> None:
    secret(tmp_path / "base.raw")
    assert content(overlay(tmp_path / "vm.qcow2", "file:base.raw")) == WHOLE


@pytest.mark.parametrize("name", ["a\0b", ".", "..", "/", "sub"])
def test_names_that_are_no_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(PseudomountError):
        disk_of(overlay(tmp_path / "vm.qcow2", name))


# -- what a backing file is ----------------------------------------------------------------------------------------


def test_a_raw_disk_that_begins_like_a_container_stays_raw_where_the_image_says_so(tmp_path: Path) -> None:
    forged = overlay(tmp_path / "base.raw", "guessed").read_bytes()
    secret(tmp_path / "guessed")
    path = overlay(tmp_path / "vm.qcow2", "base.raw", "raw", size=8192)
    assert content(path) == forged[:8192]


def test_without_a_format_the_first_bytes_tell_and_that_is_noted(tmp_path: Path) -> None:
    secret(tmp_path / "base.raw")
    findings = FindingLog()
    overlay(tmp_path / "middle.qcow2", "base.raw", None)
    assert content(overlay(tmp_path / "vm.qcow2", "middle.qcow2", None), findings) == WHOLE
    assert [f.severity for f in findings] == [Severity.NOTE] * 2
    assert ["looks like qcow2" in str(f) for f in findings] == [True, False]


def test_formats(tmp_path: Path) -> None:
    secret(tmp_path / "base")
    with pytest.raises(UnsupportedError, match="vmdk format, which no plug-in opens"):
        disk_of(overlay(tmp_path / "a.qcow2", "base", "vmdk"))
    with pytest.raises(CorruptionError, match="base is no qcow2 image"):
        disk_of(overlay(tmp_path / "b.qcow2", "base", "qcow2"))
    (tmp_path / "base").write_bytes(b"")
    assert content(overlay(tmp_path / "c.qcow2", "base", "raw")) == bytes(4096)
    disk = disk_of(overlay(tmp_path / "d.qcow2", "c.qcow2", "qcow2"))
    assert facts(disk)["backing_chain"] == ["c.qcow2 (qcow2)", "base (raw)"]


def test_options_speak_of_the_image_that_was_named(tmp_path: Path) -> None:
    secret(tmp_path / "base.001")
    path = overlay(tmp_path / "vm.qcow2", "base.001")
    assert content(path, format="qcow2", split="yes") == WHOLE
    with pytest.raises(UsageError, match="no snapshot is called 'x'; there is none"):
        disk_of(path, snapshot="x")


def test_loops_and_depth(tmp_path: Path) -> None:
    with pytest.raises(CorruptionError, match="lies above"):
        disk_of(overlay(tmp_path / "self.qcow2", "self.qcow2", "qcow2"))
    overlay(tmp_path / "a.qcow2", "b.qcow2", "qcow2")
    overlay(tmp_path / "b.qcow2", "./a.qcow2", "qcow2")
    with pytest.raises(CorruptionError, match="lies above"):
        disk_of(tmp_path / "a.qcow2")
    secret(tmp_path / "0")
    for number in range(1, MAX_DEPTH + 2):
        overlay(tmp_path / str(number), str(number - 1), "raw" if number == 1 else "qcow2")
    assert content(tmp_path / str(MAX_DEPTH - 1)) == WHOLE
    with pytest.raises(UnsupportedError, match=f"more than {MAX_DEPTH} images"):
        disk_of(tmp_path / str(MAX_DEPTH + 1))
    if sys.platform != "win32":
        overlay(tmp_path / "round.qcow2", "again.qcow2", "qcow2")
        (tmp_path / "again.qcow2").symlink_to("round.qcow2")
        with pytest.raises((UnsupportedError, CorruptionError)):
            disk_of(tmp_path / "round.qcow2")


# -- an object store -----------------------------------------------------------------------------------------------


class Objects(Store):
    """Objects in memory, as far away as one likes."""

    remote = True

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.asked: list[str] = []

    def size(self, name: str) -> int:
        self.asked.append(name)
        if name not in self.objects:
            raise ObjectNotFoundError(f"{name}: no such object")
        return len(self.objects[name])

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        self.asked.append(name)
        return self.objects[name][offset : offset + length]

    def list(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.objects if name.startswith(prefix))


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("base.raw", True),
        ("./sub/../base.raw", True),
        ("/var/lib/base.raw", True),
        ("../base.raw", True),
        ("../other/secret", False),
        ("../../secret", False),
        ("/other/secret", False),
    ],
)
def test_in_an_object_store_the_folder_is_the_prefix(tmp_path: Path, reference: str, found: bool) -> None:
    image = overlay(tmp_path / "vm.qcow2", reference).read_bytes()
    store = Objects({"vms/a/vm.qcow2": image, "vms/a/base.raw": WHOLE, "vms/other/secret": WHOLE, "secret": WHOLE})

    def open_it() -> Disk:
        source = make_source(store, ["vms/a/vm.qcow2"], {}, FORMATS)
        (disk,) = find_format(source, FORMATS).open(source, FindingLog())
        return disk

    if found:
        disk = open_it()
        assert facts(disk)["backing_chain"] == ["vms/a/base.raw (raw)"]
        assert disk.store is not None
        assert disk.store.remote
        assert disk.store.read("vms/a/base.raw", 0, 4) == WHOLE[:4]
    else:
        with pytest.raises(ObjectNotFoundError):
            open_it()
    assert all(name.startswith("vms/a/") for name in store.asked)
