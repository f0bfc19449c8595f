"""From records to messages for the bus: what may be published, as what, and why not; pure.

What passes here harms no platform: the router leaves its topic a text, its body is JSON that the router
can read, it is not too large, and nobody who may write a topic of Kafka commands a device by it.
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
"""The bus topic of a record whose value does not name it."""
COMMANDS = "devices/actuators"
"""Whoever publishes below it sets points: VOLTTRON's actuator (10.x) takes commands from the bus."""

_MAX_TOPIC = 1024
_TIMES = frozenset({"timestamp", "date"})
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_LAST = int((datetime(2200, 1, 1, tzinfo=timezone.utc) - _EPOCH).total_seconds()) * 1000


class RefusedError(ValueError):
    """Not published, now or ever. ``reason`` is a word for a counter: ``refused.<reason>``."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class OutgoingMessage(NamedTuple):
    """A message as its subscribers get it."""

    topic: str
    headers: dict[str, Any]
    body: Any


class MessageMapper:
    """Makes the message of a record.

    ``shape``: ``avro``, ``json`` or ``kafkaagent``; ``allowed``: prefixes of the bus, whole segments;
    ``topic_from``: where the topic is that the value does not name, ``header`` or ``key``;
    ``max_bytes``: of topic, headers and body together; ``max_age_ms``: none, however old.
    """

    def __init__(
        self,
        platform: str,
        shape: str,
        allowed: Sequence[str],
        topic_from: str,
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
        """What goes to the router, as the VIP message ``ident``. Raises as ``message``.

        ``RefusedError`` also: ``message`` (no JSON, or nested too deep), ``too_large``.
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
        """Raises ``FilteredError``: ``echo`` (read from this bus), ``expired``, ``null`` (a tombstone);
        ``RefusedError``: ``shape`` (the value is no such message), ``topic``, ``not_allowed``.
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
            raise FilteredError("echo")  # of ours, read on a platform federated with this one
        self._allow(topic)
        return OutgoingMessage(topic, self._marked(headers, record), body)

    def _allow(self, topic: Any) -> None:
        if not isinstance(topic, str):
            raise RefusedError("topic", f"its topic is no text, but {type(topic).__name__}")
        try:
            check_text("topic", topic)
        except ValueError as error:
            raise RefusedError("topic", str(error)[:200]) from None
        if len(topic) > _MAX_TOPIC or not topic.isprintable():
            raise RefusedError(
                "topic",
                f"the topic {topic[:80]!r} is longer than {_MAX_TOPIC}, or has letters nobody can see",
            )
        found = [route.prefix for route in self._allowed if route.takes(topic)]
        if not found:
            raise RefusedError("not_allowed", f"{topic!r} is not within bus.allowed.prefixes")
        commands = Route(COMMANDS, "")
        if commands.takes(topic) and not any(map(commands.takes, found)):
            raise RefusedError(
                "not_allowed",
                f"{topic!r} would command a device: use the command sink, or name {COMMANDS} itself in"
                " bus.allowed.prefixes",
            )

    def _marked(self, headers: Mapping[str, Any], record: SinkRecord) -> dict[str, Any]:
        """Its own headers, where it came from, which record it is and, where it tells none, its time."""
        marked = dict(headers)
        time_ms = _time(record)
        if time_ms and not _tells_time(marked):
            # else a historian would store as of now what may be some minutes old
            moment = _EPOCH + timedelta(milliseconds=time_ms)
            marked["TimeStamp"] = moment.isoformat(timespec="microseconds")
        own = header(record, ID_HEADER)
        if own is not None:
            marked[ID_HEADER] = own.decode("ascii", "replace")
        marked[ORIGIN_HEADER] = self._platform
        return marked

    def _json(self, record: SinkRecord) -> OutgoingMessage:
        """Any JSON: the value is the body."""
        return OutgoingMessage(self._topic(record), {}, record.value)

    def _kafka_agent(self, record: SinkRecord) -> OutgoingMessage:
        """``{topic?, headers?, message}``, or an entry of the old message file."""
        value = record.value
        if isinstance(value, dict) and _ENTRY <= value.keys() <= _ENTRY | {"description"}:
            told = {"From": value["sender"], "Description": value.get("description")}
            return OutgoingMessage(value["topic"], {k: v for k, v in told.items() if v}, value["value"])
        if not isinstance(value, dict) or "message" not in value:
            raise RefusedError(
                "shape",
                "the value is neither an object with a message nor {sender, topic, value, description}, as in"
                " the old message file",
            )
        headers = value.get("headers", {})
        if not isinstance(headers, dict):
            raise RefusedError("shape", "its headers are no object")
        topic = value["topic"] if "topic" in value else self._topic(record)
        return OutgoingMessage(topic, headers, value["message"])

    def _topic(self, record: SinkRecord) -> Any:
        found = header(record, TOPIC_HEADER) if self._topic_from == "header" else record.key
        if not isinstance(found, bytes):
            return found
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            raise RefusedError("topic", f"its topic ({self._topic_from}) is no text in UTF-8") from None


_ENTRY = {"sender", "topic", "value"}
"""Of a message in the old programs' file, which may have a description too."""


class TokenBucket:
    """At most ``rate`` a second in the long run, ``burst`` at once. The caller tells the time, in seconds."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one; false where there is none."""
        self._fill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def until(self, tokens: int, now: float) -> float:
        """Seconds until there are so many (or half a burst, if that is less)."""
        self._fill(now)
        wanted = max(1.0, min(tokens, self._burst / 2))
        return max(0.0, (wanted - self._tokens) / self._rate)

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now


def _avro(record: SinkRecord) -> OutgoingMessage:
    try:
        topic, headers, body, _ = rebuild(record.value)
    except ValueError as error:
        raise RefusedError("shape", str(error)[:200]) from None
    if not isinstance(headers, dict):
        raise RefusedError("shape", "its headers are no object")
    return OutgoingMessage(topic, headers, body)


def _time(record: SinkRecord) -> int:
    """Its timestamp in ms; 0 where it has none (or none of 1970 to 2199)."""
    timestamp = record.timestamp or 0
    return timestamp if 0 < timestamp < _LAST else 0


def _tells_time(headers: Mapping[str, Any]) -> bool:
    return any(str(name).lower() in _TIMES for name in headers)
