"""The pages as an ASGI application."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount
from starlette.routing import Route as StarletteRoute
from starlette.staticfiles import StaticFiles

from tieline.api.pages import (
    Answer,
    PageError,
    PageRequest,
    Route,
    Viewer,
)
from tieline.http.authentication import Authenticator
from tieline.http.errors import HttpError
from tieline.http.routing import ExactRoute
from tieline.ui.access import SecurityHeaders, read_form, visit_of
from tieline.ui.answers import Answers
from tieline.ui.audit import PageAudit
from tieline.ui.events import MAX_STREAMS, MAX_SUBSCRIPTIONS, EventHub, Subscription
from tieline.ui.metrics import MetricsEndpoint
from tieline.ui.sessions import Sessions
from tieline.ui.sign_in import SignIn, safe_target
from tieline.ui.site import BASE, TIME_ZONE, Site, is_zone, viewer_key
from tieline.ui.store import PageStore

log = logging.getLogger(__name__)

_THREADS = 16
_YEAR = 365 * 86400
Endpoint = Callable[[Request], Awaitable[Response]]


class PageServices:
    """What the application needs. ``authenticator`` is ``None`` for a worker without users."""

    def __init__(
        self,
        site: Site,
        sessions: Sessions,
        authenticator: Authenticator | None,
        store: PageStore,
        audit: PageAudit,
        hub: EventHub,
    ) -> None:
        self.site = site
        self.sessions = sessions
        self.authenticator = authenticator
        self.store = store
        self.audit = audit
        self.hub = hub


def create_app(services: PageServices, boot: str, metrics: MetricsEndpoint) -> Starlette:
    """Return the application. ``boot`` identifies this start of the worker."""
    answers = Answers(services.site, services.sessions, services.store, boot)
    pages = _PageApp(services, answers)
    sign_in = SignIn(answers, services.sessions, services.authenticator, services.audit)
    static = [
        Mount(f"{BASE}/static/{name}", _Assets(directory=folder))
        for name, folder in services.site.static.items()
    ]
    own = [
        ("/sign-in", sign_in.show, "GET"),
        ("/sign-in", sign_in.sign_in, "POST"),
        ("/sign-out", sign_in.sign_out, "POST"),
        ("/preferences", pages.set_preferences, "POST"),
        ("/session", sign_in.session, "GET"),
        ("/events", pages.events, "GET"),
    ]
    return Starlette(
        routes=[
            StarletteRoute("/", pages.start),
            StarletteRoute(BASE, pages.start),
            ExactRoute("/metrics", pages.guarded(metrics.get), ["GET"]),
            *static,
            *(ExactRoute(BASE + path, pages.guarded(endpoint), [method]) for path, endpoint, method in own),
            *(
                ExactRoute(BASE + route.path, pages.guarded(pages.endpoint(route)), [route.method])
                for route in services.site.routes
            ),
        ],
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={404: pages.not_found, 405: pages.not_found},
    )


class _PageApp:
    def __init__(self, services: PageServices, answers: Answers) -> None:
        self._services = services
        self._answers = answers
        self._sessions = services.sessions
        self._threads = CapacityLimiter(_THREADS)

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with an error page for whatever it raises."""

        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(request)
            except PageError as error:
                return self._answers.error(request, error.status, str(error))
            except HttpError as error:
                return self._answers.error(request, error.status, str(error))
            except ClientDisconnect:
                return Response(status_code=400)  # no client is left to receive it
            except Exception:
                log.exception("the page %s failed with an unexpected error", request.url.path)
                return self._answers.error(
                    request, 500, "The page failed with an unexpected error; the worker's log has the details"
                )

        return guarded

    def endpoint(self, route: Route) -> Endpoint:
        """Return what answers requests for a route."""

        async def endpoint(request: Request) -> Response:
            visit = visit_of(request, self._sessions)
            if visit.viewer is None:
                return self._answers.ask_to_sign_in(request)
            if not visit.viewer.may(route.needed_role):
                raise PageError(403, _forbidden(visit.viewer, route))
            form = await read_form(request, visit, self._sessions) if route.method == "POST" else {}
            page_request = PageRequest(
                visit.viewer,
                dict(request.path_params),
                dict(request.query_params),
                form,
                self._answers.time_zone(request, visit),
                {name: request.query_params.getlist(name) for name in request.query_params},
            )
            is_audited = route.method == "POST" and not route.personal
            call = self._audited(route, request, page_request) if is_audited else route.handler
            answer = await to_thread.run_sync(call, page_request, limiter=self._threads)
            return self._answers.respond(answer, request, visit)

        return endpoint

    async def start(self, request: Request) -> Response:
        """Send to the first page."""
        return RedirectResponse(f"{BASE}/", 302)

    async def not_found(self, request: Request, _: Exception) -> Response:
        """Answer for an address that no page has."""
        return self._answers.error(request, 404, f"There is no page {request.url.path}")

    async def set_preferences(self, request: Request) -> Response:
        """Store the time zone of a person; empty: as the browser says."""
        visit = visit_of(request, self._sessions)
        if visit.viewer is None:
            return self._answers.ask_to_sign_in(request)
        form = await read_form(request, visit, self._sessions)
        zone = form.get(TIME_ZONE, "").strip()
        if zone and not is_zone(zone):
            raise PageError(400, f"{zone!r} is not a time zone. Use a name such as Europe/Berlin, or UTC")
        key = viewer_key(visit.viewer)
        await to_thread.run_sync(self._services.store.set_preference, key, TIME_ZONE, zone)
        return RedirectResponse(safe_target(form.get("to", ""), BASE), 303)

    async def events(self, request: Request) -> Response:
        """Open the stream of a page: ``?channel=NAME?argument=value``, repeated."""
        visit = visit_of(request, self._sessions)
        if visit.viewer is None:
            return PlainTextResponse("signed out", 401)
        wanted = request.query_params.getlist("channel")
        if len(wanted) > MAX_SUBSCRIPTIONS:
            raise PageError(400, f"A page has at most {MAX_SUBSCRIPTIONS} channels")
        if self._services.hub.streams >= MAX_STREAMS:
            return PlainTextResponse(f"{MAX_STREAMS} pages are open", 503, {"Retry-After": "10"})
        zone = self._answers.time_zone(request, visit)
        subscriptions = [Subscription.parse(each, visit.viewer.name, zone) for each in wanted]
        return StreamingResponse(
            self._services.hub.stream(
                subscriptions, lambda: self._sessions.visit(visit.token).viewer is not None
            ),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    def _audited(
        self, route: Route, request: Request, page_request: PageRequest
    ) -> Callable[[PageRequest], Answer]:
        """Return the handler between two lines of the audit log; without the first one nothing is done."""
        about = {
            "request": secrets.token_hex(8),
            "user": page_request.viewer.name,
            "from": request.client.host if request.client else "",
            "path": request.url.path,
        }

        def call(given: PageRequest) -> Answer:
            audit = self._services.audit
            try:
                audit.append("requested", {**about, "form": given.form})
            except OSError as error:
                raise PageError(
                    503, f"Nothing was changed: the audit log cannot be written: {error.strerror}"
                ) from error
            outcome = "failed"
            try:
                answer = route.handler(given)
                outcome = "done"
                return answer
            except PageError as error:
                outcome = f"refused: {error}"
                raise
            finally:
                try:
                    audit.append("outcome", {**about, "outcome": outcome})
                except OSError:
                    log.exception("the outcome of a request could not be written to the audit log")

        return call


class _Assets(StaticFiles):
    """Files whose address changes with their content, so that a browser may keep them."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        """Return one file."""
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = f"public, max-age={_YEAR}, immutable"
        return response


def _forbidden(viewer: Viewer, route: Route) -> str:
    return (
        f"{viewer.name} has the role {viewer.role}; this needs the role {route.needed_role}. An administrator"
        " changes a role in the users file with `tieline users`"
    )
