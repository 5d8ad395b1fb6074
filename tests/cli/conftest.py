"""The sample disk, unpacked without any code of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import sample_bytes


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sample") / "demo.img"
    path.write_bytes(sample_bytes())
    return path
