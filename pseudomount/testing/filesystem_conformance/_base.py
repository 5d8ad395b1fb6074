"""What a subclass says, and what the tests of every topic use."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import ClassVar

import pytest

from pseudomount.device import BlockDevice
from pseudomount.errors import PseudomountError
from pseudomount.filesystem import (
    FileSystem,
    Parser,
)
from pseudomount.findings import FindingLog
from pseudomount.testing.filesystem_conformance._kit import (
    Expected,
)

__all__ = ["Suite"]


class Suite(ABC):
    """What a subclass says and what all tests use.

    Attributes:
        known_failures: test → why it fails. Such a test must fail: one that passes is a failure.
        sample: how many files the tests look at that ask file by file.
        rounds: how many damaged images of each kind are tried.
        memory: bytes that browsing one damaged image may take at most, beside the image itself.
    """

    known_failures: ClassVar[Mapping[str, str]] = {}
    sample: int = 80
    rounds: int = 12
    memory: int = 256 << 20

    # -- what a subclass says ----------------------------------------------------------------------------------------

    @abstractmethod
    def parser(self) -> Parser:
        """The parser."""

    @abstractmethod
    def device(self) -> BlockDevice:
        """A new device with a sound volume."""

    def open(self, device: BlockDevice) -> FileSystem:
        """The file system on a device; override to pass options."""
        return self.parser().open(device, FindingLog("disk0"))

    def manifest(self) -> Mapping[bytes, Expected] | None:
        """What another reader saw: path without a leading slash, the root as b"" → `Expected`. Complete, or None."""
        return None

    # -- plumbing ----------------------------------------------------------------------------------------------------

    @pytest.fixture(autouse=True)
    def _expect_known_failures(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", None) or request.node.name
        if name in self.known_failures:
            request.applymarker(pytest.mark.xfail(reason=self.known_failures[name], strict=True))

    @contextmanager
    def _opened(self) -> Iterator[FileSystem]:
        with self.device() as device:
            filesystem = self.open(device)
            try:
                yield filesystem
            finally:
                filesystem.close()

    def _some(self, files: Sequence[int], count: int | None = None) -> list[int]:
        count = self.sample if count is None else count
        return list(files) if len(files) <= count else random.Random(1).sample(list(files), count)

    def _only_ours(self, ask: Callable[[], object]) -> None:
        """Calls; a PseudomountError is an answer as good as any."""
        with suppress(PseudomountError):
            ask()
