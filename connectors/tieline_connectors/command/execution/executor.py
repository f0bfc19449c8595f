"""Execute what the rules decide about one command; ``HoldExecutor`` ends its hold.

The order of these steps is the promise: STARTED is durable, then the conditions are checked once more, then
comes the write. A worker that dies at any point leaves an entry from which the next owner knows what may have
been done.
"""

from __future__ import annotations

from typing import NamedTuple

from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.counters import CommandCounters
from tieline_connectors.command.execution.entry_recorder import IDLE, EntryRecorder
from tieline_connectors.command.execution.errors import (
    DeviceRefusedError,
    DeviceReservedError,
    UnavailableError,
    UncertainError,
)
from tieline_connectors.command.execution.hold_executor import HoldExecutor
from tieline_connectors.command.execution.partition import CommandPartition
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.platform_state import PlatformState
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.model.ledger import Retention
from tieline_connectors.command.rules import checks, outcome, restored, start
from tieline_connectors.command.rules.decisions import End, NotYet, Readings, Start, Wait

_NO_LIMIT = 3600.0


class Timing(NamedTuple):
    """How many seconds to wait before reading back, and how long entries are kept."""

    verify_delay: float
    retention: Retention


class Executor:
    """Executes one entry at a time. Used by the scheduler's thread."""

    def __init__(
        self,
        platform: Platform,
        monitor: ConditionMonitor,
        timing: Timing,
        counters: CommandCounters,
        recorder: EntryRecorder,
    ) -> None:
        self._platform = platform
        self._monitor = monitor
        self._timing = timing
        self._counters = counters
        self._recorder = recorder
        self._state = PlatformState(platform, monitor, recorder.warnings)
        self._holds = HoldExecutor(platform, monitor, self._state, recorder, self._end)
        self._reservations: dict[str, Reservation] = {}

    def process(self, partition: CommandPartition, entry: LedgerEntry, early: bool = False) -> float:
        """Do what the rules decide about an entry that is due; return the seconds until it is due again.

        ``early``: revert what it holds before its time. Raises ``FencedError`` and `PartitionReleasedError`.
        """
        if entry.state == "STARTED":
            return self._finish_after_crash(partition, entry)
        if entry.hold == "REVERTING":
            return self._holds.finish_after_crash(partition, entry)
        if entry.hold == "HELD":
            return self._holds.end_hold(partition, entry, early)
        if restored.is_uncertain(entry, partition.ledger):
            return self._end_restored(partition, entry)
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
            return self._recorder.retry_after
        with self._recorder.lock:
            conditions = self._monitor.current()
            decision = start.decide_start(entry, deadline, before, partition.ledger, conditions)
        if isinstance(decision, (Wait, NotYet)):
            return self._recorder.postpone(decision)
        if isinstance(decision, End):
            return self._end(partition, decision)
        reserved = self._reserve(entry, before, deadline)
        if isinstance(reserved, End):
            return self._end(partition, reserved)
        if reserved is None or reserved.wait > 0:
            return self._recorder.retry_after
        self._recorder.store(partition, decision.entry._replace(agent=self._platform.agent), decision.result)
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
            self._recorder.warnings.warn("platform", f"commands wait: {error}")
            return None
        except DeviceReservedError as error:
            if error.ours:
                self._recorder.warnings.warn("platform", f"commands wait: {error}")
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
        permit = writer.Permit.until(decision.deadline, lambda: check() is None, self._monitor)
        reservation = self._reservations[entry.command_id]
        calls = writer.write(self._platform, entry.command, before, permit, reservation)
        end = check()
        if end is not None and all(call.answer == "NOT_SENT" for call in calls.values()):
            return self._end(partition, end)
        points = outcome.points_to_revert(entry, calls)
        always = permit._replace(allows=lambda: True, seconds_left=lambda: _NO_LIMIT)
        reverted = writer.revert(self._platform, entry.command, points, always, reservation)
        if self._timing.verify_delay:
            self._recorder.pause(self._timing.verify_delay)
        after = writer.try_read(self._platform, [w.point for w in entry.command.writes])
        now = self._monitor.now()
        late = outcome.lateness(calls, now.monotonic, deadline)
        return self._end(
            partition, outcome.decide_outcome(entry, calls, before, after, reverted, now.wall, late)
        )

    def _finish_after_crash(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        after = self._state.read_points(entry)
        if after is None:
            return self._recorder.retry_after
        return self._end(partition, outcome.decide_after_crash(entry, after, self._monitor.now().wall))

    def _end_restored(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        with self._recorder.lock:
            decision = restored.decide_restored(entry, partition.ledger, self._monitor.current())
        if isinstance(decision, Wait):
            return self._recorder.postpone(decision)
        return self._end(partition, decision)

    def _end(self, partition: CommandPartition, end: End) -> float:
        reservation = self._reservations.pop(end.entry.command_id, None)
        if reservation is not None:  # before the result is sent: its reader finds the device free
            reservation.release()
        return self._recorder.end(partition, end)
