"""The documents of a MongoDB collection, of any layout, for ``tieline query``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from bson.codec_options import DatetimeConversion
from pymongo import ASCENDING, DESCENDING
from pymongo.collection import Collection
from rich.console import Console

from tieline_connectors.mongo.client import CODEC, Client, create_client
from tieline_connectors.mongo.query.errors import report_errors
from tieline_connectors.mongo.query.follow import follow
from tieline_connectors.mongo.query.options import CONNECTING
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

_TIMES = CODEC.with_options(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)


class MongoQuery:
    """A ``QuerySource`` on one collection. ``timeout``: how many seconds the server may search."""

    def __init__(self, uri: str, database: str, collection: str, timeout: float) -> None:
        self.place = f"{database}.{collection}"
        self._uri = uri
        self._names = (database, collection)
        self._timeout = timeout
        self._client: Client | None = None
        self._collection: Collection[dict[str, Any]]
        self._matching: dict[str, Any] = {}
        self._newest: Document | None = None

    def report_errors(self, console: Console) -> AbstractContextManager[None]:
        """Print errors of MongoDB and exit."""
        return report_errors(console, self._uri)

    def open(self, search: Search) -> None:
        """Connect, and recognize the layout by the newest document."""
        database, collection = self._names
        self._client = create_client(self._uri, CONNECTING, {})
        self._collection = self._client[database].get_collection(collection, codec_options=_TIMES)
        self._newest = self._collection.find_one({}, hint=[("$natural", DESCENDING)])
        self._matching = filter_of(search, time_field_of(self._newest), is_series(self._newest))

    def find(self, newest: bool, limit: int) -> Sequence[Document]:
        """Return the first matching documents."""
        direction = DESCENDING if newest else ASCENDING
        cursor = self._collection.find(self._matching, limit=limit, max_time_ms=int(self._timeout * 1000))
        if order := order_of(self._newest):
            cursor.sort([(field, direction) for field in order])
        else:  # in the order of their insertion
            cursor.hint([("$natural", direction)])
        return list(cursor)

    def follow(self, console: Console) -> Iterator[Sequence[Document]]:
        """Yield new documents."""
        return follow(self._collection, self._matching, time_field_of(self._newest), console.print)

    def key(self, document: Document) -> str:
        """Return the document's ``_id`` as text."""
        return str(document["_id"])

    def json_line(self, document: Document) -> str:
        """Return the document as a line of JSON."""
        return json_line(document)

    def row(self, document: Document) -> tuple[str, str, str]:
        """Return time, topic and content."""
        return row(document)

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
