"""The settings of the sink ``history``."""

from __future__ import annotations

import os
from pathlib import Path

from tieline.api import CommaList, Config, setting
from tieline.api.config import PathText
from tieline_connectors.history.database import FILE_NAME
from tieline_connectors.points.values import KINDS


class HistorySinkConfig(Config):
    """Where readings are kept, and for how long. The defaults suit a Raspberry Pi with a card of 16 GB."""

    file: PathText | None = setting(
        "file",
        None,
        doc=f"The SQLite file. Default: {FILE_NAME} in the worker's data.dir.",
        importance="high",
    )
    retention_ms: int = setting(
        "retention.ms",
        366 * 24 * 3_600_000,
        ge=-1,
        doc="How long readings are kept, by their time, in whole hours. Older ones are not stored either, and"
        " counted as expired. -1: no limit of age.",
        importance="high",
    )
    retention_bytes: int = setting(
        "retention.bytes",
        4 * 1024**3,
        ge=-1,
        doc="The size of the file from which the oldest readings and rollups are deleted. Its write-ahead log"
        " comes on top, usually about 4 MB. -1: no limit of size.",
        importance="high",
    )
    rollup_retention_ms: int = setting(
        "rollup.retention.ms",
        -1,
        ge=-1,
        doc="How long rollups are kept: the first, minimum, maximum and last value of five minutes and of an"
        " hour, which charts of long ranges show. -1: no limit of age.",
    )
    publishes: CommaList = setting(
        "publishes",
        ("ALL", "MULTI", "POINT"),
        doc="The publications of a device to store: ALL, MULTI, POINT, OTHER. Others are counted as"
        " skipped.<kind>.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """Return the problems of the file, the kinds and the retentions, each with its key."""
        problems = []
        if self.file is not None and os.path.isdir(self.file):
            problems.append(("file", "is a folder; give a file's path"))
        unknown = [kind for kind in self.publishes if kind not in KINDS]
        if unknown:
            problems.append(("publishes", f"{unknown[0]!r} is not a kind; known: {', '.join(KINDS)}"))
        if 0 <= self.retention_bytes < _MIN_BYTES:
            problems.append(("retention.bytes", f"is less than {_MIN_BYTES}, which one hour may need"))
        if self.rollup_retention_ms != -1 and not 0 <= self.retention_ms <= self.rollup_retention_ms:
            problems.append(
                ("rollup.retention.ms", "is shorter than retention.ms; rollups cannot end before readings")
            )
        return problems

    def path(self, data_dir: Path) -> Path:
        """Return the file of a worker with this folder."""
        return data_dir / FILE_NAME if self.file is None else Path(self.file)


_MIN_BYTES = 1024 * 1024
