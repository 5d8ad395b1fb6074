"""The whole MFT in one pass: records in large reads, parsed by the kernels that serve single files.

A file's names are in its own record, with the directories they are in, so directories need not be read. Records that
have an attribute list are left until the end: the extension records that they need lie anywhere. What a damaged record
should have said, directories say: they are read only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import FileRows, FileType, LinkRows, ScanBatch, ScanLinks, ScanStreams
from pseudomount.findings import Severity
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._catalogue import name_places, rows_of
from pseudomount_ntfs._layout import (
    DELETED,
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
from pseudomount_ntfs._runs import read_segments, stretches
from pseudomount_ntfs._scan_parts import aliases, bits, kept_links, named_streams, names_only, record_spans, selected
from pseudomount_ntfs._volume import BATCH_RECORDS, Volume

__all__ = ["scan_volume"]

Bools = NDArray[np.bool_]
Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

_SHIFT = np.uint64(SEQUENCE_SHIFT)
_MARK = np.uint64(DELETED)
#: $Extend, in which the later metafiles are.
_EXTEND = 11
#: How many levels and directories of it are looked at; there are about five.
_EXTEND_LEVELS, _EXTEND_MOST = 16, 4096
#: The first reference to $MFT: its record is never freed.
_OF_MFT = 1 << SEQUENCE_SHIFT
#: Bytes of extension records that one batch may bring along, and of an entry that leads to one, at least.
_EXTENSIONS, _LIST_ENTRY = 64 << 20, 32
#: Damage that is told record by record.
_TOLD = 10_000

_LIVE, _DIRECTORY, _HIDDEN, _UNSURE = np.uint8(1), np.uint8(2), np.uint8(4), np.uint8(8)


def scan_volume(
    volume: Volume,
    children: Callable[[UInt64s], LinkRows],
    rows: Callable[[UInt64s], FileRows],
    root: int,
    *,
    system_files: bool = False,
    deleted: bool = False,
) -> Iterator[ScanBatch]:
    """The whole enumeration; see `FileSystem.scan`.

    Args:
        volume: where.
        children: lists directories; asked only where records are damaged, for the names that these files have.
        rows: says why a file cannot be read.
        root: id of the root directory.
        system_files: whether the metafiles are wanted.
        deleted: whether records that are no longer in use are wanted.
    """
    yield from _Scan(volume, children, rows, root, system_files=system_files).run(deleted=deleted)


class _Scan:
    """One pass, or with deleted files two: their parents are known once all others are."""

    def __init__(
        self,
        volume: Volume,
        children: Callable[[UInt64s], LinkRows],
        rows: Callable[[UInt64s], FileRows],
        root: int,
        *,
        system_files: bool,
    ) -> None:
        self._volume = volume
        self._children = children
        self._rows = rows
        self._root = root
        self._system_files = system_files
        self._spans, self._lost = record_spans(volume)
        count = self._spans[-1][0] + self._spans[-1][1] if self._spans else 0
        self._records = count
        # Of each record: its sequence number, and what it is.
        self._sequence = np.zeros(count, np.uint16)
        self._state = np.zeros(count, np.uint8)
        if not system_files:
            self._state[: RecordNumber.FIRST_USER] = _HIDDEN
            self._state[RecordNumber.ROOT : RecordNumber.ROOT + 1] = 0
        self._damaged: list[Int64s] = []
        self._reasons: dict[int, str] = {}
        self._read_errors: dict[int, PseudomountError] = {}
        self._unsure: list[ScanLinks] = []
        self._dubious: list[ScanLinks] = []

    def run(self, *, deleted: bool) -> Iterator[ScanBatch]:
        """All parts."""
        if not self._system_files:
            self._hide_extend()
        expected = self._in_use()
        whole = max(1, sum(count for _, count in self._spans)) * (2 if deleted else 1)
        passed = 0
        later: list[tuple[UInt64s, Int64s]] = []
        for first, count in self._parts():
            batch, listed = self._load(first, count, expected)
            passed += count
            if listed.any():
                batch = self._postpone(batch, listed, later)
            yield self._part(batch, passed / whole)
        del expected
        for batch in self._postponed(later, marked=False):
            yield self._part(batch, passed / whole)
        yield from self._leftovers(passed / whole)
        if not deleted:
            return
        later = []
        for first, count in self._parts():
            batch, listed = self._load_deleted(first, count)
            passed += count
            if listed.any():
                batch = self._postpone(batch, listed, later)
            yield self._part(batch, passed / whole, deleted=True)
        for batch in self._postponed(later, marked=True):
            yield self._part(batch, 1.0, deleted=True)

    # -- what there is -----------------------------------------------------------------------------------------------

    def _parts(self) -> Iterator[tuple[int, int]]:
        """First record and number of records of each read."""
        for first, count in self._spans:
            for at in range(first, first + count, BATCH_RECORDS):
                yield at, min(BATCH_RECORDS, first + count - at)

    def _in_use(self) -> UInt8s | None:
        """$MFT's own bitmap of the records in use, packed; None where it cannot be read."""
        volume = self._volume
        batch = volume.load(np.array([_OF_MFT], np.uint64))
        pick = batch.pick(AttributeType.BITMAP)
        if batch.errors or pick[0] < 0:
            return None
        try:
            # It grows in steps: a little more than it needs is no damage.
            data = volume.values(batch, pick, self._records // 8 + (1 << 16)).bytes_of(0)
        except PseudomountError:
            return None
        bits = np.frombuffer(data, np.uint8)
        return bits if len(bits) and bits[0] == 0xFF else None  # the first metafiles are always there

    def _hide_extend(self) -> None:
        """What lies in a metafile is none that a listing has: finds the directories below $Extend."""
        level = np.array([_EXTEND], np.uint64)
        for _ in range(_EXTEND_LEVELS):
            found = self._children(level)
            numbers = record_numbers(found.file)
            fresh = (found.type != FileType.FILE) & (numbers >= RecordNumber.FIRST_USER) & (numbers < self._records)
            level = np.unique(found.file[fresh])[:_EXTEND_MOST]
            level = level[(self._state[record_numbers(level)] & _HIDDEN) == 0]
            if not len(level):
                return
            # Only what says itself that it belongs there, as the files of this scan do.
            batch = self._volume.load(level)
            owner, names, _, _ = name_places(batch)
            parents = record_numbers(names["parent"])
            inside = (parents < self._records) & ((self._state[np.minimum(parents, self._records - 1)] & _HIDDEN) != 0)
            own = np.bincount(owner[inside], minlength=len(batch)) > 0
            own &= np.bincount(owner[~inside], minlength=len(batch)) == 0
            own &= (batch.flags & RecordFlag.DIRECTORY) != 0
            own[list(batch.errors)] = False
            level = level[own]
            self._state[record_numbers(level)] |= _HIDDEN
            if not len(level):
                return

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

    def _load(self, first: int, count: int, expected: UInt8s | None) -> tuple[Batch, Bools]:
        """The files among some records, and which of them have an attribute list."""
        matrix, errors = self._read(first, count)
        magic = np.ascontiguousarray(matrix[:, :4]).view("<u4")[:, 0] == MAGIC_FILE
        fits = apply_fixups(matrix) & magic
        if first < RecordNumber.FIRST_USER and not fits[: min(4, count)].all():
            self._mirrored(matrix, fits, first, min(4, count))
        header = record_headers(matrix)
        in_use = (header["flags"] & RecordFlag.IN_USE) != 0
        base = header["base"] == 0
        live = fits & in_use & base
        part = slice(first, first + count)
        self._sequence[part] = np.where(fits, header["sequence"], 0)
        directory = (header["flags"] & RecordFlag.DIRECTORY) != 0
        self._state[part] |= np.where(live, _LIVE, 0) | np.where(live & directory, _DIRECTORY, 0)
        missing = magic & in_use if expected is None else bits(expected, first, count) | (magic & in_use)
        suspect = np.where(fits, base & ~in_use & missing, missing)
        if expected is None:
            suspect |= ~fits & matrix.any(axis=1)
        suspect[list(errors)] = True
        if suspect.any():
            self._note_damaged(first, suspect, fits, magic, errors)
        return self._batch(first, matrix, header, live, np.uint64(0))

    def _load_deleted(self, first: int, count: int) -> tuple[Batch, Bools]:
        """The files among some records that are no longer in use, and which of them have an attribute list."""
        matrix, _ = self._read(first, count)
        magic = np.ascontiguousarray(matrix[:, :4]).view("<u4")[:, 0] == MAGIC_FILE
        fits = apply_fixups(matrix) & magic
        header = record_headers(matrix)
        gone = fits & ((header["flags"] & RecordFlag.IN_USE) == 0) & (header["base"] == 0)
        batch, listed = self._batch(first, matrix, header, gone, _MARK)
        # Records that were made in advance and never used have no attributes.
        used = np.zeros(len(batch), np.bool_)
        used[batch.attributes.row] = True
        batch.damage.clear()
        return (batch, listed) if used.all() else (selected(batch, used), listed[used])

    def _batch(
        self, first: int, matrix: UInt8s, header: NDArray[np.void], wanted: Bools, mark: np.uint64
    ) -> tuple[Batch, Bools]:
        volume = self._volume
        rows = np.flatnonzero(wanted)
        numbers = rows + first
        if len(rows) < len(matrix):
            matrix, header = matrix[rows], header[rows]
        sequence = header["sequence"]
        attributes, wrong = parse_attributes(matrix, np.arange(len(rows)), volume.geometry.cluster_size)
        batch = Batch(
            numbers.astype(np.uint64) | mark | (sequence.astype(np.uint64) << _SHIFT),
            matrix.reshape(-1),
            attributes,
            header["flags"].astype(np.int64),
            header["links"].astype(np.int64),
            sequence.astype(np.int64),
            {},
            {row: volume.damaged(int(numbers[row]), what) for row, what in wrong.items()},
        )
        listed = np.zeros(len(rows), np.bool_)
        listed[attributes.row[attributes.type == AttributeType.ATTRIBUTE_LIST]] = True
        return batch, listed

    def _mirrored(self, matrix: UInt8s, fits: Bools, first: int, count: int) -> None:
        """Puts the copies of the first records in the place of damaged ones; their numbers are their sequence's."""
        if first:
            return
        numbers = np.arange(count, dtype=np.uint64)
        found = self._volume.load(numbers | (np.maximum(numbers, np.uint64(1)) << _SHIFT))
        size = self._volume.record_size
        for row in range(count):
            if not fits[row] and row not in found.errors:
                matrix[row] = found.buffer[row * size : (row + 1) * size]
                fits[row] = True

    def _note_damaged(
        self, first: int, suspect: Bools, fits: Bools, magic: Bools, errors: dict[int, PseudomountError]
    ) -> None:
        """Records that may be of files and cannot be read as such; what is not in use after all has no reason."""
        rows = np.flatnonzero(suspect)
        rows = rows[(self._state[rows + first] & _HIDDEN) == 0]
        self._damaged.append(rows + first)
        for row in rows[~fits[rows]].tolist():
            if len(self._reasons) >= _TOLD:
                return
            what = "its update sequence does not fit, a torn write" if magic[row] else "it has no FILE signature"
            self._reasons[row + first] = what
            if row in errors:
                self._read_errors[row + first] = errors[row]

    # -- records with extensions -------------------------------------------------------------------------------------

    def _postpone(self, batch: Batch, listed: Bools, later: list[tuple[UInt64s, Int64s]]) -> Batch:
        """A batch without the files that have an attribute list; these go to `later`, with the sizes of their lists."""
        attributes = batch.attributes
        lists = np.flatnonzero(attributes.type == AttributeType.ATTRIBUTE_LIST)
        sizes = np.zeros(len(batch), np.int64)
        np.maximum.at(sizes, attributes.row[lists], attributes.size[lists])
        later.append((batch.references[listed], sizes[listed]))
        return selected(batch, ~listed)

    def _postponed(self, later: list[tuple[UInt64s, Int64s]], *, marked: bool) -> Iterator[Batch]:
        """The files that were left until all others were there, in batches whose extension records memory holds."""
        if not later:
            return
        files = np.concatenate([part[0] for part in later])
        records = np.concatenate([part[1] for part in later]) // _LIST_ENTRY + 1
        # Each entry of a list stands for an attribute somewhere in the MFT, and no two for the same: volumes where
        # lists have more of them are forged, and following them would take forever.
        order = np.argsort(records, kind="stable")
        sound = np.cumsum(records[order]) <= self._records * self._volume.record_size // _LIST_ENTRY
        if not sound.all():
            refused = np.sort(order[~sound])
            message = f"{len(refused)} files have attribute lists with more entries than the MFT has attributes"
            self._volume.findings.add(Severity.LOST, message, structure="$ATTRIBUTE_LIST")
            if not marked:
                self._damaged.append(record_numbers(files[refused]))
                self._state[record_numbers(files[refused])] &= ~_LIVE
            keep = np.sort(order[sound])
            files, records = files[keep], records[keep]
        room = max(1, _EXTENSIONS // self._volume.record_size)
        group = (np.cumsum(records) - 1) // room
        for start, end in stretches(group):
            for _, batch in self._volume.batches(files[start:end]):
                yield batch

    # -- parts -------------------------------------------------------------------------------------------------------

    def _part(self, batch: Batch, done: float, *, deleted: bool = False) -> ScanBatch:
        """A batch's files, names and streams."""
        owner, names, at, count = name_places(batch)
        files = rows_of(self._volume, batch, (owner, names))
        keep = np.ones(len(batch), np.bool_)
        own = record_numbers(batch.references)
        parent = record_numbers(names["parent"])
        shown = (own[owner] != RecordNumber.ROOT) & (parent < self._records) & ((names["parent"] & _MARK) == 0)
        if not self._system_files:
            inside = np.where(shown, parent, RecordNumber.ROOT)
            secret = (self._state[inside] & _HIDDEN) != 0
            keep &= (own >= RecordNumber.FIRST_USER) | (own == RecordNumber.ROOT)
            if secret.any():
                # A file is hidden with its last name.
                every = np.bincount(owner, minlength=len(batch))
                keep &= (np.bincount(owner[secret], minlength=len(batch)) < every) | (every == 0)
            shown &= ~secret & keep[owner]
        shown &= ~aliases(owner, names["parent"], names["namespace"])
        rows = np.flatnonzero(shown)
        links, errors = self._links(
            batch, files.type, owner[rows], names["parent"][rows], at[rows], count[rows], deleted
        )
        found = named_streams(batch, keep & (files.type != FileType.UNKNOWN))
        if not keep.all():
            files = files.take(keep)
        return ScanBatch(files, links, np.full(len(files), deleted), found, errors, done)

    def _links(
        self, batch: Batch, kinds: UInt8s, owner: Int64s, parent: UInt64s, at: Int64s, count: Int64s, deleted: bool
    ) -> tuple[ScanLinks, dict[int, PseudomountError]]:
        """Some names of a batch's files, as the directories have them; `at` and `count` as `name_places` says."""
        units, offsets = units_of(batch.buffer, at, count)
        errors: dict[int, PseudomountError] = {}
        bad = unusable(units, offsets)
        text = wtf8(units, offsets)
        if deleted:
            parent = self._deleted_parents(parent)
        if bad.any():
            where, first = np.unique(parent[bad], return_index=True)
            whose = record_numbers(batch.references[owner[bad][first]])
            for directory, number in zip(where.tolist(), whose.tolist(), strict=True):
                if len(errors) < _TOLD and not deleted:
                    message = f"an entry for MFT record {number} has a name that no file can have"
                    errors[directory] = self._volume.damaged(directory & RECORD_MASK, message, "index")
            good = np.flatnonzero(~bad)
            owner, parent, text = owner[good], parent[good], text.take(good)
        links = ScanLinks(parent, batch.references[owner], text, kinds[owner], np.full(len(owner), deleted))
        if deleted:
            return links, errors
        if batch.damage:
            # Some of their names may be lost: the directories have them all.
            unsure = np.zeros(len(batch), np.bool_)
            unsure[list(batch.damage)] = True
            numbers = record_numbers(batch.references[unsure])
            numbers = numbers[(self._state[numbers] & _HIDDEN) == 0]
            self._damaged.append(numbers)
            self._state[numbers] |= _UNSURE
            self._unsure.append(kept_links(links, unsure[owner]))
            links = kept_links(links, ~unsure[owner])
        anonymous = (links.parent >> _SHIFT) == 0
        if anonymous.any():  # a reference with sequence number 0 is to whatever has the record
            self._dubious.append(kept_links(links, anonymous))
            links = kept_links(links, ~anonymous)
        return links, errors

    def _deleted_parents(self, parent: UInt64s) -> UInt64s:
        """The ids of the directories that deleted names were in.

        A sequence number goes up when its record is freed, and leaves out 0.
        """
        number = record_numbers(parent)
        sequence = (parent >> _SHIFT).astype(np.int64)
        now = self._sequence[number].astype(np.int64)
        live = (self._state[number] & _LIVE) != 0
        gone = ~live & ((now == sequence) | (now == sequence % 0xFFFF + 1) | (sequence == 0))
        sequence = np.where(gone | (sequence == 0), now, sequence)
        return number.astype(np.uint64) | np.where(gone, _MARK, np.uint64(0)) | (sequence.astype(np.uint64) << _SHIFT)

    # -- what is left ------------------------------------------------------------------------------------------------

    def _leftovers(self, done: float) -> Iterator[ScanBatch]:
        """Names whose directory is known only now, and those of damaged records, which the directories have."""
        for links in self._dubious:
            number = record_numbers(links.parent)
            parent = number.astype(np.uint64) | (self._sequence[number].astype(np.uint64) << _SHIFT)
            yield names_only(ScanLinks(parent, links.file, links.name, links.type, links.deleted), done)
        self._dubious.clear()
        damaged = np.concatenate(self._damaged) if self._damaged else np.empty(0, np.int64)
        if len(damaged) or self._lost:
            yield from self._from_directories(damaged, done)

    def _from_directories(self, damaged: Int64s, done: float) -> Iterator[ScanBatch]:
        """The names of all files that the MFT does not have, or not as their directories say."""
        told = np.zeros(self._records, np.bool_)
        fresh = [np.empty(0, np.uint64)]
        root = record_numbers(np.array([self._root], np.uint64))
        if not self._records or not self._state[root[0]] & _LIVE:
            fresh.append(np.array([self._root], np.uint64))
        for first, count in self._parts():
            state = self._state[first : first + count]
            numbers = np.flatnonzero((state & (_DIRECTORY | _HIDDEN)) == _DIRECTORY) + first
            if not len(numbers):
                continue
            directories = numbers.astype(np.uint64) | (self._sequence[numbers].astype(np.uint64) << _SHIFT)
            found = self._children(directories)
            number = record_numbers(found.file)
            known = number < self._records
            place = np.where(known, number, 0)
            sequence = (found.file >> _SHIFT).astype(np.int64)
            known &= ((self._state[place] & _LIVE) != 0) & ((sequence == self._sequence[place]) | (sequence == 0))
            unsure = known & ((self._state[place] & _UNSURE) != 0)
            fresh.append(np.unique(found.file[~known]))
            hit = ~known | unsure
            told[number[hit & (number < self._records)]] = True
            part = found.take(hit)
            links = ScanLinks(part.parent, part.file, part.name, part.type, np.zeros(len(part), np.bool_))
            yield names_only(links, done, {int(directories[i]): error for i, error in found.errors.items()})
        for links in self._unsure:
            yield names_only(kept_links(links, ~told[record_numbers(links.file)]), done)
        self._unsure.clear()
        lost = np.unique(np.concatenate(fresh))
        for first in range(0, len(lost), BATCH_RECORDS):
            rows = self._rows(lost[first : first + BATCH_RECORDS])
            nothing = np.zeros(len(rows), np.bool_)
            yield ScanBatch(rows, ScanLinks.none(), nothing, ScanStreams.none(), done=done)
        for number in damaged[~told[damaged]].tolist():
            if number in self._reasons and number != root[0]:
                error = self._read_errors.get(number) or self._volume.damaged(number, self._reasons[number])
                self._volume.findings.add_error(error, file=number)
