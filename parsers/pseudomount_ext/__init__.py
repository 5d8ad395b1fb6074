"""ext2, ext3 and ext4, read in batches.

`_layout` says what lies where; `_super` and `_groups` find the inode tables; `_catalogue` turns tables of inodes and
blocks of directory entries into columns; `_content` walks the trees that map a file's blocks; `_directory`, `_lookup`,
`_links` and `_xattr` are built on these. This module is the face.

Whatever makes no sense on the disk costs what depends on it: an error of its row, or a finding where it was read all
the same. Errors that a batch returns are not noted as findings as well; who asked knows the path, and notes them.
The journal is not replayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.device.mapped import MappedDevice
from pseudomount.errors import (
    CorruptionError,
    EncryptedError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PseudomountError,
    UnsupportedError,
    UsageError,
)
from pseudomount.filesystem.contract import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    Match,
    Parser,
    RunKind,
    Targets,
)
from pseudomount.filesystem.scan import ScanBatch
from pseudomount.findings import FindingLog, Severity
from pseudomount_ext import _layout as lay
from pseudomount_ext._catalogue import Inodes, Trouble
from pseudomount_ext._content import BlockRuns, Volume, map_blocks
from pseudomount_ext._directory import read_directories, visible_names
from pseudomount_ext._free import Bitmaps
from pseudomount_ext._groups import Groups
from pseudomount_ext._inodes import InodeTable, fast_links, inline
from pseudomount_ext._layout import Compat, Incompat, InodeFlag
from pseudomount_ext._links import read_links
from pseudomount_ext._lookup import look_up
from pseudomount_ext._memory import MemoryDevice
from pseudomount_ext._read import Int64s
from pseudomount_ext._rows import file_rows, joined, name_rows
from pseudomount_ext._scan import scan_volume
from pseudomount_ext._super import Superblock, find, unreadable_features
from pseudomount_ext._xattr import inline_content, read_xattrs

__all__ = ["ExtFileSystem", "ExtParser"]

UInt64s = NDArray[np.uint64]
Bools = NDArray[np.bool_]


class ExtParser(Parser):
    """Opens ext2, ext3 and ext4."""

    name = "ext"

    def probe(self, device: BlockDevice) -> Match | None:
        """One read of 1 KiB where the superblock is sound; one batch more where it is not.

        A journal device is no file system. A volume with features that we cannot read matches; `open` names them.
        """
        found = find(device)
        if found is None or found[0].incompat & Incompat.JOURNAL_DEV:
            return None
        superblock = found[0]
        sure = superblock.group == 0 and superblock.intact
        return Match(superblock.filesystem, superblock.label, superblock.uuid, 100 if sure else 50)

    def open(
        self, device: BlockDevice, findings: FindingLog, options: Mapping[str, str] = MappingProxyType({})
    ) -> ExtFileSystem:
        """Opens a volume, by a backup of the superblock where the first one is damaged. There are no options.

        Raises:
            UnsupportedError: it needs features that we do not read; they are named.
            CorruptionError: there is no superblock that makes sense.
        """
        if options:
            raise UsageError(f"ext has no option {', '.join(sorted(options))}")
        found = find(device)
        if found is None or found[0].incompat & Incompat.JOURNAL_DEV:
            raise CorruptionError(
                f"{device.name} has no superblock of ext2, ext3 or ext4",
                device=device.name,
                offset=lay.SUPER_OFFSET,
                structure="superblock",
            )
        superblock, damaged = found
        unreadable = unreadable_features(superblock)
        if unreadable:
            raise UnsupportedError(f"{device.name} has ext features that are not read: {', '.join(unreadable)}")
        _note_state(device, superblock, damaged, findings)
        return ExtFileSystem(device, superblock, findings)


def _note_state(device: BlockDevice, superblock: Superblock, damaged: Superblock | None, findings: FindingLog) -> None:
    """What the superblock says of the volume's state, as findings."""
    structure = "superblock"

    def note(message: str, severity: Severity = Severity.NOTE) -> None:
        findings.add(severity, message, structure=structure, offset=lay.SUPER_OFFSET)

    if superblock.group:
        note(f"the superblock is damaged; its backup in block group {superblock.group} was used")
    if not superblock.intact:
        note("the superblock does not fit its checksum", Severity.DEGRADED)
    # A backup does not follow the state of the volume; what is left of the primary does.
    current = damaged or superblock
    if current.incompat & Incompat.RECOVER:
        note("the journal was not replayed: the newest changes may be missing")
    elif not current.state & lay.STATE_CLEAN and not superblock.group:
        note("the file system was not unmounted cleanly")
    if current.state & lay.STATE_ERRORS:
        note("the file system was marked as having errors")
    if superblock.size > device.size:
        missing = superblock.size - device.size
        note(f"the volume is cut off: {missing} of its {superblock.size} bytes are missing", Severity.DEGRADED)


