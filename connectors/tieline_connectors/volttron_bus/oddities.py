"""What an operator should know of what comes, or does not come, from the bus; each is reported once.

Messages that are taken, and not as their publisher meant them, are counted too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tieline_connectors.volttron_bus.messages.message import Message
from tieline_connectors.volttron_bus.messages.records import Route

log = logging.getLogger(__name__)
_MOST_TOPICS = 1_000


class SilentPrefixes:
    """Groups of prefixes under which nothing has come yet: each is reported once, ten minutes after a start.

    A group is heard when a message comes under one of its prefixes. Time away from the platform does not
    count. ``now`` is in seconds.
    """

    AFTER = 600.0

    def __init__(self, groups: Sequence[Sequence[str]], now: float) -> None:
        self._groups = [[Route(prefix, "") for prefix in group] for group in groups]
        self._listened = 0.0
        self._last = now

    def heard(self, topic: str) -> None:
        """A message of this topic has come."""
        if self._groups:
            self._groups = [g for g in self._groups if not any(route.takes(topic) for route in g)]

    def look(self, now: float, *, connected: bool) -> None:
        """Report the groups that have been silent for too long."""
        if connected:
            self._listened += now - self._last
        self._last = now
        if self._groups and self._listened >= self.AFTER:
            for group in self._groups:
                log.warning(
                    "nothing has come under %s in the %d minutes that we listened: check the spelling in "
                    "bus.prefixes (whole segments, upper and lower case differ), and whether an agent "
                    "publishes there; this is reported once",
                    ", ".join(route.prefix for route in group), self._listened // 60,
                )  # fmt: skip
            self._groups = []


class MessageDiagnostics:
    """Counters: ``times.unreadable``, ``readings.without_points``. Beyond 1,000 topics it only counts."""

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._reported: set[tuple[str, str]] = set()

    def unreadable_time(self, message: Message) -> None:
        """A header that should say the time cannot be read."""
        self._count("times.unreadable")
        if self._is_first("time", message.topic):
            used = "reception" if message.time_source == "RECEIVED" else "the header Date"
            log.warning(
                "a message of the topic %s is stored under the time of its %s: %s cannot be read. Publish "
                "ISO 8601 with a zone; this is reported once per topic, times.unreadable counts",
                message.topic[:200], used, message.unreadable_time,
            )  # fmt: skip

    def without_points(self, message: Message) -> None:
        """The topic is one of a device, and the body is not a reading."""
        self._count("readings.without_points")
        if self._is_first("points", message.topic):
            log.warning(
                "a message of the topic %s from %s is stored as a volttron.BusMessage: its body is not a "
                "reading. Publish [points, metadata] or an object of points; this is reported once per "
                "topic, readings.without_points counts",
                message.topic[:200], message.sender[:200],
            )  # fmt: skip

    def _is_first(self, what: str, topic: str) -> bool:
        key = (what, topic[:200])
        if key in self._reported or len(self._reported) >= _MOST_TOPICS:
            return False
        self._reported.add(key)
        return True
