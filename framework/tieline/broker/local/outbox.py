"""The outbox of a changelog: what one write still has to put into the main log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tieline.broker.records import ConsumedRecord, ProducerRecord

MAX_BYTES = 1 << 29
"""Of one outbox. A value in SQLite is limited to 1 GB."""


class Outbox(NamedTuple):
    """Records and an offset for the main log. ``number`` grows with each outbox of a partition."""

    number: int
    partition_id: int
    """The id of the consumed partition in the main log."""
    records: Sequence[ProducerRecord]
    offset: int | None


def encode_outbox(
    partition_id: int, records: Sequence[ProducerRecord], offset: int | None, log_id: str
) -> bytes:
    """Return the bytes of an outbox for the main log with this id."""
    return msgspec.msgpack.encode((partition_id, records, offset, log_id))


def decode_outbox(record: ConsumedRecord) -> tuple[Outbox, str | None]:
    """Return an outbox and its main log's id; ``None`` if an older version wrote it without the id."""
    content: Any = msgspec.msgpack.decode(record.value or b"")
    partition_id, records, offset, *log_id = content
    decoded = [
        ProducerRecord(topic, value, key, tuple((name, content) for name, content in headers), *rest)
        for topic, value, key, headers, *rest in records
    ]
    return Outbox(record.offset, partition_id, decoded, offset), log_id[0] if log_id else None
