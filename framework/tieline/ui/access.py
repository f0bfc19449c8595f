"""Who may request what: the checks before any page, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tieline.api.pages import PageError
from tieline.http.requests import BodyTooLargeError, content_type, read_body
from tieline.ui.sessions import COOKIE, Sessions, Visit

FORM_TOKEN = "form_token"
_MAX_FORM = 64 * 1024
_MAX_FIELDS = 200
_OWN_SITE = ("same-origin", "none")
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}


class SecurityHeaders:
    """ASGI middleware: sets the headers that restrict what a page can do. By default nothing is cached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)


def visit_of(request: Request, sessions: Sessions) -> Visit:
    """Return who requests a page. Raises ``PageError`` for a name that another site gave this address.

    Without users, the name in the address bar must be a loopback one. Otherwise a foreign site could let its
    own name lead to this machine, and would then count as this site (DNS rebinding).
    """
    host = request.headers.get("host", "")
    if not sessions.needs_sign_in and not _is_loopback(host):
        raise PageError(
            421,
            f"This worker has no users, so it answers only to localhost, not to {host!r}."
            " Open http://127.0.0.1, or create users with `tieline users add`",
        )
    return sessions.visit(request.cookies.get(COOKIE, ""))


async def read_form(request: Request, visit: Visit, sessions: Sessions) -> dict[str, str]:
    """Return the fields of a form that a page of this session sent. Raises ``PageError``."""
    origin = request.headers.get("origin")  # its scheme does not count: a proxy may add TLS
    is_foreign = (
        origin is not None and _netloc(origin) != request.headers.get("host", "")
    ) or request.headers.get("sec-fetch-site", "none") not in _OWN_SITE
    if is_foreign:
        raise PageError(403, "The form was sent by another site. Open the page here and send it again")
    if content_type(request) != "application/x-www-form-urlencoded":
        raise PageError(415, "A form is sent as application/x-www-form-urlencoded")
    try:
        body = await read_body(request, _MAX_FORM)
        fields = dict(
            parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
        )
    except BodyTooLargeError:
        raise PageError(413, f"The form is larger than {_MAX_FORM} bytes") from None
    except ValueError:
        raise PageError(400, "The form cannot be read: it is not UTF-8, or has too many fields") from None
    if visit.is_new or not sessions.is_form_token(visit.token, fields.pop(FORM_TOKEN, "")):
        raise PageError(403, "The page was too old to be sent. Go back, reload it, and send it again")
    return fields


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None


def _is_loopback(header: str) -> bool:
    """Return whether the header ``Host`` names this machine. A header that is not a host does not."""
    match = _HOST.fullmatch(header)
    if match is None:
        return False
    host = match[1].lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
