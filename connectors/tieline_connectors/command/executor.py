"""Doing what the rules decide: one thread that starts commands when they are due and ends their holds.

The order of its steps is the promise: STARTED is durable, then the last look, then the write. A worker
that dies anywhere leaves an entry from which the next owner knows what may have been done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from tieline.api import Fenced, Retriable, TopicPartition
from tieline_connectors.command import hands, rules
from tieline_connectors.command.command import Result
from tieline_connectors.command.decisions import Call, End, NotYet, Readings, Revert, Start, Wait
from tieline_connectors.command.ledger import Entry
from tieline_connectors.command.owned import OwnedPartition, Unit
from tieline_connectors.command.platform import Away, Platform
from tieline_connectors.command.surroundings import Surroundings

log = logging.getLogger(__name__)

_AWAY = 0.5
"""Seconds until the platform, the broker or the audit log is tried again."""
_AT_ONCE = 100
"""The most entries of a partition that are looked at in one step."""
_FORGET_EVERY = 60_000_000
"""Microseconds."""
_IDLE = 1.0
"""The longest sleep: a clock may be set, a kill switch be taken away."""


class Pace(NamedTuple):
    """Seconds before reading back; microseconds that an entry is kept."""

    verify_delay: float
    retention: int


class Gone(Exception):
    """The partition is not ours any more, or the task ends: leave everything as it is."""


class Executor:
    """Runs the commands of all partitions of a task, one at a time. ``lock`` guards their ledgers.

    ``count(name)`` is told of each end: ``ended.<state>``.
    """

    def __init__(
        self,
        platform: Platform,
        surroundings: Surroundings,
        pace: Pace,
        count: Callable[[str], None],
    ) -> None:
        self.lock = threading.Condition()
        self.failure: Exception | None = None
        self._platform = platform
        self._surroundings = surroundings
        self._pace = pace
        self._count = count
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._busy: TopicPartition | None = None
        self._stopping = False
        self._told: dict[str, str] = {}
        self._forget_at = self._away_until = 0
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def own(self, owned: OwnedPartition) -> None:
        """Run the commands of this partition from now on."""
        with self.lock:
            self._owned[owned.at] = owned
            self.lock.notify_all()

    def owned(self, at: TopicPartition) -> OwnedPartition | None:
        """The partition, if it is ours; ask under the lock."""
        return self._owned.get(at)

    def release(self, at: TopicPartition, timeout: float) -> None:
        """Begin nothing of this partition any more, and wait for what is being done."""
        with self.lock:
            owned = self._owned.pop(at, None)
            if owned is not None:
                owned.released = True
            self.lock.notify_all()
            if not self.lock.wait_for(lambda: self._busy != at, timeout):
                log.warning("%s-%d is let go while a command of it is being written", *at)

    def ask_to_stop(self) -> None:
        """Begin nothing any more. From any thread."""
        with self.lock:
            self._stopping = True
            self.lock.notify_all()

    def join(self, timeout: float) -> None:
        """Until it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def step(self) -> float:
        """Do the next thing that is due; the seconds until something may be due, 0 for now."""
        with self.lock:
            due = self._due()
            wait = self._sleep()
        for owned, entry in due:  # one that has to wait holds up no other
            wait = min(wait, self._try(owned, entry))
            if not wait:
                break
        return wait

    def _try(self, owned: OwnedPartition, entry: Entry) -> float:
        with self.lock:
            if self._stopping or owned.released:
                return 0.0
            self._busy = owned.at
        try:
            return self._do(owned, entry)
        except Gone:
            return 0.0
        except Fenced as error:
            log.warning("%s-%d belongs to somebody else: %s", *owned.at, error)
            with self.lock:
                owned.released = True
                self._owned.pop(owned.at, None)
            return 0.0
        finally:
            with self.lock:
                self._busy = None
                self.lock.notify_all()

    def _run(self) -> None:
        try:
            while not self._stopping:
                wait = self.step()
                with self.lock:
                    if wait > 0 and not self._stopping:
                        self.lock.wait(wait)
        except Exception as error:
            log.exception("the commands stop here")
            self.failure = error
        finally:
            self._platform.close()

    def _due(self) -> list[tuple[OwnedPartition, Entry]]:
        """What was begun by somebody who died, then what is due, the oldest first."""
        now = self._surroundings.now().wall
        owned = list(self._owned.values())
        begun = [(one, entry) for one in owned for entry in one.ledger.unfinished()]
        due = [(one, entry) for one in owned for entry in one.ledger.due(now)[:_AT_ONCE]]
        return begun + sorted(due, key=lambda found: found[1].received_at)

    def _sleep(self) -> float:
        now = self._surroundings.now()
        if now.monotonic >= self._forget_at:
            self._forget_at = now.monotonic + _FORGET_EVERY
            self._forget(now.wall)
        for owned in self._owned.values():
            owned.keep_head()
        waits = [at - now.wall for o in self._owned.values() if (at := o.ledger.next_due()) is not None]
        later = [wait for wait in waits if wait > 0]  # what is due already says by itself when to look again
        return min(_IDLE, min(later, default=_IDLE * 1_000_000) / 1_000_000)

    def _forget(self, now: int) -> None:
        for owned in self._owned.values():
            try:
                owned.forget(now, self._pace.retention)
            except (Retriable, Fenced) as error:
                log.info("old commands are forgotten later: %s", error)

    def _do(self, owned: OwnedPartition, entry: Entry) -> float:
        if entry.state == "STARTED":
            return self._after_crash(owned, entry)
        if entry.hold == "REVERTING":
            return self._hold_after_crash(owned, entry)
        if entry.hold == "HELD":
            return self._end_hold(owned, entry)
        return self._execute(owned, entry)

    def _execute(self, owned: OwnedPartition, entry: Entry) -> float:
        deadline = owned.deadlines.get(entry.command_id) or rules.deadline_of(entry, self._surroundings.now())
        late = rules.last_look(entry, deadline, {}, self._surroundings.situation())
        if late is not None:
            return self._end(owned, late)
        if not self._platform_is_there():
            return _AWAY
        before = hands.look(self._platform, [w.point for w in entry.command.writes])
        if not self._platform_is_there():  # it went away meanwhile: what is not started yet can wait for it
            return _AWAY
        with self.lock:
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
        if not self._platform_is_there():
            return _AWAY
        after = hands.look(self._platform, [w.point for w in entry.command.writes])
        return self._end(owned, rules.after_crash(entry, after, self._surroundings.now().wall))

    def _end_hold(self, owned: OwnedPartition, entry: Entry) -> float:
        if not self._platform_is_there():
            return _AWAY
        with self.lock:
            decision = rules.hold_due(entry, owned.ledger, self._surroundings.situation())
        return self._give_back(owned, decision)

    def _hold_after_crash(self, owned: OwnedPartition, entry: Entry) -> float:
        if not self._platform_is_there():
            return _AWAY
        after = hands.look(self._platform, [w.point for w in entry.command.writes])
        with self.lock:
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
        with self.lock:
            outcome = rules.hold_outcome(
                decision.entry, calls, after, owned.ledger, self._surroundings.now().wall
            )
        return self._later(outcome) if isinstance(outcome, NotYet) else self._end(owned, outcome)

    def _end(self, owned: OwnedPartition, end: End) -> float:
        self._store(owned, end.entry, end.result)
        self._count(f"ended.{end.result.state}")
        if end.result.state in ("UNKNOWN", "HOLD_FAILED"):
            log.error("command %s: %s: %s", end.result.command_id, end.result.state, end.result.reason)
        return 0.0

    def _store(self, owned: OwnedPartition, entry: Entry, result: Result | None) -> None:
        """Returns when it is audited and durable; tries for as long as the partition is ours."""
        unit = Unit([entry], [] if result is None else [result])
        while True:
            with self.lock:
                try:
                    owned.store(unit)
                    return
                except Retriable as error:
                    self._tell("ledger", f"the ledger cannot be written, commands wait: {error}")
                except OSError as error:
                    self._tell("audit", f"the audit log cannot be written, commands wait: {error}")
                self.lock.wait(_AWAY)
                if self._stopping or owned.released:
                    raise Gone

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
        return _IDLE

    def _pause(self, seconds: float) -> None:
        with self.lock:
            self.lock.wait_for(lambda: self._stopping, seconds)

    def _tell(self, what: str, sentence: str) -> None:
        """Once, until it is another sentence."""
        if self._told.get(what) != sentence:
            self._told[what] = sentence
            log.warning(sentence)
