"""What the sink knows of each command, and which steps are legal; pure.

    RECEIVED ──► STARTED ──► ENDED          a refusal goes to ENDED at once
    (nothing     (it may     (the result
     written)     have been)  holds)

    hold:  NONE ──► HELD ◄─► REVERTING ──► ENDED
                      └──────────┴───────► SKIPPED  (a later command wrote every point)

A hold that could not be given back is HELD again, with a time to try again; FAILED is what earlier versions
gave up.

Each step is durable **before** what it announces is done: STARTED before the write, REVERTING before the
revert. So an entry in STARTED or REVERTING after a crash means "perhaps", and `rules` asks the device.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from tieline_connectors.command.model.clock import CLOCK_STEP, Now, Seen
from tieline_connectors.command.model.command import Command, Result, Value
from tieline_connectors.command.model.partition_note import Note, with_times
from tieline_connectors.command.model.point import key_of
from tieline_connectors.command.model.streaks import Streak, Streaks

EntryState: TypeAlias = Literal["RECEIVED", "STARTED", "ENDED"]
Hold: TypeAlias = Literal["NONE", "HELD", "REVERTING", "ENDED", "SKIPPED", "FAILED"]

_STEPS: Mapping[str | None, frozenset[str]] = {
    None: frozenset({"RECEIVED", "STARTED", "ENDED"}),
    "RECEIVED": frozenset({"STARTED", "ENDED"}),
    "STARTED": frozenset({"ENDED"}),
    "ENDED": frozenset(),
}
_HOLD_STEPS: Mapping[str, frozenset[str]] = {
    "NONE": frozenset(),  # a hold comes with ENDED, or never
    "HELD": frozenset({"HELD", "REVERTING", "SKIPPED"}),
    "REVERTING": frozenset({"HELD", "ENDED", "SKIPPED"}),
    "ENDED": frozenset(),
    "SKIPPED": frozenset(),
    "FAILED": frozenset(),
}
_DAY = 86_400_000_000

STRANGERS = frozenset({"NOT_ALLOWED", "POLICY_DENIED"})
"""Refusals of whoever may do nothing, which a rule decides before it asks for a signature."""


class IllegalStep(ValueError):
    """A step that the ledger does not allow: a problem in the program, never in a command."""


class Entry(NamedTuple):
    """What is known of one command; the fields of ``command.LedgerEntry``, with its texts read.

    ``deadline``: never executed at this moment or later, the earliest of its expiry, its issue time and
    its record's timestamp each with ``max.age``; fixed when it came. ``stored_at``: the write of the ledger
    that brought this step; each is later than all before it. ``boot``, ``clock``: the clock that all of its
    times are by, as ``Now.boot`` and ``Now.offset`` were when it came; `at` is the time by that clock.
    ``agent``: the identity of the agent that the
    write went through. ``hold_tries``: how often its points could not be given back, ``hold_again_at``: when
    that is tried again, ``hold_paid``: those of its points that are settled.
    """

    command: Command
    digest: str
    state: EntryState
    received_at: int
    deadline: int
    started_at: int | None = None
    ended_at: int | None = None
    result: Result | None = None
    hold: Hold = "NONE"
    hold_until: int | None = None
    reverting_at: int | None = None
    stored_at: int = 0
    agent: str = ""
    hold_tries: int = 0
    hold_again_at: int | None = None
    hold_paid: tuple[str, ...] = ()
    boot: str | None = None
    clock: int | None = None

    def at(self, now: Now) -> int:
        """Now, by the clock of its other times, wherever the wall clock was set meanwhile."""
        if self.clock is not None and self.boot == now.boot:
            return now.monotonic + self.clock
        return now.wall

    @property
    def command_id(self) -> str:
        """The key."""
        return self.command.command_id

    @property
    def at_rest(self) -> bool:
        """Nothing is owed any more: it has ended, and so has its hold."""
        return self.state == "ENDED" and self.hold not in ("HELD", "REVERTING")

    @property
    def is_strangers(self) -> bool:
        """It was refused because no rule allows it, or one denies it, and so never begun."""
        return self.started_at is None and self.result is not None and self.result.reason_code in STRANGERS

    @property
    def due_at(self) -> int | None:
        """When it is to be begun, expired or given back; none: nothing waits."""
        if self.state == "RECEIVED":
            return min(self.deadline, self.command.not_before or self.received_at)
        if self.hold != "HELD":
            return None
        return self.hold_until if self.hold_again_at is None else self.hold_again_at

    @property
    def newest(self) -> int:
        """The latest time in it that a worker's clock has said."""
        return max(filter(None, (self.received_at, self.started_at, self.ended_at, self.reverting_at)))

    def to_value(self) -> dict[str, Any]:
        """Data for the schema ``command.LedgerEntry``."""
        return {
            **self._asdict(),
            "hold_paid": list(self.hold_paid),
            "command_id": self.command_id,
            "command": self.command.to_json(),
            "result": None if self.result is None else self.result.to_json(),
        }

    @staticmethod
    def from_value(value: Mapping[str, Any]) -> Entry:
        """From data of that schema. Raises ``ValueError`` on what this version did not write."""
        found = {field: value.get(field) for field in Entry._fields}
        found["stored_at"] = found["stored_at"] or 0
        found["agent"] = found["agent"] or ""
        found["hold_tries"] = found["hold_tries"] or 0
        found["hold_paid"] = tuple(found["hold_paid"] or ())
        if found["state"] not in _STEPS or found["hold"] not in _HOLD_STEPS:
            raise ValueError(f"{value.get('command_id')}: the ledger holds a state that is not known here")
        found["command"] = Command.from_json(value["command"])
        found["result"] = None if value["result"] is None else Result.from_json(value["result"])
        return Entry(**cast("dict[str, Any]", found))


