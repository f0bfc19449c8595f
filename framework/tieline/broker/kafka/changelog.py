"""The changelog of a consumed partition on Kafka: a compacted topic, and one transaction per write.

The transactional id names connector, topic and partition, so that the partition's next owner fences this one,
wherever it hangs. Each write sets a *mark* under the empty key. If the client broke during a write, a new
client reads the mark to find out whether that write succeeded. A new client also fences the rightful owner,
so if it finds another owner's mark it must not write.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tieline.api import DataError, FencedError, RetriableError, TielineError, TopicPartition
from tieline.broker.kafka.settings import ClientSettings
from tieline.broker.kafka.transactions import Batch, GroupMetadata, TransactionalProducer
from tieline.broker.records import ConsumedRecord, ProducerRecord

CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",  # no deletion by time: the writer deletes keys
    "segment.bytes": str(16 << 20),  # only closed segments are compacted, and these topics are small
    "segment.ms": str(24 * 3_600_000),
    "delete.retention.ms": str(24 * 3_600_000),
}
_MARK = b""


@dataclass(frozen=True)
class ChangelogServices:
    """What changelogs need from the broker.

    ``ensure(topic, consumed, timeout)`` creates the changelog topic with as many partitions as the consumed
    one. ``read`` is ``Broker.read`` for one partition.
    """

    settings: ClientSettings
    ensure: Callable[[str, str, float], None]
    read: Callable[[str, Callable[[ConsumedRecord], None], Mapping[int, int], float, int], object]


@dataclass(frozen=True)
class ChangelogTarget:
    """A changelog's topic, the consumed partition, and the metadata that prove the group membership."""

    topic: str
    partition: TopicPartition
    group_metadata: GroupMetadata


class KafkaChangelog:
    """A ``PartitionChangelog`` on Kafka. Repeat ``open`` until it succeeds, then write."""

    def __init__(self, services: ChangelogServices, target: ChangelogTarget) -> None:
        self.entries: dict[bytes, bytes] = {}
        self.restored_at = 0  # a worker's backup does not contain what is on Kafka
        self._services = services
        self._target = target
        self._what = f"the changelog {target.topic}-{target.partition.partition}"
        self._lock = threading.Lock()
        self._closed = False
        self._producer: TransactionalProducer | None = None
        self._opening: TransactionalProducer | None = None  # until it has begun and read to the end
        self._position: dict[int, int] = {}
        self._writer_id = uuid.uuid4().hex.encode()
        self._marks = (b"%b %d" % (self._writer_id, n) for n in itertools.count())
        self._last_mark: bytes | None = None
        self._mark_at_open: bytes | None = None

    def open(self, timeout: float) -> None:
        """Fence the previous owner, then read to the end. A later attempt continues where this stopped."""
        deadline = time.monotonic() + timeout
        self._services.ensure(self._target.topic, self._target.partition.topic, timeout)
        self._begin(self._read_entry, deadline)
        self._mark_at_open = self._last_mark

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """Write entries, records and the group's offset, all or nothing; see ``PartitionChangelog.write``."""
        deadline = time.monotonic() + timeout
        topic, number = self._target.topic, self._target.partition.partition
        changes = [ProducerRecord(topic, value, key, partition=number) for key, value in entries.items()]
        wanted = [*changes, *records]
        with self._locked(timeout) as producer:
            producer, committed = self._settle(producer, deadline)
            if committed and committed.records[:-1] == wanted and committed.offset == offset:
                return  # an earlier call had no answer, and has written it
            mark = next(self._marks)
            wanted.append(ProducerRecord(topic, mark, _MARK, partition=number))
            self._write(producer, Batch(wanted, offset, mark), deadline)

    def close(self, timeout: float) -> None:
        """Close the changelog; see ``PartitionChangelog.close``.

        An open transaction is ended if there is time.
        """
        self._closed = True
        if not self._lock.acquire(timeout=timeout):
            return  # a write hangs; the next owner ends its transaction
        try:
            producer, self._producer = self._producer, None
            if producer is not None:
                if not producer.broken:
                    with suppress(TielineError):
                        producer.settle(time.monotonic() + timeout)
                producer.abandon()
        finally:
            self._lock.release()

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[TransactionalProducer]:
        if not self._lock.acquire(timeout=timeout):
            raise RetriableError(f"{self._what}: an earlier write has not ended within {timeout} s")
        try:
            if self._closed or self._producer is None:
                raise FencedError(f"{self._what} is closed; nothing was written")
            yield self._producer
        finally:
            self._lock.release()

    def _write(self, producer: TransactionalProducer, batch: Batch, deadline: float) -> None:
        try:
            producer.write(batch, deadline)
        except RetriableError:
            if producer.open is not None or producer.broken:
                raise  # it has not ended yet
            # It is aborted, and its cause may have passed: an old generation of the group, or a wrong
            # sequence number of the client after a rejected record.
            producer.write(batch, deadline)
        except DataError as error:
            named = {
                index: cause for index, cause in error.failures.items() if index < len(batch.records) - 1
            }
            raise DataError(named or error.failures) from error

    def _settle(
        self, producer: TransactionalProducer, deadline: float
    ) -> tuple[TransactionalProducer, Batch | None]:
        """End an open transaction. Return the producer to use now, and the batch that is committed now."""
        if not producer.broken:
            try:
                return producer, producer.settle(deadline)
            except RetriableError:
                if not producer.broken:
                    raise
        unanswered = producer.open
        replacement = self._begin(self._read_mark, deadline)
        producer.abandon()
        if self._last_mark != self._mark_at_open and not (self._last_mark or b"").startswith(self._writer_id):
            self._closed = True  # its entries are outdated; the rightful owner takes over again
            raise FencedError(f"{self._what}: another owner has written it; nothing was written")
        written = unanswered is not None and unanswered.mark == self._last_mark
        return replacement, unanswered if written else None

    def _begin(self, visit: Callable[[ConsumedRecord], None], deadline: float) -> TransactionalProducer:
        """Fence all other producers, read what is new, and return the producer that may write now."""
        topic, partition = self._target.topic, self._target.partition
        if self._opening is None:
            transactional_id = f"tieline-{topic}-{partition.partition}"
            self._opening = TransactionalProducer(
                self._services.settings, transactional_id, partition, self._target.group_metadata
            )
        try:
            self._opening.begin(max(0.1, deadline - time.monotonic()))
        except TielineError:
            if self._opening.broken:
                self._opening = None
            raise
        # Everything committed before is visible now: the brokers have written its markers.
        left = max(0.1, deadline - time.monotonic())
        self._services.read(topic, visit, self._position, left, partition.partition)
        producer = self._producer = self._opening
        self._opening = None
        return producer

    def _read_entry(self, record: ConsumedRecord) -> None:
        self._read_mark(record)
        key = record.key or b""
        if record.value is None:
            self.entries.pop(key, None)
        elif key != _MARK:
            self.entries[key] = record.value

    def _read_mark(self, record: ConsumedRecord) -> None:
        # Also if the end is not reached in time: the next attempt continues from here.
        self._position[record.partition] = record.offset + 1
        if not record.key:
            self._last_mark = record.value
