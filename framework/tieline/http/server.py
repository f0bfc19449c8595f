"""Serve an ASGI application on a socket, in a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from typing_extensions import Self

from tieline.api import StartupError
from tieline.http.connections import Connections, Limits
from tieline.http.listener import ListenerConfig

Application = Callable[[Any, Any, Any], Awaitable[None]]

_STOP_TIMEOUT = 5.0  # seconds


class WebServer:
    """Serves an application from ``start`` to ``stop``.

    ``certificate``: PEM files of a certificate and its key; with them the server speaks HTTPS only. ``host``:
    the name or address in ``url``, by default the socket's own.
    """

    def __init__(
        self,
        app: Application,
        listener: socket.socket,
        limits: Limits,
        *,
        name: str,
        certificate: tuple[Path, Path] | None = None,
        host: str | None = None,
    ) -> None:
        self.connections = Connections(limits)
        # Connections inherit this option. asyncio does not set it for a socket that was created like this
        # one; then every answer waits 40 ms for the client to acknowledge its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = listener
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            proxy_headers=False,  # anyone may send them, and would forge the address in limits and logs
            timeout_keep_alive=int(limits.idle),
            timeout_graceful_shutdown=2,
        )
        if certificate is not None:
            config.ssl_certfile, config.ssl_keyfile = certificate
        address, port = listener.getsockname()[:2]
        host = host or address
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = _Server(config, self.connections)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @classmethod
    def listen(cls, app: Application, config: ListenerConfig, *, name: str) -> Self:
        """Open the configured address. Raises ``StartupError`` if it cannot be opened.

        ``name`` is the server's name in messages and the name of its thread.
        """
        host, port = config.address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise StartupError(f"the {name} cannot listen on {config.listen}: {error}") from error
        limits = Limits(connections=config.max_connections)
        certificate = (config.certificate, config.key) if config.certificate and config.key else None
        return cls(app, listener, limits, name=name, certificate=certificate, host=host)

    def start(self) -> None:
        """Start to answer requests."""
        self._thread.start()

    def stop(self) -> None:
        """Answer the requests that have arrived, then stop."""
        self._server.should_exit = True
        self._thread.join(_STOP_TIMEOUT)
        self._listener.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._listener])


class _Server(uvicorn.Server):
    """uvicorn's server, with a time limit for the TLS handshake, which precedes a connection's protocol."""

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on the sockets."""
        config = self.config
        create_connection = functools.partial(
            self._connections.create,
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        handshake = None if config.ssl is None else self._connections.limits.head
        create_server = asyncio.get_running_loop().create_server
        self.servers = [
            await create_server(
                create_connection,
                sock=each,
                ssl=config.ssl,
                ssl_handshake_timeout=handshake,
                backlog=config.backlog,
            )
            for each in sockets or ()
        ]
        self.started = True
