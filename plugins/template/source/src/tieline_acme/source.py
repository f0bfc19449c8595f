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
                    self.position += len(line)
                    text = line[:-1].decode("utf-8", "replace")
                    records.append(
                        SourceRecord(
                            topic=self.config.topic,
                            value=text,
                            source_partition=self.partition,
                            source_offset={"position": self.position},
                        )
                    )
        except OSError as error:  # the runtime waits, and calls again
            raise RetriableError(f"{self.config.file}: {error}") from error
        if not records:
            self.interrupted.wait(max_wait)
        return records

    def interrupt(self) -> None:
        """From another thread: end a poll that waits."""
        self.interrupted.set()


class AcmeSource(SourceConnector[AcmeConfig]):
    """Reads the lines of a file."""

    config_type = AcmeConfig
    task_type = AcmeTask
