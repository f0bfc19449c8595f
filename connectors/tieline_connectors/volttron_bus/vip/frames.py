"""VIP, the protocol of VOLTTRON's message bus, as frames of bytes; pure.

A VIP message on a DEALER socket consists of the frames
``peer, b"VIP1", user, message id, subsystem, *arguments``. ``peer`` is the identity of the other side, empty
for the router. The router reads each frame as JSON in ISO-8859-1 if possible, else as text. A topic such as
``42`` or ``true`` becomes a number or a boolean there, and crashes a 2.x platform. Therefore
``check_text`` and ``publish_request`` check everything that is sent. Text of other alphabets travels as JSON
escapes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PROTOCOL = b"VIP1"
CHARSET = "iso-8859-1"
MAX_DEPTH = 64
"""The deepest nesting of a published body; the router's JSON reader fails near 1,000."""

_LENGTH = struct.Struct(">I")


class Answer(NamedTuple):
    """A VIP message that is not a publication: its sender, the id of our request, its subsystem."""

    peer: bytes
    ident: bytes
    subsystem: bytes
    args: Sequence[bytes]

    @property
    def is_error(self) -> bool:
        """Whether the router or the peer rejected the request."""
        return self.subsystem == b"error"

    @property
    def text(self) -> str:
        """The arguments as text for messages."""
        return " ".join(arg.decode(CHARSET) for arg in self.args if arg)


def request(peer: str, ident: bytes, subsystem: bytes, *args: bytes) -> list[bytes]:
    """Return the frames of a message to a peer; an empty ``peer`` is the router."""
    return [peer.encode(CHARSET), PROTOCOL, b"", ident, subsystem, *args]


def hello_request(ident: bytes) -> list[bytes]:
    """Return the first request of a connection; the answer is ``welcome, version, its identity, ours``."""
    return request("", ident, b"hello", b"hello")


def ping_request(ident: bytes, peer: str = "") -> list[bytes]:
    """Return a request that the router, or a peer, answers while it is alive."""
    return request(peer, ident, b"ping", b"ping")


def agentstop_request(identity: str) -> list[bytes]:
    """Return the message that this identity leaves; the router drops it at once and does not answer."""
    return request("", b"", b"agentstop", identity.encode(CHARSET))


def subscribe_request(ident: bytes, prefixes: Sequence[str], all_platforms: bool = False) -> list[bytes]:
    """Return a subscription to topics that begin with one of these texts; confirmed with one byte, 1."""
    body = {"prefix": list(prefixes), "bus": "", "all_platforms": all_platforms}
    return request("", ident, b"pubsub", b"subscribe", json.dumps(body).encode())


def unsubscribe_request(ident: bytes, prefixes: Sequence[str]) -> list[bytes]:
    """Return the end of a subscription to exactly these prefixes; the router confirms it."""
    body = {"prefix": list(prefixes), "bus": ""}
    return request("", ident, b"pubsub", b"unsubscribe", json.dumps(body).encode())


def publish_request(ident: bytes, topic: str, headers: Mapping[str, Any], body: Any) -> list[bytes]:
    """Return a message for the bus. Raises ``ValueError`` on content that would crash the platform.

    The router confirms it with the number of subscribers, a native unsigned int.
    """
    data = {"bus": "", "headers": dict(headers), "message": body}
    if any(not isinstance(name, str) for name in headers):
        raise ValueError(f"a name among the headers of {topic!r} is not text")
    try:
        text = json.dumps(data).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the message for {topic!r} cannot be written as JSON: {error}") from None
    if is_deeper_than(text, MAX_DEPTH + 1):  # the envelope is one level more
        raise ValueError(f"the message for {topic!r} is nested deeper than {MAX_DEPTH}")
    return request("", ident, b"pubsub", b"publish", check_text("topic", topic).encode(CHARSET), text)


def check_text(what: str, text: str) -> str:
    """Return the text if the router reads it as text. Raises ``ValueError`` otherwise."""
    if not text:
        raise ValueError(f"the {what} is empty")
    try:
        text.encode(CHARSET)
    except UnicodeEncodeError:
        raise ValueError(f"the {what} {text!r} has characters outside ISO-8859-1") from None
    try:
        json.loads(text)
    except RecursionError:
        pass
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            return text
    raise ValueError(f"the {what} {text[:80]!r} reads as JSON; the router would take it for another type")


def is_publication(frames: Sequence[bytes]) -> bool:
    """Return whether the frames are a message of the bus; its parts may be invalid."""
    return len(frames) > 5 and frames[4] == b"pubsub" and frames[5] == b"publish"


def parse_answer(frames: Sequence[bytes]) -> Answer | None:
    """Return any other VIP message, or ``None`` if the frames are not VIP."""
    if len(frames) < 5 or frames[1] != PROTOCOL:
        return None
    return Answer(frames[0], frames[3], frames[4], frames[5:])


def is_deeper_than(data: bytes, levels: int) -> bool:
    """Return whether JSON is nested deeper than ``levels``, without parsing it and without recursion."""
    if data.count(b"[") + data.count(b"{") <= levels:
        return False
    brackets = b"".join(_outside_strings(data)).translate(_ROUND, _NO_BRACKETS)
    for _ in range(levels):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


_ROUND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def _outside_strings(data: bytes) -> list[bytes]:
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return data.split(b'"')[::2]


def pack(frames: Sequence[bytes]) -> bytes:
    """Join frames, each with its length (4 bytes, big-endian) before it."""
    return b"".join(part for frame in frames for part in (_LENGTH.pack(len(frame)), frame))


def unpack(raw: bytes) -> list[bytes]:
    """Return the frames that ``pack`` joined."""
    frames, position = [], 0
    while position < len(raw):
        (length,) = _LENGTH.unpack_from(raw, position)
        position += _LENGTH.size
        frames.append(raw[position : position + length])
        position += length
    return frames
