# ruff: noqa: D102  (the names of tests say what they demand)
"""What every Store must do, as a suite to subclass: one for every backend. Needs pytest and Hypothesis.

    class TestMyStore(StoreConformance):
        def make(self, contents: Mapping[str, bytes]) -> Store: ...
        def replace(self, name: str, content: bytes) -> None: ...
        def remove(self, name: str) -> None: ...

The expected bytes come from the contents that the suite itself made, never from the store.
"""

from __future__ import annotations

import contextlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pseudomount.device import PseudoDisk, RangeStore
from pseudomount.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    OutOfRangeError,
    PseudomountError,
    StorageError,
    UsageError,
)
from pseudomount.extents import ColumnIndex
from pseudomount.storage import Store

__all__ = ["StoreConformance"]

BIG = random.Random(11).randbytes(300_007)
CONTENTS: Mapping[str, bytes] = {
    "big.img": BIG,
    "vm.000": b"first",
    "vm.001": b"second",
    "vm-notes": b"notes",
    "folder/vm.img": BIG[:70_000],
    "folder/deep/er": b"e",
    "a b%20c+d~ü.img": b"odd",
    "empty": b"",
    "one": b"1",
}


class StoreConformance(ABC):
    """Tests of one store.

    Attributes:
        lists: whether the store can tell which objects it has.
        examples: how many cases Hypothesis tries.
    """

    lists: bool = True
    examples: int = 30

    @abstractmethod
    def make(self, contents: Mapping[str, bytes]) -> Store:
        """A new store with these objects and no others."""

    @abstractmethod
    def replace(self, name: str, content: bytes) -> None:
        """Puts another object in the place of one of the store made last, behind its back."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Takes an object away, behind the store's back."""

    @pytest.fixture
    def store(self) -> Store:
        return self.make(CONTENTS)

    # -- reading -----------------------------------------------------------------------------------------------------

    def test_sizes(self, store: Store) -> None:
        for name, content in CONTENTS.items():
            assert store.size(name) == len(content), name
        assert isinstance(store.remote, bool)

    def test_whole_objects(self, store: Store) -> None:
        for name, content in CONTENTS.items():
            data = store.read(name, 0, len(content))
            assert type(data) is bytes
            assert data == content, name

    def test_a_first_read_anywhere(self) -> None:
        for offset, length in ((299_000, 500), (1 << 40, 5), (0, 0), (300_000, 1000)):
            assert self.make(CONTENTS).read("big.img", offset, length) == BIG[offset : offset + length]
        assert self.make(CONTENTS).read_ranges("big.img", [(200_000, 10), (7, 3)]) == [BIG[200_000:200_010], BIG[7:10]]

    def test_reading_is_short_only_where_the_object_ends(self, store: Store) -> None:
        for offset, length in ((300_000, 7), (300_000, 8), (300_006, 1 << 60), (0, 1 << 60), (65_535, 2), (65_536, 1)):
            assert store.read("big.img", offset, length) == BIG[offset : offset + length]
        for offset in (300_007, 300_008, 1 << 50):
            assert store.read("big.img", offset, 1) == b""
        assert store.read("empty", 0, 1) == b""
        assert store.read("empty", 5, 0) == b""

    def test_many_ranges_in_the_order_asked_for(self, store: Store) -> None:
        dice = random.Random(3)
        ranges = [(dice.randrange(300_100), dice.choice((0, 1, 512, 70_000))) for _ in range(60)]
        ranges += [ranges[0], (0, 300_007), (300_000, 100), (400_000, 3)]
        found = store.read_ranges("big.img", ranges)
        assert found == [BIG[offset : offset + length] for offset, length in ranges]
        assert store.read_ranges("big.img", []) == []
        assert store.read_ranges("empty", [(0, 0), (0, 9), (4, 4)]) == [b"", b"", b""]

    def test_random_ranges(self) -> None:
        store = self.make(CONTENTS)

        @settings(max_examples=self.examples, database=None, deadline=None)
        @given(st.lists(st.tuples(st.integers(0, 300_100), st.integers(0, 2000)), max_size=6))
        def check(ranges: list[tuple[int, int]]) -> None:
            expected = [BIG[offset : offset + length] for offset, length in ranges]
            assert store.read_ranges("big.img", ranges) == expected
            assert [store.read("big.img", offset, length) for offset, length in ranges] == expected

        check()
        store.close()

    def test_ranges_without_meaning(self, store: Store) -> None:
        for offset, length in ((-1, 1), (0, -1), (-5, -5)):
            with pytest.raises(OutOfRangeError):
                store.read("big.img", offset, length)
            with pytest.raises(OutOfRangeError):
                store.read_ranges("big.img", [(0, 1), (offset, length)])

    def test_a_pseudo_disk_over_it(self, store: Store) -> None:
        assert isinstance(store, RangeStore)
        parts = [(name, store.size(name)) for name in ("vm.000", "big.img", "empty", "one")]
        whole = b"".join(CONTENTS[name] for name, _ in parts)
        with PseudoDisk(ColumnIndex.concat(parts), store) as disk:
            batch = disk.read_many([0, 3, 299_990, 100_000], [3, 70_000, 23, 1])
            assert not batch.errors
            assert batch.buffer.tobytes() == whole[:3] + whole[3:70_003] + whole[299_990:] + whole[100_000:100_001]

    def test_many_threads(self, store: Store) -> None:
        wrong: list[object] = []

        def work(seed: int) -> None:
            dice = random.Random(seed)
            for _ in range(20):
                name = dice.choice(sorted(CONTENTS))
                at = dice.randrange(len(CONTENTS[name]) + 1)
                try:
                    if store.read_ranges(name, [(at, 100), (0, 5)]) != [
                        CONTENTS[name][at : at + 100],
                        CONTENTS[name][:5],
                    ]:
                        wrong.append((name, at))
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    # -- names -------------------------------------------------------------------------------------------------------

    def test_what_is_not_there(self, store: Store) -> None:
        for name in ("none", "folder/none", "big.im", "big.img2", "a b c"):
            for look in (
                lambda name=name: store.size(name),
                lambda name=name: store.read(name, 0, 1),
                lambda name=name: store.read_ranges(name, [(0, 1), (5, 5)]),
            ):
                with pytest.raises(ObjectNotFoundError) as caught:
                    look()
                assert isinstance(caught.value, FileNotFoundError)
                assert name in str(caught.value)

    @pytest.mark.parametrize("name", ["", ".", "..", "../big.img", "/big.img", "folder//vm.img", "big.img/", "a\0b"])
    def test_names_that_are_none(self, store: Store, name: str) -> None:
        with pytest.raises((StorageError, UsageError)):
            store.read(name, 0, 1)

    def test_listing(self, store: Store) -> None:
        if not self.lists:
            with pytest.raises(PseudomountError):
                store.list("vm.")
            return
        names = sorted(CONTENTS)
        for prefix in (
            "",
            "vm.",
            "vm",
            "v",
            "vm.00",
            "folder/",
            "folder/vm",
            "fold",
            "folder/deep/er",
            "none",
            "one",
            "onex",
        ):
            assert store.list(prefix) == [name for name in names if name.startswith(prefix)], prefix
        assert store.size("vm.001") == 6
        assert store.read("vm.001", 2, 100) == b"cond"

    # -- what changes ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "content", [BIG[::-1], BIG[:-1], BIG + b"more", b""], ids=["same size", "less", "more", "nothing"]
    )
    def test_an_object_that_is_replaced_is_an_error_and_never_a_mixture(self, content: bytes) -> None:
        store = self.make(CONTENTS)
        assert store.read("big.img", 200_000, 10) == BIG[200_000:200_010]
        self.replace("big.img", content)
        for _ in range(2):
            with pytest.raises(ObjectChangedError) as caught:
                store.read("big.img", 100_000, 10)
            assert not caught.value.retryable
            with pytest.raises(ObjectChangedError):
                store.read_ranges("big.img", [(100_000, 10), (250_000, 5)])
        assert store.read("one", 0, 1) == b"1"
        store.close()

    def test_an_object_that_vanishes(self) -> None:
        """It is gone, or still there for those who hold it open; never anything else."""
        store = self.make(CONTENTS)
        assert store.read("big.img", 200_000, 10) == BIG[200_000:200_010]
        self.remove("big.img")
        with contextlib.suppress(ObjectNotFoundError):
            assert store.read("big.img", 100_000, 10) == BIG[100_000:100_010]
        assert store.read("one", 0, 1) == b"1"
        store.close()

    def test_closing_twice(self, store: Store) -> None:
        store.read_ranges("big.img", [(100_000, 10), (5, 5)])
        store.close()
        store.close()

    def test_nothing_can_be_told_of_secrets(self, store: Store) -> None:
        assert "secret" not in repr(store).lower()
