"""``tieline query``: shows stored documents by topic, time or device, the command history, and new ones."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Annotated, Any

import typer
from bson.codec_options import DatetimeConversion
from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure, PyMongoError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api.commands import parse_time, until_interrupted
from tieline_connectors.mongo.client import CODEC, create_client, redact
from tieline_connectors.mongo.query.follow import follow
from tieline_connectors.mongo.query.search import (
    Document,
    filter_of,
    is_series,
    json_line,
    order_of,
    row,
    time_field_of,
)
from tieline_connectors.points.questions import Search

_USAGE, _UNAVAILABLE, _REFUSED, _FAILED = 2, 3, 4, 5
_CLIENT = {"serverSelectionTimeoutMS": 3000, "connectTimeoutMS": 3000}
_TIMES = CODEC.with_options(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


class History(str, enum.Enum):
    """The direction of the command history."""

    FROM_CLOUD = "from-cloud"
    TO_CLOUD = "to-cloud"


class Format(str, enum.Enum):
    """The form of the output."""

    TABLE = "table"
    JSON = "json"


def query(
    uri: Annotated[
        str, typer.Option(envvar="TIELINE_MONGO_URI", help="The MongoDB connection string.", show_envvar=True)
    ] = "mongodb://127.0.0.1:27017",
    database: Annotated[str, typer.Option(help="The database.")] = "tieline",
    collection: Annotated[
        str | None,
        typer.Option(help="The collection. Default: readings, or commands for --history and --command."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="This exact topic of the bus.")] = None,
    regex: Annotated[str | None, typer.Option(help="A regular expression for a part of the topic.")] = None,
    device: Annotated[str | None, typer.Option(help="A device's path, such as campus/building/ahu1.")] = None,
    history: Annotated[
        History | None,
        typer.Option(help="The command history: what the cloud sent, or the results that it received."),
    ] = None,
    command: Annotated[str | None, typer.Option(metavar="ID", help="One command and its results.")] = None,
    since: Annotated[str | None, typer.Option(help="Start time: ISO 8601, or 15m, 2h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="End time, not included.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="The maximum of documents.")] = 20,
    newest: Annotated[bool, typer.Option("--newest/--oldest", help="The order of documents.")] = True,
    output: Annotated[
        Format, typer.Option("--format", help="A table, or one line of JSON per document.")
    ] = Format.TABLE,
    following: Annotated[
        bool, typer.Option("--follow", help="Then print new documents as they arrive, until Ctrl-C.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="How many seconds the server may search.")
    ] = 30.0,
) -> None:
    """Show what is stored in MongoDB, newest first.

    Exit status: 0, 2 wrong options, 3 no server, 4 the server refuses (rights), 5 the search failed.
    """
    console = Console(stderr=True, highlight=False)
    show = _Lines() if output is Format.JSON else _Rows()
    with report_errors(console, uri), until_interrupted():
        search = _search(topic, regex, device, since, until)._replace(
            history=None if history is None else history.value, command=command
        )
        of_commands = history is not None or command is not None
        collection = collection or ("commands" if of_commands else "readings")
        with closing(create_client(uri, _CLIENT, {})) as client:
            target = client[database].get_collection(collection, codec_options=_TIMES)
            newest_document = target.find_one({}, hint=[("$natural", DESCENDING)])
            field = time_field_of(newest_document)
            matching = filter_of(search, field, is_series(newest_document))
            changes = follow(target, matching, field, console.print) if following else None
            if changes is not None:
                next(changes)  # from now on no new document is missed
            order = order_of(newest_document)
            answer = _find(target, matching, order, newest and not following, following, limit, timeout)
            show(answer)
            if not answer and changes is None:
                console.print(f"no matching document in {database}.{collection}")
            shown = {str(document["_id"]) for document in answer}
            for documents in changes or ():
                show([document for document in documents if str(document["_id"]) not in shown])


def _search(
    topic: str | None, regex: str | None, device: str | None, since: str | None, until: str | None
) -> Search:
    now = dt.datetime.now(dt.timezone.utc)
    if regex is not None:
        try:
            re.compile(regex)
        except re.error as error:
            raise ValueError(f"--regex: {regex!r} is not a regular expression: {error}") from None
    return Search(
        topic,
        regex,
        device,
        None if since is None else _microseconds(parse_time(since, now)),
        None if until is None else _microseconds(parse_time(until, now)),
    )


def _microseconds(time: dt.datetime) -> int:
    return (time - dt.datetime.fromtimestamp(0, dt.timezone.utc)) // dt.timedelta(microseconds=1)


def _find(
    collection: Collection[dict[str, Any]],
    matching: dict[str, Any],
    order: Sequence[str],
    newest: bool,
    last: bool,
    limit: int,
    timeout: float,
) -> Sequence[Document]:
    """Return the first ``limit`` documents; with ``last`` the newest, oldest first, as a log ends."""
    direction = DESCENDING if newest or last else ASCENDING
    cursor = collection.find(matching, limit=limit, max_time_ms=int(timeout * 1000))
    if order:
        cursor.sort([(field, direction) for field in order])
    else:  # in the order of their insertion
        cursor.hint([("$natural", direction)])
    documents = list(cursor)
    return documents[::-1] if last else documents


class _Lines:
    """Prints a line of JSON for each document."""

    def __call__(self, documents: Sequence[Document]) -> None:
        for document in documents:
            typer.echo(json_line(document))


class _Rows:
    """Prints tables; later ones have the same columns."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._first = True

    def __call__(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        table = Table(box=None, show_header=self._first, padding=(0, 2, 0, 0), expand=True)
        table.add_column("time (UTC)", width=23, no_wrap=True)
        table.add_column("topic", ratio=2, overflow="fold")
        table.add_column("content", ratio=3, overflow="fold")
        for document in documents:
            table.add_row(*map(Text, row(document)))
        self._console.print(table)
        self._first = False


@contextmanager
def report_errors(console: Console, uri: str) -> Iterator[None]:
    """Print every error with server, fix and without secrets, and exit with its status."""
    where = redact(uri, uri)
    try:
        yield
    except ValueError as error:
        status, text = _USAGE, str(error)
    except ConnectionFailure as error:
        status, text = (
            _UNAVAILABLE,
            f"MongoDB does not answer at {where}: {error}; check that it is running, and --uri",
        )
    except ExecutionTimeout:
        status, text = (
            _FAILED,
            "the search took too long; narrow it (--topic, --since) or raise --timeout",
        )
    except OperationFailure as error:
        refused = error.code in (13, 18, 8000)
        hint = "; check user, password, authSource and rights" if refused else ""
        status, text = (
            (_REFUSED if refused else _FAILED),
            f"MongoDB at {where} says: {_server_message(error)}{hint}",
        )
    except PyMongoError as error:
        status, text = _FAILED, f"MongoDB at {where}: {error}"
    else:
        return
    console.print(Text(redact(text, uri), style="red"))
    raise typer.Exit(status)


def _server_message(error: OperationFailure) -> str:
    return str((error.details or {}).get("errmsg") or error)
