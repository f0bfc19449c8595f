"""Parse a record's value as a `Command`, strictly; pure.

There are two forms: ``command.Command``, and the old agents' JSON ``{message, new_value, device_point}``,
which has no id, no issuer and no times. An error is one sentence, ready for the result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from tieline_connectors.command.model.command import Command, Defaults, Value, Write, as_action
from tieline_connectors.command.model.point import key_of, point_of

MAX_ID = 200
MAX_TOPIC = 249
MAX_REASON = 1000
MAX_TEXT_VALUE = 1000
MAX_WRITES = 100
MAX_SIZE = 100_000
"""Characters of a command in the ledger, which holds it twice; the size of a broker's records is limited."""
MAX_HOLD_MS = 366 * 86_400_000
_LATEST = 253_402_300_800_000_000  # the year 10000
_FIELDS = frozenset(Command._fields) - {"filled"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(\.\d{1,17})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


class MalformedCommandError(ValueError):
    """The value is not a command. ``command_id``, ``issuer``, ``correlation_id``: what could be read."""

    def __init__(self, reason: str, value: Any = None) -> None:
        super().__init__(reason[:MAX_REASON])
        fields = value if isinstance(value, Mapping) else {}
        self.command_id = _printable(fields.get("command_id"))
        self.correlation_id = _printable(fields.get("correlation_id"))
        self.issuer = _printable(fields.get("issuer")) or ""


def from_value(value: Any, defaults: Defaults) -> Command:
    """Return the command of a value of the schema ``command.Command``. Raises `MalformedCommandError`."""
    try:
        return _command(value, defaults)
    except ValueError as error:
        raise MalformedCommandError(str(error), value) from None


def is_old(value: Any) -> bool:
    """Return whether a value has the old agents' form."""
    return isinstance(value, Mapping) and "device_point" in value and "command_id" not in value


def is_result(value: Any) -> bool:
    """Return whether a value is a result of a command, in the new or the old agents' form."""
    if not isinstance(value, Mapping):
        return False
    old = value.get("from") == "CloudAgent" and value.get("to") == "Cloud" and "device_point" in value
    return old or ("state" in value and "reason_code" in value and "action" not in value)


def from_old(
    value: Any, *, command_id: str, issuer: str, at: int, max_age: int, defaults: Defaults
) -> Command:
    """Return the command of a value in the old agents' form. Raises `MalformedCommandError`.

    ``command_id``: the topic's UUID, partition and offset, so that a redelivery is the same command, and a
    recreated topic has new commands. ``at``: the record's timestamp in microseconds; it is the issue time,
    and the command expires ``max_age`` after it. A text that reads as a number is a number: the old keyboard
    program sent every value as text.
    """
    try:
        if not isinstance(value, Mapping):
            raise ValueError("a command must be a map {message, new_value, device_point}")
        unknown = sorted(map(repr, value.keys() - {"message", "new_value", "device_point"}))
        if unknown:
            raise ValueError(
                f"{unknown[0]} is not a field of the old form {{message, new_value, device_point}}"
            )
        if "new_value" not in value or "device_point" not in value:
            raise ValueError("the old form needs both device_point and new_value")
        sent = {
            "command_id": command_id,
            "issuer": issuer,
            "issued_at": at,
            "expires_at": at + max_age,
            "reason": value.get("message") or None,
            "action": "SET",
            "writes": [{"point": value["device_point"], "value": number_of(value["new_value"])}],
        }
        command = _command(sent, defaults)
    except ValueError as error:
        raise MalformedCommandError(str(error), {"command_id": command_id, "issuer": issuer}) from None
    return command._replace(filled=("expires_at", "issuer", *command.filled))


def _command(value: Any, defaults: Defaults) -> Command:
    if not isinstance(value, Mapping):
        raise ValueError("a command must be a map of the fields of command.Command")
    unknown = [key for key in value if key not in _FIELDS]
    if unknown:
        raise ValueError(
            f"{str(unknown[0])[:50]!r} is not a field of a command; it has {', '.join(sorted(_FIELDS))}"
        )
    issued_at = _time(value, "issued_at")
    if issued_at is None:
        raise ValueError("issued_at is required: microseconds since 1970, UTC")
    expires_at = _time(value, "expires_at")
    priority = _whole(value, "priority", 1, 16)
    tolerance = _tolerance(value.get("tolerance"))
    filled = {
        "expires_at": expires_at is None,
        "priority": priority is None and defaults.priority is not None,
        "tolerance": tolerance is None,
    }
    action = value.get("action")
    if action not in ("SET", "REVERT"):
        raise ValueError("action must be SET or REVERT")
    dry_run = value.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise ValueError("dry_run must be true or false")
    command = Command(
        command_id=_required(value, "command_id"),
        issuer=_required(value, "issuer"),
        issued_at=issued_at,
        expires_at=issued_at + defaults.ttl if expires_at is None else expires_at,
        action=as_action(action),
        writes=_writes(value.get("writes"), action),
        correlation_id=_text(value, "correlation_id", MAX_ID),
        not_before=_time(value, "not_before"),
        reason=_text(value, "reason", MAX_REASON),
        priority=defaults.priority if priority is None else priority,
        hold_ms=_whole(value, "hold_ms", 1, MAX_HOLD_MS),
        tolerance=defaults.tolerance if tolerance is None else tolerance,
        dry_run=dry_run,
        signature=_text(value, "signature", MAX_ID),
        filled=tuple(field for field, is_filled in filled.items() if is_filled),
        topic=_text(value, "topic", MAX_TOPIC),
        platform=_text(value, "platform", MAX_ID),
    )
    if command.hold_ms is not None and action == "REVERT":
        raise ValueError("hold_ms has no meaning with REVERT: remove it")
    if len(command.to_json()) > MAX_SIZE:
        raise ValueError(f"a command may have at most {MAX_SIZE} characters; send several")
    return command


def _writes(raw: Any, action: str) -> tuple[Write, ...]:
    if not isinstance(raw, (list, tuple)) or not raw:
        raise ValueError("writes must be a list with at least one point")
    if len(raw) > MAX_WRITES:
        raise ValueError(f"a command may have at most {MAX_WRITES} writes, not {len(raw)}")
    writes: list[Write] = []
    keys: set[str] = set()
    for number, item in enumerate(raw, start=1):
        if not isinstance(item, Mapping) or item.keys() - {"point", "value"}:
            raise ValueError(f"write {number} must be a map of point and value")
        point = point_of(item.get("point"), f"the point of write {number}")
        if key_of(point) in keys:
            raise ValueError(f"{point} is written twice (case and Unicode forms do not count)")
        keys.add(key_of(point))
        value = _value(item.get("value"), point)
        if action == "REVERT" and value is not None:
            raise ValueError(f"REVERT of {point} takes no value; use SET to write one")
        writes.append(Write(point, value))
    return tuple(writes)


def _value(raw: Any, point: str) -> Value:
    if raw is None or isinstance(raw, bool):
        return raw
    if isinstance(raw, int):
        if not -(2**63) <= raw < 2**63:
            raise ValueError(f"the value for {point} is beyond 64 bits")
        return raw
    if isinstance(raw, float):
        if not math.isfinite(raw):
            raise ValueError(f"the value for {point} is not a finite number")
        return raw
    if isinstance(raw, str):
        if len(raw) > MAX_TEXT_VALUE or (raw and not raw.isprintable()):
            raise ValueError(f"the text for {point} is not printable, or longer than {MAX_TEXT_VALUE}")
        return raw
    raise ValueError(f"the value for {point} must be a boolean, a number, a text or null")


def _required(value: Mapping[str, Any], field: str) -> str:
    text = _text(value, field, MAX_ID)
    if text is None:
        raise ValueError(f"{field} is required")
    return text


def _text(value: Mapping[str, Any], field: str, longest: int) -> str | None:
    raw = value.get(field)
    if raw is None:
        return None
    if not isinstance(raw, str) or not 0 < len(raw) <= longest or not raw.isprintable():
        raise ValueError(f"{field} must be a printable text of 1 to {longest} characters")
    return raw


def _whole(value: Mapping[str, Any], field: str, least: int, most: int) -> int | None:
    raw = value.get(field)
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
        raise ValueError(f"{field} must be a whole number from {least} to {most}")
    return raw


def _time(value: Mapping[str, Any], field: str) -> int | None:
    raw = value.get(field)
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw < _LATEST:
        raise ValueError(f"{field} must be a time in microseconds since 1970, UTC")
    return raw


def _tolerance(raw: Any) -> float | None:
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise ValueError("tolerance must be a number")
    if not 0 <= raw < 1e300:
        raise ValueError("tolerance must be a finite number, 0 or more")
    return float(raw)


def number_of(raw: Any) -> Any:
    """Return a text that reads as a number as that number; anything else unchanged."""
    if isinstance(raw, str) and len(raw) <= MAX_ID and (match := _NUMBER.fullmatch(raw.strip())):
        text = match[0]
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return raw


def _printable(raw: Any) -> str | None:
    return raw if isinstance(raw, str) and 0 < len(raw) <= MAX_ID and raw.isprintable() else None
