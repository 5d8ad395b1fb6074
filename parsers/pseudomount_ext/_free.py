"""The bitmaps of blocks and inodes ("Block and inode Bitmaps"): what a deleted file had may belong to others by now."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.findings import Severity
from pseudomount_ext._content import BlockRuns, Damage, Volume
from pseudomount_ext._groups import Groups
from pseudomount_ext._read import CHUNK, Int64s, read_rows, stretches

__all__ = ["Bitmaps"]

Bools = NDArray[np.bool_]

#: Blocks that are looked up at once, and pieces that the runs of one question may fall into.
_STEP: Final = 1 << 20
_MOST_PIECES: Final = 1 << 20
_STRUCTURE: Final = "bitmap"


class Bitmaps:
    """Which blocks and inodes are in use, read where it is asked about."""

    def __init__(self, volume: Volume, groups: Groups) -> None:
        self._volume = volume
        self._groups = groups

    def inodes_in_use(self, numbers: Int64s) -> Bools:
        """bool (n,): which inodes are allocated; a file without links that is was still open ("Orphan Inodes")."""
        per_group = self._volume.superblock.inodes_per_group
        return self._bits((numbers - 1) // per_group, (numbers - 1) % per_group, blocks=False)

    def blocks_in_use(self, blocks: Int64s) -> Bools:
        """bool (n,): which blocks, all inside the volume, belong to files; of bigalloc, whose clusters do."""
        superblock = self._volume.superblock
        ratio = superblock.cluster_size // superblock.block_size
        behind = blocks - superblock.first_data_block
        group = behind // superblock.blocks_per_group
        return self._bits(group, behind % superblock.blocks_per_group // ratio, blocks=True)

    def _bits(self, group: Int64s, bit: Int64s, *, blocks: bool) -> Bools:
        """Bits of bitmaps; set where a bitmap cannot be read, so that nothing is given away as free that is not."""
        size = self._volume.superblock.block_size
        out = np.ones(len(group), np.bool_)
        groups, which = np.unique(group, return_inverse=True)
        step = max(1, CHUNK // size)
        for first in range(0, len(groups), step):
            part = groups[first : first + step]
            places = self._groups.bitmaps(part)[0 if blocks else 1]
            known = np.flatnonzero(places > 0)
            got = read_rows(self._volume.device, places[known] * size, size, _STRUCTURE)
            for error in list(got.errors.values())[:1]:
                self._volume.findings.add_error(error, severity=Severity.DEGRADED)
            row = np.full(len(part), -1, np.int64)
            row[known[got.ok()]] = np.flatnonzero(got.ok())
            mine = np.flatnonzero((which >= first) & (which < first + len(part)))
            place = which[mine] - first
            out[mine[places[place] == 0]] = False
            mine, place = mine[row[place] >= 0], place[row[place] >= 0]
            byte = np.minimum(bit[mine] >> 3, size - 1)
            out[mine] = (got.data[row[place], byte] >> (bit[mine] & 7).astype(np.uint8)) & 1 != 0
        return out

    def left_of(self, runs: BlockRuns, gone: Bools) -> BlockRuns:
        """Runs of which those parts are damaged that are in use.

        Args:
            runs: of any files.
            gone: bool (queries,), the files whose blocks were freed.
        """
        mine = gone[runs.query] & ~runs.damaged
        if not mine.any():
            return runs
        rest = runs.take(~mine)
        parts = [(rest.query, rest.logical, rest.count, rest.physical, rest.kind)]
        rows = np.flatnonzero(mine)
        # Long runs in steps, then as many of them at once as make one.
        pieces = -(-runs.count[rows] // _STEP)
        if int(pieces.sum()) > _MOST_PIECES:
            kind = np.where(mine, np.uint8(Damage.TAKEN), runs.kind)
            self._blame(runs.query, runs.logical, runs.count, runs.physical, kind, runs)
            return BlockRuns(runs.query, runs.logical, runs.count, runs.physical, kind, runs.errors)
        row = np.repeat(rows, pieces)
        skip = (np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)) * _STEP
        count = np.minimum(runs.count[row] - skip, _STEP)
        group = np.cumsum(count) // _STEP
        found = 0
        for a, b in stretches(group):
            cut = BlockRuns(
                runs.query[row[a:b]],
                runs.logical[row[a:b]] + skip[a:b],
                count[a:b],
                runs.physical[row[a:b]] + skip[a:b],
                runs.kind[row[a:b]],
                runs.errors,
            )
            part = self._split(cut, whole=found > _MOST_PIECES)
            found += len(part[0])
            parts.append(part)
        query, logical, number, physical = (np.concatenate([part[i] for part in parts]) for i in range(4))
        kinds = np.concatenate([part[4] for part in parts])
        self._blame(query, logical, number, physical, kinds, runs)
        order = np.lexsort((logical, query))
        return BlockRuns(query[order], logical[order], number[order], physical[order], kinds[order], runs.errors)

    def _blame(
        self, query: Int64s, logical: Int64s, count: Int64s, physical: Int64s, kind: NDArray[np.uint8], runs: BlockRuns
    ) -> None:
        taken = np.flatnonzero(kind == Damage.TAKEN)
        _, first = np.unique(query[taken], return_index=True)
        for i in taken[first].tolist():
            one = BlockRuns(query[[i]], logical[[i]], count[[i]], physical[[i]], kind[[i]], {})
            runs.errors.setdefault(int(query[i]), one.explain(self._volume, 0))

    def _split(self, runs: BlockRuns, *, whole: bool) -> tuple[Int64s, Int64s, Int64s, Int64s, NDArray[np.uint8]]:
        """Runs cut where blocks in use begin and end."""
        n = len(runs.query)
        begin = np.cumsum(runs.count) - runs.count
        which = np.repeat(np.arange(n), runs.count)
        within = np.arange(len(which)) - begin[which]
        taken = np.ones(len(which), np.bool_)
        if not whole:
            taken = self.blocks_in_use(runs.physical[which] + within)
        first = np.ones(len(which), np.bool_)
        first[1:] = (taken[1:] != taken[:-1]) | (which[1:] != which[:-1])
        at = np.flatnonzero(first)
        count = np.diff(np.append(at, len(which)))
        run = which[at]
        kind = np.where(taken[at], np.uint8(Damage.TAKEN), runs.kind[run])
        return runs.query[run], runs.logical[run] + within[at], count, runs.physical[run] + within[at], kind
