"""The commands and their options. What they do is in modules that are imported when they run."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pseudomount.cli.complete import bash_words
from pseudomount.cli.options import (
    BackingRootOption,
    Common,
    CountersFlag,
    DeletedFlag,
    DiskOption,
    JsonFlag,
    LongSettingOption,
    OptionalPath,
    ParserOption,
    PathArguments,
    SettingOption,
    SourceArgument,
    StoreOption,
)
from pseudomount.cli.status import PIPE_CLOSED, is_broken_pipe, report, silence_stdout

__all__ = ["app"]


class _Commands(TyperGroup):
    """Turns whatever ends a command into one line and an exit status."""

    def main(
        self,
        args: Any = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = False,
        **extra: Any,
    ) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a console that cannot show a character must not end the command
                stream.reconfigure(errors="backslashreplace")
        try:
            with bash_words():
                # Patterns such as *.conf are for names inside the backup: Windows must not expand them to files here.
                status = super().main(
                    args, prog_name, complete_var, standalone_mode=False, windows_expand_args=False, **extra
                )
        except Exception as error:
            status = report(error)
        status = status if isinstance(status, int) else 0
        if standalone_mode:
            sys.exit(status)
        return status

    def invoke(self, ctx: Any) -> Any:
        try:
            status = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt as error:
            return report(error)
        except OSError as error:
            if not is_broken_pipe(error):
                raise
            silence_stdout()
            return PIPE_CLOSED
        return status


app = typer.Typer(
    name="pseudomount",
    cls=_Commands,
    help="Browse the inside of virtual-machine backups and get files back: no hypervisor, no mount, no privileges.",
    epilog="Exit status: 0 done, 1 not there, 2 wrong usage, 3 damaged or not supported. Try `pseudomount demo` first.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False,
) -> int:
    if version:
        from pseudomount import __version__

        print(f"pseudomount {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
    return 0


def _common(
    source: str,
    disk: list[str] | None,
    parser: str | None,
    option: list[str] | None,
    json: bool,
    counters: bool,
    store_option: list[str] | None,
) -> Common:
    return Common((source, *(disk or ())), parser, tuple(option or ()), json, counters, tuple(store_option or ()))


def _settings(option: list[str] | None, backing_root: str | None) -> list[str]:
    return [*(option or ()), *([f"backing_root={backing_root}"] if backing_root is not None else ())]


@app.command()
def info(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="The disk images: paths or URLs.", show_default=False)
    ],
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="More about each volume.")] = False,
    json: JsonFlag = False,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Show disks, volumes, file systems, and what is wrong with them."""
    from pseudomount.cli.info import run_info

    common = Common(
        tuple(source), parser, tuple(_settings(option, backing_root)), json, counters, tuple(store_option or ())
    )
    return run_info(common, verbose=verbose)


@app.command("ls")
def ls_(
    source: SourceArgument,
    path: OptionalPath = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="Mode, links, owner, size, time (UTC).")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Folders below as well.")] = False,
    human: Annotated[bool, typer.Option("-h", "--human", help="With -l: sizes as 1.2 MiB.")] = False,
    every: Annotated[bool, typer.Option("-a", "--all", hidden=True)] = False,  # for fingers that are used to it
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """List a folder, hidden files too. Without PATH, the volumes, or the root of the only one that can be browsed."""
    from pseudomount.cli.ls import run_ls

    common = _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option)
    return run_ls(
        common,
        path,
        long=long,
        recursive=recursive,
        human=human,
    )


