"""``tieline command history``: what became of commands, from the results topic of a worker."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Annotated, Any, NamedTuple

import typer

from tieline.api import RetriableError
from tieline.api.commands import CommandContext, TopicFollower
from tieline_connectors.command.cli import parsing
from tieline_connectors.command.cli.display import Screen, time_of
from tieline_connectors.command.cli.options import AsJson, ResultsTopic, WorkerFile, report_errors
from tieline_connectors.command.model.point import key_of

_LOOK = 0.5
_PATIENCE = 30.0


def history(
    context: typer.Context,
    worker: WorkerFile,
    point: Annotated[str | None, typer.Option(help="Only commands of this point, or device.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Only commands of this issuer.")] = None,
    command_id: Annotated[
        str | None, typer.Option("--command", help="Only the command with this id.")
    ] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; more than once: any.")] = None,
    since: Annotated[str, typer.Option(help="How far back, such as 15m, 2h, 30d.")] = "1d",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 20,
    every: Annotated[
        bool, typer.Option("--all", help="Each state of each command, not only the last.")
    ] = False,
    results: ResultsTopic = "command-results",
    as_json: AsJson = False,
) -> None:
    """Show what became of commands, the newest last; beside a running worker too.

    It reads the results topic, as far back as the broker keeps it. What the MongoDB sink has kept
    (layout command-history): tieline query --history.

    Exit status: 0, 1 the broker is away or refuses, 2 wrong options.
    """
    screen = Screen(as_json)
    with report_errors(screen):
        start = time.time_ns() // 1_000_000 - int(parsing.seconds_of(since, "--since") * 1000)
        wanted = _Wanted(point, issuer, command_id, state or ())
        program: CommandContext = context.obj
        with program.topics(worker) as topics:
            found = _latest(topics.reader(results, since=max(0, start)), wanted, limit, every)
        for value in sorted(found, key=lambda value: str(value.get("at"))):
            issuer = value.get("issuer") or "-"
            screen.result(value, f"{time_of(value.get('at'))}  {value['command_id']}  {issuer}")
        if not found:
            screen.say(f"{results} has no such result of the last {since}")


class _Wanted(NamedTuple):
    point: str | None
    issuer: str | None
    command_id: str | None
    states: Collection[str]

    def fits(self, value: Mapping[str, Any]) -> bool:
        return (
            self.command_id in (None, value["command_id"])
            and self.issuer in (None, value.get("issuer"))
            and (not self.states or value.get("state") in self.states)
            and (self.point is None or any(map(self._is_there, value.get("writes") or ())))
        )

    def _is_there(self, write: Any) -> bool:
        asked = key_of(self.point or "")
        found = key_of(str(write.get("point"))) if isinstance(write, Mapping) else ""
        return found == asked or found.startswith(f"{asked}/")


def _latest(reader: TopicFollower, wanted: _Wanted, limit: int, every: bool) -> list[Mapping[str, Any]]:
    """The newest ``limit`` results that fit: of each command the last one, or ``every`` one."""
    kept: dict[Any, Mapping[str, Any]] = {}
    patience = time.monotonic() + _PATIENCE
    while not reader.at_end:
        try:
            records = reader.poll(_LOOK)
        except RetriableError:
            if time.monotonic() > patience:
                raise
            time.sleep(_LOOK)
            continue
        for record in records:
            value = record.value
            if isinstance(value, Mapping) and isinstance(value.get("command_id"), str):
                told = str(value.get("state")), str(value.get("at"))
                key = (value["command_id"], *told) if every else value["command_id"]
                kept.pop(key, None)  # a later state takes its place, at its end
                if wanted.fits(value):
                    kept[key] = value
                    if len(kept) > limit:
                        del kept[next(iter(kept))]
    return list(kept.values())
