"""The thread that reads the bus and does nothing else.

A subscriber that stops reading takes a whole platform down after about 12,000 unread messages. Nothing that
happens after this thread may therefore delay it: what it reads goes into a bounded buffer, or is dropped and
counted. The thread maintains the connection: it says hello, subscribes and reads, and sends a VIP ping if the
bus is quiet. After a loss it starts again, with backoff.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import zmq

from tieline_connectors.volttron_bus.buffer import ReceiveBuffer
from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

log = logging.getLogger(__name__)

_BATCH = 500
_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 0.05
_REST_SECONDS = 0.3
"""How long a request to stop, or a deadline, may go unnoticed on a quiet bus."""


@dataclass(frozen=True)
class Subscription:
    """What to read: prefixes of topics, whether of other platforms, too, and the largest message."""

    prefixes: tuple[str, ...]
    all_platforms: bool = False
    max_message_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True)
class PingTiming:
    """How long the bus may be quiet before a ping, and how long an answer may take; in seconds."""

    interval: float = 10.0
    timeout: float = 5.0


class Session(NamedTuple):
    """A subscription: its number, from 1, and its beginning in µs since 1970; 0 if it has ended."""

    number: int
    since: int


class Receiver:
    """Reads the bus into a buffer, in a thread of its own, from ``start`` to ``stop``.

    ``count(name, number)`` counts dropped messages and reconnects. ``report(reason)`` is called after each
    failed attempt to connect, and with ``None`` after a successful one. Both are called in that thread.

    Counters: ``dropped.buffer_full``, ``dropped.too_large``, ``reconnects``.
    """

    def __init__(
        self,
        reconnect: ReconnectState,
        subscription: Subscription,
        buffer: ReceiveBuffer,
        count: Callable[[str, int], None],
        ping_timing: PingTiming = PingTiming(),
        report: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        self.failure: Exception | None = None
        """The bug that has ended the thread."""
        self.session = Session(0, 0)
        """The newest one; any thread may read it."""
        self._reconnect = reconnect
        self._subscription = subscription
        self._buffer = buffer
        self._count = count
        self._ping_timing = ping_timing
        self._stopping = threading.Event()
        self._outage = _Outage(report, count)
        self._reported_too_large = False
        self._thread: threading.Thread | None = None

    @property
    def is_subscribed(self) -> bool:
        """Whether messages arrive now."""
        return self.session.since > 0

    def start(self) -> None:
        """Start the thread; returns at once, whether the platform is available or not."""
        context = contextvars.copy_context()  # so that the thread's log lines carry connector and task
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=f"bus-{self._reconnect.identity}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end, within half a second. Any thread may call it.

        The thread first moves to the buffer what has arrived already; then the buffer is closed.
        """
        self._stopping.set()
        if self._thread is None:
            self._buffer.close()

    def join(self) -> None:
        """Wait until the thread has ended; call ``stop`` before."""
        if self._thread is not None:
            self._thread.join()

    @property
    def is_stopping(self) -> bool:
        """Whether the thread was asked to end."""
        return self._stopping.is_set()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            while not self._stopping.is_set():
                self._run_connection(context)
        except Exception as error:  # noqa: BLE001 - a bug; the task raises it
            self.failure = error
        finally:
            self._buffer.close()
            context.term()

    def _run_connection(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Run one connection until it ends, and wait for the pause after it."""
        try:
            with Connection(context, self._reconnect.endpoint) as connection:
                session = _Session(
                    connection, self._subscription, self._ping_timing, self._keep, self._subscribed
                )
                session.run(self._stopping, self._reconnect.hello_timeout)
        except zmq.ZMQError as error:
            self._failed(ConnectionEndedError(f"the address cannot be used: {error}", about_keys=True))
        except ConnectionEndedError as ended:
            self._failed(ended)

    def _failed(self, ended: ConnectionEndedError) -> None:
        self.session = Session(self.session.number, 0)
        self._outage.begin(ended)
        self._stopping.wait(self._reconnect.failed(ended))

    def _subscribed(self) -> None:
        self._reconnect.succeeded()
        self.session = Session(self.session.number + 1, time.time_ns() // 1000)
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
            if not self._reported_too_large:
                self._reported_too_large = True
                topic = next(f for f in messages if len(f) >= 8 and len(f[7]) > limit)[6]
                log.error(
                    "a message of the topic %s is larger than bus.max.message.bytes (%d) and is dropped; this"
                    " is logged once, dropped.too_large counts",
                    topic[:200].decode(vip.CHARSET),
                    limit,
                )
        dropped = self._buffer.put(kept, time.time_ns() // 1000, self.session.number)
        if dropped:
            self._count("dropped.buffer_full", dropped)


class _Outage:
    """Reports an outage at each failed attempt, and counts it at its end."""

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
    """One connection: hello, subscribe, then messages, with a ping whenever the bus is quiet."""

    def __init__(
        self,
        connection: Connection,
        subscription: Subscription,
        ping_timing: PingTiming,
        keep: Callable[[list[list[bytes]]], None],
        subscribed: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._subscription = subscription
        self._ping_timing = ping_timing
        self._keep = keep
        self._subscribed = subscribed
        self._awaited = b""
        """The id of the request whose answer has not arrived yet."""
        self._deadline = 0.0

    def run(self, stopping: threading.Event, hello_timeout: float) -> None:
        """Read until ``stopping`` is set. Raises ``ConnectionEndedError`` if the connection ends before."""
        self._request(b"hello", vip.hello_request(b"hello"), hello_timeout)
        while not stopping.is_set():
            self._connection.wait(_POLL_SECONDS)
            messages = self._connection.receive(_BATCH)
            if messages:
                self._handle(messages)
            elif self._connection.is_over:
                raise self._connection.ended()
            if time.monotonic() >= self._deadline:
                self._check_liveness()
        self._receive_rest()

    def _receive_rest(self) -> None:
        """Keep what is arriving, until a short pause; a busy bus never pauses, so for a limited time."""
        end = time.monotonic() + _REST_SECONDS
        while time.monotonic() < end:
            self._connection.wait(_PAUSE_SECONDS)
            messages = self._connection.receive(_BATCH)
            if not messages:
                return
            self._handle(messages)

    def _handle(self, messages: list[list[bytes]]) -> None:
        kept = []
        for frames in messages:
            if vip.is_publication(frames):
                kept.append(frames)
            elif (answer := vip.parse_answer(frames)) is None:
                kept.append(frames)  # not VIP: the quarantine keeps it
            elif self._awaited and answer.ident == self._awaited:
                self._handle_answer(answer)
            elif answer.subsystem == b"ping" and list(answer.args[:1]) == [b"ping"]:
                pong = vip.request("", answer.ident, b"ping", b"pong", *answer.args[1:])
                self._connection.send([answer.peer, *pong[1:]])
        if kept:
            self._keep(kept)
            if self._awaited.startswith(b"ping"):
                self._schedule_ping()  # a router that sends messages is alive

    def _handle_answer(self, answer: vip.Answer) -> None:
        if answer.is_error:
            raise ConnectionEndedError(
                f"the router refused {self._awaited.decode()}: {answer.text}", about_keys=True
            )
        if self._awaited == b"hello":
            subscription = self._subscription
            self._request(
                b"subscribe",
                vip.subscribe_request(b"subscribe", subscription.prefixes, subscription.all_platforms),
            )
        elif self._awaited == b"subscribe":
            if list(answer.args) != [b"request_response", b"\x01"]:
                raise ConnectionEndedError(
                    f"the router refused the subscription: {answer.text}", about_keys=True
                )
            self._schedule_ping()
            self._subscribed()
        else:
            self._schedule_ping()

    def _check_liveness(self) -> None:
        """Send a ping after a quiet time. Raises ``ConnectionEndedError`` if an answer is overdue."""
        if not self._awaited:
            self._request(b"ping", vip.ping_request(b"ping"))
        elif self._awaited == b"hello":
            raise self._connection.unanswered_hello()
        else:
            raise ConnectionEndedError(
                f"no answer to {self._awaited.decode()} in {self._ping_timing.timeout:g} s"
            )

    def _request(self, ident: bytes, frames: list[bytes], timeout: float | None = None) -> None:
        self._connection.send(frames)
        self._awaited = ident
        self._deadline = time.monotonic() + (timeout or self._ping_timing.timeout)

    def _schedule_ping(self) -> None:
        self._awaited = b""
        self._deadline = time.monotonic() + self._ping_timing.interval
