"""A stand-in for a VOLTTRON platform's router (VIP), verified by tests/contract/bus on a real one.

    with FakeRouter(rpc={"platform.driver": {"get_point": read}}) as bus:
        VipClient(Endpoint(bus.address, "me")) …
        bus.publish("devices/campus/ahu1/all", {"TimeStamp": …}, [points, metadata])

The same on both: hello, ping, peer list, publish and subscribe, confirmations, messages between connected
peers, "no route to host", an unknown subsystem, CURVE that lets any key pair in, text prefixes, one message
a subscriber however many of its prefixes fit, JSON written anew, an identity that is taken until its
connection is gone, subscriptions that are forgotten once a subscriber cannot be reached.

Not copied: authorization, federation, a subscriber that does not read (it takes a real platform down),
and the ways in which malformed frames kill one. Here such frames are dropped and counted in ``dropped``:
a test of a client should end with ``assert bus.dropped == 0``.
"""

from __future__ import annotations

import json
import queue
import struct
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

import zmq
from typing_extensions import Self

T = TypeVar("T")
Methods = Mapping[str, Mapping[str, Callable[..., Any]]]
_CHARSET = "iso-8859-1"
_REAL_WOULD_DIE = (ValueError, KeyError, TypeError, AttributeError, IndexError)


class RawAnswer(bytes):
    """Returned by a method of ``rpc``: these bytes are the whole answer, as a broken peer might send them."""


class NoAnswerError(Exception):
    """Raised by a method of ``rpc``: no answer is sent to this call."""


