"""Make each step of a command durable: audited, in the ledger, and its result sent."""

from __future__ import annotations

import logging
import threading
from typing import ClassVar

from tieline.api import RetriableError
from tieline_connectors.command.execution.counters import CommandCounters
from tieline_connectors.command.execution.partition import CommandPartition, LedgerWrite
from tieline_connectors.command.execution.platform_state import WarnOnce
from tieline_connectors.command.model.command import Result
from tieline_connectors.command.model.entry import LedgerEntry
from tieline_connectors.command.rules.decisions import End, NotYet, RetryHold, Wait

log = logging.getLogger(__name__)

IDLE = 1.0
"""The longest sleep in seconds: a clock may be set, or a kill switch released, at any time."""


class PartitionReleasedError(Exception):
    """The task no longer owns the partition, or the task ends: leave everything unchanged."""


class EntryRecorder:
    """Stores each step until it is durable. Used by the scheduler's thread. ``lock`` guards the ledgers.

    ``stopping``: set under the lock; nothing is started from then on.
    """

    retry_after: ClassVar[float] = 0.5
    """Seconds until the platform, the broker or the audit log is tried again."""

    def __init__(self, counters: CommandCounters, lock: threading.Condition) -> None:
        self.lock = lock
        self.stopping = False
        self.warnings = WarnOnce()
        self._counters = counters

    def store(self, partition: CommandPartition, entry: LedgerEntry, result: Result | None) -> None:
        """Return when it is audited and durable; try for as long as the task owns the partition."""
        write = LedgerWrite([entry], [] if result is None else [result])
        while True:
            with self.lock:
                try:
                    partition.store(write)
                    return
                except RetriableError as error:
                    self.warnings.warn("ledger", f"the ledger cannot be written, commands wait: {error}")
                except OSError as error:
                    self.warnings.warn("audit", f"the audit log cannot be written, commands wait: {error}")
                self.lock.wait(self.retry_after)
                if self.stopping or partition.released:
                    raise PartitionReleasedError

    def end(self, partition: CommandPartition, end: End) -> float:
        """Store the end of a command or of its hold, and count it; return 0, since nothing is due."""
        self.store(partition, end.entry, end.result)
        self._counters.ended(end.result.state)
        if end.entry.hold_tries and end.entry.is_finished:
            self._counters.hold_paid()
        if end.result.state == "UNKNOWN":
            log.error("command %s: %s: %s", end.result.command_id, end.result.state, end.result.reason)
        return 0.0

    def keep_hold(self, partition: CommandPartition, retry: RetryHold) -> float:
        """Keep the hold for a later try; the alarm is sent once, and the scheduler repeats it in the log."""
        self.store(partition, retry.entry, retry.result)
        if retry.result is not None:
            self._counters.ended(retry.result.state)
            self._counters.hold_unpaid()
            log.error("command %s: %s: %s", retry.entry.command_id, retry.result.state, retry.reason)
        return 0.0

    def postpone(self, decision: Wait | NotYet) -> float:
        """Leave an entry unchanged; return the seconds until it is tried again."""
        if isinstance(decision, Wait):
            self.warnings.warn(decision.code, f"commands wait: {decision.reason}")
        return IDLE

    def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until the task stops."""
        with self.lock:
            self.lock.wait_for(lambda: self.stopping, seconds)
