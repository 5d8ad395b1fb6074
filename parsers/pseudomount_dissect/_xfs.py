"""XFS by dissect.xfs.

The library knows inodes, directories and extents. What it leaves out, and what would be missed: that extents may be
unwritten (zeros, not what lay there before), files on a realtime device, times before 1970 without `bigtime`, and
extended attributes. Ids are inode numbers.

Source: XFS Algorithms and Data Structures (the kernel's documentation of the disk format).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from dissect.xfs.xfs import XFS, fsb_to_bb, parse_fsblock

from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError, UnsupportedError
from pseudomount.filesystem import FileType, RunKind
from pseudomount.findings import FindingLog, Severity
from pseudomount_dissect._adapter import Adapter as Base
from pseudomount_dissect._adapter import Content, Entry, Facts, Run, Time, file_type, no_stream, signed
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock
from pseudomount_dissect._xfs_attr import leaf_attributes, short_attributes, shown
from pseudomount_dissect._xfs_log import log_is_dirty

__all__ = ["Adapter"]

_REALTIME: Final = 1  # di_flags
_LINK_LIMIT: Final = 1024
_EXTENTS_LIMIT: Final = 4_000_000
_DEV, _LOCAL, _EXTENTS, _BTREE = range(4)  # di_format


class Adapter(Base):
    """An XFS volume."""

    def __init__(self, guard: Guard, found: Superblock, findings: FindingLog) -> None:
        self._device = guard.device
        self._findings = findings
        features = struct.unpack_from(">I", found.raw, 216)[0] if found.raw[101] & 0xF == 5 else 0
        if features & ~0xFF:
            raise UnsupportedError(f"{guard.device.name} has XFS features that are not read: {features & ~0xFF:#x}")
        self._fs: Any = XFS(guard.stream)
        sb = self._fs.sb
        if not (0 < sb.sb_inopblog < 8 and 0 < sb.sb_agblklog < 32 and sb.sb_agcount and sb.sb_agblocks):
            raise CorruptionError("the superblock's geometry makes no sense", structure="superblock", offset=0)
        self._block: int = self._fs.block_size
        self._large_directories = sb.sb_dirblklog != 0
        self._types: dict[int, int] = {}
        self.root = sb.sb_rootino
        self.details = {
            "block size": self._block,
            "inode size": sb.sb_inodesize,
            "allocation groups": sb.sb_agcount,
            "version": self._fs.version,
        }
        self._note_log()

    def _note_log(self) -> None:
        sb = self._fs.sb
        if not sb.sb_logstart:
            return
        start, length = self._position(sb.sb_logstart), sb.sb_logblocks * self._block
        try:
            dirty = log_is_dirty(self._device, start, length)
        except PseudomountError as error:
            self._findings.add_error(error, severity=Severity.DEGRADED)
            return
        if dirty:
            message = "the log was not written back and is not replayed: the newest changes may be missing"
            self._findings.add(Severity.NOTE, message, structure="log", offset=start)

    def _position(self, block: int) -> int:
        """Where a file system block lies on the device, bytes."""
        group, number = fsb_to_bb(block, self._fs.sb.sb_agblklog)
        if group >= self._fs.sb.sb_agcount or number >= self._fs.sb.sb_agblocks:
            raise CorruptionError(f"block {block:#x} is in no allocation group", structure="extent")
        return int((group * self._fs.sb.sb_agblocks + number) * self._block)

    def _inode(self, file: int) -> Any:
        group, number = file >> self._fs._inum_bits, file & self._fs._inum_mask
        if not file or group >= self._fs.sb.sb_agcount or number >= self._fs._inum_max:
            raise PathNotFoundError(f"there is no inode {file}")
        inode = self._fs.get_inode(file)
        core = inode.inode
        if not core.di_mode:
            raise PathNotFoundError(f"inode {file} is not in use")
        if core.di_version >= 3 and core.di_ino != file:
            raise CorruptionError(f"inode {file} says that it is {core.di_ino}", structure="inode")
        return inode

    def entries(self, directory: int) -> Iterator[Entry]:
        """As the library lists them. It reads directory blocks of one block's size only."""
        inode = self._inode(directory)
        if inode.size > self._device.size:
            raise CorruptionError(f"directory {directory} claims {inode.size} bytes", structure="directory")
        if self._large_directories and inode.inode.di_format != _LOCAL:
            raise UnsupportedError("directories whose blocks are larger than the file system's are not read")
        for child in inode.iterdir():
            name = child.filename.encode("utf-8", "surrogateescape")
            yield Entry(name, child.inum, file_type(child._filetype or 0))

    def facts(self, file: int) -> Facts:
        """The inode's core. `st_blocks` counts the blocks of its trees too, as the kernel does."""
        inode = self._inode(file)
        core = inode.inode
        kind = file_type(core.di_mode)
        if kind is FileType.UNKNOWN:
            raise CorruptionError(f"inode {file} has the mode {core.di_mode:o}", structure="inode")
        big = bool(inode._has_bigtime())
        node = kind in {FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE}
        return Facts(
            inode=file,
            type=kind,
            size=core.di_size,
            generation=core.di_gen,
            allocated=core.di_nblocks * self._block,
            mode=core.di_mode,
            uid=core.di_uid,
            gid=core.di_gid,
            links=core.di_nlink if core.di_version > 1 else core.di_onlink,
            created=_time(core.di_crtime, big) if core.di_version >= 3 else None,
            modified=_time(core.di_mtime, big),
            changed=_time(core.di_ctime, big),
            accessed=_time(core.di_atime, big),
            flags=core.di_flags,
            rdev=_node(inode.datafork().read(4)) if node else None,
        )

    def content(self, file: int, stream: str | None = None) -> Content:
        """From the inode's extents."""
        if stream:
            raise no_stream(file, stream)
        inode = self._inode(file)
        core = inode.inode
        if core.di_flags & _REALTIME:
            raise UnsupportedError(f"inode {file} lies on the realtime device")
        if core.di_format == _LOCAL:
            return Content(core.di_size, resident=inode.datafork().read(min(core.di_size, 2048)))
        if core.di_format not in {_EXTENTS, _BTREE}:
            raise CorruptionError(f"inode {file} has content of the format {core.di_format}", structure="inode")
        return Content(core.di_size, self._runs(inode._iter_blocks()))

    def _runs(self, extents: Iterator[tuple[int, int, int, int]]) -> list[Run]:
        runs: list[Run] = []
        for offset, block, count, unwritten in extents:
            if len(runs) >= _EXTENTS_LIMIT:
                raise CorruptionError(f"more than {_EXTENTS_LIMIT} extents", structure="extent")
            kind = RunKind.UNWRITTEN if unwritten else RunKind.DATA
            runs.append((offset * self._block, count * self._block, self._position(block), kind))
        return runs

    def target(self, file: int) -> bytes:
        """As the library reads it."""
        inode = self._inode(file)
        if not 0 < inode.size <= _LINK_LIMIT:
            raise CorruptionError(f"a symbolic link of {inode.size} bytes", structure="symbolic link")
        target: bytes = inode.link.encode("utf-8", "surrogateescape")
        if len(target) != inode.size:
            raise CorruptionError(f"a symbolic link of {inode.size} bytes has {len(target)}", structure="symbolic link")
        return target

    def xattrs(self, file: int) -> dict[str, bytes]:
        """From the inode, or from the leaves that its attribute fork's extents hold; B+trees of extents are not read.

        Raises:
            UnsupportedError: the fork is such a tree.
        """
        inode = self._inode(file)
        core = inode.inode
        if not core.di_forkoff:
            return {}
        fork = inode.attrfork().read(2048)
        if core.di_aformat == _LOCAL:
            return shown(short_attributes(fork))
        if core.di_aformat != _EXTENTS:
            raise UnsupportedError(f"inode {file} has its extended attributes in a tree of extents, which is not read")
        count = inode.attr_extents
        if count * 16 > len(fork):
            raise CorruptionError(f"inode {file} claims {count} extents of attributes", structure="attribute fork")
        records = (parse_fsblock(fork[at : at + 16]) for at in range(0, count * 16, 16))
        runs = self._runs(iter(list(records)))
        return shown(leaf_attributes(self._device, runs, self._block, self._fs.version == 5))


def _time(raw: int, big: bool) -> Time:
    if big:
        seconds, nanoseconds = divmod(raw, 1_000_000_000)
        return seconds - (1 << 31), nanoseconds
    return signed(raw >> 32, 32), min(raw & 0xFFFFFFFF, 999_999_999)


def _node(raw: bytes) -> tuple[int, int]:
    """Device numbers as of System V: 14 bits of major, 18 of minor."""
    number = int.from_bytes(raw, "big")
    return number >> 18 & 0x3FFF, number & 0x3FFFF
