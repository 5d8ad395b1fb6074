"""`pseudomount cat`."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator

from pseudomount.cli.options import Common
from pseudomount.cli.places import Place
from pseudomount.cli.session import Session, run
from pseudomount.device import DeviceReader
from pseudomount.errors import PseudomountError

__all__ = ["run_cat"]

_PIECE = 4 << 20
_JSON_PIECE = 48 << 10  # a line of 64 KiB


def run_cat(common: Common, paths: list[str]) -> int:
    """Writes files to standard output; what comes before damage is written."""

    def work(session: Session) -> None:
        for text in paths:
            try:
                place = session.place(text)
                if session.out.json:
                    for offset, data in _pieces(place, _JSON_PIECE):
                        where = {"volume": place.volume.name, "path": place.path.escaped, "offset": offset}
                        session.out.object({**where, "data": base64.b64encode(data).decode("ascii")})
                else:
                    for _, data in _pieces(place, _PIECE):
                        sys.stdout.buffer.write(data)
            except PseudomountError as error:
                sys.stdout.buffer.flush()
                session.fail(error, text)
        sys.stdout.buffer.flush()

    return run(common, work)


def _pieces(place: Place, size: int) -> Iterator[tuple[int, bytes]]:
    """The content piece by piece; before damage comes what is before it, to the sector."""
    with DeviceReader(place.path.device(), owns=True) as reader:
        offset = 0
        while piece := reader.read(size):
            yield offset, piece
            offset += len(piece)
