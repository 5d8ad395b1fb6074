"""A pseudo-disk over qcow2 does what every device must."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from pseudomount.device import BlockDevice, PseudoDisk
from pseudomount.storage import LocalStore
from pseudomount.testing.device_conformance import DeviceConformance
from tests.support.qcow2 import disk_of, run


class _Qcow2Conformance(DeviceConformance):
    granularity = 512
    examples = 20
    options: tuple[str, ...] = ()

    def make(self, content: bytes) -> BlockDevice:
        with tempfile.TemporaryDirectory() as made:
            raw, path = Path(made) / "raw", Path(made) / "vm.qcow2"
            raw.write_bytes(content)
            run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *self.options, raw, path)
            image = path.read_bytes()
        store = _Memory({"vm.qcow2": image})
        return PseudoDisk(disk_of(path, store=store).index, store)


class _Memory(LocalStore):
    """Objects in memory."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(tempfile.gettempdir())
        self._objects = objects

    def size(self, name: str) -> int:
        return len(self._objects[name])

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        return self._objects[name][offset : offset + length]


@pytest.mark.tools("qemu-img")
class TestStandard(_Qcow2Conformance):
    options = ("-o", "cluster_size=4k")


@pytest.mark.tools("qemu-img")
class TestCompressed(_Qcow2Conformance):
    options = ("-c", "-o", "cluster_size=16k,extended_l2=on,compression_type=zstd")
