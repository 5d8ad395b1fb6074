"""The face of the parser: the FileSystem contract over batches of MFT records."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import (
    CorruptionError,
    NotASymlinkError,
    PathIsDirectoryError,
    PathNotDirectoryError,
    PathNotFoundError,
    PseudomountError,
)
from pseudomount.filesystem import (
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    NameEncoding,
    Names,
    RunKind,
    ScanBatch,
    StreamInfo,
    Targets,
    TimeColumn,
)
from pseudomount.findings import FindingLog, Severity
from pseudomount_ntfs._batch import Batch
from pseudomount_ntfs._boot import Geometry
from pseudomount_ntfs._catalogue import REPARSE_LIMIT, Links, rows_of, standard_information
from pseudomount_ntfs._content import needs_decoder, open_stream, refusal
from pseudomount_ntfs._eas import EA_LIMIT, parse_eas
from pseudomount_ntfs._index import Entries, read_names
from pseudomount_ntfs._layout import (
    DELETED,
    DOS_NAMESPACE,
    RECORD_MASK,
    SEQUENCE_SHIFT,
    AttributeType,
    FileFlag,
    RecordFlag,
    RecordNumber,
)
from pseudomount_ntfs._match import match_names
from pseudomount_ntfs._names import default_upcase, units_from_wtf8, unusable, wtf8
from pseudomount_ntfs._reparse import link_parts, tag_type
from pseudomount_ntfs._runs import BytesDevice
from pseudomount_ntfs._scan import scan_volume
from pseudomount_ntfs._security import DESCRIPTOR_LIMIT, Descriptors
from pseudomount_ntfs._state import VolumeState, read_state
from pseudomount_ntfs._tree import walk_trees
from pseudomount_ntfs._volume import BATCH_RECORDS, Volume

__all__ = ["Ntfs"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]
UInt8s = NDArray[np.uint8]
UInt16s = NDArray[np.uint16]

_UPCASE_SIZE = 0x20000


class Ntfs(FileSystem):
    """An NTFS volume. Ids are file references: 48 bits of record number, 16 of sequence number.

    A reference whose sequence number is not its record's is stale, and an error of its row; 0 fits every record. Bit 47
    marks deleted files, which `scan` finds: records that are not in use, with the sequence number that they have now.
    Names that are only the 8.3 alias of another one are found by `lookup` and not listed; neither are the metafiles in
    the root, unless `system_files` asks for them.
    """

    name = "ntfs"
    name_encoding = NameEncoding.WTF8
    case_sensitive = False

    def __init__(
        self, device: BlockDevice, geometry: Geometry, findings: FindingLog, *, system_files: bool = False
    ) -> None:
        self.device, self.findings = device, findings
        self._system_files = system_files
        self._volume = Volume(device, geometry, findings)
        self._descriptors = Descriptors(self._volume)
        self._upcase: UInt16s | None = None
        self._upcase_lost = False
        self._lock = threading.Lock()
        if geometry.from_backup:
            message = "the boot sector is damaged, its copy in the last sector was used"
            findings.add(Severity.NOTE, message, structure="boot sector", offset=0)
        size = geometry.clusters * geometry.cluster_size
        if size > device.size:
            message = f"the volume has {size} bytes, the device only {device.size}: what lies beyond is lost"
            findings.add(Severity.DEGRADED, message, structure="boot sector", offset=device.size)
        state = read_state(self._volume)
        self._note(state)
        self.label = state.label
        self.uuid = geometry.uuid
        self.root = RecordNumber.ROOT | state.root_sequence << SEQUENCE_SHIFT
        self.details = {
            "version": state.version,
            "sector_size": geometry.sector_size,
            "cluster_size": geometry.cluster_size,
            "record_size": geometry.record_size,
            "clusters": geometry.clusters,
            "mft_cluster": geometry.mft,
            "mft_records": self._volume.records,
            "volume_flags": state.flags,
        }

    def _note(self, state: VolumeState) -> None:
        for error in state.errors:
            self.findings.add_error(error, severity=Severity.DEGRADED)
        if state.dirty:
            message = "the volume is marked dirty: Windows would check it before use"
            self.findings.add(Severity.NOTE, message, structure="$Volume", file=RecordNumber.VOLUME)
        if state.journal_pending:
            message = "the journal was not written back and is not replayed: the last changes may be missing"
            self.findings.add(Severity.NOTE, message, structure="$LogFile", file=RecordNumber.LOG_FILE)

    # -- directories ---------------------------------------------------------------------------------------------

    def _directories(self, directories: UInt64s) -> Iterable[tuple[int, Batch, dict[int, PseudomountError]]]:
        """The records of directories by batch: place of the first, batch, and errors of those that are none."""
        for start, batch in self._volume.batches(directories):
            errors = dict(batch.errors)
            links = Links(self._volume, batch)
            for row in np.flatnonzero(links.type != FileType.DIRECTORY).tolist():
                number = int(batch.references[row]) & RECORD_MASK
                errors.setdefault(row, PathNotDirectoryError(f"MFT record {number} is no directory"))
            yield start, batch, errors

    def children(self, directories: UInt64s) -> LinkRows:
        """The entries of many directories. A file that is no directory is an error of its row."""
        asked = np.asarray(directories, np.uint64)
        none = np.empty(0, np.int64)
        queries, files, names, types = [none], [none.astype(np.uint64)], [Names.of([])], [none.astype(np.uint8)]
        errors: dict[int, PseudomountError] = {}
        for start, batch, failed in self._directories(asked):
            entries = read_names(self._volume, batch, failed)
            failed = {**batch.damage, **failed}
            errors.update((start + row, error) for row, error in failed.items())
            keep = self._shown(entries, asked[start:], errors, start)
            entries = entries.take(keep)
            queries.append(entries.query + start)
            files.append(entries.reference)
            names.append(wtf8(entries.units, entries.offsets))
            types.append(_entry_types(entries))
        query = np.concatenate(queries)
        return LinkRows(query, asked[query], np.concatenate(files), Names.concat(names), np.concatenate(types), errors)

    def _shown(self, entries: Entries, asked: UInt64s, errors: dict[int, PseudomountError], start: int) -> Int64s:
        """The entries that a listing has."""
        number = (entries.reference & np.uint64(RECORD_MASK)).astype(np.int64)
        parent = (asked & np.uint64(RECORD_MASK)).astype(np.int64)[entries.query]
        own = (parent == RecordNumber.ROOT) & (number == RecordNumber.ROOT)
        keep = ~own
        if not self._system_files:
            keep &= (parent != RecordNumber.ROOT) | (number >= RecordNumber.FIRST_USER)
        # An 8.3 alias is dropped beside the name it stands for; without that it is all there is.
        alias = np.flatnonzero(entries.namespace == DOS_NAMESPACE)
        if len(alias):
            pair = np.stack((entries.query.astype(np.uint64), entries.reference), axis=1)
            _, group = np.unique(pair, axis=0, return_inverse=True)
            group = group.reshape(-1)
            long = np.zeros(int(group.max()) + 1, np.bool_)
            long[group[entries.namespace != DOS_NAMESPACE]] = True
            keep[alias[long[group[alias]]]] = False
        bad = (unusable(entries.units, entries.offsets) | ((entries.reference & np.uint64(DELETED)) != 0)) & ~own
        for i in np.flatnonzero(bad & keep).tolist():
            row = int(entries.query[i])
            message = f"an entry for MFT record {int(number[i])} has a name that no file can have"
            errors.setdefault(start + row, self._volume.damaged(int(parent[i]), message, "index"))
        return np.flatnonzero(keep & ~bad)

    def lookup(self, directories: UInt64s, names: Sequence[bytes]) -> Looked:
        """The file that directory i has under name i; the volume's $UpCase folds case.

        An exact match goes first, then what is first in the directory's order. Large directories are descended, see
        `_tree`; small ones, and those whose tree is damaged (a finding), are read whole.
        """
        asked = np.asarray(directories, np.uint64)
        n = len(asked)
        file, found = np.zeros(n, np.uint64), np.zeros(n, np.bool_)
        errors: dict[int, PseudomountError] = {}
        unique, inverse = np.unique(asked, return_inverse=True)
        units = [units_from_wtf8(name) for name in names]
        named = np.fromiter((unit is not None and len(unit) > 0 for unit in units), np.bool_, n)
        for start, batch, failed in self._directories(unique):
            rows = np.flatnonzero((inverse >= start) & (inverse < start + BATCH_RECORDS) & named)
            wanted = [unit for unit in map(units.__getitem__, rows.tolist()) if unit is not None]
            places = inverse[rows] - start
            hit, reference = self._look(batch, places, wanted, failed)
            file[rows[hit]], found[rows[hit]] = reference[hit], True
            for row, place in zip(rows[~hit].tolist(), places[~hit].tolist(), strict=True):
                if place in failed:
                    errors[row] = failed[place]
        return Looked(file, found, errors)

    def _look(
        self, batch: Batch, directory: Int64s, names: list[UInt16s], errors: dict[int, PseudomountError]
    ) -> tuple[NDArray[np.bool_], UInt64s]:
        """Which names are in directories of one batch, and the files; what is wrong with a directory is in `errors`."""
        found, reference = np.zeros(len(names), np.bool_), np.zeros(len(names), np.uint64)
        if not names:
            return found, reference
        upcase = self.upcase()
        rest = np.ones(len(names), np.bool_)
        if not self._upcase_lost:  # in another order than the volume's every tree would seem damaged
            skip = errors.keys() | batch.damage.keys()
            walked = walk_trees(self._volume, batch, directory, names, upcase, skip)
            found, reference, rest = walked.found, walked.reference, ~walked.decided
            for row in walked.broken:
                number = int(batch.references[row]) & RECORD_MASK
                message = "the directory's index is damaged or not in order: its names were searched from end to end"
                self.findings.add(Severity.NOTE, message, structure="index", file=number)
        rows = np.flatnonzero(rest)
        if len(rows):
            wanted = np.bincount(directory[rows], minlength=len(batch)) > 0
            entries = read_names(self._volume, batch, errors, wanted)
            for row, error in batch.damage.items():
                errors.setdefault(row, error)
            hits = match_names(entries, directory[rows], [names[row] for row in rows.tolist()], upcase)
            found[rows], there = hits >= 0, hits >= 0
            reference[rows[there]] = entries.reference[hits[there]]
        return found, reference

    def upcase(self) -> UInt16s:
        """The volume's table of upper case, (65536,)."""
        with self._lock:
            if self._upcase is None:
                try:
                    data = self._volume.attribute_value(RecordNumber.UPCASE, AttributeType.DATA, _UPCASE_SIZE)
                    table = np.frombuffer(data, "<u2").astype(np.uint16)
                    if len(table) != 0x10000 or not (table[97:123] == np.arange(65, 91)).all():
                        raise CorruptionError("$UpCase is no table of upper case", structure="$UpCase")
                    self._upcase = table
                except PseudomountError as error:
                    self.findings.add_error(error, file=RecordNumber.UPCASE, severity=Severity.DEGRADED)
                    self._upcase, self._upcase_lost = default_upcase(), True
            return self._upcase

    # -- files ---------------------------------------------------------------------------------------------------

    def rows(self, files: UInt64s) -> FileRows:
        """What is known of many files; `extra` is described at `rows_of`."""
        asked = np.asarray(files, np.uint64)
        parts: list[FileRows] = []
        errors: dict[int, PseudomountError] = {}
        for start, batch in self._volume.batches(asked):
            part = rows_of(self._volume, batch)
            errors.update((start + row, error) for row, error in part.errors.items())
            parts.append(part)
        if not parts:
            parts.append(rows_of(self._volume, self._volume.load(asked)))
        return parts[0] if len(parts) == 1 else _concat(parts, errors)

    def runs(self, files: UInt64s) -> DataRuns:
        """Where the content of many files lies. A directory is an error of its row."""
        asked = np.asarray(files, np.uint64)
        columns: list[tuple[Int64s, Int64s, Int64s, Int64s, UInt8s]] = []
        resident: dict[int, bytes] = {}
        errors: dict[int, PseudomountError] = {}
        encoded = np.zeros(len(asked), np.bool_)
        none = np.empty(0, np.int64)
        columns.append((none, none, none, none, none.astype(np.uint8)))
        for start, batch in self._volume.batches(asked):
            links = Links(self._volume, batch)
            failed: dict[int, PseudomountError] = {**batch.damage, **batch.errors}
            for row in np.flatnonzero(links.type == FileType.DIRECTORY).tolist():
                failed.setdefault(row, PathIsDirectoryError("a directory has no content"))
            picks = batch.pick(AttributeType.DATA)
            attributes = batch.attributes
            have = np.flatnonzero(picks >= 0)
            far = ~attributes.resident[picks[have]] if len(have) else np.zeros(0, np.bool_)
            for row in have[~far].tolist():
                at, length = int(attributes.value_at[picks[row]]), int(attributes.value_length[picks[row]])
                resident[start + row] = batch.buffer[at : at + length].tobytes()
            rows = have[far]
            parts = self._data_runs(batch, rows, picks[rows], failed)
            columns.append((rows[parts[0]] + start, *parts[1:]))
            flags = attributes.flags[picks[have]] if len(have) else have
            for row, flag in zip(have.tolist(), flags.tolist(), strict=True):
                refused = refusal(int(links.flags[row]), int(links.tag[row]), False) is not None
                encoded[start + row] = needs_decoder(flag) or refused
            errors.update((start + row, error) for row, error in failed.items())
        query, offset, size, position, kind = (np.concatenate(column) for column in zip(*columns, strict=True))
        return DataRuns(query, offset, size, position, kind, resident, encoded, errors)

    def _data_runs(
        self, batch: Batch, rows: Int64s, picks: Int64s, failed: dict[int, PseudomountError]
    ) -> tuple[Int64s, Int64s, Int64s, Int64s, UInt8s]:
        """Runs in bytes, cut where the valid data ends; files with lost ones get an error."""
        volume = self._volume
        owner, vcn, count, lcn = volume.stream_runs(batch, picks)
        cluster = volume.geometry.cluster_size
        offset, length = vcn * cluster, count * cluster
        position = np.where(lcn >= 0, lcn * cluster, -1)
        attributes = batch.attributes
        covered = np.zeros(len(picks), np.int64)
        np.add.at(covered, owner, length)
        ends = np.zeros(len(picks), np.int64)
        np.maximum.at(ends, owner, offset + length)
        short = (covered != ends) | (ends < attributes.size[picks])
        for i in np.flatnonzero(short).tolist():
            number = int(batch.references[rows[i]]) & RECORD_MASK
            failed.setdefault(int(rows[i]), volume.damaged(number, "some of its data runs are lost", "data runs"))
        kind = np.where(position >= 0, RunKind.DATA, RunKind.HOLE).astype(np.uint8)
        packed = (attributes.flags[picks] & 0xFF) != 0
        valid = np.where(packed, np.int64(1) << 62, attributes.initialized[picks])[owner]
        cut = np.flatnonzero((offset < valid) & (offset + length > valid) & (kind == RunKind.DATA))
        behind = (offset >= valid) & (kind == RunKind.DATA)
        kind[behind] = RunKind.UNWRITTEN
        if len(cut):
            head = valid[cut] - offset[cut]
            tails = (owner[cut], valid[cut], length[cut] - head, position[cut] + head)
            length[cut] = head
            owner, offset, length, position = (
                np.insert(column, cut + 1, tail)
                for column, tail in zip((owner, offset, length, position), tails, strict=True)
            )
            kind = np.insert(kind, cut + 1, np.uint8(RunKind.UNWRITTEN))
        return owner, offset, length, position, kind

    def scan(self, *, deleted: bool = False) -> Iterator[ScanBatch]:
        """The whole enumeration, from one pass over the MFT; directories are read for damaged records only."""
        system_files = self._system_files
        return scan_volume(
            self._volume, self.children, self.rows, self.root, system_files=system_files, deleted=deleted
        )

    def readlink(self, files: UInt64s) -> Targets:
        """The targets of many symbolic links, junctions and mount points, as `reparse_target` says."""
        asked = np.asarray(files, np.uint64)
        targets = [b""] * len(asked)
        errors: dict[int, PseudomountError] = {}
        for start, batch in self._volume.batches(asked):
            links = Links(self._volume, batch)
            for row in range(len(batch)):
                failed = batch.errors.get(row) or links.errors.get(row)
                try:
                    if failed:
                        raise failed
                    if links.type[row] != FileType.SYMLINK:
                        raise NotASymlinkError("no symbolic link")
                    targets[start + row] = links.target(row)
                except PseudomountError as error:
                    errors[start + row] = error
        return Targets(Names.of(targets), errors)

    def link_parts(self, target: bytes) -> tuple[bool, list[bytes]]:
        """A link's target as (whether it starts at the root, its parts); see `_reparse.link_parts`."""
        return link_parts(target)

    def _one(self, file: int) -> Batch:
        if not 0 <= file < 1 << 64:
            raise PathNotFoundError(f"{file} is no file reference")
        batch = self._volume.load(np.array([file], np.uint64))
        if batch.errors:
            raise batch.errors[0]
        return batch

    def open(self, file: int, stream: str | None = None) -> BlockDevice:
        """The content of a file or of one of its named streams; a stream's name is found as a file's is."""
        batch = self._one(file)
        links = Links(self._volume, batch)
        label = f"file {file & RECORD_MASK}"
        if stream:
            pick = self._named(batch, stream)
            if pick < 0:
                raise batch.damage.get(0) or PathNotFoundError(f"{label} has no stream {stream!r}")
            return self._content(batch, pick, f"{label}:{stream}")
        if batch.flags[0] & RecordFlag.DIRECTORY:
            raise PathIsDirectoryError(f"{label} is a directory")
        pick = int(batch.pick(AttributeType.DATA)[0])
        if pick < 0:
            if batch.flags[0] & RecordFlag.VIEW_INDEX or file & RECORD_MASK < RecordNumber.FIRST_USER:
                return BytesDevice(b"", label)
            # Even an empty file has the attribute.
            raise batch.damage.get(0) or self._volume.damaged(file & RECORD_MASK, "it has no content", "$DATA")
        self._refuse(batch, links, pick)
        return self._content(batch, pick, label)

    def _content(self, batch: Batch, pick: int, label: str) -> BlockDevice:
        content = open_stream(self._volume, batch, pick, label)
        file = int(batch.references[0])
        if file & DELETED:
            message = "the content of a deleted file is unreliable: free clusters may have been used by others since"
            self.findings.add(Severity.DEGRADED, message, structure="$DATA", file=file)
        return content

    def _refuse(self, batch: Batch, links: Links, pick: int) -> None:
        """Raises where the main stream is not the content that the file stands for."""
        tag, attributes = int(links.tag[0]), batch.attributes
        if not tag or not int(attributes.size[pick]):
            return
        if tag_type(tag) is not None:
            return
        holes = False
        if not attributes.resident[pick]:
            holes = bool((self._volume.streams(batch, np.array([pick], np.int64))[0].positions < 0).any())
        refused = refusal(int(links.flags[0]), tag, holes)
        if refused is not None:
            raise refused

    def _named(self, batch: Batch, stream: str) -> int:
        """The attribute that begins a named stream, -1 for none."""
        picks = batch.of_type(AttributeType.DATA, None)
        wanted = units_from_wtf8(stream.encode("utf-8", "surrogatepass"))
        if wanted is None:
            return -1
        names = [units_from_wtf8(batch.name_of(pick)) for pick in picks.tolist()]
        upcase = self.upcase()
        folded = -1
        for pick, name in zip(picks.tolist(), names, strict=True):
            if name is None or len(name) != len(wanted):
                continue
            if np.array_equal(name, wanted):
                return int(pick)
            if folded < 0 and np.array_equal(upcase[name], upcase[wanted]):
                folded = int(pick)
        return folded

    def streams(self, file: int) -> list[StreamInfo]:
        """Named streams, in the order of their attributes."""
        batch = self._one(file)
        found: list[StreamInfo] = []
        for pick in batch.of_type(AttributeType.DATA, None).tolist():
            if batch.attributes.name_length[pick]:
                name = batch.name_of(pick).decode("utf-8", "surrogatepass")
                stored = 0 if batch.attributes.resident[pick] else int(batch.attributes.stored[pick])
                found.append(StreamInfo(name, int(batch.attributes.size[pick]), stored))
        return found

    def xattrs(self, file: int) -> dict[str, bytes]:
        """`system.ntfs_acl` (the security descriptor), `system.ntfs_reparse_data`, and NTFS's own EAs as `user.…`.

        What cannot be read becomes a finding and is left out.
        """
        batch = self._one(file)
        found: dict[str, bytes] = {}
        for read in (self._descriptor, self._reparse_data, self._eas):
            try:
                found.update(read(batch))
            except PseudomountError as error:
                self.findings.add_error(error, file=file, severity=Severity.DEGRADED)
        return found

    def _value(self, batch: Batch, kind: AttributeType, limit: int) -> bytes | None:
        pick = batch.pick(kind)
        return None if pick[0] < 0 else self._volume.values(batch, pick, limit).bytes_of(0)

    def _eas(self, batch: Batch) -> dict[str, bytes]:
        return parse_eas(self._value(batch, AttributeType.EA, EA_LIMIT) or b"")

    def _reparse_data(self, batch: Batch) -> dict[str, bytes]:
        data = self._value(batch, AttributeType.REPARSE_POINT, REPARSE_LIMIT)
        return {} if data is None else {"system.ntfs_reparse_data": data}

    def _descriptor(self, batch: Batch) -> dict[str, bytes]:
        """From $Secure by id, or from the file's own record as before NTFS 3.0."""
        info, _, long = standard_information(batch)
        if long[0] and info["security"][0]:
            return {"system.ntfs_acl": self._descriptors[int(info["security"][0])]}
        data = self._value(batch, AttributeType.SECURITY_DESCRIPTOR, DESCRIPTOR_LIMIT)
        return {} if data is None else {"system.ntfs_acl": data}


