"""The embedding interface: a tool's own extent index, a stranger's parser, and no privilege at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pseudomount import open_backup
from pseudomount.extents import Codec, ColumnIndex
from tests.support.fixtures import fixture_image, fixture_manifest

HERE = Path(__file__).parent


def _romfs() -> bytes:
    """A romfs image packed by hand from the kernel's documentation: a file, a folder, a link."""

    def entry(following: int, kind: int, spec: int, name: bytes, content: bytes = b"") -> bytes:
        padded = name + b"\0" * (16 - len(name) % 16)
        head = struct.pack(">4I", following | kind, spec, len(content), 0) + padded
        head = head[:12] + struct.pack(">I", -sum(struct.unpack(f">{len(head) // 4}I", head)) & 0xFFFFFFFF) + head[16:]
        return head + content + b"\0" * (-len(content) % 16)

    readme = b"Hello from a stranger's file system.\n"
    at = [32, 64, 96, 96 + 32 + 48, 96 + 32 + 48 + 32, 96 + 32 + 48 + 32 + 32]
    body = (
        entry(at[1], 1 | 8, at[0], b".")
        + entry(at[2], 0, at[0], b"..")
        + entry(at[3], 2, 0, b"README", readme)
        + entry(at[5], 1 | 8, at[4], b"etc")
        + entry(0, 2 | 8, 0, b"hostname")
        + entry(0, 3, 0, b"link", b"README")
    )
    size = 32 + len(body)
    head = b"-rom1fs-" + struct.pack(">2I", size, 0) + b"tiny" + b"\0" * 12
    return (head + body).ljust(4096, b"\0")


def _wheel(folder: Path) -> Path:
    """The third party's distribution, built as a wheel by hand so that no network and no build tool are needed."""
    path = folder / "pseudomount_romfs_example-1.0-py3-none-any.whl"
    info = "pseudomount_romfs_example-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(HERE / "romfs" / "pseudomount_romfs_example.py", "pseudomount_romfs_example.py")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: pseudomount-romfs-example\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(
            f"{info}/entry_points.txt", "[pseudomount.parsers]\nromfs = pseudomount_romfs_example:RomParser\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def test_a_third_partys_parser_is_found_once_it_is_installed(tmp_path: Path) -> None:
    image = tmp_path / "rom.img"
    image.write_bytes(_romfs())
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--no-index", "--target", str(site), str(_wheel(tmp_path))], check=True)
    script = """
        import json, sys
        from pseudomount import open_backup
        with open_backup(sys.argv[1]) as backup:
            volume = backup.volumes[0]
            root = volume.root
            print(json.dumps({
                "filesystem": volume.filesystem, "label": volume.label,
                "all": sorted(str(p) for p in root.glob("**/*")),
                "text": (root / "link").read_text(), "size": (root / "README").stat().st_size,
            }))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(image)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)
    assert told == {
        "filesystem": "romfs",
        "label": "tiny",
        "all": ["/README", "/etc", "/etc/hostname", "/link"],
        "text": "Hello from a stranger's file system.\n",
        "size": 37,
    }
    without = subprocess.run(
        [
            *command[:2],
            "from pseudomount import open_backup; import sys\nprint(open_backup(sys.argv[1]).volumes[0].filesystem)",
            str(image),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    assert without.stdout.strip() == "None"


def test_a_tool_hands_over_an_extent_index_and_a_fetch() -> None:
    """A made-up backup tool: 64 KiB extents, zeros left out, every other one compressed, in objects of its own."""
    import zlib

    disk = fixture_image("ext4")
    step = 64 << 10
    objects: dict[str, bytes] = {}
    rows: list[tuple[int, int, int, int, int, int]] = []  # offset, length, object, object offset, stored, codec
    for number, offset in enumerate(range(0, len(disk), step)):
        piece = disk[offset : offset + step]
        if not piece.strip(b"\0"):
            continue
        name, codec = f"chunk-{number}", number % 2
        objects[name] = b"HEAD" + (zlib.compress(piece) if codec else piece)
        rows.append((offset, len(piece), len(objects) - 1, 4, len(objects[name]) - 4, codec))
    columns = np.array(rows, np.int64).T
    index = ColumnIndex.from_arrays(
        size=len(disk),
        offset=columns[0],
        length=columns[1],
        number=columns[2],
        object_offset=columns[3],
        stored_length=columns[4],
        codec=columns[5],
        objects=list(objects),
        codecs=[Codec("raw"), Codec("zlib")],
    )
    asked: list[str] = []

    def fetch(name: str, offset: int, length: int) -> bytes:
        asked.append(name)
        return objects[name][offset : offset + length]

    with open_backup((index, fetch)) as backup:
        assert backup.disks["disk0"].size == len(disk)
        volume = backup.volumes[0]
        listed = len(asked)
        files = {row["path"]: row for row in fixture_manifest("ext4") if row["type"] == "file"}
        found = {
            str(path).lstrip("/"): path for path in volume.root.glob("**/*") if path.is_file(follow_symlinks=False)
        }
        for name, row in files.items():
            assert hashlib.sha256(found[name].read_bytes()).hexdigest() == row["sha256"], name
    assert 0 < listed < len(objects)


def test_browsing_starts_no_process_and_opens_no_device() -> None:
    """Python's own audit events see every process, socket and file that browsing would use; root is given up first."""
    script = """
        import json, os, sys
        import pseudomount
        def browse():
            with pseudomount.open_backup(sys.argv[1]) as backup:
                files = [p for p in backup.volumes[0].root.glob("**/*") if p.is_file(follow_symlinks=False)]
                return len(files), sum(len(p.read_bytes()) for p in files)
        browse()  # imports are done with: the interpreter's own folder may be closed to the user we become
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
        seen = []
        watched = ("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "pty.spawn", "open")
        def watch(event, args):
            if event in watched or event.split(".")[0] in ("subprocess", "socket", "ctypes"):
                seen.append([event, str(args[0]) if args else ""])
        sys.addaudithook(watch)
        files, total = browse()
        print(json.dumps({"files": files, "bytes": total, "seen": seen}))
    """
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        image = Path(folder) / "vm.img"
        image.write_bytes(fixture_image("ext4"))
        image.chmod(0o444)
        command = [sys.executable, "-c", textwrap.dedent(script), str(image)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    expected = [row for row in fixture_manifest("ext4") if row["type"] == "file"]
    assert told["files"] == len(expected)
    assert told["bytes"] == sum(row["size"] for row in expected)
    assert [event for event in told["seen"] if event[0] != "open"] == []
    opened = [event[1] for event in told["seen"]]
    assert str(image) in opened, "the hook saw nothing"
    assert [name for name in opened if name.startswith("/dev/")] == []


def test_io_is_the_stdlibs() -> None:
    with open_backup(_single(fixture_image("ext4"))) as backup:
        first = next(p for p in backup.volumes[0].root.glob("**/*") if p.is_file() and p.stat().st_size > 10)
        with first.open("rb") as file:
            assert isinstance(file, io.BufferedReader)
            file.seek(-4, os.SEEK_END)
            assert file.read() == first.read_bytes()[-4:]


def _single(disk: bytes) -> tuple[ColumnIndex, Callable[[str, int, int], bytes]]:
    return ColumnIndex.single("disk", len(disk)), lambda name, offset, length: disk[offset : offset + length]
