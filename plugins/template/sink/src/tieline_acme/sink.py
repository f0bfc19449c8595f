"""Appends each value to a file as a line of JSON. Put your own outside in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tieline.api import (
    Config,
    DataError,
    RetriableError,
    SinkConnector,
    SinkContext,
    SinkRecord,
    SinkTask,
    TopicPartition,
    setting,
)


class AcmeConfig(Config):
    """What a user may set."""

    file: Path = setting("file", doc="The file to append to.")


class AcmeTask(SinkTask[AcmeConfig]):
    """What does the work, in one thread."""

    def start(self, context: SinkContext, config: AcmeConfig) -> None:
        """Open what is written to; an outage is ``RetriableError``: the runtime waits, and calls again."""
        try:
            self.file = config.file.open("ab")
        except OSError as error:
            raise RetriableError(f"{config.file}: {error}") from error

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write what can be written; name what never can be, by its index."""
        bad: dict[int, Exception] = {}
        for index, record in enumerate(batch):
            try:
                self.file.write(json.dumps(record.value).encode() + b"\n")
            except (TypeError, ValueError) as error:
                bad[index] = error
        if bad:
            raise DataError(bad)

    def flush(self, offsets: Mapping[TopicPartition, int]) -> None:
        """When this returns, all of it is safe: these offsets are committed."""
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise RetriableError(f"{self.file.name}: {error}") from error

    def shutdown(self) -> None:
        """At the end, also after a start that failed."""
        if hasattr(self, "file"):
            self.file.close()


class AcmeSink(SinkConnector[AcmeConfig]):
    """Appends lines of JSON to a file."""

    config_type = AcmeConfig
    task_type = AcmeTask
