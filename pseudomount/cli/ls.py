"""`pseudomount ls`."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from pseudomount.cli.entries import Entries, Int64s, json_lines, long_lines
from pseudomount.cli.options import Common
from pseudomount.cli.output import grid, paint, shown, type_colour
from pseudomount.cli.places import Place
from pseudomount.cli.session import Session, run
from pseudomount.cli.volumes import list_volumes, why_nothing
from pseudomount.errors import NoFileSystemError, PathNotDirectoryError
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.tree import Tree
from pseudomount.filesystem.walk import walk_batches

__all__ = ["run_ls"]

Show = Callable[[Entries, Int64s], None]


def run_ls(common: Common, path: str | None, *, long: bool, recursive: bool, human: bool) -> int:
    """Lists a folder or file, or the volumes where there are several and no path was given."""

    def work(session: Session) -> None:
        if path is None and len(session.backup.browsable()) != 1:
            list_volumes(session)
            if not session.backup.browsable():
                raise NoFileSystemError(why_nothing(common, session))
            return
        place = session.place(path or "/")
        out = session.out

        def show(entries: Entries, which: Int64s) -> None:
            encoding = entries.fs.name_encoding
            if out.json:
                out.lines(json_lines(entries, which))
                return
            names = [shown(entries.names[i], encoding) for i in which.tolist()]
            if long:
                out.lines(long_lines(entries, which, names, colour=out.colour, human=human))
            elif out.colour:
                kinds = entries.types[which].tolist()
                names = [name + "/" * (kind == FileType.DIRECTORY) for name, kind in zip(names, kinds, strict=True)]
                painted = [paint(name, type_colour(kind), True) for name, kind in zip(names, kinds, strict=True)]
                out.lines(grid(names, painted, shutil.get_terminal_size().columns))
            else:
                out.lines(names)

        details = long or out.json
        if recursive:
            _all_below(session, place, show, details=details)
        else:
            _one(place, show, details=details)

    return run(common, work)


def _one(place: Place, show: Show, *, details: bool) -> None:
    try:
        listing = place.path.listing()
    except PathNotDirectoryError:
        show(*_only(place, details=details))
        return
    entries = Entries.of_listing(place.volume.name, listing, rows=details)
    show(entries, entries.sorted_by_name()[0])


def _only(place: Place, *, details: bool) -> tuple[Entries, Int64s]:
    """A file as the one entry of its directory that it is."""
    path = place.path if str(place.path).strip("/") else place.path.resolve()
    listing = (path.parent if path.name else path).listing()
    names = [place.path.parser.normcase(name) for name in listing.names]
    file = place.path.stat(follow_symlinks=False).file
    same: list[int] = np.flatnonzero(listing.links.file == file).tolist()
    exact = [i for i in same if names[i] == place.path.parser.normcase(path.name)]
    entries = Entries.of_listing(place.volume.name, listing, rows=details)
    return entries, np.array((exact or same)[:1], np.int64)


def _all_below(session: Session, place: Place, show: Show, *, details: bool) -> None:
    tree = Tree(place.volume.fs, place.volume.name)
    start = place.path.stat()
    if start.type is not FileType.DIRECTORY:
        _one(place, show, details=details)
        return
    if start.file == tree.fs.root:  # one pass over the tables is faster than asking for every folder
        from pseudomount.cli.catalogued import load
        from pseudomount.filesystem.catalogue import CatalogueSource

        tree.source = CatalogueSource(load(place.volume), tree.fs)
    encoding = tree.fs.name_encoding
    first = True
    for batch in walk_batches(tree, start.file, str(place.path), rows=details):
        entries = Entries.of_batch(place.volume.name, tree.fs, batch)
        for directory, which in zip(entries.directories, entries.sorted_by_name(), strict=True):
            if not session.out.json:
                session.out.lines([("" if first else "\n") + f"{place.prefix}{shown(directory, encoding)}:"])
                first = False
            show(entries, which)
