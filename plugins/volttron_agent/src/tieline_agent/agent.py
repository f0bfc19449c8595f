"""The agent: between the platform (lifecycle, config store, RPC, health) and the supervisor."""

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

from tieline_agent.run import Ways
from tieline_agent.supervisor import Supervisor

log = logging.getLogger(__name__)

_ASK_AGAIN = 1.0

GREENLETS = Ways(gevent.subprocess.Popen, gevent.queue.Queue, gevent.spawn)


class TielineAgent(Agent):  # type: ignore[misc]
    """Runs one tieline worker in a process and an environment of its own.

    The platform starts it in its folder (``VOLTTRON_HOME/agents/IDENTITY``); what it keeps is in ``data``
    there. A file given to ``vctl install --agent-config`` is the default of the entry ``config``.
    """

    def __init__(self, config_path: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._entries: dict[str, Any] = {}
        self._supervisor = Supervisor(Path("data").absolute(), os.environ, GREENLETS, self._tell)
        self._told: tuple[str, dict[str, Any]] | None = None
        default = load_config(config_path) if config_path else None
        if default:
            self.vip.config.set_default("config", default)
        self.vip.config.subscribe(self._configure, pattern="*")
        self._tell()

    @Core.receiver("onstart")  # type: ignore[untyped-decorator]
    def onstart(self, sender: Any, **kwargs: Any) -> None:
        """Begin, also where the config store is empty."""
        self._supervisor.configure(self._entries)
        gevent.spawn(self._supervisor.run)
        gevent.spawn(self._insist_on_the_store)

    @Core.receiver("onstop")  # type: ignore[untyped-decorator]
    def onstop(self, sender: Any, **kwargs: Any) -> None:
        """Stop the worker; the platform is told in time, the worker may take longer."""
        self._supervisor.stop()

    @RPC.export  # type: ignore[untyped-decorator]
    def status(self) -> dict[str, Any]:
        """The health with its causes, the worker's process, and what it last told of each connector."""
        return self._supervisor.status()

    def _insist_on_the_store(self) -> None:
        """Ask again for our entries where the platform has refused them, as VOLTTRON 10 does right after an
        install: it has not yet read the rights that ``vctl`` has just given us.
        """
        refused = False
        while True:
            try:
                self.vip.config.list()
            except RemoteError as error:
                if not refused:
                    log.warning("the platform does not give us our configuration yet: %s", error)
                refused = True
                gevent.sleep(_ASK_AGAIN)
            else:
                break
        if refused:  # the platform's own library asks once, and tells of no change after it was refused
            self.core.configuration.send(self.core)

    def _configure(self, name: str, action: str, contents: Any) -> None:
        """A change of the config store."""
        if action == "DELETE":
            self._entries.pop(name, None)
        else:
            self._entries[name] = contents
        self._supervisor.configure(self._entries)

    def _tell(self) -> None:
        told = self._supervisor.health()
        if told != self._told:
            self._told = told
            self.vip.health.set_status(*told)


def main() -> None:
    """What the platform starts."""
    # The platform asks us to stop by SIGINT, which is ignored by all that a script starts in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with suppress(ImportError):  # VOLTTRON 2.x sets its logs up by itself
        from volttron.utils.logs import setup_logging

        setup_logging(logging.INFO)
    vip_main(TielineAgent, version="0.1.0")
