"""When the parser is taken, and what is said where its libraries are not installed."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pseudomount import open_backup
from pseudomount.errors import CorruptionError, PseudomountError, UnsupportedError, UsageError
from pseudomount.findings import FindingLog
from pseudomount.testing import MemoryDevice
from pseudomount_dissect import DissectParser
from tests.support.fixtures import fixture_path

needs_dissect = pytest.mark.skipif(
    importlib.util.find_spec("dissect") is None, reason="needs the extra: pip install 'pseudomount[dissect]'"
)

#: Runs the CLI as it is where none of the libraries is installed.
_WITHOUT = """
import sys
for name in ("dissect", "dissect.btrfs", "dissect.extfs", "dissect.ntfs", "dissect.xfs"):
    sys.modules[name] = None
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def without(name, path=None, target=None):
    return None if name.partition(".")[0] == "dissect" else find(name, path, target)
PathFinder.find_spec = without
for name in ("dissect", "dissect.btrfs", "dissect.extfs", "dissect.ntfs", "dissect.xfs"):
    del sys.modules[name]
sys.argv[0] = "pseudomount"
from pseudomount.cli import main
sys.exit(main())
"""


def _xfs(size: int = 1 << 20) -> bytes:
    """A superblock and nothing behind it."""
    block = bytearray(size)
    struct.pack_into(">4sI", block, 0, b"XFSB", 4096)
    block[32:48] = bytes.fromhex("0f1a570000004000800000000000abcd")
    struct.pack_into(">HHHH", block, 100, 0xB4A5, 512, 512, 8)
    block[108:120] = b"label\0\0\0\0\0\0\0"
    return bytes(block)


def _without(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_probing_needs_no_library() -> None:
    match = DissectParser().probe(MemoryDevice(_xfs()))
    assert match is not None
    assert (match.filesystem, match.label, match.uuid) == ("xfs", "label", "0f1a5700-0000-4000-8000-00000000abcd")


@pytest.mark.parametrize("json_form", [False, True])
def test_parsers_lists_it_as_unavailable(json_form: bool) -> None:
    done = _without("parsers", *(["--json"] if json_form else []))
    assert done.returncode == 0
    assert not done.stderr
    if json_form:
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        reasons = {row["name"]: row.get("unavailable") for row in rows if row["kind"] == "parser"}
        assert "pip install 'pseudomount[dissect]'" in reasons.pop("dissect")
        assert set(reasons.values()) == {None}
    else:
        line = next(line for line in done.stdout.splitlines() if " dissect " in line)
        assert "unavailable: dissect.btrfs, dissect.extfs, dissect.ntfs, dissect.xfs not installed" in line


def test_browsing_says_how_to_get_it(tmp_path: Path) -> None:
    image = tmp_path / "xfs.img"
    image.write_bytes(_xfs())
    about = _without("info", image)
    assert " xfs " in about.stdout
    assert "Traceback" not in about.stderr
    assert "pip install 'pseudomount[dissect]'" in about.stderr
    listed = _without("ls", image)
    assert listed.returncode != 0
    assert "xfs" in listed.stderr
    assert "dissect.xfs is not installed: pip install 'pseudomount[dissect]'" in listed.stderr
    assert "Traceback" not in listed.stderr
    asked = _without("ls", "--parser", "dissect", image)
    assert asked.returncode != 0
    assert "pip install 'pseudomount[dissect]'" in asked.stderr
    assert "Traceback" not in asked.stderr


def test_without_the_libraries_all_else_is_as_before(tmp_path: Path) -> None:
    image = fixture_path("ext3", tmp_path)
    done = _without("ls", image)
    assert (done.returncode, done.stderr) == (0, "")
    assert "hard" in done.stdout


@needs_dissect
def test_our_own_parsers_go_first(tmp_path: Path) -> None:
    image = fixture_path("ext3", tmp_path)
    with open_backup(image) as backup:
        assert type(backup.volumes[0].fs).__module__ == "pseudomount_ext"
    with open_backup(image, parser="dissect") as backup:
        volume = backup.volumes[0]
        assert type(volume.fs).__module__.startswith("pseudomount_dissect")
        assert (volume.filesystem, volume.label) == ("ext3", "ext3")
        assert (volume.root / "hard/one").read_bytes() == b"one file, three names"


@needs_dissect
def test_it_does_not_step_in_for_them(tmp_path: Path) -> None:
    """An ext volume that ours does not take is not given to a second opinion that nobody asked for."""
    image = tmp_path / "odd.img"
    content = bytearray(64 << 10)
    struct.pack_into("<I", content, 1024, 100)
    struct.pack_into("<I", content, 1024 + 40, 100)
    struct.pack_into("<H", content, 1024 + 56, 0xEF53)
    struct.pack_into("<I", content, 1024 + 96, 1 << 30)  # no block counts: nonsense for ours
    image.write_bytes(bytes(content))
    assert DissectParser().probe(MemoryDevice(bytes(content))) is not None
    with open_backup(image) as backup:
        assert backup.volumes[0].filesystem is None
    with open_backup(image, parser="dissect") as backup:
        assert backup.volumes[0].filesystem == "ext4"
        with pytest.raises(PseudomountError):
            list(backup.volumes[0].root.iterdir())


@needs_dissect
def test_options() -> None:
    device = MemoryDevice(_xfs())
    for options in ({"subvolume": "5"}, {"zone": "UTC"}):
        with pytest.raises(UsageError):
            DissectParser().open(device, FindingLog(), options)
    with pytest.raises(CorruptionError):
        DissectParser().open(device, FindingLog())
    with pytest.raises(CorruptionError, match="no superblock"):
        DissectParser().open(MemoryDevice(bytes(1 << 20)), FindingLog())


@needs_dissect
def test_unknown_features_of_xfs_are_refused() -> None:
    content = bytearray(_xfs())
    struct.pack_into(">H", content, 100, 0xB4A5)
    struct.pack_into(">I", content, 216, 1 << 9)
    with pytest.raises(UnsupportedError, match="0x200"):
        DissectParser().open(MemoryDevice(bytes(content)), FindingLog())
