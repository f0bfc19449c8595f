"""What the pages of a connector may use of their worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from tieline.api.commands import TopicClient
from tieline.api.pages import Mark, RunningConnector, Viewer
from tieline.config.plan import ConnectorPlan, Plan, SinkPlan
from tieline.plugins.discovery import SINKS, SOURCES, own_name
from tieline.topics.client import WorkerTopics
from tieline.topics.session import BrokerSession
from tieline.ui.sampler import Sampler
from tieline.ui.site import Site
from tieline.ui.store import PageStore


class WorkerPageContext:
    """A ``PageContext`` of a running worker."""

    def __init__(
        self,
        plan: Plan,
        sampler: Sampler,
        store: PageStore,
        is_watched: Callable[[], bool],
        site: Callable[[], Site],
    ) -> None:
        """``site``: returns the pages, which are created with this context."""
        self._plan = plan
        self._sampler = sampler
        self._store = store
        self._is_watched = is_watched
        self._site = site
        self.connectors: Sequence[RunningConnector] = [describe(each) for each in plan.connectors]
        self.data_dir: Path = plan.worker.data_dir

    def ledgers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the ledgers; see ``PageContext.ledgers``."""
        return self._sampler.fresh().ledgers

    @contextmanager
    def topics(self) -> Iterator[TopicClient]:
        """Open the worker's topics; see ``PageContext.topics``."""
        backend, registry = self._plan.backend, self._plan.external_registry
        with ExitStack() as at_exit:
            session = at_exit.enter_context(
                closing(BrokerSession(backend.open(owner=False), backend.name, registry))
            )
            yield WorkerTopics(session, at_exit)

    def render(self, template: str, values: Mapping[str, Any]) -> str:
        """Return a fragment; see ``PageContext.render``."""
        return self._site().fragment(template, values)

    def preference(self, viewer: Viewer, key: str) -> str:
        """Return a preference; see ``PageContext.preference``."""
        return self._store.preference(viewer.name, key)

    def set_preference(self, viewer: Viewer, key: str, value: str) -> None:
        """Store a preference; see ``PageContext.set_preference``."""
        self._store.set_preference(viewer.name, key, value)

    def has_page(self, path: str) -> bool:
        """Return whether there is such a page; see ``PageContext.has_page``."""
        return self._site().has_page(path)

    def marks(self, subjects: Collection[str], start: int, end: int) -> Sequence[Mark]:
        """Return what happened to subjects; see ``PageContext.marks``."""
        return self._site().marks(subjects, start, end)

    def is_watched(self) -> bool:
        """Return whether a page is open; see ``PageContext.is_watched``."""
        return self._is_watched()


def describe(plan: ConnectorPlan) -> RunningConnector:
    """Return a connector for its pages."""
    is_sink = isinstance(plan, SinkPlan)
    plugin = own_name(SINKS if is_sink else SOURCES, plan.settings.connector_class)
    topics = plan.settings.subscription.topics if isinstance(plan, SinkPlan) else ()
    return RunningConnector(
        plan.name, plugin, "sink" if is_sink else "source", plan.connector_settings, tuple(topics)
    )
