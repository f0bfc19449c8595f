"""``tieline new``: start a plugin as a copy of a working one."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from tieline.api import StartupError

new = typer.Typer(help="Start a plugin of your own.", no_args_is_help=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@new.callback()
def group() -> None:
    """Keep ``connector`` a subcommand, although it is the only one."""


@new.command()
def connector(
    name: Annotated[str, typer.Argument(help="The connector's name, such as my-meter: its connector.class.")],
    source: Annotated[
        bool, typer.Option("--source", help="Create a source, which brings records in.")
    ] = False,
    sink: Annotated[bool, typer.Option("--sink", help="Create a sink, which takes records out.")] = False,
    http: Annotated[
        bool, typer.Option("--http", help="Start from one that polls, or posts to, an HTTP service.")
    ] = False,
    folder: Annotated[Path | None, typer.Option(help="The folder to create. Default: tieline-NAME.")] = None,
) -> None:
    """Create a distribution with a working connector, its tests and a README."""
    if source == sink:
        raise StartupError("give either --source or --sink")
    if not _NAME.fullmatch(name) or len(name) > 50:
        rule = "a name has lower case letters, digits and single hyphens, and begins with a letter"
        raise StartupError(f"{name!r}: {rule}")
    to = folder or Path(f"tieline-{name}")
    if to.exists() and any(to.iterdir() if to.is_dir() else [to]):
        raise StartupError(f"{to} exists and is not empty; give another --folder")
    kind = "source" if source else "sink"
    for template in (kind, f"http_{kind}") if http else (kind,):  # the second one replaces files of the first
        _copy(resources.files("tieline_template").joinpath(template), to, name)
    typer.echo(f"{to} is a {kind} that works. Next:\n")
    typer.echo(f"    cd {to}\n    pip install -e '.[test]'\n    pytest\n")
    typer.echo("README.md explains how to run it, and where your own code goes.")


def _copy(template: Any, to: Path, name: str) -> None:
    """Copy a folder of ``importlib.resources``, with the template's names replaced."""
    to.mkdir(parents=True, exist_ok=True)
    for entry in template.iterdir():
        if entry.name.startswith((".", "__pycache__")) or entry.name.endswith(".egg-info"):
            continue
        target = to / _replace_names(entry.name, name)
        if entry.is_dir():
            _copy(entry, target, name)
        else:
            target.write_text(_replace_names(entry.read_text("utf-8"), name), "utf-8")


def _replace_names(text: str, name: str) -> str:
    """Replace the template's names: acme, its module tieline_acme and its classes Acme…"""
    words = name.split("-")
    new = {
        "tieline_acme": f"tieline_{'_'.join(words)}",
        "Acme": "".join(map(str.capitalize, words)),
        "acme": name,
    }
    return re.sub(
        "|".join(new), lambda found: new[found[0]], text
    )  # at once: the name may have an acme in it
