"""Names as `lookup` and a reader without keys see them.

Case folding: the kernel folds with Unicode 12.1's NFDICF: canonical decomposition, full case folding, and
code points that are ignorable by default left out. Ours is Python's own tables for the first two, of a newer Unicode:
names that use letters assigned since then fold here and not there. A name that is no UTF-8 equals itself only.

Encrypted names: shown as fscrypt shows them to who has no key ("No-key names" in the kernel's fscrypt documentation):
base64url without padding of the name's hash in the directory, and its first 149 bytes, and for the rest its SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import unicodedata
from typing import Final

from pseudomount_ext._htree import name_hash

__all__ = ["fold", "no_key_name"]

_IGNORABLE: Final = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SHOWN: Final = 149


def fold(name: bytes) -> bytes:
    """What two names of a casefolded directory have in common when they are the same to it."""
    if name.isascii():
        return name.lower()
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return name
    # Folding can bring letters that decompose, and decomposing letters that fold.
    for _ in range(2):
        text = unicodedata.normalize("NFD", text).casefold()
    return _IGNORABLE.sub("", unicodedata.normalize("NFD", text)).encode()


def no_key_name(name: bytes, version: int, seed: tuple[int, int, int, int]) -> bytes:
    """An encrypted name as it is shown without the key; "." and ".." are never encrypted."""
    if name in (b".", b".."):
        return name
    raw = struct.pack("<II", *name_hash(name, version, seed)) + name[:_SHOWN]
    if len(name) > _SHOWN:
        raw += hashlib.sha256(name[_SHOWN:]).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
