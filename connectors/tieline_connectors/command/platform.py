"""Reading and writing points over the bus: VOLTTRON 2.x by its driver, 10.x by its actuator.

Every error says how much is known: ``Away``, nothing was sent, or nobody was there to get it;
``DeviceRefused``, the platform answered that it cannot; ``Uncertain``, it may or may not have been done.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from tieline_connectors.command.point import actuator_topic, split
from tieline_connectors.volttron_bus.connection import Endpoint
from tieline_connectors.volttron_bus.jsonrpc import readable
from tieline_connectors.volttron_bus.vip import (
    InvalidAnswer,
    RpcError,
    VipClient,
    VipError,
    VipRefused,
    VipTimeout,
)

T = TypeVar("T")
_DRIVER, _ACTUATOR = "platform.driver", "platform.actuator"
_IDENTITIES = 10
_FIRST_HELLO = 1.0
_SETTLES = 5.0
"""Seconds that a driver which has just answered for the first time may need until it knows its devices."""
_QUIET = 5.0
"""Seconds after which the connection is tried before anything is sent through it."""


class Away(Exception):
    """The platform, or the agent that drives devices, is not there: nothing was done."""


class DeviceRefused(Exception):
    """The platform answered with an error; ``locked``: somebody else has reserved the device."""

    def __init__(self, message: str, *, locked: bool = False) -> None:
        super().__init__(message)
        self.locked = locked


class Uncertain(Exception):
    """No answer, or the connection broke after the request was sent."""


class Platform:
    """One platform's points; used by one thread. Connects when it is first needed, and again after a loss.

    ``timeout``: seconds that an answer may take. ``requester``: who reserves devices (10.x). ``took`` is told
    of each call how long it took.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: float,
        requester: str,
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._requester = requester
        self._took = took
        self._client: VipClient | None = None
        self._has_actuator = False
        self._last_answer = self._met_at = 0.0
        self._spare = 0

    def connect(self) -> None:
        """Make sure that the platform answers, and of which kind it is. Raises ``Away``."""
        if self._client is not None and time.monotonic() - self._last_answer < _QUIET:
            return
        try:
            if self._client is not None:
                self._client.ping(timeout=self._timeout)
            else:
                self._introduce()
            self._last_answer = time.monotonic()
        except VipError as error:
            if isinstance(error, VipTimeout):  # perhaps our last connection is still taken for alive
                self._spare = (self._spare + 1) % _IDENTITIES
            self.close()
            raise Away(f"the platform at {self._endpoint.address} does not answer: {error}") from error

    @property
    def is_new(self) -> bool:
        """Whether the connection was made just now: perhaps the platform has just started."""
        return time.monotonic() - self._met_at < _SETTLES

    def get(self, point: str) -> Any:
        """The value of a point now. Raises ``Away``, ``DeviceRefused``, ``Uncertain`` (no answer)."""
        if self._has_actuator:
            return self._call(_ACTUATOR, "get_point", *actuator_topic(point))
        return self._call(_DRIVER, "get_point", *self._at_driver(point))

    def set(self, point: str, value: Any) -> None:
        """Write a point. Raises ``Away``, ``DeviceRefused``, ``Uncertain``."""
        if self._has_actuator:
            topic, *name = actuator_topic(point)
            self._call(_ACTUATOR, "set_point", self._requester, topic, value, *name)
        else:
            self._call(_DRIVER, "set_point", *self._at_driver(point), value)

    def revert(self, point: str) -> None:
        """Give a point back to its default. Raises as ``set``."""
        if self._has_actuator:
            self._call(_ACTUATOR, "revert_point", self._requester, *actuator_topic(point))
        else:
            self._call(_DRIVER, "revert_point", *self._at_driver(point))

    @contextmanager
    def reserved(self, devices: list[str], priority: str, seconds: float) -> Iterator[None]:
        """Reserve devices for the writes inside (10.x; 2.x has no locks). Raises as ``set``.

        ``priority``: the actuator's own word, HIGH, LOW or LOW_PREEMPT.
        """
        if not self._has_actuator:
            yield
            return
        task = f"tieline-{uuid.uuid4()}"
        now = datetime.now(timezone.utc)
        slot = [now.isoformat(), (now + timedelta(seconds=seconds)).isoformat()]
        wanted = [[device, *slot] for device in devices]
        answer = self._call(_ACTUATOR, "request_new_schedule", self._requester, task, priority, wanted)
        if not isinstance(answer, dict) or answer.get("result") != "SUCCESS":
            said = answer.get("info") or answer.get("data") if isinstance(answer, dict) else answer
            raise DeviceRefused(f"{', '.join(devices)} cannot be reserved: {readable(said)}", locked=True)
        try:
            yield
        finally:
            with suppress(Away, DeviceRefused, Uncertain):  # it ends by itself, in so many seconds
                self._call(_ACTUATOR, "request_cancel_schedule", self._requester, task)

    def close(self) -> None:
        """Let the connection go; the next call makes another."""
        client, self._client = self._client, None
        if client is not None:
            client.__exit__(None, None, None)

    def _introduce(self) -> None:
        client = VipClient(self._endpoint.beside(self._spare)).__enter__()
        try:
            client.hello(min(_FIRST_HELLO, self._timeout))
            self._has_actuator = _answers(client, _ACTUATOR, self._timeout)
            if not self._has_actuator:
                client.ping(_DRIVER, self._timeout)
        except BaseException:
            client.__exit__(None, None, None)
            raise
        self._client, self._met_at = client, time.monotonic()

    def _at_driver(self, point: str) -> tuple[str, str]:
        """Device and name. 2.x takes our own identity as a device for an old call, whose path is the name."""
        device, name = split(point)
        if device in {self._endpoint.beside(number).identity for number in range(_IDENTITIES)}:
            raise DeviceRefused(f"no device can be written that has our identity, {device}, as its path")
        return device, name

    def _call(self, peer: str, method: str, *args: Any) -> Any:
        self.connect()
        assert self._client is not None
        begun = time.monotonic()
        try:
            answer = self._client.call(peer, method, *args, timeout=self._timeout)
        except RpcError as error:
            self._last_answer = time.monotonic()
            told = _told(error)
            raise DeviceRefused(told, locked="LockError" in told) from error
        except VipRefused as error:
            self.close()  # perhaps it is the other generation now
            raise Away(str(error)) from error
        except InvalidAnswer as error:
            raise Uncertain(str(error)) from error
        except VipTimeout as error:
            self._last_answer = -_QUIET  # perhaps nobody is there: try before anything else is sent
            raise Uncertain(str(error)) from error
        except VipError as error:
            self.close()
            raise Uncertain(str(error)) from error
        finally:
            self._took(time.monotonic() - begun)
        self._last_answer = time.monotonic()
        return answer


def _answers(client: VipClient, peer: str, timeout: float) -> bool:
    try:
        client.ping(peer, timeout)
    except VipRefused:
        return False
    return True


def _told(error: RpcError) -> str:
    """The peer's sentence; what it added (2.x: a trace, whose last line says it) in one line."""
    detail = error.detail.get("detail", error.detail) if isinstance(error.detail, dict) else error.detail
    lines = [line for line in detail.splitlines() if line.strip()] if isinstance(detail, str) else [detail]
    more = readable(lines[-1]) if lines and lines[-1] else ""
    return f"{str(error)[:300]}{f' ({more[:300]})' if more else ''}"
