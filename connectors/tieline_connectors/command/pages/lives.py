"""What has become of each command, from the topics of commands and of results; pure.

Both topics are hostile: whatever does not have the form of a command or a result is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tieline_connectors.command.model.command import TERMINAL
from tieline_connectors.command.model.point import key_of

MAX_COMMANDS = 20_000
_MAX_RESULTS = 50
_HOLD_ENDS = frozenset({"HOLD_ENDED", "HOLD_SKIPPED"})


@dataclass
class CommandLife:
    """One command with its results, the oldest first. Times are microseconds since 1970."""

    command_id: str
    command: Mapping[str, Any] = field(default_factory=dict)
    """The fields of ``command.Command``; empty if only results are known."""
    results: list[Mapping[str, Any]] = field(default_factory=list)
    version: int = 0
    """The version of the book at its last change."""
    overwritten: set[str] = field(default_factory=set)
    """The keys of its points that a later command has written; their hold ends without a revert."""

    @property
    def issuer(self) -> str:
        """Who issued it."""
        return str(self.command.get("issuer") or self._last("issuer") or "")

    @property
    def at(self) -> int:
        """When it was issued, or its first result."""
        times = [self.command.get("issued_at"), *(result.get("at") for result in self.results)]
        return next((time for time in times if isinstance(time, int)), 0)

    @property
    def state(self) -> str:
        """The state of the last result; ``SENT`` before the first."""
        return str(self.results[-1]["state"]) if self.results else "SENT"

    @property
    def end(self) -> Mapping[str, Any] | None:
        """The terminal result, if there is one."""
        return next((result for result in self.results if result["state"] in TERMINAL), None)

    @property
    def points(self) -> Sequence[str]:
        """The points that it writes."""
        writes = self.command.get("writes") or self._last("writes") or ()
        return [str(write["point"]) for write in writes if isinstance(write, Mapping) and "point" in write]

    @property
    def requested(self) -> Sequence[Any]:
        """The requested values, in the order of ``points``."""
        if self.command:
            return [write.get("value") for write in self.command.get("writes") or ()]
        return [write.get("requested") for write in self._last("writes") or ()]

    @property
    def reason(self) -> str:
        """Why its issuer sent it."""
        return str(self.command.get("reason") or "")

    @property
    def explanation(self) -> str:
        """Why it ended as it did; empty if there is nothing to explain."""
        last = self.results[-1] if self.results else {}
        parts = (str(last.get("reason_code") or ""), str(last.get("reason") or ""))
        return ": ".join(part for part in parts if part)

    @property
    def latency(self) -> float | None:
        """Seconds from its issue to its end."""
        issued, end = self.command.get("issued_at"), self.end
        if end is None or not isinstance(issued, int) or not isinstance(end.get("at"), int):
            return None
        return max(0.0, (int(end["at"]) - issued) / 1_000_000)

    @property
    def hold_until(self) -> int | None:
        """Until when its points are held, if a hold lasts."""
        hold, end = self.command.get("hold_ms"), self.end
        if not isinstance(hold, int) or end is None or self.command.get("dry_run"):
            return None
        if any(result["state"] in _HOLD_ENDS for result in self.results):
            return None
        if not self.held_points or self.started is None:
            return None
        return self.started + hold * 1000

    @property
    def started(self) -> int | None:
        """When it began to write; ``None`` before its end."""
        end = self.end or {}
        start = end.get("started_at") or end.get("at")
        return start if isinstance(start, int) else None

    @property
    def written_points(self) -> Sequence[str]:
        """The points that it wrote, or may have written."""
        writes = [write for write in (self.end or {}).get("writes") or () if isinstance(write, Mapping)]
        return [str(write.get("point")) for write in writes if write.get("outcome") != "NOT_WRITTEN"]

    @property
    def held_points(self) -> Sequence[str]:
        """The points that it wrote and no later command did."""
        return [point for point in self.written_points if key_of(point) not in self.overwritten]

    @property
    def hold_problem(self) -> str:
        """Why its hold could not be ended yet; empty if nothing failed."""
        failed = [result for result in self.results if result["state"] == "HOLD_FAILED"]
        return str(failed[-1].get("reason") or "the device refused") if failed and self.hold_until else ""

    def _last(self, name: str) -> Any:
        return next((result[name] for result in reversed(self.results) if result.get(name)), None)


class CommandBook:
    """The newest commands by their id. Not safe for threads; ``version`` grows with every change."""

    def __init__(self, limit: int = MAX_COMMANDS) -> None:
        self._limit = limit
        self._lives: OrderedDict[str, CommandLife] = OrderedDict()
        self._writers: OrderedDict[str, CommandLife] = OrderedDict()
        self.version = 0

    def add(self, value: Any) -> None:
        """Add a record of either topic."""
        if not isinstance(value, Mapping) or not isinstance(value.get("command_id"), str):
            return
        if isinstance(value.get("state"), str):
            self._add_result(value)
        elif isinstance(value.get("writes"), Sequence) and isinstance(value.get("issuer"), str):
            self._add_command(value)

    def get(self, command_id: str) -> CommandLife | None:
        """Return one command, if it is known."""
        return self._lives.get(command_id)

    def newest(self) -> Iterator[CommandLife]:
        """Yield all commands, the one that changed last first."""
        return reversed(self._lives.values())

    def holds(self) -> list[CommandLife]:
        """Return the commands whose hold lasts, the one that ends first first."""
        return sorted(
            (life for life in self._lives.values() if life.hold_until is not None),
            key=lambda life: life.hold_until or 0,
        )

    def of_point(self, point: str) -> Iterator[CommandLife]:
        """Yield the commands that write a point, or a point of a device, newest first."""
        wanted = key_of(point)
        for life in self.newest():
            keys = [key_of(each) for each in life.points]
            if any(key == wanted or key.startswith(f"{wanted}/") for key in keys):
                yield life

    def _add_command(self, value: Mapping[str, Any]) -> None:
        life = self._touch(value["command_id"])
        if not life.command:  # the same id again is the same command, or is rejected
            life.command = value

    def _add_result(self, value: Mapping[str, Any]) -> None:
        life = self._touch(value["command_id"])
        known = {(result["state"], result.get("at")) for result in life.results}
        if (value["state"], value.get("at")) not in known and len(life.results) < _MAX_RESULTS:
            life.results.append(value)
            if value["state"] in TERMINAL:
                self._end_earlier_holds(life)

    def _end_earlier_holds(self, life: CommandLife) -> None:
        """Remember that a command wrote its points after the one that wrote them before."""
        for key in map(key_of, life.written_points):
            last = self._writers.pop(key, life)
            earlier, later = sorted((last, life), key=lambda each: each.started or 0)
            if earlier is not later:
                earlier.overwritten.add(key)
                earlier.version = self.version
            self._writers[key] = later
            if len(self._writers) > self._limit:
                self._writers.popitem(last=False)

    def _touch(self, command_id: str) -> CommandLife:
        self.version += 1
        life = self._lives.pop(command_id, None) or CommandLife(command_id)
        life.version = self.version
        self._lives[command_id] = life
        if len(self._lives) > self._limit:
            self._drop_oldest()
        return life

    def _drop_oldest(self) -> None:
        """Drop the oldest command without a hold; holds stay until they end."""
        oldest = next((each for each, life in self._lives.items() if life.hold_until is None), None)
        self._lives.pop(oldest or next(iter(self._lives)))
