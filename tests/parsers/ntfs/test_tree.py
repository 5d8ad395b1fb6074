"""One name in a large directory: few reads, the volume's own order, and what happens where the order is broken."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import Looked
from pseudomount.findings import Severity
from pseudomount.testing import CounterDevice, MemoryDevice
from pseudomount_ntfs import Ntfs
from tests.support.loop import run
from tests.support.ntfs import Image, content, find, mkntfs, ntfs3g, open_ntfs, set_xattr

pytestmark = [pytest.mark.loop, pytest.mark.tools("mkntfs", "ntfs-3g", "wimcapture", "wimapply")]

_MANY = 50_000
#: Where the order of $UpCase is not that of the bytes, nor of str.upper or str.casefold.
_ODD = [
    *("z", "Z_", "z~", "[", "_", "SS", "\xc9", "\xe91", "\xdf", "\u017f", "\u0131", "\u0130", "\xff", "\u01782"),
    *("\u0fff", "\ue000", "\uffff", "\U0001f600", "\ufb01"),
]
_ORDER = "pseudomount_ntfs._tree.BLOCKS_A_NAME"


def _name(i: int) -> str:
    return f"{'eNtRy' if i % 3 else 'Entry'} {i * 7919 % _MANY:05d}"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with 50,000 files in `dir`, which wimlib put into the index; a few came later, by ntfs-3g."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "tree" / "dir").mkdir(parents=True)
    for name in [*map(_name, range(_MANY)), *(f"{i} {odd} {i}" for i, odd in enumerate(_ODD)), *_ODD]:
        os.close(os.open(folder / "tree" / "dir" / name, os.O_CREAT | os.O_WRONLY))
    run("wimcapture", "--quiet", "--compress=none", "--no-acls", folder / "tree", folder / "x.wim")
    image = mkntfs(folder / "large.img", "80M")
    run("wimapply", "--quiet", "--no-acls", folder / "x.wim", "1", image)
    with ntfs3g(image, "rw") as top:
        for name in ("Twin 1", "TWIN 1", "twin 1", "tWIN 1"):
            (top / "dir" / name).write_bytes(name.encode())
        for i in range(300):
            (top / "dir" / "".join(c.upper() if i >> k & 1 else c for k, c in enumerate("twins many"))).touch()
        (top / "dir" / "a name that DOS could not have").write_bytes(b"alias")
        set_xattr(top / "dir" / "a name that DOS could not have", "system.ntfs_dos_name", b"ANAMET~1")
        assert sum(1 for _ in os.scandir(top / "dir")) > _MANY
    return image


@pytest.fixture
def image(large: Path) -> Image:
    """Its bytes, a copy for each test."""
    return Image(large.read_bytes())


def _open(image: Image) -> Ntfs:
    return open_ntfs(MemoryDevice(bytes(image.data), name="large"))


def _ask(ntfs: Ntfs, directory: int, names: list[bytes]) -> Looked:
    return ntfs.lookup(np.full(len(names), directory, np.uint64), names)


def _listed(ntfs: Ntfs, directory: int) -> dict[bytes, int]:
    links = ntfs.children(np.array([directory], np.uint64))
    return dict(zip(links.name, links.file.tolist(), strict=True))


def _same(a: Looked, b: Looked) -> None:
    assert a.found.tolist() == b.found.tolist()
    assert a.file[a.found].tolist() == b.file[b.found].tolist()


def test_a_name_among_50000_takes_few_reads(image: Image) -> None:
    device = CounterDevice(MemoryDevice(bytes(image.data), name="large"))
    ntfs = open_ntfs(device)
    directory = find(ntfs, "dir")
    assert not _ask(ntfs, directory, [b"first, so that $UpCase is there"]).found[0]
    blocks = ntfs.rows(np.array([directory], np.uint64)).allocated[0] // 4096
    assert blocks > 1000, "the index is small, the test shows nothing"
    listed = _listed(ntfs, directory)
    for name in (_name(0), _name(_MANY - 1), _name(31_415).upper(), "not there", "", "\uffff" * 255):
        device.reset()
        looked = _ask(ntfs, directory, [name.encode()])
        assert bool(looked.found[0]) == (name.lower().startswith("entry"))
        assert not looked.errors
        assert device.ranges <= 6
        assert device.bytes <= 32 << 10
        if name.encode() in listed:
            assert looked.file[0] == listed[name.encode()]
    device.reset()
    few = [_name(i).swapcase().encode() for i in range(20)]
    assert _ask(ntfs, directory, few).found.all()
    assert device.requests <= 6, "questions of one batch go down one by one"
    assert not ntfs.findings


def test_the_tree_and_the_scan_answer_alike(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    ntfs = _open(image)
    directory = find(ntfs, "dir")
    listed = _listed(ntfs, directory)
    assert {odd.encode() for odd in _ODD} <= listed.keys()
    chance = random.Random(5)
    own = [name for name in listed if not name.lower().startswith(b"entry")]
    names = [*own, *chance.sample(sorted(listed), 3000)]
    texts = [name.decode() for name in names]
    asked = names + [text.swapcase().encode() for text in texts] + [text.upper().encode() for text in texts]
    asked += [f"{text}\0".encode() for text in texts[:50]] + [b"", b"\xff", b"~", b"\xef\xbf\xbf"]
    monkeypatch.setattr(_ORDER, 1 << 40)
    scanned = _ask(ntfs, directory, asked)
    monkeypatch.setattr(_ORDER, -1)
    walked = _ask(ntfs, directory, asked)
    _same(scanned, walked)
    assert walked.file[: len(names)].tolist() == [listed[name] for name in names]
    assert not ntfs.findings
    some = chance.sample(range(len(asked)), 300)
    _same(_ask(ntfs, directory, [asked[i] for i in some]), Looked(scanned.file[some], scanned.found[some]))


def test_names_that_differ_in_case_alone(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ORDER, -1)
    ntfs = _open(image)
    for name in ("Twin 1", "TWIN 1", "twin 1", "tWIN 1"):
        assert content(ntfs, f"dir/{name}") == name.encode()
    # None of them is exact: the first in the directory's order.
    assert content(ntfs, "dir/TwIn 1") == b"TWIN 1"
    directory = find(ntfs, "dir")
    twins = {name: file for name, file in _listed(ntfs, directory).items() if name.lower() == b"twins many"}
    assert len(twins) > 150
    assert _ask(ntfs, directory, list(twins)).file.tolist() == list(twins.values())


def test_aliases_are_found_in_large_directories(image: Image) -> None:
    ntfs = _open(image)
    assert find(ntfs, "dir/anamet~1") == find(ntfs, "dir/a name that DOS could not have")
    assert content(ntfs, "dir/ANAMET~1") == b"alias"


def _block_with(image: Image, name: str, *, leaf: bool | None = None) -> int:
    """Where an index block lies whose used part holds a name."""
    needle, at = name.encode("utf-16-le"), 0
    while (at := image.data.find(needle, at)) >= 0:
        block = at & ~4095
        used = struct.unpack_from("<I", image.data, block + 28)[0] + 24
        inside = image.data[block : block + 4] == b"INDX" and at < block + used
        if inside and leaf in {None, not image.data[block + 36]}:
            return block
        at += 2
    raise AssertionError(f"no block with {name}")


def _inner(image: Image) -> list[int]:
    """The blocks of the large directory's index that have children."""
    return [
        at
        for at in range(0, len(image.data) - 4095, 4096)
        if image.data[at : at + 4] == b"INDX" and image.data[at + 36] & 1
    ]


