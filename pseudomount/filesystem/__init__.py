"""What a person browses: the FileSystem contract, its columns, and paths."""

from pseudomount.filesystem.columns import NAT, Names, TimeColumn, gather_ranges
from pseudomount.filesystem.contract import (
    ASKED_FOR,
    DataRuns,
    FileRows,
    FileSystem,
    FileType,
    LinkRows,
    Looked,
    Match,
    NameEncoding,
    Parser,
    RunKind,
    StreamInfo,
    Targets,
)
from pseudomount.filesystem.names import escape, printable, unescape
from pseudomount.filesystem.scan import ScanBatch, ScanLinks, ScanStreams

__all__ = [
    "ASKED_FOR",
    "NAT",
    "DataRuns",
    "FileRows",
    "FileSystem",
    "FileType",
    "LinkRows",
    "Looked",
    "Match",
    "NameEncoding",
    "Names",
    "Parser",
    "RunKind",
    "ScanBatch",
    "ScanLinks",
    "ScanStreams",
    "StreamInfo",
    "Targets",
    "TimeColumn",
    "escape",
    "gather_ranges",
    "printable",
    "unescape",
]
