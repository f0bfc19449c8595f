"""Execute what the rules decide about the end of one hold.

The order of these steps is the promise: REVERTING is durable, then the conditions are checked once more, then
the points are reverted.
"""

from __future__ import annotations

from collections.abc import Callable

from tieline_connectors.command.execution import writer
from tieline_connectors.command.execution.conditions import ConditionMonitor
from tieline_connectors.command.execution.entry_recorder import EntryRecorder
from tieline_connectors.command.execution.errors import (
    DeviceRefusedError,
    DeviceReservedError,
    UnavailableError,
    UncertainError,
)
from tieline_connectors.command.execution.partition import CommandPartition
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.execution.platform_state import PlatformState
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.rules import holds, restored
from tieline_connectors.command.rules.decisions import End, NotYet, Readings, RetryHold, Revert, Wait


class HoldExecutor:
    """Ends the hold of one entry at a time. Used by the scheduler's thread.

    ``end`` stores the end of an entry, and releases what is still reserved for it.
    """

    def __init__(
        self,
        platform: Platform,
        monitor: ConditionMonitor,
        state: PlatformState,
        recorder: EntryRecorder,
        end: Callable[[CommandPartition, End], float],
    ) -> None:
        self._platform = platform
        self._monitor = monitor
        self._state = state
        self._recorder = recorder
        self._end = end

    def end_hold(self, partition: CommandPartition, entry: LedgerEntry, early: bool) -> float:
        """End a hold that is due, or with ``early`` before its time; return the seconds to wait."""
        readings = self._state.read_points(entry)
        if readings is None:
            return self._recorder.retry_after
        with self._recorder.lock:
            decision = holds.decide_hold(entry, partition.ledger, self._monitor.current(), early)
        if isinstance(decision, Revert) and restored.is_uncertain(entry, partition.ledger):
            # It may have ended already: as after a crash, revert what still reads the held value.
            self._recorder.store(partition, decision.entry, None)
            return 0.0
        return self._follow_hold_decision(partition, entry, readings, decision)

    def finish_after_crash(self, partition: CommandPartition, entry: LedgerEntry) -> float:
        """Find out whether a hold was reverted before a crash, and do what is left."""
        readings = self._state.read_points(entry)
        if readings is None:
            return self._recorder.retry_after
        with self._recorder.lock:
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
            return self._recorder.postpone(decision)
        if isinstance(decision, End):
            return self._end(partition, decision)
        if isinstance(decision, RetryHold):
            return self._recorder.keep_hold(partition, decision)
        reserved = self._reserve_for_hold(entry, decision)
        if reserved is None:
            return self._recorder.retry_after
        if isinstance(reserved, holds.ReservationFailure):
            now = self._monitor.now().wall
            with self._recorder.lock:
                retry = holds.postpone_hold(entry, decision, reserved, readings, partition.ledger, now)
            return self._recorder.keep_hold(partition, retry)
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
            self._recorder.warnings.warn("platform", f"holds wait: {error}")
            return None
        except DeviceRefusedError as error:
            if isinstance(error, DeviceReservedError) and error.ours:
                self._recorder.warnings.warn("platform", f"holds wait: {error}")
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
        self._recorder.store(partition, decision.entry, None)

        def may_revert() -> bool:
            return holds.may_revert(decision, self._monitor.current())

        if not may_revert():
            return self._recorder.retry_after
        command = decision.entry.command
        permit = writer.Permit.until(decision.deadline, may_revert, self._monitor)
        calls = writer.revert(self._platform, command, decision.points, permit, reservation)
        after = writer.try_read(self._platform, [w.point for w in command.writes])
        reservation.release()
        with self._recorder.lock:
            now = self._monitor.now().wall
            result = holds.decide_hold_outcome(decision.entry, calls, after, partition.ledger, now)
        if isinstance(result, NotYet):
            return self._recorder.postpone(result)
        if isinstance(result, RetryHold):
            return self._recorder.keep_hold(partition, result)
        return self._end(partition, result)