class Retention(NamedTuple):
    """How long entries are kept, in microseconds.

    ``strangers``: those refused because no rule allows them. As long as the same command could still be
    executed if a rule came that does; then it is EXPIRED in any case.
    """

    commands: int
    strangers: int


class Written(NamedTuple):
    """A point was, or may have been, written. ``value`` none: given back."""

    at: int
    command_id: str
    value: Value
    previous: Value = None


class Pending:
    """Entries that are decided and not durable yet: of a batch that is stored as one."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.strangers = 0

    def put(self, entry: Entry) -> None:
        """It is decided."""
        before = self.entries.get(entry.command_id)
        self.strangers += entry.is_strangers - (before is not None and before.is_strangers)
        self.entries[entry.command_id] = entry


class CommandLedger:
    """The entries of one partition of commands, in memory. Used by one thread.

    It compares times of entries that were written by different clocks: those written since the computer was
    started count by the time that is believed now (`keep_time`), the others as they are.
    """

    def __init__(
        self, entries: Iterable[Entry] = (), now: Now | None = None, note: Note | None = None
    ) -> None:
        """``entries``: what the durable ledger holds, the latest of each command."""
        self.note = note or Note()
        self._boot, self._offset = (now.boot, now.offset) if now is not None else ("", 0)
        self._right_at: int | None = None
        self._index(entries)

    def _index(self, entries: Iterable[Entry]) -> None:
        self.newest = self.stored_at = self.strangers = 0
        self.streaks = Streaks()
        self._entries: dict[str, Entry] = {}
        self._seen: dict[str, Seen] = {}
        self._waiting: list[tuple[int, str]] = []
        self._unfinished: dict[str, None] = {}
        self.waiting: Counter[str] = Counter()
        """Issuer → how many of its commands have come and not begun."""
        self._events: dict[str, list[tuple[int, str, bool]]] = {}
        self._starts: dict[tuple[str, str], list[int]] = {}
        for entry in entries:
            self._keep(entry)

    def keep_time(self, now: Now) -> None:
        """Count the times of entries anew where the believed time was set, or something vouches for it."""
        ahead = now.vouched and self.newest > now.wall + CLOCK_STEP
        set_anew = (self._boot, True) != (now.boot, abs(self._offset - now.offset) <= CLOCK_STEP // 4)
        if set_anew or ahead:
            self._boot, self._offset = now.boot, now.offset
            self._right_at = now.wall if now.vouched else None
            self._index(list(self._entries.values()))

    def shift(self, entry: Entry) -> int:
        """What is added to the times of an entry, so that they can be compared with the time now.

        An entry from before the computer was started, or of another one, that is ahead of a time for which
        something vouches was written by a clock that was wrong.
        """
        if entry.clock is not None and entry.boot and entry.boot == self._boot:
            return self._offset - entry.clock
        return 0 if self._right_at is None else min(0, self._right_at - entry.newest)

    def last_seen(self, boot: str) -> Seen | None:
        """The latest believed clock of this start of the computer that the ledger knows."""
        noted = self.note.clock if self.note.boot == boot else None
        known = [seen for seen in (self._seen.get(boot), noted) if seen is not None]
        return max(known, key=lambda seen: seen.at, default=None) if boot else None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, command_id: str) -> Entry | None:
        """The entry of a command, or none."""
        return self._entries.get(command_id)

    def put(self, entry: Entry) -> None:
        """The durable ledger has this entry. Raises `IllegalStep`."""
        before = self._entries.get(entry.command_id)
        if entry != before:
            check_step(before, entry)
            self._keep(entry)

    def due(self, now: int) -> list[Entry]:
        """What has to be begun, expired or reverted by now; the longest due first."""
        until = bisect.bisect_right(self._waiting, (now, "\U0010ffff"))
        return [self._entries[id_] for _, id_ in self._waiting[:until]]

    def next_due(self) -> int | None:
        """When the next of them is due; none: nothing waits."""
        return self._waiting[0][0] if self._waiting else None

    def unfinished(self) -> list[Entry]:
        """Those in STARTED or REVERTING: after a start nobody knows whether it was done."""
        return [self._entries[id_] for id_ in self._unfinished]

    def held(self) -> list[Entry]:
        """Those whose hold has not ended, those first that are being given back."""
        reverting = [entry for entry in self.unfinished() if entry.hold == "REVERTING"]
        waiting = (self._entries[id_] for _, id_ in self._waiting)
        return reverting + [entry for entry in waiting if entry.hold == "HELD"]

    def written(self, point: str, since: int) -> list[Written]:
        """What this ledger knows to be, or perhaps to be, written to a point; newest first.

        Everything since then, and the one before, whose value was in force then.
        """
        found: list[Written] = []
        for at, command_id, is_revert in reversed(self._events.get(key_of(point), [])):
            event = self._written(at, command_id, is_revert, key_of(point))
            if event is not None:
                found.append(event)
                if at < since:
                    break
        return found

    def written_after(self, entry: Entry, point: str) -> bool:
        """Whether a later command wrote the point, or may have. Giving back at a hold's end is no write."""
        key, since = key_of(point), (entry.started_at or 0) + self.shift(entry)
        events = self._events.get(key, [])
        later = events[bisect.bisect_right(events, (since, "\U0010ffff", True)) :]
        return any(not is_revert and self._written(at, id_, False, key) for at, id_, is_revert in later)

    def starts(self, since: int, *, issuer: str = "", device: str = "") -> int:
        """How many commands were started after then: of all, of an issuer, or on a device."""
        key = ("device", key_of(device)) if device else ("issuer", issuer)
        times = self._starts.get(key, [])
        return len(times) - bisect.bisect_right(times, since)

    def streak(self, device: str) -> Streak:
        """How often in a row the commands of a device have failed."""
        return self.streaks.of(device)

    def forgettable(self, now: int, retention: Retention) -> list[str]:
        """Whose entries may be removed: at rest for the retention, which is longer than ``max.age``.

        Not those that wrote after an older command what it still holds: its hold ends without giving back.
        """
        commands, strangers = now - retention.commands, now - retention.strangers
        held: dict[str, int] = {}
        for entry in self.held():
            for write in entry.command.writes:
                since = (entry.started_at or 0) + self.shift(entry)
                held[key_of(write.point)] = min(since, held.get(key_of(write.point), since))
        return [
            entry.command_id
            for entry in self
            if entry.at_rest
            and entry.newest + self.shift(entry) <= (strangers if entry.is_strangers else commands)
            and not (held and self._wrote_after(entry, held))
        ]

    def noted(self, command_ids: Iterable[str]) -> Note:
        """The note to store with the removal of these entries.

        A stranger's command was never begun, and its time of issue must not bar others.
        """
        gone = (self._entries[id_] for id_ in command_ids)
        times = [entry.command.issued_at for entry in gone if not entry.is_strangers]
        return self.note._replace(forgotten=with_times(self.note.forgotten, times))

    def forget(self, command_ids: Iterable[str], now: int) -> None:
        """These entries were removed."""
        gone = {id_ for id_ in command_ids if self._entries[id_].at_rest}
        self.strangers -= sum(self._entries[id_].is_strangers for id_ in gone)
        for id_ in gone:
            del self._entries[id_]
        self.streaks.forget(gone)
        for point, events in list(self._events.items()):
            self._events[point] = [event for event in events if event[1] not in gone]
            if not self._events[point]:
                del self._events[point]
        for key, times in list(self._starts.items()):
            del times[: bisect.bisect_right(times, now - _DAY)]
            if not times:
                del self._starts[key]

    def _keep(self, entry: Entry) -> None:
        before = self._entries.get(entry.command_id)
        self._entries[entry.command_id] = entry
        self.strangers += entry.is_strangers - (before is not None and before.is_strangers)
        shift = self.shift(entry)
        # ``ended_at`` is by the clock that was believed then, perhaps a later one: never beyond that.
        ended_at = None if entry.ended_at is None else entry.ended_at + min(shift, 0)
        newest = entry._replace(ended_at=None).newest + shift
        self.newest = max(self.newest, newest, ended_at or 0)
        self.stored_at = max(self.stored_at, entry.stored_at)
        if entry.clock is not None and entry.boot:
            seen = Seen(entry.clock, entry.received_at - entry.clock)
            known = self._seen.setdefault(entry.boot, seen)
            self._seen[entry.boot] = max(known, seen, key=lambda one: one.at)
        if before is not None and before.due_at is not None:
            due = before.due_at + self.shift(before)
            del self._waiting[bisect.bisect_left(self._waiting, (due, before.command_id))]
        if entry.due_at is not None:
            bisect.insort(self._waiting, (entry.due_at + shift, entry.command_id))
        if before is not None and before.state == "RECEIVED":
            self.waiting[before.command.issuer] -= 1
        if entry.state == "RECEIVED":
            self.waiting[entry.command.issuer] += 1
        self._unfinished.pop(entry.command_id, None)
        if entry.state == "STARTED" or entry.hold == "REVERTING":
            self._unfinished[entry.command_id] = None
        if entry.started_at is not None and (before is None or before.started_at is None):
            at = entry.started_at + shift
            self._note(entry, at, is_revert=False)
            for key in (("issuer", ""), ("issuer", entry.command.issuer)):
                bisect.insort(self._starts.setdefault(key, []), at)
            for device in entry.command.devices:
                bisect.insort(self._starts.setdefault(("device", device), []), at)
        if (
            entry.result is not None
            and entry.started_at is not None
            and (before is None or before.result is None)
        ):
            self.streaks.note(entry.result, ended_at or entry.started_at + shift)
        if entry.reverting_at is not None and (before is None or before.reverting_at is None):
            self._note(entry, entry.reverting_at + shift, is_revert=True)

    def _wrote_after(self, entry: Entry, since: Mapping[str, int]) -> bool:
        """Whether a command may have written one of these points after that moment."""
        if entry.started_at is None:
            return False
        at = entry.started_at + self.shift(entry)
        points = (key_of(write.point) for write in entry.command.writes)
        return any(at >= since[point] for point in points if point in since)

    def _note(self, entry: Entry, at: int, *, is_revert: bool) -> None:
        for write in entry.command.writes:
            events = self._events.setdefault(key_of(write.point), [])
            bisect.insort(events, (at, entry.command_id, is_revert))

    def _written(self, at: int, command_id: str, is_revert: bool, point: str) -> Written | None:
        entry = self._entries[command_id]
        if entry.result is None:
            value = next(w.value for w in entry.command.writes if key_of(w.point) == point)
            return Written(at, command_id, value)
        for write in entry.result.writes:
            if key_of(write.point) == point and write.maybe_written:
                value = None if is_revert else write.requested
                return Written(at, command_id, value, write.previous)
        return None


def check_step(before: Entry | None, after: Entry) -> None:
    """Raises `IllegalStep` unless the second may follow the first."""
    if before is None or (before.is_strangers and before.digest != after.digest):  # its id is free
        legal = after.state in _STEPS[None] and after.hold in ("NONE", "HELD")
    elif before.digest != after.digest or before.deadline != after.deadline:
        legal = False
    elif before.state != after.state:
        legal = after.state in _STEPS[before.state] and after.hold in ("NONE", "HELD")
    else:
        same_result = before.result == after.result and before.started_at == after.started_at
        legal = after.state == "ENDED" and same_result and after.hold in _HOLD_STEPS[before.hold]
    if not legal or (after.state == "ENDED") != (after.result is not None):
        shown = "nothing" if before is None else f"{before.state}/{before.hold}"
        raise IllegalStep(f"{after.command_id}: {shown} → {after.state}/{after.hold}")
