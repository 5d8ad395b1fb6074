"""Container formats: what a backup tool wrote → extent indexes."""

from pseudomount.formats.contract import Disk, Format, Source

__all__ = ["Disk", "Format", "Source"]
