"""Dead letters as records of a topic: the record's own headers first, then those of the letter.

The names ``__connect.errors.*`` and their meanings are Kafka Connect's, so that its tools read these letters.
What Connect does not have is in ``tieline.dlq.*``. All values are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tieline.api import Headers
from tieline.broker.records import ConsumedRecord, ProducerRecord
from tieline.dead_letters import others
from tieline.dead_letters.letter import MAX_MESSAGE, MAX_TRACEBACK, Cause, DeadLetter, Form

CONNECT = "__connect.errors."
OURS = "tieline.dlq."
ATTEMPTS_HEADER, REPLAY_OF_HEADER = f"{OURS}attempts", f"{OURS}replay.of"
"""A replay adds these to the record that it writes: a letter about that record takes them over."""

JOB_HEADER, ORIGIN_HEADER = f"{OURS}replay.job", f"{OURS}replay.origin"
"""The job of a replay, and where its record was consumed at first: TOPIC-PARTITION@OFFSET, or TOPIC."""

_REPLAY = frozenset({ATTEMPTS_HEADER, REPLAY_OF_HEADER, JOB_HEADER, ORIGIN_HEADER})
_PLACE = re.compile(r"(.+)-(\d{1,10})@(\d{1,19})", re.ASCII)
_NEAR_MS = 30 * 60_000
_SHORT = 200  # bytes
_END = 1 << 63


def letter_record(letter: DeadLetter, topic: str, *, context: bool = True) -> ProducerRecord:
    """Return the record of a letter for the topic ``topic``.

    The time of a letter is that of its writing, and the record's own is in a header: a dead letter about an
    old record must not be the first that retention deletes. ``context``: whether headers are added. Without
    them the record keeps its time if that is near, and nothing shows the cause or recognizes a repetition.
    """
    if not context:
        return ProducerRecord(topic, letter.value, letter.key, letter.headers, _near(letter))
    return ProducerRecord(topic, letter.value, letter.key, letter.headers + _headers(letter))


def shorten(record: ProducerRecord) -> ProducerRecord | None:
    """Return a letter that was too large without its traceback and with the beginning of its message.

    ``None`` if it is not shorter.
    """
    numbers = [others.number(_text(value)) for name, value in record.headers if name == f"{OURS}headers"]
    number = numbers[-1] if numbers else None
    if number is None:
        return None
    kept = [
        (name, value[:_SHORT] if value and name == f"{CONNECT}exception.message" else value)
        for name, value in record.headers[number:]
        if name != f"{CONNECT}exception.stacktrace"
    ]
    headers = (*record.headers[:number], *kept)
    return None if headers == record.headers else record._replace(headers=headers)


def read_letter(record: ConsumedRecord) -> DeadLetter:
    """Return the letter that a record of a dead letter topic is. Never raises.

    What its headers lack, or have in a form that cannot be read, is empty. A record without such headers is a
    letter about itself.
    """
    stored = record.topic, record.partition, record.offset
    texts = {name: _text(value) for name, value in record.headers}
    if texts.get(f"{OURS}id"):
        return _read_ours(record, texts, stored)
    names = texts.keys()
    if any(name.startswith(CONNECT) for name in names):
        found = _connect(texts)
    else:
        found = others.find(record.headers, texts)
    origin, cause, family = found.origin, found.cause, found.family
    topic, partition, offset = origin
    located = partition is not None and offset is not None
    return DeadLetter(
        f"{found.connector}:{topic}-{partition}@{offset}" if located else "{}-{}@{}".format(*stored),
        topic or record.topic,
        partition,
        offset,
        record.value,
        record.key,
        tuple((n, v) for n, v in record.headers if not n.startswith(others.PREFIXES)),
        record.timestamp if found.timestamp is None else found.timestamp,
        cause,
        found.connector,
        found.task,
        failed_at=record.timestamp,
        attempts=others.number(texts.get(ATTEMPTS_HEADER, "")) or 0,
        replay_of=texts.get(REPLAY_OF_HEADER, ""),
        family=family,
        stored=stored,
    )


class Replayed(NamedTuple):
    """What the headers of a consumed record say about its replay."""

    attempts: int
    replay_of: str
    headers: Headers
    """The record's headers without those of the replay."""
    origin: others.Origin | None = None
    """Where it was consumed at first, if the replay went to the connector alone."""


