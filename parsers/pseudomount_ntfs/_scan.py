"""The whole MFT in one pass: records in large reads, parsed by the kernels that serve single files.

A file's names are in its own record, with the directories they are in, so directories need not be read. Records that
have an attribute list are left until the end: the extension records that they need lie anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileRows, LinkRows, ScanBatch, ScanLinks, ScanStreams
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._catalogue import name_places, rows_of
from pseudomount_ntfs._layout import (
    DELETED,
    DOS_NAMESPACE,
    MAGIC_FILE,
    RECORD_MASK,
    SEQUENCE_SHIFT,
    AttributeType,
    RecordFlag,
    RecordNumber,
    units_of,
)
from pseudomount_ntfs._names import unusable, wtf8
from pseudomount_ntfs._records import apply_fixups, parse_attributes, record_headers, record_numbers
from pseudomount_ntfs._runs import read_segments
from pseudomount_ntfs._volume import BATCH_RECORDS, Volume

__all__ = ["scan_volume"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

_MASK = np.uint64(RECORD_MASK)
_SHIFT = np.uint64(SEQUENCE_SHIFT)
#: $MFT:$BITMAP of the largest MFT that the record numbers of NTFS allow.
_BITMAP_LIMIT = 512 << 20


def scan_volume(
    volume: Volume,
    children: Callable[[UInt64s], LinkRows],
    root: int,
    *,
    system_files: bool = False,
    deleted: bool = False,
) -> Iterator[ScanBatch]:
    """The whole enumeration; see `FileSystem.scan`.

    Args:
        volume: where.
        children: lists directories; asked only where records are damaged, for the names that these files have.
        root: id of the root directory.
        system_files: whether the metafiles are wanted.
        deleted: whether records that are no longer in use are wanted.
    """
    yield from _Scan(volume, children, root, system_files=system_files).run(deleted=deleted)


class _Scan:
    """One pass, or with deleted files two: their parents are known once all others are."""

    def __init__(
        self, volume: Volume, children: Callable[[UInt64s], LinkRows], root: int, *, system_files: bool
    ) -> None:
        self._volume = volume
        self._children = children
        self._root = root
        self._system_files = system_files
        # Of each record: its sequence number, and whether it is a file, or a directory.
        self._sequence = np.zeros(volume.records, np.uint16)
        self._live = np.zeros(volume.records, np.bool_)
        self._directory = np.zeros(volume.records, np.bool_)
        self._hidden = np.zeros(volume.records, np.bool_)
        if not system_files:
            self._hidden[: RecordNumber.FIRST_USER] = True
            self._hidden[RecordNumber.ROOT] = False
        self._expected = self._in_use()
        self._damaged: list[Int64s] = []
        self._errors: dict[int, PseudomountError] = {}
        self._dubious: list[ScanLinks] = []

    def _in_use(self) -> Bools | None:
        """Which records $MFT's own bitmap says are in use; None where it cannot be read."""
        try:
            data = self._volume.attribute_value(RecordNumber.MFT, AttributeType.BITMAP, _BITMAP_LIMIT)
        except PseudomountError:
            return None
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: self._volume.records]
        used = np.zeros(self._volume.records, np.bool_)
        used[: len(bits)] = bits != 0
        return used

    def run(self, *, deleted: bool) -> Iterator[ScanBatch]:
        """All parts."""
        records = self._volume.records
        whole = records * (2 if deleted else 1)
        later: list[UInt64s] = []
        for first in range(0, records, BATCH_RECORDS):
            count = min(BATCH_RECORDS, records - first)
            batch, listed = self._load(first, count)
            later.append(batch.references[listed])
            yield self._part(batch, ~listed, (first + count) / whole)
        postponed = np.concatenate(later) if later else np.empty(0, np.uint64)
        for _, batch in self._volume.batches(postponed):
            yield self._part(batch, np.ones(len(batch), np.bool_), records / whole)
        yield from self._leftovers()
        if deleted:
            for first in range(0, records, BATCH_RECORDS):
                count = min(BATCH_RECORDS, records - first)
                yield self._part(self._load_deleted(first, count), None, (records + first + count) / whole)

    # -- records -----------------------------------------------------------------------------------------------------

    def _read(self, first: int, count: int) -> tuple[UInt8s, dict[int, PseudomountError]]:
        """Neighbouring records as a matrix, not fixed up; where the read failed, record by record."""
        size = self._volume.record_size
        where = np.array([first * size], np.int64)
        data, errors = read_segments(
            self._volume.device, self._volume.mft, where, np.array([count * size], np.int64), "$MFT"
        )
        if errors:
            each = np.arange(first, first + count, dtype=np.int64) * size
            data, errors = read_segments(
                self._volume.device, self._volume.mft, each, np.full(count, size, np.int64), "$MFT"
            )
        if not data.flags.writeable:
            data = data.copy()
        return data.reshape(count, size), errors

    def _load(self, first: int, count: int) -> tuple[Batch, Bools]:
        """The files among some records, and which of them have an attribute list."""
        volume = self._volume
        matrix, errors = self._read(first, count)
        magic = np.ascontiguousarray(matrix[:, :4]).view("<u4")[:, 0] == MAGIC_FILE
        fits = apply_fixups(matrix) & magic
        header = record_headers(matrix)
        if first < RecordNumber.FIRST_USER and not fits[: min(4, count)].all():
            self._mirrored(matrix, fits, header, min(4, count))
            header = record_headers(matrix)
        in_use = (header["flags"] & RecordFlag.IN_USE) != 0
        base = header["base"] == 0
        live = fits & in_use & base
        part = slice(first, first + count)
        self._sequence[part] = np.where(fits, header["sequence"], 0)
        self._live[part] = live
        self._directory[part] = live & ((header["flags"] & RecordFlag.DIRECTORY) != 0)
        suspect = ~fits & (magic if self._expected is None else self._expected[part])
        if suspect.any() or errors:
            self._note_damaged(first, suspect, magic, errors)
        rows = np.flatnonzero(live)
        numbers = rows + first
        if len(rows) < count:
            matrix, header = matrix[rows], header[rows]
        sequence = header["sequence"]
        references = numbers.astype(np.uint64) | (sequence.astype(np.uint64) << _SHIFT)
        attributes, wrong = parse_attributes(matrix, np.arange(len(rows)), volume.geometry.cluster_size)
        batch = Batch(
            references,
            matrix.reshape(-1),
            attributes,
            header["flags"].astype(np.int64),
            header["links"].astype(np.int64),
            sequence.astype(np.int64),
            {},
            {row: volume.damaged(int(numbers[row]), what) for row, what in wrong.items()},
        )
        listed = np.zeros(len(rows), np.bool_)
        listed[batch.attributes.row[batch.of_type(AttributeType.ATTRIBUTE_LIST)]] = True
        return batch, listed

    def _mirrored(self, matrix: UInt8s, fits: Bools, header: NDArray[np.void], count: int) -> None:
        """Puts the copies of the first records in the place of damaged ones."""
        found = self._volume.load(np.arange(count, dtype=np.uint64))
        size = self._volume.record_size
        for row in range(count):
            if not fits[row] and row not in found.errors:
                matrix[row] = found.buffer[row * size : (row + 1) * size]
                fits[row] = True

    def _note_damaged(self, first: int, suspect: Bools, magic: Bools, errors: dict[int, PseudomountError]) -> None:
        rows = np.flatnonzero(suspect)
        rows = rows[~self._hidden[rows + first]]
        self._damaged.append(rows + first)
        volume = self._volume
        for row in rows.tolist():
            what = "its update sequence does not fit, a torn write" if magic[row] else "it has no FILE signature"
            self._errors[row + first] = errors.get(row) or volume.damaged(row + first, what)

    def _load_deleted(self, first: int, count: int) -> Batch:
        """The records among some that were files and are no longer in use."""
        matrix, _ = self._read(first, count)
        magic = np.ascontiguousarray(matrix[:, :4]).view("<u4")[:, 0] == MAGIC_FILE
        fits = apply_fixups(matrix) & magic
        header = record_headers(matrix)
        gone = fits & ((header["flags"] & RecordFlag.IN_USE) == 0) & (header["base"] == 0)
        rows = np.flatnonzero(gone)
        matrix, header = matrix[rows], header[rows]
        sequence = header["sequence"].astype(np.uint64)
        references = (rows + first).astype(np.uint64) | np.uint64(DELETED) | (sequence << _SHIFT)
        attributes, _ = parse_attributes(matrix, np.arange(len(rows)), self._volume.geometry.cluster_size)
        return Batch(
            references,
            matrix.reshape(-1),
            attributes,
            header["flags"].astype(np.int64),
            header["links"].astype(np.int64),
            sequence.astype(np.int64),
            {},
            {},
        )

    # -- parts -------------------------------------------------------------------------------------------------------

    def _part(self, batch: Batch, wanted: Bools | None, done: float) -> ScanBatch:
        """A batch's files, names and streams; all of them deleted where `wanted` is None."""
        gone = wanted is None
        owner, names, at, count = name_places(batch)
        files = rows_of(self._volume, batch, (owner, names))
        links, errors = self._links(batch, files.type, owner, names, at, count, deleted=gone)
        streams = _streams(batch)
        keep = np.ones(len(batch), np.bool_) if wanted is None else wanted.copy()
        if not gone:
            keep &= ~self._hidden[record_numbers(batch.references)]
        if not keep.all():
            ids = batch.references[keep]
            files = files.take(np.flatnonzero(keep))
            links = _kept_links(links, np.isin(links.file, ids))
            streams = _kept_streams(streams, np.isin(streams.file, ids))
        return ScanBatch(files, links, np.full(len(files), gone), streams, errors, done)

    def _links(
        self,
        batch: Batch,
        kinds: UInt8s,
        owner: Int64s,
        names: NDArray[np.void],
        at: Int64s,
        count: Int64s,
        *,
        deleted: bool,
    ) -> tuple[ScanLinks, dict[int, PseudomountError]]:
        """The names of a batch's files, as the directories have them; `name_places` says where they are."""
        parent = names["parent"]
        number = record_numbers(parent)
        file = batch.references[owner]
        own = record_numbers(file) == RecordNumber.ROOT
        inside = (number >= 0) & (number < self._volume.records)
        keep = ~own & inside
        if not self._system_files and not deleted:
            self._hide(record_numbers(file), number, inside)
            keep &= ~self._hidden[np.where(inside, number, 0)] & ~self._hidden[record_numbers(file)]
        keep &= ~_aliases(owner, parent, names["namespace"])
        rows = np.flatnonzero(keep)
        owner, parent, number, file = owner[rows], parent[rows], number[rows], file[rows]
        units, offsets = units_of(batch.buffer, at[rows], count[rows])
        errors: dict[int, PseudomountError] = {}
        bad = unusable(units, offsets)
        text = wtf8(units, offsets)
        if bad.any():
            for i in np.flatnonzero(bad).tolist():
                message = f"an entry for MFT record {int(file[i]) & RECORD_MASK} has a name that no file can have"
                errors.setdefault(int(parent[i]), self._volume.damaged(int(number[i]), message, "index"))
            good = np.flatnonzero(~bad)
            owner, parent, number, file, text = owner[good], parent[good], number[good], file[good], text.take(good)
        if deleted:
            parent = self._deleted_parents(parent, number)
        links = ScanLinks(parent, file, text, kinds[owner], np.full(len(owner), deleted))
        anonymous = (parent >> _SHIFT) == 0
        if anonymous.any():  # a reference with sequence number 0 is to whatever has the record
            self._dubious.append(_kept_links(links, anonymous))
            links = _kept_links(links, ~anonymous)
        return links, errors

    def _hide(self, file: Int64s, parent: Int64s, inside: Bools) -> None:
        """What lies in a metafile is none that a listing has ($Extend has files of its own)."""
        while True:
            fresh = inside & self._hidden[np.where(inside, parent, 0)] & ~self._hidden[file]
            fresh &= (parent != RecordNumber.ROOT) & (file != RecordNumber.ROOT)
            if not fresh.any():
                return
            self._hidden[file[fresh]] = True

    def _deleted_parents(self, parent: UInt64s, number: Int64s) -> UInt64s:
        """The ids of the directories that deleted names were in: a directory deleted, too, has the next number."""
        sequence = (parent >> _SHIFT).astype(np.int64)
        now = self._sequence[number].astype(np.int64)
        gone = ~self._live[number] & ((now == sequence + 1) | (now == sequence))
        mark = np.uint64(DELETED)
        return np.where(gone, number.astype(np.uint64) | mark | (now.astype(np.uint64) << _SHIFT), parent)

    def _leftovers(self) -> Iterator[ScanBatch]:
        """Names whose directory is known only now, and those of damaged records, which the directories have."""
        none = FileRows.none()
        nothing = np.empty(0, np.bool_)
        for links in self._dubious:
            number = record_numbers(links.parent)
            parent = number.astype(np.uint64) | (self._sequence[number].astype(np.uint64) << _SHIFT)
            fixed = ScanLinks(parent, links.file, links.name, links.type, links.deleted)
            yield ScanBatch(none, fixed, nothing, ScanStreams.none())
        damaged = np.concatenate(self._damaged) if self._damaged else np.empty(0, np.int64)
        if not len(damaged):
            return
        numbers = np.flatnonzero(self._directory & ~self._hidden)
        directories = numbers.astype(np.uint64) | (self._sequence[numbers].astype(np.uint64) << _SHIFT)
        told = np.zeros(self._volume.records, np.bool_)
        for first in range(0, len(directories), BATCH_RECORDS):
            found = self._children(directories[first : first + BATCH_RECORDS])
            hit = np.isin(record_numbers(found.file), damaged)
            told[record_numbers(found.file)[hit]] = True
            errors = {int(directories[first + i]): error for i, error in found.errors.items()}
            part = found.take(hit)
            links = ScanLinks(part.parent, part.file, part.name, part.type, np.zeros(len(part), np.bool_))
            yield ScanBatch(none, links, nothing, ScanStreams.none(), errors)
        for number in damaged[~told[damaged]].tolist():
            self._volume.findings.add_error(self._errors[number], file=number)


