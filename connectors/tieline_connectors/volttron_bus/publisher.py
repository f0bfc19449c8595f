"""Publishes over a connection, and waits until the router has confirmed each message."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import zmq
from typing_extensions import NamedTuple  # generic in Python 3.10, too

from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError, Endpoint
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

T = TypeVar("T")
log = logging.getLogger(__name__)

_WINDOW = 32
"""How many messages may be unconfirmed at once, and may be published twice after a loss. A real router takes
1,400 messages per second one by one, 3,000 with a window of 8, 3,700 with 32 and no more with 128."""
_POLL_SECONDS = 0.05
"""How long a request to stop, or a lost connection, may go unnoticed."""
_STOP_SECONDS = 0.5
"""How long the router may still take to confirm after a request to stop."""
_SUBSCRIBER_IS_SLOW = str(zmq.EAGAIN).encode()


class PublishRequest(NamedTuple, Generic[T]):
    """An item in its order, with the frames to publish. ``None``: the item is not published."""

    item: T
    frames: list[bytes] | None = None


class PublishResult(NamedTuple, Generic[T]):
    """What the router answered for an item.

    ``refusal`` is the router's error; empty if it has delivered the message. ``slow`` is the number of
    subscribers that missed the message because they do not read.
    """

    item: T
    refusal: str = ""
    slow: int = 0


class Publisher:
    """A connection to the router that has said hello; used by one thread.

    ``timeout`` is how long the router may take for an answer, in seconds. The constructor and every method
    raise ``ConnectionEndedError`` if the connection ends.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: Endpoint,
        timeout: float,
        hello_timeout: float,
        stopping: threading.Event,
    ) -> None:
        self._timeout = timeout
        self._stopping = stopping
        self._stop_by: float | None = None
        self._numbers = itertools.count(1)
        self._arrived: deque[vip.Answer] = deque()
        try:
            self._connection = Connection(context, endpoint)
        except zmq.ZMQError as error:
            raise ConnectionEndedError(f"the address cannot be used: {error}", about_keys=True) from error
        try:
            self._say_hello(hello_timeout)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def next_ident(self) -> bytes:
        """Return an id for the next message. It is not a number, which the router would read as one."""
        return b"p%d" % next(self._numbers)

    def is_over(self) -> bool:
        """Return whether the connection was lost; also reads what has arrived since the last call."""
        self._connection.wait(0)
        self._connection.receive(1000)
        return self._connection.is_over

    def publish(self, requests: Iterable[PublishRequest[T]]) -> Iterator[PublishResult[T]]:
        """Publish and yield every item in its order, as soon as it and all before it are confirmed.

        If ``ConnectionEndedError`` is raised, items that were not yielded may have been published or not.
        """
        waiting: deque[PublishRequest[T]] = deque()
        for request in requests:
            if request.frames is not None:
                self._connection.send(request.frames)
            waiting.append(request)
            if len(waiting) >= _WINDOW:
                yield self._await_confirmation(waiting.popleft())
        while waiting:
            yield self._await_confirmation(waiting.popleft())

    def _await_confirmation(self, request: PublishRequest[T]) -> PublishResult[T]:
        slow = 0
        while request.frames is not None:
            answer = self._next_answer(request.frames[3], self._timeout)
            if answer is None:
                raise ConnectionEndedError(f"the router has not confirmed a message in {self._timeout:g} s")
            if not answer.is_error:
                break
            if answer.args[:1] != [_SUBSCRIBER_IS_SLOW]:
                return PublishResult(request.item, answer.text)
            slow += 1  # the confirmation follows
        return PublishResult(request.item, slow=slow)

    def _say_hello(self, timeout: float) -> None:
        self._connection.send(vip.hello_request(b"hello"))
        answer = self._next_answer(b"hello", timeout)
        if answer is None:
            raise self._connection.unanswered_hello()
        if answer.is_error:
            raise ConnectionEndedError(f"the router refused hello: {answer.text}", about_keys=True)

    def _next_answer(self, ident: bytes, timeout: float) -> vip.Answer | None:
        """Return the next answer to the request ``ident``, or ``None`` if it does not come in time.

        The router answers in the order of the requests, so that answers to earlier ones can be skipped.
        """
        end = time.monotonic() + timeout
        while True:
            while self._arrived:
                answer = self._arrived.popleft()
                if answer.ident == ident:
                    return answer
            if self._stopping.is_set() and self._stop_by is None:
                self._stop_by = time.monotonic() + _STOP_SECONDS
            left = min(end, self._stop_by or end) - time.monotonic()
            if left <= 0:
                return None
            self._connection.wait(min(left, _POLL_SECONDS))
            messages = self._connection.receive(1000)
            self._arrived.extend(parsed for frames in messages if (parsed := vip.parse_answer(frames)))
            if not messages and self._connection.is_over:
                raise self._connection.ended()


class ReconnectingPublisher:
    """Keeps one publisher and replaces it after a loss; used by one thread.

    ``stopping`` is set to shorten waits. ``count`` counts ``reconnects``.
    """

    def __init__(
        self,
        reconnect: ReconnectState,
        timeout: float,
        stopping: threading.Event,
        count: Callable[[str], None],
    ) -> None:
        self._reconnect = reconnect
        self._timeout = timeout
        self._stopping = stopping
        self._count = count
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._publisher: Publisher | None = None
        self._was_connected = False

    def connect(self) -> Publisher:
        """Return the publisher, a new one if the last was lost. Raises ``ConnectionEndedError``."""
        if self._publisher is not None and self._publisher.is_over():
            self._disconnect()
        if self._publisher is None:
            endpoint = self._reconnect.endpoint
            self._publisher = Publisher(
                self._context, endpoint, self._timeout, self._reconnect.hello_timeout, self._stopping
            )
            if self._was_connected:
                self._count("reconnects")
            self._was_connected = True
            log.info("publishing", extra={"address": endpoint.address, "identity": endpoint.identity})
        return self._publisher

    def succeeded(self) -> None:
        """Note that messages were confirmed; the next pause is a short one."""
        self._reconnect.succeeded()

    def lost(self, ended: ConnectionEndedError) -> float:
        """Close the lost connection; return the seconds until the next attempt."""
        self._disconnect()
        return self._reconnect.failed(ended)

    def close(self) -> None:
        """Close the connection and release all sockets. Always the last call."""
        self._disconnect()
        self._context.term()

    def _disconnect(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()
