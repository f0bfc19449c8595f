"""JSON-RPC 2.0 between agents. A peer's answer may contain anything; pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tieline_connectors.volttron_bus.vip.frames import MAX_DEPTH, is_deeper_than

MAX_ANSWER = 16 * 1024 * 1024
"""The largest answer that is read, in bytes."""
_MAX_TEXT = 500
"""How many characters of a peer's text appear in messages."""


class MalformedAnswerError(ValueError):
    """The answer does not say whether the method was executed."""


class Fault(NamedTuple):
    """An error in a peer's answer. ``code`` is 0 if the peer did not send an integer."""

    code: int
    message: str
    data: Any


def request(ident: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """Return the body of a call to a method."""
    params: Any = {"*args": list(args), "**kwargs": dict(kwargs)} if kwargs else list(args)
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": ident}).encode()


def result(data: bytes, ident: str) -> Any:
    """Return the result in the answer to the call ``ident``, or its `Fault`.

    Raises `MalformedAnswerError` on anything that is not an answer to this call.
    """
    if len(data) > MAX_ANSWER:
        raise MalformedAnswerError(f"its answer is longer than {MAX_ANSWER} bytes")
    if is_deeper_than(data, MAX_DEPTH):
        raise MalformedAnswerError(f"its answer is nested deeper than {MAX_DEPTH}")
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        raise MalformedAnswerError("its answer is not JSON") from None
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
        raise MalformedAnswerError("its answer is not JSON-RPC 2.0")
    if answer.get("id") != ident:
        raise MalformedAnswerError("its answer names another call")
    error = answer.get("error")
    if error is None:
        if "result" not in answer:
            raise MalformedAnswerError("its answer has neither a result nor an error")
        return answer["result"]
    if not isinstance(error, dict):
        raise MalformedAnswerError("the error in its answer is not an object")
    code = error.get("code")
    return Fault(code if type(code) is int else 0, to_short_text(error.get("message")), error.get("data"))


def to_short_text(text: Any) -> str:
    """Return what a peer sent as one short line that every codec can encode."""
    full = text if isinstance(text, str) else "" if text is None else json.dumps(text)
    short = " ".join(full[:_MAX_TEXT].split())
    return short.encode("utf-8", "replace").decode("utf-8")
