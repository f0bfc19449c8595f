"""A registry that listens: in a thread, beside a worker or alone."""

from __future__ import annotations

import logging
import socket
import ssl
from pathlib import Path
from typing import Any

from tieline.api import Config, StartupError, setting
from tieline.registry.schema_topic import SchemaTopic

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
    max_connections: int = setting(
        "max.connections",
        500,
        ge=1,
        le=100_000,
        doc="Beyond, a new connection closes the one whose client has been waited for longest.",
    )

    def problems(self) -> list[tuple[str, str]]:
        """See ``Config.problems``: the address, and the files."""
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
        from tieline.registry.http.auth import Users

        assert self.users_file is not None
        return Users(self.users_file)


class RegistryServer:
    """Serves the topic until ``stop``. Raises ``StartupError`` where the address is taken."""

    def __init__(self, topic: SchemaTopic, config: RegistryConfig) -> None:
        from starlette.middleware import Middleware

        from tieline.http.connections import Limits
        from tieline.http.server import WebServer
        from tieline.registry.http.app import application
        from tieline.registry.http.auth import Authenticated

        self._topic = topic
        users = None if config.users_file is None else Middleware(Authenticated, config.users())
        app = application(topic, config.max_request_bytes, users)
        host, port = config.address()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise StartupError(f"the schema registry cannot listen on {config.listen}: {error}") from error
        port = listener.getsockname()[1]
        certificate = (config.certificate, config.key) if config.certificate and config.key else None
        self.url = f"http{'s' if certificate else ''}://{f'[{host}]' if ':' in host else host}:{port}"
        limits = Limits(connections=config.max_connections)
        self._server = WebServer(app, listener, limits, name="schema registry", certificate=certificate)

    def start(self, wait: float = 60.0) -> None:
        """Begin to answer, once all that is there was read or ``wait`` seconds are over. Raises ``Fatal``."""
        if not self._topic.follow(wait) and wait > 0:
            log.warning("not all schemas were read yet; until then lists may lack some")
        self._server.start()
        log.info("the schema registry listens", extra={"url": self.url})

    def stop(self) -> None:
        """Answer what was asked, and no more."""
        self._server.stop()
        self._topic.close()
