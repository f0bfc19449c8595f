"""Doing what the rules decide about one command, and about the end of one hold.

The order of these steps is the promise: STARTED is on record and durable, then the last look, then the
write. A worker that dies anywhere leaves an entry from which the next owner knows what may have been done.
"""

from __future__ import annotations

import logging
import threading
from typing import NamedTuple

from tieline.api import Retriable
from tieline_connectors.command import hands, rules
from tieline_connectors.command.command import Result
from tieline_connectors.command.decisions import Call, End, NotYet, Readings, Revert, Start, Wait
from tieline_connectors.command.ledger import Entry, Retention
from tieline_connectors.command.measures import Measures
from tieline_connectors.command.owned import OwnedPartition, Unit
from tieline_connectors.command.platform import Away, Platform
from tieline_connectors.command.surroundings import Surroundings

log = logging.getLogger(__name__)

IDLE = 1.0
"""The longest sleep: a clock may be set, a kill switch be taken away."""
_AWAY = 0.5
"""Seconds until the platform, the broker or the audit log is tried again."""


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
        self._told: dict[str, str] = {}
        self._away_until = 0

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
        before = self._look(entry)
        if before is None:
            return _AWAY
        with self._lock:
            decision = rules.to_start(entry, deadline, before, owned.ledger, self._surroundings.situation())
        if isinstance(decision, (Wait, NotYet)):
            return self._later(decision)
        if isinstance(decision, End):
            return self._end(owned, decision)
        self._store(owned, decision.entry, decision.result)
        return self._write(owned, decision, before)

    def _write(self, owned: OwnedPartition, start: Start, before: Readings) -> float:
        """The only place that writes what a command asks for: after STARTED, after the last look."""
        entry = start.entry
        late = rules.last_look(entry, start.deadline, before, self._surroundings.situation())
        if late is not None:
            return self._end(owned, late)

        def may_write() -> bool:
            return rules.last_look(entry, start.deadline, before, self._surroundings.situation()) is None

        self._measures.executed(self._surroundings.now().wall - entry.command.issued_at)
        calls = hands.write(self._platform, entry.command, before, may_write)
        late = rules.last_look(entry, start.deadline, before, self._surroundings.situation())
        if late is not None and all(call.answer == "NOT_SENT" for call in calls.values()):
            return self._end(owned, late)
        given_back = hands.give_back(self._platform, entry.command, rules.to_give_back(entry, calls))
        if self._pace.verify_delay:
            self._pause(self._pace.verify_delay)
        after = hands.look(self._platform, [w.point for w in entry.command.writes])
        now = self._surroundings.now().wall
        return self._end(owned, rules.outcome(entry, calls, before, after, given_back, now))

    def _after_crash(self, owned: OwnedPartition, entry: Entry) -> float:
        after = self._look(entry)
        if after is None:
            return _AWAY
        return self._end(owned, rules.after_crash(entry, after, self._surroundings.now().wall))

    def _end_hold(self, owned: OwnedPartition, entry: Entry, early: bool) -> float:
        if self._look(entry) is None:
            return _AWAY
        with self._lock:
            decision = rules.hold_due(entry, owned.ledger, self._surroundings.situation(), early)
        return self._give_back(owned, decision)

    def _hold_after_crash(self, owned: OwnedPartition, entry: Entry) -> float:
        after = self._look(entry)
        if after is None:
            return _AWAY
        with self._lock:
            decision = rules.hold_after_crash(entry, after, owned.ledger, self._surroundings.situation())
        return self._give_back(owned, decision)

    def _give_back(self, owned: OwnedPartition, decision: Wait | NotYet | End | Revert) -> float:
        if isinstance(decision, (Wait, NotYet)):
            return self._later(decision)
        if isinstance(decision, End):
            return self._end(owned, decision)
        self._store(owned, decision.entry, None)
        if not rules.may_give_back(decision, self._surroundings.situation()):
            return _AWAY

        def may_give_back() -> bool:
            return rules.may_give_back(decision, self._surroundings.situation())

        calls: dict[str, Call] = hands.give_back(
            self._platform, decision.entry.command, decision.points, may_give_back
        )
        after = hands.look(self._platform, [w.point for w in decision.entry.command.writes])
        with self._lock:
            outcome = rules.hold_outcome(
                decision.entry, calls, after, owned.ledger, self._surroundings.now().wall
            )
        return self._later(outcome) if isinstance(outcome, NotYet) else self._end(owned, outcome)

    def _end(self, owned: OwnedPartition, end: End) -> float:
        self._store(owned, end.entry, end.result)
        self._measures.ended(end.result.state)
        if end.result.state in ("UNKNOWN", "HOLD_FAILED"):
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
                except Retriable as error:
                    self._tell("ledger", f"the ledger cannot be written, commands wait: {error}")
                except OSError as error:
                    self._tell("audit", f"the audit log cannot be written, commands wait: {error}")
                self._lock.wait(_AWAY)
                if self.stopping or owned.released:
                    raise Gone

    def _look(self, entry: Entry) -> Readings | None:
        """What its points read. None, and nothing of it is begun: nobody is there who could say.

        A driver that starts answers a moment before it knows its devices. So right after a connection is
        made, a point that cannot be read is one that is not known yet.
        """
        if not self._platform_is_there():
            return None
        found = hands.look(self._platform, [w.point for w in entry.command.writes])
        if not self._platform_is_there():  # it went away meanwhile
            return None
        return None if self._platform.is_new and None in found.values() else found

    def _platform_is_there(self) -> bool:
        now = self._surroundings.now().monotonic
        if now < self._away_until:
            return False
        try:
            self._platform.connect()
        except Away as error:
            self._tell("platform", f"commands wait: {error}")
            self._away_until = self._surroundings.now().monotonic + int(_AWAY * 1_000_000)
            return False
        self._told.pop("platform", None)
        return True

    def _later(self, decision: Wait | NotYet) -> float:
        if isinstance(decision, Wait):
            self._tell(decision.code, f"commands wait: {decision.sentence}")
        return IDLE

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self.stopping, seconds)

    def _tell(self, what: str, sentence: str) -> None:
        """Once, until it is another sentence."""
        if self._told.get(what) != sentence:
            self._told[what] = sentence
            log.warning(sentence)
