"""Routes that match exactly the paths that they name, with or without a last slash."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class ExactRoute(Route):
    """A route that matches whole paths. Starlette's ``$`` also matches before a final newline."""

    def __init__(self, path: str, endpoint: Endpoint, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        pattern = self.path_regex.pattern
        assert pattern.endswith("$")
        self.path_regex = re.compile(rf"{pattern[:-1]}\Z", self.path_regex.flags | re.DOTALL)


def without_trailing_slash(app: ASGIApp) -> ASGIApp:
    """Wrap an application so that ``/config/`` is handled as ``/config``.

    A slash that is escaped as ``%2F`` belongs to a name and is kept.
    """

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and scope["raw_path"].endswith(b"/"):
            scope = {**scope, "path": scope["path"][:-1], "raw_path": scope["raw_path"][:-1]}
        await app(scope, receive, send)

    return wrapped
