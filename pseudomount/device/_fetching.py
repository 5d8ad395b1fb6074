"""Fetching stored bytes: from a function or a store, one by one or many at once, with errors made ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pseudomount.device.ranges import coalesce
from pseudomount.errors import (
    AccessDeniedError,
    ObjectChangedError,
    ObjectNotFoundError,
    PseudomountError,
    StorageError,
    TransientStorageError,
)

__all__ = ["Counters", "Fetch", "Fetched", "Fetcher", "RangeStore", "Tally"]

Int64s: TypeAlias = NDArray[np.int64]

#: Failures in a row after which a request that failed is not divided any further.
_PATIENCE = 64


class Fetch(Protocol):
    """Gives stored bytes: up to `length` of an object, at `offset`; fewer only where the object ends.

    Called from many threads. Whatever it raises becomes an error of the ranges that needed the bytes.
    An attribute `remote`, where it has one that is true, says that a request takes long.
    """

    def __call__(self, object: str, offset: int, length: int, /) -> bytes:  # noqa: A002  (the field's word)
        """The bytes."""


@runtime_checkable
class RangeStore(Protocol):
    """What a pseudo-disk needs of a `Store`: as `Fetch`, and many ranges of one object in one call."""

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """As `Fetch`."""

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        """As `Fetch`, for many (offset, length)."""


@dataclass(frozen=True, slots=True)
class Counters:
    """What a pseudo-disk has done so far.

    Attributes:
        requests: fetches made.
        bytes_fetched: bytes that they gave.
        bytes_delivered: bytes that readers were given.
        cache_hits: decoded extents and cached blocks that needed no fetch.
        extents_decoded: extents decoded.
    """

    requests: int = 0
    bytes_fetched: int = 0
    bytes_delivered: int = 0
    cache_hits: int = 0
    extents_decoded: int = 0

    def __sub__(self, earlier: Counters) -> Counters:
        """What was done since `earlier`."""
        return Counters(
            self.requests - earlier.requests,
            self.bytes_fetched - earlier.bytes_fetched,
            self.bytes_delivered - earlier.bytes_delivered,
            self.cache_hits - earlier.cache_hits,
            self.extents_decoded - earlier.extents_decoded,
        )

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests, {_bytes(self.bytes_fetched)} fetched, "
            f"{_bytes(self.bytes_delivered)} delivered, {self.cache_hits:,} cache hits, "
            f"{self.extents_decoded:,} extents decoded"
        )


def _bytes(n: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} TiB"


class Tally:
    """Counts, from many threads."""

    __slots__ = ("_lock", "bytes_delivered", "bytes_fetched", "cache_hits", "extents_decoded", "requests")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = self.bytes_fetched = self.bytes_delivered = self.cache_hits = self.extents_decoded = 0

    def add(self, requests: int = 0, fetched: int = 0, delivered: int = 0, hits: int = 0, decoded: int = 0) -> None:
        """Adds to the counts."""
        with self._lock:
            self.requests += requests
            self.bytes_fetched += fetched
            self.bytes_delivered += delivered
            self.cache_hits += hits
            self.extents_decoded += decoded

    def snapshot(self) -> Counters:
        """The counts now."""
        with self._lock:
            return Counters(
                self.requests, self.bytes_fetched, self.bytes_delivered, self.cache_hits, self.extents_decoded
            )


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to one request.

    Attributes:
        rows: int64 (k,), which of the ranges asked for it covers.
        offset: bytes from the start of the object.
        data: the bytes, fewer than the ranges need where the object ends; empty where there is an error.
        error: why there are none, or None.
    """

    rows: Int64s
    offset: int
    data: bytes
    error: PseudomountError | None


@dataclass(frozen=True, slots=True)
class _Request:
    rows: Int64s
    name: str
    offset: int
    length: int


