"""Volumes: block devices that may hold a file system, cut out of block devices."""

from __future__ import annotations

from dataclasses import dataclass

from pseudomount.device import BlockDevice

__all__ = ["VolumeSlot"]


@dataclass(frozen=True, slots=True)
class VolumeSlot:
    """One volume of a disk, before anyone looked for a file system on it.

    Attributes:
        name: "disk0p1" for a partition, "disk1" for a whole disk.
        device: its bytes; reads past what the disk holds fail range by range.
        start: bytes from the start of the disk.
        size: bytes, as the partition table claims; `device.size` is the same.
        scheme: "gpt", "mbr", or "whole".
        type: the partition type: an MBR byte as "0x83", a GPT type GUID in lower case, "" for a whole disk.
        type_name: the same in words, "" where unknown.
        label: the GPT partition name, else "".
        uuid: the GPT partition GUID, else the MBR signature and number as Linux writes it ("1b2c3d4e-01"), else "".
        bootable: the active flag of MBR, the legacy-boot attribute of GPT.
    """

    name: str
    device: BlockDevice
    start: int
    size: int
    scheme: str
    type: str = ""
    type_name: str = ""
    label: str = ""
    uuid: str = ""
    bootable: bool = False
