"""The quarantine: input that cannot even be parsed, kept raw beside the spool for an operator.

A flood of it must not starve good input. The caller never waits for the disk more than twice a second, and
the quarantine is bounded in bytes, in records a second and in bytes a second. Everything is counted.
"""

from __future__ import annotations

import threading

from tieline.broker.local.store import Store
from tieline.broker.records import ProducerRecord
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.clock import Clock, Counters

TOPIC = "quarantine"
_WRITE_EVERY = 0.5  # seconds; what arrives in between is written together
_RECORDS, _RECORDS_PER_SECOND = 1_000.0, 50.0
_BYTES, _BYTES_PER_SECOND = float(16 << 20), float(1 << 20)


class Quarantine:
    """Keeps input that cannot be parsed. Any thread may call it; no method raises.

    Counters: ``dropped.quarantine_full`` (no room), ``dropped.quarantine_rate`` (too many at once; the first
    1,000 and then 50 a second are kept, up to 1 MiB a second), ``dropped.quarantine_unavailable``.
    """

    def __init__(
        self, store: Store, max_bytes: int, counters: Counters, alarms: Alarms, clock: Clock
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._counters = counters
        self._alarms = alarms
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: list[ProducerRecord] = []
        self._records = _Allowance(_RECORDS, _RECORDS_PER_SECOND)
        self._bytes = _Allowance(_BYTES, _BYTES_PER_SECOND)
        self._next_write = float("-inf")

    def keep(self, raw: bytes, reason: str) -> None:
        """Keep the input, or count why not; it is on the disk half a second later."""
        if len(raw) > self._max_bytes:
            self._counters.add("dropped.quarantine_full")
            return
        now = self._clock.now()
        with self._lock:
            allowed = self._records.left(now) >= 1 and self._bytes.left(now) > 0
            if allowed:
                self._records.take(1)
                self._bytes.take(len(raw))
                text = reason.encode("utf-8", "replace")
                self._pending.append(ProducerRecord(TOPIC, raw, text, (), None, 0))
        if not allowed:
            self._counters.add("dropped.quarantine_rate")
        self.write_if_due()

    def write_if_due(self) -> None:
        """Write what is pending, unless that was done less than half a second ago."""
        if self._pending and self._clock.now() >= self._next_write:
            self.write()

    def write(self) -> None:
        """Write what is pending; if there is no room, drop the oldest."""
        with self._writing:
            with self._lock:
                pending, self._pending = self._pending, []
            if not pending:
                return
            self._next_write = self._clock.now() + _WRITE_EVERY
            try:
                self._store.append(pending)
                self._make_room()
            except Exception as error:  # noqa: BLE001 - a full or broken disk must not stop the reception
                self._counters.add("dropped.quarantine_unavailable", len(pending))
                self._alarms.raise_alarm("quarantine", f"not kept, the quarantine cannot be written: {error}")

    def _make_room(self) -> None:
        count, size = self._store.size(TOPIC)
        while count and size > self._max_bytes:
            removed = self._store.drop_oldest(TOPIC, 0, count // 10 + 1)
            self._counters.add("dropped.quarantine_full", removed.records)
            count, size = self._store.size(TOPIC)


class _Allowance:
    """Allows ``most`` at once and ``per_second`` after that; the last one may exceed what is left."""

    def __init__(self, most: float, per_second: float) -> None:
        self._most = most
        self._per_second = per_second
        self._left = most
        self._since: float | None = None

    def left(self, now: float) -> float:
        if self._since is not None:
            self._left = min(self._most, self._left + max(0.0, now - self._since) * self._per_second)
        self._since = now
        return self._left

    def take(self, number: float) -> None:
        self._left -= number
