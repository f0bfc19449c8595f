"""A registry that listens: in a thread, beside a worker or alone."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from tieline.api import Config, RefuseToStart, setting
from tieline.registry.topic import SchemaTopic

log = logging.getLogger(__name__)

_LOOPBACK = ("127.", "localhost:", "[::1]:")


class RegistryConfig(Config):
    """Where a registry listens, and for whom. In a worker's file below ``schema.registry.``."""

    listen: str = setting("listen", "127.0.0.1:8081", doc="Address and port; only this machine by default.")
    users_file: Path | None = setting(
        "users.file",
        None,
        doc="Who may use it: lines `basic NAME PASSWORD` or `bearer TOKEN`, with `read` behind them.",
    )
    certificate: Path | None = setting("ssl.certificate.location", None, doc="PEM; with it HTTPS is spoken.")
    key: Path | None = setting("ssl.key.location", None, doc="PEM, without a passphrase.")
    max_request_bytes: int = setting(
        "max.request.bytes", 1_000_000, ge=1000, doc="The largest body, and so the largest schema."
    )

    def mistakes(self) -> list[tuple[str, str]]:
        """See ``Config.mistakes``: the address, and the files."""
        wrong = []
        try:
            self.address()
        except ValueError as error:
            wrong.append(("listen", str(error)))
        if self.users_file is None and not self.listen.startswith(_LOOPBACK):
            told = "lets other machines in: name who may use it in users.file, or listen on 127.0.0.1"
            wrong.append(("listen", told))
        if self.users_file is not None:
            try:
                self.users()
            except (OSError, ValueError) as error:
                wrong.append(("users.file", str(error)))
        if (self.certificate is None) != (self.key is None):
            wrong.append(("ssl.key.location", "a certificate and its key come together"))
        elif self.certificate is not None:
            try:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(self.certificate, self.key, lambda: "")
            except (OSError, ValueError) as error:
                wrong.append(("ssl.certificate.location", f"{type(error).__name__}: {error}"))
        return wrong

    def address(self) -> tuple[str, int]:
        """Host and port. Raises ``ValueError``."""
        host, _, port = self.listen.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{self.listen!r} is not HOST:PORT")
        return host.strip("[]"), int(port)

    def users(self) -> Any:
        """Who is in the file. Raises ``OSError``, ``ValueError``."""
        from tieline.registry.access import Users

        assert self.users_file is not None
        return Users(self.users_file)


class RegistryServer:
    """Serves the topic until ``stop``. Raises ``RefuseToStart`` where the address is taken."""

    def __init__(self, topic: SchemaTopic, config: RegistryConfig) -> None:
        import uvicorn
        from starlette.middleware import Middleware

        from tieline.registry.access import Authenticated
        from tieline.registry.http import application

        self._topic = topic
        users = None if config.users_file is None else Middleware(Authenticated, config.users())
        app = application(topic, config.max_request_bytes, users)
        host, port = config.address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise RefuseToStart(f"the schema registry cannot listen on {config.listen}: {error}") from error
        # Connections inherit it. asyncio leaves it out for a socket made like this one, and then every
        # answer waits 40 ms for the client's acknowledgement of its own headers.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = self._socket.getsockname()[1]
        scheme = "http" if config.certificate is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ssl_certfile=config.certificate,
                ssl_keyfile=config.key,
                limit_concurrency=1000,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = threading.Thread(target=self._run, name="schema registry", daemon=True)

    def start(self, wait: float = 60.0) -> None:
        """Begin to answer, once all that is there was read or ``wait`` seconds are over. Raises ``Fatal``."""
        if not self._topic.follow(wait) and wait > 0:
            log.warning("not all schemas were read yet; until then lists may lack some")
        self._thread.start()
        log.info("the schema registry listens", extra={"url": self.url})

    def stop(self) -> None:
        """Answer what was asked, and no more."""
        self._server.should_exit = True
        self._thread.join(5.0)
        self._topic.close()
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
