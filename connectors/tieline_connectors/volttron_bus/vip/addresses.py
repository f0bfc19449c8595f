"""Choose one address of a host name. libzmq tries one address family only, and a name may have both."""

from __future__ import annotations

import ipaddress
import re
import selectors
import socket
import time
from contextlib import ExitStack

TIMEOUT = 2.0
"""Seconds for which several addresses of a host are tried."""
_TCP = re.compile(r"tcp://(.+):(\d{1,5})")


def resolve_address(address: str, timeout: float = TIMEOUT) -> str:
    """Return the address for libzmq: if a host has several, the first one that accepts a connection.

    All addresses are tried at once. A literal address or a path (``ipc://``) is returned unchanged, and so
    is a name that cannot be resolved: libzmq then reports the error.
    """
    match = _TCP.fullmatch(address)
    if match is None or _is_literal(match[1]):
        return address
    port = int(match[2])
    try:
        resolved = socket.getaddrinfo(match[1], port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return address
    targets = list(dict.fromkeys((family, target) for family, *_, target in resolved))
    if len(targets) == 1:
        return _format(targets[0][0], str(targets[0][1][0]), port)
    with ExitStack() as sockets:
        attempts: dict[socket.socket, str] = {}
        for family, target in targets:
            try:
                attempt = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
                attempt.setblocking(False)
                attempt.connect_ex(target)
            except OSError:  # this computer does not have the address family
                continue
            attempts[attempt] = _format(family, str(target[0]), port)
        return _first_connected(attempts, timeout) or address


def _first_connected(attempts: dict[socket.socket, str], timeout: float) -> str:
    """Return the address of the first attempt that connects within ``timeout`` seconds, or an empty text."""
    end = time.monotonic() + timeout
    with selectors.DefaultSelector() as selector:
        for attempt in attempts:
            selector.register(attempt, selectors.EVENT_WRITE)
        while attempts and (left := end - time.monotonic()) > 0:
            ready = {key.fileobj for key, _ in selector.select(left)}
            for attempt in [attempt for attempt in attempts if attempt in ready]:
                selector.unregister(attempt)
                address = attempts.pop(attempt)
                if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    return address
    return ""


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _format(family: int, host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if family == socket.AF_INET6 else f"tcp://{host}:{port}"
