"""open_backup: the one place that joins storage, formats, disks, volumes and file systems."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, TypeAlias, TypeVar, cast, overload

from pseudomount._plugins import FORMATS, PARSERS, load_plugins
from pseudomount.device import BlockDevice, Fetch, PseudoDisk, RangeStore
from pseudomount.errors import (
    AmbiguousVolumeError,
    ClosedError,
    DamageError,
    NoFileSystemError,
    ObjectNotFoundError,
    PluginError,
    PseudomountError,
    UnsupportedError,
    UsageError,
    VolumeNotFoundError,
)
from pseudomount.extents import ExtentIndex
from pseudomount.filesystem import ASKED_FOR, FileSystem, Match, Parser
from pseudomount.filesystem.path import BackupPath
from pseudomount.filesystem.tree import Tree
from pseudomount.findings import Finding, FindingLog, Severity
from pseudomount.formats import Disk, Format
from pseudomount.formats.detect import find_format, make_source
from pseudomount.storage import LocalStore, Store
from pseudomount.storage.remote import ObjectStore, connect, is_url, parse_url
from pseudomount.volumes import VolumeSlot, discover

if TYPE_CHECKING:
    import pyarrow as pa
    from obstore.store import ObjectStore as ObstoreStore

    from pseudomount.filesystem.catalogue import Catalogue

__all__ = ["Backup", "BackupVolume", "Embedded", "SourceLike", "open_backup"]

#: What a tool that embeds us hands over: where a disk's extents are, and how to fetch them.
Embedded: TypeAlias = tuple[ExtentIndex, Fetch | RangeStore]
SourceLike: TypeAlias = str | os.PathLike[str] | Embedded

T = TypeVar("T")


class BackupVolume:
    """A block device inside a backup that may hold a file system.

    Attributes:
        name: "disk0p1" for a partition, "disk1" for a whole disk.
        slot: what the partition table says of it.
        table_findings: what was wrong with the partition table's word on it.
        findings: all that was wrong with it so far, the former included.
    """

    def __init__(self, slot: VolumeSlot, backup: Backup, table_findings: Sequence[Finding] = ()) -> None:
        """For use by `Backup`."""
        self.slot = slot
        self.name = slot.name
        self.table_findings = tuple(table_findings)
        self.findings = FindingLog(slot.name, parent=backup.findings)
        for finding in self.table_findings:
            self.findings.append(finding)
        self._backup = backup

    @property
    def device(self) -> BlockDevice:
        """The volume's bytes."""
        return self.slot.device

    @property
    def size(self) -> int:
        """Bytes."""
        return self.slot.size

    @cached_property
    def _match(self) -> tuple[Parser, Match] | None:
        return self._backup._find_parser(self)

    @property
    def filesystem(self) -> str | None:
        """ "ext4", "ntfs", "fat32" …, or None where no parser knows what is there."""
        return self._match[1].filesystem if self._match else None

    @property
    def label(self) -> str:
        """The file system's label, else the partition's, else ""."""
        return (self._match[1].label if self._match else "") or self.slot.label

    @property
    def uuid(self) -> str:
        """The file system's UUID as blkid prints it, else the partition's, else ""."""
        return (self._match[1].uuid if self._match else "") or self.slot.uuid

    @cached_property
    def fs(self) -> FileSystem:
        """The opened file system: the batch interface, for those who work on columns.

        Raises:
            NoFileSystemError: no parser knows what is there.
            UnsupportedError, DamageError: it cannot be opened.
        """
        self._backup._check_open()
        if self._match is None:
            raise NoFileSystemError(f"{self.name}: no file system that a parser knows")
        parser = self._match[0]
        return _guarded(parser, "open", lambda: parser.open(self.device, self.findings, self._backup._parser_options))

    def catalogue(
        self,
        *,
        deleted: bool = False,
        extra: bool = True,
        progress: Callable[[float], object] | None = None,
    ) -> Catalogue:
        """Every file of the volume as columns, from one pass over its tables.

        Once it was asked for, `walk`, `glob` and listings of this volume are answered from it, without a read.

        Args:
            deleted: whether deleted names and files are wanted, too; they are marked as such.
            extra: whether the parser's own columns are wanted (NTFS: the second set of times, reparse tags …).
            progress: told from time to time how much is done, 0 to 1.

        Raises:
            as `fs`.
        """
        from pseudomount.filesystem.catalogue import CatalogueSource, scan_catalogue

        found = scan_catalogue(self.fs, volume=self.name, deleted=deleted, extra=extra, progress=progress)
        if extra:
            self._tree.source = CatalogueSource(found, self.fs)
        return found

    def data_runs(self, catalogue: Catalogue | None = None) -> pa.Table:
        """Where the content of files lies on the volume, as an Arrow table: a row for each run.

        Columns: `file` (as in the catalogue), `offset` and `length` in bytes, `position` on the volume (null where
        there is none), `kind` ("data", "hole", "unwritten", "resident") and `encoded`. What is damaged is a finding.

        Args:
            catalogue: the files asked about, or a selection of them; by default all regular files of the volume.

        Raises:
            as `fs`.
        """
        from pseudomount.filesystem.catalogue import run_table

        chosen = self.catalogue(extra=False) if catalogue is None else catalogue
        files = chosen.regular_files()
        table, errors = run_table(self.fs, files)
        for file, error in errors.items():
            self.findings.add_error(error, file=file)
        return table

    @cached_property
    def _tree(self) -> Tree:
        return Tree(self.fs, self.name)

    @property
    def root(self) -> BackupPath:
        """The root directory.

        Raises:
            as `fs`.
        """
        return BackupPath(self._tree)

    def path(self, path: str) -> BackupPath:
        """A path of this volume by its absolute name, given as a Python string or in its escaped form."""
        from pseudomount.filesystem.names import unescape

        root = self.root
        literal = root / path.lstrip("/")
        if "\\" in path and not literal.exists(follow_symlinks=False):
            return root / unescape(path.lstrip("/"), self.fs.name_encoding)
        return literal

    def __repr__(self) -> str:
        return f"<BackupVolume {self.name} {self.filesystem or 'no file system'} {self.label!r} {self.size} bytes>"


