"""From the rows of a partition table, of whatever scheme, to volumes; and the reads that both schemes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pseudomount.device import BlockDevice
from pseudomount.device.slice import SliceDevice
from pseudomount.errors import DamageError, PseudomountError
from pseudomount.findings import Finding, FindingLog, Severity
from pseudomount.volumes.contract import VolumeSlot

__all__ = ["MAX_BYTES", "Partition", "make_slots", "read_places"]

#: Offsets travel in int64 columns: no partition may end beyond this.
MAX_BYTES = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Partition:
    """One row of a partition table, in range: 0 <= start, 0 < size, start + size <= `MAX_BYTES`.

    Attributes:
        number: as Linux counts, from 1.
        start, size: bytes.
        type, type_name, label, uuid, bootable: as in `VolumeSlot`.
    """

    number: int
    start: int
    size: int
    type: str
    type_name: str = ""
    label: str = ""
    uuid: str = ""
    bootable: bool = False


def make_slots(
    device: BlockDevice, disk: str, scheme: str, partitions: Sequence[Partition], findings: FindingLog
) -> list[VolumeSlot]:
    """The volumes of a table, in the order of its rows; notes those that end past the disk or lie over each other."""
    slots = []
    for part in partitions:
        name = f"{disk}p{part.number}"
        window = SliceDevice(device, part.start, part.size, name=name)
        slots.append(
            VolumeSlot(
                name=name,
                device=window,
                start=part.start,
                size=part.size,
                scheme=scheme,
                type=part.type,
                type_name=part.type_name,
                label=part.label,
                uuid=part.uuid,
                bootable=part.bootable,
            )
        )
        _note_past_end(device, name, part, findings)
    _note_overlaps(slots, findings)
    return slots


def _note_past_end(device: BlockDevice, name: str, part: Partition, findings: FindingLog) -> None:
    there = device.size - part.start
    if there >= part.size:
        return
    if there <= 0:
        severity = Severity.LOST
        message = f"the partition begins at byte {part.start}, and the disk ends at {device.size}: none of it is there"
    else:
        severity = Severity.DEGRADED
        message = f"the partition ends past the disk: {part.size - there} of its {part.size} bytes are not there"
    findings.append(Finding(severity, message, "partition table", volume=name, offset=max(there, 0)))


def _note_overlaps(slots: Sequence[VolumeSlot], findings: FindingLog) -> None:
    """One finding for each volume that begins before an earlier one ends.

    One inside another is how hybrid installation media are made; two that cross cannot both be right.
    """
    reach: VolumeSlot | None = None  # of those that began so far, the one that ends last
    for slot in sorted(slots, key=lambda each: (each.start, -each.size)):
        end = slot.start + slot.size
        if reach is not None and slot.start < reach.start + reach.size:
            inside = end <= reach.start + reach.size
            how = "lies inside" if inside else "overlaps"
            findings.append(
                Finding(
                    Severity.NOTE if inside else Severity.DEGRADED,
                    f"the partition {how} {reach.name}: both begin before the other ends",
                    "partition table",
                    volume=slot.name,
                )
            )
        if reach is None or end > reach.start + reach.size:
            reach = slot


def read_places(
    device: BlockDevice, places: Sequence[tuple[int, int]], findings: FindingLog, structure: str
) -> list[bytes | None]:
    """The bytes of several places (offset, length), in one batch; None, and a finding, for each that is damaged.

    Raises:
        PseudomountError: something other than damage (storage that is away, a closed device): what a partition table
            holds is then not known, and asking again later may tell.
    """
    if not places:
        return []
    batch = device.read_many([offset for offset, _ in places], [length for _, length in places])
    answers: list[bytes | None] = []
    for i in range(len(places)):
        error: PseudomountError | None = batch.errors.get(i)
        if error is None:
            answers.append(batch.view(i).tobytes())
        elif isinstance(error, DamageError) and not error.retryable:
            findings.add(Severity.DEGRADED, str(error), structure=structure, offset=places[i][0])
            answers.append(None)
        else:
            raise error
    return answers
