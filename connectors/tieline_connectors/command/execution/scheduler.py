"""Decide when commands are executed: one thread starts them when they are due, and ends their holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from tieline.api import FencedError, RetriableError, TopicPartition
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.counters import CommandCounters
from tieline_connectors.command.execution.entry_recorder import IDLE, EntryRecorder, PartitionReleasedError
from tieline_connectors.command.execution.executor import Executor, Timing
from tieline_connectors.command.execution.partition import CommandPartition
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.model.clock import Now
from tieline_connectors.command.model.entry import LedgerEntry

log = logging.getLogger(__name__)

_MAX_DUE = 100
"""The most entries of a partition that are processed in one step."""
_REMOVE_EVERY, _REMIND_EVERY, _OVERDUE_AFTER = 60_000_000, 600_000_000, 60_000_000
"""Microseconds."""


class Scheduler:
    """Executes the commands of all partitions of a task, one at a time. ``lock`` guards their ledgers.

    ``failure``: the unexpected error that ended the thread, ``None`` while it runs.
    """

    def __init__(
        self, platform: Platform, monitor: ConditionMonitor, timing: Timing, counters: CommandCounters
    ) -> None:
        self.lock = threading.Condition()
        self.failure: Exception | None = None
        self._platform = platform
        self._monitor = monitor
        self._timing = timing
        self._counters = counters
        self._recorder = EntryRecorder(counters, self.lock)
        self._executor = Executor(platform, monitor, timing, counters, self._recorder)
        self._partitions: dict[TopicPartition, CommandPartition] = {}
        self._busy: TopicPartition | None = None
        self._failing_devices: frozenset[str] = frozenset()
        self._remove_at = self._remind_at = 0
        self._revert_holds_until: int | None = None
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, partitions: Collection[CommandPartition]) -> None:
        """Execute the commands of these partitions from now on; first store the clock that is believed."""
        for partition in partitions:
            for entry in partition.ledger:
                self._platform.remember(entry.agent)
        with self.lock:
            self._partitions.update({partition.topic_partition: partition for partition in partitions})
            self._update_clocks(self._monitor.now())
            self._remind_at = 0
            self.lock.notify_all()

    def get(self, topic_partition: TopicPartition) -> CommandPartition | None:
        """Return the partition, ``None`` if this task does not own it; call it under the lock."""
        return self._partitions.get(topic_partition)

    def release(self, topic_partition: TopicPartition, timeout: float) -> None:
        """Start nothing of this partition any more, and wait for the command that is being written."""
        with self.lock:
            partition = self._partitions.pop(topic_partition, None)
            if partition is not None:
                partition.released = True
            self.lock.notify_all()
            if not self.lock.wait_for(lambda: self._busy != topic_partition, timeout):
                log.warning("%s-%d is released while one of its commands is being written", *topic_partition)

    def interrupt(self, revert_time: float = 0.0) -> None:
        """Start nothing any more. From any thread.

        ``revert_time``: seconds in which holds are still reverted before their time.
        """
        with self.lock:
            if revert_time and self._revert_holds_until is None:
                self._revert_holds_until = self._monitor.now().monotonic + int(revert_time * 1_000_000)
            else:
                self._recorder.stopping = True
            self.lock.notify_all()

    def wait_for_holds(self, timeout: float) -> None:
        """Wait until every hold that can be reverted at the stop is reverted."""
        with self.lock:
            self.lock.wait_for(lambda: self._recorder.stopping or not self._thread.is_alive(), timeout)

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def step(self) -> float:
        """Process the next entry that is due; return the seconds until the next may be due, 0 for now."""
        if self._revert_holds_until is not None:
            return self._revert_all_holds(self._revert_holds_until)
        with self.lock:
            due = self._due()
            wait = self._housekeep()
        for partition, entry in due:  # an entry that has to wait does not block the others
            wait = min(wait, self._process(partition, entry))
            if not wait:
                break
        return wait

    def _revert_all_holds(self, until: int) -> float:
        """Try each hold once, by the rules for a hold that is due; the rest stays in the ledger."""
        with self.lock:
            held = [
                (partition, entry)
                for partition in self._partitions.values()
                for entry in partition.ledger.held()
            ]
        for number, (partition, entry) in enumerate(held):
            if self._monitor.now().monotonic >= until:
                log.warning(
                    "no time left to revert %d holds; the next start reverts them", len(held) - number
                )
                break
            self._process(partition, entry, early=True)
        with self.lock:
            self._recorder.stopping = True
            self.lock.notify_all()
        return 0.0

    def _process(self, partition: CommandPartition, entry: LedgerEntry, early: bool = False) -> float:
        with self.lock:
            if self._recorder.stopping or partition.released:
                return 0.0
            self._busy = partition.topic_partition
        try:
            return self._executor.process(partition, entry, early)
        except PartitionReleasedError:
            return 0.0
        except FencedError as error:
            log.warning("%s-%d is owned by another task now: %s", *partition.topic_partition, error)
            with self.lock:
                partition.released = True
                if self._partitions.get(partition.topic_partition) is partition:  # not taken over again since
                    del self._partitions[partition.topic_partition]
            return 0.0
        finally:
            with self.lock:
                self._busy = None
                self.lock.notify_all()

    def _run(self) -> None:
        try:
            while not self._recorder.stopping:
                wait = self.step()
                with self.lock:
                    if wait > 0 and not self._recorder.stopping:
                        self.lock.wait(wait)
        except Exception as error:
            log.exception("commands are no longer executed")
            self.failure = error
        finally:
            self._platform.close()

    def _due(self) -> list[tuple[CommandPartition, LedgerEntry]]:
        """Return what a worker that died left unfinished, then what is due, the oldest first."""
        now = self._monitor.now()
        self._update_clocks(now)
        partitions = list(self._partitions.values())
        unfinished = [
            (partition, entry) for partition in partitions for entry in partition.ledger.unfinished()
        ]
        due = [
            (partition, entry)
            for partition in partitions
            for entry in partition.ledger.due(now.wall)[:_MAX_DUE]
        ]
        return unfinished + sorted(due, key=lambda item: item[1].received_at)

    def _update_clocks(self, now: Now) -> None:
        for partition in self._partitions.values():
            try:
                partition.update_clock(now)
                partition.note_restore(self._monitor.current())
            except (RetriableError, FencedError) as error:
                log.info("the believed time will be stored later: %s", error)

    def _housekeep(self) -> float:
        """Do what is due beside the commands; return the seconds until the next entry is due."""
        now = self._monitor.now()
        if now.monotonic >= self._remove_at and not now.doubt:
            self._remove_at = now.monotonic + _REMOVE_EVERY
            self._remove_old_entries(now.wall)
        if now.monotonic >= self._remind_at:
            self._remind_at = now.monotonic + _REMIND_EVERY
            self._remind_of_holds(now.wall)
        for partition in self._partitions.values():
            partition.update_head()
        self._monitor.current()  # follows the policy file and the kill switch also while no command comes
        self._report_failing_devices()
        due_times = [partition.ledger.next_due() for partition in self._partitions.values()]
        waits = [due_at - now.wall for due_at in due_times if due_at is not None]
        later = [wait for wait in waits if wait > 0]  # what is due now returns its own wait
        return min(IDLE, min(later, default=IDLE * 1_000_000) / 1_000_000)

    def _remind_of_holds(self, now: int) -> None:
        """Repeat the alarm of holds that are overdue, for whatever reason."""
        overdue = [
            entry
            for partition in self._partitions.values()
            for entry in partition.ledger.held()
            if entry.hold_tries or (entry.hold_until or now) + _OVERDUE_AFTER < now
        ]
        if overdue:
            point = overdue[0].command.writes[0].point
            message = "holds that have ended and are not reverted yet: %d, such as %s of command %s"
            log.error(message, len(overdue), point, overdue[0].command_id)

    def _remove_old_entries(self, now: int) -> None:
        for partition in self._partitions.values():
            try:
                partition.remove_old(now, self._timing.retention)
            except (RetriableError, FencedError) as error:
                log.info("old commands will be removed later: %s", error)

    def _report_failing_devices(self) -> None:
        """Log and count the devices whose commands the circuit breaker rejects."""
        streaks = [item for partition in self._partitions.values() for item in partition.ledger.streaks]
        if not streaks and not self._failing_devices:
            return
        breaker = self._monitor.current().policy.limits.breaker
        failing = frozenset(
            device for device, streak in streaks if breaker and streak.failures >= breaker.failures
        )
        for device in failing - self._failing_devices:
            log.error("%s: its commands fail, and more are rejected for a while (limits.breaker)", device)
        for device in self._failing_devices - failing:
            log.info("%s: its commands are accepted again", device)
        self._counters.circuits(len(failing - self._failing_devices), len(self._failing_devices - failing))
        self._failing_devices = failing
