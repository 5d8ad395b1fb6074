"""One volume for all tests of the parser, made and filled by ntfs-3g: what it holds is written down here."""

from __future__ import annotations

import os
import random
import stat
import struct
from pathlib import Path

import pytest

from pseudomount.testing import MemoryDevice
from pseudomount_ntfs import Ntfs
from tests.support.ntfs import Image, link_point, make_node, mkntfs, ntfs3g, open_ntfs, reparse, set_xattr

TEXT = b"".join(b"line %d of a text that compresses well\n" % i for i in range(9000))
NOISE = random.Random(7).randbytes(100_000)
LONG = random.Random(8).randbytes(20_000)
DOTLESS = "\u0131"
LABEL = "Größe 😀"
#: FILETIMEs: created, modified, accessed, changed.
OUT_OF_RANGE = (149_999_999_999_999_999, 9_223_372_032_560_000_000, 30_000_000, 0)


def _fill(top: Path) -> None:
    many = top / "many"
    many.mkdir()
    for i in range(400):
        (many / f"a file with a long name {i:04d}").write_bytes(b"%d" % i)
    for i in range(5, 400):
        (many / f"a file with a long name {i:04d}").unlink()
    (top / "small").write_bytes(b"resident")
    (top / "long").write_bytes(LONG)
    (top / "empty").write_bytes(b"")
    for i in range(40):
        os.link(top / "small", top / f"hard link number {i:02d} with a name that fills the record")
    with Path(f"{top / 'streams'}:one").open("wb") as file:
        file.write(b"first")
    with Path(f"{top / 'streams'}:Zwei").open("wb") as file:
        file.write(NOISE)
    with (top / "sparse").open("wb") as file:
        file.seek(2_000_000)
        file.write(b"end")
    packed = top / "packed"
    packed.mkdir()
    set_xattr(packed, "system.ntfs_attrib_be", struct.pack(">I", 0x810))
    (packed / "text").write_bytes(TEXT)
    (packed / "noise").write_bytes(NOISE)
    (packed / "mixed").write_bytes(NOISE[:70_000] + bytes(150_000) + TEXT[:100_000] + NOISE[:3])
    for name, data in {
        "symlink": link_point(0xA000000C, r"many\..\small", r"many\..\small", relative=True),
        "absolute": link_point(0xA000000C, r"\??\C:\many\x", r"C:\many\x"),
        "elsewhere": link_point(0xA000000C, r"\??\UNC\server\share\x", r"\\server\share\x"),
        "app": reparse(0x8000001B, b"\3\0\0\0abcd"),
    }.items():
        (top / name).write_bytes(b"")
        set_xattr(top / name, "system.ntfs_reparse_data", data)
    for name, data in {
        "junction": link_point(0xA0000003, r"\??\C:\many", r"C:\many"),
        "volume": link_point(0xA0000003, "\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\", ""),
    }.items():
        (top / name).mkdir()
        set_xattr(top / name, "system.ntfs_reparse_data", data)
    for name, tag in {"wof": 0x80000017, "dedup": 0x80000013, "cloud": 0x9000101A, "away": 0x9000701A}.items():
        (top / name).write_bytes(LONG)
        if name == "away":
            with (top / name).open("r+b") as file:
                file.truncate(0)
                file.truncate(500_000)
        if name == "wof":
            with Path(f"{top / name}:WofCompressedData").open("wb") as file:
                file.write(NOISE[:5000])
        set_xattr(top / name, "system.ntfs_reparse_data", reparse(tag, struct.pack("<4I", 1, 2, 1, 0)))
    (top / "A long name.text").write_bytes(b"with an alias")
    set_xattr(top / "A long name.text", "system.ntfs_dos_name", b"ALONGN~1.TEX")
    (top / "times").write_bytes(b"")
    set_xattr(top / "times", "system.ntfs_times", struct.pack("<4Q", *OUT_OF_RANGE))
    (top / "attributes").write_bytes(b"")
    set_xattr(top / "attributes", "system.ntfs_ea", struct.pack("<IBBH", 20, 0, 4, 5) + b"NAME\0value\0\0")
    (top / DOTLESS).write_bytes(b"dotless")
    (top / "i").write_bytes(b"dotted")
    (top / "Straße").write_bytes(b"s")


def _fill_posix(top: Path) -> None:
    (top / "interix").symlink_to("many/../small")
    make_node(top / "pipe", stat.S_IFIFO | 0o644)
    make_node(top / "node", 0o20644, 5, 300)


def _fill_wsl(top: Path) -> None:
    (top / "wsl").symlink_to("many/../small")
    make_node(top / "wsl pipe", stat.S_IFIFO | 0o644)
    make_node(top / "wsl node", 0o60644, 8, 77)


@pytest.fixture(scope="session")
def sample_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volume as a file: 4 KiB clusters, 1 KiB records. Not to be written to."""
    image = mkntfs(tmp_path_factory.mktemp("ntfs") / "sample.img", "16M", "-L", LABEL)
    with ntfs3g(image, "rw,compression,streams_interface=windows") as top:
        _fill(top)
    with ntfs3g(image, "rw") as top:
        _fill_posix(top)
    with ntfs3g(image, "rw,special_files=wsl") as top:
        _fill_wsl(top)
    return image


@pytest.fixture
def sample(sample_path: Path) -> Image:
    """The volume's bytes, a copy for each test."""
    return Image(sample_path.read_bytes())


@pytest.fixture
def ntfs(sample: Image) -> Ntfs:
    """The volume, opened."""
    return open_ntfs(MemoryDevice(bytes(sample.data), name="sample"))
