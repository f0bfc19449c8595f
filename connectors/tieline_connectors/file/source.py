"""The file source: reads a text file line by line, and lines that are appended later."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from typing import BinaryIO

from tieline.api import (
    Config,
    Position,
    RetriableError,
    SourceConnector,
    SourceContext,
    SourceRecord,
    SourceTask,
    identity,
    setting,
)
from tieline.api.config import PathText, TopicName

_POLL_SECONDS = 0.2
_HEAD = 256
"""How many of its first bytes distinguish a file from a new one with the same inode."""


class FileSourceConfig(Config):
    """The settings of Kafka Connect's FileStreamSource."""

    file: PathText = setting(
        "file", min_length=1, doc="The file to read. It may be created later.", importance="high"
    )
    topic: TopicName = setting("topic", min_length=1, doc="The topic to write to.", importance="high")
    batch_size: int = setting(
        "batch.size", 2000, ge=1, le=1_000_000, doc="The largest number of lines in one poll."
    )
    max_line_bytes: int = setting(
        "max.line.bytes", 1024 * 1024, ge=1, le=1024**3, doc="A longer line is cut into records of this size."
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return a problem if the path is a folder."""
        return [("file", "is a folder; give a file's path")] if os.path.isdir(self.file) else []


class FileSourceTask(SourceTask[FileSourceConfig]):
    """Reads complete lines; resumes at the saved position, or at the start if the file was replaced.

    If the file is renamed, it is first read to its end, where the last line needs no line end. A file that
    was renamed while no task ran is not found.
    """

    def __init__(self, context: SourceContext, config: FileSourceConfig) -> None:
        super().__init__(context, config)
        self._interrupted = threading.Event()
        self._partition: Position = {"filename": config.file}
        self._position = self._inode = 0
        # Counts how often reading restarted at 0. Inodes are reused, and so are positions after a
        # truncation, but no two records may have the same id.
        self._generation = 0
        self._head = ""
        self._file: BinaryIO | None = None

    def start(self) -> None:
        """Resume from the saved position."""
        saved = self.context.offset(self._partition) or {}
        self._position = int(saved.get("position") or 0)
        self._inode = int(saved.get("inode") or 0)
        self._generation = int(saved.get("generation") or 0)
        self._head = str(saved.get("head") or "")

    def poll(self, max_records: int, max_wait: float) -> Sequence[SourceRecord]:
        """Return complete lines; wait if there are none."""
        records = self._read(min(max_records, self.config.batch_size))
        if not records:
            self._interrupted.wait(min(max_wait, _POLL_SECONDS))
        return records

    def interrupt(self) -> None:
        """End a waiting poll."""
        self._interrupted.set()

    def stop(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self, limit: int) -> list[SourceRecord]:
        try:
            now = os.stat(self.config.file)
        except FileNotFoundError:
            now = None  # renamed or deleted; the open file is read to its end
        except OSError as error:
            raise RetriableError(f"{self.config.file} cannot be read: {error.strerror}") from error
        if self._file is not None and now is not None and now.st_ino == self._inode:
            if now.st_size < self._position:
                self.stop()  # truncated
            else:
                return self._lines(self._file, limit, is_last=False)
        if self._file is not None:
            records = self._lines(self._file, limit, is_last=now is not None)
            if records or now is None:
                return records
            self.stop()
        self._file = self._open() if now is not None else None
        return self._lines(self._file, limit, is_last=False) if self._file is not None else []

    def _lines(self, file: BinaryIO, limit: int, *, is_last: bool) -> list[SourceRecord]:
        """Return the next lines; with ``is_last`` also a last one without a line end."""
        max_bytes = self.config.max_line_bytes
        records: list[SourceRecord] = []
        while len(records) < limit:
            line = file.readline(max_bytes + 1)
            if not line.endswith(b"\n"):
                if len(line) > max_bytes:
                    line = line[: _whole_characters(line, max_bytes)]
                    file.seek(self._position + len(line))
                elif not (line and is_last):
                    file.seek(self._position)  # the rest of the line is not written yet
                    break
            records.append(self._record(file, line))
        return records

    def _record(self, file: BinaryIO, line: bytes) -> SourceRecord:
        headers = identity(self.config.file, self._inode, self._generation, self._position, digest_of=line)
        if self._position < _HEAD:
            self._head = _head(file, self._position + len(line))
        self._position += len(line)
        text = line[:-1].removesuffix(b"\r") if line.endswith(b"\n") else line
        return SourceRecord(
            self.config.topic,
            text.decode("utf-8", "replace"),
            source_partition=self._partition,
            source_offset={
                "position": self._position,
                "inode": self._inode,
                "generation": self._generation,
                "head": self._head,
            },
            headers=headers,
        )

    def _open(self) -> BinaryIO | None:
        """Return the file, opened at the right position, or ``None`` if it does not exist any more."""
        try:
            file = open(self.config.file, "rb")  # noqa: SIM115 - open until stop()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetriableError(f"{self.config.file} cannot be read: {error.strerror}") from error
        status = os.fstat(file.fileno())
        is_replaced = status.st_ino != self._inode or status.st_size < self._position
        if is_replaced or (self._head and self._head != _head(file, self._position)):
            self._generation += bool(self._inode)
            self._inode, self._position, self._head = status.st_ino, 0, ""
        file.seek(self._position)
        return file


def _head(file: BinaryIO, position: int) -> str:
    """Return a digest of the first bytes that were read."""
    return hashlib.blake2b(os.pread(file.fileno(), min(position, _HEAD), 0), digest_size=8).hexdigest()


def _whole_characters(line: bytes, max_bytes: int) -> int:
    """Return the largest length up to ``max_bytes`` that does not cut a character of UTF-8."""
    for length in range(max_bytes, max(0, max_bytes - 4), -1):
        if line[length] & 0xC0 != 0x80:
            return length
    return max_bytes  # the line is not UTF-8


class FileSource(SourceConnector[FileSourceConfig]):
    """Runs one task, since a file has one reader."""

    version = "1"
    config_type = FileSourceConfig
    task_type = FileSourceTask
