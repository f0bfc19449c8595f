"""When commands are executed: one thread that starts them as they become due, and ends their holds."""

from __future__ import annotations

import logging
import threading

from tieline.api import FencedError, RetriableError, TopicPartition
from tieline_connectors.command.execution.conditions import Surroundings
from tieline_connectors.command.execution.counters import Measures
from tieline_connectors.command.execution.execution import IDLE, Execution, Gone, Pace
from tieline_connectors.command.execution.partition import OwnedPartition
from tieline_connectors.command.execution.platform import Platform
from tieline_connectors.command.model.ledger import Entry

log = logging.getLogger(__name__)

_AT_ONCE = 100
"""The most entries of a partition that are looked at in one step."""
_FORGET_EVERY, _REMIND_EVERY, _OVERDUE = 60_000_000, 600_000_000, 60_000_000
"""Microseconds."""


class Executor:
    """Runs the commands of all partitions of a task, one at a time. ``lock`` guards their ledgers."""

    def __init__(
        self,
        platform: Platform,
        surroundings: Surroundings,
        pace: Pace,
        measures: Measures,
    ) -> None:
        self.lock = threading.Condition()
        self.failure: Exception | None = None
        self._platform = platform
        self._surroundings = surroundings
        self._pace = pace
        self._measures = measures
        self._execution = Execution(platform, surroundings, pace, measures, self.lock)
        self._owned: dict[TopicPartition, OwnedPartition] = {}
        self._busy: TopicPartition | None = None
        self._failing: frozenset[str] = frozenset()
        self._forget_at = self._remind_at = 0
        self._give_back_until: int | None = None
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def own(self, owned: OwnedPartition) -> None:
        """Run the commands of this partition from now on."""
        for entry in owned.ledger:
            self._platform.remember(entry.agent)
        with self.lock:
            self._owned[owned.at] = owned
            self._remind_at = 0
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

    def interrupt(self, give_back: float = 0.0) -> None:
        """Begin nothing any more; ``give_back``: but for so many seconds end the holds. From any thread."""
        with self.lock:
            if give_back and self._give_back_until is None:
                self._give_back_until = self._surroundings.now().monotonic + int(give_back * 1_000_000)
            else:
                self._execution.stopping = True
            self.lock.notify_all()

    def wait_for_the_holds(self, timeout: float) -> None:
        """Until all that could be given back at the end is."""
        with self.lock:
            self.lock.wait_for(lambda: self._execution.stopping or not self._thread.is_alive(), timeout)

    def join(self, timeout: float) -> None:
        """Until it has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def step(self) -> float:
        """Do the next thing that is due; the seconds until something may be due, 0 for now."""
        if self._give_back_until is not None:
            return self._give_all_back(self._give_back_until)
        with self.lock:
            due = self._due()
            wait = self._sleep()
        for owned, entry in due:  # one that has to wait holds up no other
            wait = min(wait, self._try(owned, entry))
            if not wait:
                break
        return wait

    def _give_all_back(self, until: int) -> float:
        """Each hold is tried once, by the rules for one that is due; what is left is in the ledger."""
        with self.lock:
            held = [(owned, entry) for owned in self._owned.values() for entry in owned.ledger.held()]
        for number, (owned, entry) in enumerate(held):
            if self._surroundings.now().monotonic >= until:
                log.warning("no time is left to give back %d holds; the next start does", len(held) - number)
                break
            self._try(owned, entry, early=True)
        with self.lock:
            self._execution.stopping = True
            self.lock.notify_all()
        return 0.0

    def _try(self, owned: OwnedPartition, entry: Entry, early: bool = False) -> float:
        with self.lock:
            if self._execution.stopping or owned.released:
                return 0.0
            self._busy = owned.at
        try:
            return self._execution.do(owned, entry, early)
        except Gone:
            return 0.0
        except FencedError as error:
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
            while not self._execution.stopping:
                wait = self.step()
                with self.lock:
                    if wait > 0 and not self._execution.stopping:
                        self.lock.wait(wait)
        except Exception as error:
            log.exception("the commands stop here")
            self.failure = error
        finally:
            self._platform.close()

    def _due(self) -> list[tuple[OwnedPartition, Entry]]:
        """What was begun by somebody who died, then what is due, the oldest first."""
        now = self._surroundings.now()
        owned = list(self._owned.values())
        for one in owned:
            try:
                one.keep_time(now)
            except (RetriableError, FencedError) as error:
                log.info("the time that is believed is written down later: %s", error)
        begun = [(one, entry) for one in owned for entry in one.ledger.unfinished()]
        due = [(one, entry) for one in owned for entry in one.ledger.due(now.wall)[:_AT_ONCE]]
        return begun + sorted(due, key=lambda found: found[1].received_at)

    def _sleep(self) -> float:
        now = self._surroundings.now()
        if now.monotonic >= self._forget_at and not now.doubt:
            self._forget_at = now.monotonic + _FORGET_EVERY
            self._forget(now.wall)
        if now.monotonic >= self._remind_at:
            self._remind_at = now.monotonic + _REMIND_EVERY
            self._remind(now.wall)
        for owned in self._owned.values():
            owned.keep_head()
        self._surroundings.situation()  # what its files say is followed also while no command comes
        self._watch_devices()
        waits = [at - now.wall for o in self._owned.values() if (at := o.ledger.next_due()) is not None]
        later = [wait for wait in waits if wait > 0]  # what is due already says by itself when to look again
        return min(IDLE, min(later, default=IDLE * 1_000_000) / 1_000_000)

    def _remind(self, now: int) -> None:
        """Repeat the alarm of holds that are unpaid, for whatever reason."""
        unpaid = [
            entry
            for owned in self._owned.values()
            for entry in owned.ledger.held()
            if entry.hold_tries or (entry.hold_until or now) + _OVERDUE < now
        ]
        if unpaid:
            point = unpaid[0].command.writes[0].point
            told = "holds that have ended and are not given back yet: %d, such as %s of command %s"
            log.error(told, len(unpaid), point, unpaid[0].command_id)

    def _forget(self, now: int) -> None:
        for owned in self._owned.values():
            try:
                owned.forget(now, self._pace.retention)
            except (RetriableError, FencedError) as error:
                log.info("old commands are forgotten later: %s", error)

    def _watch_devices(self) -> None:
        """Tell which devices are left alone because their commands fail."""
        found = [(device, streak) for o in self._owned.values() for device, streak in o.ledger.streaks]
        if not found and not self._failing:
            return
        breaker = self._surroundings.situation().policy.limits.breaker
        failing = frozenset(d for d, streak in found if breaker and streak.failures >= breaker.failures)
        for device in failing - self._failing:
            log.error("%s: its commands fail, and more are refused for a while (limits.breaker)", device)
        for device in self._failing - failing:
            log.info("%s: its commands are not refused any more", device)
        self._measures.circuits(len(failing - self._failing), len(self._failing - failing))
        self._failing = failing
