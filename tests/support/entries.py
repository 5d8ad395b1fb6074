"""What an independent reader saw of a file, in a form in which two readers can be compared field by field."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields

#: Files over this many bytes are known by a digest of their blocks that are not all zeros: hashing a sparse file
#: of gigabytes zero by zero would be most of a test's time.
WHOLE_LIMIT = 24 << 20
BLOCK = 4096
_STEP = 1 << 20

#: The bits of ext's flags that FS_IOC_GETFLAGS shows (EXT4_FL_USER_VISIBLE of Linux 6).
VISIBLE_FLAGS = 0x725BDFFF

#: What every reader can tell. The other fields are compared where both sides know them.
BASIC = ("type", "size", "sha256", "target")


@dataclass(frozen=True, slots=True)
class Entry:
    """One path.

    None is "this reader cannot tell", and is not compared.

    Attributes:
        type: "file", "dir", "symlink", "char", "block", "fifo", "socket".
        size: bytes; None for directories where the readers differ by nature.
        mode: permission bits and type, as in `st_mode`.
        mtime_ns, atime_ns, ctime_ns, btime_ns: nanoseconds since 1970, of any size.
        allocated: bytes of the device in use, `st_blocks * 512`.
        rdev: (major, minor) of a device node.
        target: where a symbolic link leads.
        sha256: of a file's content, see `Digest`.
        xattrs: by full name.
        flags: attribute bits that `lsattr` shows.
        generation: as `lsattr -v` shows it.
        error: the class of the error that kept the reader from the content.
    """

    type: str
    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    nlink: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    ctime_ns: int | None = None
    btime_ns: int | None = None
    ino: int | None = None
    allocated: int | None = None
    rdev: tuple[int, int] | None = None
    target: bytes | None = None
    sha256: str | None = None
    xattrs: Mapping[bytes, bytes] | None = None
    flags: int | None = None
    generation: int | None = None
    error: str | None = None


FIELDS = tuple(f.name for f in fields(Entry))


@dataclass(slots=True)
class Digest:
    """SHA-256 of a content fed in order: of all bytes, or past `WHOLE_LIMIT` of the 4 KiB blocks that are not zeros.

    Such a sparse digest hashes offset (8 bytes, little-endian) and bytes of each such block, and reads "sparse:…".
    """

    size: int
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def feed(self, offset: int, data: bytes) -> None:
        """Bytes at a multiple of 4 KiB, ascending; sparse ones may skip zeros."""
        if self.size <= WHOLE_LIMIT:
            self._hash.update(data)
            return
        if not data.strip(b"\0"):
            return
        for at in range(0, len(data), BLOCK):
            block = data[at : at + BLOCK]
            if block.strip(b"\0"):
                self._hash.update((offset + at).to_bytes(8, "little") + block)

    def text(self) -> str:
        """The digest in hexadecimal."""
        return self._hash.hexdigest() if self.size <= WHOLE_LIMIT else "sparse:" + self._hash.hexdigest()


def digest(size: int, read: Callable[[int, int], bytes], extents: Iterable[tuple[int, int]] | None = None) -> str:
    """The digest of what `read(offset, length)` gives; all but `extents` (offset, length) is known to be zeros."""
    made = Digest(size)
    if size <= WHOLE_LIMIT or extents is None:
        extents = [(0, size)]
    done = 0
    for start, length in extents:
        at = max(start - start % BLOCK, done)
        end = min(-(-(start + length) // BLOCK) * BLOCK, size)
        while at < end:
            step = min(_STEP, end - at)
            data = read(at, step)
            if len(data) != step:
                raise AssertionError(f"{len(data)} of {step} bytes at {at}")
            made.feed(at, data)
            at += step
        done = max(done, end)
    return made.text()


def escape(path: bytes) -> str:
    r"""A path in the corpus's way: control bytes, backslash and bytes that are no UTF-8 as ``\xNN``."""
    text = path.decode("utf-8", "surrogateescape")
    out = []
    for char in text:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F or char == "\\":
            out.append(f"\\x{code:02x}")
        else:
            out.append(char)
    return "".join(out)


def unescape(text: str) -> bytes:
    """Undoes `escape`."""
    out, at, raw = bytearray(), 0, text.encode("utf-8", "surrogateescape")
    while (found := raw.find(b"\\x", at)) >= 0:
        out += raw[at:found]
        out.append(int(raw[found + 2 : found + 4], 16))
        at = found + 4
    return bytes(out + raw[at:])


def differences(
    expected: Mapping[bytes, Entry],
    actual: Mapping[bytes, Entry],
    *,
    only: Collection[str] = FIELDS,
    ignore: Collection[str] = (),
) -> list[str]:
    """One line for each path or field that is not the same."""
    lines = [f"{escape(path)}: missing ({expected[path].type})" for path in sorted(expected.keys() - actual.keys())]
    lines += [f"{escape(path)}: not there in truth ({actual[path].type})" for path in sorted(actual.keys() - expected)]
    names = [name for name in only if name not in ignore]
    for path in sorted(expected.keys() & actual.keys()):
        want, got = expected[path], actual[path]
        if got.error and want.error is None:
            lines.append(f"{escape(path)}: error {got.error}")
        for name in names:
            a, b = getattr(want, name), getattr(got, name)
            if a is None or name == "error":
                continue
            if name == "xattrs" and b is not None:
                for key in sorted(a.keys() | b.keys()):
                    if a.get(key) != b.get(key):
                        lines.append(
                            f"{escape(path)}: xattr {key!r}: {_short(a.get(key))} expected, {_short(b.get(key))}"
                        )
            elif name == "mode" and b is not None:
                if a != b:
                    lines.append(f"{escape(path)}: mode: {a:o} expected, {b:o}")
            elif a != b:
                lines.append(f"{escape(path)}: {name}: {_short(a)} expected, {_short(b)}")
    return lines


def assert_same(
    expected: Mapping[bytes, Entry],
    actual: Mapping[bytes, Entry],
    *,
    only: Collection[str] = FIELDS,
    ignore: Collection[str] = (),
) -> None:
    """Fails with the first differences."""
    lines = differences(expected, actual, only=only, ignore=ignore)
    if lines:
        more = f"\n… {len(lines) - 40} more" if len(lines) > 40 else ""
        raise AssertionError(f"{len(lines)} differences\n" + "\n".join(lines[:40]) + more)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]}… ({len(text)} characters)"
