"""The answers of a fake platform's agents to RPC calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Methods = Mapping[str, Mapping[str, Callable[..., Any]]]
"""Identity → method → function."""


class RawAnswer(bytes):
    """Return it from a method of ``rpc`` to send these bytes as the whole answer, as a broken peer might."""


class NoAnswerError(Exception):
    """Raise it in a method of ``rpc`` to send no answer to the call."""


class RpcMethodError(Exception):
    """Raise it in a method of ``rpc`` to answer with an error of any code."""

    def __init__(self, code: Any, message: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


def answer_call(
    functions: Mapping[str, Callable[..., Any]], inspected: list[str], request: Mapping[str, Any]
) -> bytes:
    """Call the function that a JSON-RPC request names; return its answer. Raises ``NoAnswerError``.

    ``inspected``: the methods that the peer names if asked to ``inspect``.
    """
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
    params, method = request.get("params", []), functions.get(request["method"])
    args, kwargs = (params["*args"], params["**kwargs"]) if isinstance(params, dict) else (params, {})
    if method is None and request["method"] == "inspect":
        answer["result"] = {"methods": inspected}
    elif method is None:
        answer["error"] = {"code": -32601, "message": f"unimplemented method: {request['method']}"}
    else:
        try:
            result = method(*args, **kwargs)
            if isinstance(result, RawAnswer):
                return bytes(result)
            answer["result"] = result
        except NoAnswerError:
            raise
        except RpcMethodError as refusal:
            answer["error"] = refusal.error
        except Exception as error:  # noqa: BLE001 - what a method of rpc raises is its answer
            detail = {"detail": str(error)}
            answer["error"] = {"code": -32000, "message": "unhandled exception", "data": detail}
    return json.dumps(answer).encode()
