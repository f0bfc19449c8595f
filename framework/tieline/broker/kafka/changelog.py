"""The changelog of a consumed partition on Kafka: a compacted topic, and a transaction a write.

The transactional id names connector, topic and partition, so that ``init_transactions`` of the partition's
next owner fences this one, wherever it hangs. A write that moves the group's offset also shows the group's
generation: a member that is out of the group cannot do that even before it is fenced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import DataError, Fenced, Retriable, TielineError, TopicPartition
from tieline.broker.kafka.errors import served, translated
from tieline.broker.kafka.records import produce
from tieline.broker.kafka.settings import ClientSettings, made
from tieline.broker.port import ConsumedRecord, ProducerRecord

CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",  # no deletion by time: who writes it deletes keys
    "segment.bytes": str(16 << 20),  # only closed segments are compacted; these are small topics
    "segment.ms": str(24 * 3_600_000),
    "delete.retention.ms": str(24 * 3_600_000),
}
_TRANSACTION_TIMEOUT_MS = 60_000
_FENCES = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}

GroupMetadata = Callable[[], Any]
"""The consumer's member id and generation, as of now. Raises ``Retriable`` when it is closed."""


@dataclass(frozen=True)
class Ground:
    """What the broker lends its changelogs.

    ``ensure(topic, consumed, timeout)`` makes the changelog topic with the consumed one's partitions;
    ``read`` is ``Broker.read`` of one partition.
    """

    settings: ClientSettings
    ensure: Callable[[str, str, float], None]
    read: Callable[[str, Callable[[ConsumedRecord], None], Mapping[int, int], float, int], object]


@dataclass(frozen=True)
class Place:
    """Whose changelog: its topic, the consumed partition, and who proves to be the group's member."""

    topic: str
    partition: TopicPartition
    group_metadata: GroupMetadata


