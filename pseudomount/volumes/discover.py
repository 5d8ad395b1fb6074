"""Finds the volumes of a disk: GPT, MBR, or the whole disk as one.

Which table rules, as Linux decides it: a protective row in the MBR says that there is a GPT, and then the GPT rules,
whatever else the MBR lists; without such a row the MBR does. What Linux leaves out is tried in addition, because a
backup is read to save what can be saved: a GPT whose MBR is gone, and the backup GPT of a disk whose beginning is
destroyed.
"""

from __future__ import annotations

from pseudomount.device import BlockDevice
from pseudomount.findings import FindingLog, Severity
from pseudomount.volumes import mbr
from pseudomount.volumes.contract import VolumeSlot
from pseudomount.volumes.gpt import Gpt
from pseudomount.volumes.signs import looks_like_file_system
from pseudomount.volumes.slots import make_slots, read_places

__all__ = ["discover"]

#: Holds the MBR, the primary GPT header for sectors of 512 and of 4096 bytes, and the superblocks that lie up here.
_HEAD = 8192
_PIECE = 4096


def discover(device: BlockDevice, disk: str, findings: FindingLog) -> list[VolumeSlot]:
    """The volumes of a disk, in the order of its partition table.

    A disk without a table, or with one that nothing can be made of, is one volume named after the disk; a GPT without
    partitions has none. Reads one batch at the start of a sound disk, one more for the array of a GPT, and one for each
    link of a chain of logical partitions; where something is damaged or in doubt, a few more.

    Args:
        device: the whole disk.
        disk: its name; partition 1 is then "disk0p1".
        findings: what is wrong with the table. A volume that the disk does not wholly hold is listed with the size
            that the table claims, and has a finding of its own.

    Raises:
        PseudomountError: the disk cannot be read for a reason other than damage.
    """
    head = _Head(device, findings)
    whole = VolumeSlot(name=disk, device=device, start=0, size=device.size, scheme="whole")
    table = mbr.parse_table(head.data)
    gpt = Gpt(device, head.data, findings)
    if table is not None and table.protective and (table.flags_valid or not head.file_system):
        slots = _by_gpt(device, disk, table, gpt, findings)
        return [whole] if slots is None else slots
    if table is not None:
        slots = _by_mbr(device, disk, table, head.file_system, findings)
        if slots:
            if gpt.primary is not None:
                text = "the MBR has partitions and does not announce the GPT that is there too: the GPT was left alone"
                findings.add(Severity.NOTE, text, structure="MBR", offset=0)
            if head.below:
                # Partitioned after it was formatted as a whole, or a table put into the boot sector of a file system
                # that is in use: the bytes do not tell, and a reader who is shown one of them only may lose the other.
                text = "a partition table and a file system both begin this disk: the whole disk is listed as well"
                findings.add(Severity.NOTE, text, structure="MBR", offset=0)
                return [whole, *slots]
            return slots
    return _unannounced(device, disk, gpt, head, whole, findings)


class _Head:
    """The first 8 KiB of a disk, or what there is of it.

    Attributes:
        data: zeros where it could not be read.
        damaged: whether a part of it could not be read.
        file_system: whether it looks like the beginning of a file system.
        below: whether that sign stands below the boot sector, where a partition table leaves it as it is.
    """

    def __init__(self, device: BlockDevice, findings: FindingLog) -> None:
        self.damaged = False
        self.data = b"".join(
            piece if piece is not None else self._by_sector(device, offset, findings)
            for offset, piece in _pieces(device, 0, min(_HEAD, device.size), _PIECE, findings)
        )
        self.file_system = looks_like_file_system(self.data[:_PIECE])
        self.below = self.file_system and looks_like_file_system(bytes(512) + self.data[512:_PIECE])

    def _by_sector(self, device: BlockDevice, start: int, findings: FindingLog) -> bytes:
        """One bad sector must not hide its neighbours: the MBR and the GPT header lie side by side."""
        self.damaged = True
        end = min(start + _PIECE, device.size)
        sectors = list(_pieces(device, start, end, 512, findings))
        return b"".join(sector if sector is not None else bytes(min(512, end - offset)) for offset, sector in sectors)


def _pieces(
    device: BlockDevice, start: int, end: int, step: int, findings: FindingLog
) -> list[tuple[int, bytes | None]]:
    places = [(offset, min(step, end - offset)) for offset in range(start, end, step)]
    answers = read_places(device, places, findings, "partition table")
    return [(offset, answer) for (offset, _), answer in zip(places, answers, strict=True)]


def _by_gpt(
    device: BlockDevice, disk: str, table: mbr.Table, gpt: Gpt, findings: FindingLog
) -> list[VolumeSlot] | None:
    """The volumes of a disk whose MBR says that it has a GPT; None where nothing can be made of either."""
    guard = table.protective
    # Of a disk of 2 TiB and more the row cannot count the sectors, and there is no backup where it seems to end.
    found = gpt.load(guard.start + guard.count - 1 if guard is not None else None)
    if found is None:
        text = "the MBR announces a GPT, and both copies of that are missing or damaged"
        findings.add(Severity.LOST, text, structure="GPT", offset=0)
        return _by_mbr(device, disk, table, False, findings) or None
    if table.others:
        text = f"hybrid MBR: the {len(table.others)} partitions that it lists beside the GPT's were left alone"
        findings.add(Severity.NOTE, text, structure="MBR", offset=0)
    if not found:
        findings.add(Severity.NOTE, "the GPT has no partitions", structure="GPT", offset=0)
    return make_slots(device, disk, "gpt", found, findings)


def _by_mbr(
    device: BlockDevice, disk: str, table: mbr.Table, over_file_system: bool, findings: FindingLog
) -> list[VolumeSlot]:
    """The volumes of an MBR; none where that is no partition table."""
    if not table.others:
        return []
    unit = mbr.sector_size_of(device, table, findings)
    if not table.believable(device.size, unit, over_file_system):
        return []
    return make_slots(device, disk, "mbr", mbr.partitions(device, table, unit, findings), findings)


def _unannounced(
    device: BlockDevice, disk: str, gpt: Gpt, head: _Head, whole: VolumeSlot, findings: FindingLog
) -> list[VolumeSlot]:
    """A disk without an MBR to go by. What looks like a file system then is one, whatever GPT remains from earlier."""
    if head.file_system:
        if gpt.primary is not None:
            text = "a GPT without its MBR lies under a file system and was left alone"
            findings.add(Severity.NOTE, text, structure="GPT", offset=gpt.primary.sector_size)
        return [whole]
    found = gpt.load()
    if found:
        if gpt.seen:
            findings.add(Severity.NOTE, "the disk has a GPT and lacks its MBR", structure="MBR", offset=0)
        slots = make_slots(device, disk, "gpt", found, findings)
        if gpt.seen or head.damaged:
            return slots
        # Either the beginning of a GPT disk was overwritten, or a GPT disk was put to another use as a whole, and
        # its backup table survived at the end. The bytes do not tell: both are offered.
        text = "the backup GPT may be of an earlier use of this disk: the whole disk is listed as well"
        findings.add(Severity.NOTE, text, structure="GPT", offset=0)
        return [whole, *slots]
    if head.damaged or (gpt.seen and found is None):
        text = "the partition table cannot be read" if head.damaged else "both copies of the GPT are damaged"
        findings.add(Severity.LOST, text, structure="partition table", offset=0)
    return [whole]
