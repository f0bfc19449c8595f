"""``tieline dev``: run one source or sink from one file, while it is being written."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import IO, Annotated

import typer

from tieline.api import StartupError
from tieline.api.commands import until_interrupted
from tieline.cli.commands.consume import View
from tieline.config.files import read_settings
from tieline.plugins.discovery import SOURCES


def dev(
    file: Annotated[Path, typer.Argument(help="A Python file with a source or a sink.")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The class to run, if the file has several.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="key=value, a setting of the connector; may be repeated."),
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="A file of settings: YAML, JSON or .properties.")
    ] = None,
    lines: Annotated[
        Path | None,
        typer.Option("--input", help="What a sink gets: lines of JSON or text. Default: standard input."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when the source is idle, or at the first failure.")
    ] = False,
    output: Annotated[
        View,
        typer.Option(
            "--format", help="Rows, or one line of JSON per record; auto prints rows on a terminal."
        ),
    ] = View.AUTO,
) -> None:
    """Run a source or a sink from one file, without packaging it, and reload it when a file changes.

    The files are this one, each local module that it imports, and the file of settings.

    A source's records are printed as they come; a sink gets the lines of standard input or of a file, and
    the command ends after the last one. The worker is a real one, on a temporary local log: offsets
    continue across a reload, and are gone at the end. Exit status: 0; 1 if the task failed; 2 if nothing
    was started.
    """
    from tieline.cli.consuming.screen import JsonLines, TableRows, silence_stdout
    from tieline.cli.developing.loop import DevLoop, DevSettings

    is_rows = output is View.ROWS or (output is View.AUTO and sys.stdout.isatty())
    files = () if settings_file is None else (settings_file,)
    given = DevSettings(lambda: _settings(settings or (), settings_file), files)
    given.read()  # an error in them comes before any other
    status = 0
    with tempfile.TemporaryDirectory(prefix="tieline-dev-") as folder:
        loop = DevLoop(Path(folder), file, class_name, given, once)
        author_class = loop.classify()
        try:
            with until_interrupted():
                if author_class.group == SOURCES:
                    if lines is not None:
                        raise StartupError(f"{author_class.name} is a source; --input is for a sink")
                    status = loop.run_source(author_class, TableRows() if is_rows else JsonLines())
                else:
                    with _open(lines) as stream:
                        status = loop.run_sink(author_class, stream)
        except BrokenPipeError:
            silence_stdout()
    if status:
        raise typer.Exit(status)


def _settings(pairs: list[str] | tuple[()], path: Path | None) -> dict[str, str]:
    """Return the settings of the file, with those of the command line over them. Raises ``ConfigError``."""
    settings = {} if path is None else dict(read_settings(path))
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise StartupError(f"--set {pair}: give key=value")
        settings[key] = value
    return settings


def _open(path: Path | None) -> IO[bytes]:
    if path is None or path == Path("-"):
        return sys.stdin.buffer
    try:
        return path.open("rb")
    except OSError as error:
        raise StartupError(f"{path} cannot be read: {error.strerror}") from error
