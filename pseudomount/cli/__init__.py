"""The command line.

`app` knows the commands and their options and nothing heavy; what a command does is a module of its own, imported when
it is asked for, so that `pseudomount --help` waits neither for numpy nor for pyarrow.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """The entry point of the `pseudomount` program; ends the process with its exit status."""
    from pseudomount.cli.app import app

    app(prog_name="pseudomount")
