"""Parsers and formats are plug-ins, found by entry point, ours like everyone's."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from pseudomount.errors import PluginError

__all__ = ["FORMATS", "PARSERS", "load_plugins", "plugin_names"]

PARSERS = "pseudomount.parsers"
FORMATS = "pseudomount.formats"


@cache
def _points(group: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=group), key=lambda point: point.name))


def plugin_names(group: str) -> list[str]:
    """The names of a group's plug-ins, without loading any."""
    return [point.name for point in _points(group)]


@cache
def load_plugins(group: str) -> tuple[tuple[object, ...], tuple[PluginError, ...]]:
    """One instance of each plug-in of a group, in the order of their names, and why the others could not be loaded."""
    loaded: list[object] = []
    failed: list[PluginError] = []
    for point in _points(group):
        try:
            loaded.append(point.load()())
        except Exception as error:
            failed.append(PluginError(f"plug-in {point.name!r} ({point.value}) does not load: {error}"))
    return tuple(loaded), tuple(failed)
