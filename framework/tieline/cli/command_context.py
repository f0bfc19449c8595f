"""What commands of connectors are given."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tieline.api.commands import TopicClient


class WorkerProgram:
    """See ``tieline.api.Program``."""

    def topics(self, worker: Path) -> AbstractContextManager[TopicClient]:
        """See ``Program.topics``."""
        from tieline.cli.topic_client import open_topics

        return open_topics(worker)
