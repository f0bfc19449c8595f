"""The topics between sources and sinks, as far as the connectors of this worker show them; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tieline.api.pages import RunningConnector


class TopicFlow(NamedTuple):
    """A topic, its writers and readers in this worker.

    ``rate``: records a second from its sources; ``None`` without a source, or before there are two samples.
    """

    name: str
    sources: Sequence[str]
    sinks: Sequence[str]
    rate: float | None


def topic_flows(
    connectors: Iterable[RunningConnector], delivered: Mapping[str, float | None]
) -> list[TopicFlow]:
    """Return every topic that a connector names, those with a source first.

    A source names its topic with the setting ``topic``, as most do. One that names its topics in another way
    is not shown at a topic. ``delivered``: the rate of each connector.
    """
    sources: dict[str, list[str]] = {}
    sinks: dict[str, list[str]] = {}
    for connector in connectors:
        if connector.kind == "sink":
            for topic in connector.topics:
                sinks.setdefault(topic, []).append(connector.name)
        elif topic := connector.settings.get("topic", ""):
            sources.setdefault(topic, []).append(connector.name)
    names = [*sorted(sources), *sorted(sinks.keys() - sources.keys())]
    return [
        TopicFlow(
            name,
            sources.get(name, ()),
            sinks.get(name, ()),
            _sum(delivered.get(source) for source in sources.get(name, ())),
        )
        for name in names
    ]


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None
