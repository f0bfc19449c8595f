"""② to ⑥: the pump sends what the spool holds to the broker, independently of the receiver."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from tieline.api import TielineError
from tieline.config.settings import Timing
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StopRequestedError
from tieline.runtime.source.positions import Positions
from tieline.runtime.source.sender import Sender
from tieline.runtime.spool.spool import Spool, SpoolBatch
from tieline.runtime.task.environment import TaskEnvironment
from tieline.runtime.task.ledger import Counts
from tieline.runtime.task.totals import PartitionView

log = logging.getLogger(__name__)


class SpoolInput:
    """Shows the pump of a spool whether its receiver still adds records. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished = False
        self.ended = False

    def end(self) -> None:
        """Note that the receiver has failed, and that nothing comes any more."""
        self.ended = True

    def reopen(self) -> bool:
        """Note that a new receiver starts. Return whether the pump has finished, and has to start, too."""
        with self._lock:
            finished, self._finished, self.ended = self._finished, False, False
            return finished

    def finish(self) -> bool:
        """Called by the pump if the spool is empty: return whether it may end."""
        with self._lock:
            self._finished = self.ended
            return self._finished


class Pump:
    """② → ⑥, one thread: reads the spool, sends its records, and deletes what is acknowledged.

    At most ``max_records`` are sent and not yet deleted, however many wait: so many can a kill duplicate.
    Once ``spool_input`` has ended, the pump ends when the spool is empty.
    """

    def __init__(
        self,
        environment: TaskEnvironment,
        spool: Spool,
        make_sender: Callable[[], Sender],
        timing: Timing,
        spool_input: SpoolInput | None = None,
    ) -> None:
        self._environment = environment
        self._spool = spool
        self._make_sender = make_sender
        self._timing = timing
        self._input = spool_input or SpoolInput()
        self._sender: Sender | None = None

    @property
    def stats(self) -> Counts:
        """The ledger's totals, from the spool on."""
        return Counts() if self._sender is None else self._sender.ledger.counts

    @property
    def lag(self) -> int | None:
        """Return how many records wait in the spool; ``None`` if they cannot be counted now."""
        try:
            return self._spool.waiting[0]
        except TielineError as error:
            log.debug("the records in the spool cannot be counted now: %s", error)
            return None

    @property
    def lag_seconds(self) -> float | None:
        """``None``: the spool reports the age of its oldest record."""
        return None

    @property
    def totals(self) -> Mapping[str, PartitionView]:
        """Nothing: the spool keeps the totals."""
        return {}

    def run(self) -> None:
        """Send until asked to stop, or the spool is drained for good. Raises ``TaskFailedError``."""
        try:
            sender = self._sender = self._make_sender()
        except StopRequestedError:
            return
        try:
            self._send_all(sender)
        except StopRequestedError:
            pass
        finally:
            try:
                sender.finish(self._timing.drain, self._timing.call_timeout)
            finally:
                self._spool.release()

    def interrupt(self) -> None:
        """Ask the pump to stop. Called from another thread."""
        self._environment.stop.set()
        self._spool.wake()

    def _send_all(self, sender: Sender) -> None:
        clock, spool, timing = self._environment.clock, self._spool, self._timing
        half = max(1, timing.max_records // 2)  # one half is converted while the other is on its way
        saved = 0
        next_save = clock.now() + timing.offset_flush
        position = self._environment.retry(Stage.SPOOL, spool.begin)
        while not self._environment.stop.is_set():
            ended = self._input.ended  # before the read, which then sees every record
            room = 0 if sender.full else timing.max_records - (sender.ledger.counts.received - saved)
            sender.poll(0 if room > 0 else 0.1)
            if room > 0:
                batch = self._read(position, min(room, half), timing.max_wait if sender.idle else 0.005)
                if batch.damaged:
                    sender.send_damaged(batch.damaged, _damaged_positions(spool.id, position, batch))
                if batch.records:
                    sender.send(batch.records, _positions(spool.id, batch))
                elif ended and sender.idle and batch.position == position and self._input.finish():
                    return
                position = batch.position
            counts = sender.ledger.counts
            done = counts.received - counts.in_flight
            if done - saved >= half or clock.now() >= next_save:
                if sender.try_save(timing.call_timeout):
                    saved = done
                elif room <= 0:  # the disk is unavailable, and nothing is sent until it is back
                    clock.wait(self._environment.stop, 0.1)
                next_save = clock.now() + timing.offset_flush

    def _read(self, position: int, limit: int, wait: float) -> SpoolBatch:
        return self._environment.retry(Stage.SPOOL, lambda: self._spool.read(position, limit, wait))


def _positions(spool: str, batch: SpoolBatch) -> Positions:
    return Positions(
        [spool] * len(batch.records),
        {spool: str(batch.position)},
        lambda index: f"spool position {batch.offsets[index]}",
    )


def _damaged_positions(spool: str, position: int, batch: SpoolBatch) -> Positions:
    """Return the positions of damaged rows. They reach only the beginning of their batch: its records follow.

    Without such records they reach its end.
    """
    return Positions(
        [spool] * len(batch.damaged),
        {spool: str(position if batch.records else batch.position)},
        lambda index: f"spool position {batch.damaged[index].offset}",
    )