class Fetcher:
    """Fetches ranges of objects, joined to few requests, a bounded number of bytes at a time.

    Args:
        fetch: a function, or a store.
        remote: whether a request takes long, so that several are made at a time.
        gap: bytes fetched in vain between two ranges to save a request.
        limit: bytes of a joined request.
        threads: requests made at a time.
        pool: gives the thread pool.
    """

    def __init__(
        self,
        fetch: Fetch | RangeStore,
        *,
        remote: bool,
        gap: int,
        limit: int,
        threads: int,
        pool: Callable[[], ThreadPoolExecutor],
        tally: Tally,
    ) -> None:
        self._store = fetch if isinstance(fetch, RangeStore) else None
        self._fetch: Fetch = fetch.read if isinstance(fetch, RangeStore) else fetch
        self._remote = remote
        self._gap = gap
        self._limit = limit
        self._threads = threads
        self._pool = pool
        self._tally = tally

    def fetch(self, name: str, offset: int, length: int) -> bytes:
        """Up to `length` bytes; any failure is a `PseudomountError`."""
        try:
            data = self._fetch(name, offset, length)
            if type(data) is not bytes:
                data = bytes(data)
        except Exception as error:
            self._tally.add(1)
            raise translated(error, name, offset, length) from error
        self._tally.add(1, len(data))
        return data if len(data) <= length else data[:length]

    def fetch_many(
        self, names: Callable[[Int64s], list[str]], numbers: Int64s, offsets: Int64s, lengths: Int64s
    ) -> Iterator[Fetched]:
        """Fetches ranges (none empty) of objects; each range is covered by exactly one answer.

        A request that fails is tried again in halves, down to its ranges, so that one bad sector costs only those
        that need it; except where the object is gone or storage is, for then all would fail in turn. Storage that is
        out of reach has been asked again and again when it says so: it is not asked for the rest.
        """
        gone: PseudomountError | None = None
        for wave in self._waves(self._requests(names, numbers, offsets, lengths)):
            answers = self._answers(wave) if gone is None else [gone] * len(wave)
            for request, answer in zip(wave, answers, strict=True):
                if self._remote and isinstance(answer, TransientStorageError):
                    gone = answer
                yield from self._settled(request, answer, offsets, lengths)

    def _requests(
        self, names: Callable[[Int64s], list[str]], numbers: Int64s, offsets: Int64s, lengths: Int64s
    ) -> Iterator[_Request]:
        order = np.lexsort((offsets, numbers))
        objects, cuts = np.unique(numbers[order], return_index=True)
        bounds = np.append(cuts, len(order)).tolist()
        for i, name in enumerate(names(objects)):
            rows = order[bounds[i] : bounds[i + 1]]
            if len(rows) == 1:
                yield _Request(rows, name, int(offsets[rows[0]]), int(lengths[rows[0]]))
                continue
            joined = coalesce(offsets[rows], lengths[rows], gap=self._gap, limit=self._limit)
            members = np.argsort(joined.group, kind="stable")
            ends = np.cumsum(np.bincount(joined.group, minlength=len(joined.offsets))).tolist()
            first = 0
            for offset, length, end in zip(joined.offsets.tolist(), joined.lengths.tolist(), ends, strict=True):
                yield _Request(rows[members[first:end]], name, offset, length)
                first = end

    def _waves(self, requests: Iterator[_Request]) -> Iterator[list[_Request]]:
        """Requests to be in flight together: one at a time locally, and never more bytes than the threads' share."""
        if not self._remote:
            for request in requests:
                yield [request]
            return
        wave: list[_Request] = []
        size = 0
        for request in requests:
            if wave and (size + request.length > self._threads * self._limit or len(wave) >= 16 * self._threads):
                yield wave
                wave, size = [], 0
            wave.append(request)
            size += request.length
        if wave:
            yield wave

    def _answers(self, wave: list[_Request]) -> list[bytes | PseudomountError]:
        if len(wave) == 1:
            return [self._try(wave[0])]
        if self._store is not None and all(request.name == wave[0].name for request in wave):
            try:
                answers = self._store.read_ranges(wave[0].name, [(r.offset, r.length) for r in wave])
            except Exception as error:
                self._tally.add(1)
                if isinstance(error, PseudomountError) and _hopeless(error):
                    return [error] * len(wave)
                # Which of them failed is found out one by one.
            else:
                if len(answers) == len(wave):
                    self._tally.add(len(wave), sum(map(len, answers)))
                    return [bytes(data[: r.length]) for data, r in zip(answers, wave, strict=True)]
        gone: list[PseudomountError] = []

        def attempt(request: _Request) -> bytes | PseudomountError:
            answer = gone[0] if gone else self._try(request)
            if isinstance(answer, TransientStorageError):
                gone.append(answer)
            return answer

        return list(self._pool().map(attempt, wave))

    def _try(self, request: _Request) -> bytes | PseudomountError:
        try:
            return self.fetch(request.name, request.offset, request.length)
        except PseudomountError as error:
            return error

    def _settled(
        self, request: _Request, answer: bytes | PseudomountError, offsets: Int64s, lengths: Int64s
    ) -> Iterator[Fetched]:
        todo = [(request, answer)]
        failed, any_good = 0, False
        while todo:
            request, answer = todo.pop()
            if not isinstance(answer, PseudomountError):
                any_good = True
                yield Fetched(request.rows, request.offset, answer, None)
                continue
            failed += 1
            # Where nothing at all can be read, no more is tried: a request may have joined a million ranges.
            if len(request.rows) == 1 or _hopeless(answer) or (failed > _PATIENCE and not any_good):
                yield Fetched(request.rows, request.offset, b"", answer)
            else:
                middle = len(request.rows) // 2
                for rows in (request.rows[middle:], request.rows[:middle]):
                    offset = int(offsets[rows].min())
                    half = _Request(rows, request.name, offset, int((offsets[rows] + lengths[rows]).max()) - offset)
                    todo.append((half, self._try(half)))


def _hopeless(error: PseudomountError) -> bool:
    return isinstance(error, ObjectNotFoundError | ObjectChangedError | TransientStorageError | AccessDeniedError)


def translated(error: Exception, name: str, offset: int, length: int) -> PseudomountError:
    """The error of a fetch as one of ours."""
    if isinstance(error, PseudomountError):
        return error
    where = f"{length} bytes at {offset} of {name}"
    if isinstance(error, FileNotFoundError):
        return ObjectNotFoundError(f"{where}: {error}", filename=name)
    if isinstance(error, TimeoutError | ConnectionError):
        return TransientStorageError(f"{where}: {error or type(error).__name__}", filename=name)
    return StorageError(f"{where}: {error if isinstance(error, OSError) else repr(error)}", filename=name)
