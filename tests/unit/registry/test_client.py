"""The client of an external registry, with a small HTTP server that answers two of its calls."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tieline.api import ConfigError, FatalError, RetriableError, Schema

pytest.importorskip("confluent_kafka.schema_registry", reason="the extra 'registry' is not installed")
from tieline.registry.client import RemoteSchemaStore

LONG = Schema('"long"')


class Registry(ThreadingHTTPServer):
    """Registers schemas and returns them by id. ``status`` is the error of every answer, if set."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.schemas: list[str] = []
        self.requests: list[str] = []
        self.status = 0
        self.body = b""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    @staticmethod
    def handle_error(*_):
        """A client that disconnects is not an error here."""


class Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if sent["schema"] not in self.server.schemas:
            self.server.schemas.append(sent["schema"])
        self._answer({"id": self.server.schemas.index(sent["schema"]) + 1})

    def do_GET(self):
        number = int(self.path.partition("?")[0].rpartition("/")[2])
        known = 0 < number <= len(self.server.schemas)
        self._answer({"schema": self.server.schemas[number - 1]} if known else None)

    def _answer(self, answer):
        self.server.requests.append(f"{self.command} {self.path.partition('?')[0]}")
        status = self.server.status or (200 if answer else 404)
        error = {"error_code": status * 100 + 3, "message": "no"}
        body = self.server.body or json.dumps(answer if status == 200 else error).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def registry():
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def store(registry):
    store = RemoteSchemaStore({"url": registry.url})
    yield store
    store.close()


def test_a_schema_is_registered_and_found_by_its_id(store, registry):
    assert store.register("t-value", LONG) == 1
    assert store.register("lab.F", Schema('{"type":"fixed","name":"lab.F","size":1}')) == 2
    assert store.schema(2) == Schema('{"type":"fixed","name":"lab.F","size":1}')
    assert registry.requests == [
        "POST /subjects/t-value/versions",
        "POST /subjects/lab.F/versions",
        *registry.requests[2:],
    ]


def test_ids_and_schemas_are_requested_once(store, registry):
    store.register("t-value", LONG)
    store.schema(1)
    requests = list(registry.requests)
    registry.status = 503
    assert (store.register("t-value", LONG), store.schema(1)) == (1, LONG)
    assert registry.requests == requests


def test_an_unknown_id_is_none_and_is_requested_again(store, registry):
    assert store.schema(1) is None
    registry.schemas.append('"long"')
    assert store.schema(1) == LONG


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_a_server_error_is_an_outage(status, store, registry):
    registry.status = status
    with pytest.raises(RetriableError, match="the schema registry could not register t-value"):
        store.register("t-value", LONG)
    with pytest.raises(RetriableError, match="the schema registry could not look up id 1"):
        store.schema(1)
    registry.status = 0
    assert store.register("t-value", LONG) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422])
def test_a_rejected_registration_is_fatal(status, store, registry):
    registry.status = status
    with pytest.raises(FatalError, match="the schema registry refused to register t-value"):
        store.register("t-value", LONG)


def test_an_answer_that_is_not_from_a_registry_is_an_outage(store, registry):
    registry.body = b"<html>sign in</html>"
    with pytest.raises(RetriableError, match="the schema registry is unavailable"):
        store.register("t-value", LONG)


def test_a_connection_that_is_refused_is_an_outage():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        store = RemoteSchemaStore({"url": f"http://127.0.0.1:{port}"})
        with pytest.raises(RetriableError, match="the schema registry is unavailable"):
            store.register("t-value", LONG)
        with pytest.raises(RetriableError, match="the schema registry is unavailable"):
            store.schema(1)
        store.close()


def test_a_registry_that_does_not_answer_is_an_outage_after_its_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        store = RemoteSchemaStore({"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "timeout": "0.2"})
        with pytest.raises(RetriableError, match="the schema registry is unavailable"):
            store.schema(1)
        store.close()


def test_a_text_from_the_registry_that_is_not_a_schema_is_a_value_error(store, registry):
    registry.schemas.append('{"type": "nonsense"}')
    with pytest.raises(ValueError, match="not an Avro schema"):
        store.schema(1)


@pytest.mark.parametrize("settings", [{"url": ""}, {"url": "http://127.0.0.1:1", "max.retries": "many"}, {}])
def test_settings_that_the_client_rejects_are_a_configuration_problem(settings):
    with pytest.raises(ConfigError, match=r"schema\.registry\.url"):
        RemoteSchemaStore(settings)
