"""A producer whose every batch is a transaction, with a consumer group's offset in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import DataError, FencedError, RetriableError, TielineError, TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import poll_client, run_in_thread, to_tieline_error
from tieline.broker.kafka.records import produce
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.port import ProducerRecord

_TIMEOUT_MS = 60_000  # of a transaction: after that the brokers abort it, and readers go past it
_PATIENCE = 10.0  # seconds; a client that has committed nothing for so long may never do it
_FENCES = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}

GroupMetadata = Callable[[], Any]
"""The consumer's member id and generation, as of its last poll; none while it has none."""


@dataclass(frozen=True)
class Batch:
    """Records and the group's offset (none: it stays where it is); ``mark`` names this one batch."""

    records: Sequence[ProducerRecord]
    offset: int | None
    mark: bytes


class TransactionalProducer:
    """``begin`` fences everybody with the same id; then ``write``. Used by one thread at a time.

    ``open`` is the batch whose transaction has no end yet. Once ``broken`` (the client gave up, or lost
    count of where the brokers are), only a new one with the same id can tell what became of it.
    """

    def __init__(
        self,
        settings: ClientSettings,
        transactional_id: str,
        partition: TopicPartition,
        group_metadata: GroupMetadata,
    ) -> None:
        own = {key: value for key, value in settings.items() if key != "message.timeout.ms"}
        limits: ClientSettings = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": _TIMEOUT_MS,
            "linger.ms": 0,
            # The brokers end a transaction after they have said so: one that begins at once is told
            # to come again. Measured: 100 ms a write with the default; it grows to the second anyway.
            "retry.backoff.ms": 2,
        }
        self.open: Batch | None = None
        self.broken = False
        self._client = create_client(Producer, own | limits, "")
        self._what = f"writing as {transactional_id}"
        self._partition = partition
        self._group_metadata = group_metadata
        self._begun = self._committing = False
        self._failing_since: float | None = None

    def begin(self, timeout: float) -> None:
        """Fence whoever has the id, end what that one left, wait until its end shows. Can be repeated."""
        if self._begun:
            return
        try:
            self._client.init_transactions(timeout)
        except KafkaException as error:
            cause = self._unfinished(error)
            raise (RetriableError(str(cause)) if isinstance(cause, FencedError) else cause) from error
        self._begun, self._failing_since = True, None

    def write(self, batch: Batch, deadline: float) -> None:
        """Write the batch in one transaction. Raises ``RetriableError``, ``DataError`` or ``FencedError``.

        After an error nothing of the batch was written, unless ``open`` still holds it.
        """
        with self._explained():
            self._client.begin_transaction()
        self.open = batch
        try:
            self._fill(batch, deadline)
        except BaseException as error:
            if isinstance(error, RetriableError):
                self._tire()
            if not self.broken:
                self._abort(deadline)
            raise
        self._committing = True
        self.settle(deadline)

    def settle(self, deadline: float) -> Batch | None:
        """Bring an open transaction to its end, if there is one; the batch that is committed now."""
        if self.open is None:
            return None
        if not self._committing:
            self._abort(deadline)
            return None
        try:
            self._client.commit_transaction(_left(deadline))
        except KafkaException as error:
            cause = self._unfinished(error)
            if error.args[0].txn_requires_abort():
                self._committing = False
                self._abort(deadline)
            raise cause from error
        committed, self.open, self._committing, self._failing_since = self.open, None, False, None
        return committed

    def abandon(self) -> None:
        """Forget what the client has not sent."""
        self._client.purge()

    def _fill(self, batch: Batch, deadline: float) -> None:
        failures: dict[int, TielineError] = {}

        def delivered(index: int, error: KafkaError | None, message: Message) -> None:
            if error is not None and error.code() not in _PURGED:  # else what aborted it says more
                failures[index] = to_tieline_error(
                    error, f"writing to {batch.records[index].topic}", Operation.TRANSACTION
                )

        for index, record in enumerate(batch.records):
            try:
                produce(self._client, record, partial(delivered, index))
            except KafkaException as error:
                failures[index] = to_tieline_error(error, f"writing to {record.topic}", Operation.TRANSACTION)
            except (TypeError, ValueError) as error:
                failures[index] = DataError({0: error})
            except BufferError:
                raise RetriableError(f"{self._what}: the producer's queue is full") from None
        try:
            if batch.offset is not None and not failures:
                self._send_offset(batch.offset, deadline)
            waiting = 0 if failures else poll_client(self._client.flush, _left(deadline))
        except KafkaException as error:
            poll_client(self._client.poll, 0)
            if not failures:  # else it says only that a record has failed
                raise self._translated(error) from error
        else:
            if waiting:
                raise RetriableError(f"{self._what}: {waiting} records were not acknowledged in time")
        if failures:
            bad = {i: cause.failures[0] for i, cause in failures.items() if isinstance(cause, DataError)}
            lasting = next((cause for cause in failures.values() if not isinstance(cause, DataError)), None)
            raise lasting or DataError(bad)

    def _send_offset(self, offset: int, deadline: float) -> None:
        """With it goes the group's generation: who is out of the group is refused before it is fenced."""
        member = self._group_metadata()
        if member is None:
            raise RetriableError(f"{self._what}: the consumer is no member of its group now")
        at = KafkaPartition(*self._partition, offset)
        sending = run_in_thread(lambda: self._client.send_offsets_to_transaction([at], member), self._what)
        try:
            sending.result(_left(deadline))
        except FutureTimeout:  # it keeps to no time-out of its own, and lets nothing else be done
            self.broken = True
            raise RetriableError(f"{self._what}: the group's offset was not taken in time") from None

    def _abort(self, deadline: float) -> None:
        """What cannot be aborted now is by ``settle``, before anything else."""
        try:
            self._client.abort_transaction(_left(deadline))
        except KafkaException as error:
            raise self._unfinished(error) from error
        self.open = None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._translated(error) from error

    def _unfinished(self, error: KafkaException) -> TielineError:
        self._tire()
        return self._translated(error)

    def _tire(self) -> None:
        """Seen: after a broker was killed, a client that asked to be called again, for ever."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        self.broken |= now - self._failing_since > _PATIENCE

    def _translated(self, error: KafkaException) -> TielineError:
        cause: KafkaError = error.args[0]
        if cause.code() in _FENCES:
            return FencedError(f"{self._what}: somebody else has taken over: {cause.str()}")
        if cause.fatal() or cause.code() == KafkaError._STATE:
            self.broken = True
            return RetriableError(f"{self._what}: the client broke: {cause.name()}: {cause.str()}")
        said = to_tieline_error(error, self._what, Operation.TRANSACTION)
        return RetriableError(str(said)) if isinstance(said, DataError) else said


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
