"""Reads the ledgers of a worker at intervals, for rates and for whatever pages show of connectors."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tieline.api.background import BackgroundThread

log = logging.getLogger(__name__)

Ledgers = Mapping[str, Mapping[str, Any]]
_WATCHED, _UNWATCHED = 1.0, 10.0  # seconds between two samples
_WINDOW = 10.0  # seconds over which a rate is taken


class Sample(NamedTuple):
    """The ledgers at one time. ``version`` counts samples from 1; ``time`` is monotonic, in seconds."""

    version: int
    time: float
    ledgers: Ledgers


class Rates(NamedTuple):
    """Records a second, over the last ten seconds; ``None`` before there are two samples."""

    received: float | None
    delivered: float | None


class Sampler(BackgroundThread):
    """Samples the ledgers at intervals, in a thread from ``start`` to ``stop``.

    ``read`` returns the ledgers of all connectors now.
    """

    def __init__(
        self,
        read: Callable[[], Ledgers],
        is_watched: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("page sampler")
        self._read = read
        self._is_watched = is_watched
        self._clock = clock
        self._samples: deque[Sample] = deque([Sample(0, clock(), {})])
        self._listeners: list[Callable[[Sample], None]] = []
        self._lock = threading.Lock()

    @property
    def last(self) -> Sample:
        """The newest sample."""
        return self._samples[-1]

    def add_listener(self, listener: Callable[[Sample], None]) -> None:
        """Call ``listener`` in the sampler's thread after each sample. Only before ``start``."""
        self._listeners.append(listener)

    def fresh(self) -> Sample:
        """Return a sample that is at most a second old. Any thread may call it."""
        with self._lock:
            if self._clock() - self.last.time > _WATCHED or not self.last.version:
                self._take()
            return self.last

    def rates(self, connector: str) -> Rates:
        """Return the rates of a connector; a recreated one starts again."""
        with self._lock:
            samples = [each for each in self._samples if connector in each.ledgers]
        if len(samples) < 2:
            return Rates(None, None)
        first, last = samples[0], samples[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return Rates(None, None)
        before, now = first.ledgers[connector], last.ledgers[connector]
        received, delivered = (max(0, now[key] - before[key]) / seconds for key in ("received", "delivered"))
        return Rates(received, delivered)

    def run(self) -> None:
        """Take samples; see ``BackgroundThread.run``."""
        while not self.stopping.wait(_WATCHED):
            if not self._is_watched() and self._clock() - self.last.time < _UNWATCHED:
                continue  # asked every second, so that a page which opens now is not kept waiting
            try:
                with self._lock:
                    self._take()
                for listener in self._listeners:
                    listener(self.last)
            except Exception:  # the pages must survive a fault; the next sample tries again
                log.exception("the ledgers could not be read for the pages")

    def _take(self) -> None:
        sample = Sample(self.last.version + 1, self._clock(), self._read())
        self._samples.append(sample)
        while len(self._samples) > 2 and sample.time - self._samples[1].time >= _WINDOW:
            self._samples.popleft()
