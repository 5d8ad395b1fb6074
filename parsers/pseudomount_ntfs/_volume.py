"""The volume beneath the files: the MFT's own runs, records in batches, and the streams that their attributes describe.

Sources: [LN] File: $MFT, $MFTMirr; Attribute: $ATTRIBUTE_LIST.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.device.ranges import coalesce
from pseudomount.errors import CorruptionError, PathNotFoundError, PseudomountError, UnsupportedError
from pseudomount.findings import FindingLog, Severity
from pseudomount_ntfs._batch import Batch, Values
from pseudomount_ntfs._boot import Geometry
from pseudomount_ntfs._free import FreeClusters
from pseudomount_ntfs._layout import (
    DELETED,
    MAGIC_FILE,
    SEQUENCE_SHIFT,
    AttributeFlag,
    AttributeType,
    RecordFlag,
    RecordNumber,
    units_of,
)
from pseudomount_ntfs._names import wtf8
from pseudomount_ntfs._records import (
    Attributes,
    apply_fixups,
    list_references,
    parse_attributes,
    record_headers,
    record_numbers,
)
from pseudomount_ntfs._runs import BAD, Segments, decode_pairs, read_segments

__all__ = ["Volume"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]

#: Records that are worked on at once; what a batch needs of memory follows from it.
BATCH_RECORDS = 8192
#: An attribute list is at most 256 KiB, [LN] Attribute: $ATTRIBUTE_LIST.
LIST_LIMIT = 256 << 10
#: Bytes of attribute lists that are worked on at once, and of extension records that one batch may bring along.
_LIST_BUDGET = 1 << 20
_EXTENSION_BUDGET = 256 << 20
_MIRRORED = 4
_MOST_PASSES = 64


class Volume:
    """Geometry, MFT and batches of records of one volume."""

    def __init__(self, device: BlockDevice, geometry: Geometry, findings: FindingLog) -> None:
        """Reads the first records, and as much as it takes to know where the whole MFT lies.

        Raises:
            CorruptionError: neither the MFT nor its mirror has a record 0 of use.
        """
        self.device, self.geometry, self.findings = device, geometry, findings
        self.mirror_used = False
        self.free = FreeClusters(self)
        self.mft = self._bootstrap()

    # -- the MFT -------------------------------------------------------------------------------------------------

    @property
    def record_size(self) -> int:
        """Bytes of an MFT record."""
        return self.geometry.record_size

    @property
    def records(self) -> int:
        """How many records the MFT has room for."""
        return self.mft.size // self.geometry.record_size

    def _bootstrap(self) -> Segments:
        geometry = self.geometry
        size = geometry.record_size
        for cluster, name in ((geometry.mft, "$MFT"), (geometry.mirror, "$MFTMirr")):
            position = cluster * geometry.cluster_size
            if cluster >= geometry.clusters or position + size > self.device.size:
                continue
            # A map of the first record alone is enough to read it; it then says where the others are.
            zero = np.zeros(1, np.int64)
            self.mft = Segments.of(zero, zero + size, zero + position, size)
            found = self._own_runs()
            if found is None:
                continue
            if name == "$MFTMirr":
                self.note_mirror(0)
            return found
        raise CorruptionError(
            "neither the MFT nor its mirror begins with a sound record",
            device=self.device.name,
            offset=geometry.mft * geometry.cluster_size,
            structure="$MFT",
        )

    def _own_runs(self) -> Segments | None:
        """Where the MFT lies, from its record 0; extension records are found through the runs known so far."""
        best: Segments | None = None
        known = -1
        for _ in range(_MOST_PASSES):
            batch = self.load(np.zeros(1, np.uint64), own=True)
            pick = int(batch.pick(AttributeType.DATA)[0]) if not batch.errors else -1
            if pick < 0 or batch.attributes.resident[pick]:
                return best
            stream = self.streams(batch, np.array([pick], np.int64))[0]
            sure = int(np.diff(stream.starts)[stream.positions >= 0].sum())
            if sure <= known:
                break
            best, known, self.mft = stream, sure, stream
            if not len(batch.of_type(AttributeType.ATTRIBUTE_LIST)):
                break
        if best is not None and bool((best.positions == BAD).any()):
            message = "parts of the MFT cannot be found: the records in them are lost"
            self.findings.add(Severity.LOST, message, structure="$MFT")
        return best

    def note_mirror(self, number: int) -> None:
        """Notes that a record was read from the mirror."""
        self.mirror_used = True
        message = f"MFT record {number} is damaged, its copy in $MFTMirr was used"
        self.findings.add(Severity.NOTE, message, structure="$MFTMirr", file=number)

    def _read_records(self, numbers: Int64s, errors: dict[int, PseudomountError]) -> UInt8s:
        """Records as a matrix, not fixed up; neighbours are read as one. Rows of `errors` are zeros."""
        size = self.geometry.record_size
        matrix = np.zeros((len(numbers), size), np.uint8)
        inside = (numbers >= 0) & (numbers < self.records)
        for row in np.flatnonzero(~inside).tolist():
            message = f"there is no MFT record {int(numbers[row])}, the MFT has {self.records}"
            errors[row] = CorruptionError(message, device=self.device.name, structure="file reference")
        rows = np.flatnonzero(inside)
        if not len(rows):
            return matrix
        offsets = numbers[rows] * size
        runs = coalesce(offsets, np.full(len(rows), size, np.int64), gap=4 * size, limit=1 << 20)
        data, failed = read_segments(self.device, self.mft, runs.offsets, runs.lengths, "$MFT")
        begins = np.cumsum(runs.lengths) - runs.lengths
        at = begins[runs.group] + offsets - runs.offsets[runs.group]
        matrix[rows] = data.reshape(-1, size)[at // size]
        if failed:
            again = rows[np.isin(runs.group, list(failed))]
            # A joined range failed as a whole; which of its records did, only single reads can tell.
            length = np.full(len(again), size, np.int64)
            data, single = read_segments(self.device, self.mft, numbers[again] * size, length, "$MFT")
            matrix[again] = data.reshape(-1, size)
            errors.update((int(again[i]), error) for i, error in single.items())
        return matrix

    def record_offset(self, number: int) -> int | None:
        """Where on the device a record begins."""
        if not 0 <= number < self.records:
            return None
        size = self.geometry.record_size
        position = int(self.mft.pieces(np.array([number * size], np.int64), np.array([1], np.int64))[2][0])
        return position if position >= 0 else None

    def damaged(self, number: int, message: str, structure: str = "MFT record") -> CorruptionError:
        """An error that says where a record lies."""
        return CorruptionError(
            f"MFT record {number}: {message}",
            device=self.device.name,
            offset=self.record_offset(number),
            structure=structure,
        )

    def _sound(self, matrix: UInt8s, numbers: Int64s, errors: dict[int, PseudomountError]) -> NDArray[np.bool_]:
        """Fixes records up in place; which of them are records, the others get their error."""
        magic = np.ascontiguousarray(matrix[:, :4]).view("<u4")[:, 0] == MAGIC_FILE
        fits = apply_fixups(matrix)
        for row in np.flatnonzero(~(magic & fits)).tolist():
            if row not in errors:
                what = "its update sequence does not fit, a torn write" if magic[row] else "it has no FILE signature"
                errors[row] = self.damaged(int(numbers[row]), what)
        good: NDArray[np.bool_] = magic & fits
        if errors:
            good[list(errors)] = False
        return good

    def _from_mirror(self, matrix: UInt8s, numbers: Int64s, errors: dict[int, PseudomountError]) -> None:
        """Replaces damaged ones of the first records by their copies."""
        size = self.geometry.record_size
        for row in [row for row in errors if 0 <= numbers[row] < _MIRRORED]:
            at = self.geometry.mirror * self.geometry.cluster_size + int(numbers[row]) * size
            if at + size > self.device.size:
                continue
            try:
                copy = np.frombuffer(self.device.read(at, size), np.uint8).reshape(1, -1).copy()
            except PseudomountError:
                continue
            if self._sound(copy, numbers[[row]], {})[0]:
                matrix[row] = copy[0]
                del errors[row]
                self.note_mirror(int(numbers[row]))

    # -- batches -------------------------------------------------------------------------------------------------

    def load(self, references: UInt64s, *, own: bool = False) -> Batch:
        """The records of files, with their extension records; at most `BATCH_RECORDS` of them, see `batches`.

        `own` is how the MFT finds itself: from the place it has now and no mirror, and under reference 0, which is
        nobody's otherwise.
        """
        numbers = record_numbers(references)
        errors: dict[int, PseudomountError] = {}
        matrix = self._read_records(numbers, errors)
        self._sound(matrix, numbers, errors)
        if not own:
            if errors:
                self._from_mirror(matrix, numbers, errors)
            for row in np.flatnonzero(references == 0).tolist():
                errors[row] = CorruptionError("0 is no file reference", structure="file reference")
        header = record_headers(matrix)
        sequence = header["sequence"].astype(np.int64)
        asked = (references >> np.uint64(SEQUENCE_SHIFT)).astype(np.int64)
        deleted = (references & np.uint64(DELETED)) != 0
        unused = ((header["flags"] & RecordFlag.IN_USE) == 0) != deleted
        stale = (asked != 0) & (asked != sequence)
        extension = header["base"] != 0
        for row in np.flatnonzero(unused | stale | extension).tolist():
            if row not in errors:
                errors[row] = self._absent(int(numbers[row]), bool(unused[row]), int(asked[row]), int(sequence[row]))
        good = np.ones(len(numbers), np.bool_)
        if errors:
            good[list(errors)] = False
        attributes, wrong = parse_attributes(matrix, np.flatnonzero(good), self.geometry.cluster_size)
        damage: dict[int, PseudomountError] = {
            row: self.damaged(int(numbers[row]), what) for row, what in wrong.items()
        }
        batch = Batch(
            references,
            matrix.reshape(-1),
            attributes,
            header["flags"].astype(np.int64),
            header["links"].astype(np.int64),
            sequence,
            errors,
            damage,
        )
        lists = batch.of_type(AttributeType.ATTRIBUTE_LIST)
        merged = self._merge(batch, lists) if len(lists) else batch
        for row in np.flatnonzero(deleted).tolist():
            batch.damage.pop(row, None)  # what is left of a deleted file is all that there is
        return merged

    def batches(self, references: UInt64s) -> Iterator[tuple[int, Batch]]:
        """Any number of files in batches, each with the place of its first file in the question."""
        for start in range(0, len(references), BATCH_RECORDS):
            yield start, self.load(references[start : start + BATCH_RECORDS])

    def _absent(self, number: int, unused: bool, asked: int, sequence: int) -> PseudomountError:
        if unused:
            return self.damaged(number, "it is not in use, the reference to it is stale", "file reference")
        if asked not in (0, sequence):
            what = f"it has sequence number {sequence}, the reference is for {asked}, an earlier file"
            return self.damaged(number, what, "file reference")
        return self.damaged(number, "it is an extension of another record, no file", "file reference")

    def _merge(self, batch: Batch, lists: Int64s) -> Batch:
        """Adds the attributes of extension records."""
        parts, tables = [batch.buffer], [batch.attributes]
        length, budget = len(batch.buffer), _EXTENSION_BUDGET
        sizes = np.minimum(batch.attributes.size[lists], LIST_LIMIT)
        groups = np.cumsum(sizes) // _LIST_BUDGET
        for group in np.unique(groups).tolist():
            picks = lists[groups == group]
            owners = batch.attributes.row[picks]
            values = self.values(batch, picks, LIST_LIMIT)
            for i, error in values.errors.items():
                batch.damage.setdefault(int(owners[i]), error)
            which, wanted, sound = list_references(values.buffer, values.starts, values.starts + values.lengths)
            for row in owners[~sound].tolist():
                batch.damage.setdefault(row, self._row_damage(batch, row, "its attribute list makes no sense"))
            pairs = np.unique(np.stack((wanted, owners[which].astype(np.uint64)), axis=1), axis=0)
            row, references = pairs[:, 1].astype(np.int64), pairs[:, 0].copy()
            away = record_numbers(references) != record_numbers(batch.references)[row]
            row, references = row[away], references[away]
            for start in range(0, len(row), BATCH_RECORDS):
                rows = row[start : start + BATCH_RECORDS]
                matrix, table = self._extensions(batch, rows, references[start : start + BATCH_RECORDS])
                budget -= matrix.size
                if budget < 0:
                    error = UnsupportedError("more extension records than fit into one batch; ask for fewer files")
                    for i in np.unique(rows).tolist():
                        batch.damage.setdefault(i, error)
                    break
                tables.append(table.moved(np.arange(len(batch), dtype=np.int64), length))
                parts.append(matrix.reshape(-1))
                length += len(parts[-1])
        batch.buffer = np.concatenate(parts)
        batch.attributes = Attributes.concat(tables)
        batch.forget()
        return batch

    def _extensions(self, batch: Batch, rows: Int64s, references: UInt64s) -> tuple[UInt8s, Attributes]:
        """Extension records that files name, and their attributes with the files' rows."""
        numbers = record_numbers(references)
        errors: dict[int, PseudomountError] = {}
        matrix = self._read_records(numbers, errors)
        good = self._sound(matrix, numbers, errors)
        header = record_headers(matrix)
        base = header["base"].astype(np.uint64)
        owner = batch.references[rows]
        # A batch may ask with sequence number 0, "any"; the record knows its own.
        same = record_numbers(base) == record_numbers(owner)
        # The sequence number goes up when a record is freed, and leaves out 0: deleted files know the ones before.
        gone = (owner & np.uint64(DELETED)) != 0
        told = (base >> np.uint64(SEQUENCE_SHIFT)).astype(np.int64)
        same &= (told == batch.sequence[rows]) | (gone & (told % 0xFFFF + 1 == batch.sequence[rows]))
        told = (references >> np.uint64(SEQUENCE_SHIFT)).astype(np.int64)
        same &= (told == header["sequence"]) | (gone & (told % 0xFFFF + 1 == header["sequence"]))
        same &= ((header["flags"] & RecordFlag.IN_USE) != 0) != gone
        for i in np.flatnonzero(~(good & same)).tolist():
            error = errors.get(i) or self.damaged(int(numbers[i]), "it should hold more of a file, and belongs to none")
            batch.damage.setdefault(int(rows[i]), error)
        keep = np.flatnonzero(good & same)
        table, wrong = parse_attributes(matrix, keep, self.geometry.cluster_size)
        for i, what in wrong.items():
            batch.damage.setdefault(int(rows[i]), self.damaged(int(numbers[i]), what))
        # Only what the files own is kept.
        kept = np.ascontiguousarray(matrix[keep])
        renumber = np.zeros(len(rows), np.int64)
        renumber[keep] = np.arange(len(keep))
        back = (renumber - np.arange(len(rows))) * self.geometry.record_size
        shift = back[table.row]
        moved = {name: getattr(table, name) + shift for name in ("at", "end", "name_at", "value_at", "pairs_at")} | {
            "row": rows[table.row]
        }
        names = Attributes.__slots__
        return kept, Attributes(**{name: moved.get(name, getattr(table, name)) for name in names})

    def _row_damage(self, batch: Batch, row: int, message: str) -> CorruptionError:
        return self.damaged(int(record_numbers(batch.references[[row]])[0]), message)

    # -- streams -------------------------------------------------------------------------------------------------

    def stream_runs(self, batch: Batch, picks: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """The runs of non-resident streams, by the attributes that begin them.

        Returns:
            int64 (m,) each: position in `picks`, first cluster in the stream, clusters, cluster on the volume or
            `ZERO`; ordered by position, then strictly ascending. What is missing or makes no sense is left out.
        """
        attributes, rest = batch.attributes, batch.continuations()
        parts, group = picks, np.arange(len(picks), dtype=np.int64)
        if rest:
            names = wtf8(*units_of(batch.buffer, attributes.name_at[picks], attributes.name_length[picks]))
            keys = zip(attributes.row[picks].tolist(), attributes.type[picks].tolist(), names, strict=True)
            chains = [[pick, *rest.get(key, [])] for pick, key in zip(picks.tolist(), keys, strict=True)]
            group = np.repeat(group, np.fromiter(map(len, chains), np.int64, len(chains)))
            parts = np.array([part for chain in chains for part in chain], np.int64)
        which, vcn, count, lcn, _ = decode_pairs(
            batch.buffer,
            attributes.pairs_at[parts],
            attributes.end[parts],
            attributes.lowest[parts],
            self.geometry.clusters,
        )
        owner = group[which]
        # Runs of one stream that overlap or go backwards: what comes later is not believed.
        fresh = _ascending(owner, vcn, vcn + count)
        runs = owner[fresh], vcn[fresh], count[fresh], lcn[fresh]
        # Clusters that a deleted file had and that others have by now are as good as lost.
        deleted = (batch.references[attributes.row[picks]] & np.uint64(DELETED)) != 0
        if not deleted.any():
            return runs
        if deleted.all():
            return self.free.left_of(runs)
        gone = deleted[runs[0]]
        left = self.free.left_of(tuple(column[gone] for column in runs))
        both = [np.concatenate((column[~gone], more)) for column, more in zip(runs, left, strict=True)]
        order = np.lexsort((both[1], both[0]))
        return both[0][order], both[1][order], both[2][order], both[3][order]

    def streams(self, batch: Batch, picks: Int64s, *, initialized: bool = False, whole: bool = False) -> list[Segments]:
        """Where non-resident streams lie, by the attributes that begin them.

        Args:
            initialized: show zeros beyond the valid data length. What is lost beyond it is then no damage.
            whole: as long as what is allocated, or the size if that is more.

        Each is as long as the stream's size; where runs are missing it is BAD.
        """
        owner, vcn, count, lcn = self.stream_runs(batch, picks)
        cluster = self.geometry.cluster_size
        bounds = np.searchsorted(owner, np.arange(len(picks) + 1)).tolist()
        starts, lengths = vcn * cluster, count * cluster
        positions = np.where(lcn >= 0, lcn * cluster, lcn)
        size = batch.attributes.size[picks]
        sizes = (np.maximum(size, batch.attributes.allocated[picks]) if whole else size).tolist()
        answer = [
            Segments.of(starts[a:b], lengths[a:b], positions[a:b], size)
            for a, b, size in zip(bounds[:-1], bounds[1:], sizes, strict=True)
        ]
        if not initialized:
            return answer
        written = batch.attributes.initialized[picks].tolist()
        return [segments.cut(end) for segments, end in zip(answer, written, strict=True)]

    def values(self, batch: Batch, picks: Int64s, limit: int) -> Values:
        """The whole values of attributes, resident or not; one longer than `limit` bytes is its row's error."""
        attributes = batch.attributes
        resident = attributes.resident[picks]
        starts, lengths = attributes.value_at[picks].copy(), attributes.size[picks].copy()
        errors: dict[int, PseudomountError] = {}
        packed = (attributes.flags[picks] & (AttributeFlag.COMPRESSION | AttributeFlag.ENCRYPTED)) != 0
        for i in np.flatnonzero((lengths > limit) | (packed & ~resident)).tolist():
            kind = int(attributes.type[picks[i]])
            what = f"attribute {kind:#x} of {int(lengths[i])} bytes is no such attribute"
            errors[i] = self._row_damage(batch, int(attributes.row[picks[i]]), what)
        far = np.flatnonzero(~resident)
        far = far[[i not in errors for i in far.tolist()]] if errors else far
        parts = [batch.buffer]
        if len(far):
            found = self.streams(batch, picks[far], initialized=True)
            good = [(i, segments) for i, segments in zip(far.tolist(), found, strict=True) if segments.size]
            length = len(batch.buffer)
            for part in _grouped(good, self.device.batch_budget):
                chain, begins = Segments.chain([segments for _, segments in part])
                sizes = np.diff(np.append(begins, chain.size))
                data, failed = read_segments(self.device, chain, begins, sizes, "an attribute")
                for (i, _), begin, bad in zip(part, begins.tolist(), range(len(part)), strict=True):
                    starts[i] = length + begin
                    if bad in failed:
                        errors[i] = failed[bad]
                padded = np.zeros(-(-len(data) // 8) * 8, np.uint8)
                padded[: len(data)] = data
                parts.append(padded)
                length += len(padded)
        if errors:
            lengths[list(errors)] = 0
        return Values(np.concatenate(parts) if len(parts) > 1 else batch.buffer, starts, lengths, errors)

    def attribute_value(self, number: int, kind: AttributeType, limit: int, name: str = "") -> bytes:
        """The value of one attribute of a metafile.

        Raises:
            PathNotFoundError: it has none.
            PseudomountError: it cannot be read.
        """
        batch = self.load(np.array([number], np.uint64))
        if batch.errors:
            raise batch.errors[0]
        pick = batch.pick(kind, name)
        if pick[0] < 0:
            raise batch.damage.get(0) or PathNotFoundError(f"{RecordNumber(number).name} has no attribute {kind.name}")
        return self.values(batch, pick, limit).bytes_of(0)


def _ascending(owner: Int64s, vcn: Int64s, reach: Int64s) -> NDArray[np.bool_]:
    """Which runs begin at or after everything before them in their stream."""
    if not ((owner[1:] == owner[:-1]) & (vcn[1:] < reach[:-1])).any():
        return np.ones(len(owner), np.bool_)
    shift = owner << 42  # more than any cluster number within a stream
    highest = np.maximum.accumulate(np.concatenate(([-1], (reach + shift)[:-1])))
    return vcn + shift >= np.where(owner == np.concatenate(([-1], owner[:-1])), highest, 0)


def _grouped(items: list[tuple[int, Segments]], budget: int) -> Iterator[list[tuple[int, Segments]]]:
    """Cuts a list where the sum of sizes would pass a budget."""
    part: list[tuple[int, Segments]] = []
    total = 0
    for item in items:
        if part and total + item[1].size > budget:
            yield part
            part, total = [], 0
        part.append(item)
        total += item[1].size
    if part:
        yield part
