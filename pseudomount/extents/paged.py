"""An extent index that is loaded page by page, as reads need it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pseudomount.errors import CorruptionError, PseudomountError, UsageError
from pseudomount.extents._pieces import assemble, check_ranges
from pseudomount.extents.contract import RAW, Codec, ExtentIndex, Resolved

__all__ = ["PagedIndex"]


class PagedIndex(ExtentIndex):
    """Pages of equal disk ranges, each an index of its own, of which a few are kept.

    Page p is the disk's bytes from `p * page_size`, and `load(p)` gives its index: positions in it count from the
    page's beginning, its size is the page's (the last page ends with the disk), and its objects and codecs are
    numbered as here.
    A page that cannot be loaded is an error of the ranges that touch it; it is tried anew when it is next needed.
    `load` is called from many threads, for one page only once at a time; it must not resolve through this index.

    Args:
        size: bytes of the disk.
        page_size: bytes of the disk that a page covers.
        load: page number → its index; raises a PseudomountError where it cannot be had.
        capacity: pages kept, those used last.
        objects: names of the objects.
        codecs: codecs that the pages use, the first `RAW`.
    """

    def __init__(
        self,
        size: int,
        page_size: int,
        load: Callable[[int], ExtentIndex],
        capacity: int = 64,
        *,
        objects: Sequence[str],
        codecs: Sequence[Codec] = (RAW,),
    ) -> None:
        if not 0 <= size < 1 << 63:
            raise CorruptionError(f"a disk of {size} bytes", structure="extent index")
        if page_size <= 0 or capacity <= 0:
            raise UsageError(f"pages of {page_size} bytes, {capacity} kept: both must be positive")
        self._size = size
        self._page_size = page_size
        self._load = load
        self._capacity = capacity
        self._objects = objects
        self._codecs = tuple(codecs)
        self._pages: OrderedDict[int, ExtentIndex] = OrderedDict()
        self._loading: dict[int, Future[ExtentIndex]] = {}
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self._size

    @property
    def codecs(self) -> Sequence[Codec]:
        """The codecs of all pages."""
        return self._codecs

    def object_names(self, numbers: NDArray[np.int64]) -> list[str]:
        """Names of objects, as `fetch` takes them."""
        return [self._objects[number] for number in numbers.tolist()]

    def resolve(self, offsets: ArrayLike, lengths: ArrayLike) -> Resolved:
        """The pieces of many ranges; see `ExtentIndex.resolve`."""
        offs, lens = check_ranges(offsets, lengths, self._size)
        rows = np.flatnonzero(lens > 0)
        first = offs[rows] // self._page_size
        count = (offs[rows] + lens[rows] - 1) // self._page_size - first + 1
        until = np.cumsum(count)
        ranges = np.repeat(rows, count)
        pages = np.arange(len(ranges), dtype=np.int64) + np.repeat(first - (until - count), count)
        start = pages * self._page_size
        begin = np.maximum(offs[ranges], start) - start
        # The page's end may lie beyond int64; the distance to the range's end does not.
        length = np.minimum(offs[ranges] + lens[ranges] - start, self._page_size) - begin
        order = np.argsort(pages, kind="stable")
        cuts = np.append(np.flatnonzero(np.diff(pages[order], prepend=-1)), len(order)).tolist()
        parts: list[Resolved] = []
        errors: dict[int, PseudomountError] = {}
        for a, b in pairwise(cuts):
            mine = order[a:b]
            owners = ranges[mine]
            number = int(pages[mine[0]])
            try:
                found = self._page(number).resolve(begin[mine], length[mine])
            except PseudomountError as error:
                errors.update((int(i), error) for i in owners)
                continue
            errors.update((int(owners[i]), error) for i, error in found.errors.items())
            parts.append(
                replace(found, ranges=owners[found.ranges], offset=found.offset + number * self._page_size, errors={})
            )
        return assemble(parts, errors)

    def around(self, offset: int) -> Resolved:
        """The piece that holds a byte, within its page; see `ExtentIndex.around`."""
        check_ranges([offset], [1], self._size)
        number = offset // self._page_size
        start = number * self._page_size
        try:
            found = self._page(number).around(offset - start)
        except PseudomountError as error:
            return assemble([], {0: error})
        return replace(found, offset=found.offset + start)

    def close(self) -> None:
        """Forgets all pages and closes them."""
        with self._lock:
            pages, self._pages = list(self._pages.values()), OrderedDict()
        for page in pages:
            page.close()

    def _page(self, number: int) -> ExtentIndex:
        with self._lock:
            page = self._pages.get(number)
            if page is not None:
                self._pages.move_to_end(number)
                return page
            loading = self._loading.get(number)
            if loading is None:
                mine = self._loading[number] = Future()
        if loading is not None:
            return loading.result()
        try:
            page = self._checked(number, self._load(number))
        except BaseException as error:
            with self._lock:
                del self._loading[number]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._loading[number]
            self._pages[number] = page
            while len(self._pages) > self._capacity:
                # Not closed: another thread may be resolving in it. It goes when the last one lets go of it.
                self._pages.popitem(last=False)
        mine.set_result(page)
        return page

    def _checked(self, number: int, page: ExtentIndex) -> ExtentIndex:
        expected = min(self._page_size, self._size - number * self._page_size)
        if page.size != expected:
            raise CorruptionError(
                f"page {number} of the extent index covers {page.size} bytes of the disk, not {expected}",
                structure="extent index page",
            )
        if tuple(page.codecs) != self._codecs[: len(page.codecs)]:
            raise UsageError(f"page {number} of the extent index numbers its codecs in its own way")
        return page
