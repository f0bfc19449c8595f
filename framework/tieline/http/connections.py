"""HTTP connections with limits, so that a slow or silent client harms only itself.

uvicorn has no time limit for a request's head or body. When one client holds all connections, it rejects
every other client.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = logging.getLogger(__name__)

_CLOSE_TIMEOUT = 5.0  # seconds that a client has to read the last bytes before its connection is aborted
_WARNING_INTERVAL = 60.0  # seconds between two log lines


class Limits(NamedTuple):
    """What one server grants to its clients. Times are in seconds.

    ``head``: from a request's first byte, or the start of the connection, to the end of its headers. The TLS
    handshake has as long. ``body``: from there to the end of the body. ``answer``: until a slow client has
    read what was sent. ``idle``: between two requests. Computing an answer has no limit.
    """

    connections: int = 500
    head: float = 10.0
    body: float = 30.0
    answer: float = 30.0
    idle: float = 30.0


class Waiting(NamedTuple):
    """A connection on which the server waits for its client: the client's address, and since when."""

    address: str
    since: float


def longest_waiting(waiting: Iterable[Waiting]) -> Waiting | None:
    """Return the connection to close for a new one, or ``None`` if there is none to close.

    Of the address with the most waiting connections, it is the one that has waited longest.
    """
    candidates = list(waiting)
    per_address = Counter(candidate.address for candidate in candidates)
    return min(candidates, key=lambda each: (-per_address[each.address], each.since), default=None)


class Connections:
    """The connections of one server. Only the server's event loop may use it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[Connection] = set()
        self._last_warning = float("-inf")
        self._closed = 0

    def __len__(self) -> int:
        return len(self._open)

    def create(self, **uvicorn_options: Any) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, **uvicorn_options)

    def add(self, new: Connection) -> bool:
        """Admit a connection and return True; at the limit, another connection is closed for it.

        Return False if the limit is reached and every connection is being answered.
        """
        if len(self._open) >= self.limits.connections:
            by_waiting = {each.waiting: each for each in self._open if each.waiting is not None}
            chosen = longest_waiting(by_waiting)
            self._warn(new.loop.time())
            if chosen is None:
                return False
            self._open.discard(by_waiting[chosen])
            by_waiting[chosen].transport.abort()
        self._open.add(new)
        return True

    def remove(self, connection: Connection) -> None:
        """Remove a connection that has been closed."""
        self._open.discard(connection)

    def _warn(self, now: float) -> None:
        self._closed += 1
        if now - self._last_warning >= _WARNING_INTERVAL:
            log.warning(
                "the limit of %s connections was reached; %s connection(s) were closed for new ones",
                self.limits.connections,
                self._closed,
            )
            self._last_warning, self._closed = now, 0


class Connection(H11Protocol):
    """One client's connection.

    At any time the server either waits for the client (its request's head or body, its next request, or
    until it has read the answer), or computes an answer.
    """

    def __init__(self, connections: Connections, **uvicorn_options: Any) -> None:
        super().__init__(**uvicorn_options)
        self.waiting: Waiting | None = None
        self._connections = connections
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_for: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request, or refuse the connection."""
        super().connection_made(transport)
        if self._connections.add(self):
            self._wait_for("head")
        else:
            self._refuse(b"503 Service Unavailable")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to wait, and free the connection's place."""
        self._wait_for(None)
        self._connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Receive part of a request. It does not restart the time that the request has."""
        super().data_received(data)
        self._update()

    def on_response_complete(self) -> None:
        """Wait for the next request; uvicorn's own timer runs until its first byte."""
        super().on_response_complete()
        self._update(is_idle=True)

    def pause_writing(self) -> None:
        """Start to wait for a client that is slow to read."""
        super().pause_writing()
        self._wait_for("answer")

    def resume_writing(self) -> None:
        """Continue, since the client has read most of what was sent."""
        super().resume_writing()
        self._wait_for(None)
        self._update(is_idle=True)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection, since no further request came."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_CLOSE_TIMEOUT, self.transport.abort)

    def _update(self, *, is_idle: bool = False) -> None:
        """Decide what the server waits for now."""
        if self.transport.is_closing() or self._waits_for == "answer":
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._wait_for("body" if cycle.more_body else None)
        elif is_idle and self.timeout_keep_alive_task is not None:
            self._wait_for("idle")
        elif self.timeout_keep_alive_task is None:
            self._wait_for("head")

    def _wait_for(self, part: str | None) -> None:
        if part == self._waits_for:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._waits_for = part
        self.waiting = None
        if part is None:
            return
        self.waiting = Waiting(self.client[0] if self.client else "", self.loop.time())
        if part != "idle":
            seconds = getattr(self._connections.limits, part)
            self._deadline = self.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        is_answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if self._waits_for == "answer" or is_answering:
            self.transport.abort()
        else:
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.transport.close()
        self.loop.call_later(_CLOSE_TIMEOUT, self.transport.abort)
