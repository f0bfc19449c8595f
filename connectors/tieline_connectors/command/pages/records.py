"""Reads records of the topics of commands and of results for pages; pure.

Anything may write to these topics. A record that is neither a command nor a result is left out, and what is
kept of one is limited, so that no record breaks or overloads a page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tieline_connectors.command.model.command import Defaults, State
from tieline_connectors.command.model.parsing import (
    MAX_ID,
    MAX_WRITES,
    MalformedCommandError,
    from_value,
)

_STATES = frozenset(get_args(State))
_LATEST = 253_402_300_800_000_000  # the year 10000, in microseconds
_LONGEST = 1000
_LARGEST = 2**63
_TEXTS = ("issuer", "reason_code", "reason")
_TIMES = ("at", "received_at", "started_at")
_VALUES = ("requested", "previous", "actual")


def command_fields(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a command; ``None`` if the sink would reject it as malformed."""
    try:
        command = from_value(value, Defaults())
    except MalformedCommandError:
        return None
    fields = command._asdict()
    fields.update(dict.fromkeys(command.filled))  # the sink has other defaults
    fields["writes"] = [write._asdict() for write in command.writes]
    return fields


def result_fields(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the fields of a result; ``None`` if it is none."""
    times = {name: value.get(name) for name in _TIMES}
    state = value.get("state")
    if not isinstance(state, str) or state not in _STATES or not _is_time(times["at"]):
        return None
    return {
        "state": state,
        **{name: time if _is_time(time) else None for name, time in times.items()},
        **{name: _text(value.get(name)) for name in _TEXTS},
        "dry_run": value.get("dry_run") is True,
        "writes": _writes(value.get("writes")),
    }


def command_id_of(value: Any) -> str | None:
    """Return the id of the command that a record is about; ``None`` if it has none."""
    found = value.get("command_id") if isinstance(value, Mapping) else None
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID and found.isprintable() else None


def _writes(found: Any) -> list[dict[str, Any]]:
    items = found[:MAX_WRITES] if isinstance(found, (list, tuple)) else []
    return [
        {
            "point": _text(item["point"]),
            "outcome": _text(item.get("outcome")),
            "reason": _text(item.get("reason")),
            **{name: _scalar(item.get(name)) for name in _VALUES},
        }
        for item in items
        if isinstance(item, Mapping) and isinstance(item.get("point"), str)
    ]


def _is_time(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < _LATEST


def _text(found: Any) -> str:
    return found[:_LONGEST] if isinstance(found, str) else ""


def _scalar(found: Any) -> Any:
    if isinstance(found, str):
        return found[:_LONGEST]
    if isinstance(found, int) and not -_LARGEST <= found < _LARGEST:
        return None
    return found if isinstance(found, (bool, int, float)) else None
