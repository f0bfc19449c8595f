"""One connection to a platform's router: a socket that never reconnects, and the state of that socket."""

from __future__ import annotations

import enum
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType

import zmq
from typing_extensions import Self
from zmq.utils.monitor import recv_monitor_message

from tieline_connectors.volttron_bus.vip.addresses import resolve_address
from tieline_connectors.volttron_bus.vip.credentials import CurveKeys
from tieline_connectors.volttron_bus.vip.frames import agentstop_request, check_text

_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
)
_numbers = itertools.count()
_LEAVE_MS = 300
"""How long our last message may wait for a router that does not read."""


@dataclass(frozen=True)
class Endpoint:
    """The router's address, with our identity and keys.

    ``keys_from`` says where the keys were read, for messages. Raises ``ValueError`` on an identity that would
    harm the router.
    """

    address: str
    identity: str
    keys: CurveKeys | None = None
    keys_from: str = ""

    def __post_init__(self) -> None:
        check_text("identity", self.identity)
        if len(self.identity) > 255:
            raise ValueError("the identity is longer than 255 characters")

    def with_suffix(self, number: int) -> Endpoint:
        """Return the endpoint with a number after its identity, or unchanged if ``number`` is 0.

        The router accepts one connection per identity, and notices a half-open connection only after
        minutes. If it does not answer, we therefore connect under another identity.
        """
        return replace(self, identity=f"{self.identity}.{number + 1}") if number else self

    def has_same_keys(self, other: Endpoint) -> bool:
        """Return whether both have the same keys; two generated pairs count as the same."""
        keys, other_keys = self.keys, other.keys
        if keys is None or other_keys is None:
            return keys is other_keys
        return keys.serverkey == other_keys.serverkey and (
            (keys.is_generated and other_keys.is_generated) or keys.secretkey == other_keys.secretkey
        )


class ConnectionEndedError(Exception):
    """The connection has ended.

    ``about_keys``: keys or address may be wrong, so that waiting alone will not help. ``identity_taken``:
    another connection may have our identity. ``too_slow``: no answer came in time, but may have come later.
    """

    def __init__(
        self, reason: str, *, about_keys: bool = False, identity_taken: bool = False, too_slow: bool = False
    ) -> None:
        super().__init__(reason)
        self.about_keys = about_keys
        self.identity_taken = identity_taken
        self.too_slow = too_slow


class State(enum.Enum):
    """The state of a connection, from libzmq's events."""

    CONNECTING = "connecting"
    OPEN = "open"
    REFUSED = "refused"
    """Nothing listens at the address."""
    FAILED = "failed"
    """The handshake failed: a wrong or missing key, or the server is not a VIP router."""
    LOST = "lost"
    """The connection was open and has ended."""


