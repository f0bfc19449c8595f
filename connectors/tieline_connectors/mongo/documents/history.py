"""The layout ``command-history``: commands and their results, as the old CloudAgent stored them; pure.

``from``, ``to``, ``message``, ``device_point`` and ``new_value`` are the old agent's fields, with its names
for sender and receiver. The other fields of a command or result are added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pymongo import ASCENDING, DESCENDING

from tieline.api import ID_HEADER, SinkRecord, header
from tieline_connectors.mongo.documents.values import shallow, to_date

CLOUD, AGENT = "Cloud", "CloudAgent"
"""The old agents' names for the sender of commands and the one who answers."""

_NEWEST = (("time", DESCENDING), ("time_us", DESCENDING))
"""A command and its first results may have the same millisecond, the resolution of a BSON date."""

INDEXES = (
    _NEWEST,
    (("from", ASCENDING), *_NEWEST),
    (("to", ASCENDING), *_NEWEST),
    (("device", ASCENDING), *_NEWEST),
    (("command_id", ASCENDING), *_NEWEST),
)

Document = dict[str, Any]

_COMMAND_FIELDS = ("issuer", "correlation_id", "action", "priority", "hold_ms", "tolerance", "dry_run")
_TIMES = ("expires_at", "not_before")
_YEAR_10000 = 253_402_300_800_000_000


def history(record: SinkRecord) -> dict[str, Document]:
    """Return a document for each point of a command or result, and one if it has no point.

    An invalid command is stored as far as it can be read. Raises ``ValueError`` for a value that is neither a
    command nor a result, in the new or the old form.
    """
    value = record.value
    if isinstance(value, Mapping):
        if "state" in value and "command_id" in value:
            return _by_write(value, lambda write: _result(record, value, write))
        if "writes" in value:
            return _by_write(value, lambda write: _command(record, value, write))
        if "from" in value and "to" in value:
            return {"": _old_result(record, value)}
        if "device_point" in value:
            return {"": _old_command(record, value)}
    kind = record.value_schema.name if record.value_schema else type(value).__name__
    raise ValueError(
        "layout 'command-history' takes command.Command, command.CommandResult and the old agents' JSON"
        f" of both, not {kind}"
    )


def _by_write(value: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Document]) -> dict[str, Document]:
    writes = value.get("writes")
    valid = [write for write in writes if isinstance(write, Mapping)] if isinstance(writes, list) else []
    if len(valid) < 2:
        return {"": make(valid[0] if valid else {})}
    return {f"/{number}": make(write) for number, write in enumerate(valid)}


def _command(record: SinkRecord, value: Mapping[str, Any], write: Mapping[str, Any]) -> Document:
    message = value.get("reason") or ""
    document = _common_fields(CLOUD, AGENT, message, write.get("point"), write.get("value"))
    document |= _times(value.get("issued_at"), record)
    document["command_id"] = shallow(value.get("command_id"))
    document |= {name: shallow(value.get(name)) for name in _COMMAND_FIELDS}
    document |= {name: _optional_date(value.get(name)) for name in _TIMES}
    return document


def _result(record: SinkRecord, value: Mapping[str, Any], write: Mapping[str, Any]) -> Document:
    state, reason = value.get("state"), value.get("reason")
    message = f"{state}: {reason}" if reason else f"{state}"
    document = _common_fields(AGENT, CLOUD, message, write.get("point"), write.get("actual"))
    document |= _times(value.get("at"), record)
    for name in ("command_id", "issuer", "correlation_id", "state", "reason_code", "reason"):
        document[name] = shallow(value.get(name))
    for name in ("requested", "previous", "actual", "outcome"):
        document[name] = shallow(write.get(name))
    document["outcome_reason"] = shallow(write.get("reason"))
    document["dry_run"] = shallow(value.get("dry_run"))
    document |= {name: _optional_date(value.get(name)) for name in ("received_at", "started_at")}
    if isinstance(value.get("raw"), bytes):
        document["raw"] = value["raw"]
    return document


def _old_command(record: SinkRecord, value: Mapping[str, Any]) -> Document:
    """Return the document of an old command; its command_id is the record's id, as in the command sink."""
    document = _common_fields(
        CLOUD, AGENT, value.get("message"), value["device_point"], value.get("new_value")
    )
    record_id = (header(record, ID_HEADER) or b"").decode("ascii", "replace")
    return document | _times(None, record) | {"command_id": record_id}


def _old_result(record: SinkRecord, value: Mapping[str, Any]) -> Document:
    fields = (value.get(name) for name in ("message", "device_point", "new_value"))
    return _common_fields(value["from"], value["to"], *fields) | _times(None, record)


def _common_fields(sender: Any, to: Any, message: Any, point: Any, value: Any) -> Document:
    document = {"from": sender, "to": to, "message": message, "device_point": point, "new_value": value}
    document = {name: shallow(item) for name, item in document.items()}
    if isinstance(point, str):
        device = point.replace("{/}", "").strip("/").removeprefix("devices/").rpartition("/")[0]
        document["device"] = device.replace("{*}", "*")
    return document


def _times(time: Any, record: SinkRecord) -> Document:
    """Return the time fields, from ``time`` in microseconds or else the record's timestamp."""
    if not _is_time(time):
        time = (record.timestamp or 0) * 1000
    return {"time": to_date(time), "time_us": time}


def _optional_date(time: Any) -> Any:
    return to_date(time) if _is_time(time) else None


def _is_time(time: Any) -> bool:
    return isinstance(time, int) and not isinstance(time, bool) and 0 <= time < _YEAR_10000
