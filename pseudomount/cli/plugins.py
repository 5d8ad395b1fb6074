"""`pseudomount parsers`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

from pseudomount._plugins import FORMATS, PARSERS, load_plugins
from pseudomount.cli.output import FAINT, Output, aligned, paint
from pseudomount.cli.status import DAMAGED

__all__ = ["run_parsers"]


def run_parsers(*, json: bool) -> int:
    """Lists formats and parsers, with the distribution that each came with; one that does not load is damage.

    One that lacks a library of an extra is listed, with the reason, and is none.
    """
    out = Output(json=json)
    homes = {
        (group, point.value): (point.dist.name, point.dist.version) if point.dist else ("", "")
        for group in (FORMATS, PARSERS)
        for point in entry_points(group=group)
    }
    rows: list[tuple[str, str, str]] = []
    failures: list[str] = []
    for group, kind in ((FORMATS, "format"), (PARSERS, "parser")):
        loaded, failed = load_plugins(group)
        for plugin in loaded:
            name = str(getattr(plugin, "name", "?"))
            place = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
            home = next((home for (g, v), home in homes.items() if g == group and _same(v, plugin)), ("", ""))
            reason = str(getattr(plugin, "unavailable", ""))
            if json:
                about = {"kind": kind, "name": name, "class": place, "distribution": home[0], "version": home[1]}
                out.object({**about, "unavailable": reason} if reason else about)
            rows.append((kind, name, (" ".join(home) or place) + (f"  (unavailable: {reason})" if reason else "")))
        for failure in failed:
            failures.append(str(failure))
            if json:
                out.object({"kind": kind, "error": str(failure)})
    if not json:
        lines = aligned([("KIND", "NAME", "FROM"), *rows])
        out.lines([paint(lines[0], FAINT, out.colour), *lines[1:]])
    sys.stdout.flush()
    for failure_text in failures:
        print(f"pseudomount: {failure_text}", file=sys.stderr)
    return DAMAGED if failures else 0


def _same(value: str, plugin: object) -> bool:
    """Whether an entry point's value names the plug-in's class, which may be defined in a module below."""
    module, _, name = value.partition(":")
    return type(plugin).__qualname__ == name and type(plugin).__module__.startswith(module)
