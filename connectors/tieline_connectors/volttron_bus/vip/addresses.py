"""Which of a host's addresses to connect to. libzmq tries one address family only; a name may have both."""

from __future__ import annotations

import ipaddress
import re
import selectors
import socket
import time
from contextlib import ExitStack

PATIENCE = 2.0
"""Seconds for which more than one address of a host is tried."""
_TCP = re.compile(r"tcp://(.+):(\d{1,5})")


def resolve_address(address: str, patience: float = PATIENCE) -> str:
    """Return the address as libzmq takes it: of a host with several, the first at which someone listens.

    All of them are tried at once. A literal or a path (``ipc://``) stays as it is, and so does what
    cannot be resolved: libzmq then says what is wrong.
    """
    match = _TCP.fullmatch(address)
    if match is None or _is_literal(match[1]):
        return address
    port = int(match[2])
    try:
        found = socket.getaddrinfo(match[1], port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return address
    places = list(dict.fromkeys((family, place) for family, *_, place in found))
    if len(places) == 1:
        return _spelt(places[0][0], str(places[0][1][0]), port)
    with ExitStack() as sockets:
        trying: dict[socket.socket, str] = {}
        for family, place in places:
            try:
                one = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.setblocking(False)
                one.connect_ex(place)
            except OSError:  # this computer has no such family
                continue
            trying[one] = _spelt(family, str(place[0]), port)
        return _first(trying, patience) or address


def _first(trying: dict[socket.socket, str], patience: float) -> str:
    end = time.monotonic() + patience
    with selectors.DefaultSelector() as answers:
        for one in trying:
            answers.register(one, selectors.EVENT_WRITE)
        while trying and (left := end - time.monotonic()) > 0:
            ready = {key.fileobj for key, _ in answers.select(left)}
            for one in [one for one in trying if one in ready]:
                answers.unregister(one)
                spelt = trying.pop(one)
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    return spelt
    return ""


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _spelt(family: int, host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if family == socket.AF_INET6 else f"tcp://{host}:{port}"
