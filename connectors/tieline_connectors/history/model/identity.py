"""The identity of a record in its stored form; pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from tieline.api import DIGEST_HEADER, ID_HEADER, SinkRecord
from tieline_connectors.history.model.intervals import DAY

_HEX = re.compile(rb"(?:[0-9a-f]{2}){16}")
_DIGEST_BYTES = 8
"""Half of a digest: it only has to differ between two records with one id."""


class RecordIdentity(NamedTuple):
    """The day of a record's time, its id, and the beginning of its digest."""

    day: int
    id: bytes
    digest: bytes


def identity_of(record: SinkRecord) -> RecordIdentity:
    """Return the identity of a reading or data log. Raises ``ValueError`` if its headers have none.

    Ids are kept by day, so that the ids of one day fit into memory and expire together. The id of a bus
    message is made of its time among other things: the same id has the same day.
    """
    headers = dict(record.headers)  # the last of a repeated key, as Kafka's lastHeader
    record_id, digest = headers.get(ID_HEADER), headers.get(DIGEST_HEADER)
    if record_id is None or digest is None:
        raise ValueError(f"no {ID_HEADER} and {DIGEST_HEADER} in the record's headers")
    time = record.value.get("time")
    if type(time) is not int:
        raise ValueError(f"{time!r} is not a time in microseconds")
    return RecordIdentity(time // DAY, packed(record_id), packed(digest)[:_DIGEST_BYTES])


def packed(text: bytes) -> bytes:
    """Return an id or a digest as the file has it."""
    return bytes.fromhex(text.decode()) if _HEX.fullmatch(text) else b"id:" + text
