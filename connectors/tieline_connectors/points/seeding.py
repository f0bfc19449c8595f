"""Fills the table of live points from the stores: all points, then the last value of each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from tieline.api.background import BackgroundThread
from tieline_connectors.points.live.point import UNREAD, LivePoint
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.stores import Stores

log = logging.getLogger(__name__)

_SHARE = 400
_RETRY = 5.0
_AGAIN = 300.0  # seconds: points that other workers store
_LONGEST_RETRY = 900.0


class StoreReader(BackgroundThread):
    """Reads points and their last values from the stores, in a thread from ``start`` to ``stop``.

    It takes at most a four-hundredth of one processor. A page loads the values that it shows itself.
    """

    def __init__(self, stores: Stores, table: LiveTable, is_watched: Callable[[], bool]) -> None:
        super().__init__("point stores")
        self._stores = stores
        self._table = table
        self._is_watched = is_watched

    def start(self) -> None:
        """Start the thread, if there is a store."""
        if self._stores.all:
            super().start()

    def load(self, points: Iterable[LivePoint], seconds: float) -> None:
        """Read the values of points of which only the time is known, for at most so long.

        A page does not wait for a store that has not answered before.
        """
        until = time.monotonic() + seconds
        for point in points:
            if point.value is UNREAD:
                if self._stores.unavailable or time.monotonic() > until:
                    return
                stored = self._stores.newest_value(point.name, point.time)
                if stored is not None:
                    self._table.set_stored_value(point.name, stored.time, stored.value)

    def run(self) -> None:
        """Read the stores; see ``BackgroundThread.run``."""
        retry = _RETRY
        while not self.stopping.is_set():
            try:
                self._table.seed(self._stores.points())
                self._load_all()
            except Exception:  # the live values must not end with it
                log.exception("the points' last values cannot be read from the stores")
            retry = min(_LONGEST_RETRY, retry * 2) if self._stores.unavailable else _RETRY
            self.stopping.wait(retry if self._stores.unavailable else _AGAIN)
            self._wait_for_viewer()  # the first look was for alarms; to list all points costs the store

    def _load_all(self) -> None:
        unread = [point for point in self._table.snapshot() if point.value is UNREAD]
        unread.sort(key=lambda point: -point.time)
        for start in range(0, len(unread), 50):
            before = time.thread_time()
            self.load(unread[start : start + 50], 5.0)
            self._wait_for_viewer()
            if self.stopping.wait(_SHARE * (time.thread_time() - before)):
                return

    def _wait_for_viewer(self) -> None:
        while not self.stopping.is_set() and not self._is_watched():
            self.stopping.wait(1.0)
