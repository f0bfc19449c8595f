"""The verdict on a run's commands: whether each was executed as its results say. Pure functions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from tieline_lab.comparison import Message, Verdict, find_surplus, summarize

_TERMINAL = frozenset({"SUCCEEDED", "MISMATCH", "FAILED", "REJECTED", "EXPIRED", "UNKNOWN"})
_HOLD_ENDS = frozenset({"HOLD_ENDED", "HOLD_SKIPPED", "HOLD_FAILED"})
_WRITTEN = frozenset({"VERIFIED", "UNVERIFIED", "DIFFERENT"})

Value = Mapping[str, Any]


class Write(NamedTuple):
    """A write that reached a device, or should have."""

    point: str
    kind: str
    """``set`` or ``revert``."""
    value: Any = None
    """The value of a ``set``."""


@dataclass(frozen=True)
class BusRecords:
    """The records that the bus sink publishes, on their way through the bus."""

    published: Counter[Message] = field(default_factory=Counter)
    """The lab's own records for the bus sink."""
    heard: Counter[Message] = field(default_factory=Counter)
    """The worker's own messages that the observer saw, also those of other senders' records."""
    echoes: int = 0
    """How many messages the bus source recognized as the worker's own and skipped."""


@dataclass(frozen=True)
class CommandFindings:
    """The commands, results and writes of a run at its end."""

    commands: Sequence[Value]
    """All records of the topic of commands, ``command.Command``; a repeated command is there again."""
    results: Sequence[Value]
    """All records of the topic of results. A repeated command is answered with the same result again."""
    writes: Sequence[Value]
    """What the devices recorded (``VolttronPlatform.writes``)."""
    history: int | None
    """The number of documents of the layout ``command-history``; ``None`` without a store of them."""
    expected_states: Mapping[str, str] = field(default_factory=dict)
    """The state in which each command of the lab has to end, by the command's id."""
    bus_records: BusRecords = field(default_factory=BusRecords)


def find_unended(commands: Sequence[Value], results: Sequence[Value]) -> set[str]:
    """Return the ids of commands without a terminal result, or with a hold that has not ended."""
    ends, hold_ends = _find_ends(results), _group_by_command(results, _HOLD_ENDS)
    waiting = {command["command_id"] for command in commands} - ends.keys()
    return waiting | {command_id for command_id in _find_held(commands, ends) if command_id not in hold_ends}


def find_owed_writes(
    commands: Sequence[Value], results: Sequence[Value]
) -> tuple[Counter[Write], Counter[Write]]:
    """Return the writes that these results report as done, and those that may have been done."""
    reverts = {command["command_id"] for command in commands if command.get("action") == "REVERT"}
    done, possible = Counter[Write](), Counter[Write]()
    results_by_command = (_find_ends(results), _group_by_command(results, _HOLD_ENDS))
    for result in chain.from_iterable(chain(*(group.values() for group in results_by_command))):
        is_revert = result["state"] in _HOLD_ENDS or result["command_id"] in reverts
        for point_result in result["writes"]:
            point, outcome, value = point_result["point"], point_result["outcome"], point_result["requested"]
            revert = Write(point, "revert")
            write = revert if is_revert or value is None else Write(point, "set", value)
            if outcome in _WRITTEN or outcome == "REVERTED":
                done[write] += 1
            if outcome == "REVERTED" and not is_revert:
                done[revert] += 1
            if outcome == "UNKNOWN":
                possible[write] += 1
                possible[revert] += 1
    return done, possible


