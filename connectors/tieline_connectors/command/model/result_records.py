"""What is told of a command: records for the results topics, lines for the audit log; pure."""

from __future__ import annotations

from typing import Any

from tieline.api import Schema, SourceRecord, identity
from tieline_connectors.command.model.command import TERMINAL, Result, Value
from tieline_connectors.command.model.ledger import Entry
from tieline_connectors.command.model.point import split

_SCHEMA = "command.CommandResult"


def result_schema() -> Schema:
    """The schema of a result."""
    return Schema.named(_SCHEMA)


def ledger_schema() -> Schema:
    """The schema of what the ledger keeps."""
    return Schema.named("command.LedgerEntry")


def records(result: Result, topic: str, old_topic: str) -> list[SourceRecord]:
    """The result for its topic, and in the old agents' form if there is a topic for that.

    The same result has the same id however often it is told. Results of a device keep their order.
    """
    value = result.to_value()
    key = split(result.writes[0].point)[0] if result.writes else result.command_id
    content = result.to_json().encode("ascii")
    told = identity(result.command_id, result.state, result.at, digest_of=content)
    at = result.at // 1000
    made = [SourceRecord(topic, value, key, headers=told, timestamp=at, value_schema=result_schema())]
    if old_topic and result.state in TERMINAL:
        for write in result.writes:
            old = old_form(result, write.point, write.actual)
            same = identity("old", result.command_id, result.state, result.at, write.point, digest_of=content)
            made.append(SourceRecord(old_topic, old, key, headers=same, timestamp=at))
    return made


def old_form(result: Result, point: str, value: Value) -> dict[str, Any]:
    """What the old CloudAgent told of a command."""
    return {
        "from": "CloudAgent",
        "to": "Cloud",
        "message": f"{result.state}: {result.reason}" if result.reason else result.state,
        "device_point": point,
        "new_value": value,
    }


def audit_event(result: Result, partition: str, stored_at: int | None) -> dict[str, Any]:
    """A line of the audit log. ``stored_at``: of the ledger's write that it belongs to; none: of none."""
    event = result.to_value()
    raw = event.pop("raw")
    if raw is not None:
        event["raw"] = raw[:1000].hex()
    return event | {"partition": partition, "stored_at": stored_at}


def audit_revert(entry: Entry, partition: str, stored_at: int | None) -> dict[str, Any]:
    """The line before the points of a hold are given back."""
    points = [write.point for write in entry.command.writes]
    said = {"state": "REVERTING", "command_id": entry.command_id, "issuer": entry.command.issuer}
    return {
        **said,
        "points": points,
        "at": entry.reverting_at,
        "partition": partition,
        "stored_at": stored_at,
    }


def taken_over(partition: str, stored_at: int) -> dict[str, Any]:
    """The first line of a new owner: of the lines above it those with a later number were never stored."""
    return {"state": "TAKEN_OVER", "partition": partition, "stored_at": stored_at}
