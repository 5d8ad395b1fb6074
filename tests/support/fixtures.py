"""The images of `fixtures/` and what an independent reader saw in them; needs no tool of the system."""

from __future__ import annotations

import functools
import json
import lzma
from pathlib import Path
from typing import Any

from tests.support.entries import FIELDS, Entry, unescape

FOLDER = Path(__file__).parents[2] / "fixtures"
_STEP = 1 << 20


def fixture_names() -> list[str]:
    """All images, by name."""
    return sorted(path.name.removesuffix(".img.xz") for path in FOLDER.glob("*.img.xz"))


@functools.lru_cache(maxsize=2)
def fixture_image(name: str) -> bytes:
    """The bytes of an image."""
    return lzma.decompress((FOLDER / f"{name}.img.xz").read_bytes())


def fixture_path(name: str, folder: Path) -> Path:
    """The image as a sparse file in a folder."""
    path = folder / f"{name}.img"
    data = memoryview(fixture_image(name))
    with path.open("wb") as file:
        for at in range(0, len(data), _STEP):
            piece = bytes(data[at : at + _STEP])
            if piece.strip(b"\0"):
                file.seek(at)
                file.write(piece)
        file.truncate(len(data))
    return path


@functools.cache
def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


def fixture_header(name: str) -> dict[str, Any]:
    """Who read the image, with what, its size and SHA-256, and its volumes."""
    return dict(_lines(name)[0])


def fixture_manifest(name: str, volume: str | None = None) -> list[dict[str, Any]]:
    """One row a path (of one volume), without a leading slash; stray bytes of names as surrogate escapes."""
    rows = [row for row in _lines(name)[1:] if volume in {None, row["volume"]}]
    return [
        {
            **row,
            **{
                key: unescape(row[key]).decode("utf-8", "surrogateescape")
                for key in ("path", "target")
                if row.get(key) is not None
            },
        }
        for row in rows
    ]


def fixture_tree(name: str, volume: str = "disk0") -> dict[bytes, Entry]:
    """The same as `Entry`s, to compare with `tests.support.entries.assert_same`."""
    tree = {}
    whole = fixture_header(name)["tool"] == "kernel"  # debugfs was not asked for attributes
    for row in _lines(name)[1:]:
        if row["volume"] != volume:
            continue
        values = {key: value for key, value in row.items() if key in FIELDS}  # the others are one file system's own
        if values.get("target") is not None:
            values["target"] = unescape(values["target"])
        if values.get("rdev"):
            values["rdev"] = tuple(values["rdev"])
        if whole:
            values["xattrs"] = {unescape(key): bytes.fromhex(value) for key, value in values.get("xattrs", {}).items()}
        tree[unescape(row["path"])] = Entry(**values)
    return tree
