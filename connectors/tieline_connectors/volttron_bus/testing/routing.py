"""What a fake router does with VIP messages; all of it runs in the router's thread."""

from __future__ import annotations

import json
import struct
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import zmq

from tieline_connectors.volttron_bus.testing.rpc_answers import Methods, NoAnswerError, answer_call

CHARSET = "iso-8859-1"
_PROTOCOL = b"VIP1"
_WOULD_CRASH_A_REAL_ROUTER = (ValueError, KeyError, TypeError, AttributeError, IndexError)


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


class RouterState:
    """What a router keeps over its restarts, except the subscriptions."""

    def __init__(self, rpc: Methods | None = None) -> None:
        self.rpc = rpc or {}
        self.generation = "2"
        """The driver's generation: ``2``, or ``10``, which leaves reservations to an actuator."""
        self.dropped = 0
        """How many messages might have crashed a real router."""
        self.left: list[str] = []
        """The identities that announced by ``agentstop`` that they leave."""
        self.frozen: dict[str, list[list[bytes]]] = {}
        """The frozen peers of ``rpc``, each with the messages that wait for it."""
        self.listeners: list[Callable[[str, Mapping[str, Any], Any], None]] = []
        """Called with topic, headers and body of each message that is published."""
        self.subscribed: dict[bytes, set[str]] = {}
        """The prefixes of each identity; cleared at a start."""
        self.changed = threading.Condition()
        """Guards ``subscribed``."""


class Routing:
    """Routes the messages of one run of a router."""

    def __init__(self, state: RouterState, socket: zmq.Socket[bytes]) -> None:
        self.peers: set[bytes] = set()
        self.silent = False
        self._state = state
        self._socket = socket
        self._identity = str(uuid.uuid4()).encode()
        socket.identity = self._identity

    def receive(self, frames: list[bytes]) -> None:
        """Do what a router does with a message that arrives; drop and count one that might crash it."""
        if self.silent:
            return
        try:
            self._route(frames)
        except _WOULD_CRASH_A_REAL_ROUTER:
            self._state.dropped += 1

    def send(self, *frames: bytes) -> bool:
        """Send a message to a peer, its first frame; return whether the peer is connected."""
        if self.silent:
            return True
        try:
            self._socket.send_multipart(frames)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.peers.discard(frames[0])
            with self._state.changed:
                self._state.subscribed.pop(frames[0], None)
            return False
        return True

    def _route(self, frames: list[bytes]) -> None:
        sender, peer, protocol, _user, ident, subsystem, *args = frames
        if protocol != _PROTOCOL or _reads_as_json(sender) or _reads_as_json(ident):
            raise ValueError
        if "platform.actuator" in self._state.rpc:
            self._state.generation = "10"
        self._note_peer(sender)
        request = _Request(sender, peer, ident, subsystem, args)
        identity = peer.decode(CHARSET)
        if (kept := self._state.frozen.get(identity)) is not None:
            kept.append(frames)
        elif peer and identity in self._state.rpc and subsystem in (b"RPC", b"ping"):
            self._answer_as_peer(request, identity)
        elif peer:
            self._pass_on(request)
        elif subsystem == b"agentstop":
            self.peers.discard(args[0])
            with self._state.changed:
                self._state.subscribed.pop(args[0], None)
                self._state.left.append(args[0].decode(CHARSET))
        else:
            self._answer_as_router(request)

    def _note_peer(self, sender: bytes) -> None:
        """Announce a new peer to the others."""
        if sender not in self.peers:
            for other in list(self.peers):
                self.send(other, b"", _PROTOCOL, b"", b"", b"peerlist", b"add", sender)
            self.peers.add(sender)

    def _answer_as_peer(self, request: _Request, identity: str) -> None:
        if request.subsystem == b"ping":
            self.send(*request.reply(b"pong", *request.args[1:]))
        else:
            functions, call = self._state.rpc[identity], json.loads(request.args[0])
            with suppress(NoAnswerError):
                self.send(*request.reply(answer_call(functions, self._methods(identity), call)))

    def _pass_on(self, request: _Request) -> None:
        """Send a request to another connected client."""
        sender, peer, ident, subsystem, args = request
        if not self.send(peer, sender, _PROTOCOL, sender, ident, subsystem, *args):
            error = (b"error", b"113", b"No route to host", peer, subsystem)
            self.send(sender, b"", _PROTOCOL, sender, ident, *error)

    def _answer_as_router(self, request: _Request) -> None:
        sender, _, ident, subsystem, args = request
        if subsystem == b"hello":
            frames = request.reply(b"welcome", b"1.0", self._identity, sender)
        elif subsystem == b"ping":
            frames = request.reply(b"pong", *args[1:])
        elif subsystem == b"peerlist":
            frames = request.reply(b"listing", *sorted(self.peers), user=b"")
        elif subsystem == b"pubsub":
            frames = request.reply(b"request_response", self._pubsub(sender, ident, args))
        else:
            error = (b"93", b"Protocol not supported", b"", subsystem)
            frames = request.reply(*error, subsystem=b"error", user=b"")
        self.send(*frames)

    def _pubsub(self, sender: bytes, ident: bytes, args: Sequence[bytes]) -> bytes:
        body = json.loads(args[-1].decode(CHARSET))
        if args[0] == b"publish":
            if _reads_as_json(args[1]):
                raise ValueError
            return struct.pack("I", self.distribute(sender, ident, args[1].decode(CHARSET), body))
        prefixes = body["prefix"] if isinstance(body["prefix"], list) else [body["prefix"]]
        with self._state.changed:
            subscribed = self._state.subscribed.setdefault(sender, set())
            {b"subscribe": subscribed.update, b"unsubscribe": subscribed.difference_update}[args[0]](prefixes)
            self._state.changed.notify_all()
        return struct.pack("?", True)

    def distribute(self, sender: bytes, ident: bytes, topic: str, body: Mapping[str, Any]) -> int:
        """Send a publication to all subscribers; return their number."""
        for listener in self._state.listeners:
            listener(topic, body["headers"], body["message"])
        data = json.dumps(
            {"sender": sender.decode(CHARSET), **{key: body[key] for key in ("bus", "headers", "message")}}
        ).encode()
        subscribers = [
            peer
            for peer, prefixes in self._state.subscribed.items()
            if any(topic.startswith(prefix) for prefix in prefixes)
        ]
        for peer in subscribers:
            self.send(peer, b"", _PROTOCOL, b"", ident, b"pubsub", b"publish", topic.encode(CHARSET), data)
        return len(subscribers)

    def _methods(self, peer: str) -> list[str]:
        """Return what a peer answers to ``inspect``."""
        schedule = peer == "platform.driver" and self._state.generation == "2"
        return [*self._state.rpc[peer], *(["request_new_schedule"] if schedule else [])]


def _reads_as_json(frame: bytes) -> bool:
    try:
        json.loads(frame.decode(CHARSET))
    except json.JSONDecodeError:
        return False
    return True
