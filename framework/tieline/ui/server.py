"""Serves the pages of a running worker, from before its start to after its end."""

from __future__ import annotations

import getpass
import logging
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tieline.api import PluginError
from tieline.api.pages import Alarm, PageContext, Pages, Viewer
from tieline.config.listener import WorkerListener
from tieline.config.plan import Plan, SourcePlan
from tieline.http.authentication import Authenticator
from tieline.http.server import WebServer
from tieline.plugins.discovery import PAGES, installed, load
from tieline.runtime.worker.worker import Worker
from tieline.ui.alarms import AlarmBoard, AlarmPages, FirstSeen, connector_alarms
from tieline.ui.app import PageServices, create_app
from tieline.ui.audit import PageAudit
from tieline.ui.context import WorkerPageContext
from tieline.ui.events import EventHub
from tieline.ui.health import Health
from tieline.ui.metrics import MetricsEndpoint
from tieline.ui.overview import OverviewPages
from tieline.ui.sampler import Sampler
from tieline.ui.sessions import Sessions
from tieline.ui.site import BASE, Site
from tieline.ui.store import PageStore

log = logging.getLogger(__name__)


@contextmanager
def serve_pages(plan: Plan, worker: Worker) -> Iterator[None]:
    """Serve the pages of ``worker`` inside the block, if the plan has a listener. Raises ``StartupError``."""
    if plan.listener is None:
        yield
        return
    with ExitStack() as at_exit:
        server = PageServer(plan, plan.listener, worker, at_exit)
        server.start()
        yield


class PageServer:
    """The pages of one worker; what it opens is closed with ``at_exit``. Raises ``StartupError``."""

    def __init__(self, plan: Plan, listener: WorkerListener, worker: Worker, at_exit: ExitStack) -> None:
        self._at_exit = at_exit
        boot = secrets.token_hex(8)
        data_dir = plan.worker.data_dir
        store = PageStore(data_dir / "pages.db")
        at_exit.callback(store.close)
        accounts = listener.accounts()
        sessions = Sessions(store, accounts, Viewer(_local_user(), "operator"))
        channels: dict[str, Any] = {}
        hub = EventHub(channels, boot)
        self._sampler = Sampler(worker.ledger, hub.is_watched)
        context = WorkerPageContext(plan, self._sampler, store, hub.is_watched, lambda: self._site)
        plugins = load_pages(context)
        health = Health(lambda: _spool_limits(worker), worker.broker_name)
        self._sampler.add_listener(health.note)
        first_seen = FirstSeen()

        def own_alarms() -> list[Alarm]:
            alarms = connector_alarms(self._sampler.fresh().ledgers, health.problems, first_seen)
            first_seen.forget_others()
            return alarms

        sources = {"connectors": own_alarms, **{name: pages.alarms for name, pages in plugins.items()}}
        self.board = AlarmBoard(sources, store, time.time)
        self._pages: dict[str, Pages] = {
            "overview": OverviewPages(context, self._sampler, health, _broker_name(plan)),
            **dict(sorted(plugins.items(), key=lambda item: (item[1].menu_position, item[0]))),
            "alarms": AlarmPages(context, self.board, store),
        }
        for pages in self._pages.values():
            channels.update(pages.channels())
        self._site = Site(_worker_name(), self._pages, sessions)
        authenticator = None if accounts is None else Authenticator(accounts)
        services = PageServices(
            self._site,
            sessions,
            authenticator,
            store,
            PageAudit(data_dir / "audit-pages.log"),
            hub,
        )
        self._hub = hub
        metrics = MetricsEndpoint(worker.metrics, sessions, authenticator)
        self._server = WebServer.listen(create_app(services, boot, metrics), listener, name="page server")

    @property
    def url(self) -> str:
        """The address of the first page."""
        return f"{self._server.url}{BASE}/"

    def start(self) -> None:
        """Start to serve; everything is stopped with ``at_exit``."""
        self._at_exit.callback(self._stop_plugins)
        for pages in self._pages.values():
            pages.start()
        self._sampler.start()
        self._at_exit.callback(self._sampler.stop)
        self.board.start()
        self._at_exit.callback(self.board.stop)
        self._server.start()
        self._at_exit.callback(self._server.stop)
        self._at_exit.callback(self._hub.close)
        log.info("the pages are served", extra={"url": self.url})

    def _stop_plugins(self) -> None:
        for name, pages in self._pages.items():
            try:
                pages.stop()
            except Exception:  # the others must be stopped, too
                log.exception("the pages %s did not stop cleanly", name)


def load_pages(context: PageContext) -> dict[str, Pages]:
    """Return the pages of all plugins by name. One that is broken is logged, and left out."""
    plugins: dict[str, Pages] = {}
    for plugin in installed(PAGES):
        try:
            plugins[plugin.name] = load(PAGES, plugin.name, Pages)(context)
        except PluginError as error:
            log.error("pages are missing: %s", error)
        except Exception:  # a plugin's constructor may raise anything, and the worker's records come first
            log.exception("the pages %s of %s cannot be created", plugin.name, plugin.owner)
    return plugins


def _worker_name() -> str:
    return socket.gethostname() or "localhost"


def _broker_name(plan: Plan) -> str:
    servers = plan.worker.bootstrap_servers
    return f"Kafka at {', '.join(servers)}" if servers else "the local log"


def _spool_limits(worker: Worker) -> dict[str, int]:
    """Return by source how many bytes fit into its spools."""
    return {
        each.name: len(each.spools) * each.plan.settings.spool_max_bytes
        for each in worker.connectors
        if isinstance(each.plan, SourcePlan)
    }


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run as a user without a name
        return "local"