class Connection:
    """A DEALER socket to the router, for one thread. It never blocks and never reconnects by itself.

    The router drops a subscription whenever it cannot reach us, and libzmq's own reconnect would hide that.
    Therefore a lost connection stays lost, and its owner opens another one and says hello again. ZMTP
    heartbeats abort the router's libzmq; a VIP ping checks that it is alive.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, linger_ms: int = 0
    ) -> None:
        self.state = State.CONNECTING
        self._endpoint = endpoint
        self._started_at = self._opened_at = time.monotonic()
        self.socket = context.socket(zmq.DEALER)
        self.socket.identity = endpoint.identity.encode("iso-8859-1")
        self.socket.setsockopt(zmq.RCVHWM, 0)  # a full queue here would block, then kill, the platform
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.LINGER, linger_ms)
        self.socket.setsockopt(zmq.IPV6, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        if endpoint.keys:
            self.socket.curve_serverkey = endpoint.keys.serverkey
            self.socket.curve_publickey = endpoint.keys.publickey
            self.socket.curve_secretkey = endpoint.keys.secretkey
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._poller = zmq.Poller()
        try:
            monitor_address = f"inproc://tieline-{next(_numbers)}"
            self.socket.monitor(monitor_address, _WATCHED)
            self._monitor.connect(monitor_address)
            self._poller.register(self.socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self.socket.connect(resolve_address(endpoint.address))
            self._started_at = time.monotonic()
        except zmq.ZMQError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Announce to the router that we leave, as VOLTTRON's own agents do, and release both sockets.

        Otherwise the router keeps the identity in its list of peers. A 10.x router ends at the next message
        that it sends to a peer without a connection, such as after ``vctl auth add``.
        """
        if self.state is State.OPEN:
            with suppress(zmq.ZMQError):
                self.send(agentstop_request(self._endpoint.identity))
                self.socket.setsockopt(zmq.LINGER, max(_LEAVE_MS, int(self.socket.getsockopt(zmq.LINGER))))
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close()

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended; ``receive`` may still return messages that arrived before."""
        return self.state not in (State.CONNECTING, State.OPEN)

    def send(self, frames: Sequence[bytes]) -> None:
        """Queue a message in libzmq; returns at once."""
        self.socket.send_multipart(frames)

    def wait(self, seconds: float) -> None:
        """Wait until a message arrives or the state changes, for at most ``seconds``."""
        if any(socket is self._monitor for socket, _ in self._poller.poll(max(0, int(seconds * 1000)))):
            while self._monitor.poll(0):
                self._update_state(int(recv_monitor_message(self._monitor)["event"]))

    def receive(self, limit: int) -> list[list[bytes]]:
        """Return up to ``limit`` messages that have arrived; never waits."""
        # This does the same as recv_multipart at half the cost. The parts of a message arrive together, so
        # only the first one can be missing.
        messages: list[list[bytes]] = []
        receive, option = self.socket.recv, self.socket.get
        with suppress(zmq.Again):
            for _ in range(limit):
                frames = [receive(zmq.NOBLOCK)]
                while option(zmq.RCVMORE):
                    frames.append(receive())
                messages.append(frames)
        return messages

    def ended(self) -> ConnectionEndedError:
        """Return why a connection that has ended did so, with the fix."""
        if self.state is State.REFUSED:
            return ConnectionEndedError(
                "nothing listens there: start the platform, or check volttron.address"
            )
        if self.state is State.FAILED:
            return ConnectionEndedError(
                f"it refuses our keys{self._keys_text}: volttron.serverkey must be the publickey of the"
                " platform's credentials_store/platform.json (8, 9: public of keystore), and is needed"
                " whenever the platform's auth is enabled",
                about_keys=True,
            )
        return ConnectionEndedError("the connection was lost")

    def unanswered_hello(self) -> ConnectionEndedError:
        """Return what it means that our hello was not answered in time, with the fix."""
        handshake = self._opened_at - self._started_at
        if self.state is State.OPEN and time.monotonic() - self._opened_at <= handshake:
            return ConnectionEndedError(
                "it has only just accepted our connection, and has not answered our hello yet", too_slow=True
            )
        if self.state is State.OPEN:
            return ConnectionEndedError(
                "it accepts our connection but does not answer our hello: it hangs, or another connection has"
                " our identity (volttron.identity)",
                identity_taken=True,
            )
        return ConnectionEndedError(
            f"no answer: check volttron.address, volttron.serverkey{self._keys_text}, firewalls, and (10.x)"
            " that the platform knows our keys",
            about_keys=True,
            too_slow=True,
        )

    @property
    def _keys_text(self) -> str:
        return f" ({self._endpoint.keys_from})" if self._endpoint.keys_from else ""

    def _update_state(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state = State.OPEN
            self._opened_at = time.monotonic()
        elif self.is_over:
            return
        elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            missed = State.REFUSED if event == zmq.EVENT_CLOSED else State.FAILED
            self.state = State.LOST if self.state is State.OPEN else missed
        else:
            self.state = State.FAILED
