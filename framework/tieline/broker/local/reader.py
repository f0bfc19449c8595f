"""Reading a log file in short transactions, on connections of its own, beside the writer."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from tieline.api import Headers, RetriableError, TopicPartition
from tieline.broker.local.codec import decode_headers
from tieline.broker.local.file import connect, to_tieline_error
from tieline.broker.local.layout import OFFSET_BITS, OFFSET_MASK
from tieline.broker.records import UNREADABLE_HEADERS, Committed, ConsumedRecord, TopicInfo

MAX_BATCH_BYTES = 16 << 20
_IDLE_CONNECTIONS = 4
_SCAN = 10_000
_PARTITIONS = "partition JOIN topic ON topic.number = partition.topic"
_NOTES = (
    "LEFT JOIN offset_note ON offset_note.name = group_offset.name "
    "AND offset_note.partition = group_offset.partition AND offset_note.next = group_offset.next"
)


class Bounds(NamedTuple):
    """First offset and end (the next offset) of a partition, id in the file, and number of records."""

    start: int
    end: int
    id: int
    records: int


class Waiting(NamedTuple):
    """Records and bytes of a partition, where it starts, its first timestamp, and a saved text."""

    records: int
    bytes: int
    start: int
    oldest_ms: int | None
    saved: str | None


class RawRow(NamedTuple):
    """A record as it is in the file: not decoded, and bytes even if a damaged disk changed their type."""

    offset: int
    value: bytes | None
    headers: bytes | None


class Reader:
    """Reads a log file. Any thread may use it.

    A read transaction lasts only while one limited batch is copied, so that the write-ahead log can start
    over.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections: list[apsw.Connection] = []
        self._open = True

    def read_from(
        self,
        topic: str,
        partition: int,
        offset: int,
        max_records: int = 1_000,
        max_bytes: int = MAX_BATCH_BYTES,
    ) -> list[ConsumedRecord]:
        """Return the records from an offset on, at least one if there is one."""
        with self._reading() as connection:
            row: Any = connection.execute(
                f"SELECT partition.id FROM {_PARTITIONS} WHERE topic.name = ? AND partition.number = ?",
                (topic, partition),
            ).fetchone()
            if row is None:
                return []
            return _read(connection, TopicPartition(topic, partition), row[0], offset, max_records, max_bytes)

    def read_known(
        self, partition: TopicPartition, bounds: Bounds, offset: int, max_records: int, max_bytes: int
    ) -> list[ConsumedRecord]:
        """Do the same for a partition whose bounds are known."""
        with self._reading() as connection:
            return _read(connection, partition, bounds.id, offset, max_records, max_bytes)

    def read_raw(
        self, bounds: Bounds, offset: int, end: int, max_records: int, *, search: bool = True
    ) -> list[RawRow]:
        """Return the rows from an offset up to before ``end``, in the order of the file.

        Without ``search`` the whole file is read, which also finds rows that are out of order.
        """
        base, plus = bounds.id << OFFSET_BITS, "" if search else "+"
        rows: list[RawRow] = []
        size = 0
        with self._reading() as connection:
            cursor = connection.execute(
                "SELECT position, CAST(value AS BLOB), CAST(headers AS BLOB) FROM record "
                f"WHERE {plus}position >= ? AND {plus}position < ? LIMIT ?",
                (base | offset, base | end, max_records),
            )
            row: Any
            for row in cursor:
                position, value, headers = row
                rows.append(RawRow(position & OFFSET_MASK, value, headers))
                size += len(value or b"") + len(headers or b"")
                if size >= MAX_BATCH_BYTES:
                    break
            cursor.close()
        return rows

    def first_since(self, bounds: Bounds, timestamp: int) -> int:
        """Return the offset of a partition's first record with this timestamp or a later one, else its end.

        There is no index of timestamps: the records are searched in steps of short transactions.
        """
        if timestamp <= 0:
            return bounds.start
        base = bounds.id << OFFSET_BITS
        position, end = base | bounds.start, base | bounds.end
        while position < end:
            with self._reading() as connection:
                row: Any = connection.execute(
                    "SELECT min(position) FILTER (WHERE timestamp >= ?), max(position) FROM "
                    "(SELECT position, timestamp FROM record WHERE position >= ? AND position < ? LIMIT ?)",
                    (timestamp, position, end, _SCAN),
                ).fetchone()
            first, last = row
            if first is not None:
                return int(first) & OFFSET_MASK
            position = end if last is None else last + 1
        return bounds.end

    def bounds(self, topic: str | None = None) -> dict[TopicPartition, Bounds]:
        """Return the bounds of each partition, of one topic or of all."""
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                f"SELECT topic.name, partition.number, start, next, partition.id, records FROM {_PARTITIONS} "
                "WHERE ?1 IS NULL OR topic.name = ?1",
                (topic,),
            ).fetchall()
        return {TopicPartition(name, number): Bounds(*rest) for name, number, *rest in rows}

    def described(self, topic: str) -> tuple[Mapping[str, str], int] | None:
        """Return a topic's configuration and number of partitions; ``None`` if it does not exist."""
        with self._reading() as connection:
            row: Any = connection.execute(
                "SELECT config, (SELECT count(*) FROM partition WHERE partition.topic = topic.number) "
                "FROM topic WHERE name = ?",
                (topic,),
            ).fetchone()
        return None if row is None else (json.loads(row[0]), row[1])

    def size(self, topic: str) -> tuple[int, int]:
        """Return a topic's number of records and the bytes of their keys, values and headers."""
        with self._reading() as connection:
            row: Any = connection.execute(
                f"SELECT total(records), total(bytes) FROM {_PARTITIONS} WHERE topic.name = ?", (topic,)
            ).fetchone()
        return int(row[0]), int(row[1])

    def waiting(self, topic: str, note: tuple[str, str]) -> Waiting:
        """Return what one partition holds, and a source offset, ``(connector, partition)``, at one moment."""
        oldest = "SELECT timestamp FROM record WHERE position >= partition.id << 40 | start LIMIT 1"
        with self._reading() as connection:
            row: Any = connection.execute(
                f"SELECT records, bytes, start, CASE WHEN records > 0 THEN ({oldest}) END, "
                "(SELECT next FROM source_offset WHERE connector = ? AND partition = ?) "
                f"FROM {_PARTITIONS} WHERE topic.name = ? AND partition.number = 0",
                (*note, topic),
            ).fetchone()
        return Waiting(*row)

    def groups(self) -> list[str]:
        """Return the names of all groups with a stored offset."""
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                "SELECT DISTINCT name FROM group_offset ORDER BY name"
            ).fetchall()
        return [name for (name,) in rows]

    def committed(self, group: str) -> dict[TopicPartition, int]:
        """Return all stored offsets of a group."""
        return {partition: stored.offset for partition, stored in self.noted(group).items()}

    def noted(self, group: str) -> dict[TopicPartition, Committed]:
        """Return all stored offsets of a group with their notes."""
        with self._reading() as connection:
            noted = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'offset_note'").get
            note, join = ("coalesce(note, '')", _NOTES) if noted else ("''", "")  # nothing was noted yet
            rows: list[Any] = connection.execute(
                f"SELECT topic.name, partition.number, group_offset.next, {note} FROM {_PARTITIONS} "
                f"JOIN group_offset ON group_offset.partition = partition.id {join} "
                "WHERE group_offset.name = ?",
                (group,),
            ).fetchall()
        return {TopicPartition(name, number): Committed(*rest) for name, number, *rest in rows}

    def source_offsets(self, connector: str) -> dict[str, str]:
        """Return the saved source offsets of a connector."""
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                "SELECT partition, next FROM source_offset WHERE connector = ?", (connector,)
            ).fetchall()
        return dict(rows)

    def source_notes(self, connector: str) -> dict[str, str]:
        """Return the notes of the saved source offsets of a connector."""
        with self._reading() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'source_note'").get:
                return {}  # nothing was noted yet
            rows: list[Any] = connection.execute(
                "SELECT partition, note FROM source_note JOIN source_offset "
                "USING (connector, partition, next) WHERE connector = ?",
                (connector,),
            ).fetchall()
        return dict(rows)

    def sources(self) -> list[str]:
        """Return the connectors with saved source offsets."""
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                "SELECT DISTINCT connector FROM source_offset ORDER BY connector"
            ).fetchall()
        return [name for (name,) in rows]

    def topics(self) -> dict[str, TopicInfo]:
        """Return all topics by name."""
        with self._reading() as connection:
            rows: list[Any] = connection.execute(
                f"SELECT topic.name, topic.id, count(*) FROM {_PARTITIONS} GROUP BY topic.number"
            ).fetchall()
        return {row[0]: TopicInfo(*row) for row in rows}

    @property
    def cluster_id(self) -> str:
        """The id that the file was created with."""
        with self._reading() as connection:
            return str(connection.execute("SELECT value FROM about WHERE key = 'cluster_id'").get)

    @property
    def restored_at(self) -> int:
        """When the file was last restored from a backup, in microseconds since 1970; 0 if never."""
        with self._reading() as connection:
            return int(connection.execute("SELECT value FROM about WHERE key = 'restored'").get or 0)

    def close(self) -> None:
        """Close the file. A read that is in progress completes."""
        self._open = False
        while self._connections:
            self._connections.pop().close()

    def _must_be_open(self) -> None:
        if not self._open:
            raise RetriableError(f"the log file {self.path} is closed")

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        self._must_be_open()
        try:
            connection = self._connections.pop()
        except IndexError:
            connection = connect(self.path, read_only=True)
        keep = False
        try:
            yield connection
            keep = len(self._connections) < _IDLE_CONNECTIONS
        except apsw.Error as error:
            raise to_tieline_error(error, self.path) from error
        finally:
            if keep:
                self._connections.append(connection)
            else:
                connection.close()


def _read(
    connection: apsw.Connection,
    partition: TopicPartition,
    partition_id: int,
    offset: int,
    max_records: int,
    max_bytes: int,
) -> list[ConsumedRecord]:
    topic, number = partition
    base = partition_id << OFFSET_BITS
    records: list[ConsumedRecord] = []
    cursor = connection.execute(
        "SELECT position, timestamp, key, value, headers FROM record WHERE position BETWEEN ? AND ? LIMIT ?",
        (base | max(offset, 0), base | OFFSET_MASK, max_records),
    )
    try:
        row: Any  # the file's STRICT columns
        for row in cursor:
            position, timestamp, key, value, headers = row
            records.append(
                ConsumedRecord(
                    topic,
                    number,
                    position & OFFSET_MASK,
                    value,
                    key,
                    _headers(headers) if headers else (),
                    timestamp,
                )
            )
            max_bytes -= len(value or b"") + len(key or b"") + len(headers or b"")
            if max_bytes <= 0:
                break
    finally:
        cursor.close()
    return records


def _headers(data: bytes) -> Headers:
    try:
        return decode_headers(data)
    except (struct.error, ValueError, IndexError, TypeError):  # a damaged disk
        return UNREADABLE_HEADERS
