"""fnmatch's patterns as the regular expressions that Arrow's kernels take (RE2)."""

from __future__ import annotations

import re

__all__ = ["glob_to_re2"]


def glob_to_re2(pattern: str) -> str:
    """An expression that matches the whole names that `fnmatch.fnmatchcase` matches with this pattern."""
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
    negated = text.startswith("!")
    body = text[1:] if negated else text
    parts = []
    at = 0
    while at < len(body):
        first = body[at]
        if body[at + 1 : at + 2] == "-" and at + 2 < len(body):
            last = body[at + 2]
            if first <= last:  # a range that runs backwards holds nothing
                parts.append(f"{_code(first)}-{_code(last)}")
            at += 3
        else:
            parts.append(_code(first))
            at += 1
    if not parts:
        return "." if negated else r"[^\x{0}-\x{10FFFF}]"
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _code(letter: str) -> str:
    return f"\\x{{{ord(letter):X}}}"


def _literal(letter: str) -> str:
    return _code(letter) if ord(letter) < 32 else re.escape(letter) if letter.isascii() else letter
