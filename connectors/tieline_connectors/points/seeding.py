"""Fills the table of live points from the stores: all points, then the last value of each."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from tieline_connectors.points.live.point import UNREAD, LivePoint
from tieline_connectors.points.live.table import LiveTable
from tieline_connectors.points.questions import StoreUnavailableError
from tieline_connectors.points.stores import Stores

log = logging.getLogger(__name__)

_SHARE = 40
_RETRY = 5.0
_AGAIN = 300.0  # seconds: points that other workers store
_LONGEST_RETRY = 60.0


class StoreReader:
    """A thread from ``start`` to ``stop``. It takes at most a fortieth of one processor."""

    def __init__(self, stores: Stores, table: LiveTable, is_watched: Callable[[], bool]) -> None:
        self._stores = stores
        self._table = table
        self._is_watched = is_watched
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="point stores", daemon=True)

    def start(self) -> None:
        """Start the thread, if there is a store."""
        if self._stores.all:
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def load(self, points: Iterable[LivePoint], seconds: float) -> None:
        """Read the values of points of which only the time is known, for at most so long."""
        until = time.monotonic() + seconds
        for point in points:
            if point.value is UNREAD and (time.monotonic() > until or not self._load(point)):
                return

    def _run(self) -> None:
        retry = _RETRY
        while not self._stopping.is_set():
            try:
                self._table.seed(self._stores.points())
                self._load_all()
            except Exception:  # the live values must not end with it
                log.exception("the points' last values cannot be read from the stores")
            if self._stores.unavailable:
                retry = min(_LONGEST_RETRY, retry * 2)
            self._stopping.wait(retry if self._stores.unavailable else _AGAIN)

    def _load_all(self) -> None:
        unread = [point for point in self._table.snapshot() if point.value is UNREAD]
        unread.sort(key=lambda point: -point.time)
        for start in range(0, len(unread), 50):
            before = time.thread_time()
            self.load(unread[start : start + 50], 5.0)
            while not self._stopping.is_set() and not self._is_watched():
                self._stopping.wait(1.0)
            if self._stopping.wait(_SHARE * (time.thread_time() - before)):
                return

    def _load(self, point: LivePoint) -> bool:
        """Read one value. Returns whether its store answered."""
        store = self._stores.of_point(point.name)
        if store is None:
            return False
        try:
            values = store.values(point.name, point.time, point.time + 1, 1)
        except StoreUnavailableError:
            return False
        for value in values:
            self._table.set_stored_value(point.name, value.time, value.value)
        return True
