"""A source task's context whose offsets are in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from tieline.api import Position, SourceRecord, TransactionContext


class MemorySourceContext:
    """A ``SourceContext`` whose saved offsets are what ``save`` was given; share them to resume."""

    def __init__(self, connector: str = "test", task: int = 0) -> None:
        self.connector = connector
        self.task = task
        self.stopping = False
        self.counters: Counter[str] = Counter()
        self.quarantined: list[tuple[bytes, str]] = []
        self._saved: dict[str, str] = {}

    transaction: TransactionContext | None = None

    def save(self, records: Iterable[SourceRecord]) -> None:
        """Save the offsets that these records reach, as the runtime does: through JSON."""
        for record in records:
            self._saved[json.dumps(record.source_partition, sort_keys=True)] = json.dumps(
                record.source_offset
            )

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """The saved offsets."""
        texts = [self._saved.get(json.dumps(partition, sort_keys=True)) for partition in partitions]
        return [None if text is None else json.loads(text) for text in texts]

    def count(self, name: str, number: int = 1) -> None:
        """Add to ``counters``."""
        self.counters[name] += number

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Add to ``quarantined``."""
        self.quarantined.append((raw, reason))
