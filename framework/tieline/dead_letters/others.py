"""Headers of other programs' dead letters: Kafka Streams (KIP-1034) and Spring for Apache Kafka. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tieline.api import Headers
from tieline.dead_letters.letter import Cause

_STREAMS = "__streams.errors."
_SPRING = "kafka_dlt-"
PREFIXES = ("__connect.errors.", "tieline.dlq.", _STREAMS, _SPRING)
"""Headers with such names describe the letter, and are not the record's own."""


class Origin(NamedTuple):
    """Where the record was consumed."""

    topic: str
    partition: int | None
    offset: int | None


class Found(NamedTuple):
    """What the headers of a letter say."""

    family: str
    origin: Origin
    cause: Cause
    connector: str = ""
    task: int | None = None
    timestamp: int | None = None


def find(headers: Headers, texts: Mapping[str, str]) -> Found:
    """Return what these headers say; an empty family if they are not those of a dead letter."""
    if any(name.startswith(_STREAMS) for name in texts):
        return _streams(texts)
    if any(name.startswith(_SPRING) for name in texts):
        return _spring(dict(headers), texts)
    return Found("", Origin("", None, None), Cause("", "", ""))


def _streams(texts: Mapping[str, str]) -> Found:
    def text(name: str) -> str:
        return texts.get(_STREAMS + name, "")

    exception, message = text("exception"), text("message")
    error = exception.partition(":")[0].strip()  # Java's toString: "class: message"
    cause = Cause("", error, message or exception, traceback=text("stacktrace"))
    return Found("streams", Origin(text("topic"), number(text("partition")), number(text("offset"))), cause)


def _spring(values: Mapping[str, bytes | None], texts: Mapping[str, str]) -> Found:
    def text(name: str) -> str:
        return texts.get(_SPRING + name, "")

    def integer(name: str) -> int | None:
        """Return a big-endian number, as ByteBuffer writes it."""
        raw = values.get(_SPRING + name) or b""
        return int.from_bytes(raw, "big", signed=True) if len(raw) in (4, 8) else number(text(name))

    kind = "key-exception-" if text("key-exception-fqcn") else "exception-"
    cause = Cause(
        "KEY_CONVERTER" if kind != "exception-" else "",
        text(f"{kind}cause-fqcn") or text(f"{kind}fqcn"),
        text(f"{kind}message"),
        traceback=text(f"{kind}stacktrace"),
    )
    origin = Origin(text("original-topic"), integer("original-partition"), integer("original-offset"))
    group = text("original-consumer-group")
    return Found("spring", origin, cause, group, None, integer("original-timestamp"))


def number(text: str) -> int | None:
    """Return the number that a text is, ``None`` if it is not a count."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