class RpcMethodError(Exception):
    """Raised by a method of ``rpc``: the error of the answer, with any code."""

    def __init__(self, code: Any, message: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


class FakeRouter:
    """A router on 127.0.0.1 with a thread of its own; open it with ``with``, or ``start`` and ``stop``.

    ``rpc``: identity → method → function; answered here, in the router's thread. Its ``platform.driver`` is
    that of 2.x, unless ``rpc`` has or had a ``platform.actuator``. ``curve``: clients need ``serverkey``.
    After ``stop``, ``start`` brings it back at the same address, with another identity and no subscriptions,
    as a restarted platform.
    """

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", *, rpc: Methods | None = None, curve: bool = False
    ) -> None:
        self.address = address
        self.rpc = rpc or {}
        self.generation = "2"
        """That of the driver: ``2``, or ``10``, which leaves reservations to an actuator."""
        self.dropped = 0
        self.left: list[str] = []
        """Who has said, by ``agentstop``, that it leaves."""
        self.serverkey = ""
        self._secretkey = b""
        if curve:
            public, self._secretkey = zmq.curve_keypair()
            self.serverkey = public.decode()
        self._silent = False
        self._frozen: dict[str, list[list[bytes]]] = {}
        self._subscriptions: dict[bytes, set[str]] = {}
        self._changed = threading.Condition()
        self._todo: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; ``address`` then names the port."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._identity = str(uuid.uuid4()).encode()
        self._peers: set[bytes] = set()
        self._subscriptions.clear()
        self._silent = False
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.LINGER, 0)):
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(zmq.IPV6, int("[" in self.address))
        self._socket.identity = self._identity
        if self._secretkey:
            self._socket.curve_server = True
            self._socket.curve_secretkey = self._secretkey
        self._socket.bind(self.address)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake, woken = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        woken.connect("inproc://wake")
        self._thread = threading.Thread(target=self._run, args=(woken,), name="fake-router", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Gone, as a platform that was killed: every connection is closed."""
        if self._thread is not None:
            self._todo.put(None)
            self._wake.send(b"")
            self._thread.join()
            self._thread = None
            self._wake.close()
            self._context.term()

    def publish(
        self, topic: str, headers: Mapping[str, Any], body: Any, sender: str = "platform.driver"
    ) -> int:
        """Publish as an agent would; the number of subscribers that got it."""
        data = {"bus": "", "headers": dict(headers), "message": body}

        def distribute() -> int:
            return self._distribute(sender.encode(_CHARSET), b"", topic, data)

        if threading.current_thread() is self._thread:  # a method of rpc publishes
            return distribute()
        return self._in_router(distribute)

    def deliver(self, identity: str, frames: Sequence[bytes]) -> None:
        """Send any frames to a connected client: what a hostile or broken router might."""
        self._in_router(lambda: self._send(identity.encode(_CHARSET), *frames))

    def freeze(self, peer: str) -> None:
        """Let a peer of ``rpc`` keep what is sent to it and answer nothing, as one that was sent SIGSTOP."""
        self._in_router(lambda: self._frozen.setdefault(peer, []))

    def thaw(self, peer: str) -> None:
        """Let it do and answer all that it has kept."""

        def run() -> None:
            for frames in self._frozen.pop(peer, []):
                self._receive(frames)

        self._in_router(run)

    def fall_silent(self) -> None:
        """Keep all connections, and neither answer nor hand on anything until the next start."""
        self._in_router(lambda: setattr(self, "_silent", True))

    def subscriptions(self) -> dict[str, frozenset[str]]:
        """Who reads what: identity → prefixes."""
        return self._in_router(
            lambda: {peer.decode(_CHARSET): frozenset(found) for peer, found in self._subscriptions.items()}
        )

    def wait_for_subscriber(self, identity: str, seconds: float = 10.0) -> None:
        """Until this identity has subscribed to something. Raises ``TimeoutError``."""
        with self._changed:
            wanted = identity.encode(_CHARSET)
            if not self._changed.wait_for(lambda: self._subscriptions.get(wanted), seconds):
                raise TimeoutError(f"{identity} did not subscribe in {seconds:g} s")

    def _in_router(self, function: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        self._todo.put(run)
        self._wake.send(b"")
        return done.result(10)

    def _run(self, woken: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(woken, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if woken in ready:
                woken.recv()
                task = self._todo.get()
                if task is None:
                    break
                task()
            if self._socket in ready:
                self._receive(self._socket.recv_multipart())
        self._socket.close()
        woken.close()

    def _receive(self, frames: list[bytes]) -> None:
        if self._silent:
            return
        try:
            self._route(frames)
        except _REAL_WOULD_DIE:
            self.dropped += 1

    def _route(self, frames: list[bytes]) -> None:
        sender, peer, protocol, _user, ident, subsystem, *args = frames
        if protocol != b"VIP1" or _reads_as_json(sender) or _reads_as_json(ident):
            raise ValueError
        if "platform.actuator" in self.rpc:
            self.generation = "10"
        if sender not in self._peers:
            for other in list(self._peers):
                self._send(other, b"", b"VIP1", b"", b"", b"peerlist", b"add", sender)
            self._peers.add(sender)

        def reply(*rest: bytes, of: bytes = subsystem, user: bytes = sender) -> None:
            self._send(sender, peer, protocol, user, ident, of, *rest)

        if (kept := self._frozen.get(peer.decode(_CHARSET))) is not None:
            kept.append(frames)
        elif peer and peer.decode(_CHARSET) in self.rpc and subsystem in (b"RPC", b"ping"):
            if subsystem == b"ping":
                reply(b"pong", *args[1:])
            else:
                with suppress(NoAnswerError):
                    reply(self._call(peer.decode(_CHARSET), json.loads(args[0])))
        elif peer:  # another connected client
            if not self._send(peer, sender, protocol, sender, ident, subsystem, *args):
                error = (b"error", b"113", b"No route to host", peer, subsystem)
                self._send(sender, b"", protocol, sender, ident, *error)
        elif subsystem == b"agentstop":
            self._peers.discard(args[0])
            with self._changed:
                self._subscriptions.pop(args[0], None)
                self.left.append(args[0].decode(_CHARSET))
        elif subsystem == b"hello":
            reply(b"welcome", b"1.0", self._identity, sender)
        elif subsystem == b"ping":
            reply(b"pong", *args[1:])
        elif subsystem == b"peerlist":
            reply(b"listing", *sorted(self._peers), user=b"")
        elif subsystem == b"pubsub":
            reply(b"request_response", self._pubsub(sender, ident, args))
        else:
            reply(b"93", b"Protocol not supported", b"", subsystem, of=b"error", user=b"")

    def _pubsub(self, sender: bytes, ident: bytes, args: Sequence[bytes]) -> bytes:
        body = json.loads(args[-1].decode(_CHARSET))
        if args[0] == b"publish":
            if _reads_as_json(args[1]):
                raise ValueError
            return struct.pack("I", self._distribute(sender, ident, args[1].decode(_CHARSET), body))
        prefixes = body["prefix"] if isinstance(body["prefix"], list) else [body["prefix"]]
        with self._changed:
            own = self._subscriptions.setdefault(sender, set())
            {b"subscribe": own.update, b"unsubscribe": own.difference_update}[args[0]](prefixes)
            self._changed.notify_all()
        return struct.pack("?", True)

    def _distribute(self, sender: bytes, ident: bytes, topic: str, body: Mapping[str, Any]) -> int:
        data = json.dumps(
            {"sender": sender.decode(_CHARSET), **{key: body[key] for key in ("bus", "headers", "message")}}
        ).encode()
        found = [
            peer
            for peer, prefixes in self._subscriptions.items()
            if any(topic.startswith(prefix) for prefix in prefixes)
        ]
        for peer in found:
            self._send(peer, b"", b"VIP1", b"", ident, b"pubsub", b"publish", topic.encode(_CHARSET), data)
        return len(found)

    def _call(self, peer: str, request: Mapping[str, Any]) -> bytes:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        params, method = request.get("params", []), self.rpc[peer].get(request["method"])
        args, kwargs = (params["*args"], params["**kwargs"]) if isinstance(params, dict) else (params, {})
        if method is None and request["method"] == "inspect":
            answer["result"] = {"methods": self._methods(peer)}
        elif method is None:
            answer["error"] = {"code": -32601, "message": f"unimplemented method: {request['method']}"}
        else:
            try:
                found = method(*args, **kwargs)
                if isinstance(found, RawAnswer):
                    return bytes(found)
                answer["result"] = found
            except NoAnswerError:
                raise
            except RpcMethodError as refusal:
                answer["error"] = refusal.error
            except Exception as error:  # whatever a registered function raises is its answer
                detail = {"detail": str(error)}
                answer["error"] = {"code": -32000, "message": "unhandled exception", "data": detail}
        return json.dumps(answer).encode()

    def _methods(self, peer: str) -> list[str]:
        its_own = ["request_new_schedule"] if peer == "platform.driver" and self.generation == "2" else []
        return [*self.rpc[peer], *its_own]

    def _send(self, *frames: bytes) -> bool:
        if self._silent:
            return True
        try:
            self._socket.send_multipart(frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._peers.discard(frames[0])
            with self._changed:
                self._subscriptions.pop(frames[0], None)
            return False
        return True


def _reads_as_json(frame: bytes) -> bool:
    try:
        json.loads(frame.decode(_CHARSET))
    except json.JSONDecodeError:
        return False
    return True
