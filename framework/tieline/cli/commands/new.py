"""``tieline new``: a distribution of one's own to begin with, copied from one that works."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from tieline.api import StartupError

new = typer.Typer(help="Begin a plugin of your own.", no_args_is_help=True)

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@new.callback()
def group() -> None:
    """Keep ``connector`` a command of its own, though it is the only one."""


@new.command()
def connector(
    name: Annotated[str, typer.Argument(help="Its name, such as my-meter: what connector.class will say.")],
    source: Annotated[bool, typer.Option("--source", help="It brings records in.")] = False,
    sink: Annotated[bool, typer.Option("--sink", help="It takes records out.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where to; else tieline-NAME.")] = None,
) -> None:
    """Make a distribution with a connector that works, its tests and a README."""
    if source == sink:
        raise StartupError("say which: --source or --sink")
    if not _NAME.fullmatch(name) or len(name) > 50:
        told = "a name is of lower case letters and digits, with hyphens between, and begins with a letter"
        raise StartupError(f"{name!r}: {told}")
    to = folder or Path(f"tieline-{name}")
    if to.exists() and any(to.iterdir() if to.is_dir() else [to]):
        raise StartupError(f"{to} is there already, and not empty; give another --folder")
    kind = "source" if source else "sink"
    _copy(resources.files("tieline_template").joinpath(kind), to, name)
    typer.echo(f"{to} is a {kind} that works. Next:\n")
    typer.echo(f"    cd {to}\n    pip install -e '.[test]'\n    pytest\n")
    typer.echo("README.md tells how to run it, and where your own code goes.")


def _copy(template: Any, to: Path, name: str) -> None:
    """``template``: a folder of ``importlib.resources``."""
    to.mkdir(parents=True, exist_ok=True)
    for entry in template.iterdir():
        if entry.name.startswith((".", "__pycache__")) or entry.name.endswith(".egg-info"):
            continue
        target = to / _named(entry.name, name)
        if entry.is_dir():
            _copy(entry, target, name)
        else:
            target.write_text(_named(entry.read_text("utf-8"), name), "utf-8")


def _named(text: str, name: str) -> str:
    """The template calls itself acme, as a module tieline_acme, as a class Acme."""
    words = name.split("-")
    new = {
        "tieline_acme": f"tieline_{'_'.join(words)}",
        "Acme": "".join(map(str.capitalize, words)),
        "acme": name,
    }
    return re.sub(
        "|".join(new), lambda found: new[found[0]], text
    )  # at once: the name may have an acme in it
