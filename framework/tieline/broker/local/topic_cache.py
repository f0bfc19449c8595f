"""The topics and partitions that the writer of a log file knows, as the open transaction sees them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tieline.api import TopicPartition
from tieline.api.partitioner import partition_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import apsw


@dataclass(slots=True)
class Partition:
    """A partition: its id in the file, its number in the topic, its bounds, and what it holds."""

    id: int
    number: int
    start: int
    next: int
    records: int
    bytes: int


@dataclass(slots=True)
class Topic:
    """A topic with its partitions."""

    name: str
    number: int
    id: str
    config: Mapping[str, str]
    partitions: list[Partition] = field(default_factory=list)
    sticky: Partition | None = None
    """The partition for the records without a key of one batch, as Kafka's sticky partitioner chooses."""
    turn: int = 0

    def setting(self, key: str, default: int) -> int:
        """Return a number of the topic's configuration."""
        try:
            return int(self.config.get(key, default))
        except ValueError:
            return default

    def choose(self, key: bytes | None, number: int | None) -> Partition:
        """Return the partition for a record with this key and perhaps a partition's number."""
        if number is not None:
            return self.partitions[number]
        if key is not None:
            return self.partitions[partition_of(bytes(key), len(self.partitions))]
        if self.sticky is None:
            self.sticky = self.partitions[self.turn % len(self.partitions)]
            self.turn += 1
        return self.sticky


class TopicCache:
    """Topics by name, and the partitions that the open transaction has changed.

    What is cached is dropped when another process has committed. Used by the writer's thread.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._topics: dict[str, Topic] = {}
        self.changed: dict[int, Partition] = {}
        """The partitions that the open transaction has changed, by id."""
        self._data_version = -1

    def begin(self) -> None:
        """Drop the cache if another process has committed. Called at the start of a transaction."""
        version = self._connection.pragma("data_version")
        if version != self._data_version:
            self._topics.clear()
            self._data_version = version

    def store(self) -> None:
        """Write the changed partitions. Called before a commit."""
        if self.changed:
            self._connection.executemany(
                "UPDATE partition SET start = ?, next = ?, records = ?, bytes = ? WHERE id = ?",
                [(p.start, p.next, p.records, p.bytes, p.id) for p in self.changed.values()],
            )
            self.changed.clear()

    def clear(self) -> None:
        """Drop everything. Called after a rollback."""
        self._topics.clear()
        self.changed.clear()

    def drop(self, topic: Topic) -> None:
        """Drop one topic, with the changes of its partitions."""
        for partition in topic.partitions:
            self.changed.pop(partition.id, None)
        del self._topics[topic.name]

    def topic(self, name: str) -> Topic | None:
        """Return a topic, or ``None`` if it does not exist."""
        topic = self._topics.get(name)
        if topic is None:
            row = self._connection.execute(
                "SELECT number, id, config FROM topic WHERE name = ?", (name,)
            ).fetchone()
            if row is None:
                return None
            topic = Topic(name, row[0], row[1], json.loads(row[2]))
            rows = self._connection.execute(
                "SELECT id, number, start, next, records, bytes FROM partition "
                "WHERE topic = ? ORDER BY number",
                (topic.number,),
            )
            topic.partitions = [Partition(*row) for row in rows]
            self._topics[name] = topic
        return topic

    def partition(self, partition: TopicPartition) -> Partition:
        """Return a partition. Raises ``LookupError`` if it does not exist."""
        topic = self.topic(partition.topic)
        if topic is None or not 0 <= partition.partition < len(topic.partitions):
            raise LookupError(f"there is no partition {partition.topic}-{partition.partition}")
        return topic.partitions[partition.partition]
