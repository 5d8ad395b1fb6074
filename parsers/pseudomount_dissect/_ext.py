"""ext2, ext3 and ext4 by dissect.extfs: a second opinion, so what it says is told as it says it.

Only what would take memory or time without end is kept from it. Ids are inode numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

from dissect.extfs.extfs import ExtFS

from pseudomount.errors import CorruptionError, PathNotFoundError, UnsupportedError
from pseudomount.filesystem import FileType, RunKind
from pseudomount.findings import FindingLog
from pseudomount_dissect._adapter import Adapter as Base
from pseudomount_dissect._adapter import Content, Entry, Facts, Run, file_type, no_stream
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock

__all__ = ["Adapter"]

_EXTENTS_FLAG, _INLINE_FLAG, _HUGE_FLAG = 0x80000, 0x10000000, 0x40000
#: The library lists every block of a file without extents, holes too.
_BLOCKS_LIMIT: Final = 2_000_000
_RUNS_LIMIT: Final = 2_000_000
_LINK_LIMIT: Final = 4096
_VALUE_LIMIT: Final = 1 << 20


class Adapter(Base):
    """An ext volume."""

    def __init__(self, guard: Guard, found: Superblock, findings: FindingLog) -> None:
        self._device = guard.device
        self._fs: Any = ExtFS(guard.stream)
        self._block: int = self._fs.block_size
        if not 1024 <= self._block <= 65536:
            raise CorruptionError(f"blocks of {self._block} bytes", structure="superblock", offset=1024)
        self._values_only = False
        get = self._fs.get_inode

        def get_inode(number: int, *names: object) -> Any:
            inode = get(number, *names)
            if self._values_only and inode.size > _VALUE_LIMIT:
                raise CorruptionError(f"an attribute's value of {inode.size} bytes", structure="extended attribute")
            return inode

        self._fs.get_inode = get_inode
        self.root = 2
        self.details = {"block size": self._block, "inode size": self._fs.sb.s_inode_size, "type": self._fs.type}

    def _inode(self, file: int) -> Any:
        if not 0 < file <= self._fs.sb.s_inodes_count:
            raise PathNotFoundError(f"there is no inode {file}")
        inode = self._fs.get_inode(file)
        if not inode.inode.i_mode or not (inode.inode.i_links_count or file < 11):
            raise PathNotFoundError(f"inode {file} is not in use")
        return inode

    def entries(self, directory: int) -> Iterator[Entry]:
        """As the library lists them."""
        inode = self._inode(directory)
        if inode.size > self._device.size:
            raise CorruptionError(f"directory {directory} claims {inode.size} bytes", structure="directory")
        self._bounded(inode)
        for child in inode.iterdir():
            name = child.filename.encode("utf-8", "surrogateescape")
            yield Entry(name, child.inum, file_type(child._filetype or 0))

    def facts(self, file: int) -> Facts:
        """The inode."""
        inode = self._inode(file)
        core = inode.inode
        kind = file_type(core.i_mode)
        if kind is FileType.UNKNOWN:
            raise CorruptionError(f"inode {file} has the mode {core.i_mode:o}", structure="inode")
        blocks = core.i_blocks_lo | core.i_blocks_high << 32
        born = inode.crtime_ns
        node = kind in {FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE}
        return Facts(
            inode=file,
            type=kind,
            size=inode.size,
            generation=core.i_generation,
            allocated=blocks * (self._block if core.i_flags & _HUGE_FLAG else 512),
            mode=core.i_mode,
            uid=core.i_uid | core.i_uid_high << 16,
            gid=core.i_gid | core.i_gid_high << 16,
            links=core.i_links_count,
            created=None if born is None else divmod(born, 1_000_000_000),
            modified=divmod(inode.mtime_ns, 1_000_000_000),
            changed=divmod(inode.ctime_ns, 1_000_000_000),
            accessed=divmod(inode.atime_ns, 1_000_000_000),
            flags=core.i_flags,
            rdev=_node(bytes(core.i_block)) if node else None,
        )

    def _bounded(self, inode: Any) -> None:
        core = inode.inode
        if not core.i_flags & (_EXTENTS_FLAG | _INLINE_FLAG) and inode.size > _BLOCKS_LIMIT * self._block:
            raise UnsupportedError(f"inode {inode.inum}: {inode.size} bytes in a block map are more than is read")

    def content(self, file: int, stream: str | None = None) -> Content:
        """The library's data runs, or the bytes that it finds in the inode."""
        if stream:
            raise no_stream(file, stream)
        inode = self._inode(file)
        if inode.inode.i_flags & _INLINE_FLAG:
            data = inode.open().read(256)
            if len(data) != inode.size:
                raise UnsupportedError(f"inode {file} has inline data of which the library reads {len(data)} bytes")
            return Content(inode.size, resident=data)
        self._bounded(inode)
        runs: list[Run] = []
        at = 0
        for block, count in inode.dataruns():
            if len(runs) > _RUNS_LIMIT:
                raise CorruptionError(f"more than {_RUNS_LIMIT} data runs", structure="data runs")
            length = count * self._block
            if block is not None:
                runs.append((at, length, block * self._block, RunKind.DATA))
            elif length < 0:
                raise CorruptionError(f"a hole of {length} bytes", structure="data runs")
            at += length
        return Content(inode.size, runs)

    def target(self, file: int) -> bytes:
        """As the library reads it."""
        inode = self._inode(file)
        if not 0 < inode.size <= _LINK_LIMIT:
            raise CorruptionError(f"a symbolic link of {inode.size} bytes", structure="symbolic link")
        target: bytes = inode.link.encode("utf-8", "surrogateescape")
        return target

    def xattrs(self, file: int) -> dict[str, bytes]:
        """As the library reads them, ACLs in the form that the kernel gives; inline data is none of them."""
        inode = self._inode(file)
        self._values_only = True
        try:
            found = {attribute.name: bytes(attribute.value) for attribute in inode.xattr}
        finally:
            self._values_only = False
        found.pop("system.data", None)
        return {name: _acl(value) if name.startswith("system.posix_acl_") else value for name, value in found.items()}


def _acl(value: bytes) -> bytes:
    """Ext stores the id of those entries alone that name someone."""
    parts, at = [struct.pack("<I", 2)], 4
    while at + 4 <= len(value):
        tag, rights = struct.unpack_from("<HH", value, at)
        named = tag in {0x02, 0x08}
        who = int.from_bytes(value[at + 4 : at + 8], "little") if named else 0xFFFFFFFF
        parts.append(struct.pack("<HHI", tag, rights, who))
        at += 8 if named else 4
    return b"".join(parts)


def _node(block: bytes) -> tuple[int, int]:
    """Device numbers: in the first word as of old (8 bits each), else in the second one."""
    old, new = int.from_bytes(block[:4], "little"), int.from_bytes(block[4:8], "little")
    if old:
        return old >> 8 & 0xFF, old & 0xFF
    return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00
