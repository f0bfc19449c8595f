"""Doing what the rules decide about one command, and about the end of one hold.

The order of these steps is the promise: STARTED is on record and durable, then the last look, then the
write. A worker that dies anywhere leaves an entry from which the next owner knows what may have been done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from tieline.api import RetriableError
from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import Surroundings
from tieline_connectors.command.execution.counters import Measures
from tieline_connectors.command.execution.partition import OwnedPartition, Unit
from tieline_connectors.command.execution.platform import Away, DeviceRefused, Platform, Uncertain
from tieline_connectors.command.execution.platform_state import Senses, Told
from tieline_connectors.command.execution.reservation import Reservation, Taken
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.ledger import Entry, Retention
from tieline_connectors.command.rules import holds, rules
from tieline_connectors.command.rules.decisions import End, NotYet, Owed, Readings, Revert, Start, Wait

log = logging.getLogger(__name__)

IDLE = 1.0
"""The longest sleep: a clock may be set, a kill switch be taken away."""
_AWAY = 0.5
"""Seconds until the platform, the broker or the audit log is tried again."""
_LONG = 3600.0


class Pace(NamedTuple):
    """Seconds before reading back, and how long what is known is kept."""

    verify_delay: float
    retention: Retention


class Gone(Exception):
    """The partition is not ours any more, or the task ends: leave everything as it is."""


class Execution:
    """Used by the executor's thread, one entry at a time. ``lock`` guards the ledgers.

    ``stopping``: set under the lock; nothing is begun from then on.
    """

    def __init__(
        self,
        platform: Platform,
        surroundings: Surroundings,
        pace: Pace,
        measures: Measures,
        lock: threading.Condition,
    ) -> None:
        self.stopping = False
        self._lock = lock
        self._platform = platform
        self._surroundings = surroundings
        self._pace = pace
        self._measures = measures
        self._told = Told()
        self._senses = Senses(platform, surroundings, self._told)
        self._reservations: dict[str, Reservation] = {}

    def do(self, owned: OwnedPartition, entry: Entry, early: bool = False) -> float:
        """What the rules say of an entry that is due, now; the seconds until it may be asked about again.

        ``early``: give back what it holds before its time. Raises ``Fenced``, `Gone`.
        """
        if entry.state == "STARTED":
            return self._after_crash(owned, entry)
        if entry.hold == "REVERTING":
            return self._hold_after_crash(owned, entry)
        if entry.hold == "HELD":
            return self._end_hold(owned, entry, early)
        return self._execute(owned, entry)

    def _execute(self, owned: OwnedPartition, entry: Entry) -> float:
        deadline = owned.deadlines.get(entry.command_id) or rules.deadline_of(entry, self._surroundings.now())
        late = rules.last_look(entry, deadline, {}, self._surroundings.situation())
        if late is not None:
            return self._end(owned, late)
        reservation = self._reservations.get(entry.command_id)
        if reservation is not None and reservation.wait > 0:
            return min(IDLE, reservation.wait)
        before = self._senses.look_before(entry)
        if before is None:
            return _AWAY
        with self._lock:
            decision = rules.to_start(entry, deadline, before, owned.ledger, self._surroundings.situation())
        if isinstance(decision, (Wait, NotYet)):
            return self._later(decision)
        if isinstance(decision, End):
            return self._end(owned, decision)
        reserved = self._reserve(entry, before, deadline)
        if isinstance(reserved, End):
            return self._end(owned, reserved)
        if reserved is None or reserved.wait > 0:
            return _AWAY
        self._store(owned, decision.entry._replace(agent=self._platform.agent), decision.result)
        return self._write(owned, decision, before, deadline)

    def _reserve(self, entry: Entry, before: Readings, deadline: int) -> Reservation | End | None:
        """Reserve what the command writes, before it is begun. None: nobody is there who could.

        A task that was preempted keeps its device for a grace time: that is waited for, within the expiry.
        """
        command, now = entry.command, self._surroundings.now()
        points = [w.point for w in command.writes]
        reservation = self._reservations.get(entry.command_id)
        try:
            if reservation is None:
                reservation = writer.reserve(self._platform, command, points)
                self._reservations[entry.command_id] = reservation
            else:
                reservation.cover(writer.devices_of(command, points), len(points))
        except (Away, Uncertain) as error:
            self._told.say("platform", f"commands wait: {error}")
            return None
        except Taken as error:
            if error.ours:
                self._told.say("platform", f"commands wait: {error}")
                return None
            return rules.taken(entry, error.device, str(error), now.wall, before)
        except DeviceRefused as error:
            return rules.taken(entry, "", str(error), now.wall, before)
        if now.monotonic + reservation.wait * 1_000_000 >= deadline:
            told = (
                f"{reservation.keeper} keeps the device for {reservation.wait:.0f} s yet, its grace time,"
                " and the command expires before"
            )
            return rules.taken(entry, "", told, now.wall, before)
        return reservation

    def _write(self, owned: OwnedPartition, start: Start, before: Readings, deadline: int) -> float:
        """The only place that writes what a command asks for: after STARTED, after the last look.

        ``deadline``: the command's own; that of the `Start` is also its claim's.
        """
        entry = start.entry._replace(agent=self._platform.agent)
        late = rules.last_look(entry, start.deadline, before, self._surroundings.situation())
        if late is not None:
            return self._end(owned, late)

        def may_write() -> bool:
            return rules.last_look(entry, start.deadline, before, self._surroundings.situation()) is None

        self._measures.executed(self._surroundings.now().wall - entry.command.issued_at)
        permit = self._permit(may_write, start.deadline)
        reservation = self._reservations[entry.command_id]
        calls = writer.write(self._platform, entry.command, before, permit, reservation)
        late = rules.last_look(entry, start.deadline, before, self._surroundings.situation())
        if late is not None and all(call.answer == "NOT_SENT" for call in calls.values()):
            return self._end(owned, late)
        back = rules.to_give_back(entry, calls)
        always = permit._replace(holds=lambda: True, left=lambda: _LONG)
        given_back = writer.give_back(self._platform, entry.command, back, always, reservation)
        if self._pace.verify_delay:
            self._pause(self._pace.verify_delay)
        after = writer.look(self._platform, [w.point for w in entry.command.writes])
        now = self._surroundings.now()
        lateness = rules.lateness(calls, now.monotonic, deadline)
        return self._end(owned, rules.outcome(entry, calls, before, after, given_back, now.wall, lateness))

    def _permit(self, holds: Callable[[], bool], deadline: int) -> writer.Permit:
        def now() -> int:
            return self._surroundings.now().monotonic

        return writer.Permit(holds, lambda: (deadline - now()) / 1_000_000, now)

    def _after_crash(self, owned: OwnedPartition, entry: Entry) -> float:
        after = self._senses.look(entry)
        if after is None:
            return _AWAY
        return self._end(owned, rules.after_crash(entry, after, self._surroundings.now().wall))

    def _end_hold(self, owned: OwnedPartition, entry: Entry, early: bool) -> float:
        now = self._senses.look(entry)
        if now is None:
            return _AWAY
        with self._lock:
            decision = holds.hold_due(entry, owned.ledger, self._surroundings.situation(), early)
        return self._give_back(owned, entry, now, decision)

    def _hold_after_crash(self, owned: OwnedPartition, entry: Entry) -> float:
        after = self._senses.look(entry)
        if after is None:
            return _AWAY
        with self._lock:
            decision = holds.hold_after_crash(entry, after, owned.ledger, self._surroundings.situation())
        return self._give_back(owned, entry, after, decision)

    def _give_back(
        self,
        owned: OwnedPartition,
        entry: Entry,
        read: Readings,
        decision: Wait | NotYet | End | Owed | Revert,
    ) -> float:
        if isinstance(decision, (Wait, NotYet)):
            return self._later(decision)
        if isinstance(decision, End):
            return self._end(owned, decision)
        if isinstance(decision, Owed):
            return self._owe(owned, decision)
        reserved = self._reserve_for(entry, decision)
        if reserved is None:
            return _AWAY
        if isinstance(reserved, holds.Refusal):
            now = self._surroundings.now().wall
            with self._lock:
                owed = holds.hold_refused(entry, decision, reserved, read, owned.ledger, now)
            return self._owe(owned, owed)
        try:
            return self._revert(owned, decision, reserved)
        finally:
            reserved.release()

    def _reserve_for(self, entry: Entry, revert: Revert) -> Reservation | holds.Refusal | None:
        """Reserve what is to be given back. None: nobody is there who could."""
        try:
            reservation = writer.reserve(self._platform, entry.command, revert.points)
        except (Away, Uncertain) as error:
            self._told.say("platform", f"holds wait: {error}")
            return None
        except DeviceRefused as error:
            if isinstance(error, Taken) and error.ours:
                self._told.say("platform", f"holds wait: {error}")
                return None
            ends = error.until if isinstance(error, Taken) else None
            return holds.Refusal(str(error), None if ends is None else int(ends.timestamp() * 1_000_000))
        if reservation.wait <= 0:
            return reservation
        until = self._surroundings.now().wall + int(reservation.wait * 1_000_000)
        reservation.release()
        return holds.Refusal(f"{reservation.keeper} keeps the device for its grace time", until)

    def _revert(self, owned: OwnedPartition, revert: Revert, reservation: Reservation) -> float:
        """The only place that gives back what a hold kept: REVERTING is durable, then the last look."""
        self._store(owned, revert.entry, None)
        if not holds.may_give_back(revert, self._surroundings.situation()):
            return _AWAY

        def may_give_back() -> bool:
            return holds.may_give_back(revert, self._surroundings.situation())

        permit = self._permit(may_give_back, revert.deadline)
        calls = writer.give_back(self._platform, revert.entry.command, revert.points, permit, reservation)
        after = writer.look(self._platform, [w.point for w in revert.entry.command.writes])
        reservation.release()
        with self._lock:
            outcome = holds.hold_outcome(
                revert.entry, calls, after, owned.ledger, self._surroundings.now().wall
            )
        if isinstance(outcome, NotYet):
            return self._later(outcome)
        return self._owe(owned, outcome) if isinstance(outcome, Owed) else self._end(owned, outcome)

    def _owe(self, owned: OwnedPartition, owed: Owed) -> float:
        """Keep the debt; the alarm is told once, and an operator is reminded of it by the executor."""
        self._store(owned, owed.entry, owed.result)
        if owed.result is not None:
            self._measures.ended(owed.result.state)
            self._measures.owed()
            log.error("command %s: %s: %s", owed.entry.command_id, owed.result.state, owed.told)
        return 0.0

    def _end(self, owned: OwnedPartition, end: End) -> float:
        reservation = self._reservations.pop(end.entry.command_id, None)
        if reservation is not None:  # whoever hears of the end finds the device free
            reservation.release()
        self._store(owned, end.entry, end.result)
        self._measures.ended(end.result.state)
        if end.entry.hold_tries and end.entry.at_rest:
            self._measures.paid()
        if end.result.state == "UNKNOWN":
            log.error("command %s: %s: %s", end.result.command_id, end.result.state, end.result.reason)
        return 0.0

    def _store(self, owned: OwnedPartition, entry: Entry, result: Result | None) -> None:
        """Returns when it is audited and durable; tries for as long as the partition is ours."""
        unit = Unit([entry], [] if result is None else [result])
        while True:
            with self._lock:
                try:
                    owned.store(unit)
                    return
                except RetriableError as error:
                    self._told.say("ledger", f"the ledger cannot be written, commands wait: {error}")
                except OSError as error:
                    self._told.say("audit", f"the audit log cannot be written, commands wait: {error}")
                self._lock.wait(_AWAY)
                if self.stopping or owned.released:
                    raise Gone

    def _later(self, decision: Wait | NotYet) -> float:
        if isinstance(decision, Wait):
            self._told.say(decision.code, f"commands wait: {decision.sentence}")
        return IDLE

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self.stopping, seconds)
