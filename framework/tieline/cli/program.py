"""What commands of connectors are given."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tieline.api import Topics


class WorkerProgram:
    """See ``tieline.api.Program``."""

    def topics(self, worker: Path) -> AbstractContextManager[Topics]:
        """See ``Program.topics``."""
        from tieline.cli.topics import opened  # the brokers are loaded only where they are used

        return opened(worker)
