"""Signing in: a user's name and password become a session."""

from __future__ import annotations

import base64

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from tieline.api.pages import Page, PageError
from tieline.http.authentication import Authenticator
from tieline.ui.access import read_form, visit_of
from tieline.ui.answers import Answers, set_cookie
from tieline.ui.audit import PageAudit
from tieline.ui.sessions import COOKIE, Sessions
from tieline.ui.site import BASE


class SignIn:
    """The endpoints of signing in and out. ``authenticator`` is ``None`` for a worker without users."""

    def __init__(
        self, answers: Answers, sessions: Sessions, authenticator: Authenticator | None, audit: PageAudit
    ) -> None:
        self._answers = answers
        self._sessions = sessions
        self._authenticator = authenticator
        self._audit = audit

    async def show(self, request: Request) -> Response:
        """Show the form."""
        visit = visit_of(request, self._sessions)
        target = safe_target(request.query_params.get("to", ""), BASE)
        if visit.viewer is not None:
            return RedirectResponse(target, 303)
        return self._answers.page(
            request, visit, Page("sign_in.html", "Sign in", {"target": target, "problem": ""})
        )

    async def sign_in(self, request: Request) -> Response:
        """Verify name and password, and open a session with a new token."""
        visit = visit_of(request, self._sessions)
        form = await read_form(request, visit, self._sessions)
        name, target = form.get("name", ""), safe_target(form.get("to", ""), BASE)
        client = request.client.host if request.client else ""
        if self._authenticator is None:
            return RedirectResponse(target, 303)
        user = await self._authenticator.authenticate(credentials(name, form.get("password", "")), client)
        await self._note(name, client, "ok" if user else "refused")
        if user is None:
            problem = "The name or the password is wrong."
            page = Page("sign_in.html", "Sign in", {"target": target, "problem": problem}, status=401)
            return self._answers.page(request, visit, page)
        response = RedirectResponse(target, 303)
        set_cookie(response, request, await to_thread.run_sync(self._sessions.sign_in, user.name))
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        visit = visit_of(request, self._sessions)
        await read_form(request, visit, self._sessions)
        await to_thread.run_sync(self._sessions.sign_out, visit.token)
        response = RedirectResponse(f"{BASE}/sign-in", 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def session(self, request: Request) -> Response:
        """Say to a script whether the session continues."""
        visit = visit_of(request, self._sessions)
        return PlainTextResponse("" if visit.viewer else "signed out", 200 if visit.viewer else 401)

    async def _note(self, user: str, client: str, outcome: str) -> None:
        """Write an attempt to the audit log. Raises ``PageError`` if it cannot be written."""
        details = {"user": user, "from": client, "outcome": outcome}
        try:
            await to_thread.run_sync(self._audit.append, "sign-in", details)
        except OSError as error:
            raise PageError(503, f"The audit log cannot be written: {error.strerror}") from error


def credentials(name: str, password: str) -> bytes:
    """Return a header of basic authentication, which the authenticator of all interfaces verifies."""
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


def safe_target(path: str, base: str) -> str:
    """Return the page to continue at: ``path`` if it is a page here, else the first one."""
    if path.startswith(f"{base}/") and path.isprintable() and "\\" not in path and "//" not in path:
        return path
    return f"{base}/"
