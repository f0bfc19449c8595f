"""Following one topic of a log file, outside any group."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from tieline.api import TopicPartition
from tieline.broker.local.reader import MAX_BATCH_BYTES, Bounds
from tieline.broker.local.store import Store
from tieline.broker.records import ConsumedRecord


class LocalTopicReader:
    """A ``TopicReader`` on the local log. It holds no transaction between two calls, however slow it is."""

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
        for partition, bounds in self._bounds().items():
            self._ids[partition], self._ends[partition] = bounds.id, bounds.end
            self._positions[partition] = bounds.end if since is None else store.first_since(bounds, since)

    @property
    def at_end(self) -> bool:
        """Whether everything that the topic held at the start was returned; see ``TopicReader.at_end``."""
        return all(self._positions[partition] >= end for partition, end in self._ends.items())

    def poll(self, max_records: int, timeout: float) -> list[ConsumedRecord]:
        """Return the next records; see ``TopicReader.poll``."""
        deadline = time.monotonic() + timeout
        while True:
            version = self._store.version
            records = self._take(max_records)
            left = deadline - time.monotonic()
            if records or left <= 0:
                return records
            self._store.wait(version, left)

    def close(self, timeout: float) -> None:
        """Close the reader; see ``TopicReader.close``."""

    def _bounds(self) -> Mapping[TopicPartition, Bounds]:
        return {
            partition: bounds
            for partition, bounds in sorted(self._store.snapshot().items())
            if partition.topic == self._topic
            and (self._wanted is None or partition.partition in self._wanted)
        }

    def _take(self, max_records: int) -> list[ConsumedRecord]:
        records: list[ConsumedRecord] = []
        present = self._bounds()
        for partition in self._ends.keys() - present.keys():
            del self._ends[partition]  # deleted, with all that it held
        self._turn += 1
        first = self._turn % len(present) if present else 0
        order = list(present)
        for partition in order[first:] + order[:first]:
            bounds = present[partition]
            if self._ids.get(partition) != bounds.id:  # a new partition, or a new topic of the same name
                self._ids[partition], self._positions[partition] = bounds.id, 0
                self._ends.pop(partition, None)
            left = max_records - len(records)
            if left > 0 and self._positions[partition] < bounds.end:
                batch = self._store.read_known(
                    partition, bounds, self._positions[partition], left, MAX_BATCH_BYTES
                )
                self._positions[partition] = batch[-1].offset + 1 if batch else bounds.end
                records += batch
        return records
