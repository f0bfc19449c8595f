"""Execute what the rules decide about one command, and about the end of one hold.

The order of these steps is the promise: STARTED is durable, then the conditions are checked once more, then
comes the write. A worker that dies at any point leaves an entry from which the next owner knows what may have
been done.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple

from tieline.api import RetriableError
from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.counters import CommandCounters
from tieline_connectors.command.execution.errors import (
    DeviceRefusedError,
    DeviceReservedError,
    UnavailableError,
    UncertainError,
)
from tieline_connectors.command.execution.partition import CommandPartition, LedgerWrite
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.platform_state import PlatformState, WarnOnce
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.ledger import Retention
from tieline_connectors.command.rules import checks, holds, outcome, start
from tieline_connectors.command.rules.decisions import End, NotYet, Readings, RetryHold, Revert, Start, Wait

log = logging.getLogger(__name__)

IDLE = 1.0
"""The longest sleep in seconds: a clock may be set, or a kill switch released, at any time."""
_RETRY_AFTER = 0.5
"""Seconds until the platform, the broker or the audit log is tried again."""
_NO_LIMIT = 3600.0


class Timing(NamedTuple):
    """How many seconds to wait before reading back, and how long entries are kept."""

    verify_delay: float
    retention: Retention


class PartitionReleasedError(Exception):
    """The task no longer owns the partition, or the task ends: leave everything unchanged."""


class Executor:
    """Used by the scheduler's thread, for one entry at a time. ``lock`` guards the ledgers.

    ``stopping``: set under the lock; nothing is started from then on.
    """

    def __init__(
        self,
        platform: Platform,
        monitor: ConditionMonitor,
        timing: Timing,
        counters: CommandCounters,
        lock: threading.Condition,
    ) -> None:
        self.stopping = False
        self._lock = lock
        self._platform = platform
        self._monitor = monitor
        self._timing = timing
        self._counters = counters
        self._warnings = WarnOnce()
        self._state = PlatformState(platform, monitor, self._warnings)
        self._reservations: dict[str, Reservation] = {}

    def process(self, partition: CommandPartition, entry: LedgerEntry, early: bool = False) -> float:
        """Do what the rules decide about an entry that is due; return the seconds until it is due again.

        ``early``: revert what it holds before its time. Raises ``FencedError`` and `PartitionReleasedError`.
        """
        if entry.state == "STARTED":
            return self._finish_after_crash(partition, entry)
        if entry.hold == "REVERTING":
            return self._finish_hold_after_crash(partition, entry)
        if entry.hold == "HELD":
            return self._end_hold(partition, entry, early)
        return self._execute(partition, entry)

    def _execute(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        known_deadline = partition.deadlines.get(entry.command_id)
        deadline = known_deadline or checks.monotonic_deadline(entry, self._monitor.now())
        end = start.check_before_write(entry, deadline, {}, self._monitor.current())
        if end is not None:
            return self._end(partition, end)
        reservation = self._reservations.get(entry.command_id)
        if reservation is not None and reservation.wait > 0:
            return min(IDLE, reservation.wait)
        before = self._state.read_before_write(entry)
        if before is None:
            return _RETRY_AFTER
        with self._lock:
            conditions = self._monitor.current()
            decision = start.decide_start(entry, deadline, before, partition.ledger, conditions)
        if isinstance(decision, (Wait, NotYet)):
            return self._postpone(decision)
        if isinstance(decision, End):
            return self._end(partition, decision)
        reserved = self._reserve(entry, before, deadline)
        if isinstance(reserved, End):
            return self._end(partition, reserved)
        if reserved is None or reserved.wait > 0:
            return _RETRY_AFTER
        self._store(partition, decision.entry._replace(agent=self._platform.agent), decision.result)
        return self._write(partition, decision, before, deadline)

    def _reserve(self, entry: LedgerEntry, before: Readings, deadline: int) -> Reservation | End | None:
        """Reserve the devices of a command before it is started; ``None`` if the platform is unavailable.

        A task that was preempted keeps its device for a grace time. The command waits for its end, within the
        expiry.
        """
        command, now = entry.command, self._monitor.now()
        points = [w.point for w in command.writes]
        reservation = self._reservations.get(entry.command_id)
        try:
            if reservation is None:
                reservation = writer.reserve(self._platform, command, points)
                self._reservations[entry.command_id] = reservation
            else:
                reservation.ensure(writer.devices_of(command, points), len(points))
        except (UnavailableError, UncertainError) as error:
            self._warnings.warn("platform", f"commands wait: {error}")
            return None
        except DeviceReservedError as error:
            if error.ours:
                self._warnings.warn("platform", f"commands wait: {error}")
                return None
            return start.reject_reserved(entry, error.device, str(error), now.wall, before)
        except DeviceRefusedError as error:
            return start.reject_reserved(entry, "", str(error), now.wall, before)
        if now.monotonic + reservation.wait * 1_000_000 >= deadline:
            message = (
                f"{reservation.holder} keeps the device for another {reservation.wait:.0f} s, its grace time,"
                " and the command expires before"
            )
            return start.reject_reserved(entry, "", message, now.wall, before)
        return reservation

    def _write(self, partition: CommandPartition, decision: Start, before: Readings, deadline: int) -> float:
        """Write what a command asks for, after STARTED is durable and the conditions are checked once more.

        No other method does this. ``deadline``: the command's own; that of the `Start` is also its claim's.
        """
        entry = decision.entry._replace(agent=self._platform.agent)

        def check() -> End | None:
            return start.check_before_write(entry, decision.deadline, before, self._monitor.current())

        end = check()
        if end is not None:
            return self._end(partition, end)
        self._counters.executed(self._monitor.now().wall - entry.command.issued_at)
        permit = self._permit(lambda: check() is None, decision.deadline)
        reservation = self._reservations[entry.command_id]
        calls = writer.write(self._platform, entry.command, before, permit, reservation)
        end = check()
        if end is not None and all(call.answer == "NOT_SENT" for call in calls.values()):
            return self._end(partition, end)
        points = outcome.points_to_revert(entry, calls)
        always = permit._replace(allows=lambda: True, seconds_left=lambda: _NO_LIMIT)
        reverted = writer.revert(self._platform, entry.command, points, always, reservation)
        if self._timing.verify_delay:
            self._pause(self._timing.verify_delay)
        after = writer.try_read(self._platform, [w.point for w in entry.command.writes])
        now = self._monitor.now()
        late = outcome.lateness(calls, now.monotonic, deadline)
        return self._end(
            partition, outcome.decide_outcome(entry, calls, before, after, reverted, now.wall, late)
        )

    def _permit(self, allows: Callable[[], bool], deadline: int) -> writer.Permit:
        def now() -> int:
            return self._monitor.now().monotonic

        return writer.Permit(allows, lambda: (deadline - now()) / 1_000_000, now)

    def _finish_after_crash(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        after = self._state.read_points(entry)
        if after is None:
            return _RETRY_AFTER
        return self._end(partition, outcome.decide_after_crash(entry, after, self._monitor.now().wall))

    def _end_hold(self, partition: CommandPartition, entry: LedgerEntry, early: bool) -> float:
        readings = self._state.read_points(entry)
        if readings is None:
            return _RETRY_AFTER
        with self._lock:
            decision = holds.decide_hold(entry, partition.ledger, self._monitor.current(), early)
        return self._follow_hold_decision(partition, entry, readings, decision)

    def _finish_hold_after_crash(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        readings = self._state.read_points(entry)
        if readings is None:
            return _RETRY_AFTER
        with self._lock:
            conditions = self._monitor.current()
            decision = holds.decide_hold_after_crash(entry, readings, partition.ledger, conditions)
        return self._follow_hold_decision(partition, entry, readings, decision)

    def _follow_hold_decision(
        self,
        partition: CommandPartition,
        entry: LedgerEntry,
        readings: Readings,
        decision: Wait | NotYet | End | RetryHold | Revert,
    ) -> float:
        if isinstance(decision, (Wait, NotYet)):
            return self._postpone(decision)
        if isinstance(decision, End):
            return self._end(partition, decision)
        if isinstance(decision, RetryHold):
            return self._retry_hold(partition, decision)
        reserved = self._reserve_for_hold(entry, decision)
        if reserved is None:
            return _RETRY_AFTER
        if isinstance(reserved, holds.ReservationFailure):
            now = self._monitor.now().wall
            with self._lock:
                retry = holds.postpone_hold(entry, decision, reserved, readings, partition.ledger, now)
            return self._retry_hold(partition, retry)
        try:
            return self._revert(partition, decision, reserved)
        finally:
            reserved.release()

    def _reserve_for_hold(
        self, entry: LedgerEntry, revert: Revert
    ) -> Reservation | holds.ReservationFailure | None:
        """Reserve the devices of a hold that ends; ``None`` if the platform is unavailable."""
        try:
            reservation = writer.reserve(self._platform, entry.command, revert.points)
        except (UnavailableError, UncertainError) as error:
            self._warnings.warn("platform", f"holds wait: {error}")
            return None
        except DeviceRefusedError as error:
            if isinstance(error, DeviceReservedError) and error.ours:
                self._warnings.warn("platform", f"holds wait: {error}")
                return None
            ends = error.until if isinstance(error, DeviceReservedError) else None
            until = None if ends is None else int(ends.timestamp() * 1_000_000)
            return holds.ReservationFailure(str(error), until)
        if reservation.wait <= 0:
            return reservation
        until = self._monitor.now().wall + int(reservation.wait * 1_000_000)
        reservation.release()
        return holds.ReservationFailure(f"{reservation.holder} keeps the device for its grace time", until)

    def _revert(self, partition: CommandPartition, decision: Revert, reservation: Reservation) -> float:
        """Revert what a hold kept, after REVERTING is durable and the conditions are checked once more.

        No other method does this.
        """
        self._store(partition, decision.entry, None)

        def may_revert() -> bool:
            return holds.may_revert(decision, self._monitor.current())

        if not may_revert():
            return _RETRY_AFTER
        command = decision.entry.command
        permit = self._permit(may_revert, decision.deadline)
        calls = writer.revert(self._platform, command, decision.points, permit, reservation)
        after = writer.try_read(self._platform, [w.point for w in command.writes])
        reservation.release()
        with self._lock:
            now = self._monitor.now().wall
            result = holds.decide_hold_outcome(decision.entry, calls, after, partition.ledger, now)
        if isinstance(result, NotYet):
            return self._postpone(result)
        if isinstance(result, RetryHold):
            return self._retry_hold(partition, result)
        return self._end(partition, result)

    def _retry_hold(self, partition: CommandPartition, retry: RetryHold) -> float:
        """Keep the hold for a later try; the alarm is sent once, and the scheduler repeats it in the log."""
        self._store(partition, retry.entry, retry.result)
        if retry.result is not None:
            self._counters.ended(retry.result.state)
            self._counters.hold_unpaid()
            log.error("command %s: %s: %s", retry.entry.command_id, retry.result.state, retry.reason)
        return 0.0

    def _end(self, partition: CommandPartition, end: End) -> float:
        reservation = self._reservations.pop(end.entry.command_id, None)
        if reservation is not None:  # before the result is sent: its reader finds the device free
            reservation.release()
        self._store(partition, end.entry, end.result)
        self._counters.ended(end.result.state)
        if end.entry.hold_tries and end.entry.is_finished:
            self._counters.hold_paid()
        if end.result.state == "UNKNOWN":
            log.error("command %s: %s: %s", end.result.command_id, end.result.state, end.result.reason)
        return 0.0

    def _store(self, partition: CommandPartition, entry: LedgerEntry, result: Result | None) -> None:
        """Return when it is audited and durable; try for as long as the task owns the partition."""
        write = LedgerWrite([entry], [] if result is None else [result])
        while True:
            with self._lock:
                try:
                    partition.store(write)
                    return
                except RetriableError as error:
                    self._warnings.warn("ledger", f"the ledger cannot be written, commands wait: {error}")
                except OSError as error:
                    self._warnings.warn("audit", f"the audit log cannot be written, commands wait: {error}")
                self._lock.wait(_RETRY_AFTER)
                if self.stopping or partition.released:
                    raise PartitionReleasedError

    def _postpone(self, decision: Wait | NotYet) -> float:
        if isinstance(decision, Wait):
            self._warnings.warn(decision.code, f"commands wait: {decision.reason}")
        return IDLE

    def _pause(self, seconds: float) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self.stopping, seconds)
