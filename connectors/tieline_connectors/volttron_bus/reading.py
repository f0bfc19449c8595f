"""Messages of the bus as values of ``volttron.DeviceReading`` and ``volttron.BusMessage``, and back; pure.

Both directions are exact, types and the order of keys included, for every body that JSON can carry:
``rebuild(to_value(platform, message)[1])`` is the message again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tieline.api import Schema
from tieline_connectors.volttron_bus.message import Message

_ROOT = "devices/"
_NO_DEVICES = ("devices/actuators/",)
_MANY = {"all": "ALL", "multi": "MULTI"}
_METADATA = ("units", "type", "tz")
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_SCALARS = frozenset({type(None), bool, int, float, str})
_STR = frozenset({str})


class Rebuilt(NamedTuple):
    """What an agent on the bus got: topic, headers, body and the publisher's identity."""

    topic: str
    headers: dict[str, Any]
    body: Any
    sender: str


def device_reading() -> Schema:
    """The schema of a reading."""
    return Schema.named("volttron.DeviceReading")


def bus_message() -> Schema:
    """The schema of any other message."""
    return Schema.named("volttron.BusMessage")


def to_value(platform: str, message: Message) -> tuple[Schema, dict[str, Any]]:
    """A reading where the message is one, else a bus message; never refuses.

    A reading is a ``devices/`` topic (``devices/actuators/`` is none) whose body is ``[points,
    metadata]`` under ``…/all`` or ``…/multi``, or ``[scalar, metadata]`` under any other name. A string
    with half a surrogate pair, which UTF-8 cannot hold, makes it a bus message with JSON escapes.
    """
    value: dict[str, Any] = {
        "platform": platform,
        "topic": message.topic,
        "sender": message.sender,
        "time": message.time,
        "time_source": message.time_source,
        "received": message.received,
    }
    if message.is_text and _add_reading(value, message):
        return device_reading(), value
    value["headers"] = json.dumps(message.headers)
    value["body"] = json.dumps(message.body)
    return bus_message(), value


def rebuild(value: Mapping[str, Any]) -> Rebuilt:
    """The message that a value of either schema was made from. Raises ``ValueError`` on any other value."""
    try:
        if "body" in value:
            headers, body = json.loads(value["headers"]), json.loads(value["body"])
        else:
            headers, body = _unfold(value["headers"]), _body(value)
        return Rebuilt(value["topic"], headers, body, value["sender"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"neither a DeviceReading nor a BusMessage: {what}") from None


def device_of(topic: str) -> str | None:
    """``campus/building/ahu1`` of ``devices/campus/building/ahu1/all``; none if it is no device's topic."""
    if not topic.startswith(_ROOT) or topic.startswith(_NO_DEVICES):
        return None
    return topic[len(_ROOT) :].rpartition("/")[0] or None


def _add_reading(value: dict[str, Any], message: Message) -> bool:
    """Add the fields of a reading; false, and nothing added, where the message is none."""
    device = device_of(message.topic)
    body = message.body
    if device is None or type(body) is not list or len(body) != 2 or type(body[1]) is not dict:
        return False
    content, metadata = body
    name = message.topic.rpartition("/")[2]
    kind = _MANY.get(name, "POINT")
    if kind == "POINT":
        if type(content) not in _SCALARS:
            return False
        content, metadata = {name: content}, {name: metadata}
    elif type(content) is not dict:
        return False
    value["device"] = device
    value["kind"] = kind
    value["headers"] = _fold(message.headers, _STR)
    value["points"] = _fold(content, _SCALARS)
    value["metadata"] = {name: _fold_entry(entry) for name, entry in metadata.items()}
    return True


def _body(value: Mapping[str, Any]) -> list[Any]:
    points = _unfold(value["points"])
    metadata = {name: _metadata(entry) for name, entry in value["metadata"].items()}
    if value["kind"] != "POINT":
        return [points, metadata]
    ((point, content),) = points.items()
    return [content, metadata[point]]


def _fold(items: dict[str, Any], plain: frozenset[type]) -> dict[str, Any]:
    """The same map where all of it is plain (the usual case: nothing is copied), the rest as JSON text."""
    types = set(map(type, items.values()))
    if types <= plain and (int not in types or not any(map(_is_long_int, items.values()))):
        return items
    return {
        name: value if type(value) in plain and not _is_long_int(value) else {"json": json.dumps(value)}
        for name, value in items.items()
    }


def _is_long_int(value: Any) -> bool:
    return type(value) is int and not _LONG_MIN <= value <= _LONG_MAX


def _unfold(items: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.loads(value["json"]) if isinstance(value, dict) else value for name, value in items.items()
    }


def _fold_entry(entry: Any) -> dict[str, Any]:
    if type(entry) is dict:
        keys = tuple(entry)
        if set(map(type, entry.values())) <= _STR:
            if keys == _METADATA:
                return entry
            if keys == tuple(name for name in _METADATA if name in entry):
                return {name: entry.get(name) for name in _METADATA}
    return {"json": json.dumps(entry)}


def _metadata(entry: Mapping[str, Any]) -> Any:
    if "json" in entry:
        return json.loads(entry["json"])
    return {name: entry[name] for name in _METADATA if entry[name] is not None}
