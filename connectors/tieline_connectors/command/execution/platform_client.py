"""Read and write points over the bus, through the driver (2.x) or an actuator (8, 9, 10)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tieline_connectors.command.execution.agents import (
    ACTUATOR,
    DRIVER,
    DeviceAgent,
    find_writing_agent,
    is_connected,
    reserves_devices,
)
from tieline_connectors.command.execution.errors import DeviceRefusedError, UnavailableError, UncertainError
from tieline_connectors.command.execution.reservation import Reservation
from tieline_connectors.command.model.point import actuator_topic, is_sendable_topic, split
from tieline_connectors.volttron_bus.vip.client import (
    BusMessage,
    InvalidAnswerError,
    PeerUnreachableError,
    RpcError,
    VipClient,
    VipError,
    VipTimeoutError,
    connect_client,
)
from tieline_connectors.volttron_bus.vip.connection import ConnectionEndedError, Endpoint
from tieline_connectors.volttron_bus.vip.reconnect import ReconnectState

_LONGEST_BACKOFF = 0.5
_START_UP = 5.0
"""Seconds that a driver may need, after its first answer, until it knows its devices."""
_PING_AFTER = 5.0
"""Seconds without an answer after which the agents are pinged before anything is sent to them."""
_UNREACHABLE = "No route to host"


class Platform:
    """The points of one platform; used by one thread. It connects when needed, and again after a loss.

    ``endpoint``: address and keys. A function is called again if the keys are refused; it raises
    ``ValueError`` if they cannot be read. ``timeout``: seconds that an answer may take. ``on_call`` gets the
    seconds that each call took. ``report`` gets the reason when the platform is unavailable, and ``None``
    when it answers. Once an actuator was found, all writes go through it; if it is unavailable, that is an
    outage.
    """

    def __init__(
        self,
        endpoint: Callable[[], Endpoint] | Endpoint,
        timeout: float,
        on_call: Callable[[float], None] = lambda seconds: None,
        agent: DeviceAgent = "auto",
        report: Callable[[str | None], None] = lambda reason: None,
    ) -> None:
        self._reconnect = ReconnectState(endpoint, backoff_max=_LONGEST_BACKOFF)
        self._reconnect.load()
        self._timeout = timeout
        self._on_call = on_call
        self._setting = agent
        self._report = report
        self._client: VipClient | None = None
        self._agents: tuple[str, ...] = ()
        self._last_answer = self._found_at = 0.0
        self._agent_missing = False
        self._publishes_writes = True
        """Whether the driver publishes each write itself, as that of 2.x does."""

    def connect(self) -> None:
        """Make sure that the agents that write answer. Raises ``UnavailableError``."""
        quiet = time.monotonic() - self._last_answer >= _PING_AFTER
        if quiet or self._client is None or not self._knows_agents:
            self.ping_agents()

    def ping_agents(self, seconds: float | None = None) -> None:
        """Ping these agents now, the step before a write. ``seconds``: the most that an answer may take.

        Raises ``UnavailableError``.
        """
        try:
            self._ping_agents(seconds)
        except UnavailableError as error:
            self._report(str(error))
            raise
        self._report(None)

    def _ping_agents(self, seconds: float | None) -> None:
        timeout = self._timeout if seconds is None else min(self._timeout, seconds)
        try:
            client = self._client or self._connect_client()
            if not self._knows_agents:
                self._find_agents(client, timeout)
            for agent in self._agents:
                client.ping(agent, timeout)
        except PeerUnreachableError as error:
            self._agent_missing = True
            raise UnavailableError(f"{self._description}: {error}") from error
        except VipTimeoutError as error:
            self._last_answer = -_PING_AFTER
            self._check_router()
            raise UnavailableError(f"{self._description} does not answer: {error}") from error
        except VipError as error:
            if self._client is not None and self._client.is_over:
                self.close()
            raise UnavailableError(f"{self._description}: {error}") from error
        if self._agent_missing:
            self._agent_missing, self._found_at = False, time.monotonic()
        self._last_answer = time.monotonic()

    @property
    def recently_found(self) -> bool:
        """Whether an agent was found just now: it may have just started."""
        return time.monotonic() - self._found_at < _START_UP

    @property
    def agent(self) -> str:
        """The identity of the agent that writes; empty while it is unknown."""
        return self._agents[0] if self._agents else ""

    def remember(self, agent: str) -> None:
        """Keep using the agent of earlier writes, perhaps of another worker. From any thread."""
        if agent == ACTUATOR and self._setting == "auto":
            self._setting = "actuator"

    def get(self, point: str) -> Any:
        """Return the value of a point now. Raises as `set`."""
        self.connect()
        if self.agent == ACTUATOR:
            return self._call(ACTUATOR, "get_point", *actuator_topic(point))
        return self._call(DRIVER, "get_point", *self._at_driver(point))

    def set(self, point: str, value: Any) -> None:
        """Write a point, at once or not at all; call `ping_agents` before it.

        Raises ``UnavailableError``, ``DeviceRefusedError``, ``UncertainError``.
        """
        self._check_name(point)
        if self.agent == ACTUATOR:
            topic, *name = actuator_topic(point)
            self._call(ACTUATOR, "set_point", self._reconnect.identity, topic, value, *name)
        else:
            self._call(DRIVER, "set_point", *self._at_driver(point), value)

    def revert(self, point: str) -> None:
        """Revert a point to its default. Raises as `set`."""
        self._check_name(point)
        if self.agent == ACTUATOR:
            self._call(ACTUATOR, "revert_point", self._reconnect.identity, *actuator_topic(point))
        else:
            self._call(DRIVER, "revert_point", *self._at_driver(point))

    def reserve(self, devices: Sequence[str], priority: str, writes: int) -> Reservation:
        """Reserve devices for that many writes (8, 9, 10; with 2.x nothing is reserved).

        ``priority``: the actuator's HIGH, LOW or LOW_PREEMPT. Raises as `set`, and `DeviceReservedError`.
        """
        self.connect()
        reservation = Reservation(self if self.agent == ACTUATOR else None, priority, self._timeout)
        try:
            reservation.ensure(devices, writes)
        except (UnavailableError, DeviceRefusedError, UncertainError):
            reservation.release()
            raise
        return reservation

    def call_actuator(self, method: str, *args: Any) -> Any:
        """Call the actuator. Raises as `set`."""
        self.connect()
        return self._call(ACTUATOR, method, *args)

    @contextmanager
    def subscribe(self, prefix: str) -> Iterator[Callable[[], Sequence[BusMessage]]]:
        """Subscribe to a prefix while this is open. Raises ``UnavailableError``."""
        self.connect()
        client = self._client
        assert client is not None
        try:
            client.subscribe(prefix, timeout=self._timeout)
        except VipError as error:
            raise UnavailableError(f"the router rejects the subscription: {error}") from error
        try:
            yield lambda: client.messages(0.0)
        finally:
            with suppress(VipError):
                client.unsubscribe(prefix, timeout=self._timeout)

    def is_ours(self, identity: str) -> bool:
        """Return whether an identity is ours, now or before a reconnect."""
        return identity in self._reconnect.identities

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        client, self._client = self._client, None
        self._agents = ()
        if client is not None:
            client.close()

    @property
    def _description(self) -> str:
        return f"the platform at {self._reconnect.endpoint.address}"

    @property
    def _knows_agents(self) -> bool:
        return self.agent == ACTUATOR or (self.agent == DRIVER and self._setting != "actuator")

    def _connect_client(self) -> VipClient:
        self._client, self._agent_missing = connect_client(self._reconnect), True
        return self._client

    def _find_agents(self, client: VipClient, timeout: float) -> None:
        agent = find_writing_agent(client, self._setting, timeout)
        if agent == DRIVER:
            self._publishes_writes = (
                reserves_devices(client.call(DRIVER, "inspect", timeout=timeout)) is not False
            )
            self._agents = (DRIVER,)
            return
        self.remember(agent)
        # An actuator may use a driver under another name: the driver is pinged only if it is connected.
        self._agents = (ACTUATOR, DRIVER) if is_connected(client, DRIVER, timeout) else (ACTUATOR,)

    def _check_router(self) -> None:
        """Find out after a timeout whether only the agent is silent, or the router too."""
        if self._client is None:
            return
        try:
            self._client.ping(timeout=self._timeout)
        except VipError as error:
            if isinstance(error, VipTimeoutError):  # it will consider our last connection alive
                self._reconnect.failed(ConnectionEndedError("no answer", identity_taken=True))
            self.close()

    def _check_name(self, point: str) -> None:
        """Raise ``DeviceRefusedError`` if a write would break the agent that publishes it."""
        if not is_sendable_topic(point) and (self.agent == ACTUATOR or self._publishes_writes):
            message = "outside ISO-8859-1, and this platform would publish the write under its name and break"
            raise DeviceRefusedError(f"{point} has characters {message}")

    def _at_driver(self, point: str) -> tuple[str, str]:
        """Return device and name.

        2.x takes a device that is called like our identity for an old kind of call.
        """
        device, name = split(point)
        if self.is_ours(device):
            raise DeviceRefusedError(f"no device can be written whose path is our identity, {device}")
        return device, name

    def _call(self, peer: str, method: str, *args: Any) -> Any:
        if self._client is None or not self.agent:
            raise UnavailableError("the platform is not connected")
        started = time.monotonic()
        try:
            answer = self._client.call(peer, method, *args, timeout=self._timeout)
        except RpcError as error:
            self._last_answer = time.monotonic()
            message = error.reason
            if peer == ACTUATOR and _UNREACHABLE in message:  # it cannot reach the driver
                self._agent_missing = True
                raise UnavailableError(message) from error
            raise DeviceRefusedError(message) from error
        except PeerUnreachableError as error:
            self._agent_missing = True
            self._last_answer = -_PING_AFTER
            raise UnavailableError(str(error)) from error
        except InvalidAnswerError as error:
            raise UncertainError(str(error)) from error
        except VipTimeoutError as error:
            self._last_answer = -_PING_AFTER  # ping before anything else is sent
            raise UncertainError(str(error)) from error
        except VipError as error:
            self.close()
            raise UncertainError(str(error)) from error
        finally:
            self._on_call(time.monotonic() - started)
        self._last_answer = time.monotonic()
        return answer
