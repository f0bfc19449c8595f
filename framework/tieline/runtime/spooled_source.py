"""A source that cannot be asked again: a receiver that only receives, a pump that does the rest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from tieline.api import Config, Retriable, SourceRecord, SourceTask
from tieline.runtime.context import TaskSourceContext
from tieline.runtime.delivery import Counts
from tieline.runtime.failure import Stage
from tieline.runtime.repeats import Repeats
from tieline.runtime.scope import Scope, Stopping
from tieline.runtime.sender import Positions, Sender
from tieline.runtime.settings import Pace
from tieline.runtime.spool import Spool

log = logging.getLogger(__name__)


class Receiver:
    """① → ②, one thread: polls the task and commits each batch to the spool, whatever happens behind it."""

    def __init__(self, scope: Scope, task: SourceTask[Any], config: Config, spool: Spool, pace: Pace) -> None:
        self._scope = scope
        self._task = task
        self._config = config
        self._spool = spool
        self._pace = pace
        self._context = TaskSourceContext(scope, dict, spool.quarantine)
        self._repeats = (
            Repeats(spool.beside("seen"), scope.counters) if type(task).repeats_are_events else None
        )

    def run(self) -> None:
        """The whole life of the task. Raises ``TaskFailed``; returns when asked to stop."""
        try:
            self._scope.patiently(Stage.START, lambda: self._task.start(self._context, self._config))
            away = self._scope.patience(Stage.TASK_POLL)
            while not self._scope.stop.is_set():
                try:
                    batch = self._task.poll(self._pace.max_records, self._pace.max_wait)
                except Exception as error:
                    if self._scope.clock.wait(self._scope.stop, away.after(error)):
                        break
                    continue
                away.over()
                if batch:
                    self._keep(batch)
                else:
                    self._spool.write_quarantine()
            self._last()
        except Stopping:
            pass
        finally:
            try:
                self._task.close()
            finally:
                if self._repeats is not None:
                    self._repeats.close()

    def ask_to_stop(self) -> None:
        """From another thread: ask the task to stop."""
        self._scope.stop.set()
        self._task.stop()

    def _keep(self, batch: Sequence[SourceRecord]) -> None:
        self._spool.append(batch if self._repeats is None else self._repeats.number(batch))

    def _last(self) -> None:
        """What the task still held when it was asked to stop, as far as the time allows."""
        deadline = self._scope.clock.now() + self._pace.drain
        try:
            while batch := self._task.poll(self._pace.max_records, 0):
                self._keep(batch)
                if self._scope.clock.now() >= deadline:
                    log.warning("stopped although the source still has records to give")
                    break
        except Retriable:
            pass  # it is away: it holds nothing


class Pump:
    """② → ⑥, one thread: reads the spool at its own pace; what is acknowledged is deleted from it.

    At most ``max_records`` are sent and not yet deleted, however many wait: so many may a kill double.
    """

    def __init__(self, scope: Scope, spool: Spool, make_sender: Callable[[], Sender], pace: Pace) -> None:
        self._scope = scope
        self._spool = spool
        self._make_sender = make_sender
        self._pace = pace
        self._sender: Sender | None = None

    @property
    def counts(self) -> Counts:
        """The ledger's totals, from the spool on."""
        return Counts() if self._sender is None else self._sender.ledger.counts

    def run(self) -> None:
        """Raises ``TaskFailed``; returns when asked to stop."""
        try:
            sender = self._sender = self._make_sender()
        except Stopping:
            return
        try:
            self._carry(sender)
        except Stopping:
            pass
        finally:
            try:
                sender.finish(self._pace.drain, self._pace.call_timeout)
            finally:
                self._spool.forget()

    def ask_to_stop(self) -> None:
        """From another thread."""
        self._scope.stop.set()
        self._spool.wake()

    def _carry(self, sender: Sender) -> None:
        clock, spool, pace = self._scope.clock, self._spool, self._pace
        half = max(1, pace.max_records // 2)  # one half is converted while the other is on its way
        saved = 0
        next_save = clock.now() + pace.offset_flush
        position = self._scope.patiently(Stage.SPOOL, lambda: spool.start)
        while not self._scope.stop.is_set():
            room = 0 if sender.full else pace.max_records - (sender.ledger.counts.received - saved)
            sender.poll(0 if room > 0 else 0.1)
            if room > 0:
                wait = pace.max_wait if sender.idle else 0.005
                batch, position = self._read(position, min(room, half), wait)
                if batch:
                    sender.send(batch, Positions([spool.id] * len(batch), {spool.id: str(position)}))
            counts = sender.ledger.counts
            done = counts.received - counts.in_flight
            if done - saved >= half or clock.now() >= next_save:
                if sender.try_save(pace.call_timeout):
                    saved = done
                elif room <= 0:  # the disk is away, and nothing is sent before it is back
                    clock.wait(self._scope.stop, 0.1)
                next_save = clock.now() + pace.offset_flush

    def _read(self, position: int, limit: int, wait: float) -> tuple[list[SourceRecord], int]:
        return self._scope.patiently(Stage.SPOOL, lambda: self._spool.read(position, limit, wait))
