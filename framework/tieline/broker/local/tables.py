"""What can be changed in a log file. Used by the writer's thread alone, inside its transaction."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from tieline.api import RecordMetadata, RetriableError, TopicPartition
from tieline.api.partitioner import partition_of
from tieline.broker.local.codec import encode_headers
from tieline.broker.local.file import LogSettings, Reserve
from tieline.broker.local.layout import (
    LEGAL_TOPIC,
    OFFSET_BITS,
    OFFSET_MASK,
    SIZE,
    Appended,
    Partition,
    Removed,
    Topic,
)
from tieline.broker.port import ProducerRecord


class Tables:
    """The tables of one file. What is cached is dropped when another process committed (``begin``)."""

    def __init__(
        self, connection: apsw.Connection, settings: LogSettings, reserve: Reserve | None = None
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._reserve = reserve
        self._topics: dict[str, Topic] = {}
        self._dirty: dict[int, Partition] = {}
        self._data_version = -1
        self._appending = True
        self.appended_bytes = 0
        """In this transaction."""

    def begin(self) -> None:
        """A transaction was opened."""
        self.appended_bytes = 0
        version = self._connection.pragma("data_version")
        if version != self._data_version:
            self._topics.clear()
            self._data_version = version

    def finish(self) -> None:
        """The transaction is about to be committed."""
        if self._dirty:
            self._connection.executemany(
                "UPDATE partition SET start = ?, next = ?, records = ?, bytes = ? WHERE id = ?",
                [(p.start, p.next, p.records, p.bytes, p.id) for p in self._dirty.values()],
            )
            self._dirty.clear()

    def forget(self) -> None:
        """The transaction was rolled back."""
        self._topics.clear()
        self._dirty.clear()

    def disk_is_full(self) -> None:
        """From now on nothing is appended, until what is admitted has made room."""
        if self._reserve is not None:
            self._reserve.release()
            self._appending = False

    def _has_room(self) -> bool:
        if self._reserve is None:
            return True
        free = self._connection.pragma("freelist_count") * self._connection.pragma("page_size")
        return bool(free >= self._reserve.size) or self._reserve.restore()

    def topic(self, name: str) -> Topic | None:
        """A topic, or none."""
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

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> bool:
        """Create a topic; false if it is there. Raises ``ValueError`` for an illegal name."""
        if not LEGAL_TOPIC.match(name):
            raise ValueError(f"{name[:260]!r} is no legal topic name: letters, digits, . _ -, at most 249")
        if self.topic(name) is not None:
            return False
        if partitions < 0:
            partitions = self._settings.default_partitions
        if not 1 <= partitions <= 10_000:
            raise ValueError(f"topic {name}: {partitions} partitions; 1 to 10,000 are possible")
        execute = self._connection.execute
        execute(
            "INSERT INTO topic (name, id, config) VALUES (?, ?, ?)",
            (name, str(uuid.uuid4()), json.dumps(dict(config))),
        )
        number = self._connection.last_insert_rowid()
        self._connection.executemany(
            "INSERT INTO partition (topic, number) VALUES (?, ?)", [(number, n) for n in range(partitions)]
        )
        return True

    def add_partitions(self, name: str, count: int) -> None:
        """Let a topic have at least so many partitions."""
        topic = self.topic(name)
        if topic is None:
            raise LookupError(f"there is no topic {name}")
        new = [(topic.number, number) for number in range(len(topic.partitions), count)]
        if new:
            self.finish()  # what is cached of the topic is read anew
            self._connection.executemany("INSERT INTO partition (topic, number) VALUES (?, ?)", new)
            del self._topics[name]

    def delete_topic(self, name: str) -> bool:
        """Delete a topic with its records and its groups' offsets; false if there is none."""
        topic = self.topic(name)
        if topic is None:
            return False
        for partition in topic.partitions:
            self._dirty.pop(partition.id, None)
            base = partition.id << OFFSET_BITS
            self._connection.execute(
                "DELETE FROM record WHERE position BETWEEN ? AND ?", (base, base | OFFSET_MASK)
            )
        self._connection.execute("DELETE FROM topic WHERE number = ?", (topic.number,))
        del self._topics[name]
        return True

    def append(self, records: Sequence[ProducerRecord]) -> Appended:
        """Write records, all but those that can never be written. Topics are made as needed."""
        if not self._appending:
            self._appending = self._has_room()
            if not self._appending:
                raise RetriableError("the disk is full; records are taken again when there is room")
        now = time.time_ns() // 1_000_000
        rows: list[tuple[int, int, bytes | None, bytes | None, bytes | None]] = []
        metadata: list[RecordMetadata | None] = []
        failures: dict[int, Exception] = {}
        name, topic, limit = "", None, 0
        keyless: Partition | None = None
        for index, record in enumerate(records):
            try:
                _, value, key, headers, timestamp, number = record
                if record.topic != name or topic is None:
                    name, topic, keyless = record.topic, self._topic_to_append(record.topic), None
                    limit = topic.setting("max.message.bytes", self._settings.max_message_bytes)
                encoded = encode_headers(headers) if headers else None
                size = len(value or b"") + len(key or b"") + len(encoded or b"")
                if size > limit:
                    raise ValueError(
                        f"topic {name}: a record of {size} bytes; its max.message.bytes is {limit}"
                    )
                if timestamp is None:
                    timestamp = now
                elif type(timestamp) is not int or not 0 <= timestamp < 1 << 63:
                    raise ValueError(f"topic {name}: the timestamp {timestamp} is not possible")
                partitions = topic.partitions
                if number is not None:
                    if not 0 <= number < len(partitions):
                        raise ValueError(f"topic {name} has no partition {number}, only {len(partitions)}")
                    partition = partitions[number]
                elif len(partitions) == 1:
                    partition = partitions[0]
                elif key is not None:
                    partition = partitions[partition_of(bytes(key), len(partitions))]
                else:
                    if keyless is None:  # one partition a batch, as Kafka's sticky partitioner
                        keyless = partitions[topic.turn % len(partitions)]
                        topic.turn += 1
                    partition = keyless
            except (ValueError, TypeError, AttributeError) as cause:
                failures[index] = cause
                metadata.append(None)
                continue
            offset = partition.next
            partition.next = offset + 1
            partition.records += 1
            partition.bytes += size
            self.appended_bytes += size
            self._dirty[partition.id] = partition
            rows.append((partition.id << OFFSET_BITS | offset, timestamp, key, value, encoded))
            metadata.append(RecordMetadata(name, partition.number, offset))
        # REPLACE: a row at or behind the end is no record, however a disk brought it there
        self._connection.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)", rows)
        return Appended(metadata, failures)

    def _topic_to_append(self, name: str) -> Topic:
        topic = self.topic(name)
        if topic is None:
            self.create_topic(name, -1, {})
            topic = self.topic(name)
        assert topic is not None
        return topic

    def advance(self, at: TopicPartition, offset: int) -> None:
        """The next record gets this offset, or a later one."""
        partition = self._partition(at)
        partition.next = max(partition.next, offset)
        self._dirty[partition.id] = partition

    def ends(self, name: str) -> list[int]:
        """The next offset of each partition; empty where there is no such topic."""
        topic = self.topic(name)
        return [] if topic is None else [partition.next for partition in topic.partitions]

    def remove(self, at: TopicPartition, before: int, max_records: int) -> Removed:
        """Delete the oldest records of a partition, those below ``before``, so many at most."""
        partition = self._partition(at)
        before = min(before, partition.next)
        base = partition.id << OFFSET_BITS
        row: Any = self._connection.execute(
            f"SELECT count(*), max(position), total(size) FROM (SELECT position, {SIZE} AS size FROM record "
            "WHERE position >= ? AND position < ? LIMIT ?)",
            (base | partition.start, base | max(before, 0), max_records),
        ).fetchone()
        count, last, size = row
        if count:
            self._connection.execute(
                "DELETE FROM record WHERE position >= ? AND position <= ?", (base | partition.start, last)
            )
        start = before if count < max_records else (last & OFFSET_MASK) + 1
        partition.start = max(partition.start, start)
        partition.records -= count
        partition.bytes -= int(size)
        if partition.start >= partition.next:  # what a damaged row made wrong ends here
            partition.records = partition.bytes = 0
        self._dirty[partition.id] = partition
        return Removed(count, int(size), partition.start)

    def skip(self, at: TopicPartition, before: int, max_records: int) -> Removed:
        """As ``remove``, and what cannot be deleted stays in the file, before the start, never read again."""
        partition = self._partition(at)
        start = max(partition.start, min(before, partition.next, partition.start + max_records))
        skipped, partition.start = start - partition.start, start
        partition.records = min(partition.records, partition.next - start)
        if start == partition.next:
            partition.bytes = 0
        self._dirty[partition.id] = partition
        return Removed(skipped, 0, start)

    def delete(self, at: TopicPartition, offsets: Sequence[int]) -> None:
        """Delete just these records of a partition."""
        partition = self._partition(at)
        for offset in offsets:
            position = partition.id << OFFSET_BITS | offset
            row: Any = self._connection.execute(
                f"DELETE FROM record WHERE position = ? RETURNING {SIZE}", (position,)
            ).fetchone()
            if row is not None:
                partition.records -= 1
                partition.bytes -= row[0]
        self._dirty[partition.id] = partition

    def partitions(self) -> list[TopicPartition]:
        """Every partition of every topic."""
        rows = self._connection.execute(
            "SELECT topic.name, partition.number FROM partition JOIN topic ON topic.number = partition.topic"
        )
        return [TopicPartition(*row) for row in rows]

    def expire(self, at: TopicPartition, limit: int, now: int, max_records: int) -> bool:
        """Delete the oldest records of a partition that are too old or too much, below ``limit``.

        So many at most; true if there may be more. A compacted topic is left alone.
        """
        topic = self.topic(at.topic)
        if topic is None or "compact" in topic.config.get("cleanup.policy", ""):
            return False
        partition = self._partition(at)
        age = topic.setting("retention.ms", self._settings.retention_ms)
        most = topic.setting("retention.bytes", self._settings.retention_bytes)
        surplus = partition.bytes - most if most >= 0 else 0
        oldest = now - age if age >= 0 else 0
        base = partition.id << OFFSET_BITS
        rows: list[Any] = self._connection.execute(
            f"SELECT position, timestamp, {SIZE} FROM record WHERE position >= ? AND position < ? LIMIT ?",
            (base, base | limit, max_records),
        ).fetchall()
        count = before = 0
        for position, timestamp, size in rows:
            if timestamp >= oldest and surplus <= 0:
                break
            surplus -= size
            count, before = count + 1, (position & OFFSET_MASK) + 1
        if count:
            self.remove(at, before, count)
        return count == max_records

    def commit_group(
        self, group: str, offsets: Mapping[TopicPartition, int], ids: Mapping[TopicPartition, int]
    ) -> None:
        """Store a group's offsets; what belongs to a topic that is gone, or was made anew, is left out."""
        rows = []
        for at, offset in offsets.items():
            topic = self.topic(at.topic)
            if topic is not None and 0 <= at.partition < len(topic.partitions):
                partition_id = topic.partitions[at.partition].id
                if ids.get(at, partition_id) == partition_id:
                    rows.append((group, partition_id, offset))
        self._connection.executemany("INSERT OR REPLACE INTO group_offset VALUES (?, ?, ?)", rows)

    def forget_group(self, group: str) -> None:
        """Remove all stored offsets of a group."""
        self._connection.execute("DELETE FROM group_offset WHERE name = ?", (group,))

    def save_source_offsets(self, connector: str, offsets: Mapping[str, str | None]) -> None:
        """Store source offsets; None removes one."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO source_offset VALUES (?, ?, ?)",
            [(connector, partition, offset) for partition, offset in offsets.items() if offset is not None],
        )
        self._connection.executemany(
            "DELETE FROM source_offset WHERE connector = ? AND partition = ?",
            [(connector, partition) for partition, offset in offsets.items() if offset is None],
        )

    def source_offset(self, connector: str, partition: str) -> str | None:
        """A stored source offset, or none."""
        found: str | None = self._connection.execute(
            "SELECT next FROM source_offset WHERE connector = ? AND partition = ?", (connector, partition)
        ).get
        return found

    def _partition(self, at: TopicPartition) -> Partition:
        topic = self.topic(at.topic)
        if topic is None or not 0 <= at.partition < len(topic.partitions):
            raise LookupError(f"there is no partition {at.topic}-{at.partition}")
        return topic.partitions[at.partition]
