"""What `BackupPath.stat` returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pseudomount.filesystem.columns import TimeColumn
from pseudomount.filesystem.contract import FileRows, FileType

__all__ = ["BackupStat"]

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class BackupStat:
    """The names of `os.stat_result`, and what the file system adds.

    Times are None where the disk has none; `*_ns` are exact whatever the century. Owners are None where the file system
    has no uid and gid (NTFS, FAT). Where it has no modes, `st_mode` is the type with read (and search) permission
    for all, and `has_mode` is False.

    Attributes:
        st_blocks: 512-byte units that are allocated.
        st_dev: 0; the volume is told by its name.
        st_rdev: a device node's number as Linux packs it, 0 for other files.
        file: the id by which the parser knows the file.
        type: kind of file.
        subvolume, generation: with `st_ino`, what identifies the file across backups; generation -1 is unknown.
        flags: attribute bits as the file system defines them.
        extra: everything else that it keeps, by its own terms; times are nanoseconds since 1970, None where there is
            none.
    """

    st_mode: int
    st_ino: int
    st_nlink: int
    st_uid: int | None
    st_gid: int | None
    st_size: int
    st_blocks: int
    st_atime_ns: int | None
    st_mtime_ns: int | None
    st_ctime_ns: int | None
    st_birthtime_ns: int | None
    file: int
    type: FileType
    has_mode: bool
    subvolume: int
    generation: int
    flags: int
    extra: Mapping[str, object]
    st_rdev: int = 0
    st_dev: int = 0

    @property
    def st_atime(self) -> float | None:
        """Last access, seconds since 1970."""
        return _seconds(self.st_atime_ns)

    @property
    def st_mtime(self) -> float | None:
        """Last change of content, seconds since 1970."""
        return _seconds(self.st_mtime_ns)

    @property
    def st_ctime(self) -> float | None:
        """Last change of metadata, seconds since 1970."""
        return _seconds(self.st_ctime_ns)

    @property
    def st_birthtime(self) -> float | None:
        """Creation, seconds since 1970."""
        return _seconds(self.st_birthtime_ns)

    @classmethod
    def of(cls, rows: FileRows, i: int) -> BackupStat:
        """Row i; raises the row's error where it has one."""
        if i in rows.errors:
            raise rows.errors[i]
        kind = FileType(int(rows.type[i]))
        mode = int(rows.mode[i])
        st_mode = kind.mode | (365 if kind is FileType.DIRECTORY else 292) if mode < 0 else mode
        allocated = int(rows.allocated[i])
        return cls(
            st_mode=st_mode,
            st_ino=int(rows.inode[i]),
            st_nlink=int(rows.links[i]),
            st_uid=_known(int(rows.uid[i])),
            st_gid=_known(int(rows.gid[i])),
            st_size=max(int(rows.size[i]), 0),
            st_blocks=max(allocated, 0) // 512,
            st_atime_ns=_exact_ns(rows.accessed, i),
            st_mtime_ns=_exact_ns(rows.modified, i),
            st_ctime_ns=_exact_ns(rows.changed, i),
            st_birthtime_ns=_exact_ns(rows.created, i),
            file=int(rows.file[i]),
            type=kind,
            has_mode=mode >= 0,
            subvolume=int(rows.subvolume[i]),
            generation=int(rows.generation[i]),
            flags=int(rows.flags[i]),
            extra={name: column[i].item() for name, column in rows.extra.items()},
            st_rdev=_device_number(rows, i),
        )


def _device_number(rows: FileRows, i: int) -> int:
    if "rdev_major" not in rows.extra:
        return 0
    major, minor = int(rows.extra["rdev_major"][i]), int(rows.extra["rdev_minor"][i])
    if major < 0 or minor < 0:
        return 0
    return (major & 0xFFF) << 8 | (major & ~0xFFF) << 32 | (minor & 0xFF) | (minor & ~0xFF) << 12


def _known(value: int) -> int | None:
    return None if value < 0 else value


def _exact_ns(column: TimeColumn, i: int) -> int | None:
    exact = column.exact(i)
    return None if exact is None else exact[0] * _NS + exact[1]


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / _NS
