"""Chains of clusters, followed for many files at once: the same walk for FAT12, FAT16, FAT32 and exFAT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PseudomountError
from pseudomount.findings import FindingLog
from pseudomount_fat._cycles import cut_cycles, sharing
from pseudomount_fat._pages import CACHED_PAGES, PAGE, PageCache, TableShape

__all__ = ["AllocationTable", "Chains"]

Int64s = NDArray[np.int64]

#: Most pages read ahead of a chain.
_AHEAD = 64
#: Up to so many chains are followed one by one: cheaper than numpy's fixed cost a step.
_FEW = 128
#: Pages that a chain came to from far away before whole parts of the table are read, and the most pages of such a part.
_JUMPS = 3
_SPAN = 256
#: Runs that one chain is followed for before the bounds are looked at again.
_BURST = 1 << 16


@dataclass(frozen=True, slots=True)
class Chains:
    """Chains as runs of consecutive clusters, chain by chain, in the chain's order.

    Attributes:
        owner: int64 (m,), number of the chain asked for, ascending.
        logical: int64 (m,), clusters of the chain before the run.
        start: int64 (m,), the run's first cluster.
        count: int64 (m,), clusters, all positive.
        errors: number of a chain → why it ends before it should. Its runs up to there are given.
        longer: int64 (k,), numbers of exact chains that do not end with the clusters asked for.
    """

    owner: Int64s
    logical: Int64s
    start: Int64s
    count: Int64s
    errors: dict[int, PseudomountError]
    longer: Int64s


class AllocationTable:
    """A table and its chains. Thread-safe."""

    def __init__(self, device: BlockDevice, shape: TableShape, findings: FindingLog) -> None:
        self.shape = shape
        self.pages = PageCache(device, shape, findings)
        self._device = device

    # -- chains --------------------------------------------------------------------------------------------------

    def chains(self, starts: Int64s, wanted: Int64s, *, exact: bool) -> Chains:
        """Follows n chains.

        Args:
            starts: int64 (n,), first clusters.
            wanted: int64 (n,), clusters to follow at most; 0 follows nothing.
            exact: a chain that ends before `wanted` clusters is an error (files, whose size is known); otherwise one
                that does not end within them is (directories without a size).

        Bounded whatever the table holds: a chain is cut where it comes back to itself, and where the chains asked for
        together have more clusters (exact ones: more runs) than the volume, those that share with another end.
        """
        shape = self.shape
        errors: dict[int, PseudomountError] = {}
        limit = np.minimum(wanted, shape.clusters)
        owner = np.flatnonzero(limit > 0)
        inside = (starts[owner] >= 2) & (starts[owner] < shape.entries)
        for i in owner[~inside].tolist():
            errors[i] = self._broken(int(starts[i]), None)
        owner = owner[inside]
        walk = _Walk(owner, starts[owner].astype(np.int64), limit[owner], exact)
        allowance, step = shape.clusters, 0
        while len(walk.owner):
            if len(walk.owner) <= _FEW:
                self._follow_few(walk, errors, step)
            else:
                self._follow_many(walk, errors, step)
            step += 1
            if walk.total > allowance:
                allowance = walk.total + shape.clusters
                guilty = walk.owner[np.isin(walk.owner, sharing(*walk.emitted()))]
                for i in guilty.tolist():
                    errors[i] = self._corrupt("its chain of clusters crosses others", None)
                walk.keep(~np.isin(walk.owner, guilty))
        runs, looped = cut_cycles(*walk.merged())
        for i in looped:
            errors[i] = self._looped()
        for i in np.flatnonzero(wanted > shape.clusters).tolist() if exact else ():
            errors.setdefault(i, self._corrupt("it claims more clusters than the volume has", None))
        return Chains(*runs, errors, np.array([i for i in sorted(walk.longer) if i not in errors], np.int64))

    def _follow_many(self, walk: _Walk, errors: dict[int, PseudomountError], step: int) -> None:
        """One run further in every chain."""
        page = walk.cluster // PAGE
        last, following, there, failed = self.pages.look(walk.cluster, self._ahead(walk, page, step))
        if failed:
            for i, number in zip(walk.owner[~there].tolist(), page[~there].tolist(), strict=True):
                errors[i] = failed[number]
            walk.keep(there)
            last, following = last[there], following[there]
        count = np.minimum(last - walk.cluster + 1, walk.limit - walk.done)
        whole = walk.cluster + count > last
        walk.emit(walk.owner, walk.done, walk.cluster, count)
        walk.done += count
        goes_on = whole & (following >= 2) & (following < self.shape.entries)
        self._stopped(walk, np.flatnonzero(~goes_on), following, whole, errors)
        full = walk.done >= walk.limit
        if walk.exact:
            walk.longer += walk.owner[full & ~(whole & (following >= self.shape.end))].tolist()
        else:
            for i in walk.owner[full & (goes_on | ~whole)].tolist():
                errors[i] = self._corrupt("its chain of clusters is longer than a directory may be", None)
        more = goes_on & ~full
        looping = more & (following == walk.mark)
        for i in walk.owner[looping].tolist():
            errors[i] = self._looped()
        walk.cluster = following
        if step & (step + 1) == 0:  # Brent: a mark renewed at powers of two is met again soon after a cycle begins
            walk.mark = walk.cluster.copy()
        walk.keep(more & ~looping)

    def _stopped(
        self,
        walk: _Walk,
        rows: Int64s,
        following: Int64s,
        whole: NDArray[np.bool_],
        errors: dict[int, PseudomountError],
    ) -> None:
        """Notes which of the chains that end here should not."""
        if walk.exact:
            rows = rows[walk.done[rows] < walk.limit[rows]]
        rows = rows[whole[rows]]
        ended = following[rows] >= self.shape.end
        for i in rows[ended].tolist() if walk.exact else ():
            errors[int(walk.owner[i])] = self._corrupt("its chain of clusters ends before its size does", None)
        for i in rows[~ended].tolist():
            cluster = int(walk.cluster[i] + walk.done[i] - walk.before[i] - 1)
            errors[int(walk.owner[i])] = self._broken(int(following[i]), cluster)

    def _follow_few(self, walk: _Walk, errors: dict[int, PseudomountError], step: int) -> None:
        """Each chain by itself, up to `_BURST` runs: for a handful numpy's steps cost a hundred times more."""
        keep = np.ones(len(walk.owner), np.bool_)
        for row in range(len(walk.owner)):
            keep[row] = self._follow_one(walk, row, errors, step)
        walk.keep(keep)

    def _follow_one(self, walk: _Walk, row: int, errors: dict[int, PseudomountError], step: int) -> bool:
        """Whether the chain goes on after this burst."""
        entries, end, exact = self.shape.entries, self.shape.end, walk.exact
        owner, cluster, done = int(walk.owner[row]), int(walk.cluster[row]), int(walk.done[row])
        limit, mark, loads = int(walk.limit[row]), int(walk.mark[row]), step
        pages: dict[int, tuple[memoryview, memoryview]] = {}
        dones: list[int] = []
        starts: list[int] = []
        goes_on, turn, renew = True, 0, 1
        jumps, behind = 0, cluster // PAGE + 1
        while goes_on and turn < _BURST:
            number = cluster // PAGE
            page = pages.get(number)
            if page is None:
                ahead = min((limit - done) // PAGE, (1 << min(loads, 6)) - 1)
                loads += 1
                if not number - 1 <= behind <= number + 1:
                    jumps += 1
                    if jumps >= _JUMPS:  # a chain that lies all over the table: ever larger parts of it
                        span = min(1 << (jumps - _JUMPS + 1), _SPAN)
                        self.pages.prefetch(number // span * span, span)
                behind = number
                try:
                    page = self.pages.page(number, ahead)
                except PseudomountError as error:
                    errors[owner], goes_on = error, False
                    break
                pages[number] = page
                if len(pages) > CACHED_PAGES:
                    pages.clear()
            following_of, last_of = page
            last = last_of[cluster - number * PAGE]
            dones.append(done)
            starts.append(cluster)
            run = number * PAGE + last - cluster + 1
            following = following_of[last]
            turn += 1
            if run >= limit - done:
                cut = run > limit - done
                done = limit
                goes_on = False
                if exact and (cut or following < end):
                    walk.longer.append(owner)
                elif not exact and (cut or 2 <= following < entries):
                    errors[owner] = self._corrupt("its chain of clusters is longer than a directory may be", None)
                elif not exact and following < end:
                    errors[owner] = self._broken(following, number * PAGE + last)
                break
            done += run
            if 2 <= following < entries:
                cluster = following
                if cluster == mark:
                    errors[owner], goes_on = self._looped(), False  # what was given out twice is cut afterwards
                elif turn == renew:
                    mark, renew = cluster, renew * 2
            elif following < end:
                errors[owner], goes_on = self._broken(following, number * PAGE + last), False
            else:
                goes_on = False
                if exact:
                    errors[owner] = self._corrupt("its chain of clusters ends before its size does", None)
        if starts:
            logical = np.array(dones, np.int64)
            counts = np.diff(np.append(logical, done))
            walk.emit(np.full(len(starts), owner, np.int64), logical, np.array(starts, np.int64), counts)
        walk.cluster[row], walk.done[row], walk.mark[row] = cluster, done, mark
        return goes_on

    # -- pages ---------------------------------------------------------------------------------------------------

    def _ahead(self, walk: _Walk, page: Int64s, step: int) -> Int64s | None:
        if step == 0:
            return None
        room = min((1 << min(step, 6)) - 1, _AHEAD)
        until: Int64s = page + np.minimum((walk.limit - walk.done) // PAGE, room // max(1, len(page) // 16))
        return until

    # -- errors --------------------------------------------------------------------------------------------------

    def _broken(self, value: int, cluster: int | None) -> CorruptionError:
        if cluster is None:
            return self._corrupt(f"its first cluster is {value}, which the volume does not have", None)
        if value == self.shape.bad:
            text = "runs into a cluster marked bad"
        elif value == 0:
            text = "runs into a free cluster"
        else:
            text = f"goes on at cluster {value}, which the volume does not have"
        return self._corrupt(f"its chain of clusters {text}", cluster)

    def _looped(self) -> CorruptionError:
        return self._corrupt("its chain of clusters comes back to itself", None)

    def _corrupt(self, message: str, cluster: int | None) -> CorruptionError:
        offset = None if cluster is None else self.shape.positions[0] + cluster * self.shape.bits // 8
        return CorruptionError(message, device=self._device.name, offset=offset, structure="FAT")


class _Walk:
    """Chains on the way: what is left of each, and the runs given out so far."""

    def __init__(self, owner: Int64s, cluster: Int64s, limit: Int64s, exact: bool) -> None:
        self.owner, self.cluster, self.limit, self.exact = owner, cluster, limit, exact
        self.done = np.zeros(len(owner), np.int64)
        self.before = np.zeros(len(owner), np.int64)
        self.mark = np.full(len(owner), -1, np.int64)
        self.total = 0
        self.longer: list[int] = []
        self._parts: list[tuple[Int64s, Int64s, Int64s, Int64s]] = []

    def emit(self, owner: Int64s, logical: Int64s, start: Int64s, count: Int64s) -> None:
        self._parts.append((owner.copy(), logical.copy(), start.copy(), count))
        self.before = self.done.copy()
        self.total += len(owner) if self.exact else int(count.sum())

    def keep(self, rows: NDArray[np.bool_]) -> None:
        self.owner, self.cluster, self.limit = self.owner[rows], self.cluster[rows], self.limit[rows]
        self.done, self.before, self.mark = self.done[rows], self.before[rows], self.mark[rows]

    def emitted(self) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """All runs so far, chain by chain."""
        if not self._parts:
            none = np.empty(0, np.int64)
            return none, none, none, none
        owner, logical, start, count = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(owner, kind="stable")
        self._parts = [(owner[order], logical[order], start[order], count[order])]
        return self._parts[0]

    def merged(self) -> tuple[Int64s, Int64s, Int64s, Int64s]:
        """The same with runs joined that only the border of a page cut."""
        owner, logical, start, count = self.emitted()
        if not len(owner):
            return owner, logical, start, count
        new = np.ones(len(owner), np.bool_)
        new[1:] = (owner[1:] != owner[:-1]) | (start[1:] != start[:-1] + count[:-1])
        first = np.flatnonzero(new)
        return owner[first], logical[first], start[first], np.add.reduceat(count, first)