def _entry_types(entries: Entries) -> UInt8s:
    """The types that directory entries tell; UNKNOWN where only the file's own record does.

    A reparse point can be anything, and so can a file with the system attribute (Interix's links have it).
    """
    flags = entries.attributes
    kind = np.where(flags & FileFlag.DIRECTORY != 0, FileType.DIRECTORY, FileType.FILE).astype(np.uint8)
    doubt = FileFlag.REPARSE_POINT | FileFlag.SYSTEM
    kind[(flags & doubt != 0) & ((kind == FileType.FILE) | (flags & FileFlag.REPARSE_POINT != 0))] = FileType.UNKNOWN
    return kind


def _concat(parts: list[FileRows], errors: Mapping[int, PseudomountError]) -> FileRows:
    def column(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part in parts])

    plain = ("file", "subvolume", "inode", "generation", "type", "size", "allocated", "mode", "uid", "gid", "links")
    columns = {name: column(name) for name in (*plain, "flags")}
    times = {
        name: TimeColumn.concat(getattr(part, name) for part in parts)
        for name in ("created", "modified", "changed", "accessed")
    }
    extra = {name: np.concatenate([part.extra[name] for part in parts]) for name in parts[0].extra}
    return FileRows(**columns, **times, extra=extra, errors=errors)  # type: ignore[arg-type]
