"""One thread writes: the changes of many producers become one transaction, and one fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any, TypeVar

import apsw

from tieline.api import Retriable
from tieline.broker.local.file import translated
from tieline.broker.local.tables import Tables

T = TypeVar("T")
_MAX_GROUP = 256


class Writer:
    """Runs changes in the order in which they came; ``submit`` from any thread.

    A change is a function of :class:`Tables`. Its future ends after the fsync. If a group fails, each of
    its changes gets a transaction of its own, so that one bad change harms no other.
    """

    def __init__(
        self,
        path: Path,
        connection: apsw.Connection,
        tables: Tables,
        committed: Callable[[], object],
    ) -> None:
        self._path = path
        self._connection = connection
        self._tables = tables
        self._committed = committed
        self._ready = threading.Condition()
        self._waiting: deque[tuple[Callable[[Tables], Any], Future[Any]]] = deque()
        self._checkpoint = self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"{path.name} writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[Tables], T]) -> Future[T]:
        """Have a change made; the future ends when it is safe, or with what went wrong."""
        future: Future[T] = Future()
        with self._ready:
            if self._closing:
                raise Retriable(f"the log file {self._path} is closed")
            self._waiting.append((change, future))
            self._ready.notify()
        return future

    def run(self, change: Callable[[Tables], T], timeout: float) -> T:
        """Make a change and wait. Raises ``Retriable`` after ``timeout``: it may still happen then."""
        future = self.submit(change)
        try:
            return future.result(timeout)
        except FutureTimeout:
            future.cancel()
            raise Retriable(f"the log file {self._path} did not answer within {timeout} s") from None

    def checkpoint_soon(self) -> None:
        """Finish a checkpoint between two transactions, so that the write-ahead log starts over."""
        with self._ready:
            self._checkpoint = True
            self._ready.notify()

    def close(self) -> None:
        """Make what was submitted, then end. Called by one thread, once."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            with self._ready:
                while not (self._waiting or self._checkpoint or self._closing):
                    self._ready.wait()
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_GROUP))]
                checkpoint, self._checkpoint = self._checkpoint, False
                if not group and not checkpoint:
                    return
            self._make([one for one in group if one[1].set_running_or_notify_cancel()])
            if checkpoint:
                self._finish_checkpoint()

    def _make(self, group: Sequence[tuple[Callable[[Tables], Any], Future[Any]]]) -> None:
        if not group:
            return
        try:
            results = self._transaction([change for change, _ in group])
        except Exception as error:
            if isinstance(error, apsw.FullError):
                self._tables.disk_is_full()
            if len(group) > 1:
                for one in group:
                    self._make([one])
            else:
                group[0][1].set_exception(translated(error, self._path))
            return
        self._committed()
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)

    def _transaction(self, changes: Sequence[Callable[[Tables], T]]) -> list[T]:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._tables.begin()
            results = [change(self._tables) for change in changes]
            self._tables.finish()
            execute("COMMIT")
        except BaseException:
            self._tables.forget()
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return results

    def _finish_checkpoint(self) -> None:
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            return  # busy, or no room: the next one will do; commits do not depend on it
