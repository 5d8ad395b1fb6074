# ruff: noqa: PTH102, PTH118, PTH123, PTH211
"""Trees that are hard to read right, written through a mounted file system (or any folder). Needs Linux."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

from tests.support.loop import run

#: Seconds since 1970 that meet the corners of ext's 34-bit time, and some nanoseconds.
TIMES = {
    "1901": -(1 << 31),
    "1969": -1,
    "1970": 0,
    "2038-1": (1 << 31) - 1,
    "2038": 1 << 31,
    "2106": (1 << 32) + 5,
    "2174": (1 << 31) + (1 << 32),
    "2310": (1 << 31) + (2 << 32),
    "2446": (1 << 31) + (3 << 32) - 1,
}


def noise(seed: int, length: int) -> bytes:
    """Bytes of which no 32 repeat, so that a block in the wrong place shows; small once compressed."""
    lines = b"".join(b"%08x of content %-14d\n" % (line, seed) for line in range(length // 32 + 1))
    return lines[:length]


def plain(root: Path) -> None:
    """Files of sizes around a block's, empty ones, deep folders, hard links."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    for size in (0, 1, 11, 59, 60, 61, 100, 156, 160, 511, 1023, 1024, 1025, 4095, 4096, 4097, 65_537, 300_000):
        (root / f"size-{size}").write_bytes(noise(size, size))
    deep = root
    for level in range(30):
        deep = deep / f"level {level}"
        deep.mkdir()
    (deep / "bottom").write_bytes(b"deep down")
    (root / "empty folder").mkdir()
    (root / "hard").mkdir()
    (root / "hard/one").write_bytes(b"one file, three names")
    (root / "hard/two").hardlink_to(root / "hard/one")
    (root / "three").hardlink_to(root / "hard/one")
    os.mkfifo(root / "hard/fifo link")
    os.link(root / "hard/fifo link", root / "hard/fifo link 2")


def odd_names(root: Path) -> None:
    """Names of all bytes but NUL and slash, of all lengths that change the padding, and the longest."""
    folder = os.fsencode(root / "odd names")
    os.mkdir(folder)
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    names += [b"a" * length for length in (2, 3, 4, 5, 6, 7, 8, 9, 254, 255)]
    names += ["ü".encode() * 127, "日本語".encode(), "a\u0308".encode(), "ä".encode(), b"\xff\xfe\xfd", b"\xed\xa0\x80"]
    names += [b" ", b"  ", b"trailing ", b"trailing.", b"...", b".hidden", b"\\xff", b"a\\b", b"C:", b"nul", b"-rf"]
    names += [b"Upper", b"upper", b"UPPER", b"new\nline", b"\x1b[31mred", b"caf\xe9", b"a:b", b'*?<>|"']
    for number, name in enumerate(dict.fromkeys(names)):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"%d" % number)


def special(root: Path) -> None:
    """Devices with small and large numbers, fifos, sockets, symbolic links around the 60 bytes an inode holds."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    folder = root / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo", 0o640)
    server = socket.socket(socket.AF_UNIX)
    with server:
        here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            server.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
    for kind, name in ((stat.S_IFCHR, "char"), (stat.S_IFBLK, "block")):
        for major, minor in ((1, 3), (8, 0), (255, 255), (256, 0), (259, 300), (4095, 1_048_575), (0, 0)):
            os.mknod(folder / f"{name} {major} {minor}", kind | 0o600, os.makedev(major, minor))
    for length in (1, 10, 58, 59, 60, 61, 62, 155, 200, 1000, 1022):
        os.symlink("x" * length, folder / f"link {length}")
    os.symlink(b"\xff\xfe/../caf\xe9", os.fsencode(folder / "link raw"))
    os.symlink("../size-1", folder / "link up")
    os.symlink("link self", folder / "link self")
    os.symlink("/etc/passwd", folder / "link absolute")


def long_links(root: Path) -> None:
    """The longest link that a block of 4 KiB holds."""
    os.symlink("y" * 4000 + "/", root / "link 4001")
    os.symlink("/".join(["z" * 99] * 40) + "/" + "z" * 95, root / "link 4095")


def modes_and_owners(root: Path) -> None:
    """All permission bits; owners whose upper half lies elsewhere in the inode."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    folder = root / "modes"
    folder.mkdir()
    for mode in (0, 0o111, 0o644, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777):
        path = folder / f"{mode:o}"
        path.write_bytes(b"")
        os.chown(path, 1000 + mode, 65_535)
        path.chmod(mode)
    for number, (uid, gid) in enumerate(
        ((65_534, 65_536), (65_536, 70_000), (4_294_967_294, 4_294_967_294), (1 << 31, 1))
    ):
        path = folder / f"owner {number}"
        path.write_bytes(b"owned")
        os.chown(path, uid, gid)
    sticky = folder / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)


