"""Converts records to messages for the bus, and rejects records that may not be published; pure.

A message from here cannot harm a platform: the router reads its topic as text and its body as JSON, it is not
too large, and the right to write a Kafka topic does not include the right to command a device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from tieline.api import ID_HEADER, SinkRecord, header
from tieline_connectors.volttron_bus.messages.message import ORIGIN_HEADER
from tieline_connectors.volttron_bus.messages.readings import rebuild
from tieline_connectors.volttron_bus.messages.records import FilteredError, Route
from tieline_connectors.volttron_bus.vip.frames import check_text, publish_request

TOPIC_HEADER = "volttron.topic"
"""Header with the bus topic of a record whose value does not name it."""
COMMANDS = "devices/actuators"
"""A message below this topic sets points: VOLTTRON's actuator (10.x) takes commands from the bus."""

_MAX_TOPIC = 1024
_TIMES = frozenset({"timestamp", "date"})
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST = int((datetime(2200, 1, 1, tzinfo=timezone.utc) - _EPOCH).total_seconds()) * 1000


class RefusedError(ValueError):
    """The record may never be published. ``reason`` names the counter ``refused.<reason>``."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class OutgoingMessage(NamedTuple):
    """A message as its subscribers receive it."""

    topic: str
    headers: dict[str, Any]
    body: Any


class MessageMapper:
    """Maps records to messages of the bus.

    ``shape`` is ``avro``, ``json`` or ``kafkaagent``. ``allowed`` are prefixes of the bus, as whole segments.
    ``topic_from`` says where the topic is if the value does not name it: ``header`` or ``key``. ``max_bytes``
    limits topic, headers and body together. If ``max_age_ms`` is ``None``, records may have any age.
    """

    def __init__(
        self,
        platform: str,
        shape: str,
        allowed: Sequence[str],
        topic_from: str,
        *,
        max_bytes: int,
        max_age_ms: int | None,
    ) -> None:
        self._platform = platform
        self._origin = platform.encode()
        self._shape = {"avro": _avro, "json": self._json, "kafkaagent": self._kafka_agent}[shape]
        self._allowed = [Route(prefix, "") for prefix in allowed]
        self._topic_from = topic_from
        self._max_bytes = max_bytes
        self._max_age_ms = max_age_ms

    def frames(self, record: SinkRecord, ident: bytes, now_ms: int) -> list[bytes]:
        """Return the VIP message ``ident`` for the router. Raises the errors of ``message``.

        Further reasons of ``RefusedError`` are ``message`` (not JSON, or nested too deep) and ``too_large``.
        """
        topic, headers, body = self.message(record, now_ms)
        try:
            frames = publish_request(ident, topic, headers, body)
        except ValueError as error:
            raise RefusedError("message", str(error)) from None
        size = sum(map(len, frames[-2:]))
        if size > self._max_bytes:
            raise RefusedError(
                "too_large", f"{size} bytes for {topic!r}, bus.max.message.bytes={self._max_bytes}"
            )
        return frames

    def message(self, record: SinkRecord, now_ms: int) -> OutgoingMessage:
        """Return the message of a record.

        Raises ``FilteredError`` with the reason ``echo`` (read from this bus), ``expired`` or ``null`` (a
        tombstone), and ``RefusedError`` with ``shape`` (the value is not such a message), ``topic`` or
        ``not_allowed``.
        """
        if header(record, ORIGIN_HEADER) == self._origin:
            raise FilteredError("echo")
        time_ms = _time(record)
        if self._max_age_ms is not None and time_ms and now_ms - time_ms > self._max_age_ms:
            raise FilteredError("expired")
        if record.value is None:
            raise FilteredError("null")
        topic, headers, body = self._shape(record)
        if headers.get(ORIGIN_HEADER) == self._platform:
            raise FilteredError("echo")  # our own message, read on a federated platform
        self._allow(topic)
        return OutgoingMessage(topic, self._mark(headers, record), body)

    def _allow(self, topic: Any) -> None:
        if not isinstance(topic, str):
            raise RefusedError("topic", f"its topic is not text, but {type(topic).__name__}")
        try:
            check_text("topic", topic)
        except ValueError as error:
            raise RefusedError("topic", str(error)[:200]) from None
        if len(topic) > _MAX_TOPIC or not topic.isprintable():
            raise RefusedError(
                "topic",
                f"the topic {topic[:80]!r} is longer than {_MAX_TOPIC}, or has unprintable characters",
            )
        prefixes = [route.prefix for route in self._allowed if route.takes(topic)]
        if not prefixes:
            raise RefusedError("not_allowed", f"{topic!r} is not within bus.allowed.prefixes")
        commands = Route(COMMANDS, "")
        if commands.takes(topic) and not any(map(commands.takes, prefixes)):
            raise RefusedError(
                "not_allowed",
                f"{topic!r} would command a device: use the command sink, or name {COMMANDS} itself in"
                " bus.allowed.prefixes",
            )

    def _mark(self, headers: Mapping[str, Any], record: SinkRecord) -> dict[str, Any]:
        """Return the headers with origin, record id and, if the headers have no time, the record's time."""
        marked = dict(headers)
        time_ms = _time(record)
        if time_ms and not _has_time(marked):
            # Without it a historian would store the time of the publication, which may be minutes later.
            moment = _EPOCH + timedelta(milliseconds=time_ms)
            marked["TimeStamp"] = moment.isoformat(timespec="microseconds")
        record_id = header(record, ID_HEADER)
        if record_id is not None:
            marked[ID_HEADER] = record_id.decode("ascii", "replace")
        marked[ORIGIN_HEADER] = self._platform
        return marked

    def _json(self, record: SinkRecord) -> OutgoingMessage:
        """Return any JSON value as the body of a message."""
        return OutgoingMessage(self._topic(record), {}, record.value)

    def _kafka_agent(self, record: SinkRecord) -> OutgoingMessage:
        """Return the message in ``{topic?, headers?, message}`` or in an entry of the old message file."""
        value = record.value
        if isinstance(value, dict) and _ENTRY <= value.keys() <= _ENTRY | {"description"}:
            headers = {"From": value["sender"], "Description": value.get("description")}
            return OutgoingMessage(value["topic"], {k: v for k, v in headers.items() if v}, value["value"])
        if not isinstance(value, dict) or "message" not in value:
            raise RefusedError(
                "shape",
                "the value is neither an object with a message nor {sender, topic, value, description}, as in"
                " the old message file",
            )
        headers = value.get("headers", {})
        if not isinstance(headers, dict):
            raise RefusedError("shape", "its headers are not an object")
        topic = value["topic"] if "topic" in value else self._topic(record)
        return OutgoingMessage(topic, headers, value["message"])

    def _topic(self, record: SinkRecord) -> Any:
        topic = header(record, TOPIC_HEADER) if self._topic_from == "header" else record.key
        if not isinstance(topic, bytes):
            return topic
        try:
            return topic.decode("utf-8")
        except UnicodeDecodeError:
            raise RefusedError("topic", f"its topic ({self._topic_from}) is not text in UTF-8") from None


