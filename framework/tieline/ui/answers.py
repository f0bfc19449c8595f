"""From what a page returns to what a browser gets: pages, errors, downloads."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from urllib.parse import urlencode

from anyio import CancelScope, CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from tieline.api.pages import Answer, Download, JsonAnswer, Page, PageError, Redirect
from tieline.ui.access import visit_of
from tieline.ui.sessions import COOKIE, Sessions, Visit
from tieline.ui.site import BASE, THEME, TIME_ZONE, Site, View, chosen_theme, chosen_zone, viewer_key
from tieline.ui.store import PageStore

log = logging.getLogger(__name__)

_DOWNLOADS = 8  # a slow store must not keep the threads that sign people in


class Answers:
    """Makes answers for one server. Only its event loop may use it."""

    def __init__(self, site: Site, sessions: Sessions, store: PageStore, boot: str) -> None:
        self._site = site
        self._sessions = sessions
        self._store = store
        self._boot = boot
        self._downloads = CapacityLimiter(_DOWNLOADS)

    def respond(self, answer: Answer, request: Request, visit: Visit) -> Response:
        """Return what a handler's answer becomes."""
        if isinstance(answer, Page):
            return self.page(request, visit, answer)
        if isinstance(answer, Redirect):
            return RedirectResponse(BASE + answer.path, 303)
        if isinstance(answer, JsonAnswer):
            return JSONResponse(answer.value)
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in answer.name)
        return StreamingResponse(
            _parts(answer, self._downloads),
            media_type=answer.media_type,
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    def page(self, request: Request, visit: Visit, page: Page) -> Response:
        """Return a page, with a cookie for a new browser."""
        view = View(
            visit,
            request.url.path[len(BASE) :],
            self.time_zone(request, visit),
            chosen_theme(request.cookies.get(f"tieline-{THEME}", "")),
            self._boot,
        )
        html = self._site.page(page.template, page.title, page.values, view)
        response = HTMLResponse(html, page.status)
        if visit.is_new:
            set_cookie(response, request, visit.token)
        return response

    def error(self, request: Request, status: int, message: str) -> Response:
        """Return the page of an error."""
        visit = Visit("", None, is_new=True)
        try:
            visit = visit_of(request, self._sessions)
        except PageError:  # a host that is refused: the answer says so
            pass
        except Exception:  # the store may be what has failed
            log.exception("the visitor of an error page is unknown")
        page = Page("error.html", "Error", {"status": status, "message": message}, status)
        view = View(visit._replace(is_new=False), request.url.path[len(BASE) :], "UTC", "", self._boot)
        return HTMLResponse(self._site.page(page.template, page.title, page.values, view), status)

    def ask_to_sign_in(self, request: Request) -> Response:
        """Send to the sign-in page, which returns here. Raises ``PageError`` for a form."""
        if request.method != "GET":
            raise PageError(401, "You are signed out. Sign in, and send the form again")
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{BASE}/sign-in?{urlencode({'to': here})}", 303)

    def time_zone(self, request: Request, visit: Visit) -> str:
        """Return the zone that a person reads times in."""
        preference = self._store.preference(viewer_key(visit.viewer), TIME_ZONE)
        return chosen_zone(preference, request.cookies.get(f"tieline-{TIME_ZONE}", ""))


def set_cookie(response: Response, request: Request, token: str) -> None:
    """Give a browser the token of its session."""
    response.set_cookie(
        COOKIE, token, httponly=True, samesite="lax", secure=request.url.scheme == "https", path="/"
    )


async def _parts(download: Download, threads: CapacityLimiter) -> AsyncIterator[str]:
    """Yield what a generator produces in threads, and close it at the end or when the client has left."""
    try:
        while (part := await to_thread.run_sync(next, download.parts, None, limiter=threads)) is not None:
            yield part
    finally:
        close = getattr(download.parts, "close", None)
        if close is not None:
            with CancelScope(shield=True):
                await to_thread.run_sync(close, limiter=threads)
