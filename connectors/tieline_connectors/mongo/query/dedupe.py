"""``tieline mongo dedupe``: documents that a time-series collection holds twice, and all but one away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Annotated, Any, NamedTuple

import typer
from pymongo.collection import Collection
from rich.console import Console

from tieline_connectors.mongo.client import CODEC, connect
from tieline_connectors.mongo.documents.layouts import DIGEST, META_FIELD, TIME_FIELD, Document
from tieline_connectors.mongo.query.command import report_errors

_CLIENT = {"serverSelectionTimeoutMS": 3000, "connectTimeoutMS": 3000}

app = typer.Typer(help="Look after what the MongoDB sink has written.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``dedupe`` a command of its own name, alone as it is."""


class Found(NamedTuple):
    """``surplus`` copies of documents that are there once already; ``clashes``: ids with several contents."""

    surplus: int
    clashes: int


@app.command()
def dedupe(
    uri: Annotated[
        str, typer.Option(envvar="TIELINE_MONGO_URI", help="The MongoDB connection string.", show_envvar=True)
    ] = "mongodb://127.0.0.1:27017",
    database: Annotated[str, typer.Option(help="The database.")] = "tieline",
    collection: Annotated[str, typer.Option(help="The time-series collection.")] = "readings",
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete all copies but one; without it they are only counted.")
    ] = False,
) -> None:
    """Find documents that a time-series collection holds more than once.

    Run one at a time: two that delete beside each other could delete both copies.

    Exit status: 0, 2 wrong options, 3 no server, 4 the server refuses (rights), 5 the search failed,
    6 ids with several contents were found (they are left alone).
    """
    console = Console(stderr=True, highlight=False)
    with report_errors(console, uri), closing(connect(uri, _CLIENT, {})) as client:
        found = without_copies(client[database].get_collection(collection, codec_options=CODEC), delete)
    typer.echo(f"{found.surplus} surplus documents {'deleted' if delete else 'found'}")
    if found.clashes:
        console.print(f"{found.clashes} ids with several contents were left alone")
        raise typer.Exit(6)


def without_copies(collection: Collection[Document], delete: bool) -> Found:
    """Count what is there more than once, and ``delete`` all copies but one. Raises as pymongo does.

    Copies are one by one deleted, by series, time and id: whoever interrupts it loses nothing. Before
    version 7.0 MongoDB does not delete single documents of a time series, and says so.
    """
    surplus = clashes = 0
    for copies in _copies(collection):
        if len(copies["digests"]) > 1:
            clashes += 1
            continue
        for _ in range(copies["number"] - 1):
            surplus += collection.delete_one(copies["_id"]).deleted_count if delete else 1
    return Found(surplus, clashes)


def _copies(collection: Collection[Document]) -> Iterator[Mapping[str, Any]]:
    own = {name: f"${name}" for name in (META_FIELD, TIME_FIELD, "_id")}
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": own, "number": {"$sum": 1}, "digests": {"$addToSet": f"${DIGEST}"}}},
        {"$match": {"number": {"$gt": 1}}},
    ]
    yield from collection.aggregate(pipeline, allowDiskUse=True)
