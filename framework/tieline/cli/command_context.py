"""The context of the commands that come with connectors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from tieline.api.commands import TopicClient


class WorkerCommandContext:
    """A ``CommandContext`` for workers of this installation."""

    def topics(self, worker: Path) -> AbstractContextManager[TopicClient]:
        """Open the topics of a worker; see ``CommandContext.topics``."""
        from tieline.cli.topic_client import open_topics

        return open_topics(worker)
