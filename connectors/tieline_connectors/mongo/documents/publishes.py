"""Selects the publications of devices that a layout stores, and warns of readings that are stored twice."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from tieline_connectors.points.values import KINDS

log = logging.getLogger(__name__)

_MANY = ("ALL", "MULTI")
_MAX_DEVICES = 10_000
"""Further devices are not checked, so that the memory for this warning is bounded."""


class Publishes:
    """The publications of one topic in one collection. ``kinds`` are stored; ``None`` means all."""

    def __init__(self, kinds: Collection[str] | None) -> None:
        self._kinds = None if kinds is None else frozenset(kinds)
        self._topics: dict[tuple[str, str], str] | None = {}
        """The first topic of each device; ``None`` after the warning, which is logged once."""

    def skipped(self, value: Any) -> str | None:
        """Return the kind of a reading that is not stored, or ``None`` for any other value."""
        kind = value.get("kind") if type(value) is dict else None
        if self._kinds is None or kind not in KINDS:
            return None
        if kind not in self._kinds:
            return str(kind)
        if self._topics is not None and kind in _MANY and self._is_published_twice(value, self._topics):
            self._topics = None
        return None

    def _is_published_twice(self, value: dict[str, Any], topics: dict[tuple[str, str], str]) -> bool:
        """Warn if a device has two topics: ``all`` and ``multi``, or depth and breadth first."""
        device, topic = (value.get("platform", ""), value.get("device", "")), value.get("topic", "")
        if len(topics) >= _MAX_DEVICES and device not in topics:
            return False
        first = topics.setdefault(device, topic)
        if first == topic:
            return False
        log.warning(
            "device %s is published both as %s and as %s, so each of its values is stored twice; "
            "store one of them (publishes=%s), or configure its driver to publish one",
            device[1],
            first,
            topic,
            value["kind"],
        )
        return True