def judge_commands(findings: CommandFindings) -> Verdict:
    """Compare commands, results, the devices' records and the stored history.

    ``writes_doubled`` counts writes at devices that no result reports. ``writes_missing`` counts those that a
    result reports as done, but that no device received.
    """
    ids = {command["command_id"] for command in findings.commands}
    ends = _find_ends(findings.results)
    states = Counter(results[0]["state"] for command_id, results in ends.items() if command_id in ids)
    done, possible = find_owed_writes(findings.commands, findings.results)
    at_devices = Counter(map(_to_write, findings.writes))
    doubled, missing = at_devices - done - possible, done - at_devices
    numbers = {
        "commands": len(ids),
        "ended": states.total(),
        "succeeded": states["SUCCEEDED"],
        "rejected": states["REJECTED"],
        "expired": states["EXPIRED"],
        "writes": at_devices.total(),
        "writes_doubled": doubled.total(),
        "writes_missing": missing.total(),
        **({} if findings.history is None else {"history": findings.history}),
        "published": findings.bus_records.published.total(),
        "heard": findings.bus_records.heard.total(),
        "echoes": findings.bus_records.echoes,
    }
    faults = [
        *(f"a device was written, but no result reports it: {_describe(write)}" for write in doubled),
        *(f"a result reports a write that reached no device: {_describe(write)}" for write in missing),
        *_find_wrong_ends(findings, ends),
        *_find_wrong_history(findings),
        *_find_wrong_bus_records(findings.bus_records),
    ]
    return Verdict(numbers, faults)


def _find_ends(results: Sequence[Value]) -> dict[str, list[Value]]:
    """Return the terminal results by command; a result that is repeated counts once.

    The rejection of another command with the same id is not an end of the first command.
    """
    return _group_by_command(results, _TERMINAL)


def _find_wrong_ends(findings: CommandFindings, ends: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    for command_id in sorted(find_unended(findings.commands, findings.results)):
        yield f"command {command_id} has not ended"
    for command_id, results in ends.items():
        if len(results) > 1:
            states = ", ".join(result["state"] for result in results)
            yield f"command {command_id} ended {len(results)} times: {states}"
    for command_id, expected in findings.expected_states.items():
        if command_id not in ends:
            yield f"command {command_id} has no result, expected {expected}"
            continue
        result = ends[command_id][0]
        if result["state"] != expected:
            yield f"command {command_id} ended as {result['state']}, not as {expected}: {result['reason']}"


def _find_wrong_history(findings: CommandFindings) -> Iterator[str]:
    """Each command record and each distinct result has a document per point, but at least one."""
    distinct = {_to_canonical_json(result): result for result in findings.results}
    documents = sum(max(1, len(value["writes"])) for value in (*findings.commands, *distinct.values()))
    if findings.history is not None and findings.history != documents:
        yield (
            f"commands and results make {documents} documents, but tieline.commands has {findings.history}"
        )


def _find_wrong_bus_records(records: BusRecords) -> Iterator[str]:
    for message in list(records.published - records.heard)[:3]:
        yield f"published, but not seen on the bus: {summarize(message)}"
    for message in list(find_surplus(records.heard, records.published))[:3]:
        yield f"seen on the bus more often than published: {summarize(message)}"
    heard = records.heard.total()
    if records.echoes != heard:
        yield (
            f"{heard} messages of the worker were seen on the bus, "
            f"but the source recognized {records.echoes} echoes"
        )


def _find_held(commands: Sequence[Value], ends: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    """Find the commands that started a hold, which has to end."""
    for command in commands:
        writes = (write for result in ends.get(command["command_id"], ()) for write in result["writes"])
        if command.get("hold_ms") is not None and any(
            write["requested"] is not None and write["outcome"] not in ("NOT_WRITTEN", "REVERTED")
            for write in writes
        ):
            yield command["command_id"]


def _group_by_command(results: Sequence[Value], states: frozenset[str]) -> dict[str, list[Value]]:
    by_command: dict[str, dict[str, Value]] = {}
    for result in results:
        if result["state"] in states and result["reason_code"] != "CONFLICT":
            by_command.setdefault(result["command_id"], {})[_to_canonical_json(result)] = result
    return {command_id: list(distinct.values()) for command_id, distinct in by_command.items()}


def _to_canonical_json(value: Value) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _to_write(line: Value) -> Write:
    point = f"{line['device']}/{line['point']}"
    return Write(point, "set", line["value"]) if line["kind"] == "set" else Write(point, "revert")


def _describe(write: Write) -> str:
    return f"{write.point} = {json.dumps(write.value)}" if write.kind == "set" else f"{write.point} reverted"
