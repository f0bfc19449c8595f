"""``tieline command history``: the results of commands, from the results topic of a worker."""

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

_POLL_TIME = 0.5
_TIMEOUT = 30.0


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
    limit: Annotated[
        int, typer.Option(min=1, max=100_000, help="The most results to show, the newest.")
    ] = 20,
    every: Annotated[
        bool, typer.Option("--all", help="Each state of each command, not only the last.")
    ] = False,
    results: ResultsTopic = "command-results",
    as_json: AsJson = False,
) -> None:
    """Show the results of commands, the newest last, also beside a running worker.

    It reads the results topic, as far back as the broker keeps it. For the results that the MongoDB sink has
    stored (layout command-history), use tieline query --history.

    Exit status: 0, 1 the broker is unavailable or rejects the request, 2 invalid options.
    """
    screen = Screen(as_json)
    with report_errors(screen):
        start = time.time_ns() // 1_000_000 - int(parsing.seconds_of(since, "--since") * 1000)
        wanted = _Filter(point, issuer, command_id, state or ())
        command_context: CommandContext = context.obj
        with command_context.topics(worker) as topics:
            values = _latest(topics.reader(results, since=max(0, start)), wanted, limit, every)
        for value in sorted(values, key=lambda value: str(value.get("at"))):
            issuer = value.get("issuer") or "-"
            screen.result(value, f"{time_of(value.get('at'))}  {value['command_id']}  {issuer}")
        if not values:
            screen.say(f"{results} has no such result in the last {since}")


class _Filter(NamedTuple):
    point: str | None
    issuer: str | None
    command_id: str | None
    states: Collection[str]

    def matches(self, value: Mapping[str, Any]) -> bool:
        return (
            self.command_id in (None, value["command_id"])
            and self.issuer in (None, value.get("issuer"))
            and (not self.states or value.get("state") in self.states)
            and (self.point is None or any(map(self._is_of_point, value.get("writes") or ())))
        )

    def _is_of_point(self, write: Any) -> bool:
        wanted = key_of(self.point or "")
        point = key_of(str(write.get("point"))) if isinstance(write, Mapping) else ""
        return point == wanted or point.startswith(f"{wanted}/")


def _latest(reader: TopicFollower, wanted: _Filter, limit: int, every: bool) -> list[Mapping[str, Any]]:
    """Return the newest ``limit`` results that match: the last one of each command, or ``every`` one."""
    kept: dict[Any, Mapping[str, Any]] = {}
    until = time.monotonic() + _TIMEOUT
    while not reader.at_end:
        try:
            records = reader.poll(_POLL_TIME)
        except RetriableError:
            if time.monotonic() > until:
                raise
            time.sleep(_POLL_TIME)
            continue
        for record in records:
            value = record.value
            if isinstance(value, Mapping) and isinstance(value.get("command_id"), str):
                state = str(value.get("state")), str(value.get("at"))
                key = (value["command_id"], *state) if every else value["command_id"]
                kept.pop(key, None)  # a later state replaces it, at the end
                if wanted.matches(value):
                    kept[key] = value
                    if len(kept) > limit:
                        del kept[next(iter(kept))]
    return list(kept.values())
