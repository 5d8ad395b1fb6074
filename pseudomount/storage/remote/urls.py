"""URLs → which store, and the name of the object in it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from pseudomount.errors import UsageError

__all__ = ["Location", "file_path", "is_url", "parse_url"]

#: Two letters at least: "c://x" is a path on Windows.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII)
_KINDS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "azure": "az",
    "abfs": "az",
    "abfss": "az",
    "http": "http",
    "https": "http",
    "memory": "memory",
    "file": "file",
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where an object lies.

    Attributes:
        kind: "s3", "gs", "az", "http", "memory" or "file".
        root: the store's URL, fit to be shown: without password and query.
        bucket: the bucket or container, the name of a memory store, or the scheme, host and port of a web server.
        name: the object's name in that store; of a file its path.
        account: the storage account where an Azure URL says it, else "".
        query: what follows the "?" of a web address: often a signature, so it is never shown.
        user: "user:password" of a web address.
    """

    kind: str
    root: str
    bucket: str
    name: str
    account: str = ""
    query: str = field(default="", repr=False)
    user: str = field(default="", repr=False)

    @property
    def store(self) -> tuple[str, ...]:
        """Equal for objects that lie in one store."""
        return self.kind, self.bucket, self.account, self.query, self.user


def is_url(text: object) -> bool:
    """Whether a source is a URL rather than the path of a file."""
    return isinstance(text, str) and _URL.match(text) is not None


def parse_url(url: str) -> Location:
    """What a URL names. Keys of buckets are taken as they are written; web addresses and `file://` are percent-encoded.

    Raises:
        UsageError: no known kind of URL, or it names no object.
    """
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme.lower())
    if kind is None:
        known = ", ".join(f"{name}://" for name in ("s3", "gs", "az", "https", "http", "memory", "file"))
        raise UsageError(f"no store is called {scheme}://; there are {known} (a file of this name: put ./ before it)")
    if kind == "file":
        return Location(kind, "file://", "", str(file_path(url)))
    if kind == "http":
        return _web(url)
    bucket, _, key = rest.partition("/")
    account = ""
    if kind == "az" and "@" in bucket:  # abfss://container@account.dfs.core.windows.net/path
        bucket, _, host = bucket.partition("@")
        account = host.partition(".")[0]
    shown = f"{scheme.lower()}://{bucket}" + (f"@{account}" if account else "")
    if not bucket or not key:
        raise UsageError(f"{shown}/{key} names no object: write {scheme}://{_word(kind)}/name")
    return Location(kind, shown, bucket, _checked(key, f"{shown}/{key}"), account)


def _word(kind: str) -> str:
    return {"az": "container", "memory": "store"}.get(kind, "bucket")


def _checked(name: str, shown: str) -> str:
    parts = name.split("/")
    if "" in parts or "." in parts or ".." in parts or any(ord(character) < 32 for character in name):
        raise UsageError(f"{shown!r}: names with empty parts, dots alone or control characters cannot be read")
    return name


def _web(url: str) -> Location:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        path = unquote(parts.path, errors="strict")
    except ValueError as error:  # of the port, the brackets of an address, or the encoding
        raise UsageError(f"no such web address is possible: {type(error).__name__}") from None
    if not host:
        raise UsageError("a web address needs a host")
    scheme = parts.scheme.lower()
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    root = f"{scheme}://{netloc}"
    user = ""
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    if parts.path in ("", "/"):
        raise UsageError(f"{root}/ names no object")
    if path.count("/") != parts.path.count("/"):
        raise UsageError(f"{root}{parts.path}: an encoded slash in a name cannot be read")
    return Location("http", root, root, _checked(path[1:], root + parts.path), query=parts.query, user=user)


def file_path(url: str) -> Path:
    """The path that a `file://` URL names.

    Raises:
        UsageError: it names a file of another machine.
    """
    parts = urlsplit(url)
    host = parts.netloc
    if host not in ("", "localhost") and sys.platform != "win32":
        raise UsageError(f"{url} names a file of another machine; write file:///path")
    share = f"//{host}" if host not in ("", "localhost") else ""
    return Path(url2pathname(share + parts.path))
