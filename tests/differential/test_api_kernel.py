"""The public interface against the kernel, on a partitioned disk that the test makes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudomount import BackupPath, open_backup
from tests.support import loop, trees
from tests.support.entries import WHOLE_LIMIT, Entry

pytestmark = [pytest.mark.loop, pytest.mark.tools("mke2fs", "setfacl", "chattr", "sfdisk", "dd")]

MIB = 1 << 20
PARTS = {
    "gpt": """label: gpt
start=2048, size=65536, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="data"
start=67584, size=32768, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name="more"
""",
    "dos": """label: dos
start=2048, size=65536, type=83
start=67584, size=36864, type=5
start=69632, size=32768, type=83
""",
}
NAMES = {"gpt": ("disk0p1", "disk0p2"), "dos": ("disk0p1", "disk0p5")}
STARTS = {"gpt": (2048, 67584), "dos": (2048, 69632)}
SIZES = (65_536, 32_768)


@pytest.fixture(scope="module", params=["gpt", "dos"])
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A disk of two volumes, ext4 and ext2."""
    scheme = str(request.param)
    folder = tmp_path_factory.mktemp(scheme)
    image = folder / "disk.img"
    loop.run("truncate", "-s", "52M", image)
    loop.run("sfdisk", "--quiet", image, stdin=PARTS[scheme].encode())
    for number, kind in enumerate(("ext4", "ext2")):
        part = folder / "part"
        loop.mkfs(part, kind, f"{SIZES[number] // 2}K", "-b", ("4096", "1024")[number], "-L", f"label-{kind}")
        with loop.mounted(part, "rw", kind=kind) as root:
            trees.everything(root, block=(4096, 1024)[number], extents=kind == "ext4", entries=200)
        start = STARTS[scheme][number]
        loop.run("dd", f"if={part}", f"of={image}", "bs=512", f"seek={start}", "conv=notrunc,sparse", "status=none")
        part.unlink()
    return scheme, image


def truths(scheme: str, image: Path) -> Iterator[tuple[str, dict[bytes, Entry]]]:
    """Each volume's name and what the kernel shows of it."""
    for name, start, size in zip(NAMES[scheme], STARTS[scheme], SIZES, strict=True):
        with loop.mounted(image, offset=start * 512, size=size * 512) as root:
            yield name, loop.kernel_tree(root)


def walk(root: BackupPath) -> dict[bytes, BackupPath]:
    """Every path below, by `iterdir` alone."""
    found, waiting = {b"": root}, [(b"", root)]
    while waiting:
        above, folder = waiting.pop()
        for path in folder.iterdir():
            name = os.fsencode(path.name)
            key = above + b"/" + name if above else name
            found[key] = path
            if path.is_dir(follow_symlinks=False):
                waiting.append((key, path))
    return found


def test_volumes_have_their_labels(disk: tuple[str, Path]) -> None:
    scheme, image = disk
    with open_backup(image) as backup:
        named = [volume for volume in backup.volumes if volume.filesystem]
        assert [(volume.name, volume.filesystem, volume.label) for volume in named] == [
            (NAMES[scheme][0], "ext4", "label-ext4"),
            (NAMES[scheme][1], "ext2", "label-ext2"),
        ]
        assert [volume.size for volume in named] == [size * 512 for size in SIZES]
        by_label = backup.volumes["label-ext2"]
        assert by_label.name == NAMES[scheme][1]


def test_paths_are_equal_to_the_kernel(disk: tuple[str, Path]) -> None:
    scheme, image = disk
    with open_backup(str(image)) as backup:
        for name, truth in truths(scheme, image):
            paths = walk(backup.volumes[name].root)
            assert sorted(paths) == sorted(truth)
            for key, entry in truth.items():
                _compare(paths[key], entry)


def _compare(path: BackupPath, entry: Entry) -> None:
    info = path.stat(follow_symlinks=False)
    assert (info.st_mode, info.st_uid, info.st_gid) == (entry.mode, entry.uid, entry.gid), path
    assert (info.st_nlink, info.st_ino, info.st_size) == (entry.nlink, entry.ino, entry.size), path
    assert (info.st_mtime_ns, info.st_atime_ns, info.st_ctime_ns) == (entry.mtime_ns, entry.atime_ns, entry.ctime_ns)
    if entry.btime_ns is not None:
        assert info.st_birthtime_ns == entry.btime_ns, path
    if entry.allocated is not None:
        assert info.st_blocks * 512 == entry.allocated, path
    assert path.is_symlink() == (entry.type == "symlink")
    assert path.is_file(follow_symlinks=False) == (entry.type == "file")
    if entry.type == "symlink":
        assert os.fsencode(str(path.readlink()).rstrip("/")) == (entry.target or b"").rstrip(b"/")
    elif entry.type == "file" and info.st_size <= WHOLE_LIMIT:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256, path
    xattrs = {os.fsencode(name): value for name, value in path.xattrs(follow_symlinks=False).items()}
    assert xattrs == entry.xattrs, path


def test_links_are_followed_as_the_kernel_does(disk: tuple[str, Path]) -> None:
    scheme, image = disk
    start, size = STARTS[scheme][0] * 512, SIZES[0] * 512
    with open_backup(image) as backup, loop.mounted(image, offset=start, size=size) as mount:
        root = backup.volumes[NAMES[scheme][0]].root
        special = root / "special"
        assert (special / "link up").read_bytes() == (mount / "special/link up").read_bytes()
        assert (special / "link up").stat().st_size == (mount / "special/link up").stat().st_size
        with pytest.raises(OSError, match="link") as loops:
            (special / "link self").stat()
        with pytest.raises(OSError, match=r".") as kernel_loops:
            (mount / "special/link self").stat()
        assert loops.value.errno == kernel_loops.value.errno
        assert not (special / "link absolute").exists()
        assert (special / "link self").is_symlink()
        missing = root / "size-1" / "below a file"
        with pytest.raises(NotADirectoryError):
            missing.stat()
        with pytest.raises(FileNotFoundError):
            (root / "not there").stat()
        with pytest.raises(IsADirectoryError):
            (root / "hard").read_bytes()


def test_reading_parts_of_a_large_file(disk: tuple[str, Path]) -> None:
    scheme, image = disk
    start, size = STARTS[scheme][0] * 512, SIZES[0] * 512
    with (
        open_backup(image) as backup,
        loop.mounted(image, offset=start, size=size) as mount,
        (backup.volumes[NAMES[scheme][0]].root / "huge").open("rb") as ours,
        (mount / "huge").open("rb") as theirs,
    ):
        for at in (0, 5, 64 * MIB + 299_990, (1 << 31) - 10, (1 << 32) - 10, 5 * 1024 * MIB - 20, 3 << 30):
            ours.seek(at)
            theirs.seek(at)
            assert ours.read(5000) == theirs.read(5000), at
        assert ours.seek(0, os.SEEK_END) == theirs.seek(0, os.SEEK_END)


def test_glob_and_walk_see_what_find_sees(disk: tuple[str, Path]) -> None:
    scheme, image = disk
    with open_backup(image) as backup:
        for name, truth in truths(scheme, image):
            root = backup.volumes[name].root
            links = sorted(os.fsencode(str(path)).lstrip(b"/") for path in root.glob("**/link*"))
            assert links == sorted(path for path in truth if path.rpartition(b"/")[2].startswith(b"link"))
            files = [path for path, entry in truth.items() if stat.S_ISDIR(entry.mode or 0)]
            assert sum(1 for _ in root.walk()) == len(files)
