"""A third party's parser, in a distribution of its own: romfs, the boot file system of small Linux devices.

Layout: Documentation/filesystems/romfs.rst of the Linux kernel. All numbers are big-endian; headers lie on multiples
of 16 and chain by their first word, whose low four bits say what kind of file it is.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice, SliceDevice
from pseudomount.errors import CorruptionError, NotASymlinkError, PseudomountError
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    Match,
    Names,
    Parser,
    Targets,
    TimeColumn,
)
from pseudomount.findings import FindingLog

_TYPES = {0: 0, 1: 2, 2: 1, 3: 3, 4: 5, 5: 4, 6: 7, 7: 6}  # romfs kind → FileType; 0, a hard link, is followed


def _padded_name(device: BlockDevice, offset: int) -> tuple[bytes, int]:
    """A name and where the next 16-byte boundary after it lies."""
    raw = device.read(offset, min(256, device.size - offset))
    if b"\0" not in raw:
        raise CorruptionError("name without an end", device=device.name, offset=offset, structure="file header")
    name = raw[: raw.index(b"\0")]
    return name, offset + (len(name) + 16) // 16 * 16


class RomFileSystem(FileSystem):
    name = "romfs"

    def __init__(self, device: BlockDevice, findings: FindingLog) -> None:
        self.device = device
        self.findings = findings
        label, self.root = _padded_name(device, 16)
        self.label = label.decode("ascii", "replace")

    def _header(self, file: int) -> tuple[int, int, int, int, bytes, int]:
        """(next, kind, spec, size, name, where the content begins)"""
        if file % 16 or not 16 < file <= self.device.size - 32:
            raise CorruptionError("no such header", device=self.device.name, offset=file, structure="file header")
        word, spec, size, _checksum = struct.unpack(">4I", self.device.read(file, 16))
        name, content = _padded_name(self.device, file + 16)
        return word & ~15, word & 7, spec, size, name, content

    def _true(self, file: int) -> int:
        _, kind, spec, *_ = self._header(file)
        return spec if kind == 0 else file

    def children(self, directories: NDArray[np.uint64]) -> LinkRows:
        found: list[tuple[int, int, int, bytes, int]] = []
        errors: dict[int, PseudomountError] = {}
        for i, directory in enumerate(directories.tolist()):
            try:
                _, kind, spec, *_ = self._header(directory)
                if kind != 1:
                    raise CorruptionError("not a directory", structure="file header")
                # The root's own "." and ".." stand in front of its chain.
                at, seen = (directory if directory == self.root else spec), set[int]()
                while at and at not in seen:
                    seen.add(at)
                    following, _, _, _, name, _ = self._header(at)
                    if name not in (b".", b".."):
                        file = self._true(at)
                        found.append((i, directory, file, name, _TYPES[self._header(file)[1]]))
                    at = following
            except PseudomountError as error:
                errors[i] = error
        return LinkRows(
            np.array([row[0] for row in found], np.int64),
            np.array([row[1] for row in found], np.uint64),
            np.array([row[2] for row in found], np.uint64),
            Names.of(row[3] for row in found),
            np.array([row[4] for row in found], np.uint8),
            errors,
        )

    def lookup(self, directories: NDArray[np.uint64], names: Sequence[bytes]) -> Looked:
        links = self.children(directories)
        files, found = np.zeros(len(names), np.uint64), np.zeros(len(names), np.bool_)
        for i, file, name in zip(links.query.tolist(), links.file.tolist(), links.name, strict=True):
            if name == names[i]:
                files[i], found[i] = file, True
        return Looked(files, found, links.errors)

    def rows(self, files: NDArray[np.uint64]) -> FileRows:
        n = len(files)
        kinds, sizes = np.zeros(n, np.uint8), np.zeros(n, np.int64)
        errors: dict[int, PseudomountError] = {}
        for i, file in enumerate(files.tolist()):
            try:
                _, kind, _, size, _, _ = self._header(file)
                kinds[i], sizes[i] = _TYPES[kind], size
            except PseudomountError as error:
                errors[i] = error
        none, zero = np.full(n, -1, np.int64), np.zeros(n, np.uint64)
        null = TimeColumn.null(n)
        ones = np.ones(n, np.int64)
        return FileRows(
            file=files,
            subvolume=zero,
            inode=files,
            generation=none,
            type=kinds,
            size=sizes,
            allocated=sizes,
            mode=none,
            uid=none,
            gid=none,
            links=ones,
            created=null,
            modified=null,
            changed=null,
            accessed=null,
            flags=zero,
            errors=errors,
        )

    def runs(self, files: NDArray[np.uint64]) -> DataRuns:
        n = len(files)
        headers = [self._header(file) for file in files.tolist()]
        return DataRuns(
            np.arange(n),
            np.zeros(n, np.int64),
            np.array([h[3] for h in headers], np.int64),
            np.array([h[5] for h in headers], np.int64),
            np.zeros(n, np.uint8),
            {},
            np.zeros(n, np.bool_),
        )

    def readlink(self, files: NDArray[np.uint64]) -> Targets:
        targets, errors = [], dict[int, PseudomountError]()
        for i, file in enumerate(files.tolist()):
            _, kind, _, size, _, content = self._header(file)
            if FileType(_TYPES[kind]) is FileType.SYMLINK:
                targets.append(self.device.read(content, size))
            else:
                targets.append(b"")
                errors[i] = NotASymlinkError(f"file {file} is no symbolic link")
        return Targets(Names.of(targets), errors)

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        _, _, _, size, name, content = self._header(file)
        return SliceDevice(self.device, content, size, name=name.decode("ascii", "replace"))


class RomParser(Parser):
    name = "romfs"

    def probe(self, device: BlockDevice) -> Match | None:
        if device.size < 64 or device.read(0, 8) != b"-rom1fs-":
            return None
        return Match("romfs", _padded_name(device, 16)[0].decode("ascii", "replace"))

    def open(
        self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = MappingProxyType({})
    ) -> FileSystem:
        return RomFileSystem(device, findings)
