"""Reading one topic of a log file in no group, live."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from tieline.api import TopicPartition
from tieline.broker.local.reader import MAX_BATCH_BYTES, Bounds
from tieline.broker.local.store import Store
from tieline.broker.port import ConsumedRecord


class LocalTopicReader:
    """See ``TopicReader``. Holds no transaction between two calls, so it pins nothing however slow it is."""

    def __init__(
        self, store: Store, topic: str, since: int | None, partitions: Collection[int] | None
    ) -> None:
        self._store = store
        self._topic = topic
        self._wanted = partitions
        self._ids: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._turn = 0
        for at, bounds in self._bounds().items():
            self._ids[at], self._ends[at] = bounds.id, bounds.end
            self._positions[at] = bounds.end if since is None else store.first_since(bounds, since)

    @property
    def at_end(self) -> bool:
        """See ``TopicReader.at_end``."""
        return all(self._positions[at] >= end for at, end in self._ends.items())

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """See ``TopicReader.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._store.version
            records = self._take(max_records)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._store.wait(version, left)

    def close(self, timeout: float) -> None:
        """See ``TopicReader.close``."""

    def _bounds(self) -> Mapping[TopicPartition, Bounds]:
        return {
            at: bounds
            for at, bounds in sorted(self._store.snapshot().items())
            if at.topic == self._topic and (self._wanted is None or at.partition in self._wanted)
        }

    def _take(self, max_records: int) -> list[ConsumedRecord]:
        records: list[ConsumedRecord] = []
        known = self._bounds()
        for at in self._ends.keys() - known.keys():
            del self._ends[at]  # deleted: there is nothing left of what it held
        self._turn += 1
        first = self._turn % len(known) if known else 0
        order = list(known)
        for at in order[first:] + order[:first]:
            bounds = known[at]
            if self._ids.get(at) != bounds.id:  # a new partition, or a new topic of the same name
                self._ids[at], self._positions[at] = bounds.id, 0
                self._ends.pop(at, None)
            left = max_records - len(records)
            if left > 0 and self._positions[at] < bounds.end:
                batch = self._store.read_known(at, bounds, self._positions[at], left, MAX_BATCH_BYTES)
                self._positions[at] = batch[-1].offset + 1 if batch else bounds.end
                records += batch
        return records
