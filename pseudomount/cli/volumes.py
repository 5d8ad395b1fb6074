"""Volumes as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

from pseudomount.api import BackupVolume
from pseudomount.cli.options import Common
from pseudomount.cli.output import FAINT, aligned, human_size, paint
from pseudomount.cli.session import Session
from pseudomount.filesystem.names import printable

__all__ = ["list_volumes", "print_volumes", "volume_object", "why_nothing"]


def volume_object(volume: BackupVolume) -> dict[str, object]:
    """A volume for JSON; sizes and positions in bytes."""
    slot = volume.slot
    return {
        "volume": volume.name,
        "filesystem": volume.filesystem,
        "label": volume.label,
        "uuid": volume.uuid,
        "size": volume.size,
        "start": slot.start,
        "scheme": slot.scheme,
        "type": slot.type,
        "type_name": slot.type_name,
        "partition_label": slot.label,
        "partition_uuid": slot.uuid,
        "bootable": slot.bootable,
    }


def print_volumes(session: Session, volumes: Sequence[BackupVolume]) -> None:
    """Volumes as a table."""
    rows = [("VOLUME", "FILE SYSTEM", "LABEL", "SIZE", "START", "TYPE", "UUID")]
    for volume in volumes:
        slot = volume.slot
        rows.append(
            (
                volume.name,
                volume.filesystem or "-",
                printable(volume.label) or "-",
                human_size(volume.size),
                human_size(slot.start),
                printable(slot.type_name or slot.type) or "-",
                volume.uuid or "-",
            )
        )
    lines = aligned(rows, right=frozenset((3, 4)))
    session.out.lines([paint(lines[0], FAINT, session.out.colour), *lines[1:]])


def list_volumes(session: Session) -> None:
    """What `ls` prints where no path was given and there is no only volume."""
    for volume in session.backup.volumes:
        session.use(volume)
    if session.out.json:
        for volume in session.backup.volumes:
            session.out.object(volume_object(volume))
    else:
        print_volumes(session, session.backup.volumes)


def why_nothing(common: Common, session: Session) -> str:
    """Why no volume can be browsed, in one line."""
    volumes = session.backup.volumes
    if len(volumes) == 1 and volumes[0].slot.scheme == "whole":
        return (
            f"{common.sources[0]}: neither a partition table nor a file system that a parser knows; is it a disk image?"
        )
    return f"no file system that a parser knows on {', '.join(volume.name for volume in volumes) or 'this disk'}"