class KafkaChangelog:
    """See ``PartitionWriter``. ``open`` it until that succeeds, then write."""

    def __init__(self, ground: Ground, place: Place) -> None:
        self.entries: dict[bytes, bytes] = {}
        self._ground = ground
        self._place = place
        own = {key: value for key, value in ground.settings.items() if key != "message.timeout.ms"}
        self._settings: ClientSettings = own | {
            "transactional.id": f"tieline-{place.topic}-{place.partition.partition}",
            "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
            "linger.ms": 0,
            # The brokers end a transaction after they have said so: one that begins at once is told
            # to come again. Measured: 100 ms a write with the default; it grows to the second anyway.
            "retry.backoff.ms": 2,
        }
        self._client: Producer | None = None
        self._position: dict[int, int] = {}
        self._lock = threading.Lock()
        self._open: _Write | None = None  # the write whose transaction has not ended yet
        self._committing = self._closed = False

    def open(self, timeout: float) -> None:
        """Fence whoever was here, then read to the end; goes on where an earlier attempt stopped."""
        deadline = time.monotonic() + timeout
        topic, number = self._place.topic, self._place.partition.partition
        self._ground.ensure(topic, self._place.partition.topic, timeout)
        client = made(Producer, self._settings, "")
        try:
            client.init_transactions(_left(deadline))
        except KafkaException as error:
            cause = self._translated(error)
            raise (Retriable(str(cause)) if isinstance(cause, Fenced) else cause) from error
        # What earlier owners committed shows from here on: init_transactions has waited for its markers.
        self._ground.read(topic, self._visit, self._position, _left(deadline), number)
        self._client = client

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
        wanted = _Write([*own, *records], offset)
        with self._locked(timeout) as client:
            if self._ended(client, deadline) == wanted:
                return  # an earlier call had no answer, and this is it
            try:
                self._transact(client, wanted, deadline)
            except Retriable:
                if self._open is not None:
                    raise  # it has no end yet
                # It is aborted. What has led to it may be over: a generation of the group, or a sequence
                # number that the client has wrong after a record that was refused.
                self._transact(client, wanted, deadline)

    def close(self, timeout: float) -> None:
        """See ``PartitionWriter.close``. A transaction without an answer is given what time there is."""
        self._closed = True
        if not self._lock.acquire(timeout=timeout):
            return  # a write hangs: whoever takes over ends it
        try:
            client, self._client = self._client, None
            if client is not None:
                with suppress(TielineError):
                    self._ended(client, time.monotonic() + timeout)
                client.purge()
        finally:
            self._lock.release()

    @contextmanager
    def _locked(self, timeout: float) -> Iterator[Producer]:
        if not self._lock.acquire(timeout=timeout):
            raise Retriable(f"{self._what}: an earlier write has not ended within {timeout} s")
        try:
            if self._closed or self._client is None:
                raise Fenced(f"{self._what}: it was let go; nothing was written")
            yield self._client
        finally:
            self._lock.release()

    def _transact(self, client: Producer, wanted: _Write, deadline: float) -> None:
        with self._explained():
            client.begin_transaction()
        self._open = wanted
        try:
            self._fill(client, wanted, deadline)
        except BaseException:
            self._abort(client, deadline)
            raise
        self._committing = True
        self._ended(client, deadline)

    def _fill(self, client: Producer, wanted: _Write, deadline: float) -> None:
        failures: dict[int, TielineError] = {}

        def delivered(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() != KafkaError._PURGE_QUEUE:
                failures[index] = translated(error, f"writing to {wanted.records[index].topic}")

        for index, record in enumerate(wanted.records):
            try:
                produce(client, record, partial(delivered, index))
            except KafkaException as error:
                failures[index] = translated(error, f"writing to {record.topic}")
            except (TypeError, ValueError) as error:
                failures[index] = DataError({0: error})
            except BufferError:
                raise Retriable(f"{self._what}: the producer's queue is full") from None
        try:
            if wanted.offset is not None and not failures:
                at = KafkaPartition(*self._place.partition, wanted.offset)
                client.send_offsets_to_transaction([at], self._place.group_metadata(), _left(deadline))
            waiting = served(client.flush, _left(deadline)) if not failures else 0
        except KafkaException as error:
            served(client.poll, 0)
            if not failures:  # else it says only that a record has failed
                raise self._translated(error) from error
        else:
            if waiting:
                raise Retriable(f"{self._what}: {waiting} records were not acknowledged in time")
        bad = {i: cause.failures[0] for i, cause in failures.items() if isinstance(cause, DataError)}
        if failures:
            lasting = next((cause for cause in failures.values() if not isinstance(cause, DataError)), None)
            raise lasting or DataError(bad)

    def _ended(self, client: Producer, deadline: float) -> _Write | None:
        """Bring an open transaction to its end; the write that is committed now, if any."""
        if self._open is None:
            return None
        if not self._committing:
            self._abort(client, deadline)
            return None
        try:
            client.commit_transaction(_left(deadline))
        except KafkaException as error:
            if error.args[0].txn_requires_abort():
                self._committing = False
                self._abort(client, deadline)
            raise self._translated(error) from error
        committed, self._open, self._committing = self._open, None, False
        return committed

    def _abort(self, client: Producer, deadline: float) -> None:
        """Whatever cannot be aborted now is by the next call, before it does anything else."""
        with self._explained():
            client.abort_transaction(_left(deadline))
        self._open = None

    @property
    def _what(self) -> str:
        return f"the changelog {self._place.topic}-{self._place.partition.partition}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._translated(error) from error

    def _translated(self, error: KafkaException) -> TielineError:
        cause: KafkaError = error.args[0]
        if cause.code() in _FENCES:
            return Fenced(f"{self._what}: somebody else has taken the partition over: {cause.str()}")
        if cause.fatal() or cause.code() == KafkaError._STATE:
            return Fenced(f"{self._what}: it has to be taken over anew: {cause.name()}: {cause.str()}")
        said = translated(error, self._what)
        return Retriable(str(said)) if isinstance(said, DataError) else said

    def _visit(self, record: ConsumedRecord) -> None:
        # So far it was read, also where the end is not reached in time: the next attempt goes on from here.
        self._position[record.partition] = record.offset + 1
        if record.value is None:
            self.entries.pop(record.key or b"", None)
        else:
            self.entries[record.key or b""] = record.value


@dataclass(frozen=True)
class _Write:
    """What a call of ``write`` asks for; equal to the same asked again."""

    records: Sequence[ProducerRecord]
    offset: int | None


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
