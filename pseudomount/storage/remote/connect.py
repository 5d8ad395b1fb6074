"""From a location and options to a store that is ready to read."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from pseudomount.errors import UsageError
from pseudomount.storage.remote.store import ObjectStore
from pseudomount.storage.remote.urls import Location

if TYPE_CHECKING:
    from obstore.store import ClientConfig, MemoryStore, RetryConfig

__all__ = ["connect", "memory_store"]

#: Other tools' words for the same.
_ALIASES = {
    "anonymous": "skip_signature",
    "no_sign_request": "skip_signature",
    "endpoint_url": "endpoint",
    "account": "account_name",
}
_SECONDS = ("timeout", "connect_timeout", "retry_timeout", "retry_delay")
_FLAGS = ("allow_http", "allow_invalid_certificates", "skip_signature")
_CLIENT = ("allow_http", "allow_invalid_certificates", "proxy_url")
#: What the URL says.
_OF_URL = {"bucket", "bucket_name", "container", "container_name"}
_CONSTRUCTORS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}
_PREFIX = {"s3": "aws_", "gs": "google_", "az": "azure_storage_"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min)?")
_UNITS = {None: 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}

_memory: dict[str, MemoryStore] = {}
_memory_lock = threading.Lock()


def memory_store(name: str) -> MemoryStore:
    """The obstore `MemoryStore` behind `memory://name/…`, the same for all of this process; made where it is new.

    memory_store("lab").put("vm.img", data)
    open_backup("memory://lab/vm.img")
    """
    from obstore.store import MemoryStore

    with _memory_lock:
        return _memory.setdefault(name, MemoryStore())


def connect(location: Location, options: Mapping[str, str] | None = None) -> ObjectStore:
    """A store for what a URL names. No request is made yet.

    What the options do not say comes from the environment, as obstore reads it (`AWS_…`, `GOOGLE_…`,
    `AZURE_STORAGE_…`); for S3 also from the profile in `~/.aws`, see `pseudomount.storage.remote.aws`.

    Args:
        location: where; anything but a file.
        options: by keys of obstore's configuration of that kind of store, and: `timeout` of a request (60 s),
            `connect_timeout` (10 s), `max_retries` (6), `retry_timeout` after which a request is not tried again
            (60 s), `retry_delay` before the first retry (100 ms; it doubles), `allow_http`,
            `allow_invalid_certificates`, `proxy_url`, `anonymous`, `profile`.

    Raises:
        UsageError: an option is unknown or has no meaning; its value is never repeated.
    """
    settings = _normal(options or {}, location.kind)
    if location.kind == "memory":
        if settings:
            raise UsageError(f"store option {next(iter(settings))!r}: memory:// has no options")
        return ObjectStore(memory_store(location.bucket), url=location.root)
    client, retry = _client(settings), _retry(settings)
    if location.kind == "http":
        return _web(location, settings, client, retry)
    return _bucket(location, settings, client, retry)


def _bucket(location: Location, settings: dict[str, str], client: ClientConfig, retry: RetryConfig) -> ObjectStore:
    from obstore import store as obstore

    kind = location.kind
    extra: dict[str, Any] = {}
    if kind == "s3":
        from pseudomount.storage.remote.aws import complete

        extra = complete(settings)
    elif kind == "gs" and "endpoint" in settings:
        settings["base_url"] = settings.pop("endpoint")
    if location.account:
        settings.setdefault("account_name", location.account)
    endpoint = settings.get("endpoint") or settings.get("base_url") or _endpoint_of_environment(kind)
    if endpoint.startswith("http://"):  # whoever writes http:// means it
        client.setdefault("allow_http", True)
    make: Any = getattr(obstore, _CONSTRUCTORS[kind])
    try:
        made = make(location.bucket, config=dict(settings), client_options=client, retry_config=retry, **extra)
    except Exception as error:
        raise _refused(error, settings, kind, lambda some: make(location.bucket, config=some)) from None
    return ObjectStore(made, url=location.root)


def _web(location: Location, settings: dict[str, str], client: ClientConfig, retry: RetryConfig) -> ObjectStore:
    from base64 import b64encode

    from obstore.store import HTTPStore

    headers = {}
    for key in list(settings):
        if not key.startswith("header."):
            raise UsageError(f"store option {key!r} is none of a web server's; see docs/stores.md")
        headers[key.removeprefix("header.")] = settings.pop(key)
    if location.user:
        headers.setdefault("authorization", "Basic " + b64encode(location.user.encode()).decode("ascii"))
    if headers:
        client["default_headers"] = headers
    if location.root.startswith("http://"):
        client.setdefault("allow_http", True)
    try:
        # Presigned addresses have their signature in the query, which obstore sends with every name.
        url = location.root + (f"/?{location.query}" if location.query else "")
        made = HTTPStore(url, client_options=client, retry_config=retry)
    except Exception as error:
        raise UsageError(f"{location.root}: no such address or store option: {type(error).__name__}") from None
    return ObjectStore(made, url=location.root)


def _normal(options: Mapping[str, str], kind: str) -> dict[str, str]:
    """Options by obstore's keys: small letters, "_" for "-", without the prefix that they have in the environment."""
    settings: dict[str, str] = {}
    for key, value in options.items():
        if key.lower().startswith("header."):
            settings[key.lower()] = value
            continue
        plain = key.lower().replace("-", "_").removeprefix(_PREFIX.get(kind, ""))
        plain = _ALIASES.get(plain, plain)
        if plain in _OF_URL:
            raise UsageError(f"store option {key!r}: the URL says it")
        if plain in settings:
            raise UsageError(f"store option {key!r} is given twice")
        if plain in _FLAGS:
            settings[plain] = _flag(plain, value)
        else:
            settings[plain] = value
    return settings


