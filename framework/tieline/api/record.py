"""Records: light named tuples that are handled in batches.

A value is plain Python data (None, bool, int, float, str, bytes, list, dict), with the Avro schema that it
matches, or without one. Transforms and converters keep value and schema consistent.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tieline.api.schema import Schema

Primitive: TypeAlias = "str | int | float | bool | None"
Position: TypeAlias = "Mapping[str, Primitive]"
"""A source partition or a source offset: string keys and JSON primitives, as in Kafka Connect."""

Headers: TypeAlias = "tuple[tuple[str, bytes | None], ...]"
"""Kafka's headers: ordered, and keys may repeat."""

ID_HEADER = "tieline.id"
DIGEST_HEADER = "tieline.digest"
BACKFILL_HEADER = "tieline.backfill"
"""On a record that a source fetched later from another system: it may be one that was read before.

Its value is text. The runtime keeps the record's identity and does not count it as a repeat."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class SourceRecord(NamedTuple):
    """A record from a source task.

    ``timestamp`` is in milliseconds since 1970, UTC; ``None`` means the time of writing. A sink receives it
    unchanged, however old (docs/decisions/timestamps-near-now.md describes what the broker stores). If
    ``partition`` is ``None``, the key decides (murmur2, as in every Kafka client). ``source_offset`` is the
    position after this record, from which to resume.
    """

    topic: str
    value: Any
    key: Any = None
    source_partition: Position = {}
    source_offset: Position = {}
    headers: Headers = ()
    timestamp: int | None = None
    partition: int | None = None
    value_schema: Schema | None = None
    key_schema: Schema | None = None


class Unreadable(NamedTuple):
    """The value of a record that no converter can read: its bytes and the error."""

    value: bytes | None
    error: Exception


class SinkRecord(NamedTuple):
    """A record for a sink task; its ``headers`` always contain its id and digest.

    Transforms may change ``topic``. ``original_topic`` is the topic from which it was consumed (KIP-793);
    ``None`` means ``topic``. Offsets, assignments and errors refer to that topic: ``consumed_from``.
    """

    topic: str
    partition: int
    offset: int
    value: Any
    key: Any = None
    headers: Headers = ()
    timestamp: int | None = None
    value_schema: Schema | None = None
    key_schema: Schema | None = None
    original_topic: str | None = None

    @property
    def consumed_from(self) -> TopicPartition:
        """The partition of ``offset``, as in ``pre_commit``, ``RetriableError`` and ``open``."""
        return TopicPartition(self.original_topic or self.topic, self.partition)


AnyRecord = TypeVar("AnyRecord", SourceRecord, SinkRecord)
R = TypeVar("R", bound=tuple[Any, ...])


def rows(kind: type[R], *columns: Iterable[Any]) -> list[R]:
    """Return named tuples from all their columns, at half the cost of calling ``kind``.

    A named tuple's constructor is a Python function; this is one loop in C over the batch.
    """
    create: Callable[[tuple[Any, ...]], R] = functools.partial(tuple.__new__, kind)
    return list(map(create, zip(*columns, strict=True)))


class RecordMetadata(NamedTuple):
    """The position at which the broker stored a record."""

    topic: str
    partition: int
    offset: int


def header(record: SourceRecord | SinkRecord, key: str) -> bytes | None:
    """Return the last header called ``key`` (Kafka's ``lastHeader``), or ``None``."""
    for name, value in reversed(record.headers):
        if name == key:
            return value
    return None


def identity(*parts: str | bytes | int, digest_of: bytes = b"") -> Headers:
    """Return the two headers that identify a record on every redelivery.

    A source whose records have an identity calls it once, when it creates the record. ``parts`` are hashed to
    the id (BLAKE2b-128; each part follows its length, so that different lists have different ids).
    ``digest_of`` is the content that all records with this id have. A store that finds another digest under
    a known id reports a data error.
    """
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        hashed.update(b"%d:%b" % (len(raw), raw))
    return (
        (ID_HEADER, hashed.hexdigest().encode()),
        (DIGEST_HEADER, hashlib.blake2b(digest_of, digest_size=16).hexdigest().encode()),
    )
