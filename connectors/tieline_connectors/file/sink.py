"""The file sink: the value of each record as a line of text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from tieline.api import (
    Config,
    Retriable,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    setting,
)


class FileSinkConfig(Config):
    """Kafka Connect's key (FileStreamSink)."""

    file: str = setting("file", doc="The file to append to; made where there is none.", importance="high")


class FileSinkTask(SinkTask[FileSinkConfig]):
    """Appends; a line is safe once ``flush`` has returned. After a crash lines may come again.

    A line that a crash has torn is left as it is, and the next one begins on a line of its own.
    """

    def start(self, context: SinkContext, config: FileSinkConfig) -> None:
        """Open the file."""
        try:
            _cut_torn_line(config.file)
            torn = _ends_inside_a_line(config.file)
            self._file: TextIO = open(config.file, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except OSError as error:
            raise Retriable(f"{config.file} cannot be written: {error.strerror}") from error
        if torn:
            self._file.write("\n")

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Buffer a line a record."""
        with self._told():
            self._file.writelines(f"{_line(record.value)}\n" for record in batch)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Write and fsync what was put."""
        with self._told():
            self._file.flush()
            os.fsync(self._file.fileno())

    def shutdown(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Retriable(f"{self._file.name} cannot be written: {error.strerror}") from error


class FileSink(SinkConnector[FileSinkConfig]):
    """As many tasks as ``tasks.max``; they append to the same file."""

    version = "1"
    config_type = FileSinkConfig
    task_type = FileSinkTask


def _cut_torn_line(path: str) -> None:
    """After a crash the last line may be torn; it was not flushed, so its record comes again."""
    if not os.path.exists(path):
        return
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)


def _ends_inside_a_line(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.seek(0, os.SEEK_END) > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read() != b"\n"
    except FileNotFoundError:
        return False


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
