"""What stands between the libraries and the device: one call at a time, a budget for each, and only our errors.

The streams that these libraries make share the position of one file handle, so every call holds the file system's lock.
They follow what the disk says without end where it says so: a call may ask for so many reads and bytes, and one that
neither reads nor finds anything for `PATIENCE` seconds, or is not done after `LIMIT`, is broken off. That last resort
is a clock, because nothing else interrupts a loop that calls nobody; it is CPython's way of raising an exception in
another thread, and where that is missing (another Python) only the budgets are left.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError, PseudomountError, UnsupportedError
from pseudomount.findings import FindingLog, Severity

__all__ = ["DeviceStream", "Guard"]

#: Reads and bytes that one call may ask for, and entries that it may give.
READS: Final = 200_000
BYTES: Final = 512 << 20
ENTRIES: Final = 2_000_000
#: Seconds without any read or entry, and seconds in all.
PATIENCE: Final = 15.0
LIMIT: Final = 180.0


class _Stalled(BaseException):
    """Raised in a thread whose call came to nothing; no Exception, lest a library catches it."""


@dataclass(slots=True)
class _Call:
    """One call that is being watched."""

    thread: int
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)
    busy: bool = False  # the device is reading: that takes as long as it takes, and must not be broken off
    done: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Watchdog:
    """A thread that breaks off calls that are stuck. It runs only while there are calls, and some seconds longer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._thread: threading.Thread | None = None
        self._raise = getattr(getattr(ctypes, "pythonapi", None), "PyThreadState_SetAsyncExc", None)

    def enter(self) -> _Call:
        call = _Call(threading.get_ident())
        if self._raise is not None:
            with self._lock:
                self._calls[id(call)] = call
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="pseudomount-dissect", daemon=True)
                    self._thread.start()
        return call

    def leave(self, call: _Call) -> None:
        with call.lock:
            call.done = True
        self._calls.pop(id(call), None)

    def _run(self) -> None:
        idle = 0
        while True:
            time.sleep(min(PATIENCE / 4, 2.0))
            with self._lock:
                calls = list(self._calls.values())
                idle = 0 if calls else idle + 1
                if idle > 2:
                    self._thread = None
                    return
            now = time.monotonic()
            for call in calls:
                with call.lock:
                    late = now - call.last > PATIENCE or now - call.began > LIMIT
                    if late and not call.busy and not call.done and self._raise is not None:
                        call.done = True
                        self._raise(ctypes.c_ulong(call.thread), ctypes.py_object(_Stalled))


_WATCHDOG: Final = _Watchdog()


class _Listener(logging.Handler):
    """Makes findings of what a library logs in the thread of a call."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.findings = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Notes the message."""
        findings: FindingLog | None = getattr(self.findings, "current", None)
        if findings is not None:
            findings.add(Severity.DEGRADED, f"{record.name.rpartition('.')[0]}: {record.getMessage()}")


_LISTENER: Final = _Listener()
logging.getLogger("dissect").addHandler(_LISTENER)


class Guard:
    """The device as one library sees it, and the way into the library.

    Attributes:
        device: what is read.
        findings: gets what the library says to its log, which is all that it makes of some damage.
        stream: the same, as the file-like object that the library gets.
    """

    def __init__(self, device: BlockDevice, findings: FindingLog) -> None:
        self.device = device
        self.findings = findings
        self.stream = DeviceStream(self)
        self._lock = threading.Lock()
        self._call: _Call | None = None
        self._reads = self._bytes = self._entries = 0
        self._failure: PseudomountError | None = None

    @contextmanager
    def call(self, what: str, structure: str = "") -> Iterator[None]:
        """Holds the lock; whatever is raised inside leaves as a PseudomountError that says `what` and `structure`.

        An error of the device leaves as itself, even where the library would have swallowed it.
        """
        with self._lock:
            self._reads, self._bytes, self._entries, self._failure = READS, BYTES, ENTRIES, None
            _LISTENER.findings.current = self.findings
            call = self._call = _WATCHDOG.enter()
            try:
                try:
                    yield
                finally:
                    _WATCHDOG.leave(call)
                    self._call = _LISTENER.findings.current = None
            except PseudomountError:
                raise
            except _Stalled:
                raise self._error(f"{what}: the library does not come to an end", structure) from None
            except NotImplementedError as error:
                raise self._failure or UnsupportedError(f"{what}: {error or 'not supported by the library'}") from error
            except Exception as error:
                text = str(error).partition("\n")[0][:200]
                message = f"{what}: {type(error).__name__}{': ' if text else ''}{text}"
                raise self._failure or self._error(message, structure) from error
            if self._failure is not None:
                raise self._failure

    def _error(self, message: str, structure: str) -> CorruptionError:
        return CorruptionError(message, device=self.device.name, structure=structure)

    def progress(self) -> None:
        """To be called for each entry that the library gives.

        Raises:
            CorruptionError: they are too many.
        """
        self._entries -= 1
        if self._entries < 0:
            raise self._error(f"more than {ENTRIES} entries", "directory")
        if self._call is not None:
            self._call.last = time.monotonic()

    def read(self, offset: int, length: int) -> bytes:
        """What the device has there, shorter where it ends; within the budget of the call."""
        length = min(length, self.device.size - offset)
        if length <= 0:
            return b""
        self._reads -= 1
        self._bytes -= length
        if self._reads < 0 or self._bytes < 0:
            raise self._error(f"a single question took more than {READS} reads or {BYTES} bytes", "")
        call = self._call
        if call is None:
            return self.device.read(offset, length)
        with call.lock:
            call.busy = True
        try:
            return self.device.read(offset, length)
        except PseudomountError as error:
            self._failure = self._failure or error
            raise
        finally:
            call.last = time.monotonic()
            call.busy = False


class DeviceStream:
    """A device as a file: `seek`, `tell` and `read`. Its position is nobody's: only inside of `Guard.call`."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._position = 0
        self.size = guard.device.size

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of files; past the end is allowed, before the start is not."""
        base = {0: 0, 1: self._position, 2: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seeking to {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def read(self, length: int = -1) -> bytes:
        """Up to `length` bytes, all that follow where it is negative; fewer at the end."""
        data = self._guard.read(self._position, length if length >= 0 else self.size)
        self._position += len(data)
        return data

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True
