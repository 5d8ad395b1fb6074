"""`pseudomount du`."""

from __future__ import annotations

from pseudomount.cli.catalogued import load
from pseudomount.cli.options import Common
from pseudomount.cli.output import human_size
from pseudomount.cli.places import Place, volume_prefix
from pseudomount.cli.session import Session, run
from pseudomount.cli.volumes import why_nothing
from pseudomount.errors import NoFileSystemError, PathNotDirectoryError, PseudomountError
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.names import printable

__all__ = ["run_du"]


def run_du(common: Common, path: str | None, *, depth: int | None, human: bool) -> int:
    """Prints what folders hold, those below a folder, or those of every volume where no path was given."""

    def work(session: Session) -> None:
        if path is not None:
            _sums(session, session.place(path), depth, human)
            return
        volumes = session.backup.browsable()
        if not volumes:
            for volume in session.backup.volumes:
                session.use(volume)
            raise NoFileSystemError(why_nothing(common, session))
        for volume in volumes:
            session.use(volume)
            try:
                _sums(session, Place(volume, volume.root, volume_prefix(session.backup, volume)), depth, human)
            except PseudomountError as error:  # this volume cannot be read; the next one may
                session.fail(error)

    return run(common, work)


def _sums(session: Session, place: Place, depth: int | None, human: bool) -> None:
    start = place.path.stat()
    if start.type is not FileType.DIRECTORY:
        raise PathNotDirectoryError(f"{place.path.escaped}: not a directory", path=place.path.escaped)
    rows = load(place.volume).du(depth, under=start.file).to_pylist()
    if session.out.json:
        for row in rows:
            session.out.object({"volume": place.volume.name, **row})
        return
    size = human_size if human else str
    lines = []
    for row in rows:
        sums = f"{size(row['allocated']):>12} {size(row['size']):>12} {row['files']:>9}"
        lines.append(f"{sums}  {place.prefix}{printable(row['path'])}")
    session.out.lines(lines)
