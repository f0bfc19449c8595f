"""The settings of Kafka's clients: what tieline sets, what a user may set, what would break a promise."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaException

from tieline.api import ConfigError, Mistake

T = TypeVar("T")
ClientSettings = dict[str, Any]

log = logging.getLogger("tieline.kafka")

LARGEST_BATCH = 1_000_000  # bytes; below the default limit of a broker (1,048,588), so that batches pass
LARGEST_RECORD = 16 << 20  # a larger one is refused here; the topic's max.message.bytes decides below

PRODUCER: Mapping[str, str | int] = {
    "enable.idempotence": "true",
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
    "fetch.max.bytes": 4 << 20,
    "socket.timeout.ms": 4_000,  # bounds a commit inside a rebalance, which has no other time-out
    "metadata.max.age.ms": 30_000,  # how soon a new topic is found
}

_SHARED = {"bootstrap.servers": "one worker is joined to one cluster"}

_PRODUCER_PROMISES = _SHARED | {
    "acks": "a record counts as delivered when all replicas in sync have it",
    "request.required.acks": "a record counts as delivered when all replicas in sync have it",
    "enable.idempotence": "retries must neither double nor reorder records",
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
}


def producer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Raises ``ConfigError`` for an override that would break a promise."""
    _refuse(overrides, _PRODUCER_PROMISES, "producer.override.")
    return {**PRODUCER, **client, **overrides, "logger": log}


def consumer_settings(client: Mapping[str, str], overrides: Mapping[str, str]) -> ClientSettings:
    """Raises ``ConfigError`` for an override that would break a promise."""
    _refuse(overrides, _CONSUMER_PROMISES, "consumer.override.")
    return {**CONSUMER, **client, **overrides, "logger": log}


def made(kind: Callable[..., T], settings: ClientSettings, prefix: str) -> T:
    """A client of these settings. Raises ``ConfigError`` for what librdkafka does not know or take."""
    try:
        return kind(settings)
    except KafkaException as error:
        message = str(error.args[0].str() if hasattr(error.args[0], "str") else error)
        key = next((name for name in settings if f'"{name}"' in message), "")
        raise ConfigError([Mistake("", prefix + key, _without_secrets(message, settings))]) from None


def _refuse(overrides: Mapping[str, str], promises: Mapping[str, str], prefix: str) -> None:
    mistakes = [
        Mistake("", prefix + key, f"cannot be set: {promises[key]}") for key in overrides if key in promises
    ]
    if mistakes:
        raise ConfigError(mistakes)


def _without_secrets(message: str, settings: ClientSettings) -> str:
    for key, value in settings.items():
        if any(word in key for word in ("password", "secret", "key.pem", "jaas")) and value:
            message = message.replace(str(value), "***")
    return message