class ExtFileSystem(FileSystem):
    """An opened volume. File ids are inode numbers; "nlink" and all else are as the kernel would show them.

    Deleted files have the id `number | 1 << 63`: inodes without links whose mode is still there. `rows`, `runs`, `open`
    and `readlink` take it. A deleted name whose inode was given to another file, or wiped, has the id
    `number | 3 << 62`, which stands for the name alone.

    `FileRows.extra` has: "rdev" (device number as Linux's makedev) with its parts "rdev_major" and "rdev_minor", -1 for
    other files; "project" (project id, -1 where there is none); "dtime" (`i_dtime`, when the file was
    deleted, datetime64[ns], NaT where it was not; the number of the next orphan in one that was still open).

    Names of encrypted directories are shown as the kernel shows them without the key, and are looked up as such.
    Directories with the casefold flag compare names folded; see `_names`.
    """

    root = lay.ROOT_INODE

    def __init__(self, device: BlockDevice, superblock: Superblock, findings: FindingLog) -> None:
        self.device = device
        self.findings = findings
        self.name = superblock.filesystem
        self.label = superblock.label
        self.uuid = superblock.uuid
        self.literal_names = not superblock.incompat & Incompat.CASEFOLD
        self.details = MappingProxyType(_details(superblock))
        self._volume = Volume(device, superblock, findings)
        groups = Groups(device, superblock, findings)
        self._inodes = InodeTable(self._volume, groups)
        self._bitmaps = Bitmaps(self._volume, groups)

    # -- directories -------------------------------------------------------------------------------------------------

    def children(self, directories: UInt64s) -> LinkRows:
        """The entries of many directories, whether they are linear, hash trees or inline."""
        unique, place = _unique(directories)
        inodes, problems = self._inodes.read_unique(unique)
        rows = self._directories(inodes, problems)
        listing = read_directories(self._volume, inodes, rows)
        problems.update((int(rows[i]), error) for i, error in listing.errors.items())
        query, entry = _spread(place, rows[listing.query], len(unique))
        names, kinds = visible_names(self._volume, listing, inodes, rows), listing.type
        errors = {i: problems[row] for i, row in enumerate(place.tolist()) if row in problems} if problems else {}
        return LinkRows(
            query,
            np.asarray(directories, np.uint64)[query],
            listing.inode[entry].astype(np.uint64),
            names.take(entry),
            kinds[entry],
            errors,
        )

    def _directories(self, inodes: Inodes, problems: dict[int, PseudomountError]) -> Int64s:
        """The rows that are directories; the others get an error."""
        for row in np.flatnonzero(inodes.type != FileType.DIRECTORY).tolist():
            problems.setdefault(row, PathNotDirectoryError(f"inode {int(inodes.number[row])} is no directory"))
        for row in np.flatnonzero(inodes.trouble == Trouble.DELETED).tolist():
            message = f"directory {int(inodes.number[row])} was deleted; a scan finds the names that are left of it"
            problems.setdefault(row, PathNotDirectoryError(message))
        return np.array([row for row in range(len(inodes)) if row not in problems], np.int64)

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """Finds names; through the hash tree where that saves reading a large directory."""
        if len(directories) != len(names):
            raise UsageError(f"{len(names)} names for {len(directories)} directories")
        unique, place = _unique(directories)
        inodes, problems = self._inodes.read_unique(unique)
        self._directories(inodes, problems)
        fine = np.array([row not in problems for row in range(len(unique))], np.bool_)[place]
        errors = {i: problems[int(place[i])] for i in np.flatnonzero(~fine).tolist()}
        rows = np.flatnonzero(fine)
        found = np.zeros(len(directories), np.uint64)
        if len(rows):
            numbers, failed = look_up(self._volume, inodes, place[rows], [names[i] for i in rows.tolist()])
            found[rows] = numbers.astype(np.uint64)
            errors.update((int(rows[i]), error) for i, error in failed.items())
        return Looked(found, found != 0, errors)

    # -- files -------------------------------------------------------------------------------------------------------

    def rows(self, files: UInt64s) -> FileRows:
        """What is known of many files; a deleted or unused inode is an error of its row."""
        asked = np.asarray(files, np.uint64)
        unique, place = _unique(asked)
        inodes, problems = self._inodes.read_unique(unique)
        errors = {i: problems[row] for i, row in enumerate(place.tolist()) if row in problems} if problems else {}
        rows = file_rows(inodes.take(place), errors, asked)
        number = asked & np.uint64(lay.NUMBER_MASK)
        alone = np.flatnonzero((asked >= lay.NAME_ONLY) & (number >= 1) & (number <= self._volume.superblock.inodes))
        if not len(alone):
            return rows
        order = np.arange(len(asked))
        order[alone] = len(asked) + np.arange(len(alone))
        return joined(rows, name_rows(asked[alone])).take(order)

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        """The whole enumeration, from one pass over the inode tables and the directories' blocks.

        Deleted files have ids of their own, above 2**63: see `_scan`.
        """
        return scan_volume(self._volume, self._inodes, self._map, deleted=deleted)

    def runs(self, files: UInt64s) -> DataRuns:
        """Where the content of many files lies; of a fast symbolic link it is the inode that holds it.

        Inline content may be shorter than its file: the rest is a hole, as when a small file was made longer.
        """
        unique, place = _unique(files)
        inodes, problems = self._inodes.read_unique(unique)
        sound = np.array([row not in problems for row in range(len(unique))], np.bool_)
        inlined = inline(self._volume, inodes) & sound
        fast = fast_links(self._volume, inodes) & sound
        mapped = sound & ~inlined & ~fast
        mapped &= np.isin(inodes.type, (FileType.FILE, FileType.DIRECTORY, FileType.SYMLINK))
        rows = np.flatnonzero(mapped)
        found = self._map(inodes, rows)
        problems.update((int(rows[i]), error) for i, error in found.errors.items())
        found = found.take(~found.damaged)
        query, run = _spread(place, rows[found.query], len(unique))
        resident: dict[int, bytes] = {}
        for i, row in enumerate(place.tolist()):
            if inlined[row]:
                resident[i] = inline_content(inodes, row)[: max(int(inodes.size[row]), 0)]
            elif fast[row]:
                resident[i] = inodes.block[row, : int(inodes.size[row])].tobytes()
        size = self._volume.superblock.block_size
        return DataRuns(
            query=query,
            offset=found.logical[run] * size,
            length=found.count[run] * size,
            position=found.physical[run] * size,
            kind=found.kind[run],
            resident=resident,
            encoded=self._encoded(inodes)[place],
            errors={i: problems[row] for i, row in enumerate(place.tolist()) if row in problems} if problems else {},
        )

    def _map(self, inodes: Inodes, rows: Int64s) -> BlockRuns:
        """As `map_blocks`, without the hash tree that fs-verity keeps behind a file's end.

        Blocks of deleted files that are in use by now are damaged runs; a file that was still open has its own.
        """
        gone = self._freed(inodes, rows)
        if gone.any():

            def taken(query: Int64s, block: Int64s) -> Bools:
                return gone[query] & self._bitmaps.blocks_in_use(block)

            found = self._bitmaps.left_of(map_blocks(self._volume, inodes, rows, taken), gone)
        else:
            found = map_blocks(self._volume, inodes, rows)
        verity = inodes.flagged(InodeFlag.VERITY)[rows]
        if not verity.any():
            return found
        blocks = -(-np.maximum(inodes.size[rows], 0) // self._volume.superblock.block_size)
        room = np.where(verity[found.query], blocks[found.query] - found.logical, found.count)
        cut = BlockRuns(
            found.query,
            found.logical,
            np.minimum(found.count, room),
            found.physical,
            found.kind,
            found.errors,
        )
        return cut.take(cut.count > 0)

    def _freed(self, inodes: Inodes, rows: Int64s) -> Bools:
        """bool (k,): deleted files that are not orphans: nothing is theirs any more."""
        gone: Bools = inodes.trouble[rows] == Trouble.DELETED
        if gone.any():
            gone[gone] = ~self._bitmaps.inodes_in_use(inodes.number[rows[gone]])
        return gone

    def _encoded(self, inodes: Inodes) -> Bools:
        encrypted: Bools = inodes.flagged(InodeFlag.ENCRYPT) & (inodes.type != FileType.DIRECTORY)
        return self._compressed(inodes) | encrypted

    def _compressed(self, inodes: Inodes) -> Bools:
        if not self._volume.superblock.incompat & Incompat.COMPRESSION:
            return np.zeros(len(inodes), np.bool_)
        return inodes.flagged(InodeFlag.COMPRESSED_BLOCKS)

    def readlink(self, files: UInt64s) -> Targets:
        """The targets of many symbolic links."""
        inodes, problems = self._inodes.read(np.asarray(files, np.uint64))
        return read_links(self._volume, inodes, problems)

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """The content of a regular file."""
        inodes = self._one(file)
        number = int(inodes.number[0])
        if stream is not None:
            raise PathNotFoundError(f"inode {number} has no stream {stream!r}: ext has none")
        kind = FileType(int(inodes.type[0]))
        if kind is FileType.DIRECTORY:
            raise PathIsDirectoryError(f"inode {number} is a directory")
        if kind is not FileType.FILE:
            raise UnsupportedError(f"inode {number} is a {kind.word} and has no content")
        if inodes.flagged(InodeFlag.ENCRYPT)[0]:
            raise EncryptedError(f"the content of inode {number} is encrypted")
        if self._compressed(inodes)[0]:
            raise UnsupportedError(f"the content of inode {number} is compressed (e2compr)")
        content = self._content(inodes)
        if inodes.trouble[0] == Trouble.DELETED:
            message = "the content of a deleted file is unreliable: free blocks may have been used by others since"
            self.findings.add(Severity.DEGRADED, message, structure="data runs", file=file)
        return content

    def xattrs(self, file: int) -> dict[str, bytes]:
        """Extended attributes from the inode, its attribute block, and inodes of their own."""
        return read_xattrs(self._volume, self._one(file), 0, self._attribute_value)

    def _attribute_value(self, inode: int, most: int) -> tuple[Inodes, bytes]:
        inodes = self._one(inode)
        if not 0 <= inodes.size[0] <= most or inodes.type[0] != FileType.FILE:
            raise self._volume.damage(f"inode {inode} holds no attribute value", None, "extended attribute")
        with self._content(inodes) as content:
            return inodes, content.read(0, content.size)

    def _one(self, file: int) -> Inodes:
        if not 0 <= file < 1 << 64:
            raise UsageError(f"{file} is no inode number")
        return self._inodes.one(file)

    def _content(self, inodes: Inodes) -> BlockDevice:
        """The content of one regular file, as a device of its size."""
        number, size = int(inodes.number[0]), int(inodes.size[0])
        name = f"{self.device.name} inode {number}"
        freed = bool(self._freed(inodes, np.zeros(1, np.int64))[0])
        if freed and not inline(self._volume, inodes)[0] and not (size and inodes.block[0].any()):
            message = f"inode {number} was deleted, and with it the map of its blocks: no content is left"
            raise self._volume.damage(message, None, "inode")
        if size < 0:
            raise self._volume.damage(f"inode {number} claims a size of 2**63 bytes or more", None, "inode")
        if not size and (not inodes.flagged(InodeFlag.EXTENTS)[0] or bytes(inodes.block[0, :4]) == lay.EXTENT_NONE):
            return MemoryDevice(b"", name)  # no map to walk; one that is there might be damaged, and say so
        if inline(self._volume, inodes)[0]:
            content = inline_content(inodes, 0)[:size]
            return MappedDevice(MemoryDevice(content, name), [0], [len(content)], [0], size, name, owns=True)
        found = self._map(inodes, np.zeros(1, np.int64))
        if freed and not len(found.query):
            message = f"inode {number} was deleted, and with it the map of its blocks: no content is left"
            raise self._volume.damage(message, None, "inode")
        if found.errors:
            if found.damaged.all():
                raise found.errors[0]
            self.findings.add_error(found.errors[0], file=number | (lay.DELETED if freed else 0))
        block = self._volume.superblock.block_size
        return MappedDevice(
            self.device,
            found.logical * block,
            found.count * block,
            np.where(found.damaged, 0, found.physical) * block,
            size,
            name,
            unwritten=found.kind == RunKind.UNWRITTEN,
            damaged=found.damaged,
            why=lambda run: found.explain(self._volume, run),
        )


def _unique(files: UInt64s) -> tuple[UInt64s, Int64s]:
    """The different ids, and the place of each asked one among them."""
    unique, place = np.unique(np.asarray(files, np.uint64), return_inverse=True)
    return unique, place.astype(np.int64)


def _spread(place: Int64s, owner: Int64s, n: int) -> tuple[Int64s, Int64s]:
    """Hands the items of different owners to each question about them.

    Args:
        place: int64 (q,), the owner that each question is about.
        owner: int64 (m,), the owner of each item, ascending.
        n: how many owners there are.

    Returns:
        int64 (k,) twice: the question and the item, sorted by the question.
    """
    counts = np.bincount(owner, minlength=n).astype(np.int64)
    begins = np.cumsum(counts) - counts
    mine = counts[place]
    query = np.repeat(np.arange(len(place), dtype=np.int64), mine)
    item = np.arange(len(query), dtype=np.int64) - np.repeat(np.cumsum(mine) - mine, mine)
    return query, item + np.repeat(begins[place], mine)


def _details(superblock: Superblock) -> dict[str, object]:
    features = [superblock.compat, superblock.incompat, superblock.ro_compat]
    return {
        "block size": superblock.block_size,
        "cluster size": superblock.cluster_size,
        "blocks": superblock.blocks,
        "inode size": superblock.inode_size,
        "inodes": superblock.inodes,
        "block groups": superblock.groups,
        "descriptor size": superblock.desc_size,
        "features": [str(flag.name).lower() for flags in features for flag in flags if flag.name],
        "journal": bool(superblock.compat & Compat.HAS_JOURNAL),
        "strict encoding": superblock.strict_encoding,
    }
