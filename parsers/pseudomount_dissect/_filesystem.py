"""The FileSystem contract over an adapter: batches become loops of guarded calls, one file each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import (
    ClosedError,
    CorruptionError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PseudomountError,
    UnsupportedError,
)
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    Names,
    StreamInfo,
    Targets,
    TimeColumn,
)
from pseudomount.findings import FindingLog
from pseudomount_dissect._adapter import Adapter, Content, Entry, Facts, Time
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock

__all__ = ["DissectFileSystem"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
T = TypeVar("T")

#: Entries of directories, and facts of files, that are kept for the next question: nothing changes below.
_KEPT = 100_000
_KEPT_FACTS = 20_000


class _Listing:
    """A directory's entries, what was wrong with it, and names → entry."""

    def __init__(self, entries: list[Entry], error: PseudomountError | None, fold: Callable[[bytes], bytes]) -> None:
        self.entries, self.error = entries, error
        self.exact = {entry.name: entry for entry in entries}
        self.folded = {fold(entry.name): entry for entry in reversed(entries)}


class DissectFileSystem(FileSystem):
    """A volume that one of the libraries reads. How ids are made is the adapter's."""

    def __init__(self, adapter: Adapter, guard: Guard, superblock: Superblock, findings: FindingLog) -> None:
        self.device, self.findings = guard.device, findings
        self.name, self.label, self.uuid = superblock.filesystem, superblock.label, superblock.uuid
        self.root = adapter.root
        self.name_encoding, self.case_sensitive = adapter.name_encoding, adapter.case_sensitive
        self.details = MappingProxyType(dict(adapter.details))
        self._adapter, self._guard = adapter, guard
        self._listings: OrderedDict[int, _Listing] = OrderedDict()
        self._facts_of: dict[int, Facts] = {}
        self._closed = False

    def _ask(self, file: int, structure: str, question: Callable[[], T]) -> T:
        """One guarded call."""
        if self._closed:
            raise ClosedError(f"{self.device.name} is closed")
        if not 0 <= file < 1 << 64:
            raise PathNotFoundError(f"{file} is no id of a file")
        with self._guard.call(f"file {file}", structure):
            answer = question()
        return answer

    # -- directories -------------------------------------------------------------------------------------------------

    def _listing(self, directory: int) -> _Listing:
        known = self._listings.get(directory)
        if known is not None:
            return known
        found: list[Entry] = []

        def collect() -> None:
            if self._known(directory).type is not FileType.DIRECTORY:
                raise PathNotDirectoryError(f"file {directory} is no directory")
            for entry in self._adapter.entries(directory):
                self._guard.progress()
                found.append(entry)

        error: PseudomountError | None = None
        try:
            self._ask(directory, "directory", collect)
        except PseudomountError as failure:
            error = failure
        good = [entry for entry in found if entry.name not in {b".", b".."}]
        usable = [entry for entry in good if entry.name and not {0, ord("/")} & set(entry.name)]
        if len(usable) != len(good) and error is None:
            error = CorruptionError(f"directory {directory} has names that no file can have", structure="directory")
        listing = _Listing(list({entry.name: entry for entry in usable}.values()), error, self._adapter.fold)
        if error is None:
            self._listings[directory] = listing
            while len(self._listings) > 1 and sum(len(kept.entries) for kept in self._listings.values()) > _KEPT:
                self._listings.popitem(last=False)
        return listing

    def children(self, directories: UInt64s) -> LinkRows:
        """The entries of many directories."""
        asked = np.asarray(directories, np.uint64)
        query: list[int] = []
        entries: list[Entry] = []
        errors: dict[int, PseudomountError] = {}
        for i, directory in enumerate(asked.tolist()):
            listing = self._listing(directory)
            if listing.error is not None:
                errors[i] = listing.error
            shown = [entry for entry in listing.entries if not entry.hidden]
            entries += shown
            query += [i] * len(shown)
        rows = np.array(query, np.int64)
        return LinkRows(
            rows,
            asked[rows],
            np.array([entry.file for entry in entries], np.uint64),
            Names.of(entry.name for entry in entries),
            np.array([entry.type for entry in entries], np.uint8),
            errors,
        )

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """Finds names among a directory's entries; an exact match goes first."""
        asked = np.asarray(directories, np.uint64).tolist()
        file, found = np.zeros(len(asked), np.uint64), np.zeros(len(asked), np.bool_)
        errors: dict[int, PseudomountError] = {}
        for i, (directory, name) in enumerate(zip(asked, names, strict=True)):
            listing = self._listing(directory)
            entry = listing.exact.get(name) or listing.folded.get(self._adapter.fold(name))
            if entry is not None:
                file[i], found[i] = entry.file, True
            elif listing.error is not None:
                errors[i] = listing.error
        return Looked(file, found, errors)

    # -- files -------------------------------------------------------------------------------------------------------

    def _known(self, file: int) -> Facts:
        """What the adapter says of a file. Inside of a guarded call."""
        facts = self._facts_of.get(file)
        if facts is None:
            facts = self._adapter.facts(file)
            if len(self._facts_of) >= _KEPT_FACTS:
                self._facts_of.clear()
            self._facts_of[file] = facts
        return facts

    def _facts(self, file: int) -> Facts:
        facts = self._ask(file, "inode", lambda: self._known(file))
        if not 0 <= facts.size < 1 << 63:
            raise CorruptionError(f"file {file} claims a size of {facts.size} bytes", structure="inode")
        return facts

    def rows(self, files: UInt64s) -> FileRows:
        """What is known of many files."""
        asked = np.asarray(files, np.uint64)
        errors: dict[int, PseudomountError] = {}
        rows: list[Facts] = []
        for i, file in enumerate(asked.tolist()):
            try:
                rows.append(self._facts(file))
            except PseudomountError as error:
                errors[i] = error
                rows.append(Facts(0, FileType.UNKNOWN, 0))

        def column(values: Iterable[int]) -> Int64s:
            return np.fromiter((min(value, (1 << 63) - 1) for value in values), np.int64, len(rows))

        def unsigned(values: Iterable[int]) -> UInt64s:
            return np.fromiter(values, np.uint64, len(rows))

        nodes = [row.rdev or (-1, -1) for row in rows]
        return FileRows(
            file=asked,
            subvolume=unsigned(row.subvolume for row in rows),
            inode=unsigned(row.inode for row in rows),
            generation=column(row.generation for row in rows),
            type=np.array([row.type for row in rows], np.uint8),
            size=column(row.size for row in rows),
            allocated=column(row.allocated for row in rows),
            mode=column(row.mode for row in rows),
            uid=column(row.uid for row in rows),
            gid=column(row.gid for row in rows),
            links=column(row.links for row in rows),
            created=_times([row.created for row in rows]),
            modified=_times([row.modified for row in rows]),
            changed=_times([row.changed for row in rows]),
            accessed=_times([row.accessed for row in rows]),
            flags=unsigned(row.flags for row in rows),
            extra=MappingProxyType(
                {"rdev_major": column(node[0] for node in nodes), "rdev_minor": column(node[1] for node in nodes)}
            ),
            errors=errors,
        )

    def _content(self, file: int, stream: str | None) -> Content:
        """The content, of a file whose type allows for one."""

        def question() -> Content:
            facts = self._known(file)
            if facts.type is FileType.DIRECTORY and not stream:
                raise PathIsDirectoryError(f"file {file} is a directory")
            if facts.type not in {FileType.FILE, FileType.DIRECTORY, FileType.SYMLINK} and not stream:
                raise UnsupportedError(f"file {file} is a {facts.type.word} and has no content")
            if facts.type is FileType.SYMLINK and not stream:
                return Content(facts.size)
            found = self._adapter.content(file, stream).checked()
            if not 0 <= found.size < 1 << 63:
                raise CorruptionError(f"file {file} claims a size of {found.size} bytes", structure="inode")
            return found

        return self._ask(file, "data runs", question)

    def runs(self, files: UInt64s) -> DataRuns:
        """Where the content of many files lies. A directory is an error of its row; other files have no runs.

        `encoded` ones have none either: the content is compressed, or striped over the device.
        """
        asked = np.asarray(files, np.uint64)
        none = np.empty(0, np.int64)
        parts = [(none, none, none, none, none.astype(np.uint8))]
        resident: dict[int, bytes] = {}
        errors: dict[int, PseudomountError] = {}
        encoded = np.zeros(len(asked), np.bool_)
        for i, file in enumerate(asked.tolist()):
            try:
                found = self._content(file, None)
            except PseudomountError as error:
                if not isinstance(error, UnsupportedError) or not self._special(file):
                    errors[i] = error
                continue
            if found.decoded is not None:
                encoded[i] = True
            elif found.resident is not None:
                resident[i] = found.resident
            else:
                columns = found.columns()
                parts.append((np.full(len(columns[0]), i, np.int64), *columns))
        query, offset, length, position, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
        return DataRuns(query, offset, length, position, kind.astype(np.uint8), resident, encoded, errors)

    def _special(self, file: int) -> bool:
        """Whether it is a device node, FIFO or socket, which has no content to be missed."""
        try:
            return self._facts(file).type > FileType.SYMLINK
        except PseudomountError:
            return False

    def readlink(self, files: UInt64s) -> Targets:
        """The targets of many symbolic links."""
        asked = np.asarray(files, np.uint64).tolist()
        targets = [b""] * len(asked)
        errors: dict[int, PseudomountError] = {}

        def target(file: int) -> bytes:
            if self._known(file).type is not FileType.SYMLINK:
                raise NotASymlinkError(f"file {file} is no symbolic link")
            return self._adapter.target(file)

        for i, file in enumerate(asked):
            try:
                targets[i] = self._ask(file, "symbolic link", lambda file=file: target(file))  # type: ignore[misc]
            except PseudomountError as error:
                errors[i] = error
        return Targets(Names.of(targets), errors)

    def link_parts(self, target: bytes) -> tuple[bool, list[bytes]]:
        """A link's target as (whether it starts at the root, its parts)."""
        return self._adapter.link_parts(target)

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """The content of one file, or of one of its named streams."""
        if self._facts(file).type is FileType.SYMLINK and not stream:
            raise UnsupportedError(f"file {file} is a symlink and has no content")
        found = self._content(file, stream or None)
        return found.device(self.device, f"{self.device.name} file {file}")

    def xattrs(self, file: int) -> dict[str, bytes]:
        """Extended attributes, as far as the library gives them."""
        self._facts(file)
        return self._ask(file, "extended attributes", lambda: self._adapter.xattrs(file))

    def streams(self, file: int) -> list[StreamInfo]:
        """Named streams."""
        self._facts(file)
        return self._ask(file, "streams", lambda: self._adapter.streams(file))

    def close(self) -> None:
        """Frees what it holds."""
        self._closed = True
        self._listings.clear()
        self._facts_of.clear()


def _times(values: list[Time | None]) -> TimeColumn:
    known = np.array([value is not None for value in values], np.bool_)
    seconds = np.array([value[0] if value else 0 for value in values], np.int64)
    nanoseconds = np.array([value[1] if value else 0 for value in values], np.int64)
    return TimeColumn.of(seconds, nanoseconds, known)
