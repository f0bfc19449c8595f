"""Who may use a registry over HTTP: basic and bearer authentication, from a file.

A line of the file is ``basic NAME PASSWORD`` or ``bearer TOKEN``, with ``read`` behind it for somebody who
may only look; ``#`` begins a comment.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from tieline.api.files import read_small_file
from tieline.registry.http.app import GRANTED, refusal
from tieline.registry.http.request import Access
from tieline.registry.model import errors

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

_LONGEST = 8192


class Users:
    """The credentials of a file. Raises ``ValueError`` and ``OSError``: which line, never what is in it."""

    def __init__(self, path: Path) -> None:
        self._credentials: list[tuple[str, bytes, bool]] = []
        for number, line in enumerate(read_small_file(path).decode("utf-8").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            may_write = words[-1] != "read" or len(words) == 1
            kind, *given = words if may_write else words[:-1]
            if (kind, len(given)) not in (("basic", 2), ("bearer", 1)):
                told = "is neither 'basic NAME PASSWORD' nor 'bearer TOKEN', perhaps with 'read' behind it"
                raise ValueError(f"{path}, line {number}, {told}")
            self._credentials.append((kind, ":".join(given).encode(), may_write))
        if not self._credentials:
            raise ValueError(f"{path} names nobody")

    def may_write(self, header: bytes) -> bool | None:
        """Of the ``Authorization`` header: none is nobody. Takes the same time for every wrong one."""
        kind, _, text = header[:_LONGEST].partition(b" ")
        found: bool | None = None
        try:
            given = base64.b64decode(text, validate=True) if kind.lower() == b"basic" else text.strip()
        except binascii.Error:
            return None
        for known_kind, secret, may_write in self._credentials:
            if hmac.compare_digest(secret, given) and known_kind.encode() == kind.lower():
                found = may_write
        return found


class Authenticated:
    """An application for those who are in the file. It learns what they may do as ``scope[GRANTED]``."""

    def __init__(self, app: App, users: Users) -> None:
        self._app = app
        self._users = users

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        may_write = self._users.may_write(header)
        if may_write is None:
            response = refusal(errors.unauthorized())
            response.headers["WWW-Authenticate"] = 'Basic realm="schema registry"'
            await response(scope, receive, send)
            return
        await self._app({**scope, GRANTED: Access.WRITE if may_write else Access.READ}, receive, send)
