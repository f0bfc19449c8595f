"""Appends each value to a file as a line of JSON. Replace it with your own external system."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from tieline.api import (
    Config,
    DataError,
    RetriableError,
    SinkConnector,
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

    file: BinaryIO | None = None

    def start(self) -> None:
        """Open the file. On ``RetriableError`` the runtime waits and calls again."""
        try:
            self.file = self.config.file.open("ab")
        except OSError as error:
            raise RetriableError(f"{self.config.file}: {error}") from error

    def put(self, batch: Sequence[SinkRecord]) -> None:
        """Write what can be written; name what never can be, by its index."""
        assert self.file is not None
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
        assert self.file is not None
        try:
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise RetriableError(f"{self.file.name}: {error}") from error

    def stop(self) -> None:
        """Close the file. Always the last call, also after a start that failed."""
        if self.file is not None:
            self.file.close()


class AcmeSink(SinkConnector[AcmeConfig]):
    """Appends lines of JSON to a file."""

    config_type = AcmeConfig
    task_type = AcmeTask
