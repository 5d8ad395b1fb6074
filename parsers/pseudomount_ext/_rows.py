"""Inodes as the columns that the contract has."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import NAT, TimeColumn
from pseudomount.filesystem.contract import FileRows, FileType
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes

__all__ = ["file_rows", "joined", "name_rows"]


def file_rows(inodes: Inodes, errors: dict[int, PseudomountError], files: NDArray[np.uint64] | None = None) -> FileRows:
    """What is known of files.

    Args:
        inodes: theirs.
        errors: row → why it is no file.
        files: uint64 (n,), the ids that were asked for, where some of them are none that an inode can have.
    """
    kind = inodes.type
    if errors:
        kind = kind.copy()
        kind[list(errors)] = FileType.UNKNOWN
    number = inodes.number.astype(np.uint64)
    return FileRows(
        file=number if files is None else files,
        subvolume=np.zeros(len(inodes), np.uint64),
        inode=number,
        generation=inodes.generation,
        type=kind,
        size=inodes.size,
        allocated=inodes.allocated,
        mode=inodes.mode,
        uid=inodes.uid,
        gid=inodes.gid,
        links=inodes.links,
        created=inodes.created,
        modified=inodes.modified,
        changed=inodes.changed,
        accessed=inodes.accessed,
        flags=inodes.flags.astype(np.uint64),
        extra=MappingProxyType(_extra(inodes)),
        errors=errors,
    )


def name_rows(files: NDArray[np.uint64]) -> FileRows:
    """Of names alone: nothing is known of their files but the inode number that the names had, 0 where that is lost."""
    n = len(files)
    none, never, nothing = np.full(n, -1, np.int64), TimeColumn.null(n), np.zeros(n, np.uint64)
    minus = none.astype(np.int32)
    return FileRows(
        file=files,
        subvolume=nothing,
        inode=files & np.uint64(lay.NUMBER_MASK),
        generation=none,
        type=np.zeros(n, np.uint8),
        size=none,
        allocated=none,
        mode=none,
        uid=none,
        gid=none,
        links=none,
        created=never,
        modified=never,
        changed=never,
        accessed=never,
        flags=nothing,
        extra=MappingProxyType(
            {
                "rdev": none,
                "rdev_major": minus,
                "rdev_minor": minus,
                "project": none,
                "dtime": never.ns.view("datetime64[ns]"),
            }
        ),
    )


def joined(first: FileRows, second: FileRows) -> FileRows:
    """One after the other; errors of the first."""
    columns: dict[str, Any] = {}
    for each in fields(FileRows):
        a, b = getattr(first, each.name), getattr(second, each.name)
        if isinstance(a, TimeColumn):
            columns[each.name] = TimeColumn.concat([a, b])
        elif each.name == "extra":
            columns[each.name] = {name: np.concatenate((column, b[name])) for name, column in a.items()}
        elif each.name != "errors":
            columns[each.name] = np.concatenate((a, b))
    return FileRows(**columns, errors=first.errors)


def _extra(inodes: Inodes) -> dict[str, NDArray[np.generic]]:
    rdev = inodes.rdev
    node = rdev >= 0
    return {
        "rdev": rdev,
        "rdev_major": np.where(node, rdev >> 8 & 0xFFF, -1).astype(np.int32),
        "rdev_minor": np.where(node, rdev & 0xFF | rdev >> 12 & 0xFFF00, -1).astype(np.int32),
        "project": inodes.project,
        "dtime": np.where(inodes.deleted == 0, NAT, inodes.deleted * 1_000_000_000).view("datetime64[ns]"),
    }
