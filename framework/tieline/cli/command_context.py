"""The context of the commands that come with connectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tieline.api.commands import TopicClient


class WorkerCommandContext:
    """A ``CommandContext`` for workers of this installation."""

    def data_dir(self, worker: Path) -> Path:
        """Return a worker's folder; see ``CommandContext.data_dir``."""
        from tieline.cli.connection import BrokerOptions

        return BrokerOptions(worker).worker_data_dir()

    @contextmanager
    def topics(self, worker: Path) -> Iterator[TopicClient]:
        """Open the topics of a worker; see ``CommandContext.topics``."""
        from tieline.cli.connection import BrokerOptions, open_session
        from tieline.topics.client import WorkerTopics

        with open_session(BrokerOptions(worker)) as session, ExitStack() as at_exit:
            yield WorkerTopics(session, at_exit)
