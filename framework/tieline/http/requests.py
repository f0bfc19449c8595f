"""Read the body and the headers of a request within limits."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from typing import Any

from starlette.requests import Request


class BodyTooLargeError(Exception):
    """A request's body is larger than the limit."""


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the body. Raises ``BodyTooLargeError`` as soon as it exceeds ``max_bytes``."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise BodyTooLargeError(f"the body has more than {max_bytes} bytes")
    return bytes(body)


def content_type(request: Request) -> str:
    """Return the media type of the body, without parameters; empty if the request names none."""
    return _media_type(request.headers.get("content-type", ""))


def accepts(request: Request, wanted: Collection[str]) -> bool:
    """Return whether the client accepts one of these media types. Without a header it accepts all."""
    return not request.headers.get("accept", "") or any(each in wanted for each in media_types(request))


def media_types(request: Request) -> list[str]:
    """Return the media types in the header ``Accept``, in their order and without parameters."""
    return [_media_type(part) for part in request.headers.get("accept", "").split(",")]


def parse_json(body: bytes) -> Any:
    """Return the JSON value in a body. Raises ``ValueError``.

    NaN, infinities and numbers that overflow to them are rejected: JSON has none of them.
    """
    try:
        return json.loads(body, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _media_type(text: str) -> str:
    return text.partition(";")[0].strip().lower()


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
