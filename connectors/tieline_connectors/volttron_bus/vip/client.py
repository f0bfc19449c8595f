"""A blocking client of the VIP router for one thread: RPC, publish, subscribe, ping."""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import zmq
from typing_extensions import Self

from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip import jsonrpc
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError, Endpoint
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState


class VipError(Exception):
    """The router or a peer rejected a request, or did not answer in time."""


class VipTimeoutError(VipError):
    """No answer came in time: whether the request was executed is unknown."""


class PeerUnreachableError(VipError):
    """The router answered that the peer is not connected: the request was not executed."""


class InvalidAnswerError(VipError):
    """The peer's answer is invalid: whether the request was executed is unknown. The connection works."""


class RpcError(VipError):
    """The method raised, or does not exist. ``code`` is JSON-RPC's; ``detail`` is the peer's ``data``."""

    def __init__(self, message: str, code: int, detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail

    @property
    def reason(self) -> str:
        """The peer's message with its detail in one line; 2.x sends a trace, whose last line says it."""
        detail = self.detail.get("detail", self.detail) if isinstance(self.detail, dict) else self.detail
        lines = (
            [line for line in detail.splitlines() if line.strip()] if isinstance(detail, str) else [detail]
        )
        last = jsonrpc.to_short_text(lines[-1]) if lines and lines[-1] else ""
        return f"{str(self)[:300]}{f' ({last[:300]})' if last else ''}"


class BusMessage(NamedTuple):
    """A message of the bus, as an agent's callback receives it."""

    topic: str
    sender: str
    headers: dict[str, Any]
    body: Any


class VipClient:
    """One connection to a router, open until ``close`` or the end of ``with``. It does not reconnect.

    Messages of subscriptions that arrive during a call are kept for ``messages``. A call ends within a second
    if ``stopping`` returns true.
    """

    def __init__(self, endpoint: Endpoint, stopping: Callable[[], bool] = lambda: False) -> None:
        self._endpoint = endpoint
        self._stopping = stopping
        self._numbers = itertools.count(1)
        self._answers: dict[bytes, vip.Answer] = {}
        self._pending: dict[bytes, tuple[bytes, bytes]] = {}
        self._messages: deque[BusMessage] = deque()
        self._subscribed = False
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._connection = Connection(self._context, endpoint, linger_ms=500)
        except zmq.ZMQError:
            self._context.term()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Always the last call."""
        self._connection.close()
        self._context.term()

    def hello(self, timeout: float = 5.0) -> str:
        """Return the router's identity, which changes at each of its starts. Raises ``VipError``.

        If no answer came, ``ended`` returns the reason.
        """
        ident = self._ident()
        args = self._ask(vip.hello_request(ident), ident, timeout).args
        if len(args) < 3 or args[0] != b"welcome":
            raise VipError(f"the router did not answer hello with welcome: {args}")
        return args[2].decode(vip.CHARSET)

    def ping(self, peer: str = "", timeout: float = 5.0) -> None:
        """Return as soon as the router, or a peer, answers. Raises ``VipError``."""
        ident = self._ident()
        self._ask(vip.ping_request(ident, peer), ident, timeout)

    def subscribe(self, *prefixes: str, timeout: float = 5.0) -> None:
        """Subscribe to topics that begin with one of these. Raises ``VipError``."""
        ident = self._ident()
        self._subscribed = True
        answer = self._ask(vip.subscribe_request(ident, prefixes), ident, timeout)
        if list(answer.args) != [b"request_response", b"\x01"]:
            raise VipError(f"the router refused the subscription: {answer.text}")

    def unsubscribe(self, *prefixes: str, timeout: float = 5.0) -> None:
        """End the subscription and drop what has arrived. Raises ``VipError``."""
        ident = self._ident()
        self._ask(vip.unsubscribe_request(ident, prefixes), ident, timeout)
        self._subscribed = False
        self._messages.clear()

    def ended(self) -> ConnectionEndedError:
        """Return why there is no answer: the connection has ended, or the router is silent."""
        return self._connection.ended() if self.is_over else self._connection.unanswered_hello()

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended; every further call fails."""
        return self._connection.is_over

    def publish(self, topic: str, headers: Mapping[str, Any], body: Any, timeout: float = 5.0) -> int:
        """Publish, wait for the router's confirmation and return the number of subscribers.

        Raises ``ValueError`` on content that would harm the platform, ``VipError`` on a failure.
        """
        ident = self._ident()
        answer = self._ask(vip.publish_request(ident, topic, headers, body), ident, timeout)
        try:
            (count,) = struct.unpack("I", answer.args[1])
        except (IndexError, struct.error):
            raise VipError(f"the router's answer to a publish cannot be read: {answer.text}") from None
        return int(count)

    def publish_unconfirmed(self, topic: str, headers: Mapping[str, Any], body: Any) -> None:
        """Publish without waiting for the confirmation. Raises ``ValueError``."""
        self._connection.send(vip.publish_request(self._ident(), topic, headers, body))

    def call(self, peer: str, method: str, *args: Any, timeout: float = 10.0, **kwargs: Any) -> Any:
        """Call a method of a peer by JSON-RPC 2.0.

        Raises ``RpcError`` if it answered with an error, ``VipTimeoutError``, ``InvalidAnswerError`` or
        another ``VipError``.
        """
        ident = self._ident()
        body = jsonrpc.request(ident.decode(), method, args, kwargs)
        answer = self._ask(vip.request(peer, ident, b"RPC", body), ident, timeout)
        try:
            result = jsonrpc.result(answer.args[0] if answer.args else b"", ident.decode())
        except jsonrpc.MalformedAnswerError as error:
            raise InvalidAnswerError(f"{peer}: {method}: {error}") from None
        if isinstance(result, jsonrpc.Fault):
            raise RpcError(f"{peer}: {method}: {result.message}", result.code, result.data)
        return result

    def messages(self, timeout: float, count: int | None = None) -> list[BusMessage]:
        """Return what arrives within ``timeout`` seconds, or sooner if there are ``count`` messages."""
        end = time.monotonic() + timeout
        while (count is None or len(self._messages) < count) and (left := end - time.monotonic()) > 0:
            self._receive(left)
        number = len(self._messages) if count is None else min(count, len(self._messages))
        return [self._messages.popleft() for _ in range(number)]

    def _ident(self) -> bytes:
        return b"m%d" % next(self._numbers)

    def _ask(self, frames: Sequence[bytes], ident: bytes, timeout: float) -> vip.Answer:
        peer = frames[0].decode(vip.CHARSET) or "the router"
        end = time.monotonic() + timeout
        self._pending[ident] = frames[0], frames[4]
        try:
            self._connection.send(frames)
            while ident not in self._answers:
                left = end - time.monotonic()
                if left <= 0:
                    raise VipTimeoutError(f"{peer} gave no answer to {frames[4].decode()} in {timeout:g} s")
                self._receive(left)
                if self._stopping() and ident not in self._answers:
                    raise VipError("the call is abandoned, because the connector stops")
                if self._connection.is_over and ident not in self._answers:
                    raise VipError(
                        f"the connection to {self._endpoint.address} is {self._connection.state.value}"
                    )
            answer = self._answers.pop(ident)
        finally:
            self._pending.pop(ident, None)
            self._answers.pop(ident, None)
        if answer.is_error:
            message = f"{peer}: {jsonrpc.to_short_text(answer.text)}"
            raise InvalidAnswerError(message) if answer.peer else PeerUnreachableError(message)
        return answer

    def _receive(self, seconds: float) -> None:
        self._connection.wait(min(seconds, 1.0))
        for frames in self._connection.receive(1000):
            if vip.is_publication(frames):
                if self._subscribed and (message := _message(frames)) is not None:
                    self._messages.append(message)
            elif (answer := vip.parse_answer(frames)) and self._is_expected(answer):
                self._answers[answer.ident] = answer

    def _is_expected(self, answer: vip.Answer) -> bool:
        """Return whether this answer comes from the peer of a pending request; any peer may send anything.

        The router's errors come from the router, whose name is empty.
        """
        pending = self._pending.get(answer.ident)
        if pending is None:
            return False
        peer, subsystem = pending
        if answer.is_error:
            return answer.peer in (peer, b"")
        return answer.peer == peer and answer.subsystem == subsystem


def connect_client(reconnect: ReconnectState, stopping: Callable[[], bool] = lambda: False) -> VipClient:
    """Return a client whose hello was answered. Raises ``VipError`` with the reason and the fix.

    ``reconnect`` learns from a failure: the next attempt may use new keys, another identity or more time.
    """
    try:
        client = VipClient(reconnect.endpoint, stopping)
    except zmq.ZMQError as error:
        raise VipError(f"the address cannot be used: {error}") from error
    try:
        client.hello(reconnect.hello_timeout)
    except VipError as error:
        silent = isinstance(error, VipTimeoutError) or client.is_over
        ended = client.ended() if silent else ConnectionEndedError(str(error), about_keys=True)
        reconnect.failed(ended)
        client.close()
        raise VipError(str(ended)) from error
    except BaseException:
        client.close()
        raise
    reconnect.succeeded()
    return client


def _message(frames: Sequence[bytes]) -> BusMessage | None:
    """Return a publication as a message, or ``None`` if its parts are invalid."""
    if len(frames) < 8 or vip.is_deeper_than(frames[7], vip.MAX_DEPTH + 1):
        return None
    try:
        body = json.loads(frames[7].decode(vip.CHARSET))
        sender, headers = body["sender"], body["headers"]
        message = BusMessage(frames[6].decode(vip.CHARSET), sender, headers, body["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return message if isinstance(sender, str) and isinstance(headers, dict) else None
