"""The records that an exclusive writer has appended, until its context ends; for both backends."""

from __future__ import annotations

from collections.abc import Sequence

from tieline.api import FatalError
from tieline.broker.records import ProducerRecord


class PendingWrites:
    """An ``ExclusiveWriter``. The backend writes ``records`` together when the context ends."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.records: list[ProducerRecord] = []

    def append(self, records: Sequence[ProducerRecord]) -> None:
        """Append records of the held topic; see ``ExclusiveWriter.append``."""
        foreign = {record.topic for record in records} - {self.topic}
        if foreign:
            raise FatalError(f"only {self.topic} is held for writing, not {', '.join(sorted(foreign))}")
        self.records += records
