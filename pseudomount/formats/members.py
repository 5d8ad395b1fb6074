"""The files that an image refers to: backing files, external data files, parents.

An image is what someone else wrote, and a forged one names `/etc/shadow` as its backing file. So a reference is looked
for in the image's own folder only (with an object store: among the names that begin as the image's does up to its last
"/"), and in the folder that the user named, option `backing_root`. A reference that leads elsewhere is looked for there
by its last part, since a copied chain still bears the paths of the machine it came from; that is always a finding.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pseudomount.errors import CorruptionError, ObjectNotFoundError, StorageError, UnsupportedError, UsageError
from pseudomount.extents import ColumnIndex
from pseudomount.findings import FindingLog, Severity
from pseudomount.formats.contract import Disk, Format, Source
from pseudomount.formats.detect import find_format, make_source
from pseudomount.storage import LocalStore, Store

__all__ = ["MAX_DEPTH", "Members", "open_parent"]

#: Images above one another at most.
MAX_DEPTH = 64

#: "nbd:", "json:", "https:" and whatever else is no file; qemu takes anything before a ":" in the first part for one.
_PROTOCOL = re.compile(r"([^/\\:]*):")
#: What an image that is opened for another one is not told: these speak of the image that the user named.
_OWN_OPTIONS = ("format", "snapshot", "split")


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder that is searched: names of `store` that begin with `prefix`; where on this machine it is, if it is."""

    store: Store
    prefix: str
    folder: Path | None


class Members(Store):
    """The files that an image may consist of, as one store; `Disk.store` of an image that refers to others.

    Objects of the source's own store have the names that they have there. Those of other folders are named by their
    path, which begins with "/" or a drive, as names in a store never do.
    """

    def __init__(self, store: Store, name: str, backing_root: str | None = None) -> None:
        """For an image of a store.

        Raises:
            UsageError: `backing_root` is no folder.
        """
        self.remote = store.remote
        self._own = store
        self._places: list[_Place] = []
        if backing_root is not None:
            folder = Path(os.path.abspath(backing_root))  # noqa: PTH100  (resolve() would follow links)
            if not folder.is_dir():
                raise UsageError(f"backing root {backing_root} is no folder")
            self._places.append(_Place(LocalStore(folder), "", folder))
        if isinstance(store, LocalStore):
            folder = store.path(name).parent
            beside = Path(os.path.abspath(store.root)) == folder  # noqa: PTH100
            self._places.append(_Place(store if beside else LocalStore(folder), "", folder))
        else:
            self._places.append(_Place(store, name[: name.rfind("/") + 1], None))

    @classmethod
    def of(cls, source: Source, name: str) -> Members:
        """Those of the image `name` of a source; of one that another refers to, the other's: one chain, one set."""
        if isinstance(source.store, Members):
            return source.store
        return cls(source.store, name, source.options.get("backing_root"))

    # -- the contract of a store ---------------------------------------------------------------------------------

    def size(self, name: str) -> int:
        """Bytes of an object; see `Store.size`."""
        store, inside = self._where(name)
        return store.size(inside)

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes at `offset`; see `Store.read`."""
        store, inside = self._where(name)
        return store.read(inside, offset, length)

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        """Several ranges of an object; see `Store.read_ranges`."""
        store, inside = self._where(name)
        return store.read_ranges(inside, ranges)

    def close(self) -> None:
        """Closes the folders that were opened besides the source's store."""
        for place in self._places:
            if place.store is not self._own:
                place.store.close()

    def _where(self, name: str) -> tuple[Store, str]:
        for place in self._places:
            if place.store is not self._own and place.folder is not None:
                begin = _key(place.folder, "")
                if name.startswith(begin):
                    return place.store, name[len(begin) :]
        return self._own, name

    # -- references ----------------------------------------------------------------------------------------------

    def find(self, reference: str, referrer: str, what: str, findings: FindingLog) -> str:
        """The name, in this store, of a file that an image refers to.

        Args:
            reference: as the image has it: a path, relative to the image's folder or absolute.
            referrer: the image's name in this store.
            what: "backing file" …, for messages.
            findings: gets a note where the file is not where the reference says.

        Raises:
            ObjectNotFoundError: it is in none of the folders that are searched.
            StorageError: it is there, but a link that leads out of the folder, or no file.
            UnsupportedError: it is no file, but something on the network, say.
        """
        path = self._plain(reference, referrer, what)
        last = re.split(r"[/\\]" if _is_windows(path) else "/", path.rstrip("/"))[-1]
        refused: StorageError | None = None
        told = [(place, inside) for place in self._places for inside in self._told(place, path, referrer)]
        by_name = [(place, place.prefix + last) for place in self._places if last not in ("", ".", "..")]
        for number, (place, inside) in enumerate(told + by_name):
            try:
                place.store.size(inside)
            except ObjectNotFoundError:
                continue
            except StorageError as error:  # a link that leads out of the folder, a folder
                if error.retryable:
                    raise
                refused = refused or error
                continue
            name = self._name(place, inside)
            if number >= len(told) and last != path:
                findings.add(
                    Severity.NOTE,
                    f"{referrer}: the {what} {reference} was taken from the folder that is searched: {name}",
                    structure=what,
                )
            return name
        where = " nor ".join(str(place.folder or place.prefix or "the store") for place in self._places)
        message = f"{referrer}: its {what} {reference!r} is not in {where}"
        if refused is not None:
            raise StorageError(f"{message}: {refused}") from refused
        raise ObjectNotFoundError(f"{message}; if it lies elsewhere, name the folder with --backing-root")

    def _plain(self, reference: str, referrer: str, what: str) -> str:
        """A reference without the "file:" that it may begin with."""
        if not reference or "\0" in reference:
            raise CorruptionError(f"{referrer}: the name of its {what} is {reference!r}", structure=what)
        protocol = None if _is_windows(reference) else _PROTOCOL.match(reference)
        if protocol is None:
            return reference
        if protocol[1] == "file":
            return reference[len("file:") :].removeprefix("//") or "."
        raise UnsupportedError(
            f"{referrer}: its {what} is no file, but {reference!r}, which this version does not open"
        )

    def _told(self, place: _Place, path: str, referrer: str) -> Sequence[str]:
        """Where in a place a reference leads, if into it."""
        if place.folder is None:
            if path.startswith("/") or _is_windows(path):
                return ()
            inside = posixpath.normpath(posixpath.join(posixpath.dirname(referrer), path))
            # Prefix "" is the whole store; what leads out of that begins with "..".
            led_out = inside.startswith("../") or inside in ("..", ".")
            return (inside,) if inside.startswith(place.prefix) and not led_out else ()
        if _is_windows(path) and os.path.sep != "\\":
            return ()
        bases = [self._folder(referrer)]
        if place is self._places[0] and len(self._places) > 1:
            bases.append(place.folder)  # the user's folder: relative references count from there, too
        paths = [Path(os.path.normpath(os.path.join(base, path))) for base in bases]  # noqa: PTH118
        folders = (place.folder, place.folder.resolve())
        led_in = [(full, folder) for full in paths for folder in folders if full.is_relative_to(folder)]
        return tuple(full.relative_to(folder).as_posix() for full, folder in led_in if full != folder)

    def _folder(self, name: str) -> Path:
        """The folder of one of our files on this machine."""
        store, inside = self._where(name)
        if isinstance(store, LocalStore):
            return store.path(inside).parent
        return self._places[-1].folder or Path()

    def _name(self, place: _Place, inside: str) -> str:
        if place.store is self._own or place.folder is None:
            return inside
        return _key(place.folder, inside)

    # Last, because from here on `list` is this method.
    def list(self, prefix: str = "") -> list[str]:
        """Names of the source's own store; see `Store.list`."""
        return self._own.list(prefix)


