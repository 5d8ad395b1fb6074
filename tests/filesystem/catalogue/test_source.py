"""A volume with a loaded catalogue answers as it does without, and reads nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pseudomount import open_backup
from pseudomount.api import Backup, BackupVolume
from pseudomount.errors import PathNotDirectoryError, PathNotFoundError, PseudomountError
from pseudomount.filesystem import FileType
from pseudomount.filesystem.path import BackupPath

PATTERNS = (
    *("*", "**", "**/*", "*/", "**/*.txt", "odd names/*", "**/[a-m]*", "*/*", "**/..", "size-?", "links/../times/*"),
    *("special", "none", "*/none", "**/none/*", "**/lost+found", "odd names/[!a-z]*"),
)


@pytest.fixture
def plain(ext4: Path) -> Iterator[Backup]:
    with open_backup(ext4) as backup:
        yield backup


@pytest.fixture
def loaded(ext4: Path) -> Iterator[Backup]:
    with open_backup(ext4) as backup:
        backup.volumes[0].catalogue()
        yield backup


def _requests(backup: Backup) -> int:
    counters = backup.disks["disk0"].counters
    return counters.requests + counters.cache_hits


def _stat(path: BackupPath, follow: bool) -> object:
    try:
        return path.stat(follow_symlinks=follow)
    except PseudomountError as error:
        return type(error), str(error)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_glob(plain: Backup, loaded: Backup, pattern: str) -> None:
    before = loaded.disks["disk0"].counters.bytes_delivered, _requests(loaded)
    fast = {str(path): _stat(path, False) for path in loaded.volumes[0].root.glob(pattern)}
    assert (loaded.disks["disk0"].counters.bytes_delivered, _requests(loaded)) == before
    assert fast == {str(path): _stat(path, False) for path in plain.volumes[0].root.glob(pattern)}
    assert (len(fast) > 0) == ("none" not in pattern and ".txt" not in pattern and "links/" not in pattern)


def test_rglob_and_names_outside_of_text(plain: Backup, loaded: Backup) -> None:
    for pattern in ("*", "*[\udc80-\udcff]*"):
        fast = sorted(str(path) for path in loaded.volumes[0].root.rglob(pattern))
        assert fast == sorted(str(path) for path in plain.volumes[0].root.rglob(pattern))
        assert fast


def test_every_path_by_its_name_alone(plain: Backup, loaded: Backup) -> None:
    """Look-up of each part, links followed, `stat`, `iterdir`, `readlink`: the same, without a read."""
    slow, fast = plain.volumes[0], loaded.volumes[0]
    paths = [str(path) for path in slow.root.rglob("*")]
    assert len(paths) > 600
    before = loaded.disks["disk0"].counters.bytes_delivered, _requests(loaded)
    answers = [_all_of(fast, path) for path in paths]
    assert (loaded.disks["disk0"].counters.bytes_delivered, _requests(loaded)) == before
    assert answers == [_all_of(slow, path) for path in paths]


def _all_of(volume: BackupVolume, text: str) -> list[object]:
    path = volume.root / text.lstrip("/")
    found: list[object] = [_stat(path, False), _stat(path, True), path.exists(), path.is_dir(), path.is_symlink()]
    if path.is_symlink():
        found.append(str(path.readlink()))
    elif path.is_dir():
        found.append([(str(child), child.is_dir(follow_symlinks=False)) for child in path.iterdir()])
        listing = path.listing()
        found += [listing.names, listing.types.tolist(), listing.links.file.tolist(), listing.rows.size.tolist()]
    else:
        with pytest.raises(PathNotDirectoryError):
            path.listing()
        found.append((path / "below").exists())
    found.append((path.parent / "not there").exists())
    return found


def test_walk(plain: Backup, loaded: Backup) -> None:
    before = _requests(loaded)
    fast = [(str(top), folders, files) for top, folders, files in loaded.volumes[0].root.walk()]
    assert _requests(loaded) == before
    assert fast == [(str(top), folders, files) for top, folders, files in plain.volumes[0].root.walk()]


def test_content_is_still_the_disks(loaded: Backup) -> None:
    path = next(path for path in loaded.volumes[0].root.rglob("*") if path.is_file() and path.stat().st_size > 5000)
    assert len(path.read_bytes()) == path.stat().st_size
    assert path.xattrs() is not None


def test_ids_that_the_catalogue_has_not(plain: Backup, loaded: Backup) -> None:
    """Inodes 1 (bad blocks) and 8 (journal) have no name; 4,000,000 there is none."""
    ids = np.array([2, 8, 1, 4_000_000], np.uint64)
    slow, fast = plain.volumes[0]._tree, loaded.volumes[0]._tree
    assert fast.source is not fast.fs
    one, other = slow.source.rows(ids), fast.source.rows(ids)
    assert one.size.tolist() == other.size.tolist()
    assert {i: str(e) for i, e in one.errors.items()} == {i: str(e) for i, e in other.errors.items()}
    mine, theirs = fast.source.children(ids), slow.source.children(ids)
    assert mine.name.tolist() == theirs.name.tolist()
    assert {i: str(e) for i, e in mine.errors.items()} == {i: str(e) for i, e in theirs.errors.items()}
    assert fast.source.lookup(ids[:1], [b"none"]).found.tolist() == [False]
    root = fast.source.readlink(np.array([2], np.uint64))
    assert list(root.errors) == [0]


def test_a_catalogue_without_the_parsers_columns_is_not_in_the_way(ext4: Path) -> None:
    with open_backup(ext4) as backup:
        volume = backup.volumes[0]
        small = volume.catalogue(extra=False)
        assert "rdev" not in small.arrow.column_names
        assert volume.root.stat().extra["project"] is not None
        nodes = [path for path in volume.root.rglob("*") if path.lstat().type is FileType.CHAR_DEVICE]
        assert any(path.lstat().st_rdev for path in nodes)


def test_a_path_that_is_no_name_of_this_volume(loaded: Backup) -> None:
    with pytest.raises(PathNotFoundError):
        (loaded.volumes[0].root / "\ud800").stat()
