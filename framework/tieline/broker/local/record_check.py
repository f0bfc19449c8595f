"""What the local log rejects, as Kafka would."""

from __future__ import annotations

import re

from tieline.broker.local.codec import encode_headers
from tieline.broker.records import ProducerRecord

_LEGAL_TOPIC = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9._-]{1,249}\Z")  # Kafka's rule


def check_topic_name(name: str) -> None:
    """Raise ``ValueError`` for a name that Kafka does not allow."""
    if not _LEGAL_TOPIC.match(name):
        raise ValueError(f"{name[:260]!r} is not a legal topic name: letters, digits, . _ -, at most 249")


def check_record(record: ProducerRecord, max_bytes: int, partitions: int) -> tuple[bytes | None, int]:
    """Return a record's encoded headers, ``None`` without any, and the bytes of key, value and headers.

    Raises ``ValueError``, ``TypeError`` or ``AttributeError`` for a record that can never be written.
    ``max_bytes`` and ``partitions``: of its topic.
    """
    topic, value, key, headers, timestamp, partition = record
    encoded = encode_headers(headers) if headers else None
    size = len(value or b"") + len(key or b"") + len(encoded or b"")
    if size > max_bytes:
        raise ValueError(f"topic {topic}: a record of {size} bytes; its max.message.bytes is {max_bytes}")
    if timestamp is not None and (type(timestamp) is not int or not 0 <= timestamp < 1 << 63):
        raise ValueError(f"topic {topic}: the timestamp {timestamp} is not possible")
    if partition is not None and not 0 <= partition < partitions:
        raise ValueError(f"topic {topic} has no partition {partition}, only {partitions}")
    return encoded, size
