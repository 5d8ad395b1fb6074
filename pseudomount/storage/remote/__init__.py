"""Object stores and web servers as stores: `s3://`, `gs://`, `az://`, `https://`, `memory://`.

obstore, which speaks to them, is imported when a store is made, not before.
"""

from pseudomount.storage.remote.connect import connect, memory_store
from pseudomount.storage.remote.store import ObjectStore
from pseudomount.storage.remote.urls import Location, is_url, parse_url

__all__ = ["Location", "ObjectStore", "connect", "is_url", "memory_store", "parse_url"]
