"""The writing thread: it joins the changes of many producers to one transaction with one fsync."""

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
_MAX_CHANGES = 256
_MAX_BYTES = 4 << 20  # of one transaction; with the keeper's limits this bounds the write-ahead log


class Writer:
    """Runs changes in the order of ``submit``, which any thread may call.

    A change is a function of :class:`Tables`. Its future ends after the fsync. If a transaction fails, each
    of its changes gets its own, so that a failing change does not affect others.
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
        """Queue a change. The future ends when it is safe, or with its error."""
        future: Future[T] = Future()
        with self._ready:
            if self._closing:
                raise RetriableError(f"the log file {self._path} is closed")
            self._waiting.append((change, future))
            self._ready.notify()
        return future

    def run(self, change: Callable[[Tables], T], timeout: float) -> T:
        """Make a change and wait. Raises ``RetriableError`` after ``timeout``; it may still happen later."""
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
        """Make what was submitted, then end. To be called once."""
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
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_CHANGES))]
                if not group and not self._checkpoint:
                    return
            self._make([change for change in group if change[1].set_running_or_notify_cancel()])
            with self._ready:
                checkpoint, self._checkpoint = self._checkpoint, False
            if checkpoint:
                self._finish_checkpoint()

    def _make(self, group: Sequence[_Change]) -> None:
        while group:
            try:
                results = self._transaction([change for change, _ in group])
            except Exception as error:  # noqa: BLE001 - each change's future raises it
                if isinstance(error, apsw.FullError):
                    self._tables.disk_is_full()
                if len(group) == 1:
                    group[0][1].set_exception(to_tieline_error(error, self._path))
                else:
                    for change in group:
                        self._make([change])
                return
            with suppress(
                Exception
            ):  # the changes are safe; waiting threads check by themselves a moment later
                self._committed()
            for (_, future), result in zip(group, results, strict=False):
                future.set_result(result)
            group = group[len(results) :]

    def _transaction(self, changes: Sequence[Callable[[Tables], Any]]) -> list[Any]:
        """Make the first changes, as many as one transaction should hold. Return their results."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            self._tables.begin()
            results = []
            for change in changes:
                results.append(change(self._tables))
                if self._tables.appended_bytes > _MAX_BYTES:
                    break
            self._tables.finish()
            execute("COMMIT")
        except BaseException:
            self._tables.roll_back()
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
                    self._tables.disk_is_full()  # the reserve is also for this
                except apsw.Error:
                    return  # busy: the next checkpoint will do; commits do not depend on it
