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

__all__ = ["run_find"]


def run_find(common: Common, path: str | None, filters: Filters, *, long: bool, human: bool) -> int:
    """Prints what matches below a folder, or in every volume where no path was given."""

    def work(session: Session) -> None:
        if path is not None:
            _search(session, session.place(path), filters, long=long, human=human)
            return
        volumes = session.backup.browsable()
        if not volumes:
            for volume in session.backup.volumes:
                session.use(volume)
            raise NoFileSystemError(why_nothing(common, session))
        for volume in volumes:
            session.use(volume)
            try:
                _search(session, _root(session, volume), filters, long=long, human=human)
            except PseudomountError as error:  # this volume cannot be read; the next one may
                session.fail(error)

    return run(common, work)


def _root(session: Session, volume: BackupVolume) -> Place:
    return Place(volume, volume.root, volume_prefix(session.backup, volume))


def _search(session: Session, place: Place, filters: Filters, *, long: bool, human: bool) -> None:
    start = place.path.stat()
    if start.type is not FileType.DIRECTORY:
        raise PathNotDirectoryError(f"{place.path.escaped}: not a directory", path=place.path.escaped)
    tree = Tree(place.volume.fs, place.volume.name)
    encoding = tree.fs.name_encoding
    out = session.out
    widths = [10, 1, 1, 1, 8]  # batches come as they are found: columns that begin wide enough for most stay aligned
    details = long or out.json or filters.need_rows
    for batch in walk_batches(tree, start.file, str(place.path), rows=details):
        entries = Entries.of_batch(place.volume.name, tree.fs, batch)
        which = filters.select(entries)
        if out.json:
            out.lines(json_lines(entries, which))
            continue
        paths = [place.prefix + shown(entries.path(i), encoding) for i in which.tolist()]
        if long:
            paths = long_lines(entries, which, paths, colour=out.colour, human=human, widths=widths)
        out.lines(paths)
