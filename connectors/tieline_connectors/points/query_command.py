"""``tieline query``: shows stored readings by topic, time or device, the command history, and new ones."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tieline.api.commands import CommandContext, parse_time, until_interrupted
from tieline_connectors.mongo.query.options import DEFAULT_DATABASE, DEFAULT_URI, Database, MongoUri
from tieline_connectors.points.questions import Search

USAGE, UNAVAILABLE, REFUSED, FAILED = 2, 3, 4, 5
"""The exit statuses."""

Document = Mapping[str, Any]


class QuerySource(Protocol):
    """Where ``tieline query`` finds documents, and how they look."""

    @property
    def place(self) -> str:
        """Where the documents are, for the message that none matches."""

    def report_errors(self, console: Console) -> AbstractContextManager[None]:
        """Print every error with its fix and without secrets, and exit with its status."""

    def open(self, search: Search) -> None:
        """Connect, and prepare a search; called once, before the calls below."""

    def find(self, newest: bool, limit: int) -> Sequence[Document]:
        """Return the first ``limit`` matching documents in this order."""

    def follow(self, console: Console) -> Iterator[Sequence[Document]]:
        """Yield new documents for ever, many lists of them empty. The first list marks the start."""

    def key(self, document: Document) -> Any:
        """Return what distinguishes a document from all others."""

    def json_line(self, document: Document) -> str:
        """Return a document as a line of JSON."""

    def row(self, document: Document) -> tuple[str, str, str]:
        """Return time, topic and content for a table, without control characters for a terminal."""

    def close(self) -> None:
        """Release all connections."""


class History(str, enum.Enum):
    """The direction of the command history."""

    FROM_CLOUD = "from-cloud"
    TO_CLOUD = "to-cloud"


class Format(str, enum.Enum):
    """The form of the output."""

    TABLE = "table"
    JSON = "json"


def query(
    context: typer.Context,
    uri: MongoUri = DEFAULT_URI,
    database: Database = DEFAULT_DATABASE,
    collection: Annotated[
        str | None,
        typer.Option(help="The collection. Default: readings, or commands for --history and --command."),
    ] = None,
    worker: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Not MongoDB, but the readings that the sink history of the worker with this settings file "
            "keeps in its data.dir.",
        ),
    ] = None,
    history_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Not MongoDB, but this file of a sink history (its setting file)."),
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
    """Show what is stored in MongoDB or by a sink history, newest first.

    Exit status: 0, 2 wrong options, 3 no server or file, 4 the server refuses (rights), 5 the search failed.
    """
    console = Console(stderr=True, highlight=False)
    source: QuerySource
    if worker is None and history_file is None:
        from tieline_connectors.mongo.query.source import MongoQuery

        of_commands = history is not None or command is not None
        collection = collection or ("commands" if of_commands else "readings")
        source = MongoQuery(uri, database, collection, timeout)
    else:
        from tieline_connectors.history.query import HistoryQuery

        source = HistoryQuery(history_file or _file_of(context.obj, worker), timeout)
    with source.report_errors(console), until_interrupted(), closing(source):
        search = _search(topic, regex, device, since, until)._replace(
            history=None if history is None else history.value, command=command
        )
        source.open(search)
        show = _Lines(source) if output is Format.JSON else _Rows(source)
        changes = source.follow(console) if following else None
        if changes is not None:
            next(changes)  # from now on no new document is missed
        # With --follow the newest documents are shown oldest first, as a log ends.
        found = source.find(newest or following, limit)
        show(found[::-1] if following else found)
        if not found and changes is None:
            console.print(f"no matching document in {source.place}")
        shown = {source.key(document) for document in found}
        for documents in changes or ():
            show([document for document in documents if source.key(document) not in shown])


def _file_of(context: CommandContext, worker: Path | None) -> Path:
    from tieline_connectors.history.database import FILE_NAME

    assert worker is not None
    return context.data_dir(worker) / FILE_NAME


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


class _Lines:
    """Prints a line of JSON for each document."""

    def __init__(self, source: QuerySource) -> None:
        self._source = source

    def __call__(self, documents: Sequence[Document]) -> None:
        for document in documents:
            typer.echo(self._source.json_line(document))


class _Rows:
    """Prints tables; later ones have the same columns."""

    def __init__(self, source: QuerySource) -> None:
        self._source = source
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
            table.add_row(*map(Text, self._source.row(document)))
        self._console.print(table)
        self._first = False
