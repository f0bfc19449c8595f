"""Commands as marks on a chart: what was written to a point, when, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tieline.api import TielineError
from tieline.api.pages import PageContext, RunningConnector
from tieline_connectors.command.config import CommandSinkConfig
from tieline_connectors.points.questions import PointName

_SECONDS = 2.0
_MOST = 500
_EARLIER = 3_600_000
"""How long (ms) after its issue a result of a command may come."""


class Mark(NamedTuple):
    """One command on a chart. ``time`` is in microseconds since 1970."""

    time: int
    point: PointName
    command_id: str
    text: str
    """The requested value and the result: ``21.5: SUCCEEDED``."""


class Marks(Protocol):
    """What charts ask for marks. May block for seconds."""

    def __call__(self, points: Collection[PointName], start: int, end: int) -> Sequence[Mark]:
        """Return the marks of these points in a range, oldest first."""


class CommandMarks:
    """Reads marks from the results topics of the worker's command sinks."""

    def __init__(self, context: PageContext) -> None:
        self._context = context
        self._topics = dict(results_topics(context.connectors))

    def __call__(self, points: Collection[PointName], start: int, end: int) -> Sequence[Mark]:
        """Return the newest marks of these points in a range, oldest first; see ``Marks``."""
        if not self._topics or not points:
            return []
        marks: dict[tuple[str, PointName], Mark] = {}
        until = time.monotonic() + _SECONDS
        try:
            with self._context.topics() as client:
                for topic, platform in self._topics.items():
                    wanted = {f"{p.device}/{p.point}": p for p in points if p.platform == platform}
                    reader = client.reader(topic, max(0, start // 1000 - _EARLIER)) if wanted else None
                    while reader is not None and not reader.at_end and time.monotonic() < until:
                        for record in reader.poll(0.2):
                            for mark in marks_of(record.value, wanted):
                                key = mark.command_id, mark.point
                                first = marks.pop(key, mark)
                                marks[key] = mark._replace(time=min(first.time, mark.time))
        except TielineError:
            pass  # the chart is shown without them while the broker is unavailable
        inside = [mark for mark in marks.values() if start <= mark.time < end]
        return sorted(inside, key=lambda mark: mark.time)[-_MOST:]


def marks_of(result: Any, wanted: Mapping[str, PointName]) -> Iterable[Mark]:
    """Yield the marks of one result of a command; none for anything else. ``wanted``: by a point's path."""
    if not isinstance(result, Mapping) or not isinstance(result.get("at"), int):
        return
    writes = result.get("writes")
    for write in writes if isinstance(writes, Sequence) and not isinstance(writes, str) else ():
        point = wanted.get(str(write.get("point"))) if isinstance(write, Mapping) else None
        if point is not None:
            requested = write.get("requested")
            text = f"{'revert' if requested is None else requested}: {result.get('state')}"
            yield Mark(result["at"], point, str(result.get("command_id")), text[:200])


def results_topics(connectors: Iterable[RunningConnector]) -> Iterable[tuple[str, str]]:
    """Yield the results topic and the platform of each command sink."""
    for connector in connectors:
        if connector.kind == "sink" and connector.plugin == "command":
            config = CommandSinkConfig.parse(connector.settings)
            if config.results_topic:
                yield config.results_topic, config.platform
