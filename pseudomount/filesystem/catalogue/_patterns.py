"""fnmatch's patterns as the regular expressions that Arrow's kernels take (RE2)."""

from __future__ import annotations

import re
from fnmatch import translate

__all__ = ["glob_to_re2"]

#: Matches no character.
_NEVER = r"[^\x{0}-\x{10FFFF}]"
_LETTER = re.compile(r"\\?.", re.DOTALL)


def glob_to_re2(pattern: str) -> str:
    """An expression that matches the whole names that `fnmatch.fnmatchcase` matches with this pattern.

    Names are valid text: what asks for a surrogate matches none.
    """
    out = ["(?s)^"]
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            if out[-1] != ".*":
                out.append(".*")
        elif letter == "?":
            out.append(".")
        elif letter == "[":
            # The first letter of a class, after "!", may be "]" itself.
            end = pattern.find("]", at + 1 + (pattern[at : at + 1] == "!"))
            if end < 0:
                out.append(r"\[")
            else:
                out.append(_class(pattern[at:end]))
                at = end + 1
        else:
            out.append(_literal(letter))
    return "".join(out) + "$"


def _class(text: str) -> str:
    """What is between the brackets, as Python reads it: its own translation is read here, in all its oddities."""
    shown = translate(f"[{text}]").removeprefix("(?s:")
    body = shown[: shown.rindex(")")]
    if body == "(?!)":
        return _NEVER
    if body == ".":
        return "."
    body = body[1:-1]
    negated = body.startswith("^")
    letters = [(m[0][-1], len(m[0]) > 1) for m in _LETTER.finditer(body, negated)]
    parts = []
    at = 0
    while at < len(letters):
        first = last = letters[at][0]
        if letters[at + 1 : at + 2] == [("-", False)] and at + 2 < len(letters):
            last = letters[at + 2][0]
            at += 2
        at += 1
        parts.append(f"{_code(first)}-{_code(last)}")
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _code(letter: str) -> str:
    return f"\\x{{{ord(letter):X}}}"


def _literal(letter: str) -> str:
    if "\ud800" <= letter <= "\udfff":
        return _NEVER
    return _code(letter) if not letter.isalnum() else letter
