"""Completion of volumes and of paths inside an image; quick, and silent whatever is wrong."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pseudomount.api import Backup, BackupVolume

__all__ = ["bash_words", "complete_parser", "complete_path"]

_COMPLETING = "_PSEUDOMOUNT_COMPLETE"
#: Folders that hold nothing but one folder, gone into at once.
_DEEP = 16
#: What a word of bash needs no backslash for.
_PLAIN = re.compile(r"[^\w./:=@%+,-]")


@contextmanager
def bash_words() -> Iterator[None]:
    """Makes completion in bash work for words with a ":" or a space.

    To bash a ":" separates words, so `disk0p2:/etc` arrives as three, and what we answer replaces the last one only.
    So the words are put together before anyone looks at them, and their beginning is cut off every answer. There, too,
    what means something to bash gets a backslash.
    """
    if os.environ.get(_COMPLETING) != "complete_bash" or "COMP_WORDS" not in os.environ:
        yield
        return
    kept, quoted = _mend()
    answers = io.StringIO()
    try:
        with redirect_stdout(answers):
            yield
    finally:
        lines = [line[len(kept) :] if line.startswith(kept) else line for line in answers.getvalue().splitlines()]
        sys.stdout.write("\n".join(line if quoted else _PLAIN.sub(r"\\\g<0>", line) for line in lines))
        sys.stdout.flush()


def _mend() -> tuple[str, bool]:
    """Rewrites the words in the environment; what bash keeps of the last one, and whether that begins with a quote."""
    try:
        at = int(os.environ["COMP_CWORD"])
    except (KeyError, ValueError):
        return "", False
    # One word a line, as the script of the shell hands them over. The last one may be missing when it is empty.
    words = os.environ["COMP_WORDS"].split("\n")[: at + 1]
    words += [""] * (at + 1 - len(words))
    merged: list[str] = []
    for word in words:
        if len(merged) > 1 and not merged[-1].startswith("-") and (word.startswith(":") or merged[-1].endswith(":")):
            merged[-1] += word
        else:
            merged.append(word)
    os.environ["COMP_WORDS"] = "\n".join(merged)
    os.environ["COMP_CWORD"] = str(len(merged) - 1)
    head, colon, _ = merged[-1].rpartition(":")
    return (head + colon).replace("\\", ""), merged[-1][:1] in ("'", '"')


def complete_parser(incomplete: str) -> list[str]:
    """Names of parsers."""
    try:
        from pseudomount._plugins import PARSERS, plugin_names

        return [name for name in plugin_names(PARSERS) if name.startswith(incomplete)]
    except Exception:  # completion never disturbs the line that is being typed
        return []


# `ctx: Any`: the class has moved between versions of typer, which finds it by the parameter's name.
def complete_path(ctx: Any, args: list[str], incomplete: str) -> list[str]:
    """Volumes, and entries of folders, that begin with `incomplete`."""
    try:
        from pseudomount.api import open_backup

        source = ctx.params.get("source")
        sources = [source] if isinstance(source, str) else list(source or ())
        sources += ctx.params.get("disk") or ()
        if not sources:
            return []
        store_options = _hasty(sources, ctx.params.get("store_option") or ())
        texts = [text.partition("=") for text in ctx.params.get("option") or ()]
        options = {key: value for key, equals, value in texts if key and equals}
        if ctx.params.get("backing_root"):
            options["backing_root"] = ctx.params["backing_root"]
        parser = ctx.params.get("parser")
        with open_backup(*sources, parser=parser, options=options, store_options=store_options) as backup:
            return _candidates(backup, incomplete)
    except Exception:  # as above
        return []


def _hasty(sources: list[str], texts: Sequence[str]) -> dict[str, str]:
    """The options of a store, so that a server which does not answer soon is not waited for."""
    options = {key: value for key, _, value in (text.partition("=") for text in texts)}
    if not sources[0].startswith(("http", "s3", "gs", "gcs", "az", "abfs")) or "://" not in sources[0]:
        return options
    return {**options, "timeout": "5s", "connect_timeout": "2s", "max_retries": "1", "retry_timeout": "5s"}


def _candidates(backup: Backup, incomplete: str) -> list[str]:
    browsable = backup.browsable()
    head, colon, rest = incomplete.partition(":")
    if colon and "/" not in head:
        return [f"{head}:{path}" for path in _paths(backup.volumes[head], rest)]
    if len(browsable) == 1:
        return _paths(browsable[0], incomplete)
    names = [name for volume in browsable for name in (volume.name, volume.label) if name]
    fitting = [f"{name}:/" for name in names if name.startswith(incomplete) and re.fullmatch(r"[\w.-]+", name)]
    if len(fitting) == 1:  # go on inside, so that the shell does not end the word with a space
        return [f"{fitting[0][:-1]}{path}" for path in _paths(backup.volumes[fitting[0][:-2]], "/")] or fitting
    return fitting


def _paths(volume: BackupVolume, incomplete: str) -> list[str]:
    """The paths that begin so. A folder alone is gone into: the shell would end the word with a space."""
    found = _entries(volume, incomplete)
    for _ in range(_DEEP):
        if len(found) != 1 or not found[0].endswith("/"):
            break
        found = _entries(volume, found[0]) or found
    return found


def _entries(volume: BackupVolume, incomplete: str) -> list[str]:
    """The paths that begin so; folders end in "/"."""
    from pseudomount.cli.output import shown
    from pseudomount.filesystem.contract import FileType

    folder, slash, start = incomplete.rpartition("/")
    listing = volume.path(folder + slash or "/").listing()
    encoding = volume.fs.name_encoding
    found = []
    for name, kind in zip(listing.names, listing.types.tolist(), strict=True):
        text = shown(name, encoding)
        if text.startswith(start):
            found.append(folder + slash + text + "/" * (kind == FileType.DIRECTORY))
    return sorted(found)
