"""Objects of a bucket, container or web server, read by ranges."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pseudomount.errors import (
    ObjectChangedError,
    OutOfRangeError,
    StorageError,
    TransientStorageError,
    UnsupportedError,
    UsageError,
)
from pseudomount.storage.contract import Store
from pseudomount.storage.remote.failures import is_unsatisfiable, translated

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ObjectStore as ObstoreStore

__all__ = ["ObjectStore"]

#: Bytes that the first look at an object brings: what formats look at, and the first block that disks read.
_HEAD = 64 << 10
_HEADS = 64
_Names: TypeAlias = list[str]

#: Names looked through by one listing.
_LISTED = 20_000
#: Objects whose identity is remembered.
_REMEMBERED = 1 << 16


@dataclass(frozen=True, slots=True)
class _Identity:
    """What must stay the same as long as the store is open."""

    size: int
    tag: str | None
    modified: object

    @property
    def condition(self) -> str | None:
        """For If-Match, which never holds for a weak tag."""
        return self.tag if self.tag and not self.tag.startswith("W/") else None

    def same(self, other: _Identity) -> bool:
        # Servers behind one name may differ in their clocks, so the time counts only where there is no tag.
        if self.size != other.size:
            return False
        return self.tag == other.tag if self.tag or other.tag else self.modified == other.modified


class ObjectStore(Store):
    """The objects that an obstore store holds.

    The first request for an object brings its first 64 KiB and, in the same answer, its size and ETag. Every later one
    asks for this very object (If-Match), and every answer is compared with the first: what was replaced meanwhile is an
    `ObjectChangedError`, never bytes of both. Where a server gives neither ETag nor date, only the size is compared.
    An object that has vanished is an `ObjectNotFoundError`.

    Retries and time limits are those of the obstore store; see `connect`, which sets them. May be used from many
    threads. A child process must make its own: obstore's threads do not outlive a fork.

    Args:
        store: a store of obstore: `S3Store`, `GCSStore`, `AzureStore`, `HTTPStore`, `MemoryStore`, `LocalStore`.
        url: what messages put before the names; never with a password or signature in it.
        remote: whether a request takes long; None: unless it is in memory or on this machine's disk.
        threads: requests that one `read_ranges` makes at a time.
    """

    def __init__(self, store: ObstoreStore, *, url: str = "", remote: bool | None = None, threads: int = 16) -> None:
        kind = type(store).__name__
        if not hasattr(store, "get") or not hasattr(store, "list"):
            raise UsageError(f"{kind} is neither a Store nor a store of obstore")
        if threads < 1:
            raise UsageError("threads must be positive")
        self._store: Any = store
        self._kind = {"S3Store": "s3", "GCSStore": "gs", "AzureStore": "az", "HTTPStore": "http"}.get(kind, "")
        self.url = url or f"{kind.removesuffix('Store').lower()}:"
        self.remote = kind not in ("MemoryStore", "LocalStore") if remote is None else remote
        self._threads = threads
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Identity] = OrderedDict()
        self._heads: OrderedDict[str, bytes] = OrderedDict()
        self._listed: OrderedDict[str, int] = OrderedDict()
        self._pool: ThreadPoolExecutor | None = None
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<ObjectStore {self.url}>"

    # -- the contract --------------------------------------------------------------------------------------------

    def size(self, name: str) -> int:
        """Bytes of an object; see `Store.size`. Costs no request where the object was read or listed before."""
        known = self._known.get(name)
        if known is not None:
            return known.size
        listed = self._listed.get(name)
        return self._look(name).size if listed is None else listed

    def read(self, name: str, offset: int, length: int, /) -> bytes:
        """Up to `length` bytes at `offset`; see `Store.read`.

        Raises:
            AccessDeniedError: there are no credentials, or they do not suffice.
            UnsupportedError: a web server that gives whole files only.
        """
        length = self._clamped(name, offset, length)
        return self._part(name, offset, length) if length else b""

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]], /) -> list[bytes]:
        """Several (offset, length), some at a time; the first that fails fails them all. See `Store.read_ranges`."""
        wanted = [(offset, self._clamped(name, offset, length)) for offset, length in ranges]
        if len(wanted) < 2:
            return [self._part(name, offset, length) for offset, length in wanted]
        pool = self._get_pool()
        futures = [pool.submit(self._part, name, offset, length) for offset, length in wanted]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def list(self, prefix: str = "") -> list[str]:
        """Names that begin with `prefix`, sorted.

        Raises:
            AccessDeniedError: objects may be read, but not listed.
            UnsupportedError: a web server, or too many names to look through.
        """
        if self._kind == "http":
            raise UnsupportedError(f"{self.url}: a web server does not tell which files it has")
        found: dict[str, int] = {}
        seen = 0
        try:
            for metas in self._stream(prefix):
                for meta in metas:
                    seen += 1
                    if meta["path"].startswith(prefix):
                        found[meta["path"]] = meta["size"]
                    elif self._ordered and meta["path"] > prefix:
                        return self._remember_listed(found)
                if seen > _LISTED:
                    raise UnsupportedError(f"{self.url}/{prefix}: too many names begin so; there are over {_LISTED}")
        except Exception as error:
            raise translated(error, f"listing {self.url}/{prefix}", prefix, self._kind) from None
        return self._remember_listed(found)

    def close(self) -> None:
        """Ends the threads and forgets what was read; identities are kept, and reading goes on if it must."""
        with self._lock:
            pool, self._pool = self._pool, None
            self._heads.clear()
        if pool is not None and self._pid == os.getpid():
            pool.shutdown()

    # -- listing -------------------------------------------------------------------------------------------------

    @property
    def _ordered(self) -> bool:
        """Whether names come sorted by their UTF-8, so that a listing can end early. S3's directory buckets do not."""
        return self._kind in ("s3", "gs", "az") and not self.url.endswith("--x-s3")

    def _stream(self, prefix: str) -> Any:
        """obstore takes whole parts of a name as prefix; what is before the names that we want is skipped by `offset`.

        The offset itself is not listed, so it is a name just before the prefix, after all that sort well before it.
        """
        folder, _, last = prefix.rpartition("/")
        options: dict[str, Any] = {"prefix": folder or None, "chunk_size": 1000}
        if last and self._ordered and " " < last[-1] <= "~":
            options["offset"] = prefix[:-1] + chr(ord(last[-1]) - 1) + "~"
        return self._store.list(**options)

    def _remember_listed(self, found: dict[str, int]) -> _Names:
        names = sorted(found)
        with self._lock:
            for name in names[:_REMEMBERED]:
                self._listed[name] = found[name]
            while len(self._listed) > _REMEMBERED:
                self._listed.popitem(last=False)
        return names

    # -- reading -------------------------------------------------------------------------------------------------

    def _clamped(self, name: str, offset: int, length: int) -> int:
        """The length that the object has at this offset."""
        if offset < 0 or length < 0:
            raise OutOfRangeError(f"{length} bytes at {offset} of {name}")
        return max(0, min(length, self.size(name) - offset))

    def _look(self, name: str) -> _Identity:
        """The first request for an object."""
        shown = f"{self.url}/{name}"
        if not name or name.startswith("/") or name.endswith("/"):  # obstore would take it for another name
            raise StorageError(f"{name!r} is no name in an object store", filename=name)
        try:
            answer = self._store.get(name, options={"range": (0, _HEAD)})
            identity, head = _identity(answer.meta), bytes(answer.bytes())
        except Exception as error:
            if not is_unsatisfiable(error):
                raise translated(error, shown, name, self._kind) from None
            # An empty object has no ranges.
            empty = self._empty(name)
            if empty is None:
                raise translated(error, shown, name, self._kind) from None
            identity, head = empty, b""
        if len(head) != min(_HEAD, identity.size):
            raise TransientStorageError(f"{shown}: the answer was cut short", filename=name)
        self._same(name, identity)
        with self._lock:
            self._heads[name] = head
            while len(self._heads) > _HEADS:
                self._heads.popitem(last=False)
        return identity

    def _empty(self, name: str) -> _Identity | None:
        """What an object without bytes is; None where it has some, or nothing can be said."""
        try:
            identity = _identity(self._store.head(name))
        except Exception:
            return None
        return None if identity.size else identity

    def _part(self, name: str, offset: int, length: int) -> bytes:
        """A range that lies inside the object."""
        head = self._heads.get(name, b"")
        if offset + length <= len(head) or not length:
            return head[offset : offset + length]
        shown = f"{self.url}/{name}"
        known = self._known.get(name)
        options: GetOptions = {"range": (offset, offset + length)}
        if known is not None and known.condition:
            options["if_match"] = known.condition
        try:
            answer = self._store.get(name, options=options)
            identity = _identity(answer.meta)
            self._same(name, identity)
            data = bytes(answer.bytes())
        except Exception as error:
            before = known is not None or name in self._listed
            raise translated(error, shown, name, self._kind, known=before) from None
        if len(data) != length:
            raise TransientStorageError(f"{shown}: {len(data)} of {length} bytes came at {offset}", filename=name)
        return data

    def _same(self, name: str, identity: _Identity) -> None:
        """Remembers what an object is at first, and raises ObjectChangedError where it is another later."""
        with self._lock:
            first = self._known.setdefault(name, identity)
            self._known.move_to_end(name)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
            listed = self._listed.get(name, identity.size)
        if not first.same(identity) or listed != identity.size:
            raise ObjectChangedError(f"{self.url}/{name} has changed since it was first read", filename=name)

    def _get_pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="pseudomount-store")
            return self._pool


def _identity(meta: ObjectMeta) -> _Identity:
    return _Identity(meta["size"], meta["e_tag"], meta["last_modified"])
