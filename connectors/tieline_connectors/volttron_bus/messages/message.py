"""From the frames of a publication to a message of the bus, and to what makes it one event; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tieline.api import Headers, identity, parse_json
from tieline_connectors.volttron_bus.messages.timestamps import UTC, NaiveZone, TimeSource, message_time
from tieline_connectors.volttron_bus.vip.frames import CHARSET, PROTOCOL, is_deeper_than

ORIGIN_HEADER = "tieline.origin"
"""On the bus: the platform's name on what came to it from Kafka. On a record: where it was read."""

# What was parsed holds no circle: not looking for one saves a sixth.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


class ParseLimits(NamedTuple):
    """What a message may have at most: nesting of its JSON, headers."""

    depth: int = 64
    headers: int = 256


class MalformedMessageError(Exception):
    """No message of the bus. ``reason`` is a word for a counter: ``quarantined.<reason>``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Message(NamedTuple):
    """A message of the bus. ``time`` and ``received`` in microseconds since 1970, UTC.

    ``is_text``: all of its strings can be written in UTF-8 (JSON can hold half a surrogate pair).
    """

    topic: str
    sender: str
    headers: dict[str, Any]
    body: Any
    time: int
    time_source: TimeSource
    received: int
    is_text: bool
    unreadable_time: str = ""
    """The header that should have said the time and could not be read, with its name."""
    naive: NaiveZone = UTC
    """What times without a zone in the body are taken in."""


def parse_message(
    frames: Sequence[bytes], received: int, limits: ParseLimits, naive: NaiveZone = UTC
) -> Message:
    """The message in the frames of a publication. Raises ``MalformedMessageError``, and nothing else.

    Reasons: ``frames`` (too few, or no VIP), ``topic`` (empty), ``too_deep``, ``not_json``, ``body``
    (sender, headers or message missing or of another type), ``too_many_headers``.
    """
    if len(frames) < 8 or frames[1] != PROTOCOL:
        raise MalformedMessageError("frames")
    topic, data = frames[6].decode(CHARSET), frames[7]
    if not topic.strip("/"):
        raise MalformedMessageError("topic")
    if is_deeper_than(data, limits.depth + 1):  # the envelope is one level more
        raise MalformedMessageError("too_deep")
    text = data.decode(CHARSET)
    try:
        content = parse_json(text)
    except (ValueError, RecursionError):  # also an integer of more than 4,300 digits
        raise MalformedMessageError("not_json") from None
    try:
        sender, headers, body = content["sender"], content["headers"], content["message"]
    except (KeyError, TypeError, IndexError):
        raise MalformedMessageError("body") from None
    if type(sender) is not str or type(headers) is not dict:
        raise MalformedMessageError("body")
    if len(headers) > limits.headers:
        raise MalformedMessageError("too_many_headers")
    time, source, unreadable = message_time(headers, received, body, naive)
    # so does JSON write either half of a surrogate pair
    is_text = ("\\ud" not in text and "\\uD" not in text) or _is_text(content)
    if not is_text and not _is_text(sender):
        raise MalformedMessageError("body")
    return Message(topic, sender, headers, body, time, source, received, is_text, unreadable, naive)


def _is_text(content: Any) -> bool:
    try:
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def canonical(body: Any) -> bytes:
    """The same bytes for equal bodies, other bytes for others: JSON with sorted keys, without spaces.

    Floats as Python writes the shortest that reads the same (``1.0``, ``-0.0``, ``1e+16``, ``NaN``,
    ``Infinity``), integers exact, everything beyond ASCII escaped: 1, 1.0 and true all differ.
    """
    return _CANONICAL.encode(body).encode("ascii")


def identity_headers(platform: str, message: Message) -> Headers:
    """The record's id, over platform, topic, time and body; redundant sources make the same one.

    The runtime tells equal messages of one source apart (``SourceTask.repeats_are_events``).
    None where the message brought no time of its own: the spool then gives the record its id.
    """
    if message.time_source == "RECEIVED":
        return ()
    content = canonical(message.body)
    return identity(platform, message.topic, message.time, content, digest_of=content)
