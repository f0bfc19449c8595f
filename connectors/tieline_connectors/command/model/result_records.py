"""Build what reports a result: records for the results topics, lines for the audit log; pure."""

from __future__ import annotations

from typing import Any

from tieline.api import Schema, SourceRecord, identity
from tieline_connectors.command.model.command import TERMINAL, Result, Value
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.point import split

_SCHEMA = "command.CommandResult"


def result_schema() -> Schema:
    """Return the schema of a result."""
    return Schema.named(_SCHEMA)


def ledger_schema() -> Schema:
    """Return the schema of the ledger's entries."""
    return Schema.named("command.LedgerEntry")


def to_records(result: Result, topic: str, old_topic: str) -> list[SourceRecord]:
    """Return the record of a result, and those in the old agents' form if there is a topic for them.

    The same result always has the same id. Results of a device keep their order.
    """
    value = result.to_value()
    key = split(result.writes[0].point)[0] if result.writes else result.command_id
    content = result.to_json().encode("ascii")
    headers = identity(result.command_id, result.state, result.at, digest_of=content)
    at = result.at // 1000
    records = [SourceRecord(topic, value, key, headers=headers, timestamp=at, value_schema=result_schema())]
    if old_topic and result.state in TERMINAL:
        for write in result.writes:
            old = to_old_form(result, write.point, write.actual)
            headers = identity(
                "old", result.command_id, result.state, result.at, write.point, digest_of=content
            )
            records.append(SourceRecord(old_topic, old, key, headers=headers, timestamp=at))
    return records


def to_old_form(result: Result, point: str, value: Value) -> dict[str, Any]:
    """Return what the old CloudAgent reported of a command."""
    return {
        "from": "CloudAgent",
        "to": "Cloud",
        "message": f"{result.state}: {result.reason}" if result.reason else result.state,
        "device_point": point,
        "new_value": value,
    }


def audit_event(result: Result, partition: str, stored_at: int | None) -> dict[str, Any]:
    """Return a line of the audit log. ``stored_at``: the number of its write, ``None`` without a write."""
    event = result.to_value()
    raw = event.pop("raw")
    if raw is not None:
        event["raw"] = raw[:1000].hex()
    return event | {"partition": partition, "stored_at": stored_at}


def audit_reverting(entry: LedgerEntry, partition: str, stored_at: int | None) -> dict[str, Any]:
    """Return the line to write before the points of a hold are reverted."""
    points = [write.point for write in entry.command.writes]
    event = {"state": "REVERTING", "command_id": entry.command_id, "issuer": entry.command.issuer}
    return {
        **event,
        "points": points,
        "at": entry.reverting_at,
        "partition": partition,
        "stored_at": stored_at,
    }


def audit_takeover(partition: str, stored_at: int) -> dict[str, Any]:
    """Return the first line of a new owner: earlier lines with a later number were never stored."""
    return {"state": "TAKEN_OVER", "partition": partition, "stored_at": stored_at}
