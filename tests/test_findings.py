"""Findings are bounded, kept once, and passed on."""

from __future__ import annotations

from pseudomount.errors import ChecksumError, ReadError
from pseudomount.findings import Finding, FindingLog, Severity


def test_a_volume_log_feeds_the_backup_log() -> None:
    backup = FindingLog()
    volume = FindingLog("disk0p1", parent=backup)
    volume.add(Severity.NOTE, "journal not replayed", structure="superblock")
    volume.add_error(ChecksumError("inode 12", offset=512, structure="inode"), file=12, path="/a")
    assert [f.volume for f in backup] == ["disk0p1", "disk0p1"]
    assert backup[1] == Finding(Severity.LOST, "inode 12", "inode", "disk0p1", 12, "/a", 512)
    assert backup.worst is Severity.LOST
    assert str(volume[1]) == "lost: inode 12 (disk0p1, /a, offset 512)"


def test_the_same_finding_is_kept_once_and_gains_its_path() -> None:
    log = FindingLog("v")
    log.add(Severity.DEGRADED, "bad", file=3)
    log.add(Severity.DEGRADED, "bad", file=3, path="/x")
    log.add(Severity.DEGRADED, "bad", file=3)
    assert [f.path for f in log] == ["/x"]


def test_an_offset_on_another_device_says_so() -> None:
    log = FindingLog("disk0p1")
    log.add_error(ReadError("unreadable", device="disk0", offset=70_000))
    log.add_error(ReadError("cut", device="disk0p1", offset=512))
    log.add_error(ReadError("nowhere", device="disk0"))
    log.add_error(ValueError("no damage"))
    assert [(finding.offset, finding.device) for finding in log] == [
        (70_000, "disk0"),
        (512, ""),
        (None, ""),
        (None, ""),
    ]
    assert str(log[0]) == "lost: unreadable (disk0p1, offset 70000 of disk0)"
    assert str(log[1]) == "lost: cut (disk0p1, offset 512)"
    assert log[0].as_dict()["device"] == "disk0"


def test_a_million_findings_do_not_take_a_million_places() -> None:
    log = FindingLog("v", limit=10)
    for i in range(1000):
        log.add(Severity.NOTE, f"n{i}")
    log.add(Severity.LOST, "the worst comes last")
    assert len(log) == 10
    assert log.dropped == 991
    assert log.worst is Severity.LOST
