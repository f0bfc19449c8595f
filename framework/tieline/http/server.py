"""An ASGI application on a socket, in a thread of its own. Knows nothing of what is served."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

from tieline.http.connections import Connections, Limits

Application = Callable[[Any, Any, Any], Awaitable[None]]


class WebServer:
    """Serves until ``stop``. ``certificate`` and key: PEM files; with them it speaks HTTPS alone."""

    def __init__(
        self,
        app: Application,
        listener: socket.socket,
        limits: Limits,
        *,
        name: str,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        self.connections = Connections(limits)
        # Connections inherit it. asyncio leaves it out for a socket made like this one, and then every
        # answer waits 40 ms for the client's acknowledgement of its own headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=int(limits.idle),
            timeout_graceful_shutdown=2,
        )
        if certificate is not None:
            config.ssl_certfile, config.ssl_keyfile = certificate
        self._server = _Server(config, self.connections)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what was asked, and no more."""
        self._server.should_exit = True
        self._thread.join(5.0)
        self._listener.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


class _Server(uvicorn.Server):
    """uvicorn's, with a limit for the handshake of TLS, which comes before there is a connection for it."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        config = self.config
        make = functools.partial(
            self._connections.make,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        handshake = None if config.ssl is None else self._connections.limits.head
        create = asyncio.get_running_loop().create_server
        self.servers = [
            await create(
                make, sock=each, ssl=config.ssl, ssl_handshake_timeout=handshake, backlog=config.backlog
            )
            for each in sockets or ()
        ]
        self.started = True
