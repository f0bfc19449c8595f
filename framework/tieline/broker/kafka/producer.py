"""A producer on Kafka: idempotent, without a delivery time-out, with outcomes in the order of sending."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from tieline.api import AccessDeniedError, DataError, FatalError, RecordMetadata, RetriableError, TielineError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import poll_client, to_tieline_error
from tieline.broker.kafka.records import produce
from tieline.broker.kafka.settings import LARGEST_BATCH, ClientSettings, create_client
from tieline.broker.kafka.source_offsets import offset_record
from tieline.broker.port import RefusedNowError
from tieline.broker.records import Delivery, ProducerRecord, Unit

_OVERHEAD = 512
"""Bytes of memory for a record besides its content, including the client's copy."""

_MAY_SHARE = LARGEST_BATCH // 2  # bytes; a smaller record may have shared its batch


class _UnitInFlight:
    """A unit that has not ended."""

    __slots__ = ("failures", "fed", "metadata", "outstanding", "size", "unit")

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.size = sum(_OVERHEAD + len(r.value or b"") + len(r.key or b"") for r in unit.records)
        self.reset()

    def reset(self) -> None:
        """Note that nothing of the unit was sent."""
        count = len(self.unit.records)
        self.fed = 0
        self.outstanding = count
        self.metadata: list[RecordMetadata | None] = [None] * count
        self.failures: dict[int, Exception] = {}