def times(root: Path) -> None:
    """Access and modification times from 1901 to 2446, with nanoseconds; inodes of 128 bytes clamp them."""
    folder = root / "times"
    folder.mkdir()
    for name, seconds in TIMES.items():
        for part in (0, 1, 123_456_789, 999_999_999):
            path = folder / f"{name} {part}"
            path.write_bytes(b"")
            ns = seconds * 1_000_000_000 + part
            os.utime(path, ns=(ns + 1, ns))
    os.symlink("nowhere", folder / "link")
    os.utime(folder / "link", ns=(5, TIMES["2106"] * 1_000_000_000), follow_symlinks=False)


def attribute(path: Path, name: str, value: bytes) -> None:
    """Sets an extended attribute."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    os.setxattr(path, name, value)


def xattrs(root: Path, *, big: int = 0) -> None:
    """Attributes in the inode and in a block, of every namespace; one of `big` bytes too."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    folder = root / "xattrs"
    folder.mkdir()
    one = folder / "one"
    one.write_bytes(b"1")
    os.setxattr(one, "user.comment", b"hello")
    many = folder / "many"
    many.write_bytes(b"")
    for number in range(12):
        os.setxattr(many, f"user.number.{number:03d}", noise(number, number))
    os.setxattr(many, "user.empty", b"")
    os.setxattr(many, "trusted.secret", b"\0\1\2")
    os.setxattr(many, "security.label", b"system_u:object_r:etc_t:s0\0")
    os.setxattr(many, "user.big", noise(7, 400))
    capable = folder / "capable"
    capable.write_bytes(b"#!")
    os.setxattr(capable, "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    same = [folder / f"same block {number}" for number in range(3)]
    for path in same:
        path.write_bytes(b"")
        os.setxattr(path, "user.shared", noise(3, 700))
    os.setxattr(folder, "user.on a folder", b"\xff\xfe")
    os.mkfifo(folder / "fifo")
    os.setxattr(folder / "fifo", "trusted.on a fifo", b"f")
    os.symlink("one", folder / "link")
    os.setxattr(folder / "link", "trusted.on a link", b"l", follow_symlinks=False)
    if big:
        large = folder / "large"
        large.write_bytes(b"")
        os.setxattr(large, "user.large", noise(11, big))
        os.setxattr(large, "user.small", b"small")
        twin = folder / "large twin"
        twin.write_bytes(b"")
        os.setxattr(twin, "user.large", noise(11, big))


def acls(root: Path) -> None:
    """POSIX ACLs with users, groups, masks and defaults."""
    folder = root / "acls"
    folder.mkdir()
    for name, rules in {
        "user": "u:1000:rw",
        "large": "u:4294967294:r,g:70000:rwx,u:0:-",
        "many": ",".join(f"u:{uid}:r" for uid in range(2000, 2008)),
        "mask": "u:5:rwx,m::r",
    }.items():
        (folder / name).write_bytes(b"")
        run("setfacl", "-m", rules, folder / name)
    (folder / "inherits").mkdir()
    run("setfacl", "-d", "-m", "u:1000:rwx,g:1001:r", folder / "inherits")
    (folder / "inherits/child").write_bytes(b"")


def flags(root: Path, *, extents: bool) -> None:
    """Attribute bits as chattr sets them."""
    folder = root / "flags"
    folder.mkdir()
    for letters in ("a", "i", "d", "A", "S", "D", "s", "u", "c", "t", "T", "id"):
        path = folder / letters
        if letters in "DT":
            path.mkdir()
        else:
            path.write_bytes(b"flagged")
        run("chattr", f"+{letters}", path)
    if extents:
        listed_by_number(folder / "minus e")


def listed_by_number(path: Path) -> None:
    """A file whose blocks are listed by number, through indirect blocks, on a file system of extents.

    The kernel changes the map of a file only while it has one extent at most, and 9,000 bytes may have got two. So it
    is changed while it has none: the file is made long enough not to be inline, emptied, changed, and written.
    """
    path.write_bytes(noise(9, 9000))
    os.truncate(path, 0)
    run("chattr", "-e", path)
    with path.open("r+b") as file:
        file.write(noise(9, 9000))
        file.seek(400_000)
        file.write(noise(10, 9000))
    if "e" in run("lsattr", path).split()[0]:
        raise RuntimeError(f"{path} has extents still")


def holes(root: Path, block: int, *, fallocate: bool, clusters: bool = False) -> None:
    """Holes at each place, blocks that were allocated and never written, sizes that end inside a block."""
    folder = root / "holes"
    folder.mkdir()
    layouts = {
        "all": ([], 50 * block),
        "begin": ([(20, 3)], 23 * block),
        "middle": ([(0, 2), (40, 2)], 42 * block),
        "end": ([(0, 2)], 30 * block),
        "odd end": ([(0, 1)], 7 * block + 13),
        "last byte": ([(9, 1)], 9 * block + 1),
        "far": ([(0, 1), (13, 1), (300, 1), (3000, 2)], 3002 * block),
    }
    for name, (written, size) in layouts.items():
        with (folder / name).open("wb") as file:
            for first, count in written:
                file.seek(first * block)
                file.write(noise(first, min(count * block, size - first * block)))
            file.truncate(size)
    if not fallocate:
        return
    for name, keep in (("unwritten", False), ("beyond end", True)):
        path = folder / name
        path.write_bytes(noise(1, block // 2))
        run("fallocate", *(["-n"] if keep else []), "-o", "0", "-l", str(40 * block), path)
        with path.open("r+b") as file:
            file.seek(10 * block)
            file.write(noise(2, 3 * block + 5))
    path = folder / "punched"
    path.write_bytes(noise(3, 60 * block))
    run("fallocate", "-p", "-o", str(5 * block), "-l", str(20 * block), path)
    path = folder / "zero range"
    path.write_bytes(noise(4, 30 * block))
    run("fallocate", "-z", "-o", str(3 * block), "-l", str(9 * block), path)
    if not clusters:
        path = folder / "collapsed"
        path.write_bytes(noise(5, 30 * block))
        run("fallocate", "-c", "-o", str(3 * block), "-l", str(4 * block), path)


def fragmented(root: Path, block: int, pieces: int) -> None:
    """One file of `pieces` blocks with a hole after each: an extent for each, so a tree of extents."""
    with (root / "fragmented").open("wb") as file:
        for number in range(pieces):
            file.seek(2 * number * block)
            file.write(number.to_bytes(4, "little") * (block // 4))


def huge(root: Path, size: int = 5 << 30) -> None:
    """A sparse file past 4 GiB, with data before and behind each threshold."""
    with (root / "huge").open("wb") as file:
        for at in (0, (64 << 20) + 300_000, (1 << 31) - 7, (1 << 32) - 5, size - 9):
            file.seek(at)
            file.write(noise(at, 9))


def crowded(root: Path, entries: int) -> None:
    """A folder of many entries (a hash tree), one that lost most of them again, and one that lost all."""
    if sys.platform != "linux":
        raise OSError("needs Linux")
    full, thinned, emptied = (root / f"crowd {name}" for name in ("full", "thinned", "emptied"))
    for folder, count in ((full, entries), (thinned, entries // 4), (emptied, entries // 8)):
        folder.mkdir()
        first = folder / "the one file of this folder"
        first.write_bytes(b"crowd")
        for number in range(count):
            name = folder / f"{number:05d}{'-' * (number % 37)}"
            if number % 3:
                os.link(first, name)
            else:
                os.mknod(name)
    for path in sorted(thinned.iterdir()):
        if path.name[:5].isdigit() and int(path.name[:5]) % 17:
            path.unlink()
    for path in emptied.iterdir():
        path.unlink()
    for number in range(0, entries // 4, 34):  # names that fill the gaps
        (thinned / f"again {number}").write_bytes(b"again")


def everything(
    root: Path,
    *,
    block: int = 4096,
    entries: int = 600,
    pieces: int = 40,
    extents: bool = True,
    clusters: bool = False,
    big_xattr: int = 0,
    huge_size: int = 5 << 30,
) -> None:
    """All of the above."""
    plain(root)
    odd_names(root)
    special(root)
    if block >= 4096:
        long_links(root)
    modes_and_owners(root)
    times(root)
    xattrs(root, big=big_xattr)
    acls(root)
    flags(root, extents=extents and not clusters)
    holes(root, block, fallocate=extents, clusters=clusters)
    fragmented(root, block, pieces)
    if huge_size:
        huge(root, huge_size)
    crowded(root, entries)
