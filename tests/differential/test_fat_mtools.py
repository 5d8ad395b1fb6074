"""FAT volumes that mkfs.fat and mtools make: mtools' and The Sleuth Kit's view of them against ours."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from pseudomount.filesystem import FileRows
from pseudomount.findings import FindingLog
from pseudomount_fat import FatParser
from tests.support.fat import ForgedFat, Mapped, browse, content, entry, long_entries, names_of
from tests.support.fat_make import ENVIRONMENT, host_tree, nasty_tree, run

pytestmark = pytest.mark.tools("mkfs.fat", "mcopy", "mdel", "fsck.fat", "fls", "blkid")

#: mkfs.fat's options, KiB, bytes of a cluster, what it comes to.
VOLUMES = {
    "fat12": (["-F", "12", "-s", "4"], 8000, 2048, "fat12"),
    "fat12-floppy": (["-F", "12", "-s", "1", "-r", "224", "-R", "1"], 1900, 512, "fat12"),
    "fat12-one-fat": (["-F", "12", "-s", "8", "-f", "1", "-a"], 8000, 4096, "fat12"),
    "fat16": (["-F", "16", "-s", "1", "-h", "63", "-r", "1024"], 8000, 512, "fat16"),
    "fat16-2048": (["-F", "16", "-S", "2048", "-s", "1"], 16000, 2048, "fat16"),
    "fat16-reserved": (["-F", "16", "-s", "2", "-R", "17", "-f", "4"], 12000, 1024, "fat16"),
    "fat32": (["-F", "32", "-s", "1"], 36000, 512, "fat32"),
    "fat32-4096": (["-F", "32", "-S", "4096", "-s", "1", "-R", "40", "-b", "9"], 270000, 4096, "fat32"),
    "fat16-large-clusters": (["-F", "16", "-s", "128"], 280000, 65536, "fat16"),
}


def make(path: Path, options: list[str], kib: int) -> None:
    run("mkfs.fat", "-n", "NASTY TREE", "-i", "1a2b3c4d", "-C", *options, path, str(kib))


@pytest.mark.parametrize("volume", VOLUMES)
def test_a_nasty_tree(volume: str, tmp_path: Path) -> None:
    options, kib, cluster, name = VOLUMES[volume]
    image, tree, out = tmp_path / "image", tmp_path / "tree", tmp_path / "out"
    make(image, options, kib)
    nasty_tree(tree, cluster=cluster, many=40)
    run("mcopy", "-i", image, "-s", "-m", *sorted(tree.iterdir()), "::")
    # Every other file of a crowd goes, and a large file is laid into the holes.
    holes = tmp_path / "holes"
    holes.mkdir()
    for i in range(30):
        (holes / f"h{i}").write_bytes(content(2 * cluster, 300 + i))
    run("mcopy", "-i", image, "-s", holes, "::")
    run("mdel", "-i", image, *(f"::/holes/h{i}" for i in range(0, 30, 2)))
    if name == "fat32":  # from the start again: FSInfo says where to look for free clusters
        with image.open("r+b") as file:
            file.seek(int(options[options.index("-S") + 1] if "-S" in options else 512) + 492)
            file.write(b"\x02\0\0\0")
    (tmp_path / "laid in pieces.bin").write_bytes(content(40 * cluster + 5, 400))
    run("mcopy", "-i", image, tmp_path / "laid in pieces.bin", "::")
    out.mkdir()
    run("mcopy", "-i", image, "-s", "-n", "::*", out)
    log = FindingLog()
    device = Mapped(image)
    filesystem = FatParser().open(device, log)
    assert filesystem.name == name
    seen = browse(filesystem)
    assert {path: (s.type, max(s.size, 0), s.sha256) for path, s in seen.items()} == host_tree(out)
    laid = filesystem.runs(np.array([seen["/laid in pieces.bin"].file], np.uint64))
    assert len(laid) > 3
    assert list(log) == []
    match = FatParser().probe(device)
    assert match is not None
    shown = dict(line.split("=", 1) for line in run("blkid", "-p", "-o", "export", image).splitlines())
    assert (match.label, match.uuid) == (shown["LABEL"].replace("\\ ", " "), shown["UUID"])
    check_times(image, filesystem.rows(np.array([s.file for s in seen.values()], np.uint64)), list(seen))


def check_times(image: Path, rows: FileRows, paths: list[str]) -> None:
    """Sizes and times against The Sleuth Kit's body file: seconds of modified, accessed, created."""
    known = {}
    for line in run("fls", "-r", "-u", "-m", "/", "-z", "UTC", image).splitlines():
        _, path, _, _, _, _, size, accessed, modified, _, created = line.split("|")
        known["/" + path.lstrip("/")] = (int(size), int(accessed), int(modified), int(created))
    compared = 0
    for i, path in enumerate(paths):
        if path not in known:
            continue
        length, *times = known[path]
        if rows.size[i] >= 0:
            assert rows.size[i] == length, path
        ours = [column.exact(i) for column in (rows.accessed, rows.modified, rows.created)]
        assert [0 if time is None else time[0] for time in ours] == times, path
        compared += 1
    assert compared > 50


