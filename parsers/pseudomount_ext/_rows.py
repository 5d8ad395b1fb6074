"""Inodes as the columns that the contract has."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem.columns import NAT
from pseudomount.filesystem.contract import FileRows, FileType
from pseudomount_ext._catalogue import Inodes

__all__ = ["file_rows"]


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
    number = inodes.number.astype(np.uint64) if files is None else files
    return FileRows(
        file=number,
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
