"""Where secondary copies lie."""

from pseudomount.storage.contract import Store
from pseudomount.storage.local import LocalStore

__all__ = ["LocalStore", "Store"]
