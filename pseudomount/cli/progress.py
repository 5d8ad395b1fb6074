"""A progress bar on a terminal, for what takes over a second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["progress_bar"]

#: Seconds before anything is shown.
_PATIENCE = 1.0


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[float], object] | None]:
    """Gives a function to tell how much is done, 0 to 1; None where standard error is no terminal.

    The bar shows up after a second, and is gone at the end.
    """
    if not sys.stderr.isatty():
        yield None
        return
    begun = time.monotonic()
    shown: list[tuple[Progress, TaskID]] = []

    def tell(done: float) -> None:
        if not shown and time.monotonic() - begun > _PATIENCE and done < 1:
            from rich.console import Console
            from rich.progress import Progress

            bar = Progress(console=Console(stderr=True), transient=True)
            bar.start()
            shown.append((bar, bar.add_task(what, total=1.0)))
        for bar, task in shown:
            bar.update(task, completed=done)

    try:
        yield tell
    finally:
        for bar, _ in shown:
            bar.stop()
