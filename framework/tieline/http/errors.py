"""Error answers in the form that Kafka Connect and Confluent's schema registry share.

The body is ``{"error_code", "message"}``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

log = logging.getLogger(__name__)

JSON = "application/json"


class HttpError(Exception):
    """An answer with an HTTP status, an error code and a message for the client."""

    def __init__(
        self, status: int, code: int, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def error_response(error: HttpError, media_type: str = JSON) -> Response:
    """Return the answer of an error."""
    body = json.dumps({"error_code": error.code, "message": str(error)}, separators=(",", ":")).encode()
    return Response(body, error.status, error.headers, media_type)


ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]


def exception_handlers(
    unexpected: HttpError, media_type: str = JSON
) -> dict[type[Exception], ExceptionHandler]:
    """Return Starlette's handlers for unknown paths and methods, and for unexpected exceptions.

    ``unexpected`` is the answer to an unexpected exception; the exception itself is only logged.
    """

    async def http_exception(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        status = error.status_code
        return error_response(HttpError(status, status, f"HTTP {status} {error.detail}"), media_type)

    async def exception(_: Request, error: Exception) -> Response:
        log.error("a request failed with an unexpected error", exc_info=error)
        return error_response(unexpected, media_type)

    return {HTTPException: http_exception, Exception: exception}
