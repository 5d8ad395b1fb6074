"""The escaped form of names is valid UTF-8 and can be undone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pseudomount.filesystem import NameEncoding, escape, printable, unescape

_BYTES_NAMES = st.binary(min_size=1, max_size=40).map(NameEncoding.BYTES.decode)
_UTF16_NAMES = st.text(st.characters(codec=None), min_size=1, max_size=40)
_TRICKY = st.text(st.sampled_from("\\xu5cfFdD8082ab\udcff\x1b\u202e"), max_size=20)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain.txt", "plain.txt"),
        ("system-systemd\\x2dcryptsetup.slice", "system-systemd\\x2dcryptsetup.slice"),
        ("caf\udce9", "caf\\xe9"),
        ("caf\\xe9", "caf\\x5cxe9"),
        ("Größe", "Größe"),
        ("a\\b", "a\\b"),
    ],
)
def test_bytes_names(name: str, shown: str) -> None:
    assert escape(name, NameEncoding.BYTES) == shown
    assert unescape(shown, NameEncoding.BYTES) == name


def test_unpaired_surrogate() -> None:
    assert escape("a\ud800b", NameEncoding.WTF8) == "a\\ud800b"
    assert unescape("a\\ud800b", NameEncoding.WTF8) == "a\ud800b"


def test_terminal_controls_are_shown_not_obeyed() -> None:
    assert printable("a\x1b[31mb\n\u202egpj.exe") == "a\\x1b[31mb\\x0a\\u202egpj.exe"


@given(_BYTES_NAMES | _TRICKY.map(lambda s: s.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")))
@example("\\\\x5c")
@example("\\\udcff")
def test_bytes_names_round_trip(name: str) -> None:
    shown = escape(name, NameEncoding.BYTES)
    shown.encode("utf-8")
    assert unescape(shown, NameEncoding.BYTES) == name
    assert unescape(printable(shown), NameEncoding.BYTES) == name


@given(_UTF16_NAMES | _TRICKY)
def test_utf16_names_round_trip(name: str) -> None:
    shown = escape(name, NameEncoding.WTF8)
    shown.encode("utf-8")
    assert unescape(shown, NameEncoding.WTF8) == name
    assert unescape(printable(shown), NameEncoding.WTF8) == name


@given(st.lists(_BYTES_NAMES, min_size=2, max_size=2, unique=True))
def test_two_names_never_look_alike(names: list[str]) -> None:
    first, second = (printable(escape(name, NameEncoding.BYTES)) for name in names)
    assert first != second
