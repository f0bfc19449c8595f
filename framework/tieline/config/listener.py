"""Where a worker serves its pages: ``listeners``, as in Kafka Connect, and what belongs to it."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from tieline.api import setting
from tieline.http.listener import ListenerConfig

PREFIX = "listeners."
_EXAMPLE = "http://127.0.0.1:8083"


class WorkerListener(ListenerConfig):
    """The listener of a worker. In its file the prefix is ``listeners.``; ``listeners`` is the address."""

    listen: str = setting("listen", "127.0.0.1:8083", doc="Set by listeners.")


def listener_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the listener's settings, from a worker's flat map with ``listeners``. Raises ``ValueError``."""
    below_prefix = {key[len(PREFIX) :]: value for key, value in settings.items() if key.startswith(PREFIX)}
    url = settings["listeners"].strip()
    if "," in url:
        raise ValueError(f"give one address, such as {_EXAMPLE}; a worker has one listener")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme not in ("http", "https") or port is None or parts.path.strip("/") or parts.query:
        raise ValueError(f"{url!r} is not an address such as {_EXAMPLE} or https://0.0.0.0:8443")
    has_certificate = "ssl.certificate.location" in below_prefix
    if (parts.scheme == "https") != has_certificate:
        raise ValueError(
            "https needs listeners.ssl.certificate.location and listeners.ssl.key.location"
            if not has_certificate
            else "with listeners.ssl.certificate.location the address begins with https"
        )
    host = parts.hostname or "0.0.0.0"  # as in Kafka Connect: every address of this machine
    return {**below_prefix, "listen": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
