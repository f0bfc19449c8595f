"""The file source: a text file, line by line, and what is appended to it later."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import BinaryIO

from tieline.api import (
    Config,
    Position,
    Retriable,
    SourceConnector,
    SourceContext,
    SourceRecord,
    SourceTask,
    identity,
    setting,
)

_LOOK_AGAIN = 0.2


class FileSourceConfig(Config):
    """Kafka Connect's keys (FileStreamSource)."""

    file: str = setting("file", doc="The file to read; it may appear later.", importance="high")
    topic: str = setting("topic", doc="The topic to write to.", importance="high")
    batch_size: int = setting("batch.size", 2000, ge=1, doc="The most lines of one poll.")
    max_line_bytes: int = setting(
        "max.line.bytes", 1024 * 1024, ge=1, doc="A longer line is cut into records of this size."
    )


class FileSourceTask(SourceTask[FileSourceConfig]):
    """Reads complete lines; goes on where it was, and from the start when the file is another one."""

    def start(self, context: SourceContext, config: FileSourceConfig) -> None:
        """Find the saved position."""
        self._config = config
        self._stopped = threading.Event()
        self._partition: Position = {"filename": config.file}
        saved = context.offsets([self._partition])[0] or {}
        self._position = int(saved.get("position") or 0)
        self._inode = int(saved.get("inode") or 0)
        self._file: BinaryIO | None = None

    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Lines that are there; waits when there are none."""
        records = self._read(min(max_records, self._config.batch_size))
        if not records:
            self._stopped.wait(min(max_wait, _LOOK_AGAIN))
        return records

    def stop(self) -> None:
        """Wake a waiting poll."""
        self._stopped.set()

    def close(self) -> None:
        """Close the file."""
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]

    def _read(self, limit: int) -> list[SourceRecord]:
        file = self._opened()
        records: list[SourceRecord] = []
        while file is not None and len(records) < limit:
            line = file.readline(self._config.max_line_bytes)
            if not line.endswith(b"\n") and len(line) < self._config.max_line_bytes:
                file.seek(self._position)  # the rest of the line is still to come
                break
            records.append(self._record(line))
        return records

    def _record(self, line: bytes) -> SourceRecord:
        where = identity(self._config.file, self._inode, self._position, digest_of=line)
        self._position += len(line)
        return SourceRecord(
            self._config.topic,
            line.rstrip(b"\r\n").decode("utf-8", "replace"),
            source_partition=self._partition,
            source_offset={"position": self._position, "inode": self._inode},
            headers=where,
        )

    def _opened(self) -> BinaryIO | None:
        """The open file at the right position; none while it is not there."""
        try:
            found = os.stat(self._config.file)
            if self._file is not None and found.st_ino == self._inode and found.st_size >= self._position:
                return self._file
            self.close()
            self._file = open(self._config.file, "rb")  # noqa: SIM115 - open until close()
        except FileNotFoundError:
            return self._file  # what was there before is read to its end
        except OSError as error:
            raise Retriable(f"{self._config.file} cannot be read: {error.strerror}") from error
        found = os.fstat(self._file.fileno())
        if found.st_ino != self._inode or found.st_size < self._position:
            self._inode, self._position = found.st_ino, 0
        self._file.seek(self._position)
        return self._file


class FileSource(SourceConnector[FileSourceConfig]):
    """One task: a file has one reader."""

    version = "1"
    config_type = FileSourceConfig
    task_type = FileSourceTask
