"""Skips what this machine cannot run, and says why."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

#: Set by CI: a tool that is missing is then a failure, not a skip.
REQUIRE = os.environ.get("PSEUDOMOUNT_REQUIRE_TOOLS") == "1"


# A slow machine is no finding.
settings.register_profile("pseudomount", deadline=None)
settings.load_profile("pseudomount")


def _can_loop() -> str:
    """Why loop mounts do not work here, or ""."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "needs root for loop mounts"
    if not shutil.which("mount") or not shutil.which("losetup"):
        return "needs mount and losetup"
    if not Path("/dev/loop-control").exists():
        return "the kernel has no loop devices"
    return ""


def _find(tool: str) -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(tool, path=path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Adds a skip with its reason to each test whose tools are missing."""
    loop = _can_loop()
    for item in items:
        if "hostile" in item.nodeid or "mutation" in item.name or "flipped" in item.name:
            item.add_marker("fuzz")
        reasons = []
        for mark in item.iter_markers("tools"):
            reasons += [f"needs {tool}" for tool in mark.args if not _find(tool)]
        if loop and item.get_closest_marker("loop"):
            reasons.append(loop)
        if reasons and REQUIRE:
            pytest.exit(f"{item.nodeid}: {', '.join(reasons)}, and every tool is required here", returncode=3)
        if reasons:
            item.add_marker(pytest.mark.skip(reason=", ".join(reasons)))


@pytest.fixture(scope="session", autouse=True)
def _system_path() -> None:
    """Administrators' tools lie in /usr/sbin, which a user's PATH may not name."""
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