def _client(settings: dict[str, str]) -> ClientConfig:
    client: ClientConfig = {
        "timeout": _seconds(settings, "timeout", 60),
        "connect_timeout": _seconds(settings, "connect_timeout", 10),
    }
    for key in _CLIENT:
        if key in settings:
            value = settings.pop(key)
            client[key] = value == "true" if key in _FLAGS else value  # type: ignore[literal-required]
    return client


def _retry(settings: dict[str, str]) -> RetryConfig:
    text = settings.pop("max_retries", "6")
    if not text.isascii() or not text.isdigit() or int(text) > 100:
        raise UsageError("store option 'max_retries' is a number up to 100")
    delay = _seconds(settings, "retry_delay", 0.1)
    return {
        "max_retries": int(text),
        "retry_timeout": _seconds(settings, "retry_timeout", 60),
        "backoff": {"init_backoff": delay, "max_backoff": max(delay, timedelta(seconds=10)), "base": 2},
    }


def _seconds(settings: dict[str, str], key: str, default: float) -> timedelta:
    text = settings.pop(key, None)
    if text is None:
        return timedelta(seconds=default)
    match = _DURATION.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < value <= 86_400:
        raise UsageError(f"store option {key!r} is a time such as 30s, 500ms or 2min")
    return timedelta(seconds=value)


def _flag(key: str, value: str) -> str:
    word = value.strip().lower()
    if word in ("true", "1", "yes", "on"):
        return "true"
    if word in ("false", "0", "no", "off"):
        return "false"
    raise UsageError(f"store option {key!r} is true or false")


def _endpoint_of_environment(kind: str) -> str:
    names = {
        "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "gs": ("GOOGLE_BASE_URL",),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
    return next((os.environ[name] for name in names[kind] if os.environ.get(name)), "")


def _refused(error: Exception, settings: Mapping[str, str], kind: str, make: Any) -> UsageError:
    """Which option obstore refused. It names the unknown ones; of others it repeats the value, which may be secret."""
    unknown = type(error).__name__ == "UnknownConfigurationKeyError"
    for key, value in settings.items():
        try:
            make({key: value})
        except Exception as again:
            if type(again) is type(error) and str(again) == str(error):
                if unknown:
                    return UsageError(f"store option {key!r} is none of {kind}://; see docs/stores.md")
                return UsageError(f"store option {key!r} has a value that has no meaning")
    if "MissingAccount" in str(error):
        return UsageError("which storage account? set AZURE_STORAGE_ACCOUNT_NAME or the store option account_name")
    return UsageError(f"these store options do not make a {kind}:// store ({type(error).__name__})")
