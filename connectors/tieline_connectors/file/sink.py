"""The file sink: writes the value of each record as a line of text."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from typing import Any

from tieline.api import (
    Config,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    setting,
)
from tieline.api.config import PathText


class FileSinkConfig(Config):
    """The setting of Kafka Connect's FileStreamSink."""

    file: PathText = setting(
        "file", min_length=1, doc="The file to append to; created if it does not exist.", importance="high"
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return a problem if the path is a folder."""
        return [("file", "is a folder; give a file's path")] if os.path.isdir(self.file) else []


class FileSinkTask(SinkTask[FileSinkConfig]):
    """Appends whole lines, with one write for each batch, so that several tasks may share a file.

    A line is safe after ``flush``. After a crash, lines may be repeated. A line that the crash has torn was
    not flushed, and is removed.
    """

    def __init__(self, context: SinkContext, config: FileSinkConfig) -> None:
        super().__init__(context, config)
        self._torn_rest = b""
        self._file: FileIO | None = None

    def start(self) -> None:
        """Open the file."""
        self._open()

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write a line for each record."""
        lines = "".join(f"{_line(record.value)}\n" for record in batch)
        data = self._torn_rest + lines.encode("utf-8", "backslashreplace")
        file, done = self._open(), 0
        try:
            with self._translate_errors(), _exclusive(file):
                while done < len(data):
                    done += file.write(memoryview(data)[done:])
        finally:  # after an error the batch is delivered again, and has to begin on a new line
            if done:
                torn = done < len(data) and data[done - 1] != ord("\n")
                self._torn_rest = data[done : data.index(b"\n", done) + 1] if torn else b""

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Wait until all lines are on the disk."""
        file = self._open()
        with self._translate_errors():
            os.fsync(file.fileno())

    def stop(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def _open(self) -> FileIO:
        """Return the file; the first call opens it, and removes a torn line. Raises ``RetriableError``."""
        if self._file is None:
            with self._translate_errors(), contextlib.ExitStack() as on_error:
                file = on_error.enter_context(open(self.config.file, "ab", buffering=0))
                with _exclusive(file):
                    _cut_torn_line(self.config.file)
                on_error.pop_all()
                self._file = file
        return self._file

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise ``RetriableError`` for every error of the file system."""
        try:
            yield
        except OSError as error:
            raise RetriableError(f"{self.config.file} cannot be written: {error.strerror}") from error


class FileSink(SinkConnector[FileSinkConfig]):
    """Runs as many tasks as ``tasks.max``; they append to the same file."""

    version = "1"
    config_type = FileSinkConfig
    task_type = FileSinkTask


@contextlib.contextmanager
def _exclusive(file: FileIO) -> Iterator[None]:
    """Lock the file, so that a task that starts does not remove a line that another one is writing."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _cut_torn_line(path: str) -> None:
    """Remove a torn last line. It was not flushed, so that its record is delivered again."""
    with open(path, "r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