def open_parent(
    source: Source,
    name: str,
    reference: str,
    format_name: str | None,
    findings: FindingLog,
    *,
    what: str = "backing file",
    formats: Sequence[Format] = (),
) -> tuple[str, Format, Disk]:
    """Opens the image that another one refers to: its name, its format, its disk.

    Args:
        source: of the image that refers to it.
        name: that image's name.
        reference: as it has it.
        format_name: the format that it names; None: whatever the first bytes say, with a note. (Who could write to
            a disk that is kept raw could write another format's header to its beginning. So the word of the image
            that refers to it counts, and whoever can say it should.)
        findings: of both.
        what: for messages.
        formats: what to open it with if the source tells none.

    Raises:
        CorruptionError: images refer to each other in a loop.
        UnsupportedError: no plug-in opens its format, or there are more than `MAX_DEPTH` above it.
        ObjectNotFoundError: it is not there; see `Members.find`.
    """
    members = Members.of(source, name)
    found = members.find(reference, name, what, findings)
    above = (*source.above, name)
    if found in above:
        raise CorruptionError(f"{name}: its {what} {found} is an image that lies above it", structure=what)
    if len(above) >= MAX_DEPTH:
        raise UnsupportedError(f"{above[0]}: more than {MAX_DEPTH} images above one another")
    options = {key: value for key, value in source.options.items() if key not in _OWN_OPTIONS}
    if format_name is not None:
        options["format"] = format_name
    beneath = make_source(members, [found], {**options, "split": "no"}, source.formats or formats, above=above)
    if format_name is not None and all(known.name != format_name for known in beneath.formats):
        raise UnsupportedError(f"{name}: its {what} {found} is in {format_name} format, which no plug-in opens")
    if not beneath.size and format_name in (None, "raw"):  # nothing shows through, which is allowed
        raw = next((known for known in beneath.formats if known.name == "raw"), beneath.formats[-1])
        return found, raw, Disk(ColumnIndex.from_arrays(0, [], [], objects=[found]))
    chosen = find_format(beneath, beneath.formats)
    if format_name is None:
        findings.add(
            Severity.NOTE,
            f"{name} does not say in which format its {what} {found} is; it looks like {chosen.name}",
            structure=what,
        )
    disks = chosen.open(beneath, findings)
    if len(disks) != 1 or disks[0].store not in (None, members):
        raise UnsupportedError(f"{name}: its {what} {found} is not one disk in files that are found beside it")
    return found, chosen, disks[0]


def _is_windows(path: str) -> bool:
    """Whether a path can only be one of Windows: with a drive, or a share."""
    return bool(re.match(r"[A-Za-z]:[\\/]|\\\\", path))


def _key(folder: Path, inside: str) -> str:
    return f"{folder.as_posix().rstrip('/')}/{inside}"
