"""`pseudomount stat`."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from pseudomount.cli.entries import permissions
from pseudomount.cli.options import Common
from pseudomount.cli.output import human_size, raw_if_escaped
from pseudomount.cli.places import Place
from pseudomount.cli.session import Session, run
from pseudomount.cli.times import iso_of_ns
from pseudomount.errors import PseudomountError
from pseudomount.filesystem.contract import FileType
from pseudomount.filesystem.names import escape, printable
from pseudomount.filesystem.path import BackupPath

__all__ = ["run_stat"]

_TIMES = (
    ("modified", "st_mtime_ns"),
    ("changed", "st_ctime_ns"),
    ("accessed", "st_atime_ns"),
    ("created", "st_birthtime_ns"),
)


def run_stat(common: Common, paths: list[str], *, follow: bool) -> int:
    """Shows each path; the ones that are not there cost themselves only."""

    def work(session: Session) -> None:
        for number, text in enumerate(paths):
            try:
                place = session.place(text)
                facts = _facts(place, follow)
            except PseudomountError as error:
                session.fail(error, text)
                continue
            if session.out.json:
                session.out.object(facts)
            else:
                session.out.lines(([""] if number else []) + _lines(facts, place))

    return run(common, work)


def _facts(place: Place, follow: bool) -> dict[str, object]:
    path = place.path
    found = path.stat(follow_symlinks=follow)
    encoding = place.volume.fs.name_encoding
    name = path.name
    facts: dict[str, object] = {"volume": place.volume.name, "path": path.escaped, "name": escape(name, encoding)}
    raw = raw_if_escaped(name, escape(name, encoding), encoding)
    if raw is not None:
        facts["name_raw"] = raw
    mode = found.st_mode if found.has_mode else -1
    facts |= {
        "type": found.type.word,
        "size": found.st_size,
        "allocated": found.st_blocks * 512,
        "mode": mode if found.has_mode else None,
        "permissions": permissions(int(found.type), mode, 0 if found.has_mode else found.flags & 0xFFFF),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "links": found.st_nlink,
        "inode": found.st_ino,
        "generation": found.generation if found.generation >= 0 else None,
        "subvolume": found.subvolume,
        "flags": found.flags,
    }
    for key, attribute in _TIMES:
        ns = getattr(found, attribute)
        facts[key], facts[f"{key}_ns"] = iso_of_ns(ns), ns
    if found.type is FileType.SYMLINK:
        target = str(path.readlink())
        facts["target"] = escape(target, encoding)
        raw = raw_if_escaped(target, escape(target, encoding), encoding)
        if raw is not None:
            facts["target_raw"] = raw
    facts["extra"] = dict(found.extra)
    facts |= _attached(path, follow)
    return facts


def _attached(path: BackupPath, follow: bool) -> dict[str, object]:
    """Extended attributes (base64) and named streams; that they cannot be read does not keep back the rest."""
    found: dict[str, object] = {}
    try:
        found["xattrs"] = {
            printable(name.encode("utf-8", "backslashreplace").decode("utf-8")): base64.b64encode(value).decode("ascii")
            for name, value in path.xattrs(follow_symlinks=follow).items()
        }
    except PseudomountError as error:
        found["xattrs_error"] = str(error)
    try:
        streams = path.streams() if follow or not path.is_symlink() else []
        found["streams"] = [
            {
                "name": stream.name.encode("utf-8", "backslashreplace").decode("utf-8"),
                "size": stream.size,
                "allocated": stream.allocated,
            }
            for stream in streams
        ]
    except PseudomountError as error:
        found["streams_error"] = str(error)
    return found


def _lines(facts: Mapping[str, object], place: Place) -> list[str]:
    size, allocated = int(str(facts["size"])), int(str(facts["allocated"]))
    mode = facts["mode"]
    kind = str(facts["type"])
    rows = [
        ("path", f"{place.prefix or place.volume.name + ':'}{facts['path']}"),
        ("type", kind + (f" -> {facts['target']}" if "target" in facts else "")),
        ("size", f"{size:,} bytes" + (f" ({human_size(size)})" if size >= 1024 else "")),
        ("allocated", f"{allocated:,} bytes" + (", sparse" if kind == "file" and allocated < size // 2 else "")),
        ("mode", f"{facts['permissions']}" + (f" ({int(str(mode)) & 0o7777:04o})" if mode is not None else "")),
        ("owner", f"{_or_dash(facts['uid'])}:{_or_dash(facts['gid'])}"),
        ("links", str(facts["links"])),
        ("inode", f"{facts['inode']}" + (f" (generation {facts['generation']})" if facts["generation"] else "")),
        *((key, _or_dash(facts[key])) for key, _ in _TIMES),
        ("flags", f"{facts['flags']:#x}"),
    ]
    rows += [(key, str(value)) for key, value in _mapping(facts["extra"]).items() if value not in (0, -1, None)]
    rows += [
        (f"xattr {key}", _readable(base64.b64decode(str(value))))
        for key, value in _mapping(facts.get("xattrs", {})).items()
    ]
    streams = facts.get("streams", [])
    if isinstance(streams, list):
        rows += [("stream " + stream["name"], f"{stream['size']:,} bytes") for stream in streams]
    rows += [(key.replace("_", " "), str(facts[key])) for key in ("xattrs_error", "streams_error") if key in facts]
    wide = max(len(key) for key, _ in rows)
    return [f"{printable(key):<{wide}}  {printable(value)}" for key, value in rows]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _readable(value: bytes) -> str:
    """A value as text where it is text, else in hexadecimal."""
    text = value.rstrip(b"\0").decode("utf-8", "replace")
    if text.isprintable() and "\ufffd" not in text:
        return text
    return f"0x{value[:64].hex()}" + (f"… ({len(value)} bytes)" if len(value) > 64 else "")
