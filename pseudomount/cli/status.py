"""Exit statuses, and how what went wrong becomes one line and one of them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Final

from pseudomount.errors import (
    AmbiguousVolumeError,
    ObjectNotFoundError,
    PathError,
    PseudomountError,
    UsageError,
    VolumeNotFoundError,
)

__all__ = [
    "DAMAGED",
    "INTERNAL",
    "INTERRUPTED",
    "NOT_FOUND",
    "OK",
    "PIPE_CLOSED",
    "USAGE",
    "is_broken_pipe",
    "report",
    "silence_stdout",
    "status_of",
]

OK: Final = 0
NOT_FOUND: Final = 1  # a source, volume or path that is not there, or not of the kind that was needed
USAGE: Final = 2
DAMAGED: Final = 3  # what was asked for is damaged, not supported, or could not be read or written
INTERNAL: Final = 70  # a defect of ours; EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # as a shell says it of a program that SIGINT ended
PIPE_CLOSED: Final = 141  # the same of SIGPIPE


def status_of(error: BaseException) -> int:
    """The exit status that an error of ours leads to."""
    if isinstance(error, UsageError | AmbiguousVolumeError):
        return USAGE
    if isinstance(error, ObjectNotFoundError | PathError | VolumeNotFoundError):
        return NOT_FOUND
    return DAMAGED


def is_broken_pipe(error: OSError) -> bool:
    """Whether the reader of our output went away; Windows says so by another number."""
    return error.errno == errno.EPIPE or (sys.platform == "win32" and error.errno == errno.EINVAL)


def silence_stdout() -> None:
    """Sends what is still buffered for a reader that went away nowhere, so that leaving prints nothing."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass  # no descriptor behind it: nothing will be flushed


def report(error: BaseException) -> int:
    """Prints one line on stderr for an error that ended a command, and returns the exit status.

    With PSEUDOMOUNT_DEBUG set, the traceback as well.
    """
    if os.environ.get("PSEUDOMOUNT_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    if isinstance(error, PseudomountError):
        _say(str(error))
        return status_of(error)
    if (
        isinstance(error, OSError) and error.strerror
    ):  # of the machine we run on: a full disk, a folder without permission
        _say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
        return DAMAGED
    wrong = getattr(error, "format_message", None)  # typer's own, whose class has moved between its versions
    if wrong is not None:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        _say(f"{wrong().rstrip('.')}{hint}")
        return int(getattr(error, "exit_code", USAGE))
    _say(
        f"internal error, please report it: {type(error).__name__}: {error}"
        + ("" if os.environ.get("PSEUDOMOUNT_DEBUG") else " (PSEUDOMOUNT_DEBUG=1 shows where)")
    )
    return INTERNAL


def _say(message: str) -> None:
    sys.stdout.flush()
    text = " ".join(message.split("\n"))
    text = "".join(char if char.isprintable() or char == " " else f"\\x{ord(char):02x}" for char in text)
    print(f"pseudomount: {text}", file=sys.stderr)