def _entries(image: Image, block: int) -> list[int]:
    """Where the entries of a block begin, without the last one."""
    at, found = block + 24 + struct.unpack_from("<I", image.data, block + 24)[0], []
    while not image.data[at + 12] & 2:
        found.append(at)
        at += struct.unpack_from("<H", image.data, at + 8)[0]
    return found


def _seen_by(image: Image, name: str) -> tuple[bool, list[str]]:
    """Whether a name is found, and what was noted of the index."""
    ntfs = _open(image)
    looked = _ask(ntfs, find(ntfs, "dir"), [name.encode()])
    assert all(finding.severity == Severity.NOTE for finding in ntfs.findings)
    return bool(looked.found[0]), [finding.structure for finding in ntfs.findings]


def test_a_tree_out_of_order_is_searched_from_end_to_end(image: Image) -> None:
    name = _name(12_345)
    assert _seen_by(image, name) == (True, [])
    block = _block_with(image, name, leaf=True)
    entries = _entries(image, block)
    at = next(at for at in entries if name.encode("utf-16-le") in image.data[at : at + 120])
    # The first letter of the name before it: now it stands in the wrong place.
    other = entries[entries.index(at) - 1 if at != entries[0] else 1]
    image.poke(other + 16 + 66, "~".encode("utf-16-le"))
    assert _seen_by(image, name) == (True, ["index"])


