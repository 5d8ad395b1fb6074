"""Where secondary copies lie."""

from pseudomount.storage.contract import Store

__all__ = ["Store"]
