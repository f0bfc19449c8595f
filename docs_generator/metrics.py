"""The reference of metrics: tables from the definitions that the worker exports by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tieline.api import Connector
from tieline.metrics.definition import Definition
from tieline.metrics.definitions import GROUPS, connector_definitions
from tieline.plugins import discovery

MARKER = re.compile(r"^<!-- metrics: (?P<group>[\w-]+) -->$", re.M)
"""A page has this line where a group of metrics is shown; ``plugins``: those that connectors declare."""


def insert(page: str) -> str:
    """Return the page with each marker replaced by the table that it names."""
    return MARKER.sub(lambda marker: "\n".join(_table(_group(marker["group"]))), page)


def of_plugins() -> list[Definition]:
    """Return the metrics that the installed connectors declare, by name."""
    found: dict[str, Definition] = {}
    for group in (discovery.SOURCES, discovery.SINKS):
        for plugin in discovery.installed(group):
            connector = discovery.load(group, plugin.name, Connector)
            found |= {each.name: each for each in connector_definitions(connector.metrics).values()}
    return sorted(found.values())


def _group(name: str) -> Iterable[Definition]:
    return of_plugins() if name == "plugins" else GROUPS[name]


def _table(definitions: Iterable[Definition]) -> Iterator[str]:
    yield "| Metric | Type | Labels | Meaning |\n|---|---|---|---|"
    for name, kind, labels, meaning in definitions:
        yield f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"
