"""A client of the VIP router for one thread that asks and waits: RPC, publish, subscribe, ping."""

from __future__ import annotations

import itertools
import json
import struct
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import zmq
from typing_extensions import Self

from tieline_connectors.volttron_bus.vip import frames as vip
from tieline_connectors.volttron_bus.vip import jsonrpc
from tieline_connectors.volttron_bus.vip.connection import Connection, ConnectionEndedError, Endpoint


class VipError(Exception):
    """The other end refused, or did not answer in time; the message says which."""


class VipTimeoutError(VipError):
    """No answer in time: whether it was done is unknown."""


class PeerUnreachableError(VipError):
    """The router answered that the peer is not there: nothing was done."""


class InvalidAnswerError(VipError):
    """The peer's answer cannot be understood: whether it was done is unknown. The connection is fine."""


class RpcError(VipError):
    """The method raised, or does not exist. ``code`` is JSON-RPC's; ``detail`` what the peer added."""

    def __init__(self, message: str, code: int, detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.detail = detail


class BusMessage(NamedTuple):
    """A message of the bus, as an agent's callback gets it."""

    topic: str
    sender: str
    headers: dict[str, Any]
    body: Any


class VipClient:
    """One connection to a router; open it with ``with``. It does not reconnect: make another one.

    Messages of subscriptions that arrive while a call waits are kept for ``messages``.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._numbers = itertools.count(1)
        self._answers: dict[bytes, vip.Answer] = {}
        self._waited: dict[bytes, tuple[bytes, bytes]] = {}
        self._messages: deque[BusMessage] = deque()
        self._subscribed = False
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        try:
            self._connection = Connection(self._context, self._endpoint, linger_ms=500)
        except zmq.ZMQError:
            self._context.term()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if self._context is not None:
            self._context.term()

    def hello(self, timeout: float = 5.0) -> str:
        """The router's identity, another one after each of its starts. Raises ``VipError``.

        ``ended`` then says what it means that no answer came.
        """
        ident = self._ident()
        args = self._ask(vip.hello_request(ident), ident, timeout).args
        if len(args) < 3 or args[0] != b"welcome":
            raise VipError(f"the router does not say welcome: {args}")
        return args[2].decode(vip.CHARSET)

    def ping(self, peer: str = "", timeout: float = 5.0) -> None:
        """Return if the router, or a peer, answers. Raises ``VipError``."""
        ident = self._ident()
        self._ask(vip.ping_request(ident, peer), ident, timeout)

    def subscribe(self, *prefixes: str, timeout: float = 5.0) -> None:
        """From now on ``messages`` has topics that begin with one of these. Raises ``VipError``."""
        ident = self._ident()
        self._subscribed = True
        answer = self._ask(vip.subscribe_request(ident, prefixes), ident, timeout)
        if list(answer.args) != [b"request_response", b"\x01"]:
            raise VipError(f"the router refused the subscription: {answer.text}")

    def unsubscribe(self, *prefixes: str, timeout: float = 5.0) -> None:
        """Get no more of these; what has arrived is dropped. Raises ``VipError``."""
        ident = self._ident()
        self._ask(vip.unsubscribe_request(ident, prefixes), ident, timeout)
        self._subscribed = False
        self._messages.clear()

    def ended(self) -> ConnectionEndedError:
        """Why there is no answer: the connection is over, or the router gives none."""
        return self._connection.ended() if self.is_over else self._connection.unanswered_hello()

    @property
    def is_over(self) -> bool:
        """Whether the connection is closed: no call works any more."""
        return self._connection.is_over

    def publish(self, topic: str, headers: Mapping[str, Any], body: Any, timeout: float = 5.0) -> int:
        """Publish, and wait until the router has handed it on: the number of subscribers.

        Raises ``ValueError`` on what would hurt the platform, ``VipError``.
        """
        ident = self._ident()
        answer = self._ask(vip.publish_request(ident, topic, headers, body), ident, timeout)
        try:
            (count,) = struct.unpack("I", answer.args[1])
        except (IndexError, struct.error):
            raise VipError(f"the router's answer to a publish is not known: {answer.text}") from None
        return int(count)

    def publish_unconfirmed(self, topic: str, headers: Mapping[str, Any], body: Any) -> None:
        """Publish without waiting; nobody says whether it arrived. Raises ``ValueError``."""
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
        """What arrives within ``timeout`` seconds; returns sooner once there are ``count``."""
        end = time.monotonic() + timeout
        while (count is None or len(self._messages) < count) and (left := end - time.monotonic()) > 0:
            self._receive(left)
        taken = len(self._messages) if count is None else min(count, len(self._messages))
        return [self._messages.popleft() for _ in range(taken)]

    def _ident(self) -> bytes:
        return b"m%d" % next(self._numbers)

    def _ask(self, frames: Sequence[bytes], ident: bytes, timeout: float) -> vip.Answer:
        peer = frames[0].decode(vip.CHARSET) or "the router"
        end = time.monotonic() + timeout
        self._waited[ident] = frames[0], frames[4]
        try:
            self._connection.send(frames)
            while ident not in self._answers:
                left = end - time.monotonic()
                if left <= 0:
                    raise VipTimeoutError(f"{peer} gave no answer to {frames[4].decode()} in {timeout:g} s")
                self._receive(left)
                if self._connection.is_over and ident not in self._answers:
                    raise VipError(
                        f"the connection to {self._endpoint.address} is {self._connection.state.value}"
                    )
            answer = self._answers.pop(ident)
        finally:
            self._waited.pop(ident, None)
            self._answers.pop(ident, None)
        if answer.is_error:
            told = f"{peer}: {jsonrpc.to_short_text(answer.text)}"
            raise InvalidAnswerError(told) if answer.peer else PeerUnreachableError(told)
        return answer

    def _receive(self, seconds: float) -> None:
        self._connection.wait(min(seconds, 1.0))
        for frames in self._connection.receive(1000):
            if vip.is_publication(frames):
                if self._subscribed and (message := _message(frames)) is not None:
                    self._messages.append(message)
            elif (answer := vip.parse_answer(frames)) and self._is_waited_for(answer):
                self._answers[answer.ident] = answer

    def _is_waited_for(self, answer: vip.Answer) -> bool:
        """Any peer may send us anything: an answer is one only from the peer that was asked.

        The router's errors come in the router's own name, which is empty.
        """
        asked = self._waited.get(answer.ident)
        if asked is None:
            return False
        peer, subsystem = asked
        if answer.is_error:
            return answer.peer in (peer, b"")
        return answer.peer == peer and answer.subsystem == subsystem


def _message(frames: Sequence[bytes]) -> BusMessage | None:
    """Return a publication as a message; ``None`` if its parts are not those of one."""
    if len(frames) < 8 or vip.is_deeper_than(frames[7], vip.MAX_DEPTH + 1):
        return None
    try:
        body = json.loads(frames[7].decode(vip.CHARSET))
        sender, headers = body["sender"], body["headers"]
        found = BusMessage(frames[6].decode(vip.CHARSET), sender, headers, body["message"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(sender, str) and isinstance(headers, dict) else None
