"""XFS and Btrfs by the dissect libraries against the kernel: every name, type, size, mode, time, byte and attribute."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.errors import UnsupportedError
from pseudomount.findings import Severity
from pseudomount_dissect import DissectParser
from tests.parsers.dissect import images
from tests.support import trees
from tests.support.browse import browse_tree, open_filesystem
from tests.support.entries import assert_same
from tests.support.loop import loop, run
from tests.support.ntfs import ImageFile

pytest.importorskip("dissect.xfs", reason="needs the extra: pip install 'pseudomount[dissect]'")

pytestmark = [pytest.mark.loop, pytest.mark.tools("fallocate", "setfacl")]


def _tree(root: Path) -> None:
    """All that both file systems can have."""
    trees.plain(root)
    trees.odd_names(root)
    with contextlib.suppress(OSError):  # XFS has no device numbers as large as the last ones
        trees.special(root)
    (root / "link 1023").symlink_to("y" * 1023)
    trees.modes_and_owners(root)
    trees.times(root)
    trees.xattrs(root)
    trees.acls(root)
    trees.holes(root, 4096, fallocate=True, clusters=True)
    trees.fragmented(root, 4096, 300)
    trees.huge(root)
    trees.crowded(root, 3000)


def _xfs_tree(root: Path) -> None:
    _tree(root)
    large = root / "large attributes"
    large.write_bytes(b"")
    for number in range(3):
        trees.attribute(large, f"user.large.{number}", trees.noise(number, 20_000))


def _compare(image: images.Image, *ignore: str) -> None:
    with ImageFile(image.path) as device:
        filesystem = open_filesystem(DissectParser(), device)
        said = run("blkid", "-p", "-o", "export", image.path)
        assert f"TYPE={filesystem.name}\n" in said
        assert f"LABEL={filesystem.label}\n" in said
        assert f"\nUUID={filesystem.uuid}\n" in said
        seen = browse_tree(filesystem).entries
        assert_same(image.truth, seen, ignore=("flags", *ignore))
        assert {finding.severity for finding in filesystem.findings} <= {Severity.NOTE}


@pytest.mark.tools("mkfs.xfs")
@pytest.mark.parametrize(
    "options", [(), ("-m", "bigtime=0"), ("-i", "size=1024"), ("-m", "reflink=0", "-s", "size=4096")]
)
def test_xfs(tmp_path: Path, options: tuple[str, ...]) -> None:
    _compare(images.made("xfs", tmp_path / "image", "400M", _xfs_tree, "-L", "label", *options))


@pytest.mark.tools("mkfs.xfs")
def test_xfs_directories_of_larger_blocks_are_refused(tmp_path: Path) -> None:
    """The library would list the first part of each of their blocks, and not say so."""
    image = images.made("xfs", tmp_path / "image", "64M", images.small, "-n", "size=8192")
    with open_backup(image.path) as backup:
        root = backup.volumes[0].root
        with pytest.raises(UnsupportedError, match="larger"):
            list((root / "crowd").iterdir())


@pytest.mark.tools("mkfs.btrfs", "btrfs")
@pytest.mark.parametrize("options", [(), ("--mixed", "--nodesize", "4096"), ("--csum", "xxhash", "-m", "single")])
def test_btrfs(tmp_path: Path, options: tuple[str, ...]) -> None:
    def fill(root: Path) -> None:
        _tree(root)
        images.compressed(root)

    image = images.made("btrfs", tmp_path / "image", "400M", fill, "-L", "label", *options)
    # The kernel makes up the times of a directory that stands for a subvolume that is not there.
    empty = image.truth[b"snapshot/deep"]
    assert empty.ino == 2
    image.truth.pop(b"snapshot/deep")  # type: ignore[attr-defined]
    with ImageFile(image.path) as device:
        seen = browse_tree(open_filesystem(DissectParser(), device)).entries
        made_up = seen.pop(b"snapshot/deep")
        assert (made_up.type, made_up.ino, made_up.mode, made_up.size) == ("dir", 2, empty.mode, empty.size)
        assert_same(image.truth, seen, ignore=("flags",))


@pytest.mark.tools("mkfs.btrfs", "btrfs")
def test_btrfs_subvolumes(tmp_path: Path) -> None:
    """A default subvolume is the root, and any other one is if it is asked for."""

    def fill(root: Path) -> None:
        images.compressed(root)
        number = run("btrfs", "inspect-internal", "rootid", root / "sub").strip()
        run("btrfs", "subvolume", "set-default", number, root)
        (root / "number").write_text(number)

    image = images.made("btrfs", tmp_path / "image", "128M", fill)
    assert {b"deep", b"in", b"later"} < set(image.truth)
    with open_backup(image.path) as backup:
        assert sorted(path.name for path in backup.volumes[0].root.iterdir()) == ["deep", "in", "later"]
    with open_backup(image.path, options={"subvolume": "5"}) as backup:
        top = backup.volumes[0].root
        assert {"sub", "snapshot", "zstd", "number"} <= {path.name for path in top.iterdir()}
        rows = {path.name: path.stat() for path in (top / "sub").iterdir()}
        assert rows["deep"].st_ino == 256


def _crashed(image: Path, kind: str, tmp_path: Path) -> Path:
    """A copy of a volume that is mounted and has just been written to and synced."""
    images.mkfs(kind, image, "128M")
    folder = tmp_path / "mounted"
    folder.mkdir()
    with loop(image, writable=True) as device:
        run("mount", "-t", kind, device, folder)
        try:
            (folder / "before").write_bytes(b"x" * 5000)
            run("sync", "-f", folder)
            with (folder / "fsynced").open("wb") as file:
                file.write(b"y" * 5000)
                file.flush()
                os.fsync(file.fileno())
            run("sync", image)
            copy = tmp_path / "copy"
            subprocess.run(["cp", "--sparse=always", device, copy], check=True)
        finally:
            run("umount", folder)
    return copy


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
@pytest.mark.tools("mkfs.xfs", "mkfs.btrfs")
def test_a_log_that_was_not_written_back_is_a_finding(tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    copy = _crashed(image, kind, tmp_path)
    for path, expected in ((copy, True), (image, False)):
        with open_backup(path) as backup:
            volume = backup.volumes[0]
            assert volume.filesystem == kind
            assert volume.fs
            assert any("replayed" in finding.message for finding in volume.findings) is expected
            assert {finding.severity for finding in volume.findings} == {Severity.NOTE}