class Volumes(Sequence[BackupVolume]):
    """The volumes of a backup: by position, or by name, label or UUID."""

    def __init__(self, items: Sequence[BackupVolume]) -> None:
        """For use by `Backup`."""
        self._items = tuple(items)

    @overload
    def __getitem__(self, key: int | str) -> BackupVolume: ...
    @overload
    def __getitem__(self, key: slice) -> Sequence[BackupVolume]: ...
    def __getitem__(self, key: int | str | slice) -> BackupVolume | Sequence[BackupVolume]:
        if not isinstance(key, str):
            return self._items[key]
        for volume in self._items:
            if volume.name == key:
                return volume
        for fits in (
            [v for v in self._items if v.label == key],
            [v for v in self._items if key and key.lower() in (v.uuid.lower(), v.slot.uuid.lower())],
            [v for v in self._items if key and v.slot.label == key],
        ):
            if len(fits) > 1:
                names = ", ".join(v.name for v in fits)
                raise AmbiguousVolumeError(f"several volumes are called {key!r}: {names}")
            if fits:
                return fits[0]
        known = ", ".join(v.name + (f" ({v.label})" if v.label else "") for v in self._items)
        raise VolumeNotFoundError(f"no volume is called {key!r}; there are {known or 'none'}")

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[BackupVolume]:
        return iter(self._items)

    def __repr__(self) -> str:
        return f"<Volumes {', '.join(v.name for v in self._items)}>"


