"""`pseudomount info`."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pseudomount.api import BackupVolume
from pseudomount.cli.options import Common
from pseudomount.cli.output import human_size, paint
from pseudomount.cli.session import Session, run
from pseudomount.cli.volumes import print_volumes, volume_object, why_nothing
from pseudomount.errors import NoFileSystemError, PseudomountError
from pseudomount.filesystem.names import printable

__all__ = ["run_info"]


def run_info(common: Common, *, verbose: bool) -> int:
    """Shows disks and volumes, and opens each file system to see what is wrong with it."""

    def work(session: Session) -> None:
        out, backup = session.out, session.backup
        for volume in backup.volumes:
            _try_open(session, volume)
        if out.json:
            for name, disk in backup.disks.items():
                said = {"disk": name, "format": backup.format, "size": disk.size, "sector_size": disk.sector_size}
                facts = _facts(session, name)
                out.object(said | ({"facts": facts} if facts else {}))
            for volume in backup.volumes:
                details = _details(volume) if verbose else None
                out.object(volume_object(volume) | ({} if details is None else {"details": details}))
        else:
            for name, disk in backup.disks.items():
                out.lines(
                    [
                        f"{paint(name, '1', out.colour)}: {human_size(disk.size)} ({disk.size:,} bytes), "
                        f"{backup.format}, sectors of {disk.sector_size} bytes",
                        *(f"  {key}: {printable(_told(value))}" for key, value in _facts(session, name).items()),
                    ]
                )
            if len(backup.volumes):
                out.lines([""])
                print_volumes(session, backup.volumes)
            if verbose:
                for volume in backup.volumes:
                    _describe(session, volume)
        if not backup.browsable():
            raise NoFileSystemError(why_nothing(common, session))

    return run(common, work, everything=True)


def _facts(session: Session, disk: str) -> dict[str, object]:
    """What the container says of itself."""
    facts: dict[str, object] = {}
    for key, value in session.backup.metadata[disk].items():
        if key.endswith(".json"):
            said = json.loads(value)
            facts.update(
                {name.replace("_", " "): fact for name, fact in said.items()} if isinstance(said, dict) else {}
            )
    return facts


def _told(value: object) -> str:
    """A fact of the container on one line."""
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    if isinstance(value, dict) and {"name", "id", "taken"} <= value.keys():
        taken = datetime.fromtimestamp(int(value["taken"]), UTC)
        return f"{value['name']} (id {value['id']}, {taken:%Y-%m-%d %H:%M} UTC)"
    return _plain(value)


def _try_open(session: Session, volume: BackupVolume) -> None:
    session.use(volume)
    try:
        if volume.filesystem is not None:
            _ = volume.fs
    except PseudomountError as error:
        volume.findings.add_error(error, path="/")


def _details(volume: BackupVolume) -> dict[str, object]:
    if volume.filesystem is None:
        return {}
    try:
        return dict(volume.fs.details)
    except PseudomountError:
        return {}


def _describe(session: Session, volume: BackupVolume) -> None:
    slot = volume.slot
    facts: list[tuple[str, object]] = [
        ("file system", volume.filesystem or "none that a parser knows"),
        ("label", volume.label or "-"),
        ("uuid", volume.uuid or "-"),
        ("size", f"{human_size(volume.size)} ({volume.size:,} bytes)"),
        ("start", f"{slot.start:,} bytes from the start of the disk"),
        ("partition", " ".join(part for part in (slot.scheme, slot.type, slot.type_name) if part)),
        ("partition label", slot.label or "-"),
        ("partition uuid", slot.uuid or "-"),
        ("bootable", "yes" if slot.bootable else "no"),
        *_details(volume).items(),
    ]
    wide = max(len(key) for key, _ in facts)
    session.out.lines(
        [
            f"\n{paint(volume.name, '1', session.out.colour)}",
            *(f"  {key:<{wide}}  {printable(_plain(value))}" for key, value in facts),
        ]
    )


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, tuple | list | set | frozenset):
        return " ".join(
            str(item) for item in (sorted(map(str, value)) if isinstance(value, set | frozenset) else value)
        )
    return str(value)
