"""A stand-in for a VOLTTRON platform's router (VIP), verified by tests/contract/bus on a real one.

    with FakeRouter(rpc={"platform.driver": {"get_point": read}}) as router:
        VipClient(Endpoint(router.address, "me")) …
        router.publish("devices/campus/ahu1/all", {"TimeStamp": …}, [points, metadata])

It behaves as a real router in these respects:
- hello, ping, peer list, publish and subscribe, confirmations, messages between connected peers;
- "no route to host", an unknown subsystem, CURVE that accepts any key pair;
- prefixes are text, a subscriber receives a message once, and JSON is rewritten;
- an identity is taken until its connection has ended, and a subscription until its subscriber is unreachable.

Not copied are authorization, federation, a subscriber that does not read (it takes a real platform down),
and the ways in which malformed frames crash a platform. Such frames are dropped here and counted in
``dropped``: a test of a client should end with ``assert router.dropped == 0``.
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
from typing import Any, NamedTuple, TypeVar

import zmq
from typing_extensions import Self

T = TypeVar("T")
Methods = Mapping[str, Mapping[str, Callable[..., Any]]]
_CHARSET = "iso-8859-1"
_PROTOCOL = b"VIP1"
_WOULD_CRASH_A_REAL_ROUTER = (ValueError, KeyError, TypeError, AttributeError, IndexError)


class RawAnswer(bytes):
    """Return it from a method of ``rpc`` to send these bytes as the whole answer, as a broken peer might."""


class NoAnswerError(Exception):
    """Raise it in a method of ``rpc`` to send no answer to the call."""


class RpcMethodError(Exception):
    """Raise it in a method of ``rpc`` to answer with an error of any code."""

    def __init__(self, code: Any, message: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


class _Request(NamedTuple):
    """A VIP message from a client; an empty ``peer`` is the router."""

    sender: bytes
    peer: bytes
    ident: bytes
    subsystem: bytes
    args: Sequence[bytes]

    def reply(self, *args: bytes, subsystem: bytes | None = None, user: bytes | None = None) -> list[bytes]:
        """Return the frames of an answer."""
        of = self.subsystem if subsystem is None else subsystem
        for_user = self.sender if user is None else user
        return [self.sender, self.peer, _PROTOCOL, for_user, self.ident, of, *args]


class FakeRouter:
    """A router on 127.0.0.1 with a thread of its own; open it with ``with``, or ``start`` and ``stop``.

    ``rpc`` maps identity → method → function; the functions run in the router's thread. Its
    ``platform.driver`` is that of 2.x, unless ``rpc`` has or had a ``platform.actuator``. With ``curve``,
    clients need ``serverkey``. After ``stop``, ``start`` restarts it at the same address, with another
    identity and without subscriptions, as a restarted platform.
    """

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", *, rpc: Methods | None = None, curve: bool = False
    ) -> None:
        self.address = address
        self.rpc = rpc or {}
        self.generation = "2"
        """The driver's generation: ``2``, or ``10``, which leaves reservations to an actuator."""
        self.dropped = 0
        self.left: list[str] = []
        """The identities that announced by ``agentstop`` that they leave."""
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

    @property
    def peers(self) -> frozenset[bytes]:
        """Return the identities that are connected now."""
        return frozenset(self._peers)

    def start(self) -> None:
        """Start to listen; ``address`` then contains the port."""
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
        """Close every connection, as if the platform was killed."""
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
        """Publish as an agent would; return the number of subscribers that received the message."""
        data = {"bus": "", "headers": dict(headers), "message": body}

        def distribute() -> int:
            return self._distribute(sender.encode(_CHARSET), b"", topic, data)

        if threading.current_thread() is self._thread:  # a method of rpc publishes
            return distribute()
        return self._in_router(distribute)

    def deliver(self, identity: str, frames: Sequence[bytes]) -> None:
        """Send any frames to a connected client, as a hostile or broken router might."""
        self._in_router(lambda: self._send(identity.encode(_CHARSET), *frames))

    def freeze(self, peer: str) -> None:
        """Make a peer of ``rpc`` keep requests and answer none, as a process after SIGSTOP."""
        self._in_router(lambda: self._frozen.setdefault(peer, []))

    def thaw(self, peer: str) -> None:
        """Make the peer execute and answer the requests that it kept."""

        def run() -> None:
            for frames in self._frozen.pop(peer, []):
                self._receive(frames)

        self._in_router(run)

    def fall_silent(self) -> None:
        """Keep all connections, but neither answer nor deliver anything until the next start."""
        self._in_router(lambda: setattr(self, "_silent", True))

    def subscriptions(self) -> dict[str, frozenset[str]]:
        """Return the prefixes of each identity."""
        return self._in_router(
            lambda: {
                peer.decode(_CHARSET): frozenset(prefixes) for peer, prefixes in self._subscriptions.items()
            }
        )

    def wait_for_subscriber(self, identity: str, seconds: float = 10.0) -> None:
        """Wait until this identity has subscribed to something. Raises ``TimeoutError``."""
        with self._changed:
            wanted = identity.encode(_CHARSET)
            if not self._changed.wait_for(lambda: self._subscriptions.get(wanted), seconds):
                raise TimeoutError(f"{identity} did not subscribe in {seconds:g} s")

    def _in_router(self, function: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
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
        except _WOULD_CRASH_A_REAL_ROUTER:
            self.dropped += 1

    def _route(self, frames: list[bytes]) -> None:
        sender, peer, protocol, _user, ident, subsystem, *args = frames
        if protocol != _PROTOCOL or _reads_as_json(sender) or _reads_as_json(ident):
            raise ValueError
        if "platform.actuator" in self.rpc:
            self.generation = "10"
        self._note_peer(sender)
        request = _Request(sender, peer, ident, subsystem, args)
        identity = peer.decode(_CHARSET)
        if (kept := self._frozen.get(identity)) is not None:
            kept.append(frames)
        elif peer and identity in self.rpc and subsystem in (b"RPC", b"ping"):
            self._answer_as_peer(request, identity)
        elif peer:
            self._pass_on(request)
        elif subsystem == b"agentstop":
            self._peers.discard(args[0])
            with self._changed:
                self._subscriptions.pop(args[0], None)
                self.left.append(args[0].decode(_CHARSET))
        else:
            self._answer_as_router(request)

    def _note_peer(self, sender: bytes) -> None:
        """Announce a new peer to the others."""
        if sender not in self._peers:
            for other in list(self._peers):
                self._send(other, b"", _PROTOCOL, b"", b"", b"peerlist", b"add", sender)
            self._peers.add(sender)

    def _answer_as_peer(self, request: _Request, identity: str) -> None:
        if request.subsystem == b"ping":
            self._send(*request.reply(b"pong", *request.args[1:]))
        else:
            with suppress(NoAnswerError):
                self._send(*request.reply(self._call(identity, json.loads(request.args[0]))))

    def _pass_on(self, request: _Request) -> None:
        """Send a request to another connected client."""
        sender, peer, ident, subsystem, args = request
        if not self._send(peer, sender, _PROTOCOL, sender, ident, subsystem, *args):
            error = (b"error", b"113", b"No route to host", peer, subsystem)
            self._send(sender, b"", _PROTOCOL, sender, ident, *error)

    def _answer_as_router(self, request: _Request) -> None:
        sender, _, ident, subsystem, args = request
        if subsystem == b"hello":
            frames = request.reply(b"welcome", b"1.0", self._identity, sender)
        elif subsystem == b"ping":
            frames = request.reply(b"pong", *args[1:])
        elif subsystem == b"peerlist":
            frames = request.reply(b"listing", *sorted(self._peers), user=b"")
        elif subsystem == b"pubsub":
            frames = request.reply(b"request_response", self._pubsub(sender, ident, args))
        else:
            error = (b"93", b"Protocol not supported", b"", subsystem)
            frames = request.reply(*error, subsystem=b"error", user=b"")
        self._send(*frames)

    def _pubsub(self, sender: bytes, ident: bytes, args: Sequence[bytes]) -> bytes:
        body = json.loads(args[-1].decode(_CHARSET))
        if args[0] == b"publish":
            if _reads_as_json(args[1]):
                raise ValueError
            return struct.pack("I", self._distribute(sender, ident, args[1].decode(_CHARSET), body))
        prefixes = body["prefix"] if isinstance(body["prefix"], list) else [body["prefix"]]
        with self._changed:
            subscribed = self._subscriptions.setdefault(sender, set())
            {b"subscribe": subscribed.update, b"unsubscribe": subscribed.difference_update}[args[0]](prefixes)
            self._changed.notify_all()
        return struct.pack("?", True)

    def _distribute(self, sender: bytes, ident: bytes, topic: str, body: Mapping[str, Any]) -> int:
        data = json.dumps(
            {"sender": sender.decode(_CHARSET), **{key: body[key] for key in ("bus", "headers", "message")}}
        ).encode()
        subscribers = [
            peer
            for peer, prefixes in self._subscriptions.items()
            if any(topic.startswith(prefix) for prefix in prefixes)
        ]
        for peer in subscribers:
            self._send(peer, b"", _PROTOCOL, b"", ident, b"pubsub", b"publish", topic.encode(_CHARSET), data)
        return len(subscribers)

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
                result = method(*args, **kwargs)
                if isinstance(result, RawAnswer):
                    return bytes(result)
                answer["result"] = result
            except NoAnswerError:
                raise
            except RpcMethodError as refusal:
                answer["error"] = refusal.error
            except Exception as error:  # noqa: BLE001 - what a method of rpc raises is its answer
                detail = {"detail": str(error)}
                answer["error"] = {"code": -32000, "message": "unhandled exception", "data": detail}
        return json.dumps(answer).encode()

    def _methods(self, peer: str) -> list[str]:
        schedule = ["request_new_schedule"] if peer == "platform.driver" and self.generation == "2" else []
        return [*self.rpc[peer], *schedule]

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
