from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tieline_connectors.mongo.writing.collection import CollectionWriter, InsertResult


class PickyServer(CollectionWriter):
    """Rejects a whole batch because of one document, as a server that cannot parse it."""

    written: list[str]

    def insert_once(self, documents):
        if any(document["bad"] for document in documents):
            raise OperationFailure("Object exceeded nested depth", 15)
        self.written += [document["_id"] for document in documents]
        return InsertResult(0, {})


@pytest.mark.parametrize("invalid", [{0}, {6}, {3}, {0, 6}, {2, 3}, set(range(7)), set()])
def test_only_invalid_documents_of_a_rejected_batch_are_data_errors(invalid):
    with MongoClient[dict[str, Any]]("mongodb://127.0.0.1:1", connect=False) as client:
        server = PickyServer(client.a.b, 16_000_000)
        server.written = []

        inserted = server.insert([{"_id": str(n), "bad": n in invalid} for n in range(7)])

    assert set(inserted.failures) == invalid
    assert server.written == [str(n) for n in range(7) if n not in invalid]
