"""Publishing over one connection, and waiting until the router has confirmed it."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import zmq
from typing_extensions import NamedTuple  # generic in Python 3.10 too

from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError, Endpoint

T = TypeVar("T")

_WINDOW = 32
"""On their way at once: what may come twice after a loss. A real router takes 1,400 messages a second one
by one, 3,000 with 8 on their way, 3,700 with 32 and no more with 128."""
_LOOK_UP = 0.05
"""Seconds until a request to stop, or a lost connection, is noticed."""
_WHEN_STOPPING = 0.5
"""Seconds that a router may still take to confirm once we are asked to stop."""
_SUBSCRIBER_IS_SLOW = str(zmq.EAGAIN).encode()


class PublishRequest(NamedTuple, Generic[T]):
    """One item in its place. ``frames``: to be published; none: there is nothing to do for it."""

    item: T
    frames: list[bytes] | None = None


class PublishResult(NamedTuple, Generic[T]):
    """``refusal``: what the router said against it; empty: it has handed the message on.

    ``slow``: how many subscribers did not get it, because they do not read what they were sent.
    """

    item: T
    refusal: str = ""
    slow: int = 0


class Publisher:
    """A connection to the router that has introduced itself; used by one thread.

    ``timeout``: seconds that the router may take for an answer. Raises
    ``ConnectionEndedError`` when it is over.
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
            self._introduce(hello_timeout)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()

    def ident(self) -> bytes:
        """For the next message; no number, which the router would take for one."""
        return b"p%d" % next(self._numbers)

    def is_over(self) -> bool:
        """Whether the connection was lost meanwhile; also reads what peers sent us in between."""
        self._connection.wait(0)
        self._connection.receive(1000)
        return self._connection.is_over

    def publish(self, steps: Iterable[PublishRequest[T]]) -> Iterator[PublishResult[T]]:
        """Every item in its order, once all before it are confirmed and it is itself.

        Items not returned when ``ConnectionEndedError`` is raised may have been published.
        """
        waiting: deque[PublishRequest[T]] = deque()
        for step in steps:
            if step.frames is not None:
                self._connection.send(step.frames)
            waiting.append(step)
            if len(waiting) >= _WINDOW:
                yield self._done(waiting.popleft())
        while waiting:
            yield self._done(waiting.popleft())

    def _done(self, step: PublishRequest[T]) -> PublishResult[T]:
        slow = 0
        while step.frames is not None:
            answer = self._answer(step.frames[3], self._timeout)
            if answer is None:
                raise ConnectionEndedError(f"the router has not confirmed a message in {self._timeout:g} s")
            if not answer.is_error:
                break
            if answer.args[:1] != [_SUBSCRIBER_IS_SLOW]:
                return PublishResult(step.item, answer.text)
            slow += 1  # the confirmation follows
        return PublishResult(step.item, slow=slow)

    def _introduce(self, timeout: float) -> None:
        self._connection.send(vip.hello_request(b"hello"))
        answer = self._answer(b"hello", timeout)
        if answer is None:
            raise self._connection.unanswered_hello()
        if answer.is_error:
            raise ConnectionEndedError(f"the router refused hello: {answer.text}", about_keys=True)

    def _answer(self, ident: bytes, timeout: float) -> vip.Answer | None:
        """The next one to this request; the router answers in the order of asking. None: not in time."""
        end = time.monotonic() + timeout
        while True:
            while self._arrived:
                answer = self._arrived.popleft()
                if answer.ident == ident:
                    return answer
            if self._stopping.is_set() and self._stop_by is None:
                self._stop_by = time.monotonic() + _WHEN_STOPPING
            left = min(end, self._stop_by or end) - time.monotonic()
            if left <= 0:
                return None
            self._connection.wait(min(left, _LOOK_UP))
            messages = self._connection.receive(1000)
            self._arrived.extend(found for frames in messages if (found := vip.parse_answer(frames)))
            if not messages and self._connection.is_over:
                raise self._connection.ended()
