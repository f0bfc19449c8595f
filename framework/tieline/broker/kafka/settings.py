"""The settings of Kafka's clients: tieline's own, and those that a user must not override."""

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
"""The logger of librdkafka."""
log.addFilter(handshakes)

LARGEST_BATCH = 1_000_000  # bytes; below the default limit of a broker (1,048,588), so that batches pass
LARGEST_RECORD = 16 << 20  # a larger one is rejected here; below, the topic's max.message.bytes decides

PRODUCER: Mapping[str, str | int] = {
    "enable.idempotence": "true",
    # A broker accepts any first sequence number of a producer that it does not know on a partition. If two
    # requests are in flight and the first is rejected because the partition has no leader yet, it accepts
    # the second, never the first again, and librdkafka reports both as written (KAFKA-15591). Of 150 topics
    # that were written to right after their creation, 32 lost acknowledged records; with one request, none.
    "max.in.flight.requests.per.connection": 1,
    "acks": "all",
    "message.timeout.ms": 0,  # wait for the end of an outage, however long
    "partitioner": "murmur2_random",
    "linger.ms": 5,
    "compression.type": "lz4",
    "batch.size": LARGEST_BATCH,
    "message.max.bytes": LARGEST_RECORD,
}

CONSUMER: Mapping[str, str | int] = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "enable.partition.eof": "true",  # reports the end, also behind a transaction's marker
    "partition.assignment.strategy": "cooperative-sticky",
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    # Memory: how much is fetched ahead. Then fetching pauses for the backoff, whose default of 1 s makes a
    # fast reader wait. Measured: four times as much is not faster, and takes 40 MB more.
    "queued.max.messages.kbytes": 4_096,
    "fetch.queue.backoff.ms": 20,
    "fetch.error.backoff.ms": 500,  # longer than the id of a topic counts as confirmed
    "fetch.max.bytes": 4 << 20,
    # Also the most bytes that a compressed batch may unpack to: a few bytes of zstd can become many.
    "receive.message.max.bytes": 256 << 20,
    "socket.timeout.ms": 4_000,  # limits a commit in a rebalance, which has no other time-out
    "heartbeat.interval.ms": 1_000,  # a member learns of a rebalance by its heartbeat, here twice
    "topic.metadata.refresh.interval.ms": 5_000,  # how soon the leader of a new topic is found
    "metadata.max.age.ms": 5_000,  # how soon a subscription finds a new topic
}

_SHARED = {"bootstrap.servers": "one worker uses one cluster"}

_PRODUCER_PROMISES = _SHARED | {
    "acks": "a record counts as delivered when all replicas in sync have it",
    "request.required.acks": "a record counts as delivered when all replicas in sync have it",
    "enable.idempotence": "retries must neither double nor reorder records",
    "max.in.flight.requests.per.connection": "with two in flight the first may be lost (KAFKA-15591)",
    "max.in.flight": "with two in flight the first may be lost (KAFKA-15591)",
    "transactional.id": "transactions are the runtime's",
    "message.timeout.ms": "a worker waits for the end of an outage",
    "delivery.timeout.ms": "a worker waits for the end of an outage",
    "message.send.max.retries": "a worker waits for the end of an outage",
    "retries": "a worker waits for the end of an outage",
    "partitioner": "keys must go where every other Kafka client puts them",
    "delivery.report.only.error": "each record is accounted for",
}

_CONSUMER_PROMISES = _SHARED | {
    "group.id": "it is derived from the connector's name",
    "enable.auto.commit": "an offset is committed when the sink has confirmed the records",
    "auto.commit.interval.ms": "an offset is committed when the sink has confirmed the records",
    "enable.auto.offset.store": "an offset is committed when the sink has confirmed the records",
    "enable.partition.eof": "the runtime needs to know where a partition ends",
    "partition.assignment.strategy": "partitions are handed over cooperatively",
    "fetch.error.backoff.ms": "a recreated topic must be noticed before it is read",
}


def producer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Return the settings of a client. Raises ``ConfigError`` for an override that would break a promise."""
    _check_overrides(overrides, _PRODUCER_PROMISES, "producer.override.")
    return {**PRODUCER, **client, **overrides, "logger": log}


def consumer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Return the settings of a client. Raises ``ConfigError`` for an override that would break a promise."""
    _check_overrides(overrides, _CONSUMER_PROMISES, "consumer.override.")
    return {**CONSUMER, **client, **overrides, "logger": log}


def problems(
    client: Mapping[str, str],
    *,
    producer: Mapping[str, str] | None = None,
    consumer: Mapping[str, str] | None = None,
) -> list[ConfigProblem]:
    """Return every problem of these settings, found without a connection. ``where`` is left to the caller.

    ``client``: the worker's settings for every client. ``producer``, ``consumer``: the overrides of one of
    them; the key of an override has its prefix.
    """
    from confluent_kafka import Consumer, Producer

    kind: Any
    if consumer is None:
        kind, overrides, prefix, promises = Producer, producer or {}, "producer.override.", _PRODUCER_PROMISES
        settings: ClientSettings = {**PRODUCER, **client}
    else:
        kind, overrides, prefix, promises = Consumer, consumer, "consumer.override.", _CONSUMER_PROMISES
        settings = {**CONSUMER, **client, "group.id": "tieline-check"}
    found = _forbidden(overrides, promises, prefix)
    # With a logger a client keeps its lines until it is polled, which does not happen here. It connects to
    # no broker, because it knows none.
    settings |= {k: v for k, v in overrides.items() if k not in promises} | {"logger": log}
    while True:  # librdkafka stops at the first problem
        try:
            checked: Any = create_client(kind, settings, "")
        except ConfigError as error:
            (problem,) = error.problems
            key = problem.key or _rejected_key(kind, settings, problem)
            found.append(problem._replace(key=prefix + key if key in overrides else key))
            if settings.pop(key, None) is None:
                return found
        else:
            if consumer is not None:
                checked.close()
            return found


def _rejected_key(kind: Any, settings: ClientSettings, problem: ConfigProblem) -> str:
    """Return the setting that alone causes the same message, in which librdkafka may use another name."""
    required: ClientSettings = {key: settings[key] for key in ("group.id", "logger") if key in settings}
    for key, value in settings.items():
        try:
            create_client(kind, {**required, key: value}, "")
        except ConfigError as error:
            if error.problems[0].message == problem.message:
                return key
    return ""


def create_client(kind: Callable[..., T], settings: ClientSettings, prefix: str) -> T:
    """Return a client with these settings. Raises ``ConfigError`` for those that librdkafka rejects."""
    from confluent_kafka import KafkaException  # here, because it loads librdkafka

    try:
        return kind(settings)
    except (KafkaException, TypeError, ValueError) as error:
        message = str(error.args[0].str() if hasattr(error.args[0], "str") else error)
        key = next((word for word in re.findall(r"[\w.]+", message) if word in settings), "")
        raise ConfigError([ConfigProblem("", prefix + key, without_secrets(message, settings))]) from None


def _check_overrides(overrides: Mapping[str, str], promises: Mapping[str, str], prefix: str) -> None:
    forbidden = _forbidden(overrides, promises, prefix)
    if forbidden:
        raise ConfigError(forbidden)


def _forbidden(overrides: Mapping[str, str], promises: Mapping[str, str], prefix: str) -> list[ConfigProblem]:
    return [
        ConfigProblem("", prefix + key, f"cannot be set: {promises[key]}")
        for key in overrides
        if key in promises
    ]
