"""``tieline query``: all, by topic, newest first, by a regular expression, the command history, and live."""

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
from tieline_connectors.mongo.client import CODEC, connect, redacted
from tieline_connectors.mongo.query.following import follow
from tieline_connectors.mongo.query.questions import (
    Document,
    Question,
    is_series,
    json_line,
    order_of,
    row,
    time_field_of,
)

_USAGE, _AWAY, _REFUSED, _FAILED = 2, 3, 4, 5
_CLIENT = {"serverSelectionTimeoutMS": 3000, "connectTimeoutMS": 3000}
_TIMES = CODEC.with_options(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


class History(str, enum.Enum):
    """Which way of the command history."""

    FROM_CLOUD = "from-cloud"
    TO_CLOUD = "to-cloud"


class Format(str, enum.Enum):
    """How answers look."""

    TABLE = "table"
    JSON = "json"


def query(
    uri: Annotated[
        str, typer.Option(envvar="TIELINE_MONGO_URI", help="The MongoDB connection string.", show_envvar=True)
    ] = "mongodb://127.0.0.1:27017",
    database: Annotated[str, typer.Option(help="The database.")] = "tieline",
    collection: Annotated[
        str | None, typer.Option(help="The collection; readings, with --history or --command commands.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Exactly this topic of the bus.")] = None,
    regex: Annotated[str | None, typer.Option(help="A regular expression, somewhere in the topic.")] = None,
    device: Annotated[str | None, typer.Option(help="A device's path, such as campus/building/ahu1.")] = None,
    history: Annotated[
        History | None,
        typer.Option(help="The command history: what the cloud sent, or what it was told."),
    ] = None,
    command: Annotated[
        str | None, typer.Option(metavar="ID", help="One command and all that was told of it.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="From then on: ISO 8601, or 15m, 2h, 7d ago.")] = None,
    until: Annotated[str | None, typer.Option(help="Before then.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="The most documents.")] = 20,
    newest: Annotated[bool, typer.Option("--newest/--oldest", help="Which come first.")] = True,
    output: Annotated[
        Format, typer.Option("--format", help="A table, or a line of JSON a document.")
    ] = Format.TABLE,
    following: Annotated[
        bool, typer.Option("--follow", help="Then print new ones as they come, until Ctrl-C.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Seconds that the server may search.")
    ] = 30.0,
) -> None:
    """Look at what is in MongoDB, newest first.

    Exit status: 0, 2 wrong options, 3 no server, 4 the server refuses (rights), 5 the search failed.
    """
    console = Console(stderr=True, highlight=False)
    show = _Lines() if output is Format.JSON else _Rows()
    with report_errors(console, uri), until_interrupted():
        question = _question(topic, regex, device, since, until)._replace(
            history=None if history is None else history.value, command=command
        )
        of_commands = history is not None or command is not None
        collection = collection or ("commands" if of_commands else "readings")
        with closing(connect(uri, _CLIENT, {})) as client:
            found = client[database].get_collection(collection, codec_options=_TIMES)
            newest_one = found.find_one({}, hint=[("$natural", DESCENDING)])
            field = time_field_of(newest_one)
            matching = question.filter(field, is_series(newest_one))
            changes = follow(found, matching, field, console.print) if following else None
            if changes is not None:
                next(changes)  # from here on nothing new is missed
            order = order_of(newest_one)
            answer = _answer(found, matching, order, newest and not following, following, limit, timeout)
            show(answer)
            if not answer and changes is None:
                console.print(f"nothing of the kind in {database}.{collection}")
            shown = {str(document["_id"]) for document in answer}
            for documents in changes or ():
                show([document for document in documents if str(document["_id"]) not in shown])


def _question(
    topic: str | None, regex: str | None, device: str | None, since: str | None, until: str | None
) -> Question:
    now = dt.datetime.now(dt.timezone.utc)
    if regex is not None:
        try:
            re.compile(regex)
        except re.error as error:
            raise ValueError(f"--regex: {regex!r} is no regular expression: {error}") from None
    return Question(
        topic,
        regex,
        device,
        None if since is None else parse_time(since, now),
        None if until is None else parse_time(until, now),
    )


def _answer(
    collection: Collection[dict[str, Any]],
    matching: dict[str, Any],
    order: Sequence[str],
    newest: bool,
    last: bool,
    limit: int,
    timeout: float,
) -> Sequence[Document]:
    """The first ``limit`` documents; with ``last`` the newest of them, oldest first, as a log ends."""
    direction = DESCENDING if newest or last else ASCENDING
    cursor = collection.find(matching, limit=limit, max_time_ms=int(timeout * 1000))
    if order:
        cursor.sort([(field, direction) for field in order])
    else:  # in the order of their insertion
        cursor.hint([("$natural", direction)])
    found = list(cursor)
    return found[::-1] if last else found


class _Lines:
    """A line of JSON a document."""

    def __call__(self, documents: Sequence[Document]) -> None:
        for document in documents:
            typer.echo(json_line(document))


class _Rows:
    """A table; what comes later has the same columns."""

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
    """Every error: what, where, the way out, an exit status; never a secret."""
    where = redacted(uri, uri)
    try:
        yield
    except ValueError as error:
        status, text = _USAGE, str(error)
    except ConnectionFailure as error:
        status, text = _AWAY, f"no MongoDB answers at {where}: {error}; is it running, is --uri right?"
    except ExecutionTimeout:
        status, text = _FAILED, "the search took too long; narrow it (--topic, --since), or give --timeout"
    except OperationFailure as error:
        refused = error.code in (13, 18, 8000)
        hint = "; check user, password, authSource and rights" if refused else ""
        status, text = (_REFUSED if refused else _FAILED), f"MongoDB at {where} says: {_said(error)}{hint}"
    except PyMongoError as error:
        status, text = _FAILED, f"MongoDB at {where}: {error}"
    else:
        return
    console.print(Text(redacted(text, uri), style="red"))
    raise typer.Exit(status)


def _said(error: OperationFailure) -> str:
    return str((error.details or {}).get("errmsg") or error)
