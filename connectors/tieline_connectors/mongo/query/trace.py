"""What MongoDB knows of one record, for ``tieline trace``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pymongo.errors

from tieline.api import RetriableError
from tieline.api.traces import Sighting, TraceQuestion
from tieline_connectors.mongo.client import create_client, redact
from tieline_connectors.mongo.config import MongoSinkConfig

_MS = 5_000
_MOST = 20


def lookup(question: TraceQuestion) -> Iterator[Sighting]:
    """Yield the documents whose ``_id`` is the record's id, or begins with it. Raises ``RetriableError``."""
    config = MongoSinkConfig.parse(question.settings)
    uri = config.connection_uri.get_secret_value()
    topics = question.topics or (("",) if config.collection else ())
    if not topics:
        raise ValueError("its collections are named after topics that a pattern chooses")
    ids = {"$regex": f"^{re.escape(question.record_id)}"}
    try:
        with create_client(uri, {}, {"serverSelectionTimeoutMS": _MS}) as client:
            for database, collection in dict.fromkeys(config.destination(topic)[:2] for topic in topics):
                found = client[database][collection].find(
                    {"_id": ids}, {"_id": 1}, limit=_MOST, max_time_ms=_MS
                )
                for document in found:
                    place = f"the collection {database}.{collection}"
                    yield Sighting(place, "stored", {"_id": str(document["_id"])})
    except pymongo.errors.PyMongoError as error:
        raise RetriableError(redact(str(error), uri)) from None
