"""Whether an XFS log was written back.

A log is clean where its last record is the one that an unmount writes. Source: XFS Algorithms and Data Structures,
"Journaling Log": a log is a ring of 512-byte blocks; each begins with the number of the cycle in which it was written,
but for a record's header, which begins with a magic number and has the cycle behind it.
"""

from __future__ import annotations

import struct
from typing import Final

from pseudomount.device import BlockDevice
from pseudomount.errors import CorruptionError

__all__ = ["log_is_dirty"]

_BLOCK: Final = 512
_MAGIC: Final = 0xFEEDBABE
_UNMOUNT: Final = 0x20
_HEADER_CYCLES: Final = 32768
#: Bytes behind which the last record's header is: a record has at most 256 KiB, and some headers.
_LOOK_BACK: Final = 320 << 10


def _cycle(block: bytes) -> int:
    first, second = struct.unpack_from(">II", block)
    return int(second if first == _MAGIC else first)


def log_is_dirty(device: BlockDevice, start: int, length: int) -> bool:
    """Whether the log of `length` bytes at `start` has something to replay."""
    blocks = length // _BLOCK
    if blocks < 2 or start + length > device.size:
        raise CorruptionError(f"a log of {length} bytes at {start}", device=device.name, offset=start, structure="log")
    first = _cycle(device.read(start, _BLOCK))
    if not first:
        return False
    # The head is the first block that the current cycle has not reached: it bears another number than block 0.
    low, high = 0, blocks
    while high - low > 1:
        middle = (low + high) // 2
        if _cycle(device.read(start + middle * _BLOCK, _BLOCK)) == first:
            low = middle
        else:
            high = middle
    window = min(_LOOK_BACK, length - _BLOCK)
    begin = high * _BLOCK - window
    if begin >= 0:
        data = device.read(start + begin, window)
    else:
        data = device.read(start + length + begin, -begin) + device.read(start, window + begin)
    for at in range(window - _BLOCK, -1, -_BLOCK):
        if struct.unpack_from(">I", data, at)[0] != _MAGIC:
            continue
        version, operations = struct.unpack_from(">I", data, at + 8)[0], struct.unpack_from(">I", data, at + 40)[0]
        size = struct.unpack_from(">I", data, at + 320)[0] if version == 2 else _HEADER_CYCLES
        operation = at + _BLOCK * max(-(-size // _HEADER_CYCLES), 1)
        if operations != 1 or operation + 12 > len(data):
            return True
        return not data[operation + 9] & _UNMOUNT
    raise CorruptionError("the log has no record before its head", device=device.name, offset=start, structure="log")
