"""Internal snapshots: the table of them, and which one is meant.

Source: QEMU docs/interop/qcow2.rst, "Snapshots".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from construct import Int16ub, Int32ub, Int64ub, Struct

from pseudomount.errors import CorruptionError, TruncatedError, UsageError

__all__ = ["Snapshot", "find_snapshot", "read_snapshots"]

_ENTRY = Struct(
    "l1_offset" / Int64ub,
    "l1_size" / Int32ub,
    "id_length" / Int16ub,
    "name_length" / Int16ub,
    "seconds" / Int32ub,
    "nanoseconds" / Int32ub,
    "clock" / Int64ub,
    "state_size" / Int32ub,
    "extra_length" / Int32ub,
)
_ENTRY_LENGTH = 40
#: The first extra data: a wider size of the state, and the size that the disk had.
_EXTRA = Struct("state_size" / Int64ub, "disk_size" / Int64ub)
_EXTRA_LENGTH = 16

# qemu's limits.
_MAX_SNAPSHOTS = 65536
_MAX_EXTRA = 1024
_MAX_TABLE = 64 << 20
_STEP = 64 << 10


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One internal snapshot.

    Attributes:
        id, name: as qemu-img lists them.
        taken: seconds since 1970 UTC.
        l1_offset, l1_size: its L1 table: bytes from the start of the file, entries.
        disk_size: bytes that the disk had, or None where it is not told.
        state_size: bytes of the machine's saved memory; 0: the disk alone.
    """

    id: str
    name: str
    taken: int
    l1_offset: int
    l1_size: int
    disk_size: int | None
    state_size: int

    def facts(self) -> dict[str, object]:
        """What a user may want to know of it."""
        return {"id": self.id, "name": self.name, "taken": self.taken, "state_size": self.state_size}


def read_snapshots(name: str, read: Callable[[int, int], bytes], offset: int, count: int) -> list[Snapshot]:
    """The table of snapshots.

    Args:
        name: the image's, for messages.
        read: (offset, length) → up to so many bytes of it.
        offset, count: as the header has them.

    Raises:
        CorruptionError, TruncatedError: the table makes no sense, or breaks off.
    """
    if count > _MAX_SNAPSHOTS:
        raise CorruptionError(f"{name}: {count} internal snapshots", offset=60, structure="snapshot table")
    window, window_at = b"", offset

    def take(at: int, length: int) -> bytes:
        nonlocal window, window_at
        if at - offset + length > _MAX_TABLE:
            raise CorruptionError(f"{name}: a snapshot table over {_MAX_TABLE} bytes", structure="snapshot table")
        if not window_at <= at or at + length > window_at + len(window):
            window, window_at = read(at, max(length, _STEP)), at
        data = window[at - window_at : at - window_at + length]
        if len(data) < length:
            raise TruncatedError(f"{name} ends within its snapshot table", offset=at, structure="snapshot table")
        return data

    snapshots: list[Snapshot] = []
    at = offset
    for _ in range(count):
        entry = _ENTRY.parse(take(at, _ENTRY_LENGTH))
        if entry.extra_length > _MAX_EXTRA:
            message = f"{name}: a snapshot with {entry.extra_length} bytes of extra data"
            raise CorruptionError(message, offset=at, structure="snapshot table")
        at += _ENTRY_LENGTH
        disk_size, state_size = None, entry.state_size
        if entry.extra_length >= _EXTRA_LENGTH:
            extra = _EXTRA.parse(take(at, _EXTRA_LENGTH))
            disk_size, state_size = extra.disk_size, extra.state_size
        elif entry.extra_length >= 8:
            state_size = Int64ub.parse(take(at, 8))
        at += entry.extra_length
        names = take(at, entry.id_length + entry.name_length)
        shown = names[: entry.id_length], names[entry.id_length :]
        key, title = (part.decode("utf-8", "surrogateescape") for part in shown)
        snapshots.append(Snapshot(key, title, entry.seconds, entry.l1_offset, entry.l1_size, disk_size, state_size))
        at += len(names)
        at += -(at - offset) % 8  # each begins at a multiple of eight; so does the table, with its cluster
    return snapshots


def find_snapshot(name: str, snapshots: Sequence[Snapshot], wanted: str) -> Snapshot:
    """The snapshot of an id, else of a name, as qemu-img takes them.

    Raises:
        UsageError: there is none, or several have that name.
    """
    for snapshot in snapshots:
        if snapshot.id == wanted:
            return snapshot
    named = [snapshot for snapshot in snapshots if snapshot.name == wanted]
    if len(named) == 1:
        return named[0]
    there = ", ".join(f"{snapshot.name} (id {snapshot.id})" for snapshot in named or snapshots)
    if named:
        raise UsageError(f"{name}: several snapshots are called {wanted!r}; tell the id: {there}")
    raise UsageError(f"{name}: no snapshot is called {wanted!r}; there {'are ' + there if there else 'is none'}")