def replayed(headers: Headers) -> Replayed:
    """Return how often a record was replayed, and from which letter; 0 and empty if it never was."""
    ours = {name: _text(value) for name, value in headers if name in _REPLAY}
    if not ours:
        return Replayed(0, "", headers)
    rest = tuple((name, value) for name, value in headers if name not in ours)
    attempts = others.number(ours.get(ATTEMPTS_HEADER, "")) or 0
    return Replayed(attempts, ours.get(REPLAY_OF_HEADER, ""), rest, _origin(ours.get(ORIGIN_HEADER, "")))


def origin_of(headers: Headers) -> others.Origin | None:
    """Return where a replayed record was consumed at first; ``None`` if its headers do not say it."""
    for name, value in reversed(headers):
        if name == ORIGIN_HEADER:
            return _origin(_text(value))
    return None


def _origin(text: str) -> others.Origin | None:
    if not text:
        return None
    place = _PLACE.fullmatch(text)
    if place is None:
        return others.Origin(text, None, None)
    return others.Origin(place[1], others.number(place[2]), others.number(place[3]))


def _headers(letter: DeadLetter) -> Headers:
    cause, form = letter.cause, letter.form
    connect: dict[str, str | int | None] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "connector.name": letter.connector,
        "task.id": letter.task,
        "stage": cause.stage,
        "class.name": cause.raised_by,
        "exception.class.name": cause.error,
        "exception.message": cause.message[:MAX_MESSAGE],
        "exception.stacktrace": cause.traceback[-MAX_TRACEBACK:],
    }
    ours: dict[str, str | int | None] = {
        "id": letter.id,
        "fingerprint": cause.fingerprint,
        "headers": len(letter.headers),
        "timestamp": letter.timestamp,
        "failed.at": letter.failed_at,
        "field": cause.field[:MAX_MESSAGE],
        "schema.id": cause.schema_id,
        "expected": cause.expected[:MAX_MESSAGE],
        "fix": cause.fix[:MAX_MESSAGE],
        "position": letter.position,
        "form": "" if form is None else json.dumps(form._asdict()),
        "attempts": letter.attempts or None,
        "replay.of": letter.replay_of,
    }
    return (*_encoded(CONNECT, connect), *_encoded(OURS, ours))


def _encoded(prefix: str, values: Mapping[str, str | int | None]) -> list[tuple[str, bytes | None]]:
    return [
        (prefix + name, str(value).encode("utf-8", "backslashreplace"))
        for name, value in values.items()
        if value is not None and value != ""
    ]


def _read_ours(record: ConsumedRecord, texts: Mapping[str, str], stored: tuple[str, int, int]) -> DeadLetter:
    number = others.number(texts.get(f"{OURS}headers", ""))
    if number is None or number > len(record.headers):
        own = tuple((n, v) for n, v in record.headers if not n.startswith(others.PREFIXES))
    else:  # the record may itself have headers of a letter
        own = record.headers[:number]
        texts = {name: _text(value) for name, value in record.headers[number:]}

    def ours(name: str) -> str:
        return texts.get(OURS + name, "")

    found = _connect(texts)
    topic, partition, offset = found.origin
    cause = found.cause._replace(
        field=ours("field"),
        schema_id=others.number(ours("schema.id")),
        expected=ours("expected"),
        fix=ours("fix"),
    )
    return DeadLetter(
        ours("id") or "{}-{}@{}".format(*stored),
        topic,
        partition,
        offset,
        record.value,
        record.key,
        own,
        others.number(ours("timestamp")),
        cause,
        found.connector,
        found.task,
        ours("position"),
        _form(ours("form")),
        others.number(ours("failed.at")),
        others.number(ours("attempts")) or 0,
        ours("replay.of"),
        stored=stored,
    )


def _connect(texts: Mapping[str, str]) -> others.Found:
    def text(name: str) -> str:
        return texts.get(CONNECT + name, "")

    cause = Cause(
        text("stage"),
        text("exception.class.name"),
        text("exception.message"),
        text("class.name"),
        traceback=text("exception.stacktrace"),
    )
    origin = others.Origin(text("topic"), others.number(text("partition")), others.number(text("offset")))
    return others.Found("connect", origin, cause, text("connector.name"), others.number(text("task.id")))


def _form(text: str) -> Form | None:
    try:
        parts: Any = json.loads(text) if text else None
        return None if parts is None else Form(**{name: str(value) for name, value in parts.items()})
    except (ValueError, TypeError, AttributeError, RecursionError):
        return Form("bytes", "bytes")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _near(letter: DeadLetter) -> int | None:
    time = letter.timestamp
    if type(time) is not int or not 0 <= time < _END or letter.failed_at is None:
        return None
    return time if abs(time - letter.failed_at) <= _NEAR_MS else None
