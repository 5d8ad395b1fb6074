"""Partition tables and the volumes they name."""

from pseudomount.volumes.contract import VolumeSlot
from pseudomount.volumes.discover import discover

__all__ = ["VolumeSlot", "discover"]
