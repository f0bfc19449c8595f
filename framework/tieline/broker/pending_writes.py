"""What the holder of a topic has appended, until its context ends; the same on both homes."""

from __future__ import annotations

from collections.abc import Sequence

from tieline.api import FatalError
from tieline.broker.port import ProducerRecord


class PendingWrites:
    """See ``Exclusive``; a home writes ``records`` together when the context ends."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.records: list[ProducerRecord] = []

    def append(self, records: Sequence[ProducerRecord]) -> None:
        """See ``Exclusive.append``."""
        foreign = {record.topic for record in records} - {self.topic}
        if foreign:
            raise FatalError(f"{self.topic} is held, not {', '.join(sorted(foreign))}")
        self.records += records