class Backup:
    """An opened backup. A context manager; thread-safe once opened.

    Attributes:
        format: the container format, "raw" …, or "embedded".
        disks: disk name → pseudo-disk.
        findings: what was wrong so far, those of all volumes included.
        options: what was set at opening.
    """

    def __init__(
        self,
        disks: Sequence[tuple[Disk, Fetch | RangeStore]],
        *,
        format: str,  # noqa: A002
        findings: FindingLog,
        parser: str | None,
        options: Mapping[str, str],
        stores: Sequence[Store] = (),
        format_options: Collection[str] = (),
    ) -> None:
        """For use by `open_backup`."""
        self.format = format
        self.findings = findings
        self.options = options
        self._parser_options = MappingProxyType({k: v for k, v in options.items() if k not in format_options})
        self._parser = parser
        self._stores = stores
        self._closed = False
        self.disks: Mapping[str, PseudoDisk] = MappingProxyType(
            {
                f"disk{i}": PseudoDisk(disk.index, fetch, name=f"disk{i}", sector_size=disk.sector_size)
                for i, (disk, fetch) in enumerate(disks)
            }
        )
        self.metadata: Mapping[str, Mapping[str, bytes]] = MappingProxyType(
            {f"disk{i}": disk.metadata for i, (disk, _) in enumerate(disks)}
        )

    @cached_property
    def volumes(self) -> Volumes:
        """All volumes of all disks. A disk whose partition table cannot be read is a finding and one volume."""
        self._check_open()
        found: list[BackupVolume] = []
        for name, disk in self.disks.items():
            told = FindingLog()
            try:
                slots = discover(disk, name, told)
            except DamageError as error:
                told.add_error(error)
                slots = [VolumeSlot(name, disk, 0, disk.size, "whole")]
            for slot in slots:
                mine = tuple(finding for finding in told if finding.volume == slot.name)
                found.append(BackupVolume(slot, self, mine))
            for finding in told:
                self.findings.append(finding)
        return Volumes(found)

    def browsable(self) -> list[BackupVolume]:
        """The volumes that have a file system which a parser knows."""
        return [volume for volume in self.volumes if volume.filesystem is not None]

    def _find_parser(self, volume: BackupVolume) -> tuple[Parser, Match] | None:
        """The parser that is surest of a volume. One that fails to look is a finding, and the others still do."""
        self._check_open()
        loaded, failed = load_plugins(PARSERS)
        for failure in failed:
            self.findings.add(Severity.NOTE, str(failure), structure="plug-in")
        best: tuple[Parser, Match] | None = None
        for parser in cast("tuple[Parser, ...]", loaded):
            if self._parser is not None and parser.name != self._parser:
                continue
            try:
                match = _guarded(parser, "probe", partial(parser.probe, volume.device))
            except (DamageError, PluginError) as error:
                volume.findings.add_error(error)
                continue
            if match is None or (self._parser is None and match.score < ASKED_FOR):
                continue
            if best is None or match.score > best[1].score:
                best = parser, match
        return best

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the backup is closed")

    def close(self) -> None:
        """Closes disks and stores; browsing afterwards raises ClosedError."""
        if self._closed:
            return
        for volume in self.__dict__.get("volumes", ()):
            if "fs" in volume.__dict__:
                volume.fs.close()
        self._closed = True
        for disk in self.disks.values():
            disk.close()
        for store in self._stores:
            store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Backup {self.format}: {', '.join(f'{n} {d.size} bytes' for n, d in self.disks.items())}>"


