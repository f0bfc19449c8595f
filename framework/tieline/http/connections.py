"""HTTP connections with limits: a client that is slow, or silent, costs itself alone.

uvicorn has no time limit for a request's head or body, and refuses everybody where one client holds all
connections. Knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = logging.getLogger(__name__)

_LAST_BYTES = 5.0  # seconds that a client has to take what is left, when its connection is closed
_TOLD_EVERY = 60.0  # seconds between two log lines


class Limits(NamedTuple):
    """What a client may take. Times in seconds.

    ``head``: from a request's first byte, or the connection's beginning, to the end of its headers (and for
    the handshake of TLS). ``body``: from there to the end of the body. ``answer``: until a client that is
    behind has taken what was sent. ``idle``: between two requests. The time of answering is not limited.
    """

    connections: int = 500
    head: float = 10.0
    body: float = 30.0
    answer: float = 30.0
    idle: float = 30.0


class Waiting(NamedTuple):
    """A connection whose client we wait for: where it comes from, and since when (any clock)."""

    address: str
    since: float


def longest_waiting(waiting: Iterable[Waiting]) -> Waiting | None:
    """Who makes room for a newcomer: of the address with the most connections, who has waited longest."""
    found = list(waiting)
    per_address = Counter(each.address for each in found)
    return min(found, key=lambda each: (-per_address[each.address], each.since), default=None)


class Connections:
    """The connections of one server; used by its event loop alone."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._open: set[Connection] = set()
        self._told = float("-inf")
        self._closed = 0

    def __len__(self) -> int:
        return len(self._open)

    def make(self, **uvicorns: Any) -> Connection:
        """The protocol of a new connection."""
        return Connection(self, **uvicorns)

    def enter(self, new: Connection) -> bool:
        """Let a connection in, for which another one may have to go. False: none can, and it is too many."""
        if len(self._open) >= self.limits.connections:
            by_place = {each.waiting: each for each in self._open if each.waiting is not None}
            chosen = longest_waiting(by_place)
            self._tell(new.loop.time())
            if chosen is None:
                return False
            self._open.discard(by_place[chosen])
            by_place[chosen].transport.abort()
        self._open.add(new)
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)

    def _tell(self, now: float) -> None:
        self._closed += 1
        if now - self._told >= _TOLD_EVERY:
            log.warning(
                "%s connection(s) were closed for new ones: there are more than %s at once",
                self._closed,
                self.limits.connections,
            )
            self._told, self._closed = now, 0


class Connection(H11Protocol):
    """One client's. At any time it is waited for (head, body), or answered, or has to take its answer."""

    def __init__(self, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.waiting: Waiting | None = None
        self._connections = connections
        self._deadline: asyncio.TimerHandle | None = None
        self._for: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if self._connections.enter(self):
            self._wait("head")
        else:
            self._refuse(b"503 Service Unavailable")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait(None)
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Part of a request, which does not begin its time anew."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request: uvicorn's timer runs until its first byte."""
        super().on_response_complete()
        self._look(idle=True)

    def pause_writing(self) -> None:
        """The client is behind with taking what was sent."""
        super().pause_writing()
        self._wait("answer")

    def resume_writing(self) -> None:
        """It has taken most of it."""
        super().resume_writing()
        self._wait(None)
        self._look(idle=True)

    def timeout_keep_alive_handler(self) -> None:
        """No further request came."""
        super().timeout_keep_alive_handler()
        self.loop.call_later(_LAST_BYTES, self.transport.abort)

    def _look(self, *, idle: bool = False) -> None:
        """Find out what is waited for."""
        if self.transport.is_closing() or self._for == "answer":
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._wait("body" if cycle.more_body else None)
        elif idle and self.timeout_keep_alive_task is not None:
            self._wait("idle")
        elif self.timeout_keep_alive_task is None:
            self._wait("head")

    def _wait(self, part: str | None) -> None:
        if part == self._for:
            return
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._for = part
        self.waiting = None
        if part is None:
            return
        self.waiting = Waiting(self.client[0] if self.client else "", self.loop.time())
        if part != "idle":
            seconds = getattr(self._connections.limits, part)
            self._deadline = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        is_answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if self._for == "answer" or is_answering:
            self.transport.abort()
        else:
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.transport.close()
        self.loop.call_later(_LAST_BYTES, self.transport.abort)
