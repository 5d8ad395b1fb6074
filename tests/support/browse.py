"""The same tree from our side, through the FileSystem contract, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import DataRuns, FileRows, FileSystem, FileType, Parser, RunKind, TimeColumn
from pseudomount.findings import FindingLog
from tests.support.entries import VISIBLE_FLAGS, WHOLE_LIMIT, Entry, digest


def open_filesystem(parser: Parser, device: BlockDevice, volume: str = "disk0") -> FileSystem:
    """Probes and opens; the probe has to fit."""
    match = parser.probe(device)
    assert match is not None, f"{parser.name} does not know {device.name}"
    filesystem = parser.open(device, FindingLog(volume))
    assert match.filesystem == filesystem.name
    assert match.label == filesystem.label
    assert match.uuid == filesystem.uuid
    return filesystem


@dataclass(frozen=True, slots=True)
class Tree:
    """What `browse_tree` saw: paths to entries and to ids, and the errors of whole batches' rows."""

    entries: dict[bytes, Entry]
    ids: dict[bytes, int]


def browse_tree(filesystem: FileSystem) -> Tree:
    """Every path and the root (as b""), level by level: one `children` for a level, then one `rows` for all files.

    The content is read twice: by `runs` from the device and by `open`; both have to agree.
    """
    ids, types = {b"": int(filesystem.root)}, {b"": FileType.DIRECTORY}
    level = [b""]
    broken: dict[bytes, str] = {}
    while level:
        asked = np.array([ids[path] for path in level], np.uint64)
        links = filesystem.children(asked)
        for row, error in links.errors.items():
            broken[level[row]] = str(error)
        below = []
        for query, file, name, kind in zip(
            links.query.tolist(), links.file.tolist(), links.name, links.type.tolist(), strict=True
        ):
            path = level[query] + b"/" + name if level[query] else name
            assert path not in ids, f"{path!r} twice"
            ids[path], types[path] = int(file), FileType(kind)
            below.append(path)
        unknown = [path for path in below if types[path] is FileType.UNKNOWN]
        if unknown:  # the entries do not tell (no filetype feature): the inodes do
            kinds = filesystem.rows(np.array([ids[path] for path in unknown], np.uint64)).type
            types.update(zip(unknown, map(FileType, kinds.tolist()), strict=True))
        level = [path for path in below if types[path] is FileType.DIRECTORY]
    files = np.array(sorted(set(ids.values())), np.uint64)
    made = dict(zip(files.tolist(), _entries(filesystem, files), strict=True))
    entries = {path: made[file] for path, file in ids.items()}
    for path, entry in entries.items():
        if types[path].word != entry.type and not entry.error:
            broken[path] = f"the directory entry says {types[path].word}, the inode {entry.type}"
    if broken:
        from dataclasses import replace

        entries.update({path: replace(entries[path], error=text) for path, text in broken.items()})
    return Tree(entries, ids)


def _entries(filesystem: FileSystem, files: NDArray[np.uint64]) -> list[Entry]:
    rows = filesystem.rows(files)
    links = np.flatnonzero(rows.type == FileType.SYMLINK)
    targets: dict[int, bytes | str] = {}
    if len(links):
        answer = filesystem.readlink(files[links])
        for at, (row, target) in enumerate(zip(links.tolist(), answer.target, strict=True)):
            targets[row] = str(answer.errors[at]) if at in answer.errors else target
    plain = np.flatnonzero(rows.type == FileType.FILE)
    runs = filesystem.runs(files[plain])
    contents = _Contents(filesystem, runs, plain)
    return [_entry(filesystem, rows, row, targets, contents) for row in range(len(files))]