def _aliases(owner: Int64s, parent: UInt64s, namespace: NDArray[np.uint8]) -> Bools:
    """Names of 8.3 form beside the long name of the same file in the same directory."""
    alias: Bools = namespace == DOS_NAMESPACE
    if not alias.any():
        return np.zeros(len(owner), np.bool_)
    order = np.lexsort((alias, parent, owner))
    same = np.zeros(len(order), np.bool_)
    a, b = order[:-1], order[1:]
    same[1:] = (owner[a] == owner[b]) & (parent[a] == parent[b])
    # Long names come first in a group; an alias that begins one has none beside it.
    starts = np.flatnonzero(~same)
    has_long = ~alias[order[starts]]
    group = np.cumsum(~same) - 1
    drop: Bools = np.zeros(len(order), np.bool_)
    drop[order] = alias[order] & has_long[group]
    return drop


def _streams(batch: Batch) -> ScanStreams:
    picks = batch.of_type(AttributeType.DATA, None)
    attributes = batch.attributes
    picks = picks[attributes.name_length[picks] > 0]
    if not len(picks):
        return ScanStreams.none()
    names = wtf8(*units_of(batch.buffer, attributes.name_at[picks], attributes.name_length[picks]))
    stored = np.where(attributes.resident[picks], 0, attributes.stored[picks])
    return ScanStreams(batch.references[attributes.row[picks]], names, attributes.size[picks], stored)


def _kept_links(links: ScanLinks, keep: Bools) -> ScanLinks:
    if keep.all():
        return links
    return ScanLinks(links.parent[keep], links.file[keep], links.name.take(keep), links.type[keep], links.deleted[keep])


def _kept_streams(streams: ScanStreams, keep: Bools) -> ScanStreams:
    if keep.all():
        return streams
    return ScanStreams(streams.file[keep], streams.name.take(keep), streams.size[keep], streams.allocated[keep])
