"""Being the only writer of a topic: a transaction whose id names the topic, fenced by the broker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tieline.api import DataError
from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import poll_client, to_tieline_error
from tieline.broker.kafka.records import produce
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.pending_writes import PendingWrites
from tieline.broker.port import ExclusiveWriter, ProducerRecord


@contextmanager
def hold_topic(settings: ClientSettings, topic: str, timeout: float) -> Iterator[ExclusiveWriter]:
    """See ``Broker.exclusive``. Who comes later fences who came earlier."""
    what = f"holding {topic}"
    settings = {key: value for key, value in settings.items() if key != "message.timeout.ms"}
    # A transaction cannot be waited out for ever: its records end with it.
    limits = {
        "transactional.id": f"tieline-exclusive-{topic}",
        "transaction.timeout.ms": max(1000, int(timeout * 1000)),
    }
    client = create_client(Producer, settings | limits, "producer.override.")
    try:
        client.init_transactions(timeout)
        holding = PendingWrites(topic)
        yield holding
        if holding.records:
            _write(client, holding.records, timeout)
    except KafkaException as error:
        raise to_tieline_error(error, what, Operation.TRANSACTION) from error
    finally:
        client.purge()


def _write(client: Producer, records: Sequence[ProducerRecord], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    failures: dict[int, KafkaError] = {}

    def delivered(index: int, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures[index] = error

    client.begin_transaction()
    try:
        for index, record in enumerate(records):
            try:
                produce(client, record, partial(delivered, index))
            except KafkaException as error:
                failures[index] = error.args[0]
        poll_client(client.flush, max(0.0, deadline - time.monotonic()))
        if failures:
            causes = {
                i: to_tieline_error(error, f"writing to {records[i].topic}", Operation.TRANSACTION)
                for i, error in failures.items()
            }
            lasting = next((cause for cause in causes.values() if not isinstance(cause, DataError)), None)
            raise lasting or DataError(causes)
        client.commit_transaction(max(0.1, deadline - time.monotonic()))
    except BaseException:
        with suppress(KafkaException):  # fenced: the broker has aborted it already
            client.abort_transaction(timeout)
        raise
