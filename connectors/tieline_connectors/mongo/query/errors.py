"""Reports errors of MongoDB to the user of a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, PyMongoError
from rich.console import Console
from rich.text import Text

from tieline_connectors.mongo.client import redact
from tieline_connectors.points.query_command import FAILED, REFUSED, UNAVAILABLE, USAGE


@contextmanager
def report_errors(console: Console, uri: str) -> Iterator[None]:
    """Print every error with server, fix and without secrets, and exit with its status."""
    where = redact(uri, uri)
    try:
        yield
    except ValueError as error:
        status, text = USAGE, str(error)
    except ConnectionFailure as error:
        status, text = (
            UNAVAILABLE,
            f"MongoDB does not answer at {where}: {error}; check that it is running, and --uri",
        )
    except ExecutionTimeout:
        status, text = (
            FAILED,
            "the search took too long; narrow it (--topic, --since) or raise --timeout",
        )
    except OperationFailure as error:
        refused = error.code in (13, 18, 8000)
        hint = "; check user, password, authSource and rights" if refused else ""
        status, text = (
            (REFUSED if refused else FAILED),
            f"MongoDB at {where} says: {_server_message(error)}{hint}",
        )
    except PyMongoError as error:
        status, text = FAILED, f"MongoDB at {where}: {error}"
    else:
        return
    console.print(Text(redact(text, uri), style="red"))
    raise typer.Exit(status)


def _server_message(error: OperationFailure) -> str:
    return str((error.details or {}).get("errmsg") or error)
