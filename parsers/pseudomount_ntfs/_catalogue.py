"""What is known of each file of a batch, as columns.

Sources: [LN] Attribute: $STANDARD_INFORMATION, $FILE_NAME; [MS-FSCC] 2.6 File attributes; FILETIME counts 100 ns since
1601 UTC.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.filesystem import FileRows, FileType, TimeColumn
from pseudomount_ntfs._batch import Batch, Values
from pseudomount_ntfs._eas import EA_LIMIT, parse_eas
from pseudomount_ntfs._layout import (
    DOS_NAMESPACE,
    FILE_NAME,
    FILE_NAME_SIZE,
    RECORD_MASK,
    SEQUENCE_SHIFT,
    STANDARD_INFORMATION,
    STANDARD_INFORMATION_SHORT,
    AttributeType,
    FileFlag,
    RecordFlag,
    gather,
)
from pseudomount_ntfs._records import first_of
from pseudomount_ntfs._reparse import INTERIX_LIMIT, interix_target, interix_type, reparse_target, tag_type
from pseudomount_ntfs._volume import Volume

__all__ = ["Links", "file_names", "filetimes", "name_places", "rows_of", "standard_information"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt8s = NDArray[np.uint8]

_NODES = (FileType.CHAR_DEVICE, FileType.BLOCK_DEVICE)
_EPOCH = 11_644_473_600  # seconds from 1601 to 1970
_TICKS = np.uint64(10_000_000)
#: What int64 holds as nanoseconds since 1970, to the second.
_LOW, _HIGH = (_EPOCH - 9_223_372_035) * 10_000_000, (_EPOCH + 9_223_372_036) * 10_000_000 - 1
#: [MS-FSCC] 2.1.2: reparse data has at most 16 KiB, and a header.
REPARSE_LIMIT = 16384 + 64


def filetimes(ticks: NDArray[np.uint64], known: Bools) -> TimeColumn:
    """FILETIMEs as times; null where not `known`."""
    if len(ticks) and known.all() and ticks.min() >= _LOW and ticks.max() <= _HIGH:
        return TimeColumn((ticks.astype(np.int64) - _EPOCH * int(_TICKS)) * 100)
    seconds = (ticks // _TICKS).astype(np.int64) - _EPOCH
    return TimeColumn.of(seconds, (ticks % _TICKS).astype(np.int64) * 100, known)


def standard_information(batch: Batch) -> tuple[NDArray[np.void], Bools, Bools]:
    """$STANDARD_INFORMATION of each file (n,), which files have one, and which have the later, longer one."""
    picks = batch.pick(AttributeType.STANDARD_INFORMATION)
    attributes = batch.attributes
    has = picks >= 0
    if not has.any():
        return np.zeros(len(batch), STANDARD_INFORMATION), has, has
    length = attributes.value_length[picks]
    has &= attributes.resident[picks] & (length >= STANDARD_INFORMATION_SHORT)
    values = gather(batch.buffer, np.where(has, attributes.value_at[picks], 0), STANDARD_INFORMATION)
    return values, has, has & (length >= STANDARD_INFORMATION.itemsize)


def file_names(batch: Batch) -> tuple[Int64s, NDArray[np.void]]:
    """All $FILE_NAMEs of a batch that make sense: int64 (m,) file, ascending, and the structures (m,)."""
    owner, names, _, _ = name_places(batch)
    return owner, names


def name_places(batch: Batch) -> tuple[Int64s, NDArray[np.void], Int64s, Int64s]:
    """As `file_names`; and int64 (m,) each, where in the buffer the names begin, and how many units they have."""
    picks = batch.of_type(AttributeType.FILE_NAME)
    attributes = batch.attributes
    length = attributes.value_length[picks]
    picks = picks[attributes.resident[picks] & (length >= FILE_NAME_SIZE)]
    names = gather(batch.buffer, attributes.value_at[picks], FILE_NAME)
    count = names["name_length"].astype(np.int64)
    fits = FILE_NAME_SIZE + 2 * count <= attributes.value_length[picks]
    return attributes.row[picks[fits]], names[fits], attributes.value_at[picks[fits]] + FILE_NAME_SIZE, count[fits]


class Links:
    """Which files of a batch are links or special files, and the data that says so.

    Attributes:
        information: as `standard_information`.
        tag: int64 (n,), reparse tags, 0 without one.
        type: uint8 (n,), `FileType`.
        device: file → (major, minor) of the device that it is a node for.
        errors: file → why its reparse data could not be read.
    """

    def __init__(self, volume: Volume, batch: Batch) -> None:
        info, has, _ = self.information = standard_information(batch)
        self.flags: Int64s = np.where(has, info["attributes"], 0).astype(np.int64)
        self.errors: dict[int, PseudomountError] = {}
        n = len(batch)
        directory = (batch.flags & RecordFlag.DIRECTORY) != 0
        self.type: UInt8s = np.where(directory, FileType.DIRECTORY, FileType.FILE).astype(np.uint8)
        self.tag: Int64s = np.zeros(n, np.int64)
        self.device: dict[int, tuple[int, int]] = {}
        self._data: dict[int, tuple[Values, int, bool]] = {}
        points = batch.pick(AttributeType.REPARSE_POINT)
        rows = np.flatnonzero(points >= 0)
        if len(rows):
            self._reparse(rows, volume.values(batch, points[rows], REPARSE_LIMIT))
        self._wsl_nodes(volume, batch)
        data = batch.pick(AttributeType.DATA)
        system = (self.flags & FileFlag.SYSTEM != 0) & ~directory & (self.tag == 0) & (data >= 0)
        if system.any():
            rows = np.flatnonzero(system & (batch.attributes.size[data] <= INTERIX_LIMIT))
            self._interix(rows, volume.values(batch, data[rows], INTERIX_LIMIT))

    def _reparse(self, rows: Int64s, values: Values) -> None:
        for i, row in enumerate(rows.tolist()):
            if i in values.errors or int(values.lengths[i]) < 8:
                error = CorruptionError("a reparse point without a tag", structure="$REPARSE_POINT")
                self.errors[row] = values.errors.get(i, error)
                continue
            start = int(values.starts[i])
            tag = int.from_bytes(values.buffer[start : start + 4].tobytes(), "little")
            self.tag[row] = tag
            kind = tag_type(tag)
            if kind is not None:
                self.type[row] = kind
                self._data[row] = (values, i, True)

    def _interix(self, rows: Int64s, values: Values) -> None:
        hidden = self.flags & FileFlag.HIDDEN != 0
        for i, row in enumerate(rows.tolist()):
            if i in values.errors:
                continue  # not to be told from a plain file whose content is damaged; reading it will say so
            start, length = int(values.starts[i]), int(values.lengths[i])
            kind = interix_type(values.buffer[start : start + 8].tobytes(), length, bool(hidden[row]))
            if kind is not None:
                self.type[row] = kind
                self._data[row] = (values, i, False)
                if kind in _NODES:
                    self.device[row] = struct.unpack("<QQ", values.bytes_of(i)[8:24])

    def _wsl_nodes(self, volume: Volume, batch: Batch) -> None:
        """WSL keeps a node's device in the extended attribute $LXDEV: major and minor, 32 bits each."""
        attributes = batch.pick(AttributeType.EA)
        rows = np.flatnonzero(np.isin(self.type, _NODES) & (attributes >= 0))
        values = volume.values(batch, attributes[rows], EA_LIMIT)
        for i, row in enumerate(rows.tolist()):
            with contextlib.suppress(PseudomountError):  # what is wrong with them, `xattrs` says
                raw = parse_eas(values.bytes_of(i)).get("user.$LXDEV", b"")
                if len(raw) == 8:
                    self.device[row] = struct.unpack("<II", raw)

    def target(self, row: int) -> bytes:
        """Where a symbolic link leads.

        Raises:
            CorruptionError: its data makes no sense.
        """
        values, i, reparse = self._data[row]
        data = values.bytes_of(i)
        return reparse_target(data) if reparse else interix_target(data)