def open_backup(
    *sources: SourceLike | Sequence[SourceLike],
    parser: str | None = None,
    options: Mapping[str, str] | None = None,
    store: Store | ObstoreStore | None = None,
    store_options: Mapping[str, str] | None = None,
) -> Backup:
    """Opens a backup for browsing; reads no more than the container's own tables.

    Args:
        sources: paths or URLs (`s3://bucket/vm.img`, see docs/stores.md) of disk images, or (ExtentIndex, fetch) pairs,
            each a disk; several files are the pieces of one split image where their names say so ("vm.001", "vm.002"),
            else a disk each. All files lie in one store.
        parser: the name of the parser to use for every volume; by default the one that is surest.
        options: settings of formats and parsers, by their own keys.
        store: where the sources are names: a `Store`, or a store of obstore. It is not closed with the backup.
        store_options: settings of the store that URLs lead to, by their own keys.

    Raises:
        ObjectNotFoundError: there is no such file.
        AccessDeniedError, TransientStorageError, StorageError: it cannot be read.
        UnknownFormatError, UnsupportedError: it is nothing that a format plug-in opens.
        DamageError: it cannot be opened at all.
        UsageError: no source, an unknown parser or option of the store.
    """
    given: list[SourceLike] = []
    for source in sources:
        if isinstance(source, str | os.PathLike) or _is_embedded(source):
            given.append(cast("SourceLike", source))
        elif isinstance(source, Sequence):
            given += cast("Sequence[SourceLike]", source)
        else:
            raise UsageError(f"{source!r} is neither a path nor an (ExtentIndex, fetch) pair")
    if not given:
        raise UsageError("no source was given")
    if parser is not None:
        parsers = {plugin.name: plugin for plugin in cast("tuple[Parser, ...]", load_plugins(PARSERS)[0])}
        if parser not in parsers:
            raise UsageError(f"no parser is called {parser!r}; there are {', '.join(parsers)}")
        if reason := parsers[parser].unavailable:
            raise UnsupportedError(f"parser {parser!r} cannot be used: {reason}")
    settings = MappingProxyType(dict(options or {}))
    findings = FindingLog()
    embedded = [cast("Embedded", item) for item in given if _is_embedded(item)]
    if embedded and (len(embedded) != len(given) or store is not None or store_options):
        raise UsageError("(ExtentIndex, fetch) pairs cannot be mixed with files in one backup, and have no store")
    if embedded:
        disks = [(Disk(index), fetch) for index, fetch in embedded]
        return Backup(disks, format="embedded", findings=findings, parser=parser, options=settings)
    place, objects, shown, owned = _locate([cast("str", item) for item in given], store, store_options)
    try:
        for name, told in zip(objects, shown, strict=True):
            try:
                place.size(name)
            except ObjectNotFoundError as error:
                raise ObjectNotFoundError(f"{told}: no such file") from error
        made = make_source(place, objects, settings, cast("tuple[Format, ...]", load_plugins(FORMATS)[0]))
        chosen = find_format(made, made.formats)
        opened: list[tuple[Disk, Fetch | RangeStore]] = [
            (disk, disk.store or place) for disk in chosen.open(made, findings)
        ]
        stores = [*(disk.store for disk, _ in opened if disk.store is not None), *([place] if owned else [])]
        return Backup(
            opened,
            format=chosen.name,
            findings=findings,
            parser=parser,
            options=settings,
            stores=stores,
            format_options={"format"}.union(*(known.options for known in made.formats)),
        )
    except BaseException:
        if owned:
            place.close()
        raise


def _is_embedded(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], ExtentIndex)


def _locate(
    given: Sequence[str | os.PathLike[str]], store: Store | ObstoreStore | None, options: Mapping[str, str] | None
) -> tuple[Store, Sequence[str], Sequence[str], bool]:
    """The store, the names in it, what messages call them, and whether the store is ours to close."""
    if store is not None:
        if options:
            raise UsageError("store options are for URLs; a store that is handed over has its own")
        names = [os.fspath(item) for item in given]
        return (store, names, names, False) if isinstance(store, Store) else (ObjectStore(store), names, names, True)
    places = [parse_url(str(item)) if is_url(item) else None for item in given]
    remote = [place for place in places if place is not None and place.kind != "file"]
    if not remote:
        if options:
            raise UsageError(f"store option {next(iter(options))!r}: files of this machine have none")
        paths = [Path(place.name) if place else Path(item) for item, place in zip(given, places, strict=True)]
        local, found = LocalStore.for_files(paths)
        return local, found, [str(path) for path in paths], True
    if len({place.store for place in remote}) > 1 or len(remote) < len(given):
        raise UsageError("the files of a backup lie in one store: open those of several stores apart")
    names = [place.name for place in remote]
    return connect(remote[0], options), names, [f"{place.root}/{place.name}" for place in remote], True


def _guarded(parser: Parser, verb: str, call: Callable[[], T]) -> T:
    try:
        return call()
    except PseudomountError:
        raise
    except Exception as error:
        raise PluginError(f"parser {parser.name!r} broke its contract in {verb}: {error!r}") from error
