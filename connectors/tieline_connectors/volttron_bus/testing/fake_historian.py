"""A stand-in for VOLTTRON's SQLite historian, verified by tests/contract/bus on real ones.

    historian = FakeHistorian()
    with FakeRouter(rpc={"platform.historian": historian.methods}) as router:
        router.listeners.append(historian.capture)

It stores each point of ``devices/…/all``, compares topics without regard to case, keeps the last value of a
time, and answers ``get_topic_list``, ``get_topics_metadata`` and ``query`` as a real one. It does not store
other prefixes, and knows no aggregates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tieline_connectors.volttron_bus.backfill.history import to_historian_time
from tieline_connectors.volttron_bus.messages.time_formats import parse_time


class FakeHistorian:
    """Keeps what was published in memory. Its methods run in the router's thread.

    ``stores``: set it to false to make it miss what is published. ``queries``: all queries, in order.
    """

    def __init__(self) -> None:
        self.stores = True
        self.queries: list[dict[str, Any]] = []
        self._names: dict[str, str] = {}
        self._rows: dict[str, dict[int, tuple[str, Any]]] = {}
        self._metadata: dict[str, dict[str, Any]] = {}

    @property
    def methods(self) -> dict[str, Callable[..., Any]]:
        """The methods that an agent can call, for ``FakeRouter(rpc=…)``."""
        return {
            "get_topic_list": lambda: list(self._names.values()),
            "get_topics_metadata": self._get_metadata,
            "query": self._query,
        }

    def capture(self, topic: str, headers: Mapping[str, Any], body: Any) -> None:
        """Store a message, if it is one that a historian stores."""
        if not self.stores or not topic.startswith("devices/") or not topic.endswith("/all"):
            return
        text = headers.get("TimeStamp", headers.get("Date"))
        parsed = parse_time(text)
        assert parsed is not None, headers
        points = body if isinstance(body, dict) else body[0]
        metadata = body[1] if isinstance(body, list) and len(body) == 2 else {}
        for point, value in points.items():
            name = f"{topic[len('devices/') : -len('/all')]}/{point}"
            key = name.lower()
            self._names[key] = name
            known = self._metadata.setdefault(key, {})
            known.update({key: item for key, item in metadata.get(point, {}).items() if item is not None})
            self._rows.setdefault(key, {})[parsed[0]] = (to_historian_time(parsed[0]), value)

    def _get_metadata(self, topics: list[str] | str) -> dict[str, Any]:
        names = [topics] if isinstance(topics, str) else topics
        return {name: self._metadata[name.lower()] for name in names if name.lower() in self._metadata}

    def _query(
        self,
        topic: list[str] | str | None = None,
        start: str | None = None,
        end: str | None = None,
        skip: int = 0,
        count: int | None = None,
        order: str = "FIRST_TO_LAST",
    ) -> dict[str, Any]:
        self.queries.append({"topic": topic, "start": start, "end": end, "count": count})
        if topic is None:
            raise TypeError('"Topic" required')
        names = [topic] if isinstance(topic, str) else topic
        first, last = (None if text is None else _time(text) for text in (start, end))
        values = {}
        for name in names:
            if name.lower() in self._rows:
                rows = self._rows[name.lower()]
                times = [
                    t for t in sorted(rows) if (first is None or t >= first) and (last is None or t < last)
                ]
                times = times[::-1] if order == "LAST_TO_FIRST" else times
                values[name] = [list(rows[t]) for t in times[skip : None if count is None else skip + count]]
        if len(names) > 1:
            return {"values": values, "metadata": {}} if values else {}
        (of_one,) = values.values() or ([],)
        return {"values": of_one, "metadata": self._metadata[names[0].lower()]} if of_one else {}


def _time(text: str) -> int:
    parsed = parse_time(text)
    if parsed is None:
        raise ValueError("Syntax Error in Query")
    return parsed[0]
