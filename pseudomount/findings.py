"""Findings: what was wrong with a backup, where, and how bad.

A finding is no exception: it is noted and the work goes on. Whoever browses reads them afterwards, from
`volume.findings` or `backup.findings`, and from the CLI as a table.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from typing import overload

from pseudomount.errors import DamageError

__all__ = ["Finding", "FindingLog", "Severity"]


class Severity(IntEnum):
    """How bad. A `NOTE` never changes an exit status; the other two do where they touched what was asked for."""

    NOTE = 1  # worth knowing; what was read is right (a backup header was used, a journal awaits replay)
    DEGRADED = 2  # something is missing or doubtful (a checksum that does not fit, an attribute that is gone)
    LOST = 3  # content or names could not be read


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was wrong.

    Attributes:
        severity: how bad.
        message: one line, in plain words.
        structure: the format's own term for what was looked at, such as "group descriptor".
        volume: name of the volume, "" where it concerns a whole disk or backup.
        file: the parser's id of the file concerned, or None.
        path: path of that file where it is known, in its escaped form.
        offset: bytes from the start of `device`, or None.
        device: name of the device that `offset` counts on where that is not the volume itself (or the disk, without a
            volume), else "": an unreadable range lies on the disk below, and damage inside a file on that file.
    """

    severity: Severity
    message: str
    structure: str = ""
    volume: str = ""
    file: int | None = None
    path: str = ""
    offset: int | None = None
    device: str = ""

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON; `severity` by its lower-case name."""
        return {**asdict(self), "severity": self.severity.name.lower()}

    def __str__(self) -> str:
        where = [part for part in (self.volume, self.path) if part]
        if self.file is not None and not self.path:
            where.append(f"file {self.file}")
        if self.offset is not None:
            where.append(f"offset {self.offset}" + (f" of {self.device}" if self.device else ""))
        return f"{self.severity.name.lower()}: {self.message}" + (f" ({', '.join(where)})" if where else "")


class FindingLog(Sequence[Finding]):
    """A bounded, thread-safe, duplicate-free list of findings.

    A forged disk can hold a defect in each of a million records; memory must not follow. Past `limit` findings
    are counted in `dropped` and no longer kept.
    """

    def __init__(self, volume: str = "", limit: int = 10_000, parent: FindingLog | None = None) -> None:
        """Makes an empty log.

        Args:
            volume: name given to findings that come without one.
            limit: findings kept.
            parent: a log that gets every finding of this one as well.
        """
        self.volume = volume
        self.limit = limit
        self.dropped = 0
        self._parent = parent
        self._worst = 0
        self._items: dict[Finding, Finding] = {}
        self._lock = threading.Lock()

    def add(
        self,
        severity: Severity,
        message: str,
        *,
        structure: str = "",
        file: int | None = None,
        path: str = "",
        offset: int | None = None,
        device: str = "",
    ) -> None:
        """Notes one finding; the same one twice is kept once."""
        self.append(Finding(severity, message, structure, self.volume, file, path, offset, device))

    def append(self, finding: Finding) -> None:
        """Notes a finding made elsewhere; a nameless one gets this log's volume."""
        if not finding.volume and self.volume:
            finding = replace(finding, volume=self.volume)
        key = replace(finding, path="")  # the same finding with a path says more than without
        with self._lock:
            self._worst = max(self._worst, finding.severity)
            known = self._items.get(key)
            if known is None and len(self._items) >= self.limit:
                self.dropped += 1
            elif known is None or (finding.path and not known.path):
                self._items[key] = finding
        if self._parent is not None:
            self._parent.append(finding)

    def add_error(
        self,
        error: Exception,
        *,
        file: int | None = None,
        path: str = "",
        severity: Severity = Severity.LOST,
    ) -> None:
        """Turns an error of a batch into a finding, with the device that its offset counts on if that is another."""
        damage = error if isinstance(error, DamageError) else None
        elsewhere = damage is not None and damage.offset is not None and damage.device != self.volume
        self.add(
            severity,
            str(error),
            structure=damage.structure if damage else "",
            offset=damage.offset if damage else None,
            device=damage.device if damage and elsewhere and self.volume else "",
            file=file,
            path=path,
        )

    @property
    def worst(self) -> Severity | None:
        """The highest severity noted so far, dropped ones included."""
        return Severity(self._worst) if self._worst else None

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Finding: ...
    @overload
    def __getitem__(self, index: slice) -> list[Finding]: ...
    def __getitem__(self, index: int | slice) -> Finding | list[Finding]:
        return self._snapshot()[index]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._snapshot())

    def _snapshot(self) -> list[Finding]:
        with self._lock:
            return list(self._items.values())

    def __repr__(self) -> str:
        return f"<FindingLog {len(self._items)} findings{f', {self.dropped} more' if self.dropped else ''}>"
