from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from tieline_connectors.mongo.writing.collection import Documents, Inserted


class PickyServer(Documents):
    """Refuses a whole batch for one document, as a server does that cannot read it."""

    written: list[str]

    def _insert(self, documents):
        if any(document["bad"] for document in documents):
            raise OperationFailure("Object exceeded nested depth", 15)
        self.written += [document["_id"] for document in documents]
        return Inserted(0, {})


@pytest.mark.parametrize("culprits", [{0}, {6}, {3}, {0, 6}, {2, 3}, set(range(7)), set()])
def test_only_the_culprits_of_a_batch_that_is_refused_as_a_whole_are_data_errors(culprits):
    with MongoClient[dict[str, Any]]("mongodb://127.0.0.1:1", connect=False) as client:
        server = PickyServer(client.a.b, 16_000_000)
        server.written = []

        inserted = server.insert([{"_id": str(n), "bad": n in culprits} for n in range(7)])

    assert set(inserted.failures) == culprits
    assert server.written == [str(n) for n in range(7) if n not in culprits]
