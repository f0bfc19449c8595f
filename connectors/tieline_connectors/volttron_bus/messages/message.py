"""Parses the frames of a publication into a message of the bus, and identifies it as an event; pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from tieline.api import Headers, identity, parse_json
from tieline_connectors.volttron_bus.messages.message_time import UTC, NaiveZone, TimeSource, message_time
from tieline_connectors.volttron_bus.vip.frames import CHARSET, PROTOCOL, is_deeper_than

ORIGIN_HEADER = "tieline.origin"
"""On the bus: the name of the platform to which a message came from Kafka. On a record: where it was read."""

# Parsed JSON has no cycles; not looking for them saves a sixth of the time.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), check_circular=False)


class ParseLimits(NamedTuple):
    """The deepest nesting of a message's JSON, and its largest number of headers."""

    depth: int = 64
    headers: int = 256


class MalformedMessageError(Exception):
    """The frames are not a message of the bus. ``reason`` names the counter ``quarantined.<reason>``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Message(NamedTuple):
    """A message of the bus. ``time`` and ``received`` are in microseconds since 1970, UTC.

    ``is_text`` says whether UTF-8 can encode all its strings; JSON can contain half of a surrogate pair.
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
    """The name and value of a header whose time could not be read."""
    naive: NaiveZone = UTC
    """The zone of times in the body that have none."""


def parse_message(
    frames: Sequence[bytes], received: int, limits: ParseLimits, naive: NaiveZone = UTC
) -> Message:
    """Return the message in the frames of a publication. Raises only ``MalformedMessageError``.

    Reasons: ``frames`` (too few, or not VIP), ``topic`` (empty), ``too_deep``, ``not_json``, ``body``
    (sender, headers or message is missing or has another type), ``too_many_headers``.
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
    # JSON writes either half of a surrogate pair in this form.
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
    """Return JSON with sorted keys and without spaces: the same bytes for equal bodies, else other bytes.

    Floats have Python's shortest exact form (``1.0``, ``-0.0``, ``1e+16``, ``NaN``, ``Infinity``), integers
    are exact, and characters beyond ASCII are escaped. 1, 1.0 and true therefore differ.
    """
    return _CANONICAL.encode(body).encode("ascii")


def identity_headers(platform: str, message: Message) -> Headers:
    """Return headers with an id over platform, topic, time and body, the same for redundant sources.

    The runtime distinguishes equal messages of one source (``SourceTask.repeats_are_events``). The result is
    empty if the message has no time of its own; the spool then gives the record its id.
    """
    if message.time_source == "RECEIVED":
        return ()
    content = canonical(message.body)
    return identity(platform, message.topic, message.time, content, digest_of=content)
