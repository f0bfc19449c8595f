"""The layout ``command-history``: commands and what became of them, as the old CloudAgent kept them; pure.

``from``, ``to``, ``message``, ``device_point``, ``new_value`` are the old agent's, with its two names for
both ends; what a command and its result say beside stands in fields of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pymongo import ASCENDING, DESCENDING

from tieline.api import ID_HEADER, SinkRecord, header
from tieline_connectors.mongo.documents.values import moment, shallow

CLOUD, AGENT = "Cloud", "CloudAgent"
"""Who sends commands, and who answers, in the old agents' words."""

_NEWEST = (("time", DESCENDING), ("time_us", DESCENDING))
"""A command and its first results can fall into one millisecond, which is all that a BSON date keeps."""

INDEXES = (
    _NEWEST,
    (("from", ASCENDING), *_NEWEST),
    (("to", ASCENDING), *_NEWEST),
    (("device", ASCENDING), *_NEWEST),
    (("command_id", ASCENDING), *_NEWEST),
)

Document = dict[str, Any]

_SAID = ("issuer", "correlation_id", "action", "priority", "hold_ms", "tolerance", "dry_run")
_TIMES = ("expires_at", "not_before")
_YEAR_10000 = 253_402_300_800_000_000


def history(record: SinkRecord) -> dict[str, Document]:
    """A document a point that a command or a result names; one, too, where it names none.

    A command that is none in the end (its fields are what they should not be) is kept as far as it can
    be read. Raises ``ValueError`` for what is neither a command nor a result, of either form.
    """
    given = record.value
    if isinstance(given, Mapping):
        if "state" in given and "command_id" in given:
            return _numbered(given, lambda write: _result(record, given, write))
        if "writes" in given:
            return _numbered(given, lambda write: _command(record, given, write))
        if "from" in given and "to" in given:
            return {"": _old_result(record, given)}
        if "device_point" in given:
            return {"": _old_command(record, given)}
    kind = record.value_schema.name if record.value_schema else type(given).__name__
    raise ValueError(
        "layout 'command-history' takes command.Command, command.CommandResult and the old agents' JSON"
        f" of both, not {kind}"
    )


def _numbered(given: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Document]) -> dict[str, Document]:
    writes = given.get("writes")
    known = [write for write in writes if isinstance(write, Mapping)] if isinstance(writes, list) else []
    if len(known) < 2:
        return {"": make(known[0] if known else {})}
    return {f"/{number}": make(write) for number, write in enumerate(known)}


def _command(record: SinkRecord, given: Mapping[str, Any], write: Mapping[str, Any]) -> Document:
    message = given.get("reason") or ""
    made = _both(CLOUD, AGENT, message, write.get("point"), write.get("value"))
    made |= _when(given.get("issued_at"), record)
    made["command_id"] = shallow(given.get("command_id"))
    made |= {name: shallow(given.get(name)) for name in _SAID}
    made |= {name: _moment(given.get(name)) for name in _TIMES}
    return made


def _result(record: SinkRecord, given: Mapping[str, Any], write: Mapping[str, Any]) -> Document:
    state, reason = given.get("state"), given.get("reason")
    message = f"{state}: {reason}" if reason else f"{state}"
    made = _both(AGENT, CLOUD, message, write.get("point"), write.get("actual"))
    made |= _when(given.get("at"), record)
    for name in ("command_id", "issuer", "correlation_id", "state", "reason_code", "reason"):
        made[name] = shallow(given.get(name))
    for name in ("requested", "previous", "actual", "outcome"):
        made[name] = shallow(write.get(name))
    made["outcome_reason"] = shallow(write.get("reason"))
    made["dry_run"] = shallow(given.get("dry_run"))
    made |= {name: _moment(given.get(name)) for name in ("received_at", "started_at")}
    if isinstance(given.get("raw"), bytes):
        made["raw"] = given["raw"]
    return made


def _old_command(record: SinkRecord, given: Mapping[str, Any]) -> Document:
    """Its command_id is what the command sink derives: the record's own id."""
    made = _both(CLOUD, AGENT, given.get("message"), given["device_point"], given.get("new_value"))
    own = (header(record, ID_HEADER) or b"").decode("ascii", "replace")
    return made | _when(None, record) | {"command_id": own}


def _old_result(record: SinkRecord, given: Mapping[str, Any]) -> Document:
    told = (given.get(name) for name in ("message", "device_point", "new_value"))
    return _both(given["from"], given["to"], *told) | _when(None, record)


def _both(sender: Any, to: Any, message: Any, point: Any, value: Any) -> Document:
    made = {"from": sender, "to": to, "message": message, "device_point": point, "new_value": value}
    made = {name: shallow(item) for name, item in made.items()}
    if isinstance(point, str):
        device = point.replace("{/}", "").strip("/").removeprefix("devices/").rpartition("/")[0]
        made["device"] = device.replace("{*}", "*")
    return made


def _when(at: Any, record: SinkRecord) -> Document:
    """When it was said; of what says no time, when it was produced."""
    if not _is_time(at):
        at = (record.timestamp or 0) * 1000
    return {"time": moment(at), "time_us": at}


def _moment(at: Any) -> Any:
    return moment(at) if _is_time(at) else None


def _is_time(at: Any) -> bool:
    return isinstance(at, int) and not isinstance(at, bool) and 0 <= at < _YEAR_10000
