"""Between Kafka's messages and the port's records."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tieline.broker.port import UNREADABLE_HEADERS, ConsumedRecord, ProducerRecord

# A named tuple's own constructor is a Python function, which this, called for every record, goes round.
_record: Callable[[tuple[Any, ...]], ConsumedRecord] = partial(tuple.__new__, ConsumedRecord)


def to_record(message: Message) -> ConsumedRecord:
    """A record of a message that is no error."""
    found: Any = message  # the stubs say that each may be none, which holds for errors only
    try:
        headers = found.headers()
    except (SystemError, UnicodeError):  # a name that is not UTF-8. Asked again, the client would crash
        headers = UNREADABLE_HEADERS
    return _record(
        (
            found.topic(),
            found.partition(),
            found.offset(),
            found.value(),
            found.key(),
            tuple(headers) if headers else (),
            max(found.timestamp()[1], 0),
        )
    )


def produce(
    client: Producer, record: ProducerRecord, delivered: Callable[[KafkaError | None, Message], None]
) -> None:
    """Put a record into the client's queue. Raises ``BufferError``, ``KafkaException``, ``ValueError``."""
    topic, value, key, headers, timestamp, partition = record
    optional: dict[str, Any] = {}
    if headers:
        for name, content in headers:  # what is not so crashes the client
            if not name.isascii():
                name.encode()
            if "\0" in name or not (content is None or isinstance(content, bytes)):
                raise TypeError(f"topic {topic}: the header {name!r} is not text without NUL → bytes")
        optional["headers"] = list(headers)
    if timestamp is not None:
        if timestamp < 0:
            raise ValueError(f"topic {topic}: the timestamp {timestamp} is not possible")
        optional["timestamp"] = timestamp
    if partition is not None:
        if partition < 0:
            raise ValueError(f"topic {topic} has no partition {partition}")
        optional["partition"] = partition
    client.produce(topic, value, key, on_delivery=delivered, **optional)
