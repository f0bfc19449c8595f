"""The address ``/metrics``, which Prometheus scrapes."""

from __future__ import annotations

from functools import partial

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response

from tieline.http.authentication import Authenticator
from tieline.http.errors import HttpError, error_response
from tieline.http.requests import media_types
from tieline.metrics.exposition import WorkerMetrics
from tieline.ui.access import visit_of
from tieline.ui.sessions import Sessions

_OPENMETRICS = "application/openmetrics-text"
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="tieline metrics"'}


class MetricsEndpoint:
    """Answers with the metrics of a worker, for each user who may see the pages.

    A scraper sends a password or a token with each request; a browser that is signed in needs neither.
    ``authenticator`` is ``None`` for a worker without users, which answers only to this machine.
    """

    def __init__(
        self, metrics: WorkerMetrics, sessions: Sessions, authenticator: Authenticator | None
    ) -> None:
        self._metrics = metrics
        self._sessions = sessions
        self._authenticator = authenticator
        self._thread = CapacityLimiter(1)  # many scrapes wait for one text, and occupy one thread

    async def get(self, request: Request) -> Response:
        """Return the metrics as OpenMetrics if the client accepts that, otherwise in Prometheus' own format.

        Raises ``PageError`` for a host name of another site.
        """
        if visit_of(request, self._sessions).viewer is None:
            try:
                if not await self._is_user(request):
                    raise HttpError(401, 401, "Unauthorized", _CHALLENGE)
            except HttpError as error:
                return error_response(error)
        render = partial(self._metrics.render, openmetrics=_OPENMETRICS in media_types(request))
        exposition = await to_thread.run_sync(render, limiter=self._thread)
        return Response(exposition.text, headers={"Content-Type": exposition.media_type})

    async def _is_user(self, request: Request) -> bool:
        """Return whether the request has a user's credentials; each role includes the viewer's."""
        if self._authenticator is None:
            return False
        header = request.headers.get("authorization", "").encode("latin-1")
        client = request.client.host if request.client else ""
        return await self._authenticator.authenticate(header, client) is not None
