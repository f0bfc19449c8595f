"""From what a topic carries to a `Command`, strictly; pure.

Two forms: ``command.Command`` and the old agents' JSON ``{message, new_value, device_point}``, which has
no id, no issuer and no times. All that is wrong is one sentence, ready for the result.
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
"""Characters of a command as the ledger keeps it, where it stands twice; a broker's records are finite."""
MAX_HOLD_MS = 366 * 86_400_000
_LATEST = 253_402_300_800_000_000  # the year 10000
_FIELDS = frozenset(Command._fields) - {"filled"}
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,17})(\.\d{1,17})?(?:[eE][+-]?\d{1,3})?", re.ASCII)


class Malformed(ValueError):
    """No command; the text says why. ``command_id``, ``issuer``, ``correlation_id``: what could be read."""

    def __init__(self, reason: str, value: Any = None) -> None:
        super().__init__(reason[:MAX_REASON])
        found = value if isinstance(value, Mapping) else {}
        self.command_id = _printable(found.get("command_id"))
        self.correlation_id = _printable(found.get("correlation_id"))
        self.issuer = _printable(found.get("issuer")) or ""


def from_value(value: Any, defaults: Defaults) -> Command:
    """The command in a value of the schema ``command.Command``. Raises `Malformed`."""
    try:
        return _command(value, defaults)
    except ValueError as error:
        raise Malformed(str(error), value) from None


def is_old(value: Any) -> bool:
    """Whether a value has the old agents' form."""
    return isinstance(value, Mapping) and "device_point" in value and "command_id" not in value


def is_result(value: Any) -> bool:
    """Whether a value is a result of a command, in our form or in the old agents'."""
    if not isinstance(value, Mapping):
        return False
    old = value.get("from") == "CloudAgent" and value.get("to") == "Cloud" and "device_point" in value
    return old or ("state" in value and "reason_code" in value and "action" not in value)


def from_old(
    value: Any, *, command_id: str, issuer: str, at: int, max_age: int, defaults: Defaults
) -> Command:
    """The command in the old agents' form. Raises `Malformed`.

    ``command_id``: the topic's UUID, partition and offset, so that a redelivery is the same command and a
    recreated topic is another. ``at``: the record's timestamp in microseconds; it is the time of issue,
    and ``max_age`` after it the command expires. A text that reads as a number is one: the old keyboard
    program sent every value as text.
    """
    try:
        if not isinstance(value, Mapping):
            raise ValueError("a command is a map, {message, new_value, device_point}")
        unknown = sorted(map(repr, value.keys() - {"message", "new_value", "device_point"}))
        if unknown:
            raise ValueError(f"{unknown[0]} is no field of the old form {{message, new_value, device_point}}")
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
        raise Malformed(str(error), {"command_id": command_id, "issuer": issuer}) from None
    return command._replace(filled=("expires_at", "issuer", *command.filled))


def _command(value: Any, defaults: Defaults) -> Command:
    if not isinstance(value, Mapping):
        raise ValueError("a command is a map of the fields of command.Command")
    unknown = [key for key in value if key not in _FIELDS]
    if unknown:
        raise ValueError(
            f"{str(unknown[0])[:50]!r} is no field of a command; it has {', '.join(sorted(_FIELDS))}"
        )
    filled: list[str] = []
    issued_at = _time(value, "issued_at")
    if issued_at is None:
        raise ValueError("issued_at is required: microseconds since 1970, UTC")
    expires_at = _time(value, "expires_at")
    if expires_at is None:
        expires_at = issued_at + defaults.ttl
        filled.append("expires_at")
    priority = _whole(value, "priority", 1, 16)
    if priority is None and defaults.priority is not None:
        priority = defaults.priority
        filled.append("priority")
    tolerance = _tolerance(value.get("tolerance"))
    if tolerance is None:
        tolerance = defaults.tolerance
        filled.append("tolerance")
    action = value.get("action")
    if action not in ("SET", "REVERT"):
        raise ValueError("action is SET or REVERT")
    dry_run = value.get("dry_run", False)
    if not isinstance(dry_run, bool):
        raise ValueError("dry_run is true or false")
    command = Command(
        command_id=_required(value, "command_id"),
        issuer=_required(value, "issuer"),
        issued_at=issued_at,
        expires_at=expires_at,
        action=as_action(action),
        writes=_writes(value.get("writes"), action),
        correlation_id=_text(value, "correlation_id", MAX_ID),
        not_before=_time(value, "not_before"),
        reason=_text(value, "reason", MAX_REASON),
        priority=priority,
        hold_ms=_whole(value, "hold_ms", 1, MAX_HOLD_MS),
        tolerance=tolerance,
        dry_run=dry_run,
        signature=_text(value, "signature", MAX_ID),
        filled=tuple(filled),
        topic=_text(value, "topic", MAX_TOPIC),
        platform=_text(value, "platform", MAX_ID),
    )
    if command.hold_ms is not None and action == "REVERT":
        raise ValueError("hold_ms means nothing with REVERT: leave it out")
    if len(command.to_json()) > MAX_SIZE:
        raise ValueError(f"a command has at most {MAX_SIZE} characters in all; send several")
    return command


