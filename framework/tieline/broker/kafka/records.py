"""Converting between Kafka's messages and the records of the broker interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tieline.broker.records import UNREADABLE_HEADERS, ConsumedRecord, ProducerRecord

# For every record: a named tuple's own constructor is a slow Python function.
_record: Callable[[tuple[Any, ...]], ConsumedRecord] = partial(tuple.__new__, ConsumedRecord)
# For a name that is not UTF-8 the client sets an error and returns a value. Python's fast path for a method
# call does not notice, and raises the error somewhere later; this call always raises SystemError.
_headers: Callable[[Message], Any] = methodcaller("headers")


def to_record(message: Message) -> ConsumedRecord:
    """Return the record of a message that is not an error."""
    fields: Any = message  # the stubs allow None for each, which holds for errors only
    try:
        headers = _headers(message)
    except (SystemError, UnicodeError):  # a name that is not UTF-8; a second call would crash the client
        headers = UNREADABLE_HEADERS
    return _record(
        (
            fields.topic(),
            fields.partition(),
            fields.offset(),
            fields.value(),
            fields.key(),
            tuple(headers) if headers else (),
            max(fields.timestamp()[1], 0),
        )
    )


def produce(
    client: Producer, record: ProducerRecord, delivered: Callable[[KafkaError | None, Message], None]
) -> None:
    """Put a record into the client's queue.

    Raises ``BufferError`` if the queue is full, ``KafkaException``, and ``TypeError`` or ``ValueError`` for a
    record that Kafka cannot hold.
    """
    topic, value, key, headers, timestamp, partition = record
    optional: dict[str, Any] = {}
    if headers:
        for name, content in headers:  # the client crashes on anything else
            if not name.isascii():
                name.encode()
            if "\0" in name or not (content is None or isinstance(content, bytes)):
                raise TypeError(
                    f"topic {topic}: the header {name!r} must be text without NUL and its value bytes or None"
                )
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
