"""One connection to a platform's router: a socket that never reconnects, and what became of it."""

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
"""How long what we send last may wait for a router that does not take it."""


@dataclass(frozen=True)
class Endpoint:
    """Where the router is, and who connects. Raises ``ValueError`` on an identity that would hurt it.

    ``keys_from``: where the keys were read, for people.
    """

    address: str
    identity: str
    keys: CurveKeys | None = None
    keys_from: str = ""

    def __post_init__(self) -> None:
        check_text("identity", self.identity)
        if len(self.identity) > 255:
            raise ValueError("the identity is longer than 255 characters")

    def beside(self, number: int) -> Endpoint:
        """The same under a name beside the first, for ``number`` above 0.

        The router lets no second connection in under an identity, and notices a half-open one after
        minutes only; so after a silence we introduce ourselves as somebody else.
        """
        return replace(self, identity=f"{self.identity}.{number + 1}") if number else self

    def has_keys_of(self, other: Endpoint) -> bool:
        """Whether the keys are the same; a pair that is made at each reading counts as one."""
        mine, theirs = self.keys, other.keys
        if mine is None or theirs is None:
            return mine is theirs
        return mine.serverkey == theirs.serverkey and (
            (mine.made and theirs.made) or mine.secretkey == theirs.secretkey
        )


class ConnectionEndedError(Exception):
    """One connection is over. ``about_keys``: it says something that waiting alone will not mend.

    ``too_slow``: no answer came, and perhaps one would have come a little later.
    """

    def __init__(
        self, reason: str, *, about_keys: bool = False, identity_taken: bool = False, too_slow: bool = False
    ) -> None:
        super().__init__(reason)
        self.about_keys = about_keys
        self.identity_taken = identity_taken
        self.too_slow = too_slow


class State(enum.Enum):
    """What is known of a connection, from libzmq's own events."""

    CONNECTING = "connecting"
    OPEN = "open"
    REFUSED = "refused"
    """Nobody listens there."""
    FAILED = "failed"
    """Somebody listens, and the handshake failed: a wrong or missing key, or no VIP router at all."""
    LOST = "lost"
    """It was open, and is not any more."""


class Connection:
    """A DEALER socket to the router; one thread uses it. Never blocks, never reconnects by itself.

    The router forgets a subscription whenever it cannot reach us, and libzmq's own reconnect hides
    just that. So a lost connection stays lost, and its owner opens another one and introduces itself
    again. ZMTP heartbeats abort the router's libzmq: liveness is a VIP ping.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: Endpoint, linger_ms: int = 0
    ) -> None:
        self.state = State.CONNECTING
        self._endpoint = endpoint
        self._began = self._opened = time.monotonic()
        self.socket = context.socket(zmq.DEALER)
        self.socket.identity = endpoint.identity.encode("iso-8859-1")
        self.socket.setsockopt(zmq.RCVHWM, 0)  # a full queue here would stall, then kill, the platform
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
            place = f"inproc://tieline-{next(_numbers)}"
            self.socket.monitor(place, _WATCHED)
            self._monitor.connect(place)
            self._poller.register(self.socket, zmq.POLLIN)
            self._poller.register(self._monitor, zmq.POLLIN)
            self.socket.connect(resolve_address(endpoint.address))
            self._began = time.monotonic()
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
        """Tell the router that we leave, as VOLTTRON's own agents do, and release both sockets.

        A router that is not told keeps the identity among its peers; 10.x ends at the next message that it
        sends to one which is gone, such as after ``vctl auth add``.
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
        """Nothing will arrive any more but what ``receive`` still has."""
        return self.state not in (State.CONNECTING, State.OPEN)

    def send(self, frames: Sequence[bytes]) -> None:
        """Hand a message to libzmq."""
        self.socket.send_multipart(frames)

    def wait(self, seconds: float) -> None:
        """Until something arrived or happened, at most this long."""
        if any(socket is self._monitor for socket, _ in self._poller.poll(max(0, int(seconds * 1000)))):
            while self._monitor.poll(0):
                self._note(int(recv_monitor_message(self._monitor)["event"]))

    def receive(self, limit: int) -> list[list[bytes]]:
        """Up to ``limit`` messages that are there."""
        # What recv_multipart does, at half its cost. The parts of a message arrive together, so only
        # the first can be missing.
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
        """Why a connection that is over is over, and the way out."""
        if self.state is State.REFUSED:
            return ConnectionEndedError("nobody listens there: start the platform, or check volttron.address")
        if self.state is State.FAILED:
            return ConnectionEndedError(
                f"it refuses our keys{self._tried}: volttron.serverkey must be the publickey of the"
                " platform's credentials_store/platform.json (8, 9: public of keystore), and is needed"
                " whenever the platform's auth is enabled",
                about_keys=True,
            )
        return ConnectionEndedError("the connection was lost")

    def unanswered_hello(self) -> ConnectionEndedError:
        """What it means that nobody answers our hello."""
        handshake = self._opened - self._began
        if self.state is State.OPEN and time.monotonic() - self._opened <= handshake:
            return ConnectionEndedError(
                "it has let us in just now, and has not answered our hello yet", too_slow=True
            )
        if self.state is State.OPEN:
            return ConnectionEndedError(
                "it lets us in and answers no hello: it hangs, or another connection holds our identity"
                " (volttron.identity)",
                identity_taken=True,
            )
        return ConnectionEndedError(
            f"no answer: check volttron.address, volttron.serverkey{self._tried}, firewalls, and (10.x) that"
            " the platform knows our keys",
            about_keys=True,
            too_slow=True,
        )

    @property
    def _tried(self) -> str:
        return f" ({self._endpoint.keys_from})" if self._endpoint.keys_from else ""

    def _note(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.state = State.OPEN
            self._opened = time.monotonic()
        elif self.is_over:
            return
        elif event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED):
            missed = State.REFUSED if event == zmq.EVENT_CLOSED else State.FAILED
            self.state = State.LOST if self.state is State.OPEN else missed
        else:
            self.state = State.FAILED
