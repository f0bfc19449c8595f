"""``tieline mongo dedupe``: finds and deletes duplicates in a time-series collection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Annotated, Any, NamedTuple

import typer
from pymongo.collection import Collection
from rich.console import Console

from tieline_connectors.mongo.client import CODEC, create_client
from tieline_connectors.mongo.documents.layouts import DIGEST, META_FIELD, TIME_FIELD, Document
from tieline_connectors.mongo.query.errors import report_errors
from tieline_connectors.mongo.query.options import (
    CONNECTING,
    DEFAULT_DATABASE,
    DEFAULT_URI,
    Database,
    MongoUri,
)
from tieline_connectors.mongo.query.rollup import rollup

app = typer.Typer(help="Maintain the collections of the MongoDB sink.", no_args_is_help=True)
app.command()(rollup)


class DedupeResult(NamedTuple):
    """The number of surplus copies, and of ids with several contents."""

    surplus: int
    clashes: int


@app.command()
def dedupe(
    uri: MongoUri = DEFAULT_URI,
    database: Database = DEFAULT_DATABASE,
    collection: Annotated[str, typer.Option(help="The time-series collection.")] = "readings",
    delete: Annotated[
        bool,
        typer.Option(
            "--delete", help="Delete all copies but one. Without this option they are only counted."
        ),
    ] = False,
) -> None:
    """Find documents that a time-series collection contains more than once.

    Run only one at a time: two that delete simultaneously could delete both copies.

    Exit status: 0, 2 wrong options, 3 no server, 4 the server refuses (rights), 5 the search failed,
    6 ids with several contents were found (they are not changed).
    """
    console = Console(stderr=True, highlight=False)
    with report_errors(console, uri), closing(create_client(uri, CONNECTING, {})) as client:
        result = remove_copies(client[database].get_collection(collection, codec_options=CODEC), delete)
    typer.echo(f"{result.surplus} surplus documents {'deleted' if delete else 'found'}")
    if result.clashes:
        console.print(f"{result.clashes} ids with several contents were not changed")
        raise typer.Exit(6)


def remove_copies(collection: Collection[Document], delete: bool) -> DedupeResult:
    """Count surplus copies, and with ``delete`` delete all copies but one. Raises pymongo's errors.

    Copies are deleted one by one, by series, time and id, so that an interruption loses nothing. MongoDB
    before 7.0 cannot delete single documents of a time series, and returns an error.
    """
    surplus = clashes = 0
    for copies in _copies(collection):
        if len(copies["digests"]) > 1:
            clashes += 1
            continue
        for _ in range(copies["number"] - 1):
            surplus += collection.delete_one(copies["_id"]).deleted_count if delete else 1
    return DedupeResult(surplus, clashes)


def _copies(collection: Collection[Document]) -> Iterator[Mapping[str, Any]]:
    key = {name: f"${name}" for name in (META_FIELD, TIME_FIELD, "_id")}
    pipeline: list[dict[str, Any]] = [
        {"$group": {"_id": key, "number": {"$sum": 1}, "digests": {"$addToSet": f"${DIGEST}"}}},
        {"$match": {"number": {"$gt": 1}}},
    ]
    yield from collection.aggregate(pipeline, allowDiskUse=True)
