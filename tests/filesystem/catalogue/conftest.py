"""Volumes that questions are asked of."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fixtures import fixture_path


@pytest.fixture(scope="session")
def ext4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ext4 fixture: links, holes, odd names, odd times, device nodes."""
    return fixture_path("ext4", tmp_path_factory.mktemp("ext4"))
