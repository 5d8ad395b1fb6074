"""The file allocation table, read and decoded by pages as they are needed, and compared with its mirrors.

Entry c of the table names the cluster that follows c (Microsoft FAT specification 1.03, section 4; exFAT specification,
section 4.1). A table can have 2**32 entries, so it is never read whole: at most `CACHED_PAGES` pages of `PAGE` entries
are kept.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import DamageError, PseudomountError, UsageError
from pseudomount.findings import FindingLog, Severity

__all__ = ["CACHED_PAGES", "PAGE", "PageCache", "TableShape"]

Int64s = NDArray[np.int64]

#: Entries of a page; 4096 of any width fill whole bytes (FAT12 packs two entries in three).
PAGE = 4096
#: 4096 pages are 16 Mi entries: 64 MiB of entries and 32 MiB of run ends.
CACHED_PAGES = 4096
#: Pages between two wanted ones that are read in vain rather than asked for separately.
_GAP = 8
#: Pages that are read in one request: 8 MiB of FAT32.
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class TableShape:
    """Where a table lies and how its entries read.

    Attributes:
        bits: 12, 16 or 32, the width of an entry.
        mask: the bits of an entry that count; FAT32 keeps the upper four for itself.
        clusters: clusters of the volume; they are numbered from 2 to `clusters` + 1.
        positions: bytes from the start of the volume, the copy in use first, then those that mirror it.
        length: bytes of one copy.
        bad: the entry of a bad cluster.
        end: entries from here on end a chain.
    """

    bits: int
    mask: int
    clusters: int
    positions: tuple[int, ...]
    length: int
    bad: int
    end: int

    @property
    def entries(self) -> int:
        """Entries that mean something, the two reserved ones included."""
        return self.clusters + 2


class PageCache:
    """Pages of a table on demand. Thread-safe: reads happen outside the lock, look-ups inside it."""

    def __init__(self, device: BlockDevice, shape: TableShape, findings: FindingLog) -> None:
        self.shape = shape
        self._device = device
        self._findings = findings
        self._lock = threading.Lock()
        self._page_bytes = PAGE * shape.bits // 8
        self._pages = -(-shape.entries // PAGE)
        budget = device.batch_budget // (self._page_bytes * len(shape.positions))
        self._at_once = max(1, min(_AT_ONCE, budget))
        self._slots = np.full(self._pages, -1, np.int32)
        self._used = 0
        self._next = np.empty((0, PAGE), np.uint32)
        self._last = np.empty((0, PAGE), np.uint16)  # within the page, the last entry of the run an entry is in

    def look(
        self, clusters: Int64s, until: Int64s | None = None
    ) -> tuple[Int64s, Int64s, NDArray[np.bool_], dict[int, PseudomountError]]:
        """For n clusters, all inside the table: where the run of consecutive clusters ends, and what follows.

        Returns:
            The last cluster of the run that each is in, as far as its page reaches, int64 (n,); the entry of that
            last cluster, int64 (n,); which of them could be read, bool (n,); why the others could not, by page.
        """
        page = clusters // PAGE
        last, following = np.zeros(len(page), np.int64), np.zeros(len(page), np.int64)
        there = np.zeros(len(page), np.bool_)
        failed = self._load(page, until)
        # Where the pages of one question are more than the cache holds, they are loaded and looked up share by share.
        while True:
            with self._lock:
                slot = self._slots[page]
                rows = np.flatnonzero((slot >= 0) & ~there)
                ends = self._last[slot[rows], clusters[rows] % PAGE].astype(np.int64)
                last[rows] = page[rows] * PAGE + ends
                following[rows] = self._next[slot[rows], ends]
                there[rows] = True
            missing = ~there & ~np.isin(page, list(failed))
            if not missing.any():
                return last, following, there, failed
            failed.update(self._load(page[missing], None))

    def entry(self, cluster: int) -> int:
        """One entry as it is stored, the reserved ones 0 and 1 included, without the cache and its masks."""
        bits = self.shape.bits
        at = cluster * bits // 8
        raw = int.from_bytes(self._device.read(self.shape.positions[0] + at, 2 if bits < 32 else 4), "little")
        return (raw >> 4 if cluster & 1 else raw & 0xFFF) if bits == 12 else raw

    def following(self, clusters: Int64s) -> Int64s:
        """The entries of n clusters; 0 for one that is outside the table or could not be read."""
        result = np.zeros(len(clusters), np.int64)
        rows = np.flatnonzero((clusters >= 2) & (clusters < self.shape.entries))
        for some in np.array_split(rows, -(-len(rows) // CACHED_PAGES)) if len(rows) else ():
            page = clusters[some] // PAGE
            self._load(page, None)
            with self._lock:
                slot = self._slots[page]
                there = slot >= 0
                result[some[there]] = self._next[slot[there], clusters[some[there]] % PAGE]
        return result

    def all_free(self, starts: Int64s, counts: Int64s) -> NDArray[np.bool_]:
        """bool (n,): which runs of clusters have nothing but free ones.

        Needs at most `CACHED_PAGES` pages: runs in others, and those whose entries cannot be read, count as in use.
        """
        result = np.zeros(len(starts), np.bool_)
        entries = self.shape.entries
        rows = np.flatnonzero((starts >= 2) & (counts > 0) & (counts < entries) & (starts + counts <= entries))
        if not len(rows):
            return result
        edges = np.stack([starts[rows], starts[rows] + counts[rows] - 1])
        pages = edges // PAGE
        marks = np.zeros(int(pages.max()) + 2, np.int64)
        np.add.at(marks, pages[0], 1)
        np.add.at(marks, pages[1] + 1, -1)
        numbers = np.flatnonzero(np.cumsum(marks) > 0)[:CACHED_PAGES]
        place = np.searchsorted(numbers, pages)
        within = edges % PAGE + np.array([[0], [1]])  # entries before the run, and up to its end
        used = np.zeros(edges.shape, np.int64)
        before = 0
        for first in range(0, len(numbers), self._at_once):
            some = numbers[first : first + self._at_once]
            counted = np.zeros((len(some), PAGE + 1), np.int64)
            np.cumsum(self._in_use(some), axis=1, out=counted[:, 1:])
            ends = before + np.cumsum(counted[:, -1])
            here = (place >= first) & (place < first + len(some))
            at = place[here] - first
            used[here] = ends[at] - counted[at, -1] + counted[at, within[here]]
            before = int(ends[-1])
        result[rows] = (place[1] < len(numbers)) & (used[0] == used[1])
        return result

    def _in_use(self, numbers: Int64s) -> NDArray[np.bool_]:
        """bool (k, PAGE): which entries of pages are not free; all of those that cannot be read."""
        self._load(numbers, None)
        with self._lock:
            slot = self._slots[numbers]
            used = self._next[slot] != 0 if len(self._next) else np.ones((len(numbers), PAGE), np.bool_)
        used[slot < 0] = True
        return used

    def prefetch(self, first: int, count: int) -> None:
        """Reads pages in one go that will be asked for one by one, as far as there are any; those between again."""
        numbers = np.arange(first, min(first + min(count, self._at_once), self._pages))
        with self._lock:
            missing = np.flatnonzero(self._slots[numbers] < 0)
        if len(missing):
            failed: dict[int, PseudomountError] = {}
            read = self._read_pages(numbers[missing[0] : missing[-1] + 1].tolist(), failed)
            with self._lock:
                self._insert(*read)

    def page(self, number: int, ahead: int) -> tuple[memoryview, memoryview]:
        """Entries and run ends of one page, as memoryviews that stay what they are when the cache moves on."""
        for _ in range(3):  # another thread may empty the cache between loading and looking
            with self._lock:
                slot = int(self._slots[number])
                if slot >= 0:
                    return memoryview(self._next[slot].copy()), memoryview(self._last[slot].copy())
            failed = self._load(np.array([number]), np.array([number + ahead]))
            if number in failed:
                raise failed[number]
        decoded = self._read_pages([number])
        return memoryview(decoded[1][0]), memoryview(_run_ends(*decoded, self.shape.entries)[0])

    def _load(self, pages: Int64s, until: Int64s | None) -> dict[int, PseudomountError]:
        """Loads what is missing of these pages (and, where nothing else presses, up to `until`); gives the failures."""
        with self._lock:
            missing = np.unique(pages[self._slots[pages] < 0])
            if not len(missing):
                return {}
            wanted = missing[: self._at_once]
            if until is not None:
                reach = _spanned(pages, until, missing)
                reach = reach[reach < self._pages]
                if len(wanted) + len(reach) <= self._at_once:
                    wanted = np.union1d(wanted, reach[self._slots[reach] < 0])
            near = np.flatnonzero(np.diff(wanted) <= _GAP)
            if len(near) and len(wanted) + len(near) * _GAP <= self._at_once:
                filled = [np.arange(wanted[i] + 1, wanted[i + 1]) for i in near.tolist()]
                between = np.concatenate(filled)
                wanted = np.union1d(wanted, between[self._slots[between] < 0])
        failed: dict[int, PseudomountError] = {}
        numbers, decoded = self._read_pages(wanted.tolist(), failed)
        with self._lock:
            self._insert(numbers, decoded)
        return failed

    def _insert(self, numbers: Int64s, decoded: NDArray[np.uint32]) -> None:
        fresh = self._slots[numbers] < 0
        numbers, decoded = numbers[fresh], decoded[fresh]
        if self._used + len(numbers) > CACHED_PAGES:
            self._slots[:] = -1
            self._used = 0
        if self._used + len(numbers) > len(self._next):
            room = min(max(2 * len(self._next), self._used + len(numbers)), max(CACHED_PAGES, len(numbers)))
            for name in ("_next", "_last"):
                old = getattr(self, name)
                new = np.empty((room, PAGE), old.dtype)
                new[: self._used] = old[: self._used]
                setattr(self, name, new)
        slots = np.arange(self._used, self._used + len(numbers))
        self._next[slots] = decoded
        self._last[slots] = _run_ends(numbers, decoded, self.shape.entries)
        self._slots[numbers] = slots
        self._used += len(numbers)

    def _read_pages(
        self, pages: Sequence[int], failed: dict[int, PseudomountError] | None = None
    ) -> tuple[Int64s, NDArray[np.uint32]]:
        """Pages off the device, compared with their mirrors; runs of neighbours are one range each.

        Raises:
            PseudomountError: a page could not be read and nobody asked for `failed`.
        """
        numbers = np.array(pages, np.int64)
        size = self._page_bytes
        raw = np.zeros((len(numbers), size), np.uint8)
        first = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
        stop = np.append(first[1:], len(numbers))
        offsets = numbers[first] * size
        lengths = np.minimum((stop - first) * size, self.shape.length - offsets)
        copies = self.shape.positions
        batch = self._device.read_many(
            np.concatenate([offsets + position for position in copies]), np.tile(lengths, len(copies))
        )
        good = np.ones(len(numbers), np.bool_)
        differing: list[tuple[int, int, NDArray[np.uint8], int]] = []
        for i, (a, b) in enumerate(zip(first.tolist(), stop.tolist(), strict=True)):
            target = raw[a:b].reshape(-1)[: int(lengths[i])]
            chosen = None
            for copy in range(len(copies)):
                k = copy * len(first) + i
                if k in batch.errors:
                    continue
                content = batch.view(k)
                if chosen is None:
                    chosen = copy
                    target[:] = content
                    if copy:
                        self._note(
                            Severity.DEGRADED,
                            f"copy {copy + 1} of the FAT stands in for the first, which cannot be read",
                            int(offsets[i]) + copies[0],
                        )
                elif not np.array_equal(content, target):
                    differing.append((a, b, content, copy))
            if chosen is None:
                error = batch.errors[i]
                if failed is None:
                    raise error
                if isinstance(error, UsageError):
                    error = DamageError(
                        "this part of the FAT lies beyond the end of the device",
                        device=self._device.name,
                        offset=int(offsets[i]) + copies[0],
                        structure="FAT",
                    )
                failed.update(dict.fromkeys(numbers[a:b].tolist(), error))
                good[a:b] = False
        decoded = self._decoded(raw)
        for a, b, content, copy in differing:
            self._compare(numbers[a:b], decoded[a:b], content, copy)
        return numbers[good], decoded[good]

    def _decoded(self, raw: NDArray[np.uint8]) -> NDArray[np.uint32]:
        decoded = _decode(raw, self.shape.bits)
        decoded &= np.uint32(self.shape.mask)
        return decoded

    def _compare(self, numbers: Int64s, decoded: NDArray[np.uint32], content: NDArray[np.uint8], copy: int) -> None:
        """Notes how many entries of pages differ in a mirror; where only the mirror has a chain, takes it from there.

        A disk caught between the writes of the copies, or a damaged one, has such entries. The two reserved ones hold
        flags that may differ.
        """
        raw = np.zeros((len(numbers), self._page_bytes), np.uint8)
        raw.reshape(-1)[: len(content)] = content
        other = self._decoded(raw)
        cluster = numbers[:, None] * PAGE + np.arange(PAGE)
        unlike = (other != decoded) & (cluster >= 2) & (cluster < self.shape.entries)
        if not unlike.any():
            return
        first = int(cluster[unlike][0])
        self._note(
            Severity.DEGRADED,
            f"{int(unlike.sum())} entries of the FAT differ in copy {copy + 1}, the first that of cluster {first};"
            " the copy in use is followed, and where it says free the other",
            self.shape.positions[0] + first * self.shape.bits // 8,
        )
        decoded[unlike & (decoded == 0)] = other[unlike & (decoded == 0)]

    def _note(self, severity: Severity, message: str, offset: int) -> None:
        self._findings.add(severity, message, structure="FAT", offset=offset)


def _spanned(pages: Int64s, until: Int64s, missing: Int64s) -> Int64s:
    """The pages from each missing one to the last that it is to be read ahead to, each once, ascending."""
    asked = np.isin(pages, missing)
    pages, until = pages[asked], until[asked]
    order = np.argsort(pages, kind="stable")
    begin = np.searchsorted(pages[order], missing, "left")
    lengths = np.maximum(np.maximum.reduceat(until[order], begin) - missing, 0) + 1
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.unique(np.repeat(missing, lengths) + within)


def _run_ends(numbers: Int64s, decoded: NDArray[np.uint32], entries: int) -> NDArray[np.uint16]:
    """For each entry of pages (k, PAGE): where in its page the run of consecutive clusters that it is in ends."""
    if not len(numbers):
        return np.empty((0, PAGE), np.uint16)
    successor = numbers[:, None] * PAGE + np.arange(1, PAGE + 1)
    ends = (decoded != successor) | (successor >= entries)
    ends[:, -1] = True
    at = np.flatnonzero(ends)
    return (np.repeat(at, np.diff(at, prepend=-1)) % PAGE).astype(np.uint16).reshape(-1, PAGE)


def _decode(raw: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """Entries (k, PAGE) of pages as they are stored (k, PAGE * bits / 8)."""
    if bits == 32:
        return raw.view("<u4").astype(np.uint32)
    if bits == 16:
        return raw.view("<u2").astype(np.uint32)
    three = raw.reshape(len(raw), -1, 3).astype(np.uint32)
    result = np.empty((len(raw), PAGE), np.uint32)
    result[:, 0::2] = three[:, :, 0] | (three[:, :, 1] & 0x0F) << 8
    result[:, 1::2] = three[:, :, 1] >> 4 | three[:, :, 2] << 4
    return result
