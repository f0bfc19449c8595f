"""A stand-in for a VOLTTRON platform's router (VIP), verified by tests/contract/bus on a real one.

    with FakeRouter(rpc={"platform.driver": {"get_point": read}}) as router:
        VipClient(Endpoint(router.address, "me")) …
        router.publish("devices/campus/ahu1/all", {"TimeStamp": …}, [points, metadata])

It behaves as a real router in these respects:
- hello, ping, peer list, publish and subscribe, confirmations, messages between connected peers;
- "no route to host", an unknown subsystem, CURVE that accepts any key pair;
- prefixes are text, a subscriber receives a message once, and JSON is rewritten;
- an identity is taken until its connection has ended, and a subscription until its subscriber is unreachable.

It does not imitate authorization, federation, a subscriber that does not read (it takes a real platform
down), or the ways in which malformed frames crash a platform. Such frames are dropped here and counted in
``dropped``: a test of a client should end with ``assert router.dropped == 0``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

import zmq
from typing_extensions import Self

from tieline_connectors.volttron_bus.testing.routing import CHARSET, RouterState, Routing
from tieline_connectors.volttron_bus.testing.rpc_answers import (
    Methods,
    NoAnswerError,
    RawAnswer,
    RpcMethodError,
)

__all__ = ["FakeRouter", "Methods", "NoAnswerError", "RawAnswer", "RpcMethodError"]

T = TypeVar("T")


class FakeRouter(RouterState):
    """A router on 127.0.0.1 with a thread of its own; open it with ``with``, or ``start`` and ``stop``.

    ``rpc`` maps identity → method → function; the functions run in the router's thread. Its
    ``platform.driver`` is that of 2.x, unless ``rpc`` has or had a ``platform.actuator``. With ``curve``,
    clients need ``serverkey``. After ``stop``, ``start`` restarts it at the same address, with another
    identity and without subscriptions, as a restarted platform.
    """

    def __init__(
        self, address: str = "tcp://127.0.0.1:*", *, rpc: Methods | None = None, curve: bool = False
    ) -> None:
        super().__init__(rpc)
        self.address = address
        self.serverkey = ""
        self._secretkey = b""
        if curve:
            public, self._secretkey = zmq.curve_keypair()
            self.serverkey = public.decode()
        self._run: _Run | None = None

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
        return frozenset(self._running.routing.peers)

    def start(self) -> None:
        """Start to listen; ``address`` then contains the port."""
        self.subscribed.clear()
        self._run = _Run(self, self.address, self._secretkey)
        self.address = self._run.address

    def stop(self) -> None:
        """Close every connection, as if the platform was killed."""
        if self._run is not None:
            self._run.end()
            self._run = None

    def publish(
        self, topic: str, headers: Mapping[str, Any], body: Any, sender: str = "platform.driver"
    ) -> int:
        """Publish as an agent would; return the number of subscribers that received the message."""
        run = self._running
        data = {"bus": "", "headers": dict(headers), "message": body}
        return run.call(lambda: run.routing.distribute(sender.encode(CHARSET), b"", topic, data))

    def deliver(self, identity: str, frames: Sequence[bytes]) -> None:
        """Send any frames to a connected client, as a hostile or broken router might."""
        run = self._running
        run.call(lambda: run.routing.send(identity.encode(CHARSET), *frames))

    def freeze(self, peer: str) -> None:
        """Make a peer of ``rpc`` keep requests and answer none, as a process after SIGSTOP."""
        self._running.call(lambda: self.frozen.setdefault(peer, []))

    def thaw(self, peer: str) -> None:
        """Make the peer execute and answer the requests that it kept."""
        run = self._running

        def answer() -> None:
            for frames in self.frozen.pop(peer, []):
                run.routing.receive(frames)

        run.call(answer)

    def fall_silent(self) -> None:
        """Keep all connections, but neither answer nor deliver anything until the next start."""
        run = self._running
        run.call(lambda: setattr(run.routing, "silent", True))

    def subscriptions(self) -> dict[str, frozenset[str]]:
        """Return the prefixes of each identity."""
        return self._running.call(
            lambda: {peer.decode(CHARSET): frozenset(prefixes) for peer, prefixes in self.subscribed.items()}
        )

    def wait_for_subscriber(self, identity: str, seconds: float = 30.0) -> None:
        """Wait until this identity has subscribed to something. Raises ``TimeoutError``."""
        with self.changed:
            wanted = identity.encode(CHARSET)
            if not self.changed.wait_for(lambda: self.subscribed.get(wanted), seconds):
                raise TimeoutError(f"{identity} did not subscribe in {seconds:g} s")

    @property
    def _running(self) -> _Run:
        if self._run is None:
            raise RuntimeError("the router is not started: call start() first")
        return self._run


class _Run:
    """The sockets and the thread of a router, from its start to its stop."""

    def __init__(self, state: RouterState, address: str, secretkey: bytes) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._todo: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        socket = self._socket = self._context.socket(zmq.ROUTER)
        for option, value in ((zmq.ROUTER_MANDATORY, 1), (zmq.SNDHWM, 0), (zmq.RCVHWM, 0), (zmq.LINGER, 0)):
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.IPV6, int("[" in address))
        self.routing = Routing(state, socket)
        if secretkey:
            socket.curve_server = True
            socket.curve_secretkey = secretkey
        socket.bind(address)
        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake, woken = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._wake.bind("inproc://wake")
        woken.connect("inproc://wake")
        self._thread = threading.Thread(target=self._main, args=(woken,), name="fake-router", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function in the router's thread, and return what it returns."""
        if threading.current_thread() is self._thread:  # a method of rpc does it
            return function()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:  # noqa: BLE001 - the caller's thread raises it
                done.set_exception(error)

        self._todo.put(run)
        self._wake.send(b"")
        return done.result(10)

    def end(self) -> None:
        """End the thread, and close every connection."""
        self._todo.put(None)
        self._wake.send(b"")
        self._thread.join()
        self._wake.close()
        self._context.term()

    def _main(self, woken: zmq.Socket[bytes]) -> None:
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
                self.routing.receive(self._socket.recv_multipart())
        self._socket.close()
        woken.close()