_ENTRY = {"sender", "topic", "value"}
"""The keys of a message in the old programs' file, which may also have a description."""


class TokenBucket:
    """Allows ``rate`` per second in the long run and ``burst`` at once. ``now`` is in seconds."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = 0.0

    def take(self, now: float) -> bool:
        """Take a token; return false if there is none."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def until(self, tokens: int, now: float) -> float:
        """Return the seconds until there are ``tokens``, or half a burst if that is less."""
        self._fill(now)
        wanted = max(1.0, min(tokens, self._burst / 2))
        return max(0.0, (wanted - self._tokens) / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now


def _avro(record: SinkRecord) -> OutgoingMessage:
    try:
        topic, headers, body, _ = rebuild(record.value)
    except ValueError as error:
        raise RefusedError("shape", str(error)[:200]) from None
    if not isinstance(headers, dict):
        raise RefusedError("shape", "its headers are not an object")
    return OutgoingMessage(topic, headers, body)


def _time(record: SinkRecord) -> int:
    """Return the record's timestamp in ms, or 0 if it has none from 1970 to 2199."""
    timestamp = record.timestamp or 0
    return timestamp if 0 < timestamp < _LAST else 0


def _has_time(headers: Mapping[str, Any]) -> bool:
    return any(str(name).lower() in _TIMES for name in headers)
