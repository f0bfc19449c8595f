"""How a connector comes back to its platform: when, how patiently, under which name and with which keys.

One for the source, the bus sink and the command sink.
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
"""Seconds for the first hello. Who restarts right after a stop may find the identity still taken, and gets no
answer: each second of waiting then costs messages. It doubles where the handshake itself takes longer."""
_LONGEST_HELLO = 10.0
_SHARE = 20
"""A pause is at most this part of the outage so far: it costs at most 5 % more."""


class ReconnectState:
    """Used by one thread.

    ``endpoint``: where and who; called again when the keys are refused, so that new ones are found in
    their files. ``backoff``, ``backoff_max``: seconds between two attempts, from, up to; they grow with the
    outage. Raises ``ValueError`` on keys that cannot be read.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint] | Endpoint,
        backoff: float = 0.1,
        backoff_max: float = 10.0,
        longest_hello: float = _LONGEST_HELLO,
    ) -> None:
        self._read: Callable[[], Endpoint] = (
            (lambda: endpoint) if isinstance(endpoint, Endpoint) else endpoint
        )
        self._backoff, self._backoff_max = backoff, backoff_max
        self._longest_hello = max(longest_hello, _LONGEST_HELLO)
        self._hello = _FIRST_HELLO
        self._spare = 0
        self._away_since: float | None = None
        self._endpoint = _dated(self._read())

    @property
    def endpoint(self) -> Endpoint:
        """Where to connect, as whom, with which keys, at the next attempt."""
        return self._endpoint.beside(self._spare)

    @property
    def identity(self) -> str:
        """Our name, without what is added to it."""
        return self._endpoint.identity

    @property
    def identities(self) -> frozenset[str]:
        """All the names under which we may connect."""
        return frozenset(self._endpoint.beside(number).identity for number in range(IDENTITIES))

    @property
    def hello(self) -> float:
        """Seconds that handshake and hello may take at the next attempt."""
        return self._hello

    def succeeded(self) -> None:
        """A connection stands, and the router has answered."""
        self._away_since = None

    def failed(self, ended: ConnectionEndedError) -> float:
        """A connection was lost or not made; return the seconds until the next attempt."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        self._spare = (self._spare + ended.identity_taken) % IDENTITIES
        if ended.too_slow:
            self._hello = min(self._hello * 2, self._longest_hello)
        if ended.about_keys:
            self._read_keys()
        pause = min(max(self._backoff, (now - self._away_since) / _SHARE), self._backoff_max)
        return pause * random.uniform(0.75, 1.0)

    def _read_keys(self) -> None:
        try:
            found = self._read()
        except ValueError as error:  # perhaps it is being written
            log.warning("the keys cannot be read again, the last ones stay: %s", error)
            return
        if not found.has_keys_of(self._endpoint):
            self._endpoint = _dated(found)
            log.warning("new keys are tried: %s", self._endpoint.keys_from)


def _dated(endpoint: Endpoint) -> Endpoint:
    if not endpoint.keys_from:
        return endpoint
    at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return replace(endpoint, keys_from=f"{endpoint.keys_from}, read at {at}")
