"""How large a spool grows, and what is dropped when it is full."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import NamedTuple

from tieline.api import TopicPartition
from tieline.broker.local.store import Store
from tieline.broker.local.tables import Tables
from tieline.broker.records import ProducerRecord
from tieline.runtime.spool.mark import SpoolMark
from tieline.runtime.spool.row_reader import Rows, read_rows
from tieline.runtime.task.alarms import Alarms
from tieline.runtime.task.clock import Counters

TOPIC = "spool"
PARTITION = TopicPartition(TOPIC, 0)


class Limits(NamedTuple):
    """How large a spool grows, and what is dropped then."""

    max_bytes: int
    drop_oldest: bool
    quarantine_bytes: int


class SpoolRoom:
    """Makes room for new records, and reads and deletes waiting ones: a record is either read or dropped.

    The receiver's thread calls ``fit``, the pump's all others. Counter: ``dropped.spool_full``.
    """

    def __init__(
        self, store: Store, limits: Limits, mark: SpoolMark, counters: Counters, alarms: Alarms
    ) -> None:
        self._store = store
        self._limits = limits
        self._mark = mark
        self._counters = counters
        self._alarms = alarms
        self._lock = threading.Lock()
        self._read_to = self._acknowledged_to = self.start
        self._dropped_to = 0

    @property
    def start(self) -> int:
        """The position of the oldest record that waits."""
        return self._store.snapshot()[PARTITION].start

    def read(self, position: int, max_records: int) -> Rows:
        """Read the rows at and after a position. Raises as ``read_rows`` does."""
        with self._lock:
            rows = read_rows(self._store, PARTITION, position, max_records)
            self._read_to = max(self._read_to, rows.position)
        return rows

    def delete_before(self, position: int, also: Callable[[Tables], object]) -> None:
        """Delete what was acknowledged, in one transaction with another change. Raises ``RetriableError``."""
        self._acknowledged_to = position
        self._mark.left(position)
        self._store.delete_before(TOPIC, 0, position, also=also)

    def release(self) -> None:
        """Count what was dropped after the pump had read it, and not acknowledged: the pump has ended."""
        with self._lock:
            lost = self._dropped_to - self._acknowledged_to
            if lost > 0:
                self._counters.add("dropped.spool_full", lost)
            self._dropped_to = 0

    def fit(self, records: list[ProducerRecord]) -> list[ProducerRecord]:
        """Return the records that may be appended, after making room as the policy says; count the others."""
        sizes = [_size(record) for record in records]
        size = sum(sizes)
        waiting, used = self._store.size(TOPIC)
        if used + size <= self._limits.max_bytes:
            return records
        self._alarms.raise_alarm(
            "full",
            f"the spool is full ({self._limits.max_bytes} bytes, spool.max.bytes); records are dropped",
        )
        if not self._limits.drop_oldest:
            return self._oldest_that_fit(records, sizes, used)
        while waiting and used + size > self._limits.max_bytes:
            with self._lock:
                removed = self._store.drop_oldest(TOPIC, 0, waiting // 50 + 1)
                lost = min(removed.records, max(0, removed.start - self._read_to))
                self._mark.left(max(removed.start, self._acknowledged_to))
                if lost < removed.records:  # the pump has read these already, and may still deliver them
                    self._dropped_to = removed.start - lost
            self._counters.add("dropped.spool_full", lost)
            waiting, used = self._store.size(TOPIC)
        first = 0
        while used + size > self._limits.max_bytes:  # this batch alone is more than the spool may hold
            size -= sizes[first]
            first += 1
        self._counters.add("dropped.spool_full", first)
        return records[first:]

    def _oldest_that_fit(
        self, records: list[ProducerRecord], sizes: list[int], used: int
    ) -> list[ProducerRecord]:
        ends = itertools.accumulate(sizes, initial=used)
        next(ends)
        kept = [r for r, end in zip(records, ends, strict=True) if end <= self._limits.max_bytes]
        self._counters.add("dropped.spool_full", len(records) - len(kept))
        return kept


def _size(record: ProducerRecord) -> int:
    """Return the size of a record as the store counts it."""
    size = len(record.value or b"")
    for name, value in record.headers:
        size += len(name or "") + len(value or b"")
    return size
