"""Options and arguments that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pseudomount.cli.complete import complete_parser, complete_path

__all__ = [
    "BackingRootOption",
    "Common",
    "CountersFlag",
    "DeletedFlag",
    "DiskOption",
    "JsonFlag",
    "LongSettingOption",
    "OptionalPath",
    "ParserOption",
    "PathArguments",
    "SettingOption",
    "SourceArgument",
    "StoreOption",
]

_OPENING = "Opening"

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="The disk image: a path, or s3://bucket/vm.img, gs://…, az://…, https://….",
        show_default=False,
    ),
]
OptionalPath = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH",
        help="VOLUME:/folder, as in disk0p2:/etc; /folder will do where one only can be browsed.",
        autocompletion=complete_path,
        show_default=False,
    ),
]
PathArguments = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="VOLUME:/folder/file, as in disk0p2:/etc/fstab; /folder/file will do where one only can be browsed.",
        autocompletion=complete_path,
        show_default=False,
    ),
]
DiskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--disk",
        metavar="FILE",
        help="A further disk, or piece, of the same machine; may be repeated.",
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
ParserOption = Annotated[
    str | None,
    typer.Option(
        "--parser",
        metavar="NAME",
        help="Read every volume with this parser, see `pseudomount parsers`.",
        autocompletion=complete_parser,
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--option",
        metavar="KEY=VALUE",
        help="A setting of a format or parser; may be repeated.",
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
LongSettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="A setting of a format or parser; may be repeated.",
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
StoreOption = Annotated[
    list[str] | None,
    typer.Option(
        "--store-option",
        metavar="KEY=VALUE",
        help="A setting of the store that a URL leads to, as in region=eu-west-1; may be repeated.",
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
BackingRootOption = Annotated[
    str | None,
    typer.Option(
        "--backing-root",
        metavar="FOLDER",
        help="Look here for the backing files that an image names, not in its own folder only.",
        rich_help_panel=_OPENING,
        show_default=False,
    ),
]
DeletedFlag = Annotated[bool, typer.Option("--deleted", help="What was deleted as well; it is marked as such.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
CountersFlag = Annotated[
    bool, typer.Option("--counters", help="Say on stderr how much was read of each disk.", rich_help_panel=_OPENING)
]


@dataclass(frozen=True, slots=True)
class Common:
    """What every command on a backup is given.

    Attributes:
        sources: the files.
        parser: name of the parser to use, None for the surest.
        settings: "KEY=VALUE" texts.
        json: whether to print JSON.
        counters: whether to print counters.
        store_settings: "KEY=VALUE" texts.
    """

    sources: tuple[str, ...]
    parser: str | None = None
    settings: tuple[str, ...] = ()
    json: bool = False
    counters: bool = False
    store_settings: tuple[str, ...] = ()
