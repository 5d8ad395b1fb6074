"""The pseudo-disk: a block device over an extent index and a function that fetches stored bytes.

This is the embedding interface: whoever has an index and a `fetch(object, offset, length)` has a disk.

A batch is resolved once. Raw pieces are joined to few requests and copied to their places. Everything else is a *unit*:
an extent that must be decoded or verified as a whole, or, before slow storage, a block of raw bytes. A unit is fetched
and decoded once a batch, on threads, and kept in a cache bounded in bytes.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pseudomount.device._fetching import Counters, Fetch, Fetcher, RangeStore, Tally
from pseudomount.device._lru import ByteLRU
from pseudomount.device._scatter import scatter, zero
from pseudomount.device._units import BLOCK, BLOCK_CODEC, Key, Units, divided, grouped, keys, of_blocks, of_extents
from pseudomount.device.contract import BATCH_BUDGET, BlockDevice, ExtentKind, ExtentMap, Int64s, UInt8s
from pseudomount.device.decoders import DECODERS, Decoder
from pseudomount.errors import (
    ChecksumError,
    CorruptionError,
    DamageError,
    ObjectChangedError,
    ObjectNotFoundError,
    PseudomountError,
    ReadError,
    StorageError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from pseudomount.extents import ExtentIndex, Kind, Resolved, walk

__all__ = ["Counters", "Fetch", "PseudoDisk", "RangeStore", "Verify"]

#: (identity, decoded extent) → whether the one is the other's.
Verify: TypeAlias = Callable[[bytes, bytes], bool]

#: Stored and decoded bytes of the units that are worked on together.
_WAVE = 32 << 20
#: Decoded bytes below which handing work to threads costs more than it saves.
_WORTH_THREADS = 128 << 10
#: Extents that the path of small reads remembers.
_MEMO = 1024

_RAW, _VOID, _UNIT, _BLOCKS = range(4)


@dataclass(frozen=True, slots=True)
class _Memo:
    """What a small read needs of an extent or gap. Storage or decoded bytes begin at disk offset plus `delta`."""

    end: int
    what: int
    delta: int = 0
    name: str = ""
    number: int = 0
    key: Key = ()


class PseudoDisk(BlockDevice):
    """A read-only disk, put together on demand from a secondary copy.

    Args:
        index: where the disk's bytes are. Closed with the disk.
        fetch: `fetch(object, offset, length) -> bytes`, or a `Store`; called from many threads. Not closed.
        name: what messages call the disk.
        sector_size: bytes of a logical sector.
        cache_bytes: bytes of decoded extents and raw blocks that are kept.
        gap: bytes fetched in vain between two ranges to save a request; None: 16 KiB, 256 KiB if remote.
        request_limit: bytes of one request; longer ones are divided.
        threads: at most so many requests at a time if remote, and decoders at work; None: as fits the machine.
        decoders: by name of codec, besides and before the built-in `DECODERS`.
        verify: says whether a decoded extent is the one that its identity names; asked for extents that have one.
        remote: whether a request takes long: then several are made at a time. None: as the attribute of that name
            of `fetch` says, else not.
        cache_raw: whether raw extents are fetched in blocks that are cached; None: if remote.
        max_decoded: bytes; a unit that claims to be larger is an error, so that memory does not follow forged claims.
        batch_budget: bytes that one `read_many` may ask for.

    Bytes that fail to decode or to verify are errors of the ranges that need them: `CorruptionError`, `ChecksumError`.
    Raw bytes past the end of their object are `TruncatedError`. What storage raises becomes `ReadError`, retryable if
    the cause is, except that `ObjectNotFoundError` and `ObjectChangedError` stay what they are.
    """

    def __init__(
        self,
        index: ExtentIndex,
        fetch: Fetch | RangeStore,
        *,
        name: str = "disk",
        sector_size: int = 512,
        cache_bytes: int = 64 << 20,
        gap: int | None = None,
        request_limit: int = 8 << 20,
        threads: int | None = None,
        decoders: Mapping[str, Decoder] | None = None,
        verify: Verify | None = None,
        remote: bool | None = None,
        cache_raw: bool | None = None,
        max_decoded: int = 64 << 20,
        batch_budget: int = BATCH_BUDGET,
    ) -> None:
        if request_limit < 1 or cache_bytes < 0 or max_decoded < 1 or (gap or 0) < 0 or threads == 0:
            raise UsageError("limits of a pseudo-disk must be positive")
        self.name = name
        self.sector_size = sector_size
        self.batch_budget = batch_budget
        self.index = index
        remote = bool(getattr(fetch, "remote", False)) if remote is None else remote
        self._size = index.size
        self._limit = request_limit
        self._threads = threads or (8 if remote else min(8, os.cpu_count() or 1))
        self._decoders = [{**DECODERS, **(decoders or {})}.get(codec.name) for codec in index.codecs]
        self._parameters = [dict(codec.parameters) for codec in index.codecs]
        self._verify = verify
        self._blocks = remote if cache_raw is None else cache_raw
        self._max_decoded = max_decoded
        self._cache = ByteLRU(cache_bytes)
        self._tally = Tally()
        self._fetcher = Fetcher(
            fetch,
            remote=remote,
            gap=(256 << 10 if remote else 16 << 10) if gap is None else gap,
            limit=request_limit,
            threads=self._threads,
            pool=self._get_pool,
            tally=self._tally,
        )
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        # Ascending starts, and what begins there: replaced as a whole, so that readers need no lock.
        self._memo: tuple[list[int], list[_Memo]] = ([], [])

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def counters(self) -> Counters:
        """What the disk has done so far: print it."""
        return self._tally.snapshot()

    # -- one small range -----------------------------------------------------------------------------------------

    def _read(self, offset: int, length: int) -> bytes:
        if length <= self._limit:
            starts, memos = self._memo
            i = bisect_right(starts, offset) - 1
            if i >= 0 and offset + length <= memos[i].end:
                data = self._known(memos[i], offset, length)
            else:
                memo = self._remember(offset)
                data = self._known(memo, offset, length) if offset + length <= memo.end else None
            if data is not None:
                self._tally.add(delivered=length)
                return data
        buffer = np.empty(length, np.uint8)
        where = np.zeros(1, np.int64)
        errors = self._fill(np.array([offset], np.int64), np.array([length], np.int64), buffer, where)
        for error in errors.values():
            raise error
        return buffer.tobytes()

    def _known(self, memo: _Memo, offset: int, length: int) -> bytes | None:
        """A range within one extent; None where it takes the long way."""
        at = offset + memo.delta
        if memo.what == _RAW:
            try:
                data = self._fetcher.fetch(memo.name, at, length)
            except PseudomountError as error:
                raise self._unread(error, offset) from error
            if len(data) < length:
                raise self._truncated(memo.name, at + len(data), offset + len(data))
            return data
        if memo.what == _VOID:
            return bytes(length)
        key = memo.key
        if memo.what == _BLOCKS:
            block = at // BLOCK
            key = (memo.number, block * BLOCK, BLOCK, BLOCK_CODEC, BLOCK)
            at -= block * BLOCK
        unit = self._cache.get(key)
        if unit is None or at + length > len(unit):
            return None
        self._tally.add(hits=1)
        return unit[at : at + length]

    def _remember(self, offset: int) -> _Memo:
        """Looks up the extent around a byte, for the reads to come."""
        piece = self.index.around(offset)
        if piece.errors:
            raise piece.errors[0]
        start = int(piece.offset[0])
        end = start + int(piece.length[0])
        number = int(piece.object[0])
        if piece.kind[0] != Kind.DATA:
            memo = _Memo(end, _VOID)
        elif bool(self._whole(piece)[0]):
            memo = _Memo(end, _UNIT, int(piece.skip[0]) - start, key=keys(self._units(piece, piece.offset))[0])
        else:
            delta = int(piece.object_offset[0]) - start
            name = self.index.object_names(piece.object)[0]
            memo = _Memo(end, _BLOCKS if self._blocks else _RAW, delta, name, number)
        with self._lock:
            starts, memos = self._memo
            if len(starts) >= _MEMO:
                starts, memos = [], []
            i = bisect_right(starts, start)
            if i and starts[i - 1] == start:
                self._memo = starts, [*memos[: i - 1], memo, *memos[i:]]
            else:
                self._memo = [*starts[:i], start, *starts[i:]], [*memos[:i], memo, *memos[i:]]
        return memo

    # -- a batch -------------------------------------------------------------------------------------------------

    def _fill(
        self, offsets: Int64s, lengths: Int64s, buffer: UInt8s, positions: Int64s
    ) -> Mapping[int, PseudomountError]:
        try:
            pieces = self.index.resolve(offsets, lengths)
        except PseudomountError as error:
            return dict.fromkeys(range(len(offsets)), error)
        errors = dict(pieces.errors)
        target = positions[pieces.ranges] + (pieces.offset - offsets[pieces.ranges])
        data = pieces.kind == Kind.DATA
        if not data.all():
            zero(buffer, target[~data], pieces.length[~data])
        whole = self._whole(pieces)
        raw = np.flatnonzero(data & ~whole)
        if len(raw):
            if self._blocks:
                self._fill_units(of_blocks(pieces.take(raw), target[raw]), buffer, errors)
            else:
                self._fill_raw(pieces.take(raw), target[raw], buffer, errors)
        units = np.flatnonzero(data & whole)
        if len(units):
            self._fill_units(self._units(pieces.take(units), target[units]), buffer, errors)
        failed = sum(int(lengths[i]) for i in errors)
        self._tally.add(delivered=int(lengths.sum()) - failed)
        return errors

    def _whole(self, pieces: Resolved) -> NDArray[np.bool_]:
        """Which pieces need their whole extent: to decode it, or to verify it."""
        whole: NDArray[np.bool_] = pieces.codec != 0
        if self._verify is not None and pieces.identity is not None:
            whole = whole | pieces.identity.any(axis=1)
        return whole

    def _fill_raw(self, pieces: Resolved, target: Int64s, buffer: UInt8s, errors: dict[int, PseudomountError]) -> None:
        row, within, length = divided(pieces.length, np.zeros(len(pieces), np.int64), self._limit)
        target, ranges = target[row] + within, pieces.ranges[row]
        start, disk = pieces.object_offset[row] + within, pieces.offset[row] + within
        number = pieces.object[row]
        for answer in self._fetcher.fetch_many(self.index.object_names, number, start, length):
            rows = answer.rows
            if answer.error is not None:
                for i in rows.tolist():
                    errors.setdefault(int(ranges[i]), self._unread(answer.error, int(disk[i])))
                continue
            at = start[rows] - answer.offset
            short = at + length[rows] > len(answer.data)
            if short.any():
                for i in rows[short].tolist():
                    have = min(max(answer.offset + len(answer.data) - int(start[i]), 0), int(length[i]))
                    name = self.index.object_names(number[i : i + 1])[0]
                    error = self._truncated(name, int(start[i]) + have, int(disk[i]) + have)
                    errors.setdefault(int(ranges[i]), error)
                rows, at = rows[~short], at[~short]
            scatter(np.frombuffer(answer.data, np.uint8), at, buffer, target[rows], length[rows])

    # -- units ---------------------------------------------------------------------------------------------------

    def _units(self, pieces: Resolved, target: Int64s) -> Units:
        return of_extents(pieces, target, identities=self._verify is not None)

    def _fill_units(self, pieces: Units, buffer: UInt8s, errors: dict[int, PseudomountError]) -> None:
        order, first = grouped(pieces)
        bounds = np.append(first, len(order)).tolist()
        heads = order[first]  # a piece of each unit, which says all about it
        names = keys(pieces, heads)
        costs = (np.minimum(pieces.stored[heads], 1 << 61) + np.minimum(pieces.decoded[heads], 1 << 61)).tolist()
        pending: list[int] = []
        cost = hits = 0

        def settle(unit: int, outcome: bytes | PseudomountError) -> None:
            rows = order[bounds[unit] : bounds[unit + 1]]
            self._deliver(pieces, rows, outcome, buffer, errors)

        def work() -> None:
            for unit, outcome in zip(pending, self._decoded(pieces, heads[pending]), strict=True):
                if isinstance(outcome, bytes):
                    self._cache.put(names[unit], outcome)
                settle(unit, outcome)
            pending.clear()

        # A loop once a unit: each is fetched, decoded and cached by itself anyway.
        for unit in range(len(heads)):
            data = self._cache.get(names[unit])
            if data is not None:
                hits += 1
                settle(unit, data)
                continue
            if pending and cost + costs[unit] > _WAVE:
                work()
                cost = 0
            claimed = int(pieces.decoded[heads[unit]])
            if claimed > self._max_decoded:
                settle(unit, self._too_large(claimed))
                continue
            pending.append(unit)
            cost += costs[unit]
        if pending:
            work()
        if hits:
            self._tally.add(hits=hits)

    def _deliver(
        self,
        pieces: Units,
        rows: Int64s,
        outcome: bytes | PseudomountError,
        buffer: UInt8s,
        errors: dict[int, PseudomountError],
    ) -> None:
        if isinstance(outcome, PseudomountError):
            for i in rows.tolist():
                errors.setdefault(int(pieces.ranges[i]), self._unread(outcome, int(pieces.offset[i])))
            return
        short = pieces.skip[rows] + pieces.length[rows] > len(outcome)
        if short.any():  # a block at the end of its object
            for i in rows[short].tolist():
                have = min(max(len(outcome) - int(pieces.skip[i]), 0), int(pieces.length[i]))
                name = self.index.object_names(pieces.number[i : i + 1])[0]
                at = int(pieces.start[i]) + int(pieces.skip[i]) + have
                errors.setdefault(int(pieces.ranges[i]), self._truncated(name, at, int(pieces.offset[i]) + have))
            rows = rows[~short]
        scatter(np.frombuffer(outcome, np.uint8), pieces.skip[rows], buffer, pieces.target[rows], pieces.length[rows])

    def _decoded(self, pieces: Units, heads: Int64s) -> list[bytes | PseudomountError]:
        """Fetches and decodes units, each given by one of its pieces."""
        outcomes: list[bytes | PseudomountError] = [b""] * len(heads)
        start, stored = pieces.start[heads], pieces.stored[heads]
        for answer in self._fetcher.fetch_many(self.index.object_names, pieces.number[heads], start, stored):
            for i in answer.rows.tolist():
                at = int(start[i]) - answer.offset
                outcomes[i] = answer.error or answer.data[at : at + int(stored[i])]
        todo = [
            i
            for i, codec in enumerate(pieces.codec[heads].tolist())
            if codec != BLOCK_CODEC and isinstance(outcomes[i], bytes)
        ]
        if not todo:
            return outcomes

        def decode(part: Iterable[int]) -> None:
            for i in part:
                head = int(heads[i])
                data = outcomes[i]
                identity = b"" if pieces.identity is None else pieces.identity[head].tobytes()
                assert isinstance(data, bytes)
                outcomes[i] = self._decode(data, int(pieces.codec[head]), int(pieces.decoded[head]), identity)

        if len(todo) > 1 and self._threads > 1 and int(pieces.decoded[heads].sum()) >= _WORTH_THREADS:
            parts = min(len(todo), 4 * self._threads)
            list(self._get_pool().map(decode, [todo[part::parts] for part in range(parts)]))
        else:
            decode(todo)
        self._tally.add(decoded=len(todo))
        return outcomes

    def _decode(self, stored: bytes, codec: int, length: int, identity: bytes) -> bytes | PseudomountError:
        decoder = self._decoders[codec]
        name = self.index.codecs[codec].name
        if decoder is None:
            return UnsupportedError(f"{self.name}: no decoder for {name} extents")
        try:
            if codec == 0 and len(stored) < length:
                raise TruncatedError(f"{len(stored)} of {length} bytes", structure="extent")
            data = decoder(stored, length, self._parameters[codec])
            if len(data) != length:
                raise CorruptionError(f"{name} data holds {len(data)} of {length} bytes", structure="extent")
            if self._verify is not None and any(identity) and not self._verify(identity, data):
                raise ChecksumError(f"the bytes are not those of checksum {identity.hex()}", structure="extent")
        except PseudomountError as error:
            return error
        except Exception as error:  # decoders and verifiers are handed in
            broken = CorruptionError(f"{name} data cannot be decoded or verified: {error!r}", structure="extent")
            broken.__cause__ = error
            return broken
        return bytes(data)

    # -- the rest ------------------------------------------------------------------------------------------------

    def _extents(self, offset: int, length: int) -> ExtentMap:
        maps: list[ExtentMap] = []
        for at, here, pieces in walk(self.index, offset, length):
            if pieces.errors:  # what cannot be known is data
                maps.append(ExtentMap.single(at, here, ExtentKind.DATA))
            else:
                maps.append(ExtentMap.merged(pieces.offset, pieces.length, pieces.kind))
        return ExtentMap.merged(
            np.concatenate([m.offsets for m in maps]),
            np.concatenate([m.lengths for m in maps]),
            np.concatenate([m.kinds for m in maps]),
        )

    def _close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()
        self._cache.clear()
        self._memo = [], []
        self.index.close()

    def _get_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix=f"pseudomount-{self.name}")
            return self._pool

    def _unread(self, error: PseudomountError, offset: int) -> PseudomountError:
        """The error of a range: what went wrong beneath, and where on this disk that is."""
        if isinstance(error, ObjectNotFoundError | ObjectChangedError):
            return error
        if isinstance(error, DamageError):
            if error.device:
                return error
            message = f"{self.name}: extent at {offset}: {error}"
            placed = type(error)(message, device=self.name, offset=offset, structure=error.structure)
        elif isinstance(error, StorageError):
            placed = ReadError(
                f"{self.name}: extent at {offset}: {error}",
                device=self.name,
                offset=offset,
                structure="extent",
                retryable=error.retryable,
            )
        else:
            return error
        placed.__cause__ = error
        return placed

    def _truncated(self, name: str, end: int, offset: int) -> TruncatedError:
        return TruncatedError(
            f"{self.name}: {name} ends before its byte {end}, which the disk needs at {offset}",
            device=self.name,
            offset=offset,
            structure="extent",
        )

    def _too_large(self, claimed: int) -> UnsupportedError:
        return UnsupportedError(
            f"{self.name}: an extent that claims to decode to {claimed} bytes; the limit is {self._max_decoded}"
        )
