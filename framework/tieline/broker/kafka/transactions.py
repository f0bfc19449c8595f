"""A producer that writes each batch in a transaction, together with a consumer group's offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tieline.api import DataError, FencedError, RetriableError, TielineError, TopicPartition
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import error_code, poll_client, run_in_thread, to_tieline_error
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.kafka.transaction_records import TransactionRecords
from tieline.broker.records import ProducerRecord

_TIMEOUT_MS = 60_000  # after this the brokers abort a transaction, and readers continue behind it
_BROKEN_AFTER = 10.0  # seconds; a client that has committed nothing for so long may never do it
_FENCES = {
    error_code("_FENCED"),
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.INVALID_PRODUCER_ID_MAPPING,
}
_STATE = error_code("_STATE")

GroupMetadata = Callable[[], Any]
"""Returns the consumer's member id and generation at its last poll, or ``None`` if it has none."""


@dataclass(frozen=True)
class Batch:
    """Records and the group's offset (``None`` leaves it as it is). ``mark`` identifies this batch."""

    records: Sequence[ProducerRecord]
    offset: int | None
    mark: bytes


class TransactionalProducer:
    """Call ``begin``, which fences every other producer with the same id, then ``write``.

    ``open`` is the batch whose transaction has not ended yet. Once the client is ``broken`` (it gave up, or
    no longer knows the state of the brokers), only a new producer with the same id can find out what became
    of that batch. Used by one thread at a time.
    """

    def __init__(
        self,
        settings: ClientSettings,
        transactional_id: str,
        partition: TopicPartition,
        group_metadata: GroupMetadata,
    ) -> None:
        kept = {key: value for key, value in settings.items() if key != "message.timeout.ms"}
        limits: ClientSettings = {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": _TIMEOUT_MS,
            "linger.ms": 0,
            # The brokers end a transaction after they have acknowledged its end, so the next one must retry
            # at first. Measured: 100 ms per write with the default; the backoff grows to a second anyway.
            "retry.backoff.ms": 2,
        }
        self.open: Batch | None = None
        self.broken = False
        self._client = create_client(Producer, kept | limits, "")
        self._what = f"writing as {transactional_id}"
        self._partition = partition
        self._group_metadata = group_metadata
        self._initialized = self._committing = False
        self._failing_since: float | None = None

    def begin(self, timeout: float) -> None:
        """Fence every other producer with this id, and wait for its transaction to end. Can be repeated."""
        if self._initialized:
            return
        try:
            self._client.init_transactions(timeout)
        except KafkaException as error:
            cause = self._note_failure(error)
            raise (RetriableError(str(cause)) if isinstance(cause, FencedError) else cause) from error
        self._initialized, self._failing_since = True, None

    def write(self, batch: Batch, deadline: float) -> None:
        """Write the batch in one transaction. Raises ``RetriableError``, ``DataError`` or ``FencedError``.

        After an error nothing of the batch was written, unless ``open`` still holds it.
        """
        with self._translating_errors():
            self._client.begin_transaction()
        self.open = batch
        try:
            self._fill(batch, deadline)
        except BaseException as error:
            if isinstance(error, RetriableError):
                self._note_attempt()
            if not self.broken:
                self._abort(deadline)
            raise
        self._committing = True
        self.settle(deadline)

    def settle(self, deadline: float) -> Batch | None:
        """End an open transaction, if there is one. Return the batch that is committed now."""
        if self.open is None:
            return None
        if not self._committing:
            self._abort(deadline)
            return None
        try:
            self._client.commit_transaction(_left(deadline))
        except KafkaException as error:
            cause = self._note_failure(error)
            if error.args[0].txn_requires_abort():
                self._committing = False
                self._abort(deadline)
            raise cause from error
        committed, self.open, self._committing, self._failing_since = self.open, None, False, None
        return committed

    def abandon(self) -> None:
        """Drop what the client has not sent."""
        self._client.purge()

    def _fill(self, batch: Batch, deadline: float) -> None:
        records = TransactionRecords(batch.records)
        records.produce(self._client, self._what)
        try:
            if batch.offset is not None and not records.failures:
                self._send_offset(batch.offset, deadline)
            waiting = 0 if records.failures else poll_client(self._client.flush, _left(deadline))
        except KafkaException as error:
            poll_client(self._client.poll, 0)
            if not records.failures:  # with some, it says only that a record has failed
                raise self._translate(error) from error
        else:
            if waiting:
                raise RetriableError(f"{self._what}: {waiting} records were not acknowledged in time")
        records.raise_failures()

    def _send_offset(self, offset: int, deadline: float) -> None:
        """Send the offset with the group's generation: a former member is rejected before it is fenced."""
        member = self._group_metadata()
        if member is None:
            raise RetriableError(f"{self._what}: the consumer is not a member of its group now")
        position = KafkaPartition(*self._partition, offset)
        sending = run_in_thread(
            lambda: self._client.send_offsets_to_transaction([position], member), self._what
        )
        try:
            sending.result(_left(deadline))
        except FutureTimeout:  # the call has no time-out, and blocks all others
            self.broken = True
            raise RetriableError(f"{self._what}: the group's offset was not taken in time") from None

    def _abort(self, deadline: float) -> None:
        """Abort the transaction. If that fails, ``settle`` tries again before anything else."""
        try:
            self._client.abort_transaction(_left(deadline))
        except KafkaException as error:
            raise self._note_failure(error) from error
        self.open = None

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise self._translate(error) from error

    def _note_failure(self, error: KafkaException) -> TielineError:
        self._note_attempt()
        return self._translate(error)

    def _note_attempt(self) -> None:
        """Note a failure. A client that fails for ten seconds is broken: one was seen to retry for ever."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        self.broken |= now - self._failing_since > _BROKEN_AFTER

    def _translate(self, error: KafkaException) -> TielineError:
        cause: KafkaError = error.args[0]
        if cause.code() in _FENCES:
            return FencedError(f"{self._what}: another owner has taken over: {cause.str()}")
        if cause.fatal() or cause.code() == _STATE:
            self.broken = True
            return RetriableError(f"{self._what}: the client broke: {cause.name()}: {cause.str()}")
        translated = to_tieline_error(error, self._what, Operation.TRANSACTION)
        return RetriableError(str(translated)) if isinstance(translated, DataError) else translated


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())
