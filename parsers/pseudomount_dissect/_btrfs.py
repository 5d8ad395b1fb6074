"""Btrfs by dissect.btrfs.

The library maps chunks and walks trees; what the items of a tree mean is read here, because its own streams expand a
compressed extent to whatever the disk says. It verifies no checksum, and neither does this.

An id is the subvolume's number (24 bits) above the inode's (40 bits): unique and the same whenever the volume is
opened. What has a larger number than that is an error of its entry.

A subvolume is a directory where its parent names it. A snapshot does not hold the subvolumes within its origin; the
entries are there, and the kernel shows empty directories, all of the inode number 2: so does this.

Source: Btrfs, On-disk Format (btrfs.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from dissect.btrfs import Btrfs
from dissect.btrfs.c_btrfs import c_btrfs

from pseudomount.errors import CorruptionError, PathNotFoundError, UnsupportedError, UsageError
from pseudomount.filesystem import FileType, RunKind
from pseudomount.findings import FindingLog
from pseudomount_dissect._adapter import Adapter as Base
from pseudomount_dissect._adapter import Content, Entry, Facts, Run, Time, file_type, no_stream, signed
from pseudomount_dissect._btrfs_content import Extent, ExtentDevice, decoded
from pseudomount_dissect._guard import Guard
from pseudomount_dissect._probe import Superblock

__all__ = ["Adapter"]

_INODE_BITS: Final = 40
_INODES: Final = 1 << _INODE_BITS
_SUBVOLUMES: Final = 1 << 24
_EMPTY_DIRECTORY: Final = 2  # BTRFS_EMPTY_SUBVOL_DIR_OBJECTID
_TOP: Final = 5  # BTRFS_FS_TREE_OBJECTID

_INODE_ITEM, _XATTR_ITEM, _DIR_INDEX, _EXTENT_DATA = 1, 24, 96, 108
_ROOT_ITEM, _ROOT_REF = 132, 156
_INLINE, _REGULAR, _PREALLOCATED = 0, 1, 2
_INLINE_HEADER: Final = 21

_HEADER: Final = 101
_POINTER: Final = 33
_LEVELS: Final = 8
#: BTRFS_BLOCK_GROUP_RAID0, RAID10, RAID5 and RAID6.
_STRIPED: Final = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 8
_EXTENTS_LIMIT: Final = 2_000_000
_LINK_LIMIT: Final = 4096
_RESIDENT_LIMIT: Final = 1 << 20

_KINDS: Final = (
    FileType.UNKNOWN,
    FileType.FILE,
    FileType.DIRECTORY,
    FileType.CHAR_DEVICE,
    FileType.BLOCK_DEVICE,
    FileType.FIFO,
    FileType.SOCKET,
    FileType.SYMLINK,
)


class _Volume(Btrfs):  # type: ignore[misc]
    """The library's reader, that looks at each node before it walks it.

    It would search a node without items for ever, and follow pointers in a circle. So none may be empty, and below a
    node of one level there is only the next one.
    """

    def __init__(self, stream: object) -> None:
        self._levels: dict[int, int] = {}
        super().__init__(stream)

    def _read_node(self, address: int) -> bytes:
        node: bytes = super()._read_node(address)
        count, level = int.from_bytes(node[96:100], "little"), node[100] if len(node) > _HEADER else 0
        room = (len(node) - _HEADER) // (_POINTER if level else 25)
        if (
            len(node) != self.node_size
            or int.from_bytes(node[48:56], "little") != address
            or not 0 < count <= room
            or self._levels.get(address, level) != level
            or level >= _LEVELS
        ):
            raise CorruptionError(f"the node at the logical address {address} makes no sense", structure="tree node")
        self._levels[address] = level
        if level:
            table = np.frombuffer(node, np.uint8, count * _POINTER, _HEADER).reshape(count, _POINTER)
            for below in np.ascontiguousarray(table[:, 17:25]).view("<u8")[:, 0].tolist():
                if self._levels.setdefault(below, level - 1) != level - 1:
                    raise CorruptionError(f"the node at {address} points to one of its own level or above it")
        return node


class Adapter(Base):
    """A Btrfs volume; its root is the default subvolume's, or that of the one that was asked for."""

    def __init__(self, guard: Guard, found: Superblock, findings: FindingLog, subvolume: int | None) -> None:
        self._guard, self._device = guard, guard.device
        if not found.sound:
            raise CorruptionError("the superblock makes no sense", structure="superblock", offset=0x10000)
        self._fs: Any = _Volume(guard.stream)
        self._sector: int = self._fs.sector_size
        number = self._fs.default_subvolume.objectid if subvolume is None else subvolume
        if subvolume is not None and (not 0 < subvolume < _SUBVOLUMES or not self._exists(subvolume)):
            raise UsageError(f"{guard.device.name} has no subvolume {subvolume}")
        self.root = self._id(number, self._tree(number).root_item.root_dirid)
        self.details = {
            "sector size": self._sector,
            "node size": self._fs.node_size,
            "devices": self._fs.sb.num_devices,
            "root subvolume": number,
        }

    def _exists(self, subvolume: int) -> bool:
        try:
            self._fs._root_tree.find(subvolume, _ROOT_ITEM)
        except KeyError:
            return False
        return True

    def _tree(self, subvolume: int) -> Any:
        try:
            return self._fs.open_subvolume(subvolume).tree
        except KeyError:
            raise PathNotFoundError(f"there is no subvolume {subvolume}") from None

    @staticmethod
    def _id(subvolume: int, inode: int) -> int:
        if not 0 < subvolume < _SUBVOLUMES or not 0 < inode < _INODES:
            raise UnsupportedError(f"inode {inode} of subvolume {subvolume}: numbers that large are not read")
        return subvolume << _INODE_BITS | inode

    @staticmethod
    def _split(file: int) -> tuple[int, int]:
        """Subvolume and inode. Below 5 and from the reserved numbers on there are no subvolumes, but other trees."""
        subvolume, inode = file >> _INODE_BITS, file & (_INODES - 1)
        if not inode or (subvolume != _TOP and subvolume < 256):
            raise PathNotFoundError(f"there is no file {file}")
        return subvolume, inode

    def _items(self, file: int, kind: int, first: int = 0) -> Iterator[tuple[int, bytes]]:
        """Key offset and data of a file's items of one kind."""
        subvolume, inode = self._split(file)
        for item, data in self._tree(subvolume).cursor().iter(inode, kind, first, ignore_offset=True):
            self._guard.progress()
            if len(data) != item.size:
                raise CorruptionError(f"an item of file {file} lies outside of its node", structure="tree node")
            yield item.key.offset, bytes(data)

    def entries(self, directory: int) -> Iterator[Entry]:
        """In the order in which the kernel lists them."""
        subvolume, inode = self._split(directory)
        if inode == _EMPTY_DIRECTORY:
            return
        for _, data in self._items(directory, _DIR_INDEX):
            item = c_btrfs.btrfs_dir_item(data)
            kind = _KINDS[item.type & 0x7F] if item.type & 0x7F < len(_KINDS) else FileType.UNKNOWN
            if item.location.type == _INODE_ITEM:
                yield Entry(item.name, self._id(subvolume, item.location.objectid), kind)
            elif item.location.type == _ROOT_ITEM:
                yield Entry(item.name, self._subvolume_at(subvolume, inode, item), FileType.DIRECTORY)
            else:
                raise CorruptionError(f"an entry for a key of type {item.location.type}", structure="directory")

    def _subvolume_at(self, subvolume: int, inode: int, item: Any) -> int:
        """The root of the subvolume that an entry names, if that subvolume is there."""
        child = item.location.objectid
        try:
            _, data = self._fs._root_tree.find(subvolume, _ROOT_REF, child)
        except KeyError:
            return self._id(subvolume, _EMPTY_DIRECTORY)
        reference = c_btrfs.btrfs_root_ref(data)
        if reference.dirid != inode or reference.name != item.name:
            return self._id(subvolume, _EMPTY_DIRECTORY)
        return self._id(child, self._tree(child).root_item.root_dirid)

    def _item(self, file: int) -> Any:
        subvolume, inode = self._split(file)
        try:
            _, data = self._tree(subvolume).find(inode, _INODE_ITEM)
        except KeyError:
            raise PathNotFoundError(f"subvolume {subvolume} has no inode {inode}") from None
        return c_btrfs.btrfs_inode_item(data)

    def facts(self, file: int) -> Facts:
        """The inode item."""
        subvolume, inode = self._split(file)
        if inode == _EMPTY_DIRECTORY:
            self._tree(subvolume)
            mode = FileType.DIRECTORY.mode | 0o755
            return Facts(inode, FileType.DIRECTORY, 0, subvolume, 0, 0, mode, 0, 0, 1)
        item = self._item(file)
        kind = file_type(item.mode)
        if kind is FileType.UNKNOWN:
            raise CorruptionError(f"inode {inode} has the mode {item.mode:o}", structure="inode item")
        node = kind in {FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE}
        return Facts(
            inode=inode,
            type=kind,
            size=item.size,
            subvolume=subvolume,
            generation=signed(item.generation, 64),
            allocated=-(-item.nbytes // self._sector) * self._sector,
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            links=item.nlink,
            created=_time(item.otime),
            modified=_time(item.mtime),
            changed=_time(item.ctime),
            accessed=_time(item.atime),
            flags=item.flags,
            rdev=(item.rdev >> 20, item.rdev & 0xFFFFF) if node else None,
        )

    # -- content -----------------------------------------------------------------------------------------------------

    def content(self, file: int, stream: str | None = None) -> Content:
        """Runs where all of it is stored as it is; else a device that decodes it."""
        if stream:
            raise no_stream(file, stream)
        size = self._item(file).size
        extents = self._extents(file)
        if len(extents) == 1 and extents[0].data is not None and size <= _RESIDENT_LIMIT:
            return Content(size, resident=extents[0].data[:size].ljust(size, b"\0"))
        runs: list[Run] = []
        for extent in extents:
            mapped = None if extent.data is not None or extent.compression else self._mapped(extent)
            if mapped is None:
                name = f"{self._device.name} file {file}"
                content = Content(size, decoded=ExtentDevice(self._guard, self._read_logical, extents, size, name))
                content.decoded.check()  # type: ignore[union-attr]
                return content
            runs += mapped
        return Content(size, runs)

    def _extents(self, file: int) -> list[Extent]:
        extents: list[Extent] = []
        for offset, data in self._items(file, _EXTENT_DATA):
            if len(extents) >= _EXTENTS_LIMIT:
                raise CorruptionError(f"more than {_EXTENTS_LIMIT} extents", structure="file extent item")
            head = c_btrfs.btrfs_file_extent_item_inline(data)
            if head.encryption:
                raise UnsupportedError(f"file {file} is encrypted")
            if head.type == _INLINE:
                stored = decoded(data[_INLINE_HEADER:], head.compression, head.ram_bytes, self._sector, file)
                extents.append(Extent(offset, len(stored), data=stored))
                continue
            if head.type not in {_REGULAR, _PREALLOCATED}:
                raise CorruptionError(f"an extent of the type {head.type}", structure="file extent item")
            item = c_btrfs.btrfs_file_extent_item_reg(data)
            hole = not item.disk_bytenr
            kind = RunKind.HOLE if hole else RunKind.DATA if head.type == _REGULAR else RunKind.UNWRITTEN
            if not item.num_bytes:
                raise CorruptionError("an extent without bytes", structure="file extent item")
            extents.append(
                Extent(
                    offset,
                    item.num_bytes,
                    kind,
                    item.disk_bytenr,
                    item.disk_num_bytes,
                    item.offset,
                    item.ram_bytes,
                    head.compression if kind is RunKind.DATA else 0,
                    self._sector,
                )
            )
        return extents

    def _mapped(self, extent: Extent) -> list[Run] | None:
        """An extent as runs of the device; None where it is striped over it."""
        if extent.kind is RunKind.HOLE:
            return [(extent.offset, extent.length, -1, RunKind.HOLE)]
        places = self._places(extent.address + extent.within, extent.length)
        if places is None:
            return None
        at = extent.offset
        runs: list[Run] = []
        for position, length in places:
            runs.append((at, length, position, extent.kind))
            at += length
        return runs

    def _places(self, address: int, length: int) -> list[tuple[int, int]] | None:
        """Where a logical range lies: position and length of each part, by the first copy. None where it is striped."""
        places = []
        while length:
            chunk = next(
                (one for one in self._fs._logical_fh.chunks if one.offset <= address < one.offset + one.length), None
            )
            if chunk is None:
                raise CorruptionError(f"no chunk holds the logical address {address}", structure="chunk")
            striped = chunk.type & _STRIPED
            stripe = next((one for one in chunk.stripes if one.fh is not None), None)
            if stripe is None or (striped and chunk.num_stripes > 1):
                return None
            within = address - chunk.offset
            part = min(length, chunk.length - within)
            places.append((stripe.offset + within, part))
            address, length = address + part, length - part
        return places

    def _read_logical(self, address: int, length: int) -> bytes:
        """Bytes at a logical address. Inside of `Guard.call`."""
        places = self._places(address, length)
        if places is not None:
            return b"".join(self._device.read(position, part) for position, part in places)
        self._fs._logical_fh.seek(address)
        data: bytes = self._fs._logical_fh.read(length)
        return data

    def target(self, file: int) -> bytes:
        """The content, which is an inline extent."""
        content = self.content(file)
        if not 0 < content.size <= _LINK_LIMIT or content.resident is None:
            raise CorruptionError(f"a symbolic link of {content.size} bytes", structure="symbolic link")
        return content.resident

    def xattrs(self, file: int) -> dict[str, bytes]:
        """The kernel keeps its names as they are, ACLs too."""
        found: dict[str, bytes] = {}
        for _, data in self._items(file, _XATTR_ITEM):
            at = 0
            while at < len(data):  # those whose names have one hash share an item
                item = c_btrfs.btrfs_dir_item(data[at:])
                found[item.name.decode("utf-8", "surrogateescape")] = bytes(item.data)
                at += 30 + item.name_len + item.data_len
        return found


def _time(timespec: Any) -> Time:
    return signed(timespec.sec, 64), min(timespec.nsec, 999_999_999)
