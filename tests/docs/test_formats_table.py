"""Each cell of the tables of docs/formats.md names a test that is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "formats.md"
_DEFINITION = re.compile(r'^\[(\d+)\]: \.\./(tests/\S+\.py) "(\w+)"$', re.M)
_LINK = re.compile(r"\[[^\]]+\]\[(\d+)\]")
#: The headings whose tables are of features; those after them are measurements.
BACKED = (
    "File systems, by our own parsers",
    "File systems, by dissect's libraries",
    "Containers",
    "Stores",
    "Partition tables",
)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Tests and classes of tests that a file defines."""
    body = ast.parse(path.read_text("utf-8")).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return frozenset(node.name for node in body if isinstance(node, kinds) and node.name.lower().startswith("test"))


def definitions() -> dict[str, tuple[str, str]]:
    found = _DEFINITION.findall(PAGE.read_text("utf-8"))
    assert len({number for number, _, _ in found}) == len(found)
    return {number: (path, name) for number, path, name in found}


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    _, _, after = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")
    lines = [line for line in after.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_test_that_is_named_exists() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in definitions().values()
        if not (ROOT / path).is_file() or name not in names_in(ROOT / path)
    ]
    assert missing == []


@pytest.mark.parametrize("heading", BACKED)
def test_every_cell_is_backed(heading: str) -> None:
    known = definitions()
    table = rows(heading)
    assert len(table) >= 4
    for feature, *cells in table:
        assert cells
        for cell in cells:
            linked = _LINK.findall(cell)
            assert cell == "–" or linked, f"{feature}: {cell}"  # noqa: RUF001  (as the page has it)
            assert set(linked) <= known.keys(), f"{feature}: {cell}"
        assert any(cell != "–" for cell in cells), feature  # noqa: RUF001


def test_no_test_is_named_in_vain() -> None:
    used = {number for heading in BACKED for row in rows(heading) for cell in row for number in _LINK.findall(cell)}
    assert used == definitions().keys()


def test_pages_that_are_linked_exist() -> None:
    for target in re.findall(r"\]\((\w+\.md)\)", PAGE.read_text("utf-8")):
        assert (PAGE.parent / target).is_file(), target