def _writes(found: Any, action: str) -> tuple[Write, ...]:
    if not isinstance(found, (list, tuple)) or not found:
        raise ValueError("writes is a list with at least one point")
    if len(found) > MAX_WRITES:
        raise ValueError(f"a command has at most {MAX_WRITES} writes, not {len(found)}")
    writes: list[Write] = []
    seen: set[str] = set()
    for number, item in enumerate(found, start=1):
        if not isinstance(item, Mapping) or item.keys() - {"point", "value"}:
            raise ValueError(f"write {number} is a map of point and value")
        point = point_of(item.get("point"), f"the point of write {number}")
        if key_of(point) in seen:
            raise ValueError(f"{point} is written twice (capitals and Unicode forms make no difference)")
        seen.add(key_of(point))
        value = _value(item.get("value"), point)
        if action == "REVERT" and value is not None:
            raise ValueError(f"REVERT gives {point} back and takes no value; use SET to write one")
        writes.append(Write(point, value))
    return tuple(writes)


def _value(found: Any, point: str) -> Value:
    if found is None or isinstance(found, bool):
        return found
    if isinstance(found, int):
        if not -(2**63) <= found < 2**63:
            raise ValueError(f"the value for {point} is beyond 64 bits")
        return found
    if isinstance(found, float):
        if not math.isfinite(found):
            raise ValueError(f"the value for {point} is no finite number")
        return found
    if isinstance(found, str):
        if len(found) > MAX_TEXT_VALUE or (found and not found.isprintable()):
            raise ValueError(f"the text for {point} is not printable, or longer than {MAX_TEXT_VALUE}")
        return found
    raise ValueError(f"the value for {point} is a boolean, a number, a text or null")


def _required(value: Mapping[str, Any], field: str) -> str:
    text = _text(value, field, MAX_ID)
    if text is None:
        raise ValueError(f"{field} is required")
    return text


def _text(value: Mapping[str, Any], field: str, longest: int) -> str | None:
    found = value.get(field)
    if found is None:
        return None
    if not isinstance(found, str) or not 0 < len(found) <= longest or not found.isprintable():
        raise ValueError(f"{field} is a printable text of 1 to {longest} characters")
    return found


def _whole(value: Mapping[str, Any], field: str, least: int, most: int) -> int | None:
    found = value.get(field)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise ValueError(f"{field} is a whole number from {least} to {most}")
    return found


def _time(value: Mapping[str, Any], field: str) -> int | None:
    found = value.get(field)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < _LATEST:
        raise ValueError(f"{field} is a time in microseconds since 1970, UTC")
    return found


def _tolerance(found: Any) -> float | None:
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, (int, float)):
        raise ValueError("tolerance is a number")
    if not 0 <= found < 1e300:
        raise ValueError("tolerance is a finite number, 0 or more")
    return float(found)


def number_of(found: Any) -> Any:
    """A text that reads as a number as that number; all else as it is."""
    if isinstance(found, str) and len(found) <= MAX_ID and (match := _NUMBER.fullmatch(found.strip())):
        text = match[0]
        return int(text) if text.lstrip("-").isdigit() else float(text)
    return found


def _printable(found: Any) -> str | None:
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID and found.isprintable() else None
