"""Producing the records of one transaction, and why those that failed did."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tieline.api import DataError, RetriableError, TielineError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import error_code, to_tieline_error
from tieline.broker.kafka.records import produce
from tieline.broker.records import ProducerRecord

_PURGED = {error_code("_PURGE_QUEUE"), error_code("_PURGE_INFLIGHT")}


class TransactionRecords:
    """Produces the records of one transaction, and collects their failures. Used by one thread."""

    def __init__(self, records: Sequence[ProducerRecord]) -> None:
        self._records = records
        self.failures: dict[int, TielineError] = {}
        """By index; later ones are reported while the client is polled."""

    def produce(self, client: Producer, what: str) -> None:
        """Put all records into the client's queue. Raises ``RetriableError`` if it is full."""
        for index, record in enumerate(self._records):
            try:
                produce(client, record, partial(self._delivered, index))
            except KafkaException as error:
                self._fail(index, error)
            except (TypeError, ValueError) as error:
                self.failures[index] = DataError({0: error})
            except BufferError:
                raise RetriableError(f"{what}: the producer's queue is full") from None

    def raise_failures(self) -> None:
        """Raise the first failure that is not about a record, else ``DataError`` with all of them."""
        if not self.failures:
            return
        for cause in self.failures.values():
            if not isinstance(cause, DataError):
                raise cause
        raise DataError(
            {i: cause.failures[0] for i, cause in self.failures.items() if isinstance(cause, DataError)}
        )

    def _delivered(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in _PURGED:  # what caused the purge says more
            self._fail(index, error)

    def _fail(self, index: int, error: KafkaError | KafkaException) -> None:
        what = f"writing to {self._records[index].topic}"
        self.failures[index] = to_tieline_error(error, what, Operation.TRANSACTION)
