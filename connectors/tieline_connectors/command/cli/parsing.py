"""From what people write (a line, a file, options) to the commands that are sent; pure.

What is wrong is one sentence, told before anything is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from tieline.api import Schema, SourceRecord, parse_json
from tieline_connectors.command.model.command import Command, Defaults, Value, Write, sign
from tieline_connectors.command.model.parsing import Malformed, from_value, is_old, number_of
from tieline_connectors.command.model.point import point_of

Form: TypeAlias = Literal["avro", "json", "old"]
"""``command.Command`` as Avro or as JSON, or the old agents' ``{message, new_value, device_point}``."""

MAX_BYTES = 16 * 1024 * 1024
MAX_COMMANDS = 100_000
OLD_MESSAGE = "message from Cloud to VOLTTRON"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORD = re.compile(r"""(?<!\S)(?:"[^"]*"|'[^']*')(?!\S)|\S+""")
_OLD_LINE = "a line is: kafka_topic device_point new_value"
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)?")


class Wish(NamedTuple):
    """One command as it will be sent: its topic (none: the one that was asked for) and its value."""

    value: Mapping[str, Any]
    topic: str | None = None


def value_of(text: str) -> Value:
    """The value that a word of the keyboard means: true, false, null, a number, "a text" or a text."""
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    if text.startswith('"'):
        try:
            found = json.loads(text)
        except ValueError:
            raise ValueError(f"{text} has a quotation mark and is no JSON text") from None
        return str(found)
    found = number_of(text)
    assert found is None or isinstance(found, (bool, int, float, str))
    return found


def seconds_of(text: str, what: str) -> float:
    """A duration: 90 (seconds), 500ms, 15m, 2h, 1d. Raises ``ValueError``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{what}: {text!r} is no duration; known forms: 90 (seconds), 500ms, 15m, 2h, 1d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def completed(value: Mapping[str, Any], *, command_id: str, issuer: str, now: int) -> dict[str, Any]:
    """A command with what it may leave out here: its id, its issuer, its time of issue, its action."""
    filled = {"command_id": command_id, "issuer": issuer, "issued_at": now, "action": "SET"}
    return {**filled, **{name: item for name, item in value.items() if item is not None}}


def signed(value: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """The same with the signature of this key. Raises ``ValueError`` where it is no command."""
    return {**value, "signature": sign(checked(value), key)}


def checked(value: Mapping[str, Any]) -> Command:
    """The command that a sink will see in it. Raises ``ValueError`` with what is wrong."""
    try:
        return from_value(value, Defaults())
    except Malformed as error:
        raise ValueError(str(error)) from None


def checked_old(value: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` where the old form is not complete, or its point no point."""
    if value.keys() - {"message", "new_value", "device_point"} or "new_value" not in value:
        raise ValueError("the old form is {message, new_value, device_point}")
    point_of(value.get("device_point"), "device_point")


def record(value: Mapping[str, Any], topic: str, form: Form) -> SourceRecord:
    """The record to send. Its key is the device, which keeps the order of a device's commands."""
    if form == "old":
        return SourceRecord(topic, value, Write(point_of(value["device_point"])).place)
    command = checked(value)
    key = command.writes[0].place
    schema = Schema.named("command.Command") if form == "avro" else None
    return SourceRecord(topic, {**_EMPTY, **value} if form == "avro" else value, key, value_schema=schema)


_EMPTY: Mapping[str, Any] = dict.fromkeys(
    (
        *("correlation_id", "expires_at", "not_before", "reason"),
        *("priority", "hold_ms", "tolerance", "signature", "topic", "platform"),
    )
) | {"dry_run": False}


def as_new(value: Mapping[str, Any]) -> dict[str, Any]:
    """A command of the old form as one of the new, still without id, issuer and times."""
    point, new_value = value["device_point"], value["new_value"]
    return {"writes": [{"point": point, "value": number_of(new_value)}], "reason": value.get("message")}


def old_line(line: str) -> Wish | None:
    """A line ``kafka_topic device_point new_value`` of the old keyboard program; none: it is empty.

    What has spaces in it stands in quotes. Raises ``ValueError``, also where a line can be read in two ways:
    nobody knows then where the point ends and the value begins.
    """
    words = [word[1:-1] if _is_quoted(word) else word for word in _WORD.findall(line)]
    if not words:
        return None
    if len(words) < 3:
        raise ValueError(f"{_OLD_LINE}, three words; put quotes around one that has spaces")
    if len(words) > 3:
        topic, first, *rest = line.split()
        one = f'{topic} "{" ".join([first, *rest[:-1]])}" {rest[-1]}'
        other = f'{topic} {first} "{" ".join(rest)}"'
        raise ValueError(f"{_OLD_LINE}, three words, and this one has {len(words)}; write {one}  or  {other}")
    topic, point, value = words
    wish = {"message": OLD_MESSAGE, "new_value": value, "device_point": point}
    checked_old(wish)
    return Wish(wish, topic)


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] and word[0] in "\"'"


def from_file(content: bytes) -> list[Wish]:
    """The commands of a file: the old agents' one JSON object, or a JSON object a line, or a list of them.

    Raises ``ValueError`` naming the line, or the number, of the first that is wrong.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 (byte {error.start})") from None
    try:
        whole = parse_json(text)
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, dict) and "device_point_list" in whole:
        found = list(_old_file(whole))
    elif isinstance(whole, (dict, list)):
        items = whole if isinstance(whole, list) else [whole]
        found = [_one(item, f"command {number}") for number, item in enumerate(items, start=1)]
    else:
        found = list(_lines(text))
    if not found:
        raise ValueError("holds no command")
    if len(found) > MAX_COMMANDS:
        raise ValueError(f"holds more than {MAX_COMMANDS} commands")
    return found


def _old_file(whole: Mapping[str, Any]) -> Iterator[Wish]:
    topic, listed = whole.get("kafka_topic"), whole["device_point_list"]
    if topic is not None and (not isinstance(topic, str) or not topic):
        raise ValueError("kafka_topic is the name of a topic")
    if not isinstance(listed, list):
        raise ValueError("device_point_list is a list of {device_point, new_value}")
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, dict):
            raise ValueError(f"number {number} of device_point_list is no {{device_point, new_value}}")
        wish = _one({"message": OLD_MESSAGE, **item}, f"number {number} of device_point_list")
        yield wish._replace(topic=topic)


def _lines(text: str) -> Iterator[Wish]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                item = parse_json(line)
            except (ValueError, RecursionError):
                raise ValueError(f"line {number} is no JSON") from None
            yield _one(item, f"line {number}")


def _one(item: Any, where: str) -> Wish:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is no JSON object")
    if is_old(item):
        try:
            checked_old(item)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return Wish(item)
