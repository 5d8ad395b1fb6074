"""One small image for each defect that was found in a reader of file systems, and what is really in it.

The truth is what was put in: by mke2fs, debugfs or ntfs-3g from files written here, or by hand, entry by entry.
No reader takes part in it. Those of NTFS need /dev/fuse and the right to mount.
"""

from __future__ import annotations

import hashlib
import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers_readers import Seen
from tests.support import loop
from tests.support.entries import escape
from tests.support.fat import ForgedFat, entry
from tests.support.ntfs import Image, mkntfs, ntfs3g, reparse, set_xattr

__all__ = ["DEFECTS", "Defect"]

Truth = dict[str, Seen]
_NOISE = random.Random(1843).randbytes(70_000)
_WHEN = (-2_000_000_000, -1, 0, 2_147_483_647, 2_147_483_648, 4_294_967_296, 10_000_000_000)
_TEXT = b"".join(b"%d times %d is %d\n" % (i, i, i * i) for i in range(4000))


@dataclass(frozen=True, slots=True)
class Defect:
    """A way to be wrong.

    Attributes:
        name: of the defect.
        filesystem: of the image.
        make: (image to make, folder for its tree) → the truth.
    """

    name: str
    filesystem: str
    make: Callable[[Path, Path], Truth]


def _file(content: bytes, mtime: int | None = None) -> Seen:
    return Seen("file", len(content), hashlib.sha256(content).hexdigest(), mtime)


