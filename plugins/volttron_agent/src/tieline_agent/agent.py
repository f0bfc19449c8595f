"""The agent connects the platform (lifecycle, config store, RPC, health) with the supervisor."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.queue
import gevent.subprocess
from volttron.client import RPC, Agent, Core
from volttron.utils import load_config, vip_main
from volttron.utils.jsonrpc import RemoteError

from tieline_agent.run import Concurrency
from tieline_agent.supervisor import Supervisor

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0

GREENLETS = Concurrency(gevent.subprocess.Popen, gevent.queue.Queue, gevent.spawn)


class TielineAgent(Agent):  # type: ignore[misc]
    """Runs one tieline worker in its own process and environment.

    The platform starts the agent in its folder (``VOLTTRON_HOME/agents/IDENTITY``), which has its files in
    ``data``. A file for ``vctl install --agent-config`` is the default of the entry ``config``.
    """

    def __init__(self, config_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._entries: dict[str, Any] = {}
        self._supervisor = Supervisor(Path("data").absolute(), os.environ, GREENLETS, self._report_health)
        self._reported: tuple[str, dict[str, Any]] | None = None
        default = load_config(config_path) if config_path else None
        if default:
            self.vip.config.set_default("config", default)
        self.vip.config.subscribe(self._configure, pattern="*")
        self._report_health()

    @Core.receiver("onstart")  # type: ignore[untyped-decorator]
    def onstart(self, sender: Any, **kwargs: Any) -> None:
        """Start the supervisor, also with an empty config store."""
        self._supervisor.configure(self._entries)
        gevent.spawn(self._supervisor.run)
        gevent.spawn(self._retry_config_store)

    @Core.receiver("onstop")  # type: ignore[untyped-decorator]
    def onstop(self, sender: Any, **kwargs: Any) -> None:
        """Stop the worker; return in time for the platform, although the worker may take longer."""
        self._supervisor.stop()

    @RPC.export  # type: ignore[untyped-decorator]
    def status(self) -> dict[str, Any]:
        """Return the health with its causes, the worker's process, and the state of each connector."""
        return self._supervisor.status()

    def _retry_config_store(self) -> None:
        """Request our entries again if the platform has refused them.

        VOLTTRON 10 does so right after an install, before it has read the rights that ``vctl`` gave us.
        """
        refused = False
        while True:
            try:
                self.vip.config.list()
            except RemoteError as error:
                if not refused:
                    log.warning("the platform refuses our configuration, retrying: %s", error)
                refused = True
                gevent.sleep(_RETRY_SECONDS)
            else:
                break
        if refused:  # the platform's library requests it once, and reports no change after a refusal
            self.core.configuration.send(self.core)

    def _configure(self, name: str, action: str, contents: Any) -> None:
        """Handle a change of the config store."""
        if action == "DELETE":
            self._entries.pop(name, None)
        else:
            self._entries[name] = contents
        self._supervisor.configure(self._entries)

    def _report_health(self) -> None:
        health = self._supervisor.health()
        if health != self._reported:
            self._reported = health
            self.vip.health.set_status(*health)


def main() -> None:
    """Run the agent; the platform calls it."""
    # The platform stops us by SIGINT, which programs inherit as ignored if a script starts them in the
    # background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(ImportError):  # VOLTTRON 2.x configures its logs by itself
        from volttron.utils.logs import setup_logging

        setup_logging(logging.INFO)
    vip_main(TielineAgent, version="0.1.0")
