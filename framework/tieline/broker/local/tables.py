"""Every change of a log file."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from tieline.api import RecordMetadata, RetriableError, TopicPartition
from tieline.api.private_files import DiskReserve
from tieline.broker.local.file import OFFSET_NOTES, SOURCE_NOTES, LogSettings
from tieline.broker.local.layout import OFFSET_BITS, OFFSET_MASK, SIZE, Appended, Removed
from tieline.broker.local.record_check import check_record, check_topic_name
from tieline.broker.local.topic_cache import Topic, TopicCache
from tieline.broker.records import ProducerRecord


class Tables:
    """Changes the tables of one log file. Used by the writer's thread, inside its transaction."""

    def __init__(
        self, connection: apsw.Connection, settings: LogSettings, reserve: DiskReserve | None = None
    ) -> None:
        self.connection = connection
        self._settings = settings
        self._reserve = reserve
        self._cache = TopicCache(connection)
        self._appending = True
        self.appended_bytes = 0
        """The bytes that the open transaction has appended."""

    def begin(self) -> None:
        """Prepare for a transaction that was opened."""
        self.appended_bytes = 0
        self._cache.begin()

    def finish(self) -> None:
        """Write what is left. Called before a commit."""
        self._cache.store()

    def roll_back(self) -> None:
        """Drop what is cached. Called after a rollback."""
        self._cache.clear()

    def disk_is_full(self) -> None:
        """Give up the reserve, so that records can be deleted, and append nothing until there is room."""
        if self._reserve is not None:
            self._reserve.release()
            self._appending = False

    def _has_room(self) -> bool:
        if self._reserve is None:
            return True
        free = self.connection.pragma("freelist_count") * self.connection.pragma("page_size")
        return bool(free >= self._reserve.size) or self._reserve.restore()

    def create_topic(self, name: str, partitions: int, config: Mapping[str, str]) -> bool:
        """Create a topic. Return ``False`` if it exists. Raises ``ValueError`` for an illegal name."""
        check_topic_name(name)
        if self._cache.topic(name) is not None:
            return False
        if partitions < 0:
            partitions = self._settings.default_partitions
        if not 1 <= partitions <= 10_000:
            raise ValueError(f"topic {name}: {partitions} partitions; 1 to 10,000 are possible")
        execute = self.connection.execute
        execute(
            "INSERT INTO topic (name, id, config) VALUES (?, ?, ?)",
            (name, str(uuid.uuid4()), json.dumps(dict(config))),
        )
        number = self.connection.last_insert_rowid()
        self.connection.executemany(
            "INSERT INTO partition (topic, number) VALUES (?, ?)", [(number, n) for n in range(partitions)]
        )
        return True

    def add_partitions(self, name: str, count: int) -> None:
        """Add partitions to a topic until it has at least ``count``."""
        topic = self._cache.topic(name)
        if topic is None:
            raise LookupError(f"there is no topic {name}")
        new = [(topic.number, number) for number in range(len(topic.partitions), count)]
        if new:
            self._cache.store()  # because the topic is read again
            self.connection.executemany("INSERT INTO partition (topic, number) VALUES (?, ?)", new)
            self._cache.drop(topic)

    def delete_topic(self, name: str) -> bool:
        """Delete a topic, its records and its groups' offsets. Return ``False`` if it does not exist."""
        topic = self._cache.topic(name)
        if topic is None:
            return False
        for partition in topic.partitions:
            base = partition.id << OFFSET_BITS
            self.connection.execute(
                "DELETE FROM record WHERE position BETWEEN ? AND ?", (base, base | OFFSET_MASK)
            )
        self.connection.execute("DELETE FROM topic WHERE number = ?", (topic.number,))
        self._cache.drop(topic)
        return True

    def append(self, records: Sequence[ProducerRecord]) -> Appended:
        """Write all records but those that can never be written. Missing topics are created."""
        if not self._appending:
            self._appending = self._has_room()
            if not self._appending:
                raise RetriableError("the disk is full; records are accepted again when there is room")
        now = time.time_ns() // 1_000_000
        rows: list[tuple[int, int, bytes | None, bytes | None, bytes | None]] = []
        metadata: list[RecordMetadata | None] = []
        failures: dict[int, Exception] = {}
        topic: Topic | None = None
        max_bytes = 0
        for index, record in enumerate(records):
            try:
                if topic is None or record.topic != topic.name:
                    topic = self._topic_to_append(record.topic)
                    max_bytes = topic.setting("max.message.bytes", self._settings.max_message_bytes)
                partitions = topic.partitions
                headers, size = check_record(record, max_bytes, len(partitions))
                only = len(partitions) == 1
                partition = partitions[0] if only else topic.choose(record.key, record.partition)
            except (ValueError, TypeError, AttributeError) as cause:
                failures[index] = cause
                metadata.append(None)
                continue
            offset = partition.next
            partition.next = offset + 1
            partition.records += 1
            partition.bytes += size
            self.appended_bytes += size
            self._cache.changed[partition.id] = partition
            timestamp = now if record.timestamp is None else record.timestamp
            position = partition.id << OFFSET_BITS | offset
            rows.append((position, timestamp, record.key, record.value, headers))
            metadata.append(RecordMetadata(topic.name, partition.number, offset))
        # REPLACE: a row at or behind the end is not a record, whatever a damaged disk has put there
        self.connection.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?)", rows)
        return Appended(metadata, failures)

    def _topic_to_append(self, name: str) -> Topic:
        topic = self._cache.topic(name)
        if topic is None:
            self.create_topic(name, -1, {})
            topic = self._cache.topic(name)
        assert topic is not None
        topic.sticky = None
        return topic

    def advance(self, partition: TopicPartition, offset: int) -> None:
        """Give the next record this offset or a later one."""
        stored = self._cache.partition(partition)
        stored.next = max(stored.next, offset)
        self._cache.changed[stored.id] = stored

    def ends(self, name: str) -> list[int]:
        """Return the next offset of each partition; empty if the topic does not exist."""
        topic = self._cache.topic(name)
        return [] if topic is None else [partition.next for partition in topic.partitions]

    def remove(self, partition: TopicPartition, before: int, max_records: int) -> Removed:
        """Delete the oldest records of a partition below ``before``, at most ``max_records``."""
        stored = self._cache.partition(partition)
        before = min(before, stored.next)
        base = stored.id << OFFSET_BITS
        row: Any = self.connection.execute(
            f"SELECT count(*), max(position), total(size) FROM (SELECT position, {SIZE} AS size FROM record "
            "WHERE position >= ? AND position < ? LIMIT ?)",
            (base | stored.start, base | max(before, 0), max_records),
        ).fetchone()
        count, last, size = row
        if count:
            self.connection.execute(
                "DELETE FROM record WHERE position >= ? AND position <= ?", (base | stored.start, last)
            )
        start = before if count < max_records else (last & OFFSET_MASK) + 1
        stored.start = max(stored.start, start)
        stored.records -= count
        stored.bytes -= int(size)
        if stored.start >= stored.next:  # so that the counts of a damaged row do not stay wrong
            stored.records = stored.bytes = 0
        self._cache.changed[stored.id] = stored
        return Removed(count, int(size), stored.start)

    def skip(self, partition: TopicPartition, before: int, max_records: int) -> Removed:
        """Move the start as ``remove`` does. Damaged records stay in the file and are never read again."""
        stored = self._cache.partition(partition)
        start = max(stored.start, min(before, stored.next, stored.start + max_records))
        skipped, stored.start = start - stored.start, start
        stored.records = min(stored.records, stored.next - start)
        if start == stored.next:
            stored.bytes = 0
        self._cache.changed[stored.id] = stored
        return Removed(skipped, 0, start)

    def delete(self, partition: TopicPartition, offsets: Sequence[int]) -> None:
        """Delete the records at these offsets."""
        stored = self._cache.partition(partition)
        for offset in offsets:
            position = stored.id << OFFSET_BITS | offset
            row: Any = self.connection.execute(
                f"DELETE FROM record WHERE position = ? RETURNING {SIZE}", (position,)
            ).fetchone()
            if row is not None:
                stored.records -= 1
                stored.bytes -= row[0]
        self._cache.changed[stored.id] = stored

    def partitions(self) -> list[TopicPartition]:
        """Return every partition of every topic."""
        rows = self.connection.execute(
            "SELECT topic.name, partition.number FROM partition JOIN topic ON topic.number = partition.topic"
        )
        return [TopicPartition(*row) for row in rows]

    def expire(self, partition: TopicPartition, limit: int, now: int, max_records: int) -> bool:
        """Delete records below ``limit`` that exceed the retention, at most ``max_records``, oldest first.

        Return whether there may be more. ``now`` is in ms since 1970. A compacted topic is not touched.
        """
        topic = self._cache.topic(partition.topic)
        if topic is None or "compact" in topic.config.get("cleanup.policy", ""):
            return False
        stored = self._cache.partition(partition)
        age = topic.setting("retention.ms", self._settings.retention_ms)
        most = topic.setting("retention.bytes", self._settings.retention_bytes)
        surplus = stored.bytes - most if most >= 0 else 0
        oldest = now - age if age >= 0 else 0
        base = stored.id << OFFSET_BITS
        rows: list[Any] = self.connection.execute(
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
            self.remove(partition, before, count)
        return count == max_records

    def commit_group(
        self,
        group: str,
        offsets: Mapping[TopicPartition, int],
        ids: Mapping[TopicPartition, int],
        notes: Mapping[TopicPartition, str] | None = None,
    ) -> None:
        """Store a group's offsets with their notes, except those of a topic that was deleted or recreated.

        ``ids``: the ids that the caller knows of the partitions. An offset without a note removes the
        previous note.
        """
        rows: list[tuple[str, int, int]] = []
        noted: list[tuple[str, int, int, str]] = []
        for partition, offset in offsets.items():
            topic = self._cache.topic(partition.topic)
            if topic is not None and 0 <= partition.partition < len(topic.partitions):
                partition_id = topic.partitions[partition.partition].id
                if ids.get(partition, partition_id) == partition_id:
                    rows.append((group, partition_id, offset))
                    if note := (notes or {}).get(partition):
                        noted.append((group, partition_id, offset, note))
        self.connection.execute(OFFSET_NOTES)
        if len(noted) < len(rows):
            self.connection.executemany(
                "DELETE FROM offset_note WHERE name = ? AND partition = ?", [row[:2] for row in rows]
            )
        self.connection.executemany("INSERT OR REPLACE INTO group_offset VALUES (?, ?, ?)", rows)
        self.connection.executemany("INSERT OR REPLACE INTO offset_note VALUES (?, ?, ?, ?)", noted)

    def remove_group(self, group: str) -> None:
        """Remove all offsets of a group."""
        self.connection.execute(OFFSET_NOTES)
        for table in ("group_offset", "offset_note"):
            self.connection.execute(f"DELETE FROM {table} WHERE name = ?", (group,))

    def save_source_offsets(
        self,
        connector: str,
        offsets: Mapping[str, str | None],
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store source offsets with their notes. ``None`` removes one.

        An offset without a note removes the previous note.
        """
        given = {p: note for p, note in (notes or {}).items() if note and offsets.get(p) is not None}
        noted = [(connector, partition, offsets[partition], note) for partition, note in given.items()]
        self.connection.execute(SOURCE_NOTES)
        if len(noted) < len(offsets):
            self.connection.executemany(
                "DELETE FROM source_note WHERE connector = ? AND partition = ?",
                [(connector, partition) for partition in offsets],
            )
        self.connection.executemany("INSERT OR REPLACE INTO source_note VALUES (?, ?, ?, ?)", noted)
        self.connection.executemany(
            "INSERT OR REPLACE INTO source_offset VALUES (?, ?, ?)",
            [(connector, partition, offset) for partition, offset in offsets.items() if offset is not None],
        )
        self.connection.executemany(
            "DELETE FROM source_offset WHERE connector = ? AND partition = ?",
            [(connector, partition) for partition, offset in offsets.items() if offset is None],
        )

    def source_offset(self, connector: str, partition: str) -> str | None:
        """Return a stored source offset, or ``None``."""
        offset: str | None = self.connection.execute(
            "SELECT next FROM source_offset WHERE connector = ? AND partition = ?", (connector, partition)
        ).get
        return offset
