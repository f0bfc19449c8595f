"""Options that several commands of the program share, and how their errors end."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.parsing import Form

AWAY, WRONG, INTERRUPTED = 1, 2, 130

WorkerFile = Annotated[
    Path,
    typer.Option(
        "--worker", "-w", envvar="TIELINE_WORKER", help="The worker's settings: where its broker is."
    ),
]
Create = Annotated[bool, typer.Option("--create", help="Make the topic if it is not there.")]
CommandTopic = Annotated[str, typer.Option("--topic", help="The topic of commands.")]
ResultsTopic = Annotated[str, typer.Option("--results", help="The sink's results.topic.")]
Issuer = Annotated[
    str | None,
    typer.Option(envvar="TIELINE_ISSUER", help="Who asks; the policy knows this name. Else: the login name."),
]
Wait = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=604_800,
        help="Seconds to wait for results; 0: not at all. Else: until 10 s after the last expiry.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a result.")]
SignWith = Annotated[
    Path | None, typer.Option(help="Sign with the key in this file: base64, perhaps with name: in front.")
]

Platform = Annotated[
    str | None,
    typer.Option(
        envvar="TIELINE_PLATFORM", help="The platform.name that it is for; another platform refuses it."
    ),
]


class FormOption(str, enum.Enum):
    """How a command is written into its topic."""

    AVRO = "avro"
    JSON = "json"
    OLD = "old"

    @property
    def form(self) -> Form:
        """The same for `asking`."""
        return self.value


FormOf = Annotated[
    FormOption | None,
    typer.Option("--form", help="avro, json (for value.converter=json), old. Else: old for the old form."),
]


@contextmanager
def report_errors(screen: Screen) -> Iterator[None]:
    """What is wrong with options and files, as one sentence and an exit status."""
    try:
        yield
    except ValueError as error:
        screen.say(str(error), "red")
        raise typer.Exit(WRONG) from None
