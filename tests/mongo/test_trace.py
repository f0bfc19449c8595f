"""What ``tieline trace`` finds of a record in MongoDB."""

import uuid
from pathlib import Path
from typing import Any

import pymongo
import pytest

from tieline.api import RetriableError
from tieline.api.traces import TraceQuestion
from tieline_connectors.mongo.query.trace import lookup


def question(uri, record_id, *topics, **settings):
    settings = {"connection.uri": uri, **settings}
    return TraceQuestion(record_id, settings, topics, Path("unused"))


def test_the_documents_of_a_record_are_found_in_each_collection_of_the_sink(mongo_uri):
    database = f"t_{uuid.uuid4().hex[:8]}"
    client: Any
    with pymongo.MongoClient(mongo_uri) as client:
        client[database]["a"].insert_many([{"_id": "id.1"}, {"_id": "id.1/p"}, {"_id": "idx1"}, {"_id": 7}])
        client[database]["b"].insert_one({"_id": "id.2"})
        found = list(lookup(question(mongo_uri, "id.1", "a", "b", database=database)))
        client.drop_database(database)
    assert [(s.place, s.details["_id"]) for s in found] == [
        (f"the collection {database}.a", "id.1"),
        (f"the collection {database}.a", "id.1/p"),
    ]


def test_a_server_that_does_not_answer_is_reported_without_its_password():
    uri = "mongodb://me:a-secret-word@127.0.0.1:1/?serverSelectionTimeoutMS=50"
    with pytest.raises(RetriableError) as raised:
        list(lookup(question(uri, "id", "a", database="d")))
    assert "a-secret-word" not in str(raised.value)