def _tree(top: Path) -> Truth:
    """What a folder of this machine holds."""
    found: Truth = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder, name)
            shown = escape(os.fsencode(path.relative_to(top)))
            if path.is_symlink():
                found[shown] = Seen("symlink", target=escape(os.fsencode(path.readlink())))
            elif path.is_dir():
                found[shown] = Seen("dir")
            else:
                found[shown] = _file(path.read_bytes(), path.stat().st_mtime_ns // 10**9)
    return found


# -- ext --------------------------------------------------------------------------------------------------------------


def _some(top: Path) -> None:
    (top / "folder").mkdir()
    for i, size in enumerate((0, 1, 59, 100, 150, 1024, 5000, 70_000)):
        (top / "folder" / f"file {i}").write_bytes(_NOISE[:size])
    (top / "text").write_bytes(_TEXT)
    (top / "link").symlink_to("folder/file 1")


def _times(image: Path, scratch: Path) -> Truth:
    """mke2fs copies the low 32 bits of times; the two above them are set here."""

    def fill(top: Path) -> None:
        for when in _WHEN:
            (top / f"at {when}").write_bytes(b"x")
            os.utime(top / f"at {when}", (when % (1 << 31), when % (1 << 31)))

    _ext(fill, "ext4", "4M")(image, scratch)
    fields = []
    for when in _WHEN:
        low = (when + (1 << 31)) % (1 << 32) - (1 << 31)
        fields.append(f'set_inode_field "/at {when}" mtime 0x{low & 0xFFFFFFFF:x}')
        fields.append(f'set_inode_field "/at {when}" mtime_extra 0x{(when - low) >> 32 & 3:x}')
    _debugfs(image, *fields)
    for when in _WHEN:  # as debugfs reads it back
        said = _debugfs(image, f'stat "/at {when}"')
        assert f"mtime: 0x{when & 0xFFFFFFFF:08x}" in said, said
    return {f"at {when}": _file(b"x", when) for when in _WHEN}


def _holes(top: Path) -> None:
    (top / "first").write_bytes(_TEXT)
    for name, data in (("ends in a hole", _NOISE[:3000]), ("all a hole", b"")):
        (top / name).write_bytes(data)
        os.truncate(top / name, 6_000_000)


def _ext(fill: Callable[[Path], None], kind: str, size: str, *options: str) -> Callable[[Path, Path], Truth]:
    def make(image: Path, scratch: Path) -> Truth:
        tree = scratch / f"{image.stem} tree"
        tree.mkdir()
        fill(tree)
        # Block 0 of a disk that was used before is not empty.
        loop.mkfs(image, kind, size, "-d", str(tree), *options, dirty=True)
        return _tree(tree)

    return make


def _debugfs(image: Path, *requests: str) -> str:
    return loop.run("debugfs", "-w", "-f", "-", image, stdin="\n".join(requests).encode())


def _full(image: Path, scratch: Path) -> Truth:
    """Files up to the highest inode."""
    loop.mkfs(image, "ext2", "4M", "-b", "1024", "-N", "24")
    source = scratch / "one file"
    source.write_bytes(b"of many")
    free = int(loop.run("dumpe2fs", "-h", image).split("Free inodes:")[1].split()[0])
    _debugfs(image, *(f'write "{source}" f{i:03}' for i in range(free)))
    return {f"f{i:03}": Seen("file", 7, hashlib.sha256(b"of many").hexdigest()) for i in range(free)}


def _last_entry(image: Path, scratch: Path) -> Truth:
    """ "." and "..", a name of five letters and 82 of one letter: 24, 16 and 82 times 12 bytes, a block of 1024."""
    loop.mkfs(image, "ext2", "4M", "-b", "1024", "-O", "^dir_index")
    source = scratch / "an entry"
    source.write_bytes(b"here")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!,%+-=@^_~:;[]{}()$&"[:82]
    _debugfs(image, "mkdir d", "cd d", *(f'write "{source}" {name}' for name in ("first", *letters)))
    here = Seen("file", 4, hashlib.sha256(b"here").hexdigest())
    return {"d": Seen("dir"), **{f"d/{name}": here for name in ("first", *letters)}}


def _encrypted(image: Path, scratch: Path) -> Truth:
    """A file marked as encrypted: what is stored is not its content."""
    truth = _ext(_some, "ext4", "4M", "-O", "encrypt")(image, scratch)
    _debugfs(image, "set_inode_field /text flags 0x80800")
    return {**truth, "text": Seen("file", error="encrypted")}


# -- NTFS -------------------------------------------------------------------------------------------------------------


def _ntfs(image: Path, fill: Callable[[Path], None], options: str = "rw") -> Truth:
    mkntfs(image, "16M")
    with ntfs3g(image, options) as top:
        fill(top)
    with ntfs3g(image, "ro") as top:
        return {path: Seen(s.type, s.size, s.sha256, None, s.target) for path, s in _tree(top).items()}


def _deleted(image: Path, scratch: Path) -> Truth:
    """A directory of whose index most blocks were given back: their entries are still there."""

    def fill(top: Path) -> None:
        for i in range(400):
            (top / f"a file with a long name {i:04d}").touch()
        for i in range(5, 400):
            (top / f"a file with a long name {i:04d}").unlink()

    return _ntfs(image, fill)


def _poked(name: str, error: str, attribute: Callable[[Image, int], None]) -> Callable[[Path, Path], Truth]:
    """A file whose $DATA attribute is changed afterwards."""

    def make(image: Path, scratch: Path) -> Truth:
        numbers = []

        def fill(top: Path) -> None:
            (top / name).write_bytes(_NOISE[:20_000])
            (top / "other").write_bytes(_TEXT)
            numbers.append((top / name).stat().st_ino)

        truth = _ntfs(image, fill)
        forged = Image(image.read_bytes())
        attribute(forged, forged.attribute(numbers[0], 0x80))
        image.write_bytes(forged.data)
        if error:
            return {**truth, name: Seen("file", error=error)}
        with ntfs3g(image, "ro") as top:
            return {**truth, name: _file((top / name).read_bytes())}

    return make


def _wof(image: Path, scratch: Path) -> Truth:
    """A file that Windows compressed ("CompactOS"): its unnamed stream is all a hole, the content is in another."""

    def fill(top: Path) -> None:
        (top / "other").write_bytes(_TEXT)
        (top / "notepad.exe").touch()
        os.truncate(top / "notepad.exe", 200_000)
        with Path(f"{top / 'notepad.exe'}:WofCompressedData").open("wb") as file:
            file.write(_NOISE)
        set_xattr(top / "notepad.exe", "system.ntfs_reparse_data", reparse(0x80000017, struct.pack("<4I", 1, 2, 1, 0)))

    truth = _ntfs(image, fill, "rw,streams_interface=windows")
    return {**truth, "notepad.exe": Seen("file", error="compressed by WOF")}


def _links(special: str) -> Callable[[Path, Path], Truth]:
    def make(image: Path, scratch: Path) -> Truth:
        def fill(top: Path) -> None:
            (top / "file").write_bytes(b"file")
            (top / "link").symlink_to("file")

        return _ntfs(image, fill, f"rw,special_files={special}")

    return make


# -- FAT --------------------------------------------------------------------------------------------------------------


def _forged(volume: ForgedFat, image: Path, root: bytes) -> None:
    volume.root = root
    image.write_bytes(volume.image())


def _back(image: Path, scratch: Path) -> Truth:
    volume = ForgedFat()
    data = _NOISE[: 6 * volume.cluster]
    _forged(volume, image, entry(b"A       BIN", volume.file(data, 20, 19, 18, 21, 22, 10), len(data)))
    return {"A.BIN": _file(data)}


def _cycle(image: Path, scratch: Path) -> Truth:
    volume = ForgedFat()
    volume.file(_NOISE[: 3 * volume.cluster], 5, 6, 7)
    volume.entries[7] = 5
    _forged(volume, image, entry(b"B       BIN", volume.file(b"other", 50), 5) + entry(b"A       BIN", 5, 100_000))
    return {"A.BIN": Seen("file", error="its chain comes back to itself"), "B.BIN": _file(b"other")}


def _cyclic_folder(image: Path, scratch: Path) -> Truth:
    volume = ForgedFat()
    listing = entry(b".          ", 5, attributes=16) + entry(b"..         ", attributes=16)
    listing += b"".join(entry(b"F%07dTXT" % i) for i in range(14))
    volume.file(listing, 5)
    volume.entries[5] = 5
    _forged(
        volume, image, entry(b"B       BIN", volume.file(b"other", 50), 5) + entry(b"D          ", 5, attributes=16)
    )
    names = {f"D/F{i:07d}.TXT": Seen("file", 0) for i in range(14)}
    return {"B.BIN": _file(b"other"), "D": Seen("dir"), **names}


def _lower(image: Path, scratch: Path) -> Truth:
    volume = ForgedFat()
    names = {"lower.txt": (b"LOWER   TXT", 0x18), "base.TXT": (b"BASE    TXT", 0x08), "EXT.txt": (b"EXT     TXT", 0x10)}
    first = {name: volume.file(name.encode(), 20 + i) for i, name in enumerate(names)}
    _forged(volume, image, b"".join(entry(s, first[n], len(n), case=c) for n, (s, c) in names.items()))
    return {name: _file(name.encode()) for name in names}


def _label(image: Path, scratch: Path) -> Truth:
    volume = ForgedFat()
    root = entry(b"MY LABEL   ", attributes=8) + entry(b"A       TXT", volume.file(b"a", 5), 1)
    _forged(volume, image, root)
    return {"A.TXT": _file(b"a")}


def _deleted_fat(image: Path, scratch: Path) -> Truth:
    """A deleted file whose clusters are another's now."""
    volume = ForgedFat()
    gone = bytearray(entry(b"GONE    TXT", 5, 1000))
    gone[0] = 0xE5
    _forged(volume, image, bytes(gone) + entry(b"A       TXT", volume.file(_TEXT[:1000], 5, 6), 1000))
    return {"A.TXT": _file(_TEXT[:1000])}


DEFECTS = (
    Defect("ext: times before 1970 and from 2038", "ext4", _times),
    Defect("ext2: files that end in holes, or are holes", "ext2", _ext(_holes, "ext2", "8M", "-b", "4096")),
    Defect("ext3: files that end in holes, or are holes", "ext3", _ext(_holes, "ext3", "16M", "-b", "4096")),
    Defect("ext: inline_data", "ext4", _ext(_some, "ext4", "4M", "-O", "inline_data")),
    Defect(
        "ext: meta_bg", "ext4", _ext(_some, "ext4", "24M", "-b", "1024", "-g", "512", "-O", "meta_bg,^resize_inode")
    ),
    Defect("ext: bigalloc", "ext4", _ext(_some, "ext4", "16M", "-O", "bigalloc", "-C", "16384")),
    Defect("ext: the highest inode number", "ext2", _full),
    Defect("ext: a last directory entry of 12 bytes", "ext2", _last_entry),
    Defect("ext: inodes of 128 bytes", "ext4", _ext(_some, "ext4", "4M", "-I", "128")),
    Defect("ext: inodes of 1024 bytes", "ext4", _ext(_some, "ext4", "4M", "-I", "1024")),
    Defect("ext: encrypted content is no content", "ext4", _encrypted),
    Defect("NTFS: deleted names in unused index blocks", "ntfs", _deleted),
    Defect(
        "NTFS: bytes beyond the valid data length",
        "ntfs",
        _poked("long", "", lambda forged, at: forged.poke(at + 56, struct.pack("<Q", 5001))),
    ),
    Defect("NTFS: compressed by WOF", "ntfs", _wof),
    Defect(
        "NTFS: encrypted by EFS", "ntfs", _poked("secret", "EFS", lambda forged, at: forged.poke(at + 12, b"\0\x40"))
    ),
    Defect("NTFS: links as Interix writes them", "ntfs", _links("interix")),
    Defect("NTFS: links as WSL writes them", "ntfs", _links("wsl")),
    Defect("FAT: a chain that steps back one cluster", "fat16", _back),
    Defect("FAT: the cyclic chain of a file", "fat16", _cycle),
    Defect("FAT: the cyclic chain of a directory", "fat16", _cyclic_folder),
    Defect("FAT: names in lower case", "fat16", _lower),
    Defect("FAT: the volume label is no file", "fat16", _label),
    Defect("FAT: a deleted file", "fat16", _deleted_fat),
)
