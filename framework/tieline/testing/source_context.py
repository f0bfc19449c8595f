"""The context of a task without a runtime, for tests of connectors: it records what the task reports."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tieline.api import Position, SourceRecord, TransactionContext
from tieline.runtime.task.connections import Connections


class Quarantined(NamedTuple):
    """What a source could not parse, and why."""

    raw: bytes
    reason: str


class RecordingSourceContext:
    """A ``SourceContext``: it records counters and quarantined input. ``save`` offsets to resume.

    ``counters``: by name, ``quarantined.<reason>`` included, as the runtime counts them. ``quarantined``:
    in order. ``stopping``: set it before ``stop()``, as the runtime does. ``data_dir``: give ``tmp_path`` to
    a task that keeps files there. ``spool_used`` may be set at any time. Safe for several threads.
    """

    def __init__(
        self,
        connector: str = "test",
        task: int = 0,
        *,
        transaction: TransactionContext | None = None,
        data_dir: Path = Path("data"),
    ) -> None:
        self.connector = connector
        self.task = task
        self.stopping = False
        self.transaction = transaction
        self.data_dir = data_dir
        self.spool_used = 0.0
        self.quarantined: list[Quarantined] = []
        self.connections = Connections(time.monotonic, lambda: time.time_ns() // 1_000_000)
        self._saved: dict[str, str] = {}
        self._counters: Counter[str] = Counter()
        self.durations: dict[str, list[float]] = {}
        self._changed = threading.Condition()

    @property
    def counters(self) -> Mapping[str, int]:
        """Return a copy of the counters; one that was never used is 0."""
        with self._changed:
            return self._counters.copy()

    def save(self, records: Iterable[SourceRecord]) -> None:
        """Save the offsets that these records reach, as the runtime does: through JSON."""
        for record in records:
            self._saved[_key(record.source_partition)] = json.dumps(dict(record.source_offset))

    def offset(self, partition: Position) -> Position | None:
        """Return the saved offset of one source partition."""
        return self.offsets([partition])[0]

    def offsets(self, partitions: Sequence[Position]) -> list[Position | None]:
        """Return the saved offset of each source partition."""
        texts = [self._saved.get(_key(partition)) for partition in partitions]
        return [None if text is None else json.loads(text) for text in texts]

    def connected(self, system: str) -> None:
        """Log it as the runtime does."""
        self.connections.connected(system)

    def not_connected(self, system: str, reason: str) -> None:
        """Log it as the runtime does; ``connections.all()`` returns it."""
        self.connections.not_connected(system, reason)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._changed:
            self._counters[name] += number
            self._changed.notify_all()

    def observe(self, name: str, seconds: float) -> None:
        """Add to a list in ``durations``."""
        with self._changed:
            self.durations.setdefault(name, []).append(seconds)

    def quarantine(self, raw: bytes, reason: str) -> None:
        """Keep it in ``quarantined``, and count it."""
        with self._changed:
            self.quarantined.append(Quarantined(raw, reason))
            self._counters[f"quarantined.{reason}"] += 1
            self._changed.notify_all()

    def wait_for(self, name: str, number: int = 1, seconds: float = 10.0) -> None:
        """Wait until a counter reaches a number. Raises ``TimeoutError`` with all counters."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._counters[name] >= number, seconds):
                raise TimeoutError(f"{name} did not reach {number} in {seconds:g} s: {dict(self._counters)}")


def _key(partition: Position) -> str:
    return json.dumps(dict(partition), sort_keys=True)
