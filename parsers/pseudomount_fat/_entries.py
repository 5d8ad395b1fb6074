"""What the kernels of both file systems give: the entries of directories as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pseudomount.errors import PseudomountError
from pseudomount.filesystem import TimeColumn
from pseudomount.findings import Severity
from pseudomount_fat._names import UnitNames

__all__ = ["GONE", "Entries", "Nodes", "Problem"]

Int64s = NDArray[np.int64]

#: Marks the id of a deleted file; the rest of it is the position of its entry.
GONE: Final = 1 << 63


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
        alias: n short names where a file has a long one, too, else empty; None where the format has none, or where
            nobody asked for them.
        problems: what was wrong.
        sure: bool (n,), a checksum says that the file's entries belong together; None where the format has none.
    """

    row: Int64s
    directory: NDArray[np.bool_]
    names: UnitNames
    alias: UnitNames | None = None
    problems: list[Problem] = field(default_factory=list)
    sure: NDArray[np.bool_] | None = None


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
        gone: bool (n,), the file was deleted.
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
    gone: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Int64s) -> Nodes:
        """A selection, by numbers."""
        arrays: dict[str, Any] = {
            name: column.take(rows) if isinstance(column, TimeColumn) else column[rows]
            for name, column in self._columns()
        }
        errors = {}
        if self.errors:
            errors = {i: self.errors[row] for i, row in enumerate(rows.tolist()) if row in self.errors}
        return Nodes(**arrays, errors=errors)

    @classmethod
    def concat(cls, parts: Sequence[Nodes]) -> Nodes:
        """One after the other."""
        if len(parts) == 1:
            return parts[0]
        arrays: dict[str, Any] = {}
        for name, column in parts[0]._columns():
            columns = [getattr(part, name) for part in parts]
            arrays[name] = TimeColumn.concat(columns) if isinstance(column, TimeColumn) else np.concatenate(columns)
        errors: dict[int, PseudomountError] = {}
        base = 0
        for part in parts:
            errors.update((base + row, error) for row, error in part.errors.items())
            base += len(part)
        return cls(**arrays, errors=errors)

    def _columns(self) -> list[tuple[str, Any]]:
        return [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "errors"]
