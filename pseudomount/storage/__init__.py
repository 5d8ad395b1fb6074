"""Where secondary copies lie."""

from pseudomount.storage.contract import Store
from pseudomount.storage.local import LocalStore
from pseudomount.storage.remote import ObjectStore

__all__ = ["LocalStore", "ObjectStore", "Store"]
