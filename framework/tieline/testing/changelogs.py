"""Changelogs in memory, for tests of a sink task that keeps one. Faults can be planned."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from tieline.api import (
    DataDirInUseError,
    DataError,
    FencedError,
    RetriableError,
    Schema,
    SourceRecord,
    TopicPartition,
)
from tieline.converters.codec import AvroCodec

__all__ = ["Changelogs"]


class Changelogs:
    """What outlives a task: give the same object to the context of the next task.

        changelogs = Changelogs()
        changelogs.fail(2, Crash("here"), "after")  # the second write from now takes effect, then raises
        context = RecordingSinkContext(changelogs=changelogs)
        …                                           # the task dies with Crash
        assert changelogs.offsets == {partition: 7}
        context = RecordingSinkContext(changelogs=changelogs)   # the next task reads what was written

    Taking over a partition fences its former owner, as at a broker. Values are encoded as Avro, as in
    production: a value that does not fit its schema is a ``DataError``, and no object is shared with the
    task. ``records`` holds the records of all partitions in the order of the writes.
    """

    def __init__(self) -> None:
        self.records: list[SourceRecord] = []
        self.offsets: dict[TopicPartition, int] = {}
        self.writes = 0
        """How many took effect."""
        self._entries: dict[TopicPartition, dict[str, bytes]] = defaultdict(dict)
        self._schemas: dict[TopicPartition, Schema] = {}
        self._owners: dict[TopicPartition, _Changelog] = {}
        self._faults: dict[int, _Fault] = {}
        self._claims: dict[tuple[str, str], tuple[str, int]] = {}
        self.restored_at = 0
        self._openings: list[Exception] = []
        self._calls = 0
        self._lock = threading.Lock()

    def entries(self, partition: TopicPartition) -> dict[str, Any]:
        """Return what is written of a partition now, decoded."""
        with self._lock:
            if partition not in self._schemas:
                return {}
            codec = AvroCodec.of(self._schemas[partition])
            return {key: codec.decode(value) for key, value in self._entries[partition].items()}

    def fail(
        self, call: int, error: BaseException, when: Literal["before", "after"] = "before", times: int = 1
    ) -> None:
        """Let the ``call``-th write from now (from 1), and ``times`` in all, raise ``error``.

        ``after``: it takes effect first. A write that is repeated after a ``RetriableError`` is a call, too;
        if it took effect before, it takes effect only once.
        """
        with self._lock:
            for number in range(self._calls + call, self._calls + call + times):
                self._faults[number] = _Fault(error, when)

    def fail_to_open(self, error: Exception, times: int = 1) -> None:
        """Let the next openings raise, such as ``RetriableError``."""
        self._openings += [error] * times

    def backup(self) -> Backup:
        """Return what is written now, for `restore`."""
        with self._lock:
            entries = {partition: dict(entries) for partition, entries in self._entries.items()}
            return Backup(entries, list(self.records), dict(self.offsets))

    def restore(self, backup: Backup, at: int) -> None:
        """Return to a backup, and fence every owner. ``at``: microseconds since 1970; each time another."""
        with self._lock:
            self._entries = defaultdict(dict, {p: dict(entries) for p, entries in backup.entries.items()})
            self.records, self.offsets = list(backup.records), dict(backup.offsets)
            self.restored_at = at
            self._owners.clear()

    def fence(self, partition: TopicPartition) -> None:
        """Let another task take the partition: its owner's next write raises ``FencedError``."""
        with self._lock:
            self._owners.pop(partition, None)

    def claim(self, name: str, topic: str, acts_on: str, partitions: int) -> int:
        """Return how many partitions the topic had at its first claim. Raises ``DataDirInUseError``."""
        if not acts_on:
            return 0
        owner, first = self._claims.setdefault((topic, acts_on), (name, partitions))
        if owner != name:
            raise DataDirInUseError(f"the records of {topic} that act on {acts_on} belong to {owner}")
        return first

    def open(self, partition: TopicPartition, schema: Schema) -> _Changelog:
        """Take over the changelog of a partition; see ``SinkContext.changelog``."""
        if self._openings:
            raise self._openings.pop(0)
        self._schemas[partition] = schema
        changelog = _Changelog(self, partition, AvroCodec.of(schema), self.entries(partition))
        with self._lock:
            self._owners[partition] = changelog
        return changelog

    def write(self, changelog: _Changelog, write: _Write) -> None:
        """Take what a task's changelog writes, or fail as the test has asked for."""
        with self._lock:
            self._calls += 1
            fault = self._faults.pop(self._calls, None)
            if fault is not None and fault.when == "before":
                raise fault.error
            if self._owners.get(changelog.partition) is not changelog:
                raise FencedError(f"{changelog.partition}: another task owns it")
            if write != changelog.unanswered:
                self._apply(changelog.partition, write)
            changelog.unanswered = None
            if fault is not None:
                if isinstance(fault.error, RetriableError):
                    changelog.unanswered = write
                raise fault.error

    def _apply(self, partition: TopicPartition, write: _Write) -> None:
        for key, value in write.entries.items():
            if value is None:
                self._entries[partition].pop(key, None)
            else:
                self._entries[partition][key] = value
        self.records += write.records
        if write.offset is not None:
            self.offsets[partition] = max(write.offset, self.offsets.get(partition, 0))
        self.writes += 1


class Backup(NamedTuple):
    """What `Changelogs` held at a moment."""

    entries: Mapping[TopicPartition, Mapping[str, bytes]]
    records: Sequence[SourceRecord]
    offsets: Mapping[TopicPartition, int]


class _Fault(NamedTuple):
    error: BaseException
    when: Literal["before", "after"]


class _Write(NamedTuple):
    entries: Mapping[str, bytes | None]
    records: Sequence[SourceRecord]
    offset: int | None


class _Changelog:
    def __init__(
        self, changelogs: Changelogs, partition: TopicPartition, codec: AvroCodec, entries: dict[str, Any]
    ) -> None:
        self.partition = partition
        self.entries: Mapping[str, Any] = entries
        self.first_partitions = 0
        self.restored_at = changelogs.restored_at
        self.unanswered: _Write | None = None
        self._changelogs = changelogs
        self._codec = codec

    def write(
        self,
        entries: Mapping[str, Any | None],
        records: Sequence[SourceRecord] = (),
        offset: int | None = None,
    ) -> None:
        """See ``Changelog.write``."""
        coded: dict[str, bytes | None] = {}
        sent: list[SourceRecord] = []
        for index, (key, value) in enumerate(entries.items()):
            with _blaming(index):
                coded[key] = None if value is None else self._codec.encode(value)
        for index, record in enumerate(records, len(entries)):
            with _blaming(index):
                sent.append(_sent(record))
        self._changelogs.write(self, _Write(coded, sent, offset))


@contextmanager
def _blaming(index: int) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError({index: error}) from error


def _sent(record: SourceRecord) -> SourceRecord:
    """The record as its reader would have it."""
    if record.value is None:
        return record
    if record.value_schema is None:
        return record._replace(value=json.loads(json.dumps(record.value)))
    codec = AvroCodec.of(record.value_schema)
    return record._replace(value=codec.decode(codec.encode(record.value)))
