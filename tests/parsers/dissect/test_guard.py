"""What stands between a library and the device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

import pytest

from pseudomount.errors import CorruptionError, ReadError, UnsupportedError
from pseudomount.findings import FindingLog, Severity
from pseudomount.testing import FaultDevice, MemoryDevice
from pseudomount_dissect import _guard
from pseudomount_dissect._guard import Guard


@pytest.fixture
def guard() -> Guard:
    return Guard(MemoryDevice(bytes(range(256)) * 16), FindingLog("disk0"))


def test_the_stream_is_a_file(guard: Guard) -> None:
    stream = guard.stream
    with guard.call("reading"):
        assert stream.seek(254) == 254
        assert stream.read(4) == bytes([254, 255, 0, 1])
        assert stream.tell() == 258
        assert stream.seek(-2, 2) == 4094
        assert stream.read(10) == bytes([254, 255])
        assert stream.read(10) == b""
        assert stream.seek(1, 1) == 4097
        assert stream.read() == b""
        with pytest.raises(ValueError, match="seeking"):
            stream.seek(-1)


ERRORS = [ValueError("x"), EOFError(), RecursionError(), KeyError(3), MemoryError(), OSError(5)]


def _called(guard: Guard, function: Callable[[], object], what: str = "it") -> None:
    with guard.call(what, "tree"):
        function()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_is_corruption(guard: Guard, error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(CorruptionError, match=f"listing: {type(error).__name__}") as caught:
        _called(guard, fail, "listing")
    assert caught.value.structure == "tree"


def test_what_the_library_cannot_is_unsupported(guard: Guard) -> None:
    with pytest.raises(UnsupportedError, match="RAID"), guard.call("listing"):
        raise NotImplementedError("RAID")


def test_an_error_of_the_device_leaves_as_itself() -> None:
    guard = Guard(FaultDevice(MemoryDevice(bytes(8192)), error_rate=1.0), FindingLog())

    def turn_it_into_another() -> None:
        try:
            guard.stream.read(10)
        except Exception:
            raise EOFError from None

    def swallow_it() -> None:
        with contextlib.suppress(Exception):
            guard.stream.read(10)

    for function in (guard.stream.read, turn_it_into_another, swallow_it):
        with pytest.raises(ReadError):
            _called(guard, function)


def test_reads_bytes_and_entries_are_bounded(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "READS", 50)
    monkeypatch.setattr(_guard, "BYTES", 10_000)
    monkeypatch.setattr(_guard, "ENTRIES", 7)

    def read(times: int, length: int) -> None:
        for _ in range(times):
            guard.stream.seek(0)
            guard.stream.read(length)

    def list_too_many() -> None:
        for _ in range(8):
            guard.progress()

    for _ in range(2):  # each call has a budget of its own
        _called(guard, lambda: read(50, 100))
    with pytest.raises(CorruptionError, match="single question"):
        _called(guard, lambda: read(51, 1))
    with pytest.raises(CorruptionError, match="single question"):
        _called(guard, lambda: read(3, 4000))
    with pytest.raises(CorruptionError, match="entries"):
        _called(guard, list_too_many)


def test_a_loop_that_does_nothing_is_broken_off(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guard, "PATIENCE", 0.2)

    def stuck() -> None:
        while True:
            try:
                hash("nothing")
            except Exception:  # a library that catches all
                continue

    with pytest.raises(CorruptionError, match="does not come to an end"), guard.call("looping"):
        stuck()
    with guard.call("and on"):
        assert guard.stream.read(1) == b"\0"


def test_what_the_library_logs_is_a_finding(guard: Guard) -> None:
    log = logging.getLogger("dissect.extfs.extfs")
    with guard.call("listing"):
        log.critical("Zero-length entry in %s", "inode 5")
    log.critical("nobody listens")
    found = list(guard.findings)
    assert [(finding.severity, finding.message) for finding in found] == [
        (Severity.DEGRADED, "dissect.extfs: Zero-length entry in inode 5")
    ]
