"""How many partitions topics have, remembered for some seconds."""

from __future__ import annotations

import time

from tieline.api import RetriableError
from tieline.broker.port import Broker

_FRESH_FOR = 5.0
"""Seconds until the broker is asked again."""
_ASK_FOR = 2.0
"""Seconds that the broker has to answer; without an answer the last numbers stay valid."""


class PartitionCounts:
    """Asks the broker how many partitions a topic has, and remembers it. Used by one thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._counts: dict[str, int] = {}
        self._asked_at = -_FRESH_FOR

    def of(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises ``RetriableError``."""
        if time.monotonic() >= self._asked_at + _FRESH_FOR:
            try:
                topics = self._broker.topics(_ASK_FOR)
                self._counts = {name: info.partitions for name, info in topics.items()}
            except RetriableError:
                if topic not in self._counts:
                    raise
            self._asked_at = time.monotonic()
        if topic not in self._counts:
            raise RetriableError(f"the topic {topic} does not exist (yet)")
        return self._counts[topic]
