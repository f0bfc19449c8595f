"""Options that several commands share, and how their errors are reported."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.parsing import Form

UNAVAILABLE, INVALID, INTERRUPTED = 1, 2, 130

WorkerFile = Annotated[
    Path,
    typer.Option(
        "--worker", "-w", envvar="TIELINE_WORKER", help="The worker's settings, which name its broker."
    ),
]
Create = Annotated[bool, typer.Option("--create", help="Create the topic if it does not exist.")]
CommandTopic = Annotated[str, typer.Option("--topic", help="The topic of commands.")]
ResultsTopic = Annotated[str, typer.Option("--results", help="The sink's results.topic.")]
Issuer = Annotated[
    str | None,
    typer.Option(
        envvar="TIELINE_ISSUER", help="The issuer, as the policy names it. Default: the login name."
    ),
]
Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=604_800,
        help="Seconds to wait for results; 0: do not wait. Default: until 10 s after the last expiry.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print each result as one JSON object.")]
SignWith = Annotated[
    Path | None, typer.Option(help="Sign with the key in this file: base64, with or without a leading name:.")
]

Platform = Annotated[
    str | None,
    typer.Option(
        envvar="TIELINE_PLATFORM", help="The platform.name that it is for; another platform rejects it."
    ),
]


class FormOption(str, enum.Enum):
    """How a command is written into its topic."""

    AVRO = "avro"
    JSON = "json"
    OLD = "old"

    @property
    def form(self) -> Form:
        """The form as `parsing` names it."""
        return self.value


FormOf = Annotated[
    FormOption | None,
    typer.Option(
        "--form", help="avro, json (for value.converter=json), old. Default: the form of the input."
    ),
]


@contextmanager
def report_errors(screen: Screen) -> Iterator[None]:
    """Report an error of options and files as one sentence and an exit status."""
    try:
        yield
    except ValueError as error:
        screen.say(str(error), "red")
        raise typer.Exit(INVALID) from None
