"""Block devices and their layers."""

from pseudomount.device.contract import (
    BATCH_BUDGET,
    BlockDevice,
    ExtentKind,
    ExtentMap,
    ReadBatch,
    Streamed,
    stream_many,
)

__all__ = [
    "BATCH_BUDGET",
    "BlockDevice",
    "ExtentKind",
    "ExtentMap",
    "ReadBatch",
    "Streamed",
    "stream_many",
]
