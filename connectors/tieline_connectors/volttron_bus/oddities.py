"""Messages that are taken, and not as their publisher meant them: counted, and reported once per topic."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tieline_connectors.volttron_bus.message import Message

log = logging.getLogger(__name__)
_MOST_TOPICS = 1_000


class Oddities:
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
