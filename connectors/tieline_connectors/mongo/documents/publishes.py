"""Which publications of devices a layout takes, and whether it takes the same reading twice."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

log = logging.getLogger(__name__)

KINDS = ("ALL", "MULTI", "POINT", "OTHER")
"""Of ``volttron.DeviceReading``."""

_MANY = ("ALL", "MULTI")
_WATCHED = 10_000
"""More devices than these are not looked at: the warning is a help, and its memory has a bound."""


class Publishes:
    """What one topic brings into one collection. ``kinds``: those to take; none: all, whatever they are."""

    def __init__(self, kinds: Collection[str] | None) -> None:
        self._kinds = None if kinds is None else frozenset(kinds)
        self._topics: dict[tuple[str, str], str] | None = {}

    def skipped(self, value: Any) -> str | None:
        """The kind of a reading that is not taken; none for what is, and for all that is no reading."""
        kind = value.get("kind") if type(value) is dict else None
        if self._kinds is None or kind not in KINDS:
            return None
        if kind not in self._kinds:
            return str(kind)
        if self._topics is not None and kind in _MANY:
            self._look(value)
        return None

    def _look(self, value: dict[str, Any]) -> None:
        """Warn once if a device comes under two topics: ``all`` and ``multi``, or depth and breadth first."""
        assert self._topics is not None
        device, topic = (value.get("platform", ""), value.get("device", "")), value.get("topic", "")
        if len(self._topics) < _WATCHED or device in self._topics:
            first = self._topics.setdefault(device, topic)
            if first != topic:
                log.warning(
                    "device %s is published both as %s and as %s, so each of its values is stored twice; "
                    "take one of them (publishes=%s), or have its driver publish one",
                    device[1],
                    first,
                    topic,
                    value["kind"],
                )
                self._topics = None
