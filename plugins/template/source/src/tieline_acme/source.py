"""Reads the lines of a file, each once, also across restarts. Replace it with your own external system."""

from __future__ import annotations

import threading
from pathlib import Path

from tieline.api import (
    Config,
    RetriableError,
    SourceConnector,
    SourceContext,
    SourceRecord,
    SourceTask,
    identity,
    setting,
)


class AcmeConfig(Config):
    """What a user may set."""

    file: Path = setting("file", doc="The file to read; it may grow.")
    topic: str = setting("topic", doc="The topic to write to.")


class AcmeTask(SourceTask[AcmeConfig]):
    """What does the work, in one thread."""

    def __init__(self, context: SourceContext, config: AcmeConfig) -> None:
        super().__init__(context, config)
        self.interrupted = threading.Event()
        self.partition = {"file": str(config.file)}
        self.position = 0

    def start(self) -> None:
        """Resume from the offset that was saved for this source partition."""
        saved = self.context.offset(self.partition) or {}
        self.position = int(saved.get("position") or 0)

    def poll(self, max_records: int, max_wait: float) -> list[SourceRecord]:
        """Return the next records, each with the offset from which to resume after it."""
        records: list[SourceRecord] = []
        try:
            with self.config.file.open("rb") as file:
                file.seek(self.position)
                while len(records) < max_records and (line := file.readline()).endswith(b"\n"):
                    records.append(self.record(line))
        except OSError as error:  # the runtime waits, and calls again
            raise RetriableError(f"{self.config.file} cannot be read: {error.strerror}") from error
        if not records:
            self.interrupted.wait(max_wait)
        return records

    def record(self, line: bytes) -> SourceRecord:
        """Return a line as a record. Its id is made of what tells it apart, and is the same each time."""
        headers = identity(str(self.config.file), self.position, digest_of=line)
        self.position += len(line)
        return SourceRecord(
            topic=self.config.topic,
            value=line[:-1].decode("utf-8", "replace"),
            source_partition=self.partition,
            source_offset={"position": self.position},
            headers=headers,
        )

    def interrupt(self) -> None:
        """From another thread: end a poll that waits."""
        self.interrupted.set()


class AcmeSource(SourceConnector[AcmeConfig]):
    """Reads the lines of a file."""

    config_type = AcmeConfig
    task_type = AcmeTask
