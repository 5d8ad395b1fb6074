"""The S3 server as a fixture; a folder's conftest names what its tests need of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from benchmarks.s3_server import S3Server
from tests.conftest import REQUIRE
from tests.support.s3 import Bucket


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
        (pytest.fail if REQUIRE else pytest.skip)("needs moto[s3,server]")
    with S3Server() as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    return Bucket(s3_server)
