"""Partition tables and the volumes they name."""

from pseudomount.volumes.contract import VolumeSlot

__all__ = ["VolumeSlot"]
