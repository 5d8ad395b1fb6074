"""The local store: with and without `os.pread`, and never outside its folder."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import threading
from pathlib import Path

import pytest

from pseudomount.device import PseudoDisk, RangeStore
from pseudomount.errors import ObjectChangedError, ObjectNotFoundError, OutOfRangeError, StorageError
from pseudomount.extents import ColumnIndex
from pseudomount.storage import LocalStore

DATA = random.Random(5).randbytes(100_000)


@pytest.fixture(params=["pread", "seek"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with some files; half of the tests run as on a system without pread."""
    if request.param == "seek":
        monkeypatch.delattr(os, "pread", raising=False)
    inside = tmp_path / "store"
    (inside / "sub" / "deep").mkdir(parents=True)
    (inside / "a.img").write_bytes(DATA)
    (inside / "a.img.001").write_bytes(b"one")
    (inside / "sub" / "b").write_bytes(b"bb")
    (inside / "sub" / "deep" / "ü c").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    return inside


def link(path: Path, target: Path | str) -> None:
    try:
        path.symlink_to(target)
    except (OSError, NotImplementedError):
        pytest.skip("no symbolic links here")


def open_descriptors() -> int:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("cannot count descriptors here")
    gc.collect()
    found = 0
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            # Sockets of earlier tests' object stores close when they like to.
            found += str(path.readlink()).startswith("/")
    return found


def test_reading(root: Path) -> None:
    store = LocalStore(root)
    assert store.size("a.img") == len(DATA)
    assert store.read("a.img", 0, 10) == DATA[:10]
    assert store.read("a.img", 99_990, 100) == DATA[-10:]
    assert store.read("a.img", 99_990, 1 << 60) == DATA[-10:]
    assert store.read("a.img", 100_000, 1) == b""
    assert store.read("a.img", 1 << 70, 1) == b""
    assert store.read("sub/deep/ü c", 0, 1) == b""
    assert store.read_ranges("a.img", [(5, 5), (0, 0), (50_000, 3)]) == [DATA[5:10], b"", DATA[50_000:50_003]]
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(OutOfRangeError):
            store.read("a.img", offset, length)
    store.close()
    store.close()
    assert store.read("a.img", 1, 1) == DATA[1:2]
    store.close()


def test_a_pseudo_disk_takes_it_as_it_is(root: Path) -> None:
    store, name = LocalStore.for_file(root / "a.img")
    assert isinstance(store, RangeStore)
    disk = PseudoDisk(ColumnIndex.single(name, store.size(name)), store)
    batch = disk.read_many([0, 70_000, 99_999], [5, 100, 1])
    assert batch.buffer.tobytes() == DATA[:5] + DATA[70_000:70_100] + DATA[-1:]
    (root / "a.img").write_bytes(DATA[:50_000])
    store.close()
    assert isinstance(disk.read_many([0], [1]).errors[0], ObjectChangedError)


def test_listing(root: Path) -> None:
    store = LocalStore(root)
    assert store.list() == ["a.img", "a.img.001", "sub/b", "sub/deep/ü c"]
    assert store.list("a.img") == ["a.img", "a.img.001"]
    assert store.list("a.img.") == ["a.img.001"]
    assert store.list("sub/") == ["sub/b", "sub/deep/ü c"]
    assert store.list("s") == ["sub/b", "sub/deep/ü c"]
    assert store.list("sub/deep/") == ["sub/deep/ü c"]
    for none in ("nothing", "sub/none/x", "../", "/etc/", "a.img/x"):
        assert store.list(none) == []


@pytest.mark.parametrize(
    "name", ["../secret", "sub/../../secret", "/etc/hostname", "", ".", "..", "sub//b", "./a.img", "sub/", "a\0b"]
)
def test_names_that_lead_elsewhere(root: Path, name: str) -> None:
    store = LocalStore(root)
    with pytest.raises(StorageError):
        store.read(name, 0, 1)
    with pytest.raises(StorageError):
        store.size(name)


def test_links_that_lead_elsewhere(root: Path) -> None:
    link(root / "out", root.parent / "secret")
    link(root / "folder", root.parent)
    link(root / "in", root / "sub" / "b")
    link(root / "loop", "loop")
    store = LocalStore(root)
    for name in ("out", "folder/secret", "loop"):
        with pytest.raises(StorageError):
            store.read(name, 0, 1)
    assert store.read("in", 0, 2) == b"bb"
    assert store.list() == ["a.img", "a.img.001", "in", "sub/b", "sub/deep/ü c"]
    # Named by the user, a link is what it leads to.
    store, name = LocalStore.for_file(root / "out")
    assert store.read(name, 0, 6) == b"secret"


