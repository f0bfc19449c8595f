"""The thread that reads the bus and does nothing else.

One subscriber that stops reading takes a whole platform down (about 12,000 unread messages), so nothing
that happens behind this thread may hold it up: what it reads goes into a bounded buffer, or is dropped
and counted. It keeps the connection by itself: introduce, subscribe, read; a VIP ping when it is quiet;
after a loss all of it again, with backoff.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from tieline_connectors.volttron_bus.buffer import ReceiveBuffer
from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

log = logging.getLogger(__name__)

_BATCH = 500
_LOOK_UP = 0.1
"""Seconds until a request to stop, or a deadline, is noticed on a quiet bus."""


@dataclass(frozen=True)
class Subscription:
    """What to read: router prefixes; of other platforms too; messages up to so many bytes."""

    prefixes: tuple[str, ...]
    all_platforms: bool = False
    max_message_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class PingTiming:
    """Seconds: between pings, until an answer is missed."""

    ping_interval: float = 10.0
    ping_timeout: float = 5.0


class Receiver:
    """Reads the bus into a buffer from ``start`` to ``stop``. ``count(name, number)`` is told of drops,
    ``report(because)`` of each attempt to connect that failed, and with None of one that did not.

    Counters: ``dropped.buffer_full``, ``dropped.too_large``, ``reconnects``.
    """

    def __init__(
        self,
        reconnect: ReconnectState,
        subscription: Subscription,
        buffer: ReceiveBuffer,
        count: Callable[[str, int], None],
        patience: PingTiming = PingTiming(),
        report: Callable[[str | None], None] = lambda because: None,
    ) -> None:
        self.failure: Exception | None = None
        self.is_subscribed = False
        self._reconnect = reconnect
        self._subscription = subscription
        self._buffer = buffer
        self._count = count
        self._patience = patience
        self._stopping = threading.Event()
        self._outage = _Outage(report, count)
        self._told_too_large = False
        here = contextvars.copy_context()  # so that its log lines carry connector and task
        self._thread = threading.Thread(
            target=here.run, args=(self._run,), name=f"bus-{reconnect.identity}", daemon=True
        )

    def start(self) -> None:
        """Begin; returns at once, whether the platform is there or not."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, within a tenth of a second. From any thread."""
        self._stopping.set()
        self._buffer.close()

    def join(self) -> None:
        """Until it has ended; call ``stop`` before."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            while not self._stopping.is_set():
                self._connected(context)
        except Exception as error:  # a bug: the task must learn of it, or it would wait for ever
            self.failure = error
            self._buffer.close()
        finally:
            context.term()

    def _connected(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """One connection from its beginning to its end, and the pause after it."""
        try:
            with Connection(context, self._reconnect.endpoint) as connection:
                session = _Session(
                    connection, self._subscription, self._patience, self._keep, self._subscribed
                )
                session.run(self._stopping, self._reconnect.hello)
        except zmq.ZMQError as error:
            self._failed(ConnectionEndedError(f"the address cannot be used: {error}", about_keys=True))
        except ConnectionEndedError as ended:
            self._failed(ended)

    def _failed(self, ended: ConnectionEndedError) -> None:
        self.is_subscribed = False
        self._outage.begin(ended)
        self._stopping.wait(self._reconnect.failed(ended))

    def _subscribed(self) -> None:
        self._reconnect.succeeded()
        self.is_subscribed = True
        self._outage.end()
        log.info(
            "subscribed",
            extra={
                "prefixes": list(self._subscription.prefixes),
                "address": self._reconnect.endpoint.address,
            },
        )

    def _keep(self, messages: list[list[bytes]]) -> None:
        limit = self._subscription.max_message_bytes
        kept = [frames for frames in messages if len(frames) < 8 or len(frames[7]) <= limit]
        if len(kept) < len(messages):
            self._count("dropped.too_large", len(messages) - len(kept))
            if not self._told_too_large:
                self._told_too_large = True
                topic = next(f for f in messages if len(f) >= 8 and len(f[7]) > limit)[6]
                log.error(
                    "a message of the topic %s is larger than bus.max.message.bytes (%d) and dropped; this is"
                    " told once, dropped.too_large counts",
                    topic[:200].decode(vip.CHARSET),
                    limit,
                )
        dropped = self._buffer.put(kept, time.time_ns() // 1000)
        if dropped:
            self._count("dropped.buffer_full", dropped)


class _Outage:
    """Reported at each attempt, and counted at its end."""

    def __init__(self, report: Callable[[str | None], None], count: Callable[[str, int], None]) -> None:
        self._report = report
        self._count = count
        self._was_connected = False

    def begin(self, ended: ConnectionEndedError) -> None:
        self._report(str(ended))

    def end(self) -> None:
        self._report(None)
        if self._was_connected:
            self._count("reconnects", 1)
        self._was_connected = True


class _Session:
    """One connection: hello, subscribe, then messages, with a ping whenever nothing came for a while."""

    def __init__(
        self,
        connection: Connection,
        subscription: Subscription,
        patience: PingTiming,
        keep: Callable[[list[list[bytes]]], None],
        subscribed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._subscription = subscription
        self._patience = patience
        self._keep = keep
        self._subscribed = subscribed
        self._awaited = b""
        self._deadline = 0.0

    def run(self, stopping: threading.Event, hello_timeout: float) -> None:
        """Until asked to stop. Raises ``ConnectionEndedError`` when the connection is over."""
        self._ask(b"hello", vip.hello_request(b"hello"), hello_timeout)
        while not stopping.is_set():
            self._connection.wait(_LOOK_UP)
            messages = self._connection.receive(_BATCH)
            if messages:
                self._sort(messages)
            elif self._connection.is_over:
                raise self._connection.ended()
            if time.monotonic() >= self._deadline:
                self._be_sure()

    def _sort(self, messages: list[list[bytes]]) -> None:
        kept = []
        for frames in messages:
            if vip.is_publication(frames):
                kept.append(frames)
            elif (answer := vip.parse_answer(frames)) is None:
                kept.append(frames)  # no VIP at all: for the quarantine
            elif self._awaited and answer.ident == self._awaited:
                self._answered(answer)
            elif answer.subsystem == b"ping" and list(answer.args[:1]) == [b"ping"]:
                pong = vip.request("", answer.ident, b"ping", b"pong", *answer.args[1:])
                self._connection.send([answer.peer, *pong[1:]])
        if kept:
            self._keep(kept)
            if self._awaited.startswith(b"ping"):
                self._quiet()  # whoever sends is alive

    def _answered(self, answer: vip.Answer) -> None:
        if answer.is_error:
            raise ConnectionEndedError(
                f"the router refused {self._awaited.decode()}: {answer.text}", about_keys=True
            )
        if self._awaited == b"hello":
            wanted = self._subscription
            self._ask(
                b"subscribe", vip.subscribe_request(b"subscribe", wanted.prefixes, wanted.all_platforms)
            )
        elif self._awaited == b"subscribe":
            if list(answer.args) != [b"request_response", b"\x01"]:
                raise ConnectionEndedError(
                    f"the router refused the subscription: {answer.text}", about_keys=True
                )
            self._quiet()
            self._subscribed()
        else:
            self._quiet()

    def _be_sure(self) -> None:
        if not self._awaited:
            self._ask(b"ping", vip.ping_request(b"ping"))
        elif self._awaited == b"hello":
            raise self._connection.unanswered_hello()
        else:
            raise ConnectionEndedError(
                f"no answer to {self._awaited.decode()} in {self._patience.ping_timeout:g} s"
            )

    def _ask(self, ident: bytes, frames: list[bytes], timeout: float | None = None) -> None:
        self._connection.send(frames)
        self._awaited = ident
        self._deadline = time.monotonic() + (timeout or self._patience.ping_timeout)

    def _quiet(self) -> None:
        self._awaited = b""
        self._deadline = time.monotonic() + self._patience.ping_interval
