"""How a connector reconnects to its platform: pauses, timeouts, identity and keys.

The bus source, the bus sink and the command sink use it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone

from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError, Endpoint

log = logging.getLogger(__name__)

IDENTITIES = 10
_FIRST_HELLO = 1.0
"""Seconds for the first hello. Right after a restart the identity may still be taken, and the router does not
answer. Each second of waiting then costs messages. The time doubles if the handshake itself takes longer."""
_LONGEST_HELLO = 10.0
_SHARE = 20
"""A pause is at most a twentieth of the outage so far, so that it prolongs the outage by at most 5 %."""


class ReconnectState:
    """What the next attempt to connect uses. Not thread-safe.

    ``endpoint`` returns address, identity and keys. It is called again after the keys were rejected, and then
    re-reads the key files. ``backoff`` and ``backoff_max`` are the shortest and the longest pause between two
    attempts, in seconds; pauses grow with the outage.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint] | Endpoint,
        backoff: float = 0.1,
        backoff_max: float = 10.0,
        longest_hello: float = _LONGEST_HELLO,
    ) -> None:
        self._read_endpoint: Callable[[], Endpoint] = (
            (lambda: endpoint) if isinstance(endpoint, Endpoint) else endpoint
        )
        self._backoff, self._backoff_max = backoff, backoff_max
        self._longest_hello = max(longest_hello, _LONGEST_HELLO)
        self._hello_timeout = _FIRST_HELLO
        self._suffix = 0
        self._lost_at: float | None = None
        self._endpoint: Endpoint | None = None

    def load(self) -> Endpoint:
        """Read address, identity and keys once. Raises ``ValueError`` if the keys are unreadable."""
        if self._endpoint is None:
            self._endpoint = _with_date(self._read_endpoint())
        return self._endpoint

    @property
    def endpoint(self) -> Endpoint:
        """Address, identity and keys of the next attempt. Raises ``ValueError`` as ``load`` does."""
        return self.load().with_suffix(self._suffix)

    @property
    def identity(self) -> str:
        """Our identity without a suffix."""
        return self.load().identity

    @property
    def identities(self) -> frozenset[str]:
        """All identities under which we may connect."""
        return frozenset(self.load().with_suffix(number).identity for number in range(IDENTITIES))

    @property
    def hello_timeout(self) -> float:
        """How long handshake and hello may take at the next attempt, in seconds."""
        return self._hello_timeout

    def succeeded(self) -> None:
        """Note that a connection works: the router has answered."""
        self._lost_at = None

    def failed(self, ended: ConnectionEndedError) -> float:
        """Note that a connection was lost or failed; return the seconds until the next attempt."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        self._suffix = (self._suffix + ended.identity_taken) % IDENTITIES
        if ended.too_slow:
            self._hello_timeout = min(self._hello_timeout * 2, self._longest_hello)
        if ended.about_keys:
            self._read_keys()
        pause = min(max(self._backoff, (now - self._lost_at) / _SHARE), self._backoff_max)
        return pause * random.uniform(0.75, 1.0)

    def _read_keys(self) -> None:
        try:
            endpoint = self._read_endpoint()
        except ValueError as error:  # the file may be half written
            log.warning("cannot re-read the keys, keeping the last ones: %s", error)
            return
        if not endpoint.has_same_keys(self.load()):
            self._endpoint = _with_date(endpoint)
            log.warning("trying new keys: %s", self._endpoint.keys_from)


def _with_date(endpoint: Endpoint) -> Endpoint:
    if not endpoint.keys_from:
        return endpoint
    now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return replace(endpoint, keys_from=f"{endpoint.keys_from}, read at {now}")
