"""Browse the inside of virtual-machine backups and recover single files from them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pseudomount.api import Backup, BackupVolume, open_backup
    from pseudomount.filesystem.path import BackupPath

__version__ = "0.1.0"
__all__ = ["Backup", "BackupPath", "BackupVolume", "__version__", "open_backup"]

_HOMES = {
    "Backup": "pseudomount.api",
    "BackupVolume": "pseudomount.api",
    "open_backup": "pseudomount.api",
    "BackupPath": "pseudomount.filesystem.path",
}


def __getattr__(name: str) -> object:
    # Imported when asked for: `pseudomount --help` must not wait for numpy.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
