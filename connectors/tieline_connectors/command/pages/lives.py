"""What has become of each command, from the topics of commands and of results; pure.

Both topics are hostile: whatever does not have the form of a command or a result is left out.
Another record may use the id of a command. Its rejection is shown, and is not the end of the command.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tieline_connectors.command.model.command import TERMINAL
from tieline_connectors.command.model.point import key_of
from tieline_connectors.command.pages.records import command_fields, command_id_of, result_fields

MAX_COMMANDS = 20_000
_MAX_SIZE = 64_000_000  # characters, of all commands and results
_MAX_RESULTS = 50
_FOREIGN = frozenset({"CONFLICT", "WRONG_PLACE", "MALFORMED"})
"""Why another record with the id of a command was rejected."""
_HOLD_ENDS = frozenset({"HOLD_ENDED", "HOLD_SKIPPED"})


@dataclass
class CommandLife:
    """One command with its results, the oldest first. Times are microseconds since 1970."""

    command_id: str
    command: Mapping[str, Any] = field(default_factory=dict)
    """The fields of ``command.Command``; empty if only results are known."""
    results: list[Mapping[str, Any]] = field(default_factory=list)
    topic: str = ""
    """The topic of the command; empty if only results are known."""
    results_topic: str = ""
    """The topic of its first result; empty before it."""
    keys: frozenset[str] = frozenset()
    """The keys of its points."""
    size: int = 0
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
        results = self._own_results
        return str(results[-1]["state"]) if results else "SENT"

    @property
    def end(self) -> Mapping[str, Any] | None:
        """The terminal result, if there is one."""
        return next((each for each in reversed(self._own_results) if each["state"] in TERMINAL), None)

    @property
    def _own_results(self) -> list[Mapping[str, Any]]:
        """The results of the command itself, unless all are those of other records with its id."""
        own = [result for result in self.results if result["reason_code"] not in _FOREIGN]
        return own or self.results

    @property
    def points(self) -> Sequence[str]:
        """The points that it writes."""
        writes = self.command.get("writes") or self._last("writes") or ()
        return [str(write["point"]) for write in writes]

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
        results = self._own_results
        last = results[-1] if results else {}
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
        writes = () if self.end is None else self.end["writes"]
        return [write["point"] for write in writes if write["outcome"] != "NOT_WRITTEN"]

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
        return next((result[name] for result in reversed(self._own_results) if result.get(name)), None)


class CommandBook:
    """The newest commands by their id. Not safe for threads; ``version`` grows with every change."""

    def __init__(self, limit: int = MAX_COMMANDS, max_size: int = _MAX_SIZE) -> None:
        self._limit = limit
        self._max_size = max_size
        self._size = 0
        self._lives: OrderedDict[str, CommandLife] = OrderedDict()
        self._writers: OrderedDict[str, CommandLife] = OrderedDict()
        self._of_key: dict[str, dict[str, CommandLife]] = {}
        self.version = 0
        self.dropped_until = 0
        """When the newest of the commands that were dropped changed last, in microseconds."""

    def add(self, value: Any, topic: str = "") -> None:
        """Add a record of either topic."""
        command_id = command_id_of(value)
        if command_id is None:
            return
        if "state" in value:
            self._add_result(command_id, result_fields(value), topic)
        else:
            self._add_command(command_id, command_fields(value), topic)

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

    def of_key(self, key: str) -> Sequence[CommandLife]:
        """Return the commands that write the point with this key, in no particular order."""
        return list(self._of_key.get(key, {}).values())

    def _add_command(self, command_id: str, fields: Mapping[str, Any] | None, topic: str) -> None:
        if fields is None:
            return
        life = self._touch(command_id)
        if not life.command:  # the same id again is the same command, or is rejected
            life.command, life.topic = fields, topic
            self._index(life)
            self._grow(life, len(str(fields)))

    def _add_result(self, command_id: str, fields: Mapping[str, Any] | None, topic: str) -> None:
        if fields is None:
            return
        life = self._touch(command_id)
        known = {(result["state"], result["at"], result["reason_code"]) for result in life.results}
        if (fields["state"], fields["at"], fields["reason_code"]) in known:
            return
        if len(life.results) == _MAX_RESULTS:
            del life.results[_least_important(life.results)]
        life.results.append(fields)
        life.results_topic = life.results_topic or topic
        if not life.command:
            self._index(life)
        self._grow(life, len(str(fields)))
        if fields["state"] in TERMINAL and fields["reason_code"] not in _FOREIGN:
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

    def _grow(self, life: CommandLife, size: int) -> None:
        life.size += size
        self._size += size
        while self._size > self._max_size and len(self._lives) > 1:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Drop the oldest command without a hold; holds stay until they end."""
        oldest = next((each for each, life in self._lives.items() if life.hold_until is None), None)
        life = self._lives.pop(oldest or next(iter(self._lives)))
        self._size -= life.size
        self._unindex(life)
        self.dropped_until = max(self.dropped_until, life.at, *(result["at"] for result in life.results))

    def _index(self, life: CommandLife) -> None:
        self._unindex(life)
        life.keys = frozenset(map(key_of, life.points))
        for key in life.keys:
            self._of_key.setdefault(key, {})[life.command_id] = life

    def _unindex(self, life: CommandLife) -> None:
        for key in life.keys:
            del self._of_key[key][life.command_id]
            if not self._of_key[key]:
                del self._of_key[key]


def _least_important(results: Sequence[Mapping[str, Any]]) -> int:
    """Return the index of a result that explains nothing which others do not: never the command's end."""
    indexes = range(len(results))
    is_repeated = [each["reason_code"] in _FOREIGN or each["state"] == "HOLD_FAILED" for each in results]
    return next((index for index in indexes if is_repeated[index]), 0)
