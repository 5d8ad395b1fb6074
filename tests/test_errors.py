"""Errors can be caught as builtins, pickled, and read as one line."""

from __future__ import annotations

import errno
import inspect
import pickle
import re

import pytest

from pseudomount import errors
from pseudomount.errors import (
    ChecksumError,
    DamageError,
    PathNotFoundError,
    PseudomountError,
    ReadError,
    SymlinkLoopError,
    TransientStorageError,
)

ALL = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, PseudomountError)]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_is_one_line_and_survives_pickling(cls: type[PseudomountError]) -> None:
    error = cls("something is wrong")
    assert str(error) == "something is wrong"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == "something is wrong"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    told = set(re.findall(r"\w+Error\b", errors.__doc__ or ""))
    assert {cls.__name__ for cls in ALL if not cls.__name__.startswith("_")} <= told
    assert set(errors.__all__) == {cls.__name__ for cls in ALL if not cls.__name__.startswith("_")}


def test_damage_says_where() -> None:
    error = ChecksumError("inode 12: checksum", device="disk0p1", offset=4096, structure="inode")
    assert (error.device, error.offset, error.structure) == ("disk0p1", 4096, "inode")
    again = pickle.loads(pickle.dumps(error))
    assert (again.device, again.offset, again.structure) == ("disk0p1", 4096, "inode")
    assert isinstance(error, OSError)


def test_builtins_catch_path_errors() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        raise PathNotFoundError("/a: no such file or directory", path="/a")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == "/a"
    assert SymlinkLoopError("/a: loop").errno == errno.ELOOP


def test_a_retry_can_help_or_not() -> None:
    assert TransientStorageError("503").retryable
    assert ReadError("time-out", retryable=True).retryable
    assert not ReadError("bad sector").retryable
    assert not DamageError("x").retryable
