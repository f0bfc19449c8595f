"""Converts messages of the bus to values of their three schemas, and back; pure.

Both directions are exact for every JSON body, including types and the order of keys:
``rebuild(to_value(platform, message)[1])`` equals the message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tieline.api import Schema, parse_json
from tieline_connectors.volttron_bus.messages import datalogger
from tieline_connectors.volttron_bus.messages.device_paths import BASES, KINDS, TopicBase
from tieline_connectors.volttron_bus.messages.message import Message

_METADATA = ("units", "type", "tz")
_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
_SCALARS = frozenset({type(None), bool, int, float, str})
_STR = frozenset({str})


class RebuiltMessage(NamedTuple):
    """A message as an agent on the bus received it; ``sender`` is the publisher's identity."""

    topic: str
    headers: dict[str, Any]
    body: Any
    sender: str


def device_reading_schema() -> Schema:
    """Return the schema of a reading."""
    return Schema.named("volttron.DeviceReading")


def bus_message_schema() -> Schema:
    """Return the schema of a message that is neither a reading nor a data log."""
    return Schema.named("volttron.BusMessage")


def data_log_schema() -> Schema:
    """Return the schema of data that an agent logged."""
    return Schema.named("volttron.DataLog")


def to_value(
    platform: str, message: Message, bases: Sequence[TopicBase] = BASES
) -> tuple[Schema, dict[str, Any]]:
    """Return a message's schema and value: a reading, a data log, or else a bus message. Never raises.

    A message is a reading if its topic lies below one of ``bases`` (never ``devices/actuators/``) and its
    body has one of these forms:
    - ``[points, metadata]``, with kind ALL or MULTI by its topic, or OTHER under any other name;
    - ``[scalar, metadata]``, with kind POINT;
    - either without metadata: ``points``, ``[points]``, ``scalar``, ``[scalar]``.

    Any other message there is a bus message, and so is a message with half of a surrogate pair, which UTF-8
    cannot encode.
    """
    value: dict[str, Any] = {
        "platform": platform,
        "topic": message.topic,
        "sender": message.sender,
        "time": message.time,
        "time_source": message.time_source,
        "received": message.received,
    }
    if message.is_text and _add_reading(value, message, bases):
        return device_reading_schema(), value
    value["headers"] = json.dumps(message.headers)
    value["body"] = json.dumps(message.body)
    if message.is_text and (logged := datalogger.parse_readings(message)) is not None:
        value["device"] = message.topic[len(datalogger.ROOT) :]
        value["readings"] = [reading | {"value": _fold_value(reading["value"])} for reading in logged]
        return data_log_schema(), value
    return bus_message_schema(), value


def rebuild(value: Mapping[str, Any]) -> RebuiltMessage:
    """Return the message from which a value was created. Raises ``ValueError`` on any other value."""
    try:
        if "body" in value:
            headers, body = parse_json(value["headers"]), parse_json(value["body"])
        else:
            headers, body = _unfold(value["headers"]), _body(value)
        return RebuiltMessage(value["topic"], headers, body, value["sender"])
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"neither a DeviceReading nor a BusMessage: {what}") from None


def _add_reading(value: dict[str, Any], message: Message, bases: Sequence[TopicBase]) -> bool:
    """Add the fields of a reading. Return false and add nothing if the message is not a reading."""
    path = next((path for base in bases if (path := base.device_path(message.topic))), None)
    if path is None:
        return False
    form, content, metadata = _form(message.body)
    kind = KINDS.get(path.last, "POINT")
    if kind != "POINT":
        if type(content) is not dict or (form != "PAIR" and not content):
            return False
    elif type(content) in _SCALARS and (form == "PAIR" or content is not None):
        content = {path.last: content}
        metadata = {path.last: metadata} if form == "PAIR" else {}
    elif _are_points(content, metadata) if form == "PAIR" else _are_scalars(content):
        kind = "OTHER"
    else:
        return False
    value["device"] = path.device
    value["kind"] = kind
    value["form"] = form
    value["headers"] = _fold(message.headers, _STR)
    value["points"] = _fold(content, _SCALARS)
    value["metadata"] = {name: _fold_entry(entry) for name, entry in metadata.items()}
    return True


def _form(body: Any) -> tuple[str, Any, dict[str, Any]]:
    """Return the form of a body, its content and its metadata; the caller checks the content."""
    if type(body) is not list:
        return "BARE", body, {}
    if len(body) == 2 and type(body[1]) is dict:
        return "PAIR", body[0], body[1]
    return ("LIST", body[0], {}) if len(body) == 1 else ("LIST", body, {})


def _are_scalars(content: Any) -> bool:
    """Return whether content without metadata is points, and not one point whose value is an object."""
    return type(content) is dict and bool(content) and set(map(type, content.values())) <= _SCALARS


def _are_points(content: Any, metadata: dict[str, Any]) -> bool:
    """Return whether content with metadata is points, and not one point whose value is an object."""
    return (
        type(content) is dict
        and bool(content)
        and content.keys() == metadata.keys()
        and all(type(entry) is dict for entry in metadata.values())
    )


def _body(value: Mapping[str, Any]) -> Any:
    content: Any = _unfold(value["points"])
    metadata: Any = {name: _metadata(entry) for name, entry in value["metadata"].items()}
    form = value.get("form", "PAIR")  # the only form before 0.2
    if value["kind"] == "POINT":
        ((point, content),) = content.items()
        metadata = metadata[point] if form == "PAIR" else {}
    if form == "BARE":
        return content
    return [content] if form == "LIST" else [content, metadata]


def _fold(items: dict[str, Any], plain: frozenset[type]) -> dict[str, Any]:
    """Return the map itself if all values are plain, as usual; else a copy with the others as JSON."""
    types = set(map(type, items.values()))
    if types <= plain and (int not in types or not any(map(_is_long_int, items.values()))):
        return items
    return {name: _fold_value(value, plain) for name, value in items.items()}


def _fold_value(value: Any, plain: frozenset[type] = _SCALARS) -> Any:
    return value if type(value) in plain and not _is_long_int(value) else {"json": json.dumps(value)}


def _is_long_int(value: Any) -> bool:
    return type(value) is int and not _LONG_MIN <= value <= _LONG_MAX


def _unfold(items: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: parse_json(value["json"]) if isinstance(value, dict) else value for name, value in items.items()
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
        return parse_json(entry["json"])
    return {name: entry[name] for name in _METADATA if entry[name] is not None}
