"""A schema registry that listens for HTTP clients, in a worker or on its own."""

from __future__ import annotations

import logging

from tieline.api import setting
from tieline.http.listener import ListenerConfig
from tieline.registry.schema_topic import SchemaTopic

log = logging.getLogger(__name__)


class RegistryConfig(ListenerConfig):
    """Where a registry listens, and who may use it. In a worker's file the prefix is ``schema.registry.``."""

    listen: str = setting(
        "listen", "127.0.0.1:8081", doc="Address and port; by default only this machine can connect."
    )


class RegistryServer:
    """Serves a schema topic from ``start`` to ``stop``. Raises ``StartupError`` if the address is in use."""

    def __init__(self, topic: SchemaTopic, config: RegistryConfig) -> None:
        # Imported here, so that a worker without a registry does not load an HTTP framework.
        from tieline.http.server import WebServer
        from tieline.registry.http.app import create_app

        self._topic = topic
        app = create_app(topic, config.max_request_bytes, config.accounts())
        self._server = WebServer.listen(app, config, name="schema registry")
        self.url = self._server.url

    def start(self, wait: float = 60.0) -> None:
        """Start to answer once all schemas have been read, or after ``wait`` seconds.

        Raises ``FatalError``.
        """
        if not self._topic.follow(wait) and wait > 0:
            log.warning("not all schemas have been read yet; lists may be incomplete until then")
        self._server.start()
        log.info("the schema registry listens", extra={"url": self.url})

    def stop(self) -> None:
        """Answer the requests that have arrived, then stop."""
        self._server.stop()
        self._topic.close()
