"""Targets of symbolic links ("Symbolic Links")."""

from __future__ import annotations

import numpy as np

from pseudomount.errors import EncryptedError, NotASymlinkError, PseudomountError
from pseudomount.filesystem.columns import Names
from pseudomount.filesystem.contract import FileType, Targets
from pseudomount_ext._catalogue import Inodes
from pseudomount_ext._content import Volume, map_blocks
from pseudomount_ext._inodes import fast_links, inline
from pseudomount_ext._layout import InodeFlag
from pseudomount_ext._read import CHUNK, read_rows
from pseudomount_ext._xattr import inline_content

__all__ = ["read_links"]


def read_links(volume: Volume, inodes: Inodes, errors: dict[int, PseudomountError]) -> Targets:
    """The targets of links; `errors` says which rows are no inodes."""
    errors = dict(errors)
    targets = [b""] * len(inodes)
    links = inodes.type == FileType.SYMLINK
    encrypted = inodes.flagged(InodeFlag.ENCRYPT)
    for row in range(len(inodes)):
        if row in errors:
            links[row] = False
        elif not links[row]:
            errors[row] = NotASymlinkError(f"inode {int(inodes.number[row])} is no symbolic link")
        elif encrypted[row]:
            links[row] = False
            errors[row] = EncryptedError(f"the target of symbolic link {int(inodes.number[row])} is encrypted")
    fast, inlined = fast_links(volume, inodes) & links, inline(volume, inodes) & links
    for row in np.flatnonzero(fast).tolist():
        targets[row] = inodes.block[row, : int(inodes.size[row])].tobytes()
    for row in np.flatnonzero(inlined).tolist():
        targets[row] = inline_content(inodes, row)[: int(inodes.size[row])]
        if len(targets[row]) < int(inodes.size[row]):
            message = f"the target of symbolic link {int(inodes.number[row])} is cut short"
            errors[row] = volume.damage(message, None, "inline data")
    slow = np.flatnonzero(links & ~fast & ~inlined)
    step = max(1, CHUNK // volume.superblock.block_size)
    for first in range(0, len(slow), step):
        _read_slow(volume, inodes, slow[first : first + step], targets, errors)
    for row in np.flatnonzero(links).tolist():
        targets[row] = targets[row].split(b"\0")[0]  # as the kernel shows it
        if not targets[row] and row not in errors:
            message = f"symbolic link {int(inodes.number[row])} has no target"
            errors[row] = volume.damage(message, None, "symbolic link")
    return Targets(Names.of(b"" if row in errors else target for row, target in enumerate(targets)), errors)


def _read_slow(
    volume: Volume,
    inodes: Inodes,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    targets: list[bytes],
    errors: dict[int, PseudomountError],
) -> None:
    """Targets in blocks of their own; none is longer than a block."""
    size = volume.superblock.block_size
    runs = map_blocks(volume, inodes, rows)
    physical = runs.locate(np.arange(len(rows)), np.zeros(len(rows), np.int64))
    for i, row in enumerate(rows.tolist()):
        number, length = int(inodes.number[row]), int(inodes.size[row])
        if i in runs.errors:
            errors[row] = runs.errors[i]
        elif not 0 <= length <= size or physical[i] < 0:
            message = f"the target of symbolic link {number}, {length} bytes, is not in its first block"
            errors[row] = volume.damage(message, None, "symbolic link")
    good = np.array([i for i, row in enumerate(rows.tolist()) if row not in errors], np.int64)
    got = read_rows(volume.device, physical[good] * size, size, "symbolic link")
    for j, i in enumerate(good.tolist()):
        row = int(rows[i])
        if j in got.errors:
            errors[row] = got.errors[j]
        else:
            targets[row] = got.data[j, : int(inodes.size[row])].tobytes()
