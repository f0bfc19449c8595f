"""Parse what operators write (a line, a file, options) as commands; pure.

An error is one sentence, reported before anything is sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from tieline.api import Schema, SourceRecord, parse_json
from tieline_connectors.command.model.command import Command, Defaults, Value, Write, sign
from tieline_connectors.command.model.parsing import MalformedCommandError, from_value, is_old, number_of
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


class CommandDraft(NamedTuple):
    """A command before it is complete: its value and its topic, ``None`` for that of the options."""

    value: Mapping[str, Any]
    topic: str | None = None


def value_of(text: str) -> Value:
    """Return the value of a typed word: true, false, null, a number, "a text" or a text."""
    if text in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[text]
    if text.startswith('"'):
        try:
            quoted = json.loads(text)
        except ValueError:
            raise ValueError(f"{text} has a quotation mark and is not a JSON text") from None
        return str(quoted)
    value = number_of(text)
    assert value is None or isinstance(value, (bool, int, float, str))
    return value


def seconds_of(text: str, what: str) -> float:
    """Return the seconds of a duration: 90 (seconds), 500ms, 15m, 2h, 1d. Raises ``ValueError``."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{what}: {text!r} is not a duration; known forms: 90 (seconds), 500ms, 15m, 2h, 1d")
    return float(match[1]) * _SECONDS[match[2] or "s"]


def complete(value: Mapping[str, Any], *, command_id: str, issuer: str, now: int) -> dict[str, Any]:
    """Return a command with its id, issuer, issue time and action filled in."""
    filled = {"command_id": command_id, "issuer": issuer, "issued_at": now, "action": "SET"}
    return {**filled, **{name: item for name, item in value.items() if item is not None}}


def add_signature(value: Mapping[str, Any], key: bytes) -> dict[str, Any]:
    """Return the command with the signature of this key. Raises ``ValueError`` if it is not a command."""
    return {**value, "signature": sign(check_command(value), key)}


def check_command(value: Mapping[str, Any]) -> Command:
    """Return the command as a sink will parse it. Raises ``ValueError`` with the reason."""
    try:
        return from_value(value, Defaults())
    except MalformedCommandError as error:
        raise ValueError(str(error)) from None


def check_old_form(value: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the old form is incomplete, or its point is invalid."""
    if value.keys() - {"message", "new_value", "device_point"} or "new_value" not in value:
        raise ValueError("the old form is {message, new_value, device_point}")
    point_of(value.get("device_point"), "device_point")


def to_record(value: Mapping[str, Any], topic: str, form: Form) -> SourceRecord:
    """Return the record to send. Its key is the device, which keeps the order of a device's commands."""
    if form == "old":
        return SourceRecord(topic, value, Write(point_of(value["device_point"])).partition_key)
    command = check_command(value)
    key = command.writes[0].partition_key
    schema = Schema.named("command.Command") if form == "avro" else None
    return SourceRecord(topic, {**_EMPTY, **value} if form == "avro" else value, key, value_schema=schema)


_EMPTY: Mapping[str, Any] = dict.fromkeys(
    (
        *("correlation_id", "expires_at", "not_before", "reason"),
        *("priority", "hold_ms", "tolerance", "signature", "topic", "platform"),
    )
) | {"dry_run": False}


def to_new_form(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command of the old form in the new form, still without id, issuer and times."""
    point, new_value = value["device_point"], value["new_value"]
    return {"writes": [{"point": point, "value": number_of(new_value)}], "reason": value.get("message")}


def old_line(line: str) -> CommandDraft | None:
    """Parse a line ``kafka_topic device_point new_value`` of the old keyboard program; ``None`` if empty.

    Words with spaces need quotes. Raises ``ValueError``, also if a line can be read in two ways:
    it is unclear then where the point ends and the value begins.
    """
    words = [word[1:-1] if _is_quoted(word) else word for word in _WORD.findall(line)]
    if not words:
        return None
    if len(words) < 3:
        raise ValueError(f"{_OLD_LINE}, three words; put quotes around one that has spaces")
    if len(words) > 3:
        topic, first, *rest = line.split()
        spaced_point = f'{topic} "{" ".join([first, *rest[:-1]])}" {rest[-1]}'
        spaced_value = f'{topic} {first} "{" ".join(rest)}"'
        raise ValueError(
            f"{_OLD_LINE}, three words, and this one has {len(words)}; "
            f"write {spaced_point}  or  {spaced_value}"
        )
    topic, point, value = words
    draft = {"message": OLD_MESSAGE, "new_value": value, "device_point": point}
    check_old_form(draft)
    return CommandDraft(draft, topic)


def _is_quoted(word: str) -> bool:
    return len(word) > 1 and word[0] == word[-1] and word[0] in "\"'"


def from_file(content: bytes) -> list[CommandDraft]:
    """Parse a file: the old agents' JSON object, or one JSON object per line, or a list of them.

    Raises ``ValueError`` with the line, or the number, of the first that is invalid.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from None
    try:
        content_value = parse_json(text)
    except (ValueError, RecursionError):
        content_value = None
    if isinstance(content_value, dict) and "device_point_list" in content_value:
        drafts = list(_old_file(content_value))
    elif isinstance(content_value, (dict, list)):
        items = content_value if isinstance(content_value, list) else [content_value]
        drafts = [_draft(item, f"command {number}") for number, item in enumerate(items, start=1)]
    else:
        drafts = list(_lines(text))
    if not drafts:
        raise ValueError("contains no command")
    if len(drafts) > MAX_COMMANDS:
        raise ValueError(f"contains more than {MAX_COMMANDS} commands")
    return drafts


def _old_file(content_value: Mapping[str, Any]) -> Iterator[CommandDraft]:
    topic, listed = content_value.get("kafka_topic"), content_value["device_point_list"]
    if topic is not None and (not isinstance(topic, str) or not topic):
        raise ValueError("kafka_topic must be the name of a topic")
    if not isinstance(listed, list):
        raise ValueError("device_point_list must be a list of {device_point, new_value}")
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, dict):
            raise ValueError(f"number {number} of device_point_list is not a {{device_point, new_value}}")
        draft = _draft({"message": OLD_MESSAGE, **item}, f"number {number} of device_point_list")
        yield draft._replace(topic=topic)


def _lines(text: str) -> Iterator[CommandDraft]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                item = parse_json(line)
            except (ValueError, RecursionError):
                raise ValueError(f"line {number} is not JSON") from None
            yield _draft(item, f"line {number}")


def _draft(item: Any, where: str) -> CommandDraft:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is not a JSON object")
    if is_old(item):
        try:
            check_old_form(item)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return CommandDraft(item)
