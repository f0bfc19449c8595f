"""Reads the lines of a file, each once, also over restarts. Put your own outside in its place."""

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

    def __init__(self) -> None:
        self.stopping = threading.Event()

    def start(self, context: SourceContext, config: AcmeConfig) -> None:
        """Find out where to go on: what is read has a name, and an offset of its own."""
        self.config = config
        self.place = {"file": str(config.file)}
        (saved,) = context.offsets([self.place])
        self.position = int((saved or {}).get("position") or 0)

    def poll(self, max_records: int, max_wait: float) -> list[SourceRecord]:
        """The next records, each with the offset at which to go on after it; none after ``max_wait``."""
        records: list[SourceRecord] = []
        try:
            with self.config.file.open("rb") as file:
                file.seek(self.position)
                while len(records) < max_records and (line := file.readline()).endswith(b"\n"):
                    self.position += len(line)
                    text = line[:-1].decode("utf-8", "replace")
                    offset = {"position": self.position}
                    records.append(SourceRecord(self.config.topic, text, None, self.place, offset))
        except OSError as error:  # the runtime waits, and calls again
            raise RetriableError(f"{self.config.file}: {error}") from error
        if not records:
            self.stopping.wait(max_wait)
        return records

    def stop(self) -> None:
        """From another thread: end a poll that waits."""
        self.stopping.set()


class AcmeSource(SourceConnector[AcmeConfig]):
    """Reads the lines of a file."""

    config_type = AcmeConfig
    task_type = AcmeTask
