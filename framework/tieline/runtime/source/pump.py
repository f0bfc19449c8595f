"""② to ⑥: the pump carries what the spool holds to the broker, at its own pace."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tieline.api import SourceRecord
from tieline.config.settings import Timing
from tieline.runtime.errors.retry import StopRequested
from tieline.runtime.errors.table import Stage
from tieline.runtime.source.sender import Positions, Sender
from tieline.runtime.spool.spool import Spool
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts

log = logging.getLogger(__name__)


class Pump:
    """② → ⑥, one thread: reads the spool at its own pace; what is acknowledged is deleted from it.

    At most ``max_records`` are sent and not yet deleted, however many wait: so many may a kill double.
    """

    def __init__(
        self, environment: TaskEnvironment, spool: Spool, make_sender: Callable[[], Sender], timing: Timing
    ) -> None:
        self._environment = environment
        self._spool = spool
        self._make_sender = make_sender
        self._timing = timing
        self._sender: Sender | None = None

    @property
    def counts(self) -> Counts:
        """The ledger's totals, from the spool on."""
        return Counts() if self._sender is None else self._sender.ledger.counts

    def run(self) -> None:
        """Raises ``TaskFailed``; returns when asked to stop."""
        try:
            sender = self._sender = self._make_sender()
        except StopRequested:
            return
        try:
            self._carry(sender)
        except StopRequested:
            pass
        finally:
            try:
                sender.finish(self._timing.drain, self._timing.call_timeout)
            finally:
                self._spool.forget()

    def interrupt(self) -> None:
        """From another thread."""
        self._environment.stop.set()
        self._spool.wake()

    def _carry(self, sender: Sender) -> None:
        clock, spool, timing = self._environment.clock, self._spool, self._timing
        half = max(1, timing.max_records // 2)  # one half is converted while the other is on its way
        saved = 0
        next_save = clock.now() + timing.offset_flush
        position = self._environment.retry(Stage.SPOOL, lambda: spool.start)
        while not self._environment.stop.is_set():
            room = 0 if sender.full else timing.max_records - (sender.ledger.counts.received - saved)
            sender.poll(0 if room > 0 else 0.1)
            if room > 0:
                wait = timing.max_wait if sender.idle else 0.005
                batch, position = self._read(position, min(room, half), wait)
                if batch:
                    sender.send(batch, Positions([spool.id] * len(batch), {spool.id: str(position)}))
            counts = sender.ledger.counts
            done = counts.received - counts.in_flight
            if done - saved >= half or clock.now() >= next_save:
                if sender.try_save(timing.call_timeout):
                    saved = done
                elif room <= 0:  # the disk is away, and nothing is sent before it is back
                    clock.wait(self._environment.stop, 0.1)
                next_save = clock.now() + timing.offset_flush

    def _read(self, position: int, limit: int, wait: float) -> tuple[list[SourceRecord], int]:
        return self._environment.retry(Stage.SPOOL, lambda: self._spool.read(position, limit, wait))
