"""What a path given on the command line names: VOLUME:/folder/file, or /folder/file where that is clear enough."""

from __future__ import annotations

from dataclasses import dataclass

from pseudomount.api import Backup, BackupVolume
from pseudomount.errors import (
    AmbiguousVolumeError,
    NoFileSystemError,
    PseudomountError,
    VolumeNotFoundError,
)
from pseudomount.filesystem.path import BackupPath

__all__ = ["Place", "find_place", "volume_prefix"]


@dataclass(frozen=True, slots=True)
class Place:
    """A path that was asked for.

    Attributes:
        volume: where.
        path: what.
        prefix: "disk0p2:" or "", what a path of this volume needs in front to be given to another command.
    """

    volume: BackupVolume
    path: BackupPath
    prefix: str


def volume_prefix(backup: Backup, volume: BackupVolume) -> str:
    """What a path of this volume needs in front."""
    return "" if len(backup.browsable()) == 1 else f"{volume.name}:"


def find_place(backup: Backup, text: str) -> Place:
    """The volume and path that a text names.

    What is before a ":" is taken as a volume first, and then as a part of a name. Where several volumes can be
    browsed, the name of one is enough for its root.

    Raises:
        VolumeNotFoundError, AmbiguousVolumeError: it names no volume, or needs to.
        NoFileSystemError: nothing can be browsed.
        UnsupportedError, DamageError: the volume cannot be opened.
    """
    named = _named(backup, text)
    if named is not None and _exists(named):
        return named
    browsable = backup.browsable()
    literal = _literal(browsable[0], text) if len(browsable) == 1 else None
    if literal is not None and (_exists(literal) or (named is None and text.startswith("/"))):
        return literal
    if named is not None:
        return named
    if not browsable:
        names = ", ".join(volume.name for volume in backup.volumes)
        raise NoFileSystemError(f"no file system that a parser knows on {names or 'this disk'}")
    head, colon, _ = text.partition(":")
    if colon and "/" not in head:
        raise _no_volume(backup, head)
    root = _root(backup, text)
    if root is not None:
        return root
    if literal is not None:
        return literal
    fits = next((volume for volume in browsable if _exists(_literal(volume, text))), browsable[0])
    choices = ", ".join(f"{v.name} ({' '.join(part for part in (v.filesystem, v.label) if part)})" for v in browsable)
    example = text if text.startswith("/") else f"/{text}"
    raise AmbiguousVolumeError(f"which volume? write {fits.name}:{example} or the like; there are {choices}")


def _literal(volume: BackupVolume, text: str) -> Place:
    return Place(volume, volume.path(text or "/"), "")


def _named(backup: Backup, text: str) -> Place | None:
    """VOLUME:path; a label may hold a ":" itself."""
    at = text.find(":")
    while at > 0:
        try:
            volume = backup.volumes[text[:at]]
        except AmbiguousVolumeError:
            raise
        except VolumeNotFoundError:
            at = text.find(":", at + 1)
            continue
        return Place(volume, volume.path(text[at + 1 :] or "/"), f"{volume.name}:")
    return None


def _root(backup: Backup, text: str) -> Place | None:
    """The root of a volume whose name is the whole text."""
    try:
        volume = backup.volumes[text]
    except AmbiguousVolumeError:
        raise
    except VolumeNotFoundError:
        return None
    return Place(volume, volume.root, f"{volume.name}:")


def _no_volume(backup: Backup, name: str) -> VolumeNotFoundError:
    try:
        backup.volumes[name]
    except VolumeNotFoundError as error:
        return error
    return VolumeNotFoundError(f"no volume is called {name!r}")


def _exists(place: Place) -> bool:
    try:
        return place.path.exists(follow_symlinks=False)
    except PseudomountError:
        return True  # damaged, but there
