"""For tests of devices, indexes and parsers, ours and a third party's.

The devices need nothing but pseudomount. The conformance suites are modules of their own, because they need pytest and
Hypothesis: `pseudomount.testing.device_conformance`.
"""

from pseudomount.testing.devices import (
    CounterDevice,
    FaultDevice,
    LatencyDevice,
    MemoryDevice,
    PatternDevice,
    pattern,
)

__all__ = [
    "CounterDevice",
    "FaultDevice",
    "LatencyDevice",
    "MemoryDevice",
    "PatternDevice",
    "pattern",
]
