"""L2 tables, loaded as needed, in slices, of which those used last are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pseudomount.device.ranges import coalesce
from pseudomount.errors import PseudomountError
from pseudomount.storage import Store

__all__ = ["Slices"]

Int64s = NDArray[np.int64]
UInt64s = NDArray[np.uint64]

#: Bytes of L2 tables that are worked on together: so much memory, whatever is asked.
_WAVE = 4 << 20
#: Bytes of one request.
_LIMIT = 1 << 20


class Slices:
    """An image's L2 entries by their place in the file. Thread-safe.

    A slice is an aligned part of the file, a cluster or the 64 KiB of it that are asked for: a table of a 2 MiB
    cluster is large, and few read all of it.

    Args:
        store: where the image lies.
        name: of the image.
        size: bytes of the image.
        cluster_bits: a slice is no larger than a cluster.
        capacity: bytes kept.
    """

    def __init__(self, store: Store, name: str, size: int, cluster_bits: int, capacity: int = 32 << 20) -> None:
        self.bits = min(cluster_bits, 16)
        self._store = store
        self._name = name
        self._size = size
        self._capacity = capacity
        self._gap = (256 << 10) if store.remote else (16 << 10)
        self._kept: OrderedDict[int, UInt64s] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def waves(self, numbers: Int64s) -> Iterator[dict[int, UInt64s | PseudomountError]]:
        """Loads slices, some at a time.

        Args:
            numbers: int64 (k,), which slices, ascending, each once; all begin inside the file.

        Yields number → its entries, as uint64 words, or why it could not be read. There are fewer entries than
        a slice has room for where the file ends.
        """
        count = max(1, _WAVE >> self.bits)
        for first in range(0, len(numbers), count):
            yield self._wave(numbers[first : first + count].tolist())

    def one(self, number: int) -> UInt64s | PseudomountError:
        """A slice; see `waves`."""
        with self._lock:
            words = self._kept.get(number)
            if words is not None:
                self._kept.move_to_end(number)
                return words
        return self._wave([number])[number]

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._kept.clear()
            self._used = 0

    def _wave(self, numbers: list[int]) -> dict[int, UInt64s | PseudomountError]:
        found: dict[int, UInt64s | PseudomountError] = {}
        with self._lock:
            for number in numbers:
                words = self._kept.get(number)
                if words is not None:
                    self._kept.move_to_end(number)
                    found[number] = words
        missing = [number for number in numbers if number not in found]
        if missing:
            loaded = self._load(np.array(missing, np.int64))
            found.update(loaded)
            with self._lock:
                for number, entries in loaded.items():
                    if isinstance(entries, PseudomountError) or number in self._kept:
                        continue  # what failed is tried anew when it is next needed
                    self._kept[number] = entries
                    self._used += entries.nbytes
                while self._used > self._capacity:
                    self._used -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _load(self, numbers: Int64s) -> dict[int, UInt64s | PseudomountError]:
        start = numbers << self.bits
        length = np.minimum(self._size - start, 1 << self.bits)
        joined = coalesce(start, length, gap=self._gap, limit=_LIMIT)
        requests = list(zip(joined.offsets.tolist(), joined.lengths.tolist(), strict=True))
        answers = self._ask(requests)
        loaded: dict[int, UInt64s | PseudomountError] = {}
        # A loop once a slice: each is an array of its own, so that it can be let go of alone.
        for number, group, at, wanted in zip(
            numbers.tolist(), joined.group.tolist(), start.tolist(), length.tolist(), strict=True
        ):
            answer = answers[group]
            if isinstance(answer, PseudomountError):
                # What stood with others in a request that failed is asked for alone, unless it was alone.
                alone = (at, wanted)
                answer = answer if requests[group] == alone else self._ask([alone])[0]
                if isinstance(answer, PseudomountError):
                    loaded[number] = answer
                    continue
                begin = 0
            else:
                begin = at - requests[group][0]
            part = answer[begin : begin + wanted]
            loaded[number] = np.frombuffer(part[: len(part) & ~7], ">u8").astype(np.uint64)
        return loaded

    def _ask(self, requests: Sequence[tuple[int, int]]) -> list[bytes | PseudomountError]:
        try:
            return list(self._store.read_ranges(self._name, requests))
        except PseudomountError as error:
            if len(requests) == 1:
                return [error]
        answers: list[bytes | PseudomountError] = []
        for offset, length in requests:  # which of them failed is found out one by one
            try:
                answers.append(self._store.read(self._name, offset, length))
            except PseudomountError as error:
                answers.append(error)
        return answers
