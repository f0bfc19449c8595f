"""Whether commands were done as often as their results say, and records came back to the bus once. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tieline_lab.comparison import Message, Verdict, shortly

_TERMINAL = frozenset({"SUCCEEDED", "MISMATCH", "FAILED", "REJECTED", "EXPIRED", "UNKNOWN"})
_HOLD_ENDS = frozenset({"HOLD_ENDED", "HOLD_SKIPPED", "HOLD_FAILED"})
_WRITTEN = frozenset({"VERIFIED", "UNVERIFIED", "DIFFERENT"})

Value = Mapping[str, Any]


class Write(NamedTuple):
    """A write that reached a device, or has to have."""

    point: str
    kind: str
    """set or revert."""
    value: Any = None
    """Of a set."""


@dataclass(frozen=True)
class CommandFindings:
    """What a run has left behind of commands and of the way back, when everything is at rest."""

    commands: Sequence[Value]
    """The records of the topic of commands, ``command.Command``, as often as they are there."""
    results: Sequence[Value]
    """Those of the topic of results. The same one may be there again: a known command is answered again."""
    writes: Sequence[Value]
    """What reached the devices, as they tell it themselves (``VolttronPlatform.writes``)."""
    history: int
    """The number of documents of the layout ``command-history``."""
    wanted: Mapping[str, str] = field(default_factory=dict)
    """By its id, the state in which a command that the lab has sent has to end."""
    published: Counter[Message] = field(default_factory=Counter)
    """The lab's own records for the way back."""
    heard: Counter[Message] = field(default_factory=Counter)
    """What came back on the bus, whoever sent it there, as the observer saw it."""
    echoes: int = 0
    """How many messages the bus source has known as ours, and not taken."""


def ends(results: Sequence[Value]) -> dict[str, list[Value]]:
    """By command, its terminal results. Equal ones are one, told again.

    An answer to a command that came under the id of another one is not an end of that one.
    """
    return _by_command(results, _TERMINAL)


def unended(commands: Sequence[Value], results: Sequence[Value]) -> set[str]:
    """The commands that have no terminal result yet, or a hold that has not ended."""
    ended, holds_ended = ends(results), _by_command(results, _HOLD_ENDS)
    waiting = {command["command_id"] for command in commands} - ended.keys()
    return waiting | {command_id for command_id in _held(commands, ended) if command_id not in holds_ended}


def owed(commands: Sequence[Value], results: Sequence[Value]) -> tuple[Counter[Write], Counter[Write]]:
    """The writes that these results speak of: those that were done, and those that perhaps were."""
    reverts = {command["command_id"] for command in commands if command.get("action") == "REVERT"}
    done, perhaps = Counter[Write](), Counter[Write]()
    for result in (*_all(ends(results)), *_all(_by_command(results, _HOLD_ENDS))):
        gives_back = result["state"] in _HOLD_ENDS or result["command_id"] in reverts
        for write in result["writes"]:
            point, outcome = write["point"], write["outcome"]
            back = Write(point, "revert")
            first = (
                back if gives_back or write["requested"] is None else Write(point, "set", write["requested"])
            )
            if outcome in _WRITTEN or outcome == "REVERTED":
                done[first] += 1
            if outcome == "REVERTED" and not gives_back:
                done[back] += 1
            if outcome == "UNKNOWN":
                perhaps[first] += 1
                perhaps[back] += 1
    return done, perhaps


def judge_commands(found: CommandFindings) -> Verdict:
    """Compare what was sent, what was told, what the devices got, and what is in the history.

    ``writes_doubled``: writes at devices that no result speaks of. ``writes_missing``: those that a result
    tells as done and that no device has got.
    """
    ids = {command["command_id"] for command in found.commands}
    ended = ends(found.results)
    states = Counter(told[0]["state"] for command_id, told in ended.items() if command_id in ids)
    done, perhaps = owed(found.commands, found.results)
    at_devices = Counter(map(_write, found.writes))
    doubled, undone = at_devices - done - perhaps, done - at_devices
    numbers = {
        "commands": len(ids),
        "ended": states.total(),
        "succeeded": states["SUCCEEDED"],
        "rejected": states["REJECTED"],
        "expired": states["EXPIRED"],
        "writes": at_devices.total(),
        "writes_doubled": doubled.total(),
        "writes_missing": undone.total(),
        "history": found.history,
        "published": found.published.total(),
        "heard": found.heard.total(),
        "echoes": found.echoes,
    }
    faults = [
        *(f"written at the device, and no result speaks of it: {_said(write)}" for write in doubled),
        *(f"told as done, and never written at the device: {_said(write)}" for write in undone),
        *_wrong_ends(found, ended),
        *_wrong_history(found),
        *_wrong_way_back(found),
    ]
    return Verdict(numbers, faults)


def _wrong_ends(found: CommandFindings, ended: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    for command_id in sorted(unended(found.commands, found.results)):
        yield f"command {command_id} never came to its end"
    for command_id, told in ended.items():
        if len(told) > 1:
            yield f"command {command_id} came to {len(told)} ends: {', '.join(end['state'] for end in told)}"
    for command_id, state in found.wanted.items():
        end = ended.get(command_id, [{"state": "in nothing"}])[0]
        if end["state"] != state:
            yield f"command {command_id} ended {end['state']}, not {state}: {end.get('reason', '')}"


def _wrong_history(found: CommandFindings) -> Iterator[str]:
    """A document a point: of each record with a command, and of each result, however often it was told."""
    told = {_canonical(result): result for result in found.results}
    documents = sum(max(1, len(value["writes"])) for value in (*found.commands, *told.values()))
    if found.history != documents:
        yield f"commands and results are {documents} documents, tieline.commands has {found.history}"


def _wrong_way_back(found: CommandFindings) -> Iterator[str]:
    missing = found.published - found.heard
    doubled = Counter({m: found.heard[m] - times for m, times in found.published.items()})
    for message in list(missing)[:3]:
        yield f"published and not heard on the bus: {shortly(message)}"
    for message in list(+doubled)[:3]:
        yield f"heard on the bus more often than published: {shortly(message)}"
    if found.echoes != found.heard.total():
        heard = found.heard.total()
        yield f"{heard} messages of ours were heard on the bus, the source knew {found.echoes} as echoes"


def _held(commands: Sequence[Value], ended: Mapping[str, Sequence[Value]]) -> Iterator[str]:
    """The commands whose hold has to end some day."""
    for command in commands:
        writes = (write for end in ended.get(command["command_id"], ()) for write in end["writes"])
        if command.get("hold_ms") is not None and any(
            write["requested"] is not None and write["outcome"] not in ("NOT_WRITTEN", "REVERTED")
            for write in writes
        ):
            yield command["command_id"]


def _by_command(results: Sequence[Value], states: frozenset[str]) -> dict[str, list[Value]]:
    found: dict[str, dict[str, Value]] = {}
    for result in results:
        if result["state"] in states and result["reason_code"] != "CONFLICT":
            found.setdefault(result["command_id"], {})[_canonical(result)] = result
    return {command_id: list(told.values()) for command_id, told in found.items()}


def _all(by_command: Mapping[str, Sequence[Value]]) -> Iterator[Value]:
    for told in by_command.values():
        yield from told


def _canonical(value: Value) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def _write(told: Value) -> Write:
    point = f"{told['device']}/{told['point']}"
    return Write(point, "set", told["value"]) if told["kind"] == "set" else Write(point, "revert")


def _said(write: Write) -> str:
    return (
        f"{write.point} = {json.dumps(write.value)}" if write.kind == "set" else f"{write.point} given back"
    )
