"""Keeping a log file small: checkpoints, and retention in small steps, beside the writer."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import apsw

from tieline.api import TielineError, TopicPartition
from tieline.broker.local.file import LogSettings, connect
from tieline.broker.local.layout import OFFSET_MASK
from tieline.broker.local.tables import Tables
from tieline.broker.local.writer import Writer

log = logging.getLogger(__name__)

_COPY_PAGES = 300  # new pages in the write-ahead log after which the keeper copies them
_MAX_PAGES = 1_000  # after which the writer copies the rest, and the write-ahead log starts over
_STEP = 500  # records per transaction of retention

Unread = Callable[[], Mapping[TopicPartition, int]]
"""Returns the first offset to keep of each partition. A partition that is not named need not be kept."""


class Keeper:
    """Keeps a log file small, in a thread of the owner. It deletes nothing before ``retain`` is called.

    A checkpoint copies the write-ahead log into the file. The keeper copies most of it on a connection of its
    own, and the writer the rest, so that no commit waits long.
    """

    def __init__(self, path: Path, writing: apsw.Connection, writer: Writer, settings: LogSettings) -> None:
        self._connection = connect(path)
        self._path, self._file = path, path.stat()
        self._reported_removal = False
        self._connection.wal_autocheckpoint(0)
        self._writer = writer
        self._settings = settings
        self._copied = 0
        self._unread: Unread | None = None
        self._wanted = threading.Condition()
        self._checkpoint = self._retention = self._closing = False
        writing.set_wal_hook(self._committed)
        self._thread = threading.Thread(target=self._run, name=f"{path.name} keeper", daemon=True)
        self._thread.start()

    def retain(self, unread: Unread) -> None:
        """Start to delete what exceeds the retention, except what ``unread`` names."""
        with self._wanted:
            self._unread = unread
            self._retention = True
            self._wanted.notify()

    def close(self) -> None:
        """End the thread. Expired records are deleted another time."""
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        self._thread.join()
        self._connection.close()

    def _committed(self, connection: apsw.Connection, name: str, pages: int) -> int:
        if pages < self._copied:
            self._copied = 0  # the write-ahead log started over
        if pages > _MAX_PAGES:
            self._writer.checkpoint_soon()
        elif pages - self._copied > _COPY_PAGES:
            with self._wanted:
                self._checkpoint = True
                self._wanted.notify()
        return apsw.SQLITE_OK

    def _run(self) -> None:
        due = 0.0
        while True:
            with self._wanted:
                while not (self._checkpoint or self._retention or self._closing):
                    left = None if self._unread is None else due - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    self._wanted.wait(left)
                if self._closing:
                    return
                checkpoint, self._checkpoint, self._retention = self._checkpoint, False, False
            if checkpoint:
                self._copy()
            if self._unread is not None and not checkpoint:
                self._notice_removal()
                self._delete_expired(self._unread)
                due = time.monotonic() + self._settings.retention_interval

    def _notice_removal(self) -> None:
        """Report once that the file was deleted or replaced: SQLite continues to write to the lost one."""
        try:
            removed = not os.path.samestat(self._path.stat(), self._file)
        except FileNotFoundError:
            removed = True
        except OSError:
            return
        if removed and not self._reported_removal:
            self._reported_removal = True
            log.error(
                "%s was deleted, moved or replaced while this process writes to it: its records are lost "
                "when the process ends. If it was moved, move it back before you stop the worker",
                self._path,
            )

    def _copy(self) -> None:
        try:
            with self._writer.checkpointing:
                _, self._copied = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error:
            pass  # busy or a full disk: the writer handles it

    def _delete_expired(self, unread: Unread) -> None:
        try:
            keep = unread()
            for partition in self._writer.run(_partitions, 30.0):
                limit = keep.get(partition, OFFSET_MASK)
                while not self._closing and self._writer.run(self._step(partition, limit), 30.0):
                    pass
        except TielineError:
            return  # closed or unavailable: another time

    def _step(self, partition: TopicPartition, limit: int) -> Callable[[Tables], bool]:
        now = time.time_ns() // 1_000_000
        return lambda tables: tables.expire(partition, limit, now, _STEP)


def _partitions(tables: Tables) -> list[TopicPartition]:
    return tables.partitions()
