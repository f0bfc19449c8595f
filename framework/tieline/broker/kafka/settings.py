"""The settings of Kafka's clients: what tieline sets, what a user may set, what would break a promise."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tieline.api import ConfigError, ConfigProblem
from tieline.broker.client_secrets import without_secrets
from tieline.broker.kafka.handshake import handshakes

T = TypeVar("T")
ClientSettings = dict[str, Any]

log = logging.getLogger("tieline.kafka")
"""Where librdkafka logs."""
log.addFilter(handshakes)

LARGEST_BATCH = 1_000_000  # bytes; below the default limit of a broker (1,048,588), so that batches pass
LARGEST_RECORD = 16 << 20  # a larger one is refused here; the topic's max.message.bytes decides below

PRODUCER: Mapping[str, str | int] = {
    "enable.idempotence": "true",
    # A broker takes any first sequence number of a producer that it does not know on a partition. With two
    # requests on their way, and the first refused because the partition's leader was just being made, it
    # takes the second, never the first again, and librdkafka reports both as written (KAFKA-15591): of 150
    # topics written to at once when they were made 32 lost records that were acknowledged; with one, none.
    "max.in.flight.requests.per.connection": 1,
    "acks": "all",
    "message.timeout.ms": 0,  # an outage is waited out, however long
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "compression.type": "lz4",
    "batch.size": LARGEST_BATCH,
    "message.max.bytes": LARGEST_RECORD,
}

CONSUMER: Mapping[str, str | int] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",  # tells where the end is, also behind a transaction's marker
    "partition.assignment.strategy": "cooperative-sticky",
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    # Memory: so much is fetched ahead. When it is there, fetching rests for the backoff; the default of
    # 1 s makes a fast reader wait. Measured: four times as much is no faster, and takes 40 MB more.
    "queued.max.messages.kbytes": 4_096,
    "fetch.queue.backoff.ms": 20,
    "fetch.error.backoff.ms": 500,  # longer than a topic's id counts as confirmed
    "fetch.max.bytes": 4 << 20,
    # Also the most bytes that a compressed batch may unpack to: few bytes of zstd can be many.
    "receive.message.max.bytes": 256 << 20,
    "socket.timeout.ms": 4_000,  # bounds a commit inside a rebalance, which has no other time-out
    "heartbeat.interval.ms": 1_000,  # a member learns of a rebalance with a heartbeat: twice, if cooperative
    "topic.metadata.refresh.interval.ms": 5_000,  # how soon a leader is found that a new topic lacked
    "metadata.max.age.ms": 5_000,  # how soon a topic is found that a subscription waits for
}

_SHARED = {"bootstrap.servers": "one worker is joined to one cluster"}

_PRODUCER_PROMISES = _SHARED | {
    "acks": "a record counts as delivered when all replicas in sync have it",
    "request.required.acks": "a record counts as delivered when all replicas in sync have it",
    "enable.idempotence": "retries must neither double nor reorder records",
    "max.in.flight.requests.per.connection": "with two on their way the first may be lost (KAFKA-15591)",
    "max.in.flight": "with two on their way the first may be lost (KAFKA-15591)",
    "transactional.id": "transactions are the runtime's",
    "message.timeout.ms": "an outage is waited out",
    "delivery.timeout.ms": "an outage is waited out",
    "message.send.max.retries": "an outage is waited out",
    "retries": "an outage is waited out",
    "partitioner": "keys must go where every other Kafka client puts them",
    "delivery.report.only.error": "each record is accounted for",
}

_CONSUMER_PROMISES = _SHARED | {
    "group.id": "it is made of the connector's name",
    "enable.auto.commit": "an offset is committed when the sink has confirmed the records",
    "auto.commit.interval.ms": "an offset is committed when the sink has confirmed the records",
    "enable.auto.offset.store": "an offset is committed when the sink has confirmed the records",
    "enable.partition.eof": "the runtime needs to know where a partition ends",
    "partition.assignment.strategy": "partitions are handed over cooperatively",
    "fetch.error.backoff.ms": "a topic that is deleted and made again must be noticed before it is read",
}


def producer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Raises ``ConfigError`` for an override that would break a promise."""
    _refuse(overrides, _PRODUCER_PROMISES, "producer.override.")
    return {**PRODUCER, **client, **overrides, "logger": log}


def consumer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Raises ``ConfigError`` for an override that would break a promise."""
    _refuse(overrides, _CONSUMER_PROMISES, "consumer.override.")
    return {**CONSUMER, **client, **overrides, "logger": log}


def problems(
    client: Mapping[str, str],
    *,
    producer: Mapping[str, str] | None = None,
    consumer: Mapping[str, str] | None = None,
) -> list[ConfigProblem]:
    """All that is wrong with these settings, found without a connection; ``where`` is left to the caller.

    ``client``: the worker's for every client; ``producer`` and ``consumer``: the overrides of either.
    A key of the overrides carries its prefix, one of ``client`` none.
    """
    from confluent_kafka import Consumer, Producer

    kind: Any
    if consumer is None:
        kind, overrides, prefix, promises = Producer, producer or {}, "producer.override.", _PRODUCER_PROMISES
        settings: ClientSettings = {**PRODUCER, **client}
    else:
        kind, overrides, prefix, promises = Consumer, consumer, "consumer.override.", _CONSUMER_PROMISES
        settings = {**CONSUMER, **client, "group.id": "tieline-check"}
    found = _refused(overrides, promises, prefix)
    # With a logger of its own a client keeps what it says until it is asked, which nobody does here; and
    # it knows no broker, so that it connects to none.
    settings |= {k: v for k, v in overrides.items() if k not in promises} | {"logger": log}
    while True:  # librdkafka stops at the first problem
        try:
            made_client: Any = create_client(kind, settings, "")
        except ConfigError as error:
            (problem,) = error.problems
            key = problem.key or _culprit(kind, settings, problem)
            found.append(problem._replace(key=prefix + key if key in overrides else key))
            if settings.pop(key, None) is None:
                return found
        else:
            if consumer is not None:
                made_client.close()
            return found


def _culprit(kind: Any, settings: ClientSettings, problem: ConfigProblem) -> str:
    """The setting that is refused in the same words alone: librdkafka may call it by another name."""
    always: ClientSettings = {key: settings[key] for key in ("group.id", "logger") if key in settings}
    for key, value in settings.items():
        try:
            create_client(kind, {**always, key: value}, "")
        except ConfigError as error:
            if error.problems[0].message == problem.message:
                return key
    return ""


def create_client(kind: Callable[..., T], settings: ClientSettings, prefix: str) -> T:
    """A client of these settings. Raises ``ConfigError`` for what librdkafka does not know or take."""
    from confluent_kafka import KafkaException  # loads librdkafka: only where it is used

    try:
        return kind(settings)
    except (KafkaException, TypeError, ValueError) as error:
        message = str(error.args[0].str() if hasattr(error.args[0], "str") else error)
        key = next((word for word in re.findall(r"[\w.]+", message) if word in settings), "")
        raise ConfigError([ConfigProblem("", prefix + key, without_secrets(message, settings))]) from None


def _refuse(overrides: Mapping[str, str], promises: Mapping[str, str], prefix: str) -> None:
    found = _refused(overrides, promises, prefix)
    if found:
        raise ConfigError(found)


def _refused(overrides: Mapping[str, str], promises: Mapping[str, str], prefix: str) -> list[ConfigProblem]:
    return [
        ConfigProblem("", prefix + key, f"cannot be set: {promises[key]}")
        for key in overrides
        if key in promises
    ]
