"""The extent index: disk offset → extent."""

from pseudomount.extents._pieces import walk
from pseudomount.extents.columns import ColumnIndex
from pseudomount.extents.contract import RAW, Codec, ExtentIndex, Kind, Resolved
from pseudomount.extents.overlay import OverlayIndex
from pseudomount.extents.paged import PagedIndex

__all__ = ["RAW", "Codec", "ColumnIndex", "ExtentIndex", "Kind", "OverlayIndex", "PagedIndex", "Resolved", "walk"]
