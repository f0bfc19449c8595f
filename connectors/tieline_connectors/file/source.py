"""The file source: a text file, line by line, and what is appended to it later."""

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

_LOOK_AGAIN = 0.2
_HEAD = 256
"""By so many bytes at its beginning a file is told from a new one that was given its inode."""


class FileSourceConfig(Config):
    """Kafka Connect's keys (FileStreamSource)."""

    file: PathText = setting(
        "file", min_length=1, doc="The file to read; it may appear later.", importance="high"
    )
    topic: TopicName = setting("topic", min_length=1, doc="The topic to write to.", importance="high")
    batch_size: int = setting(
        "batch.size", 2000, ge=1, le=1_000_000, doc="The largest number of lines in one poll."
    )
    max_line_bytes: int = setting(
        "max.line.bytes", 1024 * 1024, ge=1, le=1024**3, doc="A longer line is cut into records of this size."
    )

    def problems(self) -> list[tuple[str, str]]:
        """A folder is no file."""
        return [("file", "is a folder; give a file's path")] if os.path.isdir(self.file) else []


class FileSourceTask(SourceTask[FileSourceConfig]):
    """Reads complete lines; goes on where it was, and from the start when the file is another one.

    A file that was moved away is first read to its end, where its last line needs no line end. What
    was moved away while no task ran is not found again.
    """

    def __init__(self, context: SourceContext, config: FileSourceConfig) -> None:
        super().__init__(context, config)
        self._interrupted = threading.Event()
        self._partition: Position = {"filename": config.file}
        self._position = self._inode = 0
        # Counts how often reading restarted at 0: an inode is used again, and so is a position after a
        # truncation, but no record may ever have the id of another one.
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
        """Lines that are there; waits when there are none."""
        records = self._read(min(max_records, self.config.batch_size))
        if not records:
            self._interrupted.wait(min(max_wait, _LOOK_AGAIN))
        return records

    def interrupt(self) -> None:
        """Wake a waiting poll."""
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
            now = None  # moved away; what is open is read to its end
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
        if now is None or not self._open():
            return []
        assert self._file is not None
        return self._lines(self._file, limit, is_last=False)

    def _lines(self, file: BinaryIO, limit: int, *, is_last: bool) -> list[SourceRecord]:
        """The next lines; with ``is_last`` also the one that has no line end."""
        most = self.config.max_line_bytes
        records: list[SourceRecord] = []
        while len(records) < limit:
            line = file.readline(most + 1)
            if not line.endswith(b"\n"):
                if len(line) > most:
                    line = line[: _whole_characters(line, most)]
                    file.seek(self._position + len(line))
                elif not (line and is_last):
                    file.seek(self._position)  # the rest of the line is still to come
                    break
            records.append(self._record(file, line))
        return records

    def _record(self, file: BinaryIO, line: bytes) -> SourceRecord:
        where = identity(self.config.file, self._inode, self._generation, self._position, digest_of=line)
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
            headers=where,
        )

    def _open(self) -> bool:
        """Open the file at the right position; false if it is gone again."""
        try:
            self._file = open(self.config.file, "rb")  # noqa: SIM115 - open until close()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RetriableError(f"{self.config.file} cannot be read: {error.strerror}") from error
        found = os.fstat(self._file.fileno())
        is_another = found.st_ino != self._inode or found.st_size < self._position
        if is_another or (self._head and self._head != _head(self._file, self._position)):
            self._generation += bool(self._inode)
            self._inode, self._position, self._head = found.st_ino, 0, ""
        self._file.seek(self._position)
        return True


def _head(file: BinaryIO, position: int) -> str:
    """A digest of the first bytes of what was read."""
    return hashlib.blake2b(os.pread(file.fileno(), min(position, _HEAD), 0), digest_size=8).hexdigest()


def _whole_characters(line: bytes, most: int) -> int:
    """How much of the line's first bytes is not cut inside a character of UTF-8."""
    for length in range(most, max(0, most - 4), -1):
        if line[length] & 0xC0 != 0x80:
            return length
    return most  # it is no UTF-8


class FileSource(SourceConnector[FileSourceConfig]):
    """One task: a file has one reader."""

    version = "1"
    config_type = FileSourceConfig
    task_type = FileSourceTask
