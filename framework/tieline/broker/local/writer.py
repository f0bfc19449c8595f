"""One thread writes: the changes of many producers become one transaction, and one fsync."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import apsw

from tieline.api import RetriableError
from tieline.broker.local.file import to_tieline_error
from tieline.broker.local.tables import Tables

T = TypeVar("T")
_Change = tuple[Callable[[Tables], Any], "Future[Any]"]
_MAX_GROUP = 256
_MAX_GROUP_BYTES = 4 << 20  # with the keeper's limits this bounds the write-ahead log


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
        self._waiting: deque[_Change] = deque()
        self._checkpoint = self._closing = False
        self.checkpointing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"{path.name} writer", daemon=True)
        self._thread.start()

    def submit(self, change: Callable[[Tables], T]) -> Future[T]:
        """Have a change made; the future ends when it is safe, or with what went wrong."""
        future: Future[T] = Future()
        with self._ready:
            if self._closing:
                raise RetriableError(f"the log file {self._path} is closed")
            self._waiting.append((change, future))
            self._ready.notify()
        return future

    def run(self, change: Callable[[Tables], T], timeout: float) -> T:
        """Make a change and wait. Raises ``RetriableError`` after ``timeout``: it may still happen then."""
        future = self.submit(change)
        try:
            return future.result(timeout)
        except FutureTimeout:
            future.cancel()
            raise RetriableError(f"the log file {self._path} did not answer within {timeout} s") from None

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
                if not group and not self._checkpoint:
                    return
            self._make([one for one in group if one[1].set_running_or_notify_cancel()])
            with self._ready:
                checkpoint, self._checkpoint = self._checkpoint, False
            if checkpoint:
                self._finish_checkpoint()

    def _make(self, group: Sequence[_Change]) -> None:
        while group:
            try:
                results = self._transaction([change for change, _ in group])
            except Exception as error:
                if isinstance(error, apsw.FullError):
                    self._tables.disk_is_full()
                if len(group) == 1:
                    group[0][1].set_exception(to_tieline_error(error, self._path))
                else:
                    for one in group:
                        self._make([one])
                return
            with suppress(Exception):  # who waits looks by itself a moment later; the changes are safe
                self._committed()
            for (_, future), result in zip(group, results, strict=False):
                future.set_result(result)
            group = group[len(results) :]

    def _transaction(self, changes: Sequence[Callable[[Tables], Any]]) -> list[Any]:
        """Make the first of these, as many as one transaction should hold; their results."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._tables.begin()
            results = []
            for change in changes:
                results.append(change(self._tables))
                if self._tables.appended_bytes > _MAX_GROUP_BYTES:
                    break
            self._tables.finish()
            execute("COMMIT")
        except BaseException:
            self._tables.forget()
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return results

    def _finish_checkpoint(self) -> None:
        with self.checkpointing:
            for _ in range(2):
                try:
                    self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                    return
                except apsw.FullError:
                    self._tables.disk_is_full()  # the reserve is for this, too
                except apsw.Error:
                    return  # busy: the next one will do; commits do not depend on it
