"""Reading and writing points over the bus, through the driver (2.x) or an actuator (8, 9, 10).

Every error says how much is known: ``Away``, nothing was sent, or nobody was there to get it;
``DeviceRefused``, the platform answered that it cannot; ``Uncertain``, it may or may not have been done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import zmq

from tieline_connectors.command.execution.agents import (
    ACTUATOR,
    DRIVER,
    DeviceAgent,
    is_there,
    reserves,
    writing_agent,
)
from tieline_connectors.command.execution.reservation import DeviceRefused, Reservation
from tieline_connectors.command.model.point import actuator_topic, fits_a_topic, split
from tieline_connectors.volttron_bus.vip.client import (
    BusMessage,
    InvalidAnswerError,
    PeerUnreachableError,
    RpcError,
    VipClient,
    VipError,
    VipTimeoutError,
)
from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError, Endpoint
from tieline_connectors.volttron_bus.vip.jsonrpc import to_short_text
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

__all__ = ["Away", "DeviceRefused", "Platform", "Uncertain"]

_AWAY = 0.5
_SETTLES = 5.0
"""Seconds that a driver which has just answered for the first time may need until it knows its devices."""
_QUIET = 5.0
"""Seconds after which the agents are tried before anything is sent to them."""
_UNREACHABLE = "No route to host"


class Away(Exception):
    """The platform, or an agent that drives devices, is not there: nothing was done."""


class Uncertain(Exception):
    """No answer, or the connection broke after the request was sent."""


class Platform:
    """One platform's points; used by one thread. Connects when it is first needed, and again after a loss.

    ``endpoint``: where and who, called again if its keys are refused; raises ``ValueError`` if they cannot be
    read. ``timeout``: seconds that an answer may take. ``took`` is told of each call how long it took. An
    actuator that was there once is what writes go through from then on; if it is unavailable, that is an
    outage.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint] | Endpoint,
        timeout: float,
        took: Callable[[float], None] = lambda seconds: None,
        agent: DeviceAgent = "auto",
    ) -> None:
        self._reconnect = ReconnectState(endpoint, backoff_max=_AWAY)
        self._reconnect.load()
        self._timeout = timeout
        self._took = took
        self._setting = agent
        self._client: VipClient | None = None
        self._agents: tuple[str, ...] = ()
        self._last_answer = self._met_at = 0.0
        self._missing = False
        self.report: Callable[[str | None], None] = lambda because: None
        """Called with why the platform cannot be reached, and with None when it answers."""
        self._tells_the_bus = True
        """Whether the driver publishes each write itself, as that of 2.x does, which reserves devices too."""

    def connect(self) -> None:
        """Make sure that the agents which take writes answer. Raises ``Away``."""
        quiet = time.monotonic() - self._last_answer >= _QUIET
        if quiet or self._client is None or not self._knows_agents:
            self.be_sure()

    def be_sure(self, seconds: float | None = None) -> None:
        """Let these agents answer now, within so many seconds: the step before a write. Raises ``Away``."""
        try:
            self._be_sure(seconds)
        except Away as error:
            self.report(str(error))
            raise
        self.report(None)

    def _be_sure(self, seconds: float | None) -> None:
        timeout = self._timeout if seconds is None else min(self._timeout, seconds)
        try:
            client = self._client or self._introduce()
            if not self._knows_agents:
                self._find_agents(client, timeout)
            for agent in self._agents:
                client.ping(agent, timeout)
        except PeerUnreachableError as error:
            self._missing = True
            raise Away(f"{self._place}: {error}") from error
        except VipTimeoutError as error:
            self._last_answer = -_QUIET
            self._check_router()
            raise Away(f"{self._place} does not answer: {error}") from error
        except VipError as error:
            if self._client is not None and self._client.is_over:
                self.close()
            raise Away(f"{self._place}: {error}") from error
        if self._missing:
            self._missing, self._met_at = False, time.monotonic()
        self._last_answer = time.monotonic()

    @property
    def is_new(self) -> bool:
        """Whether an agent was met just now: perhaps it has just started."""
        return time.monotonic() - self._met_at < _SETTLES

    @property
    def agent(self) -> str:
        """The identity of the agent that takes writes; empty while that is not known."""
        return self._agents[0] if self._agents else ""

    def remember(self, agent: str) -> None:
        """Say through which agent writes went before, perhaps on another worker. From any thread."""
        if agent == ACTUATOR and self._setting == "auto":
            self._setting = "actuator"

    def get(self, point: str) -> Any:
        """The value of a point now. Raises ``Away``, ``DeviceRefused``, ``Uncertain`` (no answer)."""
        self.connect()
        if self.agent == ACTUATOR:
            return self._call(ACTUATOR, "get_point", *actuator_topic(point))
        return self._call(DRIVER, "get_point", *self._at_driver(point))

    def set(self, point: str, value: Any) -> None:
        """Write a point, at once or not at all: `be_sure` comes before it.

        Raises ``Away``, ``DeviceRefused``, ``Uncertain``.
        """
        self._check_name(point)
        if self.agent == ACTUATOR:
            topic, *name = actuator_topic(point)
            self._call(ACTUATOR, "set_point", self._reconnect.identity, topic, value, *name)
        else:
            self._call(DRIVER, "set_point", *self._at_driver(point), value)

    def revert(self, point: str) -> None:
        """Give a point back to its default. As ``set``."""
        self._check_name(point)
        if self.agent == ACTUATOR:
            self._call(ACTUATOR, "revert_point", self._reconnect.identity, *actuator_topic(point))
        else:
            self._call(DRIVER, "revert_point", *self._at_driver(point))

    def reserve(self, devices: Sequence[str], priority: str, writes: int) -> Reservation:
        """Reserve devices for so many writes (8, 9, 10; with 2.x nothing is reserved).

        ``priority``: the actuator's own word, HIGH, LOW or LOW_PREEMPT. Raises as ``set``, and `Taken`.
        """
        self.connect()
        reservation = Reservation(self if self.agent == ACTUATOR else None, priority, self._timeout)
        try:
            reservation.cover(devices, writes)
        except (Away, DeviceRefused, Uncertain):
            reservation.release()
            raise
        return reservation

    def ask(self, method: str, *args: Any) -> Any:
        """Call the actuator. Raises as ``set``."""
        self.connect()
        return self._call(ACTUATOR, method, *args)

    @contextmanager
    def hear(self, prefix: str) -> Iterator[Callable[[], Sequence[BusMessage]]]:
        """Subscribe to a prefix for as long as this is open. Raises ``Away``."""
        self.connect()
        client = self._client
        assert client is not None
        try:
            client.subscribe(prefix, timeout=self._timeout)
        except VipError as error:
            raise Away(f"the router takes no subscription: {error}") from error
        try:
            yield lambda: client.messages(0.0)
        finally:
            with suppress(VipError):
                client.unsubscribe(prefix, timeout=self._timeout)

    def is_ours(self, identity: str) -> bool:
        """Whether an identity is one that we use, or have used before a reconnect."""
        return identity in self._reconnect.identities

    def close(self) -> None:
        """Let the connection go; the next call makes another."""
        client, self._client = self._client, None
        self._agents = ()
        if client is not None:
            client.close()

    @property
    def _place(self) -> str:
        return f"the platform at {self._reconnect.endpoint.address}"

    @property
    def _knows_agents(self) -> bool:
        return self.agent == ACTUATOR or (self.agent == DRIVER and self._setting != "actuator")

    def _introduce(self) -> VipClient:
        try:
            client = VipClient(self._reconnect.endpoint)
        except zmq.ZMQError as error:
            raise VipError(f"the address cannot be used: {error}") from error
        try:
            client.hello(self._reconnect.hello_timeout)
        except VipError as error:
            silent = isinstance(error, VipTimeoutError) or client.is_over
            ended = client.ended() if silent else ConnectionEndedError(str(error), about_keys=True)
            self._reconnect.failed(ended)
            client.close()
            raise VipError(str(ended)) from error
        except BaseException:
            client.close()
            raise
        self._reconnect.succeeded()
        self._client, self._missing = client, True
        return client

    def _find_agents(self, client: VipClient, timeout: float) -> None:
        agent = writing_agent(client, self._setting, timeout)
        if agent == DRIVER:
            self._tells_the_bus = reserves(client.call(DRIVER, "inspect", timeout=timeout)) is not False
            self._agents = (DRIVER,)
            return
        self.remember(agent)
        # An actuator may be told to use a driver under another name: only one that is there is watched.
        self._agents = (ACTUATOR, DRIVER) if is_there(client, DRIVER, timeout) else (ACTUATOR,)

    def _check_router(self) -> None:
        """After a silence: is it the agent, or everybody?"""
        if self._client is None:
            return
        try:
            self._client.ping(timeout=self._timeout)
        except VipError as error:
            if isinstance(error, VipTimeoutError):  # it will take our last connection for alive
                self._reconnect.failed(ConnectionEndedError("no answer", identity_taken=True))
            self.close()

    def _check_name(self, point: str) -> None:
        """Raise ``DeviceRefused`` where a write would hurt the agent that tells the bus of it."""
        if not fits_a_topic(point) and (self.agent == ACTUATOR or self._tells_the_bus):
            told = "outside ISO-8859-1, and this platform would publish the write under its name and break"
            raise DeviceRefused(f"{point} has characters {told}")

    def _at_driver(self, point: str) -> tuple[str, str]:
        """Device and name. 2.x takes our own identity as a device for an old call, whose path is the name."""
        device, name = split(point)
        if self.is_ours(device):
            raise DeviceRefused(f"no device can be written that has our identity, {device}, as its path")
        return device, name

    def _call(self, peer: str, method: str, *args: Any) -> Any:
        if self._client is None or not self.agent:
            raise Away("the platform is not connected")
        begun = time.monotonic()
        try:
            answer = self._client.call(peer, method, *args, timeout=self._timeout)
        except RpcError as error:
            self._last_answer = time.monotonic()
            told = _told(error)
            if peer == ACTUATOR and _UNREACHABLE in told:  # it has found no driver
                self._missing = True
                raise Away(told) from error
            raise DeviceRefused(told) from error
        except PeerUnreachableError as error:
            self._missing = True
            self._last_answer = -_QUIET
            raise Away(str(error)) from error
        except InvalidAnswerError as error:
            raise Uncertain(str(error)) from error
        except VipTimeoutError as error:
            self._last_answer = -_QUIET  # perhaps nobody is there: try before anything else is sent
            raise Uncertain(str(error)) from error
        except VipError as error:
            self.close()
            raise Uncertain(str(error)) from error
        finally:
            self._took(time.monotonic() - begun)
        self._last_answer = time.monotonic()
        return answer


def _told(error: RpcError) -> str:
    """The peer's sentence; what it added (2.x: a trace, whose last line says it) in one line."""
    detail = error.detail.get("detail", error.detail) if isinstance(error.detail, dict) else error.detail
    lines = [line for line in detail.splitlines() if line.strip()] if isinstance(detail, str) else [detail]
    more = to_short_text(lines[-1]) if lines and lines[-1] else ""
    return f"{str(error)[:300]}{f' ({more[:300]})' if more else ''}"
