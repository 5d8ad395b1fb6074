"""fnmatch's patterns as RE2 expressions: the same names match."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase, translate

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pseudomount.filesystem.catalogue._patterns import glob_to_re2

ODD = "ab]c![-^\\*?&~|.$(){}+ \n\tZé\u0130ß\u2028😀_:"
PATTERNS = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=8)


def _matches(pattern: str, names: list[str], *, ignore_case: bool = False) -> list[bool]:
    found: list[bool] = pc.match_substring_regex(
        pa.array(names, pa.string()), glob_to_re2(pattern), ignore_case=ignore_case
    ).to_pylist()
    return found


@given(PATTERNS, st.lists(NAMES, max_size=8))
@example("[b-a]", ["", "a", "b", "-"])
@example("[b-a-c]", ["-", "c", "b", "a"])
@example("[b-a!x]", ["x", "a", "!"])
@example("[!b-a]", ["x"])
@example("[]]", ["]"])
@example("[!]]", ["]", "a"])
@example("[[:alpha:]]", ["a]", ":]", "[]", "a"])
@example("[a-", ["[a-", "a"])
@example("[^a]", ["^", "a", "b"])
@example("[\\d]", ["\\", "d", "1"])
@example("[--a]", ["-", ".", "a", "b"])
@example("**", ["", "\n"])
@example("?", ["\n", "é", "😀", ""])
@example("a*\n", ["a\n", "a\n\n", "a"])
@example("x", ["x\n", "x"])
def test_the_same_names_match(pattern: str, names: list[str]) -> None:
    assert _matches(pattern, names) == [fnmatchcase(name, pattern) for name in names]


@given(
    st.text(st.sampled_from("aAbBzZ*?[]!-.09_"), max_size=10), st.lists(st.text("aAbBzZ.09_", max_size=6), max_size=8)
)
def test_whatever_the_case_of_ascii(pattern: str, names: list[str]) -> None:
    test = re.compile(translate(pattern), re.IGNORECASE).match
    assert _matches(pattern, names, ignore_case=True) == [test(name) is not None for name in names]


@pytest.mark.parametrize("pattern", ["\udcff", "a\udcff*", "[\udcff]", "\ud800?"])
def test_no_text_matches_a_surrogate(pattern: str) -> None:
    assert _matches(pattern, ["a", "\ufffd", "", "a\ufffdb"]) == [False] * 4


def test_a_class_without_a_surrogate_matches_text() -> None:
    assert _matches("[!\udcff]", ["a", "ab", "\ue000"]) == [True, False, True]
    assert _matches("[a-\udcff]", ["a", "z", "\ue000"]) == [True, True, False]
