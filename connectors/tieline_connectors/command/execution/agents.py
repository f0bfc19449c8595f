"""Find the agent through which a platform's points are written: its driver (2.x), or an actuator (8, 9, 10).

The choice must not depend on which agents happen to be running: a write that bypasses a temporarily
unavailable actuator ignores every reservation. The driver's methods show which it is. That of 2.x exports the
reservations itself; those of 8, 9 and 10 leave them to an actuator, whether it runs at the moment or not.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from tieline_connectors.volttron_bus.vip.client import PeerUnreachableError, RpcError, VipClient, VipError

DRIVER, ACTUATOR = "platform.driver", "platform.actuator"
DeviceAgent: TypeAlias = Literal["auto", "actuator", "driver"]
"""The setting ``volttron.device.agent``."""

_RESERVES = "request_new_schedule"
_FIX = "Set volttron.device.agent to actuator or driver"


class UnknownAgentError(VipError):
    """It is not known yet through which agent points are written: wait."""


def find_writing_agent(client: VipClient, setting: DeviceAgent, timeout: float) -> str:
    """Return the identity of the agent that takes writes.

    Raises `UnknownAgentError`, or another ``VipError`` if an agent or the router does not answer.
    """
    if setting != "auto":
        return ACTUATOR if setting == "actuator" else DRIVER
    if is_connected(client, ACTUATOR, timeout):
        return ACTUATOR
    try:
        inspected = client.call(DRIVER, "inspect", timeout=timeout)
    except RpcError as error:
        raise UnknownAgentError(f"{DRIVER} does not say what it can do: {error}. {_FIX}") from error
    reserves = reserves_devices(inspected)
    if reserves is None:
        raise UnknownAgentError(f"{DRIVER} does not say what it can do. {_FIX}")
    if reserves:
        return DRIVER
    raise UnknownAgentError(
        f"{ACTUATOR} is not running, and this platform's driver (of VOLTTRON 8, 9 or 10) leaves reservations"
        f" to it. Start the actuator; if the platform has none, set volttron.device.agent=driver"
    )


def reserves_devices(inspected: object) -> bool | None:
    """Return whether a driver reserves devices itself, as that of 2.x does; ``None`` if it does not say.

    ``inspected``: its answer to ``inspect``.
    """
    methods = inspected.get("methods") if isinstance(inspected, dict) else None
    return _RESERVES in methods if isinstance(methods, list) else None


def is_connected(client: VipClient, agent: str, timeout: float) -> bool:
    """Return whether an agent answers; raises ``VipError`` if it is connected and does not."""
    try:
        client.ping(agent, timeout)
    except PeerUnreachableError:
        return False
    return True
