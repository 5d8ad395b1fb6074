"""`pseudomount catalogue`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pseudomount.cli.bodyfile import body_lines
from pseudomount.cli.catalogued import entries_of, pieces
from pseudomount.cli.entries import json_lines
from pseudomount.cli.options import Common
from pseudomount.cli.places import Place
from pseudomount.cli.progress import progress_bar
from pseudomount.cli.session import Session, run
from pseudomount.errors import UsageError
from pseudomount.filesystem.catalogue import Catalogue

__all__ = ["run_catalogue"]

Write = Callable[[IO[bytes], Place, Catalogue], None]


def run_catalogue(
    common: Common, volume: str | None, output: str | None, *, bodyfile: bool, deleted: bool, own: bool
) -> int:
    """Writes the catalogue of a volume to a file, or as a body file to standard output.

    Args:
        output: the file; what it becomes is told by its suffix.
        bodyfile: a body file, whatever the suffix.
        own: with the parser's own columns.
    """
    if output is None and common.json:
        raise UsageError("a body file on standard output cannot share it with --json; write it to a file with -o")
    write = _body if bodyfile else _writer(output)

    def work(session: Session) -> None:
        place = session.place(volume or "/")
        with progress_bar(f"Reading {place.volume.name}") as progress:
            found = place.volume.catalogue(deleted=deleted, extra=own and not bodyfile, progress=progress)
        if output is None:
            sys.stdout.flush()
            write(sys.stdout.buffer, place, found)
            sys.stdout.buffer.flush()
            return
        with _whole_or_nothing(Path(output)) as file:
            write(file, place, found)
        if session.out.json:
            session.out.object({"volume": place.volume.name, "rows": len(found), "output": output})
        else:
            session.out.lines([f"{len(found)} rows of {place.volume.name} are in {output}"])

    return run(common, work)


def _writer(output: str | None) -> Write:
    if output is None:
        raise UsageError("where to? -o FILE.parquet, .csv, .jsonl or .body; or --bodyfile for standard output")
    writers: dict[str, Write] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".body": _body}
    try:
        return writers[Path(output).suffix.lower()]
    except KeyError:
        raise UsageError(f"-o {output}: the name must end in {', '.join(writers)}") from None


@contextmanager
def _whole_or_nothing(path: Path) -> Iterator[IO[bytes]]:
    """A file that has its name when all of it is written."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _parquet(file: IO[bytes], place: Place, found: Catalogue) -> None:
    found.to_parquet(file)


def _csv(file: IO[bytes], place: Place, found: Catalogue) -> None:
    """All columns but the raw names, which the escaped ones tell as well."""
    import pyarrow as pa
    import pyarrow.csv

    table = found.to_arrow().drop_columns(["name_raw"])
    at = table.column_names.index("type")
    table = table.set_column(at, "type", table["type"].cast(pa.string()))
    pyarrow.csv.write_csv(table, file)


def _jsonl(file: IO[bytes], place: Place, found: Catalogue) -> None:
    """As `find --json` prints them, the root as well."""
    for piece in pieces(found):
        file.write("".join(f"{line}\n" for line in json_lines(*entries_of(place.volume, piece))).encode())


def _body(file: IO[bytes], place: Place, found: Catalogue) -> None:
    for piece in pieces(found):
        file.write("".join(f"{line}\n" for line in body_lines(piece)).encode())