@pytest.mark.tools("7z")
@pytest.mark.parametrize("bits", [12, 32])
def test_a_directory_of_five_thousand(bits: int, tmp_path: Path) -> None:
    clusters = {12: 4000, 16: 9000, 32: 9000}[bits]
    volume = ForgedFat(bits, clusters=clusters, per_cluster=2)
    listing = entry(b".          ", 100, attributes=0x10) + entry(b"..         ", 0, attributes=0x10)
    names = [f"File number {i} in a large directory.txt" if i % 3 else f"S{i}.TXT" for i in range(5000)]
    for i, name in enumerate(names):
        short = (b"S%07dTXT" % i) if i % 3 else name.encode().replace(b".TXT", b"").ljust(8, b" ")[:8] + b"TXT"
        first = volume.file(b"%d" % i, 2000 + i % 1000) if i < 900 else 0
        listing += (long_entries(name, short) if i % 3 else b"") + entry(short, first, len(str(i)) if first else 0)
    count = -(-len(listing) // volume.cluster)
    order = (np.random.default_rng(bits).permutation(count) + 100).tolist()
    order.remove(100)
    volume.root = entry(b"LARGE      ", volume.file(listing, 100, *order), attributes=0x10)
    path = tmp_path / "image.img"
    path.write_bytes(volume.image())
    filesystem = volume.open()
    seen = browse(filesystem)
    assert {s.error for s in seen.values()} == {""}
    assert names_of(filesystem, seen["/LARGE"].file) == names
    out = tmp_path / "out"
    run("7z", "x", "-tFAT", "-y", f"-o{out}", path)
    assert {k: (s.type, max(s.size, 0), s.sha256) for k, s in seen.items()} == host_tree(out)


def test_lower_case_bits_of_mtools(tmp_path: Path) -> None:
    image = tmp_path / "image"
    make(image, ["-F", "16", "-s", "1"], 8000)
    names = ["lower1.txt", "lower2.TXT", "UPPER3.txt", "UPPER4.TXT", "lower5", "UPPER6"]
    for name in names:
        (tmp_path / "x").write_bytes(name.encode())
        run("mcopy", "-i", image, tmp_path / "x", f"::{name}")
    listed = run("mdir", "-i", image, "-b", "::").split()
    device = Mapped(image)
    assert [f"::/{name}" for name in names_of(FatParser().open(device, FindingLog()))] == listed


@pytest.mark.parametrize("codepage", ["437", "850", "866", "932"])
def test_code_pages_of_mtools(codepage: str, tmp_path: Path) -> None:
    # Short names only, in the code page's own letters; mtools is told of the page, too.
    letters = {"437": "ÄÖÉ", "850": "ÕÃØ", "866": "ЖЯД", "932": "テスト"}[codepage]
    image = tmp_path / "image"
    make(image, ["-F", "16", "-s", "1"], 8000)
    volume = ForgedFat(16, clusters=5000)
    raw = letters.encode(f"cp{codepage}")
    raw = b"\x05" + raw[1:] if raw[0] == 0xE5 else raw
    volume.root = entry(raw.ljust(8, b" ") + b"DAT", volume.file(b"data", 9), 4)
    image.write_bytes(volume.image())
    (tmp_path / "rc").write_text(f'drive z: file="{image}" codepage={codepage}\n')
    filesystem = volume.open({"codepage": codepage})
    assert names_of(filesystem) == [f"{letters}.DAT"]
    listed = subprocess.run(
        ["mdir", "-b", "z:"],
        env={**ENVIRONMENT, "MTOOLSRC": str(tmp_path / "rc")},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    assert listed.split() == [f"Z:/{letters}.DAT"]
