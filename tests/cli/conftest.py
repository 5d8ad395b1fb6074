"""The sample disk, unpacked without any code of ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import cut_disk
from tests.support.s3_fixture import bucket, s3_server

__all__ = ["bucket", "disk", "s3_server"]


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_disk(tmp_path_factory.mktemp("sample") / "demo.img")
