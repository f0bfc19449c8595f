"""Writes each record as a row of an SQLite file, once. Replace it with your own external system."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tieline.api import (
    ID_HEADER,
    Config,
    DataError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    header,
    setting,
)


class AcmeConfig(Config):
    """What a user may set."""

    file: Path = setting("file", doc="The SQLite file to write to; its folder must exist.")


class AcmeTask(SinkTask[AcmeConfig]):
    """What does the work, in one thread."""

    def __init__(self, context: SinkContext, config: AcmeConfig) -> None:
        super().__init__(context, config)
        self.database: sqlite3.Connection | None = None
        self.waiting: list[tuple[TopicPartition, bytes | None, str]] = []

    def start(self) -> None:
        """Connect. On ``RetriableError`` the runtime waits and calls again."""
        try:
            self.connect().execute("CREATE TABLE IF NOT EXISTS records (id BLOB PRIMARY KEY, value TEXT)")
        except sqlite3.OperationalError as error:
            raise RetriableError(f"{self.config.file} cannot be opened: {error}") from error

    def connect(self) -> sqlite3.Connection:
        """Return the connection, which the first call makes."""
        if self.database is None:
            self.database = sqlite3.connect(self.config.file, timeout=0)
        return self.database

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Buffer what can be written; name what never can be, by its index in the batch."""
        bad: dict[int, Exception] = {}
        for index, record in enumerate(batch):
            try:
                value = json.dumps(record.value)
            except (TypeError, ValueError) as error:
                bad[index] = error
            else:
                self.waiting.append((record.consumed_from, header(record, ID_HEADER), value))
        if bad:
            raise DataError(bad)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write in one transaction. When this returns, these offsets are committed.

        A record may come again after a crash: the id makes it the same row.
        """
        rows = [(record_id, value) for _, record_id, value in self.waiting]
        try:
            with self.connect() as database:
                database.executemany("INSERT OR IGNORE INTO records VALUES (?, ?)", rows)
        except sqlite3.OperationalError as error:  # the rows wait for the next flush
            raise RetriableError(f"{self.config.file} cannot be written: {error}") from error
        self.waiting = []

    def close(self, partitions: Collection[TopicPartition], lost: bool) -> None:
        """Forget what waits of these partitions: it is not committed, and comes again to its next owner."""
        self.waiting = [row for row in self.waiting if row[0] not in partitions]

    def stop(self) -> None:
        """Close the file. Always the last call, also after a start that failed."""
        if self.database is not None:
            self.database.close()


class AcmeSink(SinkConnector[AcmeConfig]):
    """Writes records as rows of an SQLite file."""

    config_type = AcmeConfig
    task_type = AcmeTask
