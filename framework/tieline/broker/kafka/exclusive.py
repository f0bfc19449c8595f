"""Being the only writer of a topic: a transactional id that names the topic, fenced by the brokers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from confluent_kafka import KafkaException, Producer

from tieline.broker.kafka.codes import Operation
from tieline.broker.kafka.errors import poll_client, to_tieline_error
from tieline.broker.kafka.settings import ClientSettings, create_client
from tieline.broker.kafka.transaction_records import TransactionRecords
from tieline.broker.pending_writes import PendingWrites
from tieline.broker.port import ExclusiveWriter
from tieline.broker.records import ProducerRecord


@contextmanager
def hold_topic(settings: ClientSettings, topic: str, timeout: float) -> Iterator[ExclusiveWriter]:
    """Hold a topic; see ``Broker.exclusive``. A later holder fences an earlier one."""
    what = f"holding {topic}"
    settings = {key: value for key, value in settings.items() if key != "message.timeout.ms"}
    # A transaction ends some time, and its records with it: they cannot be retried for ever.
    limits = {
        "transactional.id": f"tieline-exclusive-{topic}",
        "transaction.timeout.ms": max(1000, int(timeout * 1000)),
    }
    client = create_client(Producer, settings | limits, "producer.override.")
    try:
        client.init_transactions(timeout)
        pending = PendingWrites(topic)
        yield pending
        if pending.records:
            _write(client, pending.records, timeout, what)
    except KafkaException as error:
        raise to_tieline_error(error, what, Operation.TRANSACTION) from error
    finally:
        client.purge()


def _write(client: Producer, records: Sequence[ProducerRecord], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    writing = TransactionRecords(records)
    client.begin_transaction()
    try:
        writing.produce(client, what)
        poll_client(client.flush, max(0.0, deadline - time.monotonic()))
        writing.raise_failures()
        client.commit_transaction(max(0.1, deadline - time.monotonic()))
    except BaseException:
        with suppress(KafkaException):  # if it was fenced, the broker has aborted it already
            client.abort_transaction(timeout)
        raise
