"""One command on one backup: opening it, and what is said at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from pseudomount.api import Backup, BackupVolume, open_backup
from pseudomount.cli.options import Common
from pseudomount.cli.output import FAINT, RED, YELLOW, Output, human_size, paint, use_colour
from pseudomount.cli.places import Place, find_place
from pseudomount.cli.status import DAMAGED, report, status_of
from pseudomount.errors import DamageError, PseudomountError, UnsupportedError, UsageError
from pseudomount.filesystem.names import printable
from pseudomount.findings import Finding, Severity

__all__ = ["Session", "run"]

#: Findings that are printed for people; JSON has them all.
_SHOWN = 30


@dataclass(slots=True)
class Session:
    """What a command works with.

    Attributes:
        backup: the opened backup.
        out: where it prints.
        status: the exit status so far.
        used: the volumes that were asked for; their findings are printed at the end.
    """

    backup: Backup
    out: Output
    status: int = 0
    used: dict[str, BackupVolume] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    def fail(self, error: PseudomountError, path: str = "") -> None:
        """Says what went wrong with one of the things asked for; the others are still done."""
        sys.stdout.flush()
        self._said.add(str(error))
        if self.out.json:
            where = {"path": path} if path else {}
            self.out.object({"error": str(error), "kind": type(error).__name__, **where})
        # Damage is told of structures; which of the paths asked for they belong to is known here.
        unnamed = path and path not in str(error) and isinstance(error, DamageError | UnsupportedError)
        named = f"{path}: {error}" if unnamed else str(error)
        print(f"pseudomount: {printable(named)}", file=sys.stderr)
        self.status = max(self.status, status_of(error))

    def use(self, volume: BackupVolume) -> BackupVolume:
        """Notes that a volume was asked for."""
        self.used[volume.name] = volume
        return volume

    def place(self, text: str) -> Place:
        """What `text` names; see `find_place`."""
        place = find_place(self.backup, text)
        self.use(place.volume)
        return place

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self, *, everything: bool = False, counters: bool = False) -> int:
        """Prints findings and counters, and returns the exit status.

        Args:
            everything: whether the whole backup was asked for, not single volumes.
            counters: whether to print what was read.
        """
        logs = [self.backup.findings] if everything else [volume.findings for volume in self.used.values()]
        findings = [finding for log in logs for finding in log]
        dropped = sum(log.dropped for log in logs)
        # What the partition table said of a volume is worth knowing, but is not what was asked for.
        aside = set() if everything else {f for volume in self.used.values() for f in volume.table_findings}
        worst = [log.worst or Severity.NOTE for log in logs if log.dropped]
        worst += [finding.severity for finding in findings if finding not in aside]
        if any(severity > Severity.NOTE for severity in worst):
            self.status = max(self.status, DAMAGED)
        sys.stdout.flush()
        if self.out.json:
            for finding in findings:
                self.out.object({"finding": finding.as_dict()})
            if dropped:
                self.out.object({"findings_dropped": dropped})
        else:
            self._tell(findings, dropped)
        if counters:
            self._count()
        return self.status

    def _tell(self, findings: list[Finding], dropped: int) -> None:
        colour = use_colour(sys.stderr)
        # What a line said already as an error need not be said again.
        findings = [f for f in findings if f.message not in self._said]
        findings.sort(key=lambda finding: -finding.severity)
        for finding in findings[:_SHOWN]:
            code = {Severity.NOTE: FAINT, Severity.DEGRADED: YELLOW, Severity.LOST: RED}[finding.severity]
            print(paint(printable(str(finding)), code, colour), file=sys.stderr)
        more = len(findings) - _SHOWN + dropped
        if len(findings) > _SHOWN or dropped:
            print(f"… and {max(more, dropped)} more findings; --json prints them", file=sys.stderr)

    def _count(self) -> None:
        for name, disk in self.backup.disks.items():
            counted = disk.counters
            print(
                f"{name}: {counted.requests} requests, {human_size(counted.bytes_fetched)} fetched, "
                f"{human_size(counted.bytes_delivered)} delivered, {counted.cache_hits} cache hits",
                file=sys.stderr,
            )


def run(common: Common, work: Callable[[Session], None], *, everything: bool = False) -> int:
    """Opens the backup, lets a command work, and says at the end what was wrong; returns the exit status."""
    out = Output(json=common.json)
    try:
        backup = open_backup(
            *common.sources,
            parser=common.parser,
            options=_settings("-o", common.settings),
            store_options=_settings("--store-option", common.store_settings),
        )
    except PseudomountError as error:
        if common.json:
            out.object({"error": str(error), "kind": type(error).__name__})
        return report(error)
    with backup:
        session = Session(backup, out)
        try:
            work(session)
        except PseudomountError as error:
            session.fail(error)
        return session.finish(everything=everything, counters=common.counters)


def _settings(option: str, texts: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} {text}: settings are KEY=VALUE")
        settings[key] = value
    return settings
