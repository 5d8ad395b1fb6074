"""The extent index: disk offset → extent."""

from pseudomount.extents.contract import RAW, Codec, ExtentIndex, Kind, Resolved

__all__ = ["RAW", "Codec", "ExtentIndex", "Kind", "Resolved"]
