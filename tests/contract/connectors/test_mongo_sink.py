"""The MongoDB sink keeps the contract, on a server that speaks MongoDB's protocol."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from tieline.testing.contract import SinkContract
from tieline.testing.proxy import TcpProxy
from tieline_connectors.mongo.sink import MongoSink


class TestMongoSink(SinkContract):
    connector = MongoSink
    soon = 5.0  # a server that others use too
    in_order = False  # inserts are unordered: a collection has no order but that of its fields

    @pytest.fixture
    def database(self, mongo_uri):
        """A database of this test's own."""
        with MongoClient[dict[str, Any]](mongo_uri) as client:
            name = f"tieline_test_{uuid.uuid4().hex[:12]}"
            yield client[name]
            client.drop_database(name)

    @pytest.fixture
    def proxy(self, mongo_uri):
        (address,) = parse_uri(mongo_uri)["nodelist"]
        with TcpProxy(*address) as proxy:
            yield proxy

    @pytest.fixture
    def break_it(self, proxy):
        return proxy.refuse

    @pytest.fixture
    def heal_it(self, proxy):
        return proxy.accept

    @pytest.fixture
    def worker_settings(self):
        return {}

    @pytest.fixture
    def settings(self, proxy, database):
        return {
            # direct: or the server gives its own address, and the client passes the proxy by
            "connection.uri": f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true",
            "server.selection.timeout.ms": "500",
            "database": database.name,
            "collection": "values",
            "layout": "value",
        }

    @pytest.fixture
    def written(self, database):
        return lambda: [document["value"] for document in database["values"].find()]

    @pytest.fixture
    def bad_value(self):
        return {1j}  # nothing that BSON has a type for

    @pytest.fixture
    def outage(self):
        return {
            "connection.uri": "mongodb://127.0.0.1:1",
            "database": "nowhere",
            "collection": "values",
            "layout": "value",
            "server.selection.timeout.ms": "50",
        }