def rows_of(volume: Volume, batch: Batch, names: tuple[Int64s, NDArray[np.void]] | None = None) -> FileRows:
    """The columns of a batch; `FileRows` says what they are. `names` is what `file_names` says, where it is known.

    `extra`: `fn_created`, `fn_modified`, `fn_changed`, `fn_accessed` (datetime64[ns], NaT: none) are the times in
    the file's first long name; `rdev_major`, `rdev_minor` (int32, -1: no device node); `reparse_tag` and `security_id`
    (uint32, 0: none).
    """
    n = len(batch)
    attributes = batch.attributes
    errors: dict[int, PseudomountError] = {**batch.damage, **batch.errors}
    links = Links(volume, batch)
    info, has, long = links.information
    for row, error in links.errors.items():
        errors.setdefault(row, error)
    for row in np.flatnonzero(~has).tolist():
        if row not in errors:
            errors[row] = volume.damaged(int(batch.references[row]) & RECORD_MASK, "it has no $STANDARD_INFORMATION")
    owner, found = file_names(batch) if names is None else names
    real = found["namespace"] != DOS_NAMESPACE
    if not real.all():
        owner, found = owner[real], found[real]
    count = np.bincount(owner, minlength=n).astype(np.int64)
    first = first_of(owner, n)
    named = first >= 0
    name = found[first] if len(found) else np.zeros(n, FILE_NAME)
    data = batch.pick(AttributeType.DATA)
    size = np.where(data >= 0, attributes.size[data], 0) if len(attributes) else np.zeros(n, np.int64)
    for row in np.flatnonzero(links.type == FileType.SYMLINK).tolist():
        try:
            size[row] = len(links.target(row))
        except PseudomountError as error:
            errors.setdefault(row, error)
    size[(links.type == FileType.DIRECTORY) | (links.type > FileType.SYMLINK)] = 0
    kind = links.type
    if errors:
        kind[list(errors)] = FileType.UNKNOWN
    nodes = np.full((2, n), -1, np.int32)
    for row, numbers in links.device.items():
        nodes[:, row] = np.minimum(numbers, 0x7FFFFFFF)
    extra: Mapping[str, NDArray[np.generic]] = {
        "fn_created": filetimes(name["created"], named).ns.view("datetime64[ns]"),
        "fn_modified": filetimes(name["modified"], named).ns.view("datetime64[ns]"),
        "fn_changed": filetimes(name["changed"], named).ns.view("datetime64[ns]"),
        "fn_accessed": filetimes(name["accessed"], named).ns.view("datetime64[ns]"),
        "rdev_major": nodes[0],
        "rdev_minor": nodes[1],
        "reparse_tag": links.tag.astype(np.uint32),
        "security_id": np.where(long, info["security"], 0).astype(np.uint32),
    }
    none = np.full(n, -1, np.int64)
    return FileRows(
        file=batch.references,
        subvolume=np.zeros(n, np.uint64),
        inode=batch.references & np.uint64(RECORD_MASK),
        generation=(batch.references >> np.uint64(SEQUENCE_SHIFT)).astype(np.int64),
        type=kind,
        size=size,
        allocated=_allocated(volume, batch),
        mode=none,
        uid=none,
        gid=none,
        links=np.where(count > 0, count, batch.links),
        created=filetimes(info["created"], has),
        modified=filetimes(info["modified"], has),
        changed=filetimes(info["changed"], has),
        accessed=filetimes(info["accessed"], has),
        flags=links.flags.astype(np.uint64),
        extra=extra,
        errors=errors,
    )


def _allocated(volume: Volume, batch: Batch) -> Int64s:
    """The clusters of all data streams, named ones too, and of index blocks, in bytes."""
    attributes = batch.attributes
    wanted = ~attributes.resident & (attributes.lowest == 0)
    wanted &= (attributes.type == AttributeType.DATA) | (attributes.type == AttributeType.INDEX_ALLOCATION)
    # Forged numbers must not add up past what int64 holds.
    most = volume.geometry.clusters * volume.geometry.cluster_size
    total = np.zeros(len(batch), np.int64)
    np.add.at(total, attributes.row[wanted], np.minimum(attributes.stored[wanted], most))
    return total
