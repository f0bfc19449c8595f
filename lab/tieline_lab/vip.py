"""A small client of the VOLTTRON bus for the lab's observer, by the wire protocol (VIP).

It shares no code with the connector on purpose, since the connector is compared with this observer.

A message on a DEALER socket consists of the frames ``peer, "VIP1", user, id, subsystem, *arguments``. An
empty peer is the router; a received message begins with its sender.
"""

from __future__ import annotations

import collections
import itertools
import json
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

import zmq
from typing_extensions import Self


class BusMessage(NamedTuple):
    """A publisher's message. ``raw`` is the undecoded JSON of headers and message."""

    sender: str
    topic: str
    headers: dict[str, Any]
    message: Any
    raw: bytes


class VipError(Exception):
    """The router or a peer answered with an error, or did not answer."""


class Vip:
    """One connection under one identity, as a context. Not thread-safe.

    ``keys`` are publickey, secretkey and serverkey in z85.
    """

    def __init__(self, address: str, identity: str, keys: dict[str, str]) -> None:
        self._identity = identity
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.identity = identity.encode()
        # A subscriber whose queue is full blocks the whole platform.
        self._socket.rcvhwm = self._socket.sndhwm = 0
        self._socket.linger = 0
        self._socket.curve_publickey = keys["publickey"].encode()
        self._socket.curve_secretkey = keys["secretkey"].encode()
        self._socket.curve_serverkey = keys["serverkey"].encode()
        self._socket.connect(address)
        self._ids = map("m{}".format, itertools.count(1))
        self._arrived: collections.deque[BusMessage] = collections.deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Announce that we leave, as VOLTTRON's agents do: 10.x ends at a message to a missing peer."""
        with suppress(zmq.ZMQError):
            self._send("", "", "agentstop", [self._identity])
        self._context.destroy(linger=200)

    def hello(self, timeout: float = 5.0) -> None:
        """Return when the router has answered."""
        self._ask("", "hello", ["hello"], timeout)

    def subscribe(self, prefix: str, timeout: float = 5.0) -> None:
        """Subscribe to every message whose topic begins with ``prefix``."""
        body = json.dumps({"prefix": prefix, "bus": "", "all_platforms": False})
        self._ask("", "pubsub", ["subscribe", body], timeout)

    def publish(self, topic: str, headers: dict[str, Any], message: Any) -> None:
        """Send a message to the bus, without a check: an invalid topic crashes a 2.x platform."""
        headers = {"min_compatible_version": "3.0", "max_compatible_version": "", **headers}
        body = json.dumps({"sender": self._identity, "bus": "", "headers": headers, "message": message})
        self._send("", next(self._ids), "pubsub", ["publish", topic, body])

    def count_subscribers(self, topic: str, message: Any, timeout: float = 5.0) -> int:
        """Publish a message; return how many subscribers the router sent it to."""
        body = json.dumps({"sender": self._identity, "bus": "", "headers": {}, "message": message})
        answer = self._ask("", "pubsub", ["publish", topic, body], timeout)
        return int.from_bytes(answer[1], sys.byteorder)

    def call(self, peer: str, method: str, *args: Any, timeout: float = 10.0, **kwargs: Any) -> Any:
        """Call a peer's method (JSON-RPC)."""
        ident = next(self._ids)
        params: Any = {"*args": list(args), "**kwargs": kwargs} if kwargs else list(args)
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": ident})
        answer = json.loads(self._ask(peer, "RPC", [body], timeout, ident)[0])
        if "error" in answer:
            raise VipError(json.dumps(answer["error"])[:2000])
        return answer.get("result")

    def receive(self, timeout: float) -> BusMessage | None:
        """Return the next message of the subscriptions, or ``None`` after ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while not self._arrived:
            left = end - time.monotonic()
            if left <= 0 and not self._socket.poll(0):
                return None
            self._take(left)
        return self._arrived.popleft()

    def _ask(
        self, peer: str, subsystem: str, args: list[str], timeout: float, ident: str | None = None
    ) -> list[bytes]:
        ident = ident or next(self._ids)
        self._send(peer, ident, subsystem, args)
        end = time.monotonic() + timeout
        while (left := end - time.monotonic()) > 0:
            answer = self._take(left)
            if answer and answer[3] == ident.encode():
                if answer[4] == b"error":
                    raise VipError(f"{peer or 'router'}: {b' '.join(answer[5:]).decode(errors='replace')}")
                return answer[5:]
        raise VipError(f"{peer or 'the router'} gave no answer to {subsystem} in {timeout:g} s")

    def _send(self, peer: str, ident: str, subsystem: str, args: list[str]) -> None:
        frames = [peer, "VIP1", "", ident, subsystem, *args]
        self._socket.send_multipart([frame.encode() for frame in frames])

    def _take(self, timeout: float) -> list[bytes] | None:
        if not self._socket.poll(max(0, int(timeout * 1000))):
            return None
        frames = self._socket.recv_multipart()
        subsystem, args = frames[4], frames[5:]
        if subsystem == b"pubsub" and args[0] == b"publish":
            body = json.loads(args[-1])
            topic = args[1].decode("iso-8859-1")
            self._arrived.append(
                BusMessage(body["sender"], topic, body["headers"], body["message"], args[-1])
            )
            return None
        return frames