@app.command("stat")
def stat_(
    source: SourceArgument,
    path: PathArguments,
    follow: Annotated[bool, typer.Option("-L", "--follow", help="Show what a link leads to, not the link.")] = False,
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Show everything that is known of a file: exact times, owner, attributes, streams."""
    from pseudomount.cli.stat import run_stat

    return run_stat(
        _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option),
        path,
        follow=follow,
    )


@app.command()
def cat(
    source: SourceArgument,
    path: PathArguments,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON: a line for each piece, its bytes in base64.")
    ] = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Write the content of files to standard output, byte for byte."""
    from pseudomount.cli.cat import run_cat

    return run_cat(_common(source, disk, parser, _settings(option, backing_root), json, counters, store_option), path)


@app.command()
def find(
    source: SourceArgument,
    path: OptionalPath = None,
    name: Annotated[str | None, typer.Option("--name", metavar="GLOB", help="Names such as '*.conf'.")] = None,
    iname: Annotated[str | None, typer.Option("--iname", metavar="GLOB", help="The same, whatever the case.")] = None,
    regex: Annotated[
        str | None, typer.Option("--regex", metavar="REGEX", help="Anywhere in the path, as in '/ssh/.*_key'.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--type", metavar="LETTERS", help="f file, d folder, l link, c b devices, p pipe, s socket: 'f,l'."
        ),
    ] = None,
    min_size: Annotated[
        str | None, typer.Option("--min-size", metavar="SIZE", help="Files of at least this size: 10M, 2GiB, 1500.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Files of at most this size.")
    ] = None,
    newer: Annotated[
        str | None,
        typer.Option("--newer", metavar="DATE", help="Modified at or after: 2024-03-01, 2024-03-01T02:30+01:00."),
    ] = None,
    older: Annotated[
        str | None, typer.Option("--older", metavar="DATE", help="Modified before; UTC unless the date says otherwise.")
    ] = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="As ls -l shows them.")] = False,
    human: Annotated[bool, typer.Option("-h", "--human", help="With -l: sizes as 1.2 MiB.")] = False,
    deleted: DeletedFlag = False,
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Search below a folder; without PATH, in all volumes. What it prints can be given to cat and get as it is."""
    from pseudomount.cli.filters import Filters
    from pseudomount.cli.find import run_find

    filters = Filters.parse(
        name=name, iname=iname, regex=regex, types=kind, min_size=min_size, max_size=max_size, newer=newer, older=older
    )
    common = _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option)
    return run_find(common, path, filters, long=long, human=human, deleted=deleted)


@app.command()
def du(
    source: SourceArgument,
    path: OptionalPath = None,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=0, help="So many levels of folders; by default all.")
    ] = None,
    human: Annotated[bool, typer.Option("-h", "--human", help="Sizes as 1.2 MiB.")] = False,
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Show what folders hold, all below them included: bytes on disk, bytes of the files, number of files."""
    from pseudomount.cli.du import run_du

    return run_du(
        _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option),
        path,
        depth=depth,
        human=human,
    )


@app.command()
def catalogue(
    source: SourceArgument,
    volume: Annotated[
        str | None,
        typer.Argument(
            metavar="VOLUME", help="Such as disk0p2; needed where several can be browsed.", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="FILE.parquet, .csv, .jsonl or .body; replaced if there is one."
        ),
    ] = None,
    bodyfile: Annotated[
        bool, typer.Option("--bodyfile", help="A body file for mactime, on standard output without -o.")
    ] = False,
    deleted: DeletedFlag = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Without the columns that only some file systems have.")
    ] = False,
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: LongSettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Write a table of all files of a volume, one row a name: for pandas, polars, DuckDB, Spark, or a timeline."""
    from pseudomount.cli.catalogue import run_catalogue

    return run_catalogue(
        _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option),
        volume,
        output,
        bodyfile=bodyfile,
        deleted=deleted,
        own=not plain,
    )


@app.command()
def get(
    source: SourceArgument,
    path: PathArguments,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Where to; made if need be.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say every file.")] = False,
    json: JsonFlag = False,
    disk: DiskOption = None,
    parser: ParserOption = None,
    option: SettingOption = None,
    backing_root: BackingRootOption = None,
    store_option: StoreOption = None,
    counters: CountersFlag = False,
) -> int:
    """Get files and whole folders back, with their times.

    Nothing is written outside DIR, whatever the backup holds. A PATH that is a link is followed; links below a folder
    stay links.
    """
    from pseudomount.cli.get import run_get

    common = _common(source, disk, parser, _settings(option, backing_root), json, counters, store_option)
    return run_get(common, path, to, force=force, verbose=verbose)


@app.command()
def parsers(json: JsonFlag = False) -> int:
    """Show the formats and file systems that can be read, and the plug-ins that do it."""
    from pseudomount.cli.plugins import run_parsers

    return run_parsers(json=json)


@app.command()
def demo(
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="DIR", help="Leave the sample disk in DIR for trying things.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Open a sample disk that the package brings and get a file back, saying what happens."""
    from pseudomount.cli.demo import run_demo

    return run_demo(keep, json=json)
