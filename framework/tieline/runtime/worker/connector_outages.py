"""What a connector cannot reach: the systems of its tasks, and topics that do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tieline.logs import about
from tieline.runtime.task.clock import Clock
from tieline.runtime.task.connections import Connections
from tieline.runtime.worker.task_set import TaskSet


class ConnectorOutages:
    """The outages of a connector and of its present tasks. Any thread may call it."""

    def __init__(self, name: str, tasks: TaskSet, clock: Clock) -> None:
        self.topics = Connections(clock.now, clock.wall_ms)
        """The topics of a sink that do not exist. They are missing for all of its tasks."""
        self._name = name
        self._tasks = tasks

    def all(self) -> list[dict[str, Any]]:
        """Return what cannot be reached now, each once, with the earliest time."""
        outages: dict[str, dict[str, Any]] = {}
        for connections in self._connections():
            for outage in connections.all():
                earlier = outages.setdefault(outage["to"], outage)
                earlier["since"] = min(earlier["since"], outage["since"])
        return list(outages.values())

    def recovered_ms(self) -> int | None:
        """Return when the last outage ended, in ms since 1970; ``None`` before the first."""
        times = [connections.recovered_ms for connections in self._connections()]
        return max((time for time in times if time is not None), default=None)

    def remind(self) -> None:
        """Log outages again that continue."""
        with about(connector=self._name):
            self.topics.remind()
        for thread in self._tasks.threads:
            with about(connector=self._name, task=thread.environment.task):
                thread.environment.connections.remind()

    def _connections(self) -> Iterator[Connections]:
        yield self.topics
        for thread in self._tasks.threads:
            yield thread.environment.connections
