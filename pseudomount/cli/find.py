"""`pseudomount find`."""

from __future__ import annotations

from pseudomount.api import BackupVolume
from pseudomount.cli.entries import Entries, json_lines, long_lines
from pseudomount.cli.filters import Filters
from pseudomount.cli.options import Common
from pseudomount.cli.output import shown
from pseudomount.cli.places import Place, volume_prefix
from pseudomount.cli.session import Session, run
from pseudomount.cli.volumes import why_nothing
from pseudomount.errors import NoFileSystemError, PathNotDirectoryError, PseudomountError
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.tree import Tree
from pseudomount.filesystem.walk import walk_batches

__all__ = ["DELETED", "run_find"]

#: What stands behind the path of something that was deleted.
DELETED = " (deleted)"
#: Batches come as they are found: columns that begin wide enough for most stay aligned.
_WIDTHS = (10, 1, 1, 1, 8)


def run_find(
    common: Common, path: str | None, filters: Filters, *, long: bool, human: bool, deleted: bool = False
) -> int:
    """Prints what matches below a folder, or in every volume where no path was given."""

    def work(session: Session) -> None:
        def search(place: Place) -> None:
            start = place.path.stat()
            if start.type is not FileType.DIRECTORY:
                raise PathNotDirectoryError(f"{place.path.escaped}: not a directory", path=place.path.escaped)
            # One pass over the tables is faster than a walk over all folders, and a walk over a few than that pass.
            if deleted or start.file == place.volume.fs.root:
                _catalogued(session, place, start.file, filters, long=long, human=human, deleted=deleted)
            else:
                _walked(session, place, start.file, filters, long=long, human=human)

        if path is not None:
            search(session.place(path))
            return
        volumes = session.backup.browsable()
        if not volumes:
            for volume in session.backup.volumes:
                session.use(volume)
            raise NoFileSystemError(why_nothing(common, session))
        for volume in volumes:
            session.use(volume)
            try:
                search(_root(session, volume))
            except PseudomountError as error:  # this volume cannot be read; the next one may
                session.fail(error)

    return run(common, work)


def _root(session: Session, volume: BackupVolume) -> Place:
    return Place(volume, volume.root, volume_prefix(session.backup, volume))


def _catalogued(
    session: Session, place: Place, start: int, filters: Filters, *, long: bool, human: bool, deleted: bool
) -> None:
    """In the order of the catalogue: that in which the parser reads its tables."""
    from pseudomount.cli.catalogued import chosen, entries_of, load, pieces, plain_lines, shown_paths

    out = session.out
    widths = list(_WIDTHS)
    for piece in pieces(chosen(load(place.volume, deleted=deleted), filters, under=start)):
        if out.json:
            out.lines(json_lines(*entries_of(place.volume, piece)))
            continue
        plain = None if long or deleted else plain_lines(piece, place.prefix)
        if plain is not None:
            out.text(plain)
            continue
        paths = shown_paths(piece)
        gone = piece.arrow["deleted"].to_pylist() if deleted else [False] * len(paths)
        paths = [place.prefix + path + DELETED * lost for path, lost in zip(paths, gone, strict=True)]
        if long:
            paths = long_lines(*entries_of(place.volume, piece), paths, colour=out.colour, human=human, widths=widths)
        out.lines(paths)


def _walked(session: Session, place: Place, start: int, filters: Filters, *, long: bool, human: bool) -> None:
    """Level by level, in the order of the disk."""
    tree = Tree(place.volume.fs, place.volume.name)
    encoding = tree.fs.name_encoding
    out = session.out
    widths = list(_WIDTHS)
    details = long or out.json or filters.need_rows
    for batch in walk_batches(tree, start, str(place.path), rows=details):
        entries = Entries.of_batch(place.volume.name, tree.fs, batch)
        which = filters.select(entries)
        if out.json:
            out.lines(json_lines(entries, which))
            continue
        paths = [place.prefix + shown(entries.path(i), encoding) for i in which.tolist()]
        if long:
            paths = long_lines(entries, which, paths, colour=out.colour, human=human, widths=widths)
        out.lines(paths)
