"""What commands of connectors are given."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tieline.api import Topics


class WorkerProgram:
    """See ``tieline.api.Program``."""

    def topics(self, worker: Path) -> AbstractContextManager[Topics]:
        """See ``Program.topics``."""
        from tieline.cli.topic_client import opened

        return opened(worker)