class KafkaProducer:
    """A ``Producer`` on Kafka. Once ``poll`` has raised, it always raises: create a new producer.

    A broker rejects a whole batch if it is too large for the topic or one of its records is invalid. The
    units from that one on are then sent again, each record alone, so that only the invalid record is
    rejected.
    """

    def __init__(self, settings: ClientSettings, offsets_topic: str) -> None:
        self._settings = settings | {"error_cb": self._on_error}
        self._offsets_topic = offsets_topic
        self._client = create_client(Client, self._settings, "producer.override.")
        self._open: deque[_UnitInFlight] = deque()
        self._unfed: deque[_UnitInFlight] = deque()
        self._in_flight_bytes = 0
        self._broken: TielineError | None = None
        self._alone = self._batch_refused = False

    @property
    def in_flight_bytes(self) -> int:
        """The bytes that were sent and not yet reported; see ``Producer.in_flight_bytes``."""
        return self._in_flight_bytes

    def send(self, unit: Unit) -> None:
        """Send a unit without waiting; see ``Producer.send``."""
        sent = _UnitInFlight(unit)
        self._open.append(sent)
        self._unfed.append(sent)
        self._in_flight_bytes += sent.size
        self._feed()

    def poll(self, timeout: float) -> list[Delivery]:
        """Return the units that have ended; see ``Producer.poll``."""
        deadline = time.monotonic() + timeout
        self._serve(0)
        while True:
            self._feed()
            ended = self._take_ended()
            if ended:
                return ended
            if self._broken is not None:
                raise self._broken
            if self._batch_refused:
                self._send_alone()
            left = deadline - time.monotonic()
            if left <= 0 or not self._open:
                return []
            self._serve(left)

    def save_offsets(
        self,
        connector: str,
        offsets: Mapping[str, str],
        timeout: float,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Store source offsets, and return when they are stored; see ``Producer.save_offsets``.

        The format is that of Kafka Connect's ``offset.storage.topic``, with the note as a header.
        """
        deadline = time.monotonic() + timeout
        waiting = set(offsets)
        errors: list[KafkaError] = []

        def saved(partition: str, error: KafkaError | None, message: Message) -> None:
            waiting.discard(partition)
            if error is not None:
                errors.append(error)

        for partition, offset in offsets.items():
            note = (notes or {}).get(partition)
            record = offset_record(self._offsets_topic, connector, partition, offset, note)
            self._produce_offset(record, partial(saved, partition))
        while waiting and not errors:
            if self._broken is not None:
                raise self._broken
            left = deadline - time.monotonic()
            if left <= 0:
                raise RetriableError(f"{self._offsets_topic}: no acknowledgement within {timeout} s")
            self._serve(left)
        if errors:
            cause = to_tieline_error(errors[0], f"saving offsets to {self._offsets_topic}", Operation.WRITE)
            if isinstance(cause, DataError):  # this class made the record
                passing = isinstance(cause.failures[0], RefusedNowError)
                raise AccessDeniedError(str(cause.failures[0])) if passing else FatalError(str(cause))
            raise cause

    def _produce_offset(
        self, record: ProducerRecord, delivered: Callable[[KafkaError | None, Message], None]
    ) -> None:
        try:
            produce(self._client, record, delivered)
        except KafkaException as error:
            what = f"saving offsets to {self._offsets_topic}"
            raise to_tieline_error(error, what, Operation.WRITE) from error
        except BufferError:
            raise RetriableError("saving offsets: the producer's queue is full") from None

    def close(self, timeout: float) -> None:
        """Close, abandoning what is not acknowledged in time; see ``Producer.close``."""
        deadline = time.monotonic() + timeout
        while self._unfed and self._broken is None and time.monotonic() < deadline:
            self._serve(min(0.1, max(0.0, deadline - time.monotonic())))
            self._feed()
        self._serve(max(0.0, deadline - time.monotonic()), self._client.flush)
        self._abandon()
        self._open.clear()
        self._in_flight_bytes = 0

    def _serve(self, timeout: float, call: Callable[[float], int] | None = None) -> None:
        """Let the client run its callbacks. Never raises; an error goes to ``_broken``."""
        try:
            poll_client(call or self._client.poll, timeout)
        except KafkaException as error:
            self._break(to_tieline_error(error, "the producer", Operation.METADATA))

    def _feed(self) -> None:
        """Put records into the client's queue while it has room."""
        while self._unfed:
            sent = self._unfed[0]
            records = sent.unit.records
            while sent.fed < len(records):
                if self._broken is not None or self._batch_refused:
                    return
                index = sent.fed
                try:
                    produce(self._client, records[index], partial(self._delivered, sent, index))
                except BufferError:
                    return  # full: the next poll continues here
                except KafkaException as error:
                    self._failed(sent, index, error.args[0])
                except (TypeError, ValueError) as error:
                    sent.outstanding -= 1
                    sent.failures[index] = DataError({index: error})
                sent.fed += 1
            self._unfed.popleft()

    def _delivered(self, sent: _UnitInFlight, index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed(sent, index, error)
            return
        sent.outstanding -= 1
        topic = sent.unit.records[index].topic
        sent.metadata[index] = RecordMetadata(topic, message.partition() or 0, message.offset() or 0)

    def _failed(self, sent: _UnitInFlight, index: int, error: KafkaError) -> None:
        record = sent.unit.records[index]
        cause = to_tieline_error(error, f"producing to {record.topic}", Operation.WRITE)
        if not isinstance(cause, DataError) or error.fatal():
            self._break(cause)
            return
        by_broker = sent.fed > index
        if by_broker and not self._alone and len(record.value or b"") + len(record.key or b"") < _MAY_SHARE:
            self._batch_refused = (
                True  # another record of its batch may be invalid, or only the batch too large
            )
            return
        sent.outstanding -= 1
        reason = cause.failures[0]
        cause = DataError({index: reason if by_broker else ValueError(str(reason))})
        sent.failures[index] = cause

    def _take_ended(self) -> list[Delivery]:
        ended: list[Delivery] = []
        while self._open and self._open[0].outstanding == 0:
            sent = self._open.popleft()
            self._in_flight_bytes -= sent.size
            ended.append(Delivery(sent.unit, sent.metadata, sent.failures))
        return ended

    def _send_alone(self) -> None:
        self._abandon()
        self._alone, self._batch_refused = True, False
        self._client = create_client(Client, self._settings | {"batch.num.messages": 1}, "producer.override.")
        for sent in self._open:
            sent.reset()
        self._unfed = deque(self._open)

    def _abandon(self) -> None:
        """Drop what the client has not sent, with its late reports."""
        broken, self._broken = self._broken, RetriableError("abandoned")
        self._client.purge()
        self._serve(0)
        self._broken = broken
        self._unfed.clear()

    def _on_error(self, error: KafkaError) -> None:
        cause = to_tieline_error(error, "the producer", Operation.METADATA)
        if isinstance(cause, FatalError):
            self._break(cause)

    def _break(self, cause: TielineError) -> None:
        if self._broken is None:
            self._broken = RetriableError(str(cause)) if isinstance(cause, DataError) else cause
