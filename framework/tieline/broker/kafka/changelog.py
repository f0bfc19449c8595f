"""The changelog of a consumed partition on Kafka: a compacted topic, and a transaction a write.

The transactional id names connector, topic and partition, so that the partition's next owner fences this
one, wherever it hangs. Each write sets a *mark* under the empty key: where the client broke in the middle,
a new one reads whether that write is there, and whether somebody else has written since: a new client fences
the rightful owner too, so one that finds the mark of another must not write.
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
from tieline.broker.port import ConsumedRecord, ProducerRecord

CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",  # no deletion by time: who writes it deletes keys
    "segment.bytes": str(16 << 20),  # only closed segments are compacted; these are small topics
    "segment.ms": str(24 * 3_600_000),
    "delete.retention.ms": str(24 * 3_600_000),
}
_MARK = b""


@dataclass(frozen=True)
class ChangelogServices:
    """What the broker lends its changelogs.

    ``ensure(topic, consumed, timeout)`` makes the changelog topic with the consumed one's partitions;
    ``read`` is ``Broker.read`` of one partition.
    """

    settings: ClientSettings
    ensure: Callable[[str, str, float], None]
    read: Callable[[str, Callable[[ConsumedRecord], None], Mapping[int, int], float, int], object]


@dataclass(frozen=True)
class ChangelogTarget:
    """Whose changelog: its topic, the consumed partition, and who proves to be the group's member."""

    topic: str
    partition: TopicPartition
    group_metadata: GroupMetadata


class KafkaChangelog:
    """See ``PartitionWriter``. ``open`` it until that succeeds, then write."""

    def __init__(self, ground: ChangelogServices, place: ChangelogTarget) -> None:
        self.entries: dict[bytes, bytes] = {}
        self._ground = ground
        self._place = place
        self._what = f"the changelog {place.topic}-{place.partition.partition}"
        self._lock = threading.Lock()
        self._closed = False
        self._producer: TransactionalProducer | None = None
        self._coming: TransactionalProducer | None = None  # begins, or reads, and has not come to the end
        self._position: dict[int, int] = {}
        self._own = uuid.uuid4().hex.encode()
        self._marks = (b"%b %d" % (self._own, n) for n in itertools.count())
        self._last_mark: bytes | None = None
        self._mark_at_open: bytes | None = None

    def open(self, timeout: float) -> None:
        """Fence whoever was here, then read to the end; goes on where an earlier attempt stopped."""
        deadline = time.monotonic() + timeout
        self._ground.ensure(self._place.topic, self._place.partition.topic, timeout)
        self._begin(self._visit, deadline)
        self._mark_at_open = self._last_mark

    def write(
        self,
        entries: Mapping[bytes, bytes | None],
        records: Sequence[ProducerRecord],
        offset: int | None,
        timeout: float,
    ) -> None:
        """See ``PartitionWriter.write``."""
        deadline = time.monotonic() + timeout
        topic, number = self._place.topic, self._place.partition.partition
        own = [ProducerRecord(topic, value, key, partition=number) for key, value in entries.items()]
        wanted = [*own, *records]
        with self._locked(timeout) as producer:
            committed = self._settled(producer, deadline)
            if committed and committed.records[:-1] == wanted and committed.offset == offset:
                return  # an earlier call had no answer, and this is it
            mark = next(self._marks)
            wanted.append(ProducerRecord(topic, mark, _MARK, partition=number))
            self._write(Batch(wanted, offset, mark), deadline)

    def close(self, timeout: float) -> None:
        """See ``PartitionWriter.close``. A transaction without an answer is given what time there is."""
        self._closed = True
        if not self._lock.acquire(timeout=timeout):
            return  # a write hangs: whoever takes over ends it
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
                raise FencedError(f"{self._what}: it was let go; nothing was written")
            yield self._producer
        finally:
            self._lock.release()

    def _write(self, batch: Batch, deadline: float) -> None:
        assert self._producer is not None
        try:
            self._producer.write(batch, deadline)
        except RetriableError:
            if self._producer.open is not None or self._producer.broken:
                raise  # it has no end yet
            # It is aborted. What has led to it may be over: a generation of the group, or a sequence
            # number that the client had wrong after a record that was refused.
            self._producer.write(batch, deadline)
        except DataError as error:
            named = {
                index: cause for index, cause in error.failures.items() if index < len(batch.records) - 1
            }
            raise DataError(named or error.failures) from error

    def _settled(self, producer: TransactionalProducer, deadline: float) -> Batch | None:
        """Bring what is open to its end; the batch that is committed now."""
        if not producer.broken:
            try:
                return producer.settle(deadline)
            except RetriableError:
                if not producer.broken:
                    raise
        unanswered = producer.open
        self._begin(self._see, deadline)
        producer.abandon()
        if self._last_mark != self._mark_at_open and not (self._last_mark or b"").startswith(self._own):
            self._closed = True  # what it knows is old; who has written takes over again
            raise FencedError(f"{self._what}: somebody else has written it; nothing was written")
        written = unanswered is not None and unanswered.mark == self._last_mark
        return unanswered if written else None

    def _begin(self, visit: Callable[[ConsumedRecord], None], deadline: float) -> None:
        topic, at = self._place.topic, self._place.partition
        if self._coming is None:
            transactional_id = f"tieline-{topic}-{at.partition}"
            self._coming = TransactionalProducer(
                self._ground.settings, transactional_id, at, self._place.group_metadata
            )
        try:
            self._coming.begin(max(0.1, deadline - time.monotonic()))
        except TielineError:
            if self._coming.broken:
                self._coming = None
            raise
        # What was committed before shows from here on: the brokers have set its markers.
        self._ground.read(topic, visit, self._position, max(0.1, deadline - time.monotonic()), at.partition)
        self._producer, self._coming = self._coming, None

    def _visit(self, record: ConsumedRecord) -> None:
        self._see(record)
        key = record.key or b""
        if record.value is None:
            self.entries.pop(key, None)
        elif key != _MARK:
            self.entries[key] = record.value

    def _see(self, record: ConsumedRecord) -> None:
        # So far it was read, also where the end is not reached in time: the next attempt goes on from here.
        self._position[record.partition] = record.offset + 1
        if not record.key:
            self._last_mark = record.value
