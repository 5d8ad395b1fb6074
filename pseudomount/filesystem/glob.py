"""Patterns with pathlib's meaning, matched level by level so that the directories of a level are one batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from fnmatch import translate
from typing import TYPE_CHECKING, TypeVar

from pseudomount.errors import DamageError, UsageError

if TYPE_CHECKING:
    from pseudomount.filesystem.path import BackupPath

__all__ = ["matcher", "select"]

P = TypeVar("P", bound="BackupPath")

_MAGIC = re.compile(r"[*?\[]")


def matcher(pattern: str, case_sensitive: bool) -> Callable[[str], bool]:
    """Whether a name matches a pattern of one part, with `*`, `?` and `[…]`."""
    match = re.compile(translate(pattern), 0 if case_sensitive else re.IGNORECASE).match
    return lambda name: match(name) is not None


def select(root: P, pattern: str, recurse_symlinks: bool) -> Iterator[P]:
    """The paths below `root` that match `pattern`, each once.

    Raises:
        UsageError: the pattern is empty or starts with "/".
    """
    parts = [part for part in pattern.split("/") if part and part != "."]
    if pattern.startswith("/"):
        raise UsageError(f"pattern {pattern!r}: patterns are relative to the path they are asked of")
    if not parts:
        raise UsageError(f"pattern {pattern!r} is empty")
    directories_only = pattern.endswith("/")
    found = _select(root, parts, recurse_symlinks)
    return (path for path in found if path.is_dir()) if directories_only else found


def _select(root: P, parts: list[str], recurse_symlinks: bool) -> Iterator[P]:
    paths: Iterable[P] = (root,)
    seen_twice = parts.count("**") > 1
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            if number and parts[number - 1] == "**":
                continue
            paths = _descend(paths, files=last, recurse_symlinks=recurse_symlinks)
        elif part == "..":
            paths = (path / ".." for path in paths if _enters(path))
        elif _MAGIC.search(part) is None and root.parser.normcase("Aa") == "Aa":
            paths = _literal(paths, part)
        else:
            paths = _wild(paths, matcher(part, root.parser.normcase("Aa") == "Aa"))
    return _once(paths) if seen_twice else iter(paths)


def _enters(path: BackupPath, follow_symlinks: bool = True) -> bool:
    """Whether the path is a directory; one that is too damaged to tell is a finding already, and not entered."""
    try:
        return path.is_dir(follow_symlinks=follow_symlinks)
    except DamageError:
        return False


def _literal(paths: Iterable[P], name: str) -> Iterator[P]:
    for path in paths:
        if _enters(path):
            child = path / name
            if child.exists(follow_symlinks=False):
                yield child


def _wild(paths: Iterable[P], match: Callable[[str], bool]) -> Iterator[P]:
    for path in paths:
        if _enters(path):
            for child in path._children():
                if match(child.name):
                    yield child


def _descend(paths: Iterable[P], *, files: bool, recurse_symlinks: bool) -> Iterator[P]:
    """Each path that is a directory and all directories below it, and with `files` everything below."""
    for top in paths:
        if not _enters(top):
            continue
        yield top
        seen = {top.stat().file}  # a damaged disk can make a directory its own descendant
        stack = [iter(top._children())]
        while stack:
            child = next(stack[-1], None)
            if child is None:
                stack.pop()
                continue
            enter = _enters(child, recurse_symlinks)
            if enter or files:
                yield child
            if enter:
                file = child._target().file
                if file not in seen:
                    seen.add(file)
                    stack.append(iter(child._children()))


def _once(paths: Iterable[P]) -> Iterator[P]:
    seen: set[str] = set()
    for path in paths:
        if str(path) not in seen:
            seen.add(str(path))
            yield path
