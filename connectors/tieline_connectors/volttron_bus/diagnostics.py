"""Warnings for operators about messages that are missing or unusual. Each warning is logged once.

Messages that are stored otherwise than their publisher meant are counted, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tieline_connectors.volttron_bus.messages.message import Message
from tieline_connectors.volttron_bus.messages.records import Route

log = logging.getLogger(__name__)
_MAX_TOPICS = 1_000


class SilentPrefixes:
    """Groups of prefixes without a message so far. Each is reported once, ten minutes after the start.

    A group is no longer silent when a message arrives under one of its prefixes. Only the time with a
    connection counts. ``now`` is in seconds.
    """

    AFTER = 600.0

    def __init__(self, groups: Sequence[Sequence[str]], now: float) -> None:
        self._groups = [[Route(prefix, "") for prefix in group] for group in groups]
        self._listened = 0.0
        self._checked_at = now

    def heard(self, topic: str) -> None:
        """Note that a message of this topic has arrived."""
        if self._groups:
            self._groups = [g for g in self._groups if not any(route.takes(topic) for route in g)]

    def check(self, now: float, *, connected: bool) -> None:
        """Log a warning for the groups that have been silent for too long."""
        if connected:
            self._listened += now - self._checked_at
        self._checked_at = now
        if self._groups and self._listened >= self.AFTER:
            for group in self._groups:
                log.warning(
                    "no message has arrived under %s during %d minutes of listening: check the spelling in "
                    "bus.prefixes (whole segments, case-sensitive), and whether an agent publishes there; "
                    "this is logged once",
                    ", ".join(route.prefix for route in group), self._listened // 60,
                )  # fmt: skip
            self._groups = []


class MessageDiagnostics:
    """Counts unusual messages and logs the first one of each topic.

    Counters: ``times.unreadable``, ``readings.without_points``. Beyond 1,000 topics it only counts.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._reported: set[tuple[str, str]] = set()

    def unreadable_time(self, message: Message) -> None:
        """Note that the header with the message's time cannot be read."""
        self._count("times.unreadable")
        if self._is_first("time", message.topic):
            used = "reception" if message.time_source == "RECEIVED" else "the header Date"
            log.warning(
                "a message of the topic %s is stored under the time of its %s: %s cannot be read. Publish "
                "ISO 8601 with a zone; this is logged once per topic, times.unreadable counts",
                message.topic[:200], used, message.unreadable_time,
            )  # fmt: skip

    def without_points(self, message: Message) -> None:
        """Note that the topic is one of a device, but the body is not a reading."""
        self._count("readings.without_points")
        if self._is_first("points", message.topic):
            log.warning(
                "a message of the topic %s from %s is stored as a volttron.BusMessage: its body is not a "
                "reading. Publish [points, metadata] or an object of points; this is logged once per "
                "topic, readings.without_points counts",
                message.topic[:200], message.sender[:200],
            )  # fmt: skip

    def _is_first(self, problem: str, topic: str) -> bool:
        key = (problem, topic[:200])
        if key in self._reported or len(self._reported) >= _MAX_TOPICS:
            return False
        self._reported.add(key)
        return True
