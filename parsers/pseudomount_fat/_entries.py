"""What the kernels of both file systems give: the entries of directories as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import TimeColumn
from pseudomount.findings import Severity
from pseudomount_fat._names import UnitNames

__all__ = ["Entries", "Nodes", "Problem"]

Int64s = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of defect, in many entries.

    Attributes:
        severity, message, structure: as in a finding.
        rows: int64 (k,), rows of the table of entries.
    """

    severity: Severity
    message: str
    structure: str
    rows: Int64s


@dataclass(frozen=True, slots=True)
class Entries:
    """The files that a table of directory entries names.

    Attributes:
        row: int64 (n,), row in the table of the entry that stands for the file.
        directory: bool (n,).
        names: n names.
        alias: n short names where a file has a long one, too, else empty; None where the format has none.
        problems: what was wrong.
    """

    row: Int64s
    directory: NDArray[np.bool_]
    names: UnitNames
    alias: UnitNames | None = None
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Nodes:
    """What directory entries say of n files.

    Attributes:
        directory: bool (n,).
        attributes: uint64 (n,).
        first: int64 (n,), first cluster, 0 for none.
        size: int64 (n,), bytes; -1 for a directory of FAT, which has no size of its own, and for one over 2**63.
        valid: int64 (n,), bytes that were ever written; what follows reads as zeros.
        contiguous: bool (n,): the clusters follow one another and the FAT says nothing of them.
        created, modified, accessed: times.
        errors: row → why it says nothing.
    """

    directory: NDArray[np.bool_]
    attributes: NDArray[np.uint64]
    first: Int64s
    size: Int64s
    valid: Int64s
    contiguous: NDArray[np.bool_]
    created: TimeColumn
    modified: TimeColumn
    accessed: TimeColumn
    errors: dict[int, PseudomountError]

    def __len__(self) -> int:
        return len(self.first)

    def good(self) -> Iterator[int]:
        """Rows without an error."""
        return (i for i in range(len(self)) if i not in self.errors)
