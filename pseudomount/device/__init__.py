"""Block devices and their layers."""

from pseudomount.device.cache import CacheDevice
from pseudomount.device.concat import ConcatDevice
from pseudomount.device.contract import (
    BATCH_BUDGET,
    BlockDevice,
    ExtentKind,
    ExtentMap,
    ReadBatch,
    Streamed,
    stream_many,
)
from pseudomount.device.layer import Layer
from pseudomount.device.mapped import MappedDevice
from pseudomount.device.overlay import OverlayDevice
from pseudomount.device.pseudodisk import Counters, Fetch, PseudoDisk, RangeStore, Verify
from pseudomount.device.reader import DeviceReader, open_reader
from pseudomount.device.slice import SliceDevice
from pseudomount.device.trace import TraceDevice

__all__ = [
    "BATCH_BUDGET",
    "BlockDevice",
    "CacheDevice",
    "ConcatDevice",
    "Counters",
    "DeviceReader",
    "ExtentKind",
    "ExtentMap",
    "Fetch",
    "Layer",
    "MappedDevice",
    "OverlayDevice",
    "PseudoDisk",
    "RangeStore",
    "ReadBatch",
    "SliceDevice",
    "Streamed",
    "TraceDevice",
    "Verify",
    "open_reader",
    "stream_many",
]
