r"""The escaped form of names: always valid UTF-8, and reversible.

Names on a disk are bytes (ext) or UTF-16 units (NTFS) and need not be valid text; Arrow, JSON and HTTP take valid UTF-8
only. The escaped form is the name itself, except that

- a stray byte (a surrogate escape, U+DC80 to U+DCFF, in a `NameEncoding.BYTES` name) is written ``\xNN``,
- an unpaired surrogate (in a `NameEncoding.WTF8` name) is written ``\uNNNN``,
- a backslash that would begin such an escape is written ``\x5c``.

Where control characters would do harm (a terminal), `printable` writes these as ``\xNN`` too, and as ``\uNNNN`` the
ones that reorder text. `unescape` undoes all of it. So ``a\x2db``, as systemd names its units, stays as it is, and
a name that holds the four characters ``\xff`` is shown as ``\x5cxff``.
"""

from __future__ import annotations

import re

from pseudomount.filesystem.contract import NameEncoding

__all__ = ["escape", "printable", "unescape"]

# What reads as an escape: \xNN of a control character or of 0x5c, 0x7f to 0xff, and \uNNNN of a surrogate or a control.
_TAIL = r"(?:x(?:[01][0-9a-fA-F]|5[cC]|7[fF]|[89a-fA-F][0-9a-fA-F])|u(?:[dD][89a-fA-F]|00|06|20)[0-9a-fA-F]{2})"
_BACKSLASH = re.compile(r"\\(?=" + _TAIL + ")")
_ESCAPED = re.compile(r"\\(" + _TAIL + ")")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def escape(name: str, encoding: NameEncoding) -> str:
    """The escaped form of a name; the name itself where it is valid text without anything that reads as an escape."""
    if "\\" in name:
        name = _BACKSLASH.sub(r"\\x5c", name)
    if name.isascii():
        return name
    if encoding is NameEncoding.BYTES:
        return _SURROGATE.sub(lambda m: f"\\x{ord(m[0]) - 0xDC00:02x}", name)
    return _SURROGATE.sub(lambda m: f"\\u{ord(m[0]):04x}", name)


def printable(escaped: str) -> str:
    """An escaped name (or path) with the characters that would steer a terminal written as escapes."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 0x80 else f"\\u{ord(m[0]):04x}", escaped)


def unescape(text: str, encoding: NameEncoding) -> str:
    """The name that `escape`, and `printable` after it, made `text` of."""

    def undo(match: re.Match[str]) -> str:
        value = int(match[1][1:], 16)
        if match[1][0] == "x" and value >= 0x80:
            return chr(0xDC00 + value) if encoding is NameEncoding.BYTES else chr(value)
        return chr(value)

    return _ESCAPED.sub(undo, text) if "\\" in text else text
