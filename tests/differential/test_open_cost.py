"""What opening a large volume and printing its root costs, in reads and bytes; `benchmarks/open_cost.py` prints it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.open_cost import BYTES, READS, make_image, open_and_list

pytestmark = pytest.mark.tools("mke2fs")


@pytest.mark.parametrize(
    ("files", "folders", "groups", "size", "entries"),
    [
        (2000, 50, 20, "256M", 21),  # lost+found is the last one
        (20_000, 500, 20, "4G", 21),
        (20_000, 5000, 0, "4G", 5001),
    ],
)
def test_opening_is_cheap_however_large_the_volume(
    files: int, folders: int, groups: int, size: str, entries: int, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    make_image(image, files=files, folders=folders, size=size, scratch=tmp_path, groups=groups)
    for long in [False, True] if groups else [False]:
        cost = open_and_list(image, long=long)
        assert cost.entries == entries
        assert 0 < cost.requests <= READS
        assert 0 < cost.bytes <= BYTES