class _Contents:
    """Digests of contents by data runs and by `open`."""

    def __init__(self, filesystem: FileSystem, runs: DataRuns, rows: NDArray[np.int64]) -> None:
        self._filesystem = filesystem
        self._runs = runs
        self._at = {int(row): at for at, row in enumerate(rows.tolist())}

    def digest(self, row: int, file: int, size: int) -> tuple[str | None, str | None]:
        """(digest, error)."""
        at = self._at[row]
        if at in self._runs.errors:
            return None, f"runs: {self._runs.errors[at]}"
        try:
            by_runs, data = self._by_runs(at, size)
            with self._filesystem.open(file) as device:
                assert device.size == size, f"open gives {device.size} bytes of {size}"
                by_open = digest(size, device.read, data)
                if size > WHOLE_LIMIT:  # a hole that the digest skipped
                    assert not device.read(size // 3, 4096).strip(b"\0") or any(
                        start <= size // 3 + 4096 and size // 3 <= start + length for start, length in data
                    )
        except PseudomountError as error:
            return None, f"{type(error).__name__}: {error}"
        if by_runs is not None and by_runs != by_open:
            return None, f"runs read as {by_runs}, open as {by_open}"
        return by_open, None

    def _by_runs(self, at: int, size: int) -> tuple[str | None, list[tuple[int, int]]]:
        runs = self._runs
        if at in runs.resident:
            data = runs.resident[at]
            assert len(data) == size, f"{len(data)} bytes in metadata, size {size}"
            return digest(size, lambda start, n: data[start : start + n]), [(0, size)]
        first, last = np.searchsorted(runs.query, [at, at + 1]).tolist()
        mapped = []
        end = 0
        for offset, length, position, kind in zip(
            runs.offset[first:last].tolist(),
            runs.length[first:last].tolist(),
            runs.position[first:last].tolist(),
            runs.kind[first:last].tolist(),
            strict=True,
        ):
            assert offset >= end, "runs overlap"
            assert length > 0, "an empty run"
            end = offset + length
            if kind == RunKind.DATA and offset < size:
                mapped.append((offset, min(length, size - offset), position))
            assert kind != RunKind.HOLE or position == -1
        parts = [(offset, length) for offset, length, _ in mapped]
        if bool(runs.encoded[at]):
            return None, parts

        def read(start: int, length: int) -> bytes:
            out = bytearray(length)
            for offset, count, position in mapped:
                a, b = max(offset, start), min(offset + count, start + length)
                if a < b:
                    out[a - start : b - start] = self._filesystem.device.read(position + a - offset, b - a)
            return bytes(out)

        if len(mapped) > 64 and size <= WHOLE_LIMIT:  # many small runs: one pass, not one for each step
            whole = read(0, size)
            return digest(size, lambda start, n: whole[start : start + n]), parts
        return digest(size, read, parts), parts


_NODES = {FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE}


def _ns(column: TimeColumn, row: int) -> int | None:
    exact = column.exact(row)
    return None if exact is None else exact[0] * 1_000_000_000 + exact[1]


def _entry(
    filesystem: FileSystem, rows: FileRows, row: int, targets: dict[int, bytes | str], contents: _Contents
) -> Entry:
    file, kind = int(rows.file[row]), FileType(int(rows.type[row]))
    if row in rows.errors:
        return Entry("unknown", error=f"rows: {rows.errors[row]}")
    sha256 = error = target = None
    size = int(rows.size[row])
    if kind is FileType.FILE:
        sha256, error = contents.digest(row, file, size)
    elif kind is FileType.SYMLINK:
        value = targets[row]
        target, error = (value, None) if isinstance(value, bytes) else (None, value)
    try:
        xattrs = {name.encode("utf-8", "surrogateescape"): value for name, value in filesystem.xattrs(file).items()}
    except PseudomountError as failure:
        xattrs, error = {}, f"xattrs: {failure}"
    node = kind in _NODES
    return Entry(
        type=kind.word,
        size=size,
        mode=int(rows.mode[row]),
        uid=int(rows.uid[row]),
        gid=int(rows.gid[row]),
        nlink=int(rows.links[row]),
        mtime_ns=_ns(rows.modified, row),
        atime_ns=_ns(rows.accessed, row),
        ctime_ns=_ns(rows.changed, row),
        btime_ns=_ns(rows.created, row),
        ino=int(rows.inode[row]),
        allocated=int(rows.allocated[row]),
        rdev=(int(rows.extra["rdev_major"][row]), int(rows.extra["rdev_minor"][row])) if node else None,
        target=target,
        sha256=sha256,
        xattrs=xattrs,
        flags=int(rows.flags[row]) & VISIBLE_FLAGS if kind in {FileType.FILE, FileType.DIRECTORY} else None,
        generation=int(rows.generation[row]) & 0xFFFFFFFF,
        error=error,
    )