def test_files_of_several_folders(root: Path) -> None:
    store, names = LocalStore.for_files([root / "a.img.001", root.parent / "secret", root / "sub" / "b"])
    assert names[0] == "a.img.001"
    assert [store.read(name, 0, 9) for name in names] == [b"one", b"secret", b"bb"]
    assert "a.img" in store.list("a.")
    with pytest.raises(StorageError):
        LocalStore.for_files([])


def test_a_relative_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    store, name = LocalStore.for_file("a.img")
    monkeypatch.chdir(root.parent)
    assert (name, store.read(name, 0, 3)) == ("a.img", DATA[:3])


def test_what_is_no_file(root: Path) -> None:
    store = LocalStore(root)
    for name in ("none", "a.img/x"):
        with pytest.raises(ObjectNotFoundError, match=f"{name}: no such file"):
            store.size(name)
    with pytest.raises(StorageError, match="sub is a directory"):
        store.read("sub", 0, 1)
    store, name = LocalStore.for_file(str(root / "a\0b"))
    with pytest.raises(StorageError):
        store.size(name)


def test_a_pipe_is_refused_and_not_waited_for(root: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    os.mkfifo(root / "pipe")
    with pytest.raises(StorageError, match="neither a file nor a block device"):
        LocalStore(root).read("pipe", 0, 1)


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "replace"])
def test_a_file_that_changes(root: Path, change: str) -> None:
    store = LocalStore(root, check_every=0)
    assert store.read("a.img", 0, 3) == DATA[:3]
    path = root / "a.img"
    if change == "grow":
        with path.open("ab") as file:
            file.write(b"more")
    elif change == "shrink":
        os.truncate(path, 10)
    elif change == "touch":
        os.utime(path, ns=(1, 1))
    else:
        store.close()
        (root / "new").write_bytes(DATA)
        status = path.stat()
        os.utime(root / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (root / "new").replace(path)
    for _ in range(2):
        with pytest.raises(ObjectChangedError, match=r"a\.img has changed"):
            store.read("a.img", 0, 3)
    assert store.read("sub/b", 0, 2) == b"bb"


def test_a_file_that_shrinks_is_noticed_at_once_by_what_it_no_longer_gives(root: Path) -> None:
    store = LocalStore(root, check_every=1e9)
    store.size("a.img")
    os.truncate(root / "a.img", 50)
    with pytest.raises(ObjectChangedError):
        store.read("a.img", 40, 20)


def test_few_files_stay_open_and_none_after_closing(root: Path) -> None:
    for i in range(40):
        (root / f"f{i}").write_bytes(bytes([i]))
    before = open_descriptors()
    store = LocalStore(root, handles=4)
    for _ in range(2):
        for i in range(40):
            assert store.read(f"f{i}", 0, 1) == bytes([i])
            assert open_descriptors() <= before + 4
    store.close()
    assert open_descriptors() == before


def test_many_threads_and_few_handles(root: Path) -> None:
    files = {f"g{i}": random.Random(i).randbytes(5000) for i in range(6)}
    for name, data in files.items():
        (root / name).write_bytes(data)
    store = LocalStore(root, handles=2)
    wrong: list[object] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(400):
            name = chance.choice(sorted(files))
            at = chance.randrange(4900)
            try:
                if store.read(name, at, 100) != files[name][at : at + 100]:
                    wrong.append((name, at))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(root: Path) -> None:
    (root / "a.img").chmod(0)
    with pytest.raises(StorageError, match="permission denied"):
        LocalStore(root).read("a.img", 0, 1)


@pytest.mark.loop
def test_a_block_device(root: Path) -> None:
    import subprocess

    image = root / "disk"
    image.write_bytes(DATA[:65536])
    device = subprocess.run(
        ["losetup", "--show", "-rf", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        store, name = LocalStore.for_file(device)
        assert store.size(name) == 65536
        assert store.read(name, 65000, 10_000) == DATA[65000:65536]
        store.close()
    finally:
        subprocess.run(["losetup", "-d", device], check=True)
