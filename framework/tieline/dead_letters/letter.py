"""One dead letter: a record as it arrived, where it failed, and why. Pure."""

from __future__ import annotations

import hashlib
import re
import traceback
from dataclasses import dataclass, field
from typing import NamedTuple

from tieline.api import Headers, RecordError

MAX_MESSAGE, MAX_TRACEBACK = 4_000, 8_000
"""The longest message and traceback in characters: letters must fit where their records did."""

_ITEM = re.compile(r"\[[^\]]*\]")
_REPLAYS = re.compile(r"#\d+\Z")
_NUMBER = re.compile(r"(?<![A-Za-z_])\d+")


class Cause(NamedTuple):
    """Why a record failed.

    ``stage``: a stage of the journey, such as ``VALUE_CONVERTER``. ``error``: the full name of the error's
    class. ``raised_by``: the full name of the converter, transform or task. ``field``: the path of the field
    that is wrong. ``schema_id``: that of the value. ``expected`` and ``fix``: in words, for an operator.
    Unknown ones are empty.
    """

    stage: str
    error: str
    message: str
    raised_by: str = ""
    field: str = ""
    schema_id: int | None = None
    expected: str = ""
    fix: str = ""
    traceback: str = ""

    @property
    def fingerprint(self) -> str:
        """Return what letters of one cause have alike: stage, error class, field path and schema id.

        The message is not part of it, because it often contains the value. Indexes within the path do
        not count.
        """
        path = _NUMBER.sub("*", _ITEM.sub("[*]", self.field))
        parts = self.stage, self.error, path, "" if self.schema_id is None else str(self.schema_id)
        hashed = hashlib.blake2b("\0".join(parts).encode("utf-8", "replace"), digest_size=8)
        return hashed.hexdigest()

    @staticmethod
    def of(
        stage: str, error: BaseException, *, raised_by: str = "", schema_id: int | None = None, fix: str = ""
    ) -> Cause:
        """Return the cause that an error describes; a ``RecordError`` names field, expectation and fix."""
        known = error if isinstance(error, RecordError) else RecordError("")
        lines = "".join(traceback.format_exception(error))
        return Cause(
            stage,
            class_name(type(error)),
            str(error)[:MAX_MESSAGE],
            raised_by,
            known.field,
            schema_id,
            known.expected,
            known.fix or fix,
            lines[-MAX_TRACEBACK:],
        )


class Form(NamedTuple):
    """What the bytes of a source's record are, since no converter has written them.

    ``key`` and ``value``: ``null``, ``bytes``, ``text`` (UTF-8), ``json``, ``avro`` (binary of the schema,
    without Confluent's frame), ``python`` (shown as text; it cannot be read back) or ``spool`` (a row of the
    spool that the disk has changed). The schemas are texts, empty if there are none.
    """

    value: str
    key: str = "null"
    value_schema: str = ""
    key_schema: str = ""


@dataclass(frozen=True)
class DeadLetter:
    """A record that can never be handled, as it arrived, with the cause.

    A sink's letter has the topic, partition and offset from which the record was consumed. A source's letter
    has the record's target topic, the ``position`` in the source or its spool, and a ``form``.
    """

    id: str
    """The same for each repetition of the letter: a killed worker may write it twice."""
    topic: str
    partition: int | None
    offset: int | None
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp: int | None
    """That of the record, in ms since 1970, UTC."""
    cause: Cause
    connector: str = ""
    task: int | None = None
    position: str = ""
    """Where the record was in its source, in words; empty for a sink."""
    form: Form | None = None
    """What the bytes are; ``None``: as consumed, so that the sink's converters read them."""
    failed_at: int | None = None
    """When the record failed, in ms since 1970, UTC."""
    attempts: int = 0
    """How often the record was replayed before."""
    replay_of: str = ""
    """The id of the letter whose replay failed again; empty if this is the first failure."""
    family: str = "tieline"
    """Whose headers it has: ``tieline``, ``connect``, ``streams``, ``spring``, or empty without any."""
    stored: tuple[str, int, int] | None = field(default=None, compare=False)
    """Topic, partition and offset of the letter itself, if it was read."""

    @property
    def fingerprint(self) -> str:
        """That of the cause."""
        return self.cause.fingerprint

    @property
    def where(self) -> str:
        """Where the record was, in words."""
        if self.position:
            return self.position
        if self.partition is None or self.offset is None:
            return self.topic
        return f"{self.topic}-{self.partition}@{self.offset}"


def consumed_id(connector: str, topic: str, partition: int, offset: int) -> str:
    """Return the id of a letter about a consumed record. Two connectors may share a dead letter topic."""
    return f"{connector}:{topic}-{partition}@{offset}"


def replay_id(letter_id: str, attempts: int) -> str:
    """Return the id of a letter about a record whose replay failed: the first id and the replay's number."""
    return f"{_REPLAYS.sub('', letter_id)}#{attempts}" if attempts else letter_id


def source_id(connector: str, position: str, value: bytes | None, number: int) -> str:
    """Return the id of a letter about a source's record.

    Records of a source may share a position. The value distinguishes those, and ``number`` counts equal ones
    of a batch.
    """
    hashed = hashlib.blake2b(digest_size=12)
    for part in (position.encode("utf-8", "surrogatepass"), value or b"", b"%d" % number):
        hashed.update(b"%d:%b" % (len(part), part))
    return f"{connector}:{hashed.hexdigest()}"


def class_name(kind: type) -> str:
    """Return the full name of a class, without ``builtins``."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