def test_a_name_outside_of_its_branch_is_found(image: Image) -> None:
    # A whole leaf in order, in the wrong place of the tree: its last name now follows the one above it.
    name = _name(12_345)
    block = _block_with(image, name, leaf=True)
    image.poke(_entries(image, block)[-1] + 16 + 66, "~".encode("utf-16-le"))
    assert _seen_by(image, name) == (True, ["index"])


def test_children_that_are_none(image: Image) -> None:
    name = _name(12_345)
    # All inner blocks lead to nowhere, then all to the first block: what is in the leaves is found all the same.
    for number in (1 << 60, 1 << 40, 0):
        for at in _inner(image):
            for entry in _entries(image, at):
                child = entry + struct.unpack_from("<H", image.data, entry + 8)[0] - 8
                if child % 512 < 500:
                    image.poke(child, struct.pack("<Q", number))
        assert _seen_by(image, name) == (True, ["index"])


def test_a_damaged_block_on_the_way(image: Image) -> None:
    name = _name(12_345)
    image.poke(_block_with(image, name, leaf=True) + 510, b"\xaa\x55\xaa\x55")
    ntfs = _open(image)
    looked = _ask(ntfs, find(ntfs, "dir"), [name.encode(), _name(1).encode()])
    assert looked.found.tolist() == [False, True]
    assert isinstance(looked.errors[0], PseudomountError)
    assert list(looked.errors) == [0]


def test_a_block_that_is_not_in_use_is_not_believed(image: Image) -> None:
    name = _name(12_345)
    ntfs = _open(image)
    directory = find(ntfs, "dir")
    block = _block_with(image, name, leaf=True)
    number = struct.unpack_from("<Q", image.data, block + 16)[0]
    at = image.attribute(directory, 0xB0)
    start = image.first_run(at) if image.data[at + 8] else at + struct.unpack_from("<H", image.data, at + 20)[0]
    image.poke(start + number // 8, bytes([image.data[start + number // 8] & ~(1 << number % 8)]))
    assert _seen_by(image, name) == (False, ["index"])


@pytest.mark.parametrize("seed", range(4))
def test_seeded_mutations_of_a_tree(large: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the index with bytes changed at random: an answer like the scan's, in bounded work."""
    image = Image(large.read_bytes())
    blocks = [*_inner(image), *(_block_with(image, _name(i)) for i in range(12))]
    device = CounterDevice(_View(image))
    ntfs = open_ntfs(device)
    directory = find(ntfs, "dir")
    asked = [_name(i).encode() for i in range(12)] + [b"nothing", b"twin 1"]
    for number in range(12):
        chance = random.Random(seed * 100 + number)
        undo = []
        for _ in range(chance.choice([1, 1, 3, 30])):
            at = chance.choice(blocks) + int(chance.triangular(0, 4096, 80))
            new = chance.choice([b"\xff" * 4, bytes(8), chance.randbytes(2), chance.randbytes(1)])
            undo.append((at, bytes(image.data[at : at + len(new)])))
            image.poke(at, new)
        monkeypatch.setattr(_ORDER, 1 << 40)
        scanned = _ask(ntfs, directory, asked)
        device.reset()
        monkeypatch.setattr(_ORDER, -1)
        walked = _ask(ntfs, directory, asked)
        assert device.bytes < 16 << 20
        # What the scan finds the tree has found, or the damage lies where nobody looked: an entry of another name.
        for i in np.flatnonzero(scanned.found & walked.found).tolist():
            assert scanned.file[i] == walked.file[i]
        for at, old in reversed(undo):
            image.poke(at, old)
    _same(_ask(ntfs, directory, asked), _ask(open_ntfs(_View(image)), directory, asked))


class _View(MemoryDevice):
    """Bytes that are changed between two uses."""

    def __init__(self, image: Image) -> None:
        super().__init__(b"", name="hostile")
        self._image = image

    @property
    def size(self) -> int:
        return len(self._image.data)

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._image.data[offset : offset + length])
