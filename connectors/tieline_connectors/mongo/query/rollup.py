"""``tieline mongo rollup``: adds what a collection's documents contain to its rollups."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Annotated

import typer
from pymongo.collection import Collection
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tieline.api import FatalError, RetriableError
from tieline_connectors.mongo.client import CODEC, create_client, redact
from tieline_connectors.mongo.documents.layouts import META_FIELD, Document
from tieline_connectors.mongo.documents.rollups import STATE
from tieline_connectors.mongo.query.catalogue import LAYOUTS_WITH_POINTS, layout_of
from tieline_connectors.mongo.query.errors import report_errors
from tieline_connectors.mongo.query.options import (
    CONNECTING,
    DEFAULT_DATABASE,
    DEFAULT_URI,
    Database,
    MongoUri,
)
from tieline_connectors.mongo.writing.rollups import RollupWriter, points_of, rollups_of
from tieline_connectors.points.query_command import FAILED, UNAVAILABLE

_TIMEOUT, _MAX_TIMEOUT = 10.0, 60.0
_ATTEMPTS = 5
_REPORT_EVERY = 1000
_FIELDS = ("platform", "device", "point", "points", "value", "units", META_FIELD, "topic", "time_us")


def rollup(
    uri: MongoUri = DEFAULT_URI,
    database: Database = DEFAULT_DATABASE,
    collection: Annotated[str, typer.Option(help="The collection of the sink.")] = "readings",
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="Delete the rollups first, for example after documents were deleted."),
    ] = False,
) -> None:
    """Build the rollups that charts of long ranges are drawn from.

    Needed once for documents that the sink stored before rollups=true was set. The sink may run
    meanwhile. After an interruption, run it again: repeating it changes nothing.

    Exit status: 0, 2 wrong options, 3 no server, 4 the server refuses (rights), 5 the build failed.
    """
    console = Console(stderr=True, highlight=False)
    with report_errors(console, uri), closing(create_client(uri, CONNECTING, {})) as client:
        source = client[database].get_collection(collection, codec_options=CODEC)
        columns = (
            TextColumn(f"{database}.{collection}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        try:
            with Progress(*columns, console=console) as progress:
                task = progress.add_task("", total=source.estimated_document_count())
                number = build(source, rebuild, lambda done: progress.update(task, completed=done))
        except (RetriableError, FatalError) as error:
            console.print(Text(redact(str(error), uri), style="red"))
            raise typer.Exit(UNAVAILABLE if isinstance(error, RetriableError) else FAILED) from None
    typer.echo(f"the rollups contain {number} documents")


def build(collection: Collection[Document], rebuild: bool, report: Callable[[int], None]) -> int:
    """Add all documents to their rollups, and note that these are complete; return the number of documents.

    Documents that the sink writes meanwhile are added by the sink itself. Raises ``ValueError`` for a
    collection that cannot have rollups, pymongo's errors, and the runtime's errors of a write.
    """
    newest = collection.find_one({}, hint=[("$natural", -1)])
    if newest is not None and layout_of(newest) not in LAYOUTS_WITH_POINTS:
        raise ValueError(f"{collection.full_name} has none of the layouts {', '.join(LAYOUTS_WITH_POINTS)}")
    points = points_of(collection)
    state = points.find_one({"_id": STATE}) or {"breaks": 0}
    if state.get("sink") == "off":
        raise ValueError(
            f"a sink writes {collection.full_name} without rollups: set rollups=true, restart its"
            " workers, and run this again"
        )
    if rebuild:
        points.update_one(
            {"_id": STATE}, {"$set": {"complete": False, "breaks": state["breaks"]}}, upsert=True
        )
        rollups_of(collection).delete_many({})
        points.delete_many({"_id": {"$ne": STATE}})
    writer = RollupWriter(collection, _TIMEOUT, _MAX_TIMEOUT)
    number = 0
    for document in collection.find({}, dict.fromkeys(_FIELDS, 1)):
        writer.add([document])
        number += 1
        if number % _REPORT_EVERY == 0:
            report(number)
        if writer.is_full:
            _write(writer)
    _write(writer)
    report(number)
    points.update_one({"_id": STATE}, {"$setOnInsert": {"complete": False, "breaks": 0}}, upsert=True)
    complete = {"$set": {"complete": True}}
    if not points.update_one({"_id": STATE, "breaks": state["breaks"]}, complete).matched_count:
        raise ValueError(
            f"a sink began to write {collection.full_name} without rollups meanwhile: set rollups=true,"
            " restart its workers, and run this again"
        )
    return number


def _write(writer: RollupWriter) -> None:
    """Write rollups, repeatedly if the server is slow. Raises the runtime's errors."""
    attempts = _ATTEMPTS
    while True:
        try:
            writer.write()
            return
        except RetriableError as error:
            if error.after == 0.0:
                continue  # only a part was written, because it takes long
            attempts -= 1
            if not attempts:
                raise
            time.sleep(1.0)
