"""What may be written where: names and links of a backup that must not leave the destination.

A backup may be forged, and its names come from another system. Every rule here is about the text alone; that no link of
the destination is followed is seen to where files are made.
"""

from __future__ import annotations

import os
import re
import sys

from pseudomount.filesystem.contract import NameEncoding
from pseudomount.filesystem.names import escape

__all__ = ["WINDOWS", "link_refusal", "local_name", "name_refusal"]

WINDOWS = sys.platform == "win32"

# With any extension, and with the superscript digits that Windows takes for 1, 2 and 3.
_DEVICES = re.compile(
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3])\s*(?:[.:].*)?", re.I | re.S
)
_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"/\\|?*]')


def name_refusal(name: str, *, windows: bool = WINDOWS) -> str:
    """Why no file of this name is made, or "".

    Args:
        name: one name of the backup, as a Python string.
        windows: whether the destination follows the rules of Windows.
    """
    if name in ("", ".", ".."):
        return "it is no name of a file"
    if "/" in name or "\0" in name:
        return 'a name cannot hold "/" or NUL'
    if not windows:
        return ""
    if _FORBIDDEN.search(name):  # "\" and ":" would lead elsewhere: to another folder, drive or stream
        return "Windows has no such name"
    if name[-1] in ". ":
        return "Windows drops the dot or space at its end"
    if _DEVICES.fullmatch(name):
        return "Windows takes it for a device"
    return ""


def local_name(name: str, encoding: NameEncoding) -> str:
    """The name as this system can have it: itself, or escaped where it cannot be encoded here."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return escape(name, encoding)
    return name


def link_refusal(target: str, depth: int, *, windows: bool = WINDOWS) -> str:
    """Why no link to `target` is made, or "".

    A target may climb at its beginning only: folders above the link are real ones that we made, whereas a ".." after
    the name of another link would climb from wherever that leads.

    Args:
        target: as the backup has it.
        depth: folders between the destination and the link.
        windows: whether the destination follows the rules of Windows.
    """
    if not target or "\0" in target:
        return "it leads nowhere"
    if windows:
        target = target.replace("\\", "/")
        if ":" in target:
            return "it leads outside"
    if target.startswith("/"):
        return "it leads outside"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    if climbs > depth or ".." in parts[climbs:]:
        return "it leads outside"
    return ""
