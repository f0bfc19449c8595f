"""The timestamp of a record at the broker, which differs from the record's own where that would lose it.

Pure. A broker keeps a record for its topic's ``retention.ms`` from the record's timestamp, and Kafka refuses
one that is an hour ahead (``message.timestamp.after.max.ms``, KIP-937). A reading of last year (a back-fill,
a device whose clock has stopped) would be deleted within minutes, read or not; one of next year would stop
its source.
"""

from __future__ import annotations

from collections.abc import Sequence

from tieline.api import Headers
from tieline.broker.records import ConsumedRecord, ProducerRecord

TIMESTAMP_HEADER = "tieline.timestamp"
"""The record's own time in ms, if the broker has a later one. Always the last header."""

WITHIN_MS = 30 * 60_000
"""How far from now the record's own time may be: less than any retention, and than Kafka's hour."""

_END = 1 << 63


def at_broker(timestamp: int | None, headers: Headers, now: int) -> tuple[int | None, Headers]:
    """Return timestamp and headers for the broker, in ms since 1970, UTC; ``None``: the time of writing.

    A time ahead of now is replaced by the time of writing for good: a sender that could set a future time by
    a header could make a command look younger than it is.

    A header of that name that the record has at its end already, from another topic for example, is removed.
    """
    while headers and headers[-1][0] == TIMESTAMP_HEADER:
        headers = headers[:-1]
    if type(timestamp) is not int or abs(timestamp - now) <= WITHIN_MS or not 0 <= timestamp < _END:
        return timestamp, headers  # the producer rejects an invalid timestamp
    if timestamp > now:
        return None, headers
    return None, (*headers, (TIMESTAMP_HEADER, b"%d" % timestamp))


def not_ahead(records: Sequence[ProducerRecord], now: int) -> list[ProducerRecord]:
    """Return the records as ``at_broker`` would make them now: the clock may have been set back since."""
    return [
        record
        if record.timestamp is None or record.timestamp - now <= WITHIN_MS
        else record._replace(timestamp=None)
        for record in records
    ]


def as_written(record: ConsumedRecord) -> ConsumedRecord:
    """Return the record with the timestamp and the headers that its source gave it."""
    headers = record.headers
    if not headers or headers[-1][0] != TIMESTAMP_HEADER:
        return record
    text = headers[-1][1] or b""
    if not text.isdigit() or len(text) > 19 or (timestamp := int(text)) > record.timestamp:
        return record  # ``at_broker`` did not write this
    return record._replace(headers=headers[:-1], timestamp=timestamp)
