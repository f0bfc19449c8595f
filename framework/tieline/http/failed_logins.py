"""Limit failed logins by client address, so that no client can overload a server with hashing. Pure."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

_MAX_FAILURES = 10
_SECONDS_PER_FAILURE = 6.0  # until one failure of an address is forgotten; they are forgotten one by one
_MAX_ADDRESSES = 10_000


class FailedLogins:
    """Limits how often a client address may fail to log in.

    Not thread-safe; the server's event loop owns it. An address may fail ten times at once, then once every
    six seconds.
    """

    def __init__(self, max_addresses: int = _MAX_ADDRESSES) -> None:
        self._max_addresses = max_addresses
        self._forgotten_at: OrderedDict[str, float] = OrderedDict()  # by address: when none is left

    def seconds_until_allowed(self, address: str, now: float) -> float:
        """Return how long this address must wait before its next attempt; 0.0 if it need not wait."""
        forgotten_at = self._forgotten_at.get(client_key(address), now)
        return max(0.0, forgotten_at - now - (_MAX_FAILURES - 1) * _SECONDS_PER_FAILURE)

    def add(self, address: str, now: float) -> None:
        """Count a failure."""
        key = client_key(address)
        self._forgotten_at[key] = max(self._forgotten_at.get(key, now), now) + _SECONDS_PER_FAILURE
        self._forgotten_at.move_to_end(key)
        if len(self._forgotten_at) > self._max_addresses:
            self._forgotten_at.popitem(last=False)


def client_key(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address
